"""Puts the simulated parts where the replication package looks for the real ones.

Sockets, the clock, the apply thread, database handles, and the file beside the environment.
"""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

from berkeleydb import db

from replication.apply import Applier
from replication.bodies import SiteAddress
from replication.memory import Memory
from tests.sim.databases import SimulatedDatabase
from tests.sim.loop import SimulatedLoop
from tests.sim.network import Listener, Network
from tests.sim.process import SimulatedApplier, SiteEnv


def new_handle(env: db.DBEnv) -> Any:
    """Stand in for `library.new_handle`."""
    return SimulatedDatabase(cast(SiteEnv, env))


def make_applier(env: db.DBEnv, *arguments: Any, **named: Any) -> Applier:
    """Stand in for `Applier`."""
    made = SimulatedApplier(env, *arguments, **named)
    made.process = cast(SiteEnv, env).process
    return made


class NothingLent:
    """Stands in for `DirectReader`: the apply thread has no socket of its own here."""

    any_lent = False

    def __init__(self, _has_work: Callable[[], bool]) -> None:
        pass

    def ring(self) -> None:
        """Nobody sleeps."""

    def close(self) -> None:
        """There is nothing."""


class SocketWatch:
    """Stands in for `select.epoll`, by which a link waits for its socket: it is that socket."""

    def __init__(self) -> None:
        self._number = -1

    def register(self, number: int, _events: int) -> None:
        self._number = number

    def fileno(self) -> int:
        return self._number

    def close(self) -> None:
        """The socket is closed by the link."""


@contextmanager
def installed(
    network: Network, memories: dict[Path, Memory], now: Callable[[], float]
) -> Iterator[None]:
    """Install them for as long as a simulation runs."""

    def load(path: Path) -> Memory:
        return memories.get(path, Memory())

    def save(path: Path, memory: Memory) -> None:
        memories[path] = memory

    def listener(loop: Any, _address: SiteAddress, on_socket: Any) -> Listener:
        return Listener(network, loop, on_socket)

    async def connect(loop: Any, address: SiteAddress) -> Any:
        return await network.connect(cast(SimulatedLoop, loop), address)

    replaced: Mapping[str, object] = {
        "replication.network.Listener": listener,
        "replication.network.connect": connect,
        "replication.memory.load": load,
        "replication.memory.save": save,
        "replication.library.new_handle": new_handle,
        "replication.manager.Applier": make_applier,
        "replication.apply.DirectReader": NothingLent,
        "replication.link.select": SimpleNamespace(
            epoll=SocketWatch, EPOLLIN=select.EPOLLIN, EPOLLRDHUP=select.EPOLLRDHUP
        ),
    }
    clock = SimpleNamespace(monotonic=now)
    with ExitStack() as stack:
        for name, stand_in in replaced.items():
            stack.enter_context(patch(name, stand_in))
        for name, module in list(sys.modules.items()):
            if name.startswith("replication.") and getattr(module, "time", None) is time:
                stack.enter_context(patch(f"{name}.time", clock))
        yield
