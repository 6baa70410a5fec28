"""A child process of this interpreter, driven by one JSON request a line; both ends of it.

Requests come on the child's standard input and are answered on what was its standard output; that
itself becomes standard error, since the library prints there.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

REPLY_TIMEOUT_S = 60.0
CLOSE_TIMEOUT_S = 15.0
STDERR_LINES = 20


class MissingError(Exception):
    """What the child is to do needs something that this machine does not have."""


class ChildFailedError(Exception):
    """The child failed or did not answer; its text holds the end of what it printed."""


class Reply(msgspec.Struct, kw_only=True):
    """What became of a request: `answer`, or why not."""

    answer: Any = None
    error: str | None = None
    missing: str | None = None


def serve(answer: Callable[[bytes], Any]) -> None:
    """Answer requests until the input ends, then end the process.

    Args:
        answer: does what one request says; its result must fit into JSON.
    """
    with os.fdopen(os.dup(1), "wb") as replies:
        os.dup2(2, 1)
        for line in sys.stdin.buffer:
            try:
                reply = Reply(answer=answer(line))
            except MissingError as missing:
                reply = Reply(missing=str(missing))
            except Exception as error:  # noqa: BLE001 - the parent tells
                traceback.print_exc()
                reply = Reply(error=f"{type(error).__name__}: {error}")
            replies.write(msgspec.json.encode(reply) + b"\n")
            replies.flush()
    # The parent is gone, or wants no more: whatever thread is left has nothing to save.
    os._exit(0)


class Child:
    """The parent's end; use it as a context manager, so that the process ends.

    Args:
        name: what to call it in messages.
        module: whose `main` calls `serve`.
        argument: its only one.
        printed: the file for what it prints.
    """

    def __init__(self, name: str, module: str, argument: bytes, printed: Path) -> None:
        self.name = name
        self._printed = printed
        with printed.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, argument],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=out,
                cwd=Path(__file__).parents[1],
            )
        self._buffer = b""

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> int:
        """Close its input and wait for its end; it is killed when it does not come.

        Returns:
            Its exit status.
        """
        process = self.process
        process.send_signal(signal.SIGCONT)
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        return process.returncode

    def ask(self, request: msgspec.Struct, reply_timeout_s: float = REPLY_TIMEOUT_S) -> Any:
        """Have it do something, and wait for the answer.

        Raises:
            ChildFailedError: it failed, died or was silent for `reply_timeout_s`.
            MissingError: this machine lacks what that needs.
        """
        self.tell(request)
        return self.answer(reply_timeout_s)

    def tell(self, request: msgspec.Struct) -> None:
        """Have it do something; `answer` says what became of it."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(msgspec.json.encode(request) + b"\n")
            self.process.stdin.flush()
        except OSError as error:
            raise self._failed(f"it took no request ({error})") from error

    def answer(self, timeout_s: float = REPLY_TIMEOUT_S) -> Any:
        """Wait for what became of `tell`."""
        reply = msgspec.json.decode(self._line(timeout_s), type=Reply)
        if reply.missing is not None:
            raise MissingError(reply.missing)
        if reply.error is not None:
            raise self._failed(reply.error)
        return reply.answer

    def _line(self, timeout_s: float) -> bytes:
        assert self.process.stdout is not None
        fd = self.process.stdout.fileno()
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._buffer:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not select.select([fd], [], [], left_s)[0]:
                raise self._failed(f"no answer in {timeout_s:.0f} s")
            chunk = os.read(fd, 1 << 20)
            if not chunk:
                raise self._failed(f"it ended with status {self.process.wait()}")
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _failed(self, why: str) -> ChildFailedError:
        printed = self._printed.read_text(encoding="utf-8", errors="replace").splitlines()
        return ChildFailedError("\n".join([f"{self.name}: {why}", *printed[-STDERR_LINES:]]))

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Freeze it meanwhile."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)
