"""The parent's end of a site's process."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from bench.cases import SiteSpec
from bench.engines.base import PeerMissingError
from bench.site import Reply, Request

REPLY_TIMEOUT_S = 60.0
CLOSE_TIMEOUT_S = 15.0
STDERR_LINES = 20


class SiteFailedError(Exception):
    """A site's process failed or did not answer; its text holds the end of what it printed."""


class SiteProcess:
    """A site in a process of its own; use it as a context manager, so that it ends.

    Args:
        spec: what to be.
    """

    def __init__(self, spec: SiteSpec) -> None:
        self.spec = spec
        self.name = f"{spec.engine} {spec.role}"
        Path(spec.home).mkdir(parents=True)
        self._printed = Path(spec.home) / "stderr.txt"
        with self._printed.open("wb") as printed:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.site", msgspec.json.encode(spec).decode()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=printed,
                cwd=Path(__file__).parents[1],
            )
        self._buffer = b""

    def __enter__(self) -> SiteProcess:
        return self

    def __exit__(self, *_: object) -> None:
        process = self._process
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

    def ask(self, do: str, reply_timeout_s: float = REPLY_TIMEOUT_S, **what: Any) -> Any:
        """Have it do something, and wait for the answer.

        Raises:
            SiteFailedError: it failed, died or was silent for `reply_timeout_s`.
            PeerMissingError: this machine does not have that engine.
        """
        self.tell(do, **what)
        return self.answer(reply_timeout_s)

    def tell(self, do: str, **what: Any) -> None:
        """Have it do something; `answer` says what became of it."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(msgspec.json.encode(Request(do=do, **what)) + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._failed(f"it took no request ({error})") from error

    def answer(self, timeout_s: float = REPLY_TIMEOUT_S) -> Any:
        """Wait for what became of `tell`."""
        reply = msgspec.json.decode(self._line(timeout_s), type=Reply)
        if reply.missing is not None:
            raise PeerMissingError(reply.missing)
        if reply.error is not None:
            raise self._failed(reply.error)
        return reply.answer

    def _line(self, timeout_s: float) -> bytes:
        assert self._process.stdout is not None
        fd = self._process.stdout.fileno()
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._buffer:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not select.select([fd], [], [], left_s)[0]:
                raise self._failed(f"no answer in {timeout_s:.0f} s")
            chunk = os.read(fd, 1 << 20)
            if not chunk:
                raise self._failed(f"it ended with status {self._process.wait()}")
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _failed(self, why: str) -> SiteFailedError:
        printed = self._printed.read_text(encoding="utf-8", errors="replace").splitlines()
        return SiteFailedError("\n".join([f"{self.name}: {why}", *printed[-STDERR_LINES:]]))

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Freeze it meanwhile."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)


def free_ports(count: int) -> list[int]:
    """Let the kernel choose ports that nobody uses now."""
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in socks:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in socks]
