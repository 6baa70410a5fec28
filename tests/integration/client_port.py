"""A client port on loopback, served from a thread of its own, for blocking clients and programs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvloop

from tests.support.wire import real_listener, small_listener
from ttserver.listener import Listener
from ttserver.settings import Settings

DEADLINE_S = 30.0
SERVE = {"small": small_listener, "real": real_listener}


class ServedPort:
    """A port that is being served.

    Attributes:
        listener, engine: what serves it; touch them through `call` only.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, listener: Listener, engine: Any, port: int
    ) -> None:
        self._loop = loop
        self.listener = listener
        self.engine = engine
        self.port = port

    def wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(DEADLINE_S)

    def call(self, function: Callable[[], Any]) -> Any:
        """Run a function in the server's loop."""

        async def run() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(DEADLINE_S)


@contextmanager
def served_port(home: Path, kind: str, settings: Settings | None = None) -> Iterator[ServedPort]:
    """Serve a port until the block ends.

    Args:
        home: an empty directory.
        kind: `small` or `real`, the engine.
        settings: limits and the like; the port is the kernel's choice.
    """
    started: list[ServedPort | Exception] = []
    ready = threading.Event()
    stop: list[Callable[[], object]] = []

    async def serve() -> None:
        asked = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with SERVE[kind](home, settings) as (listener, engine):
            await listener.start()
            port = listener.addresses[0].port
            stop.append(lambda: loop.call_soon_threadsafe(asked.set))
            started.append(ServedPort(loop, listener, engine, port))
            ready.set()
            await asked.wait()

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(serve())
        except Exception as error:
            started.append(error)
            raise
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="client-port")
    thread.start()
    try:
        assert ready.wait(DEADLINE_S), "the port was not opened in time"
        first = started[0]
        if isinstance(first, Exception):
            raise first
        yield first
    finally:
        for ask in stop:
            ask()
        thread.join(DEADLINE_S)
        assert not thread.is_alive(), "the server did not stop"
