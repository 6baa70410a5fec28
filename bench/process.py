"""The parent's end of a site's process."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import Any

import msgspec

from bench.cases import SiteSpec
from bench.child import REPLY_TIMEOUT_S, Child
from bench.site import Request


class SiteProcess:
    """A site in a process of its own; use it as a context manager, so that it ends.

    Args:
        spec: what to be.
    """

    def __init__(self, spec: SiteSpec) -> None:
        self.spec = spec
        self.name = f"{spec.engine} {spec.role}"
        Path(spec.home).mkdir(parents=True)
        printed = Path(spec.home) / "stderr.txt"
        self._child = Child(self.name, "bench.site", msgspec.json.encode(spec), printed)
        self.stopped = self._child.stopped
        self.answer = self._child.answer

    def __enter__(self) -> SiteProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.end()

    def ask(self, do: str, reply_timeout_s: float = REPLY_TIMEOUT_S, **what: Any) -> Any:
        """Have it do something, and wait for the answer; see `Child.ask`."""
        return self._child.ask(Request(do=do, **what), reply_timeout_s)

    def tell(self, do: str, **what: Any) -> None:
        """Have it do something; `answer` says what became of it."""
        self._child.tell(Request(do=do, **what))


def free_ports(count: int) -> list[int]:
    """Let the kernel choose ports that nobody uses now."""
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in socks:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in socks]
