"""A client of the client port without a socket: bytes go straight into a session.

The transport is a fake that keeps what is written; everything behind it is the server's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import hiredis

from replication.journal import Journal
from tests.support.engine import SmallAuth, SmallEngine, settings_for
from ttserver.config import load
from ttserver.engine import Engine
from ttserver.home import Home
from ttserver.listener import Listener
from ttserver.session import ClientSession
from ttserver.settings import Settings

DEADLINE_S = 20.0
EngineKind = Literal["small", "real"]
NOTHING = object()


class Error(str):
    """An error reply."""

    __slots__ = ()


class Pipe(asyncio.Transport):
    """The transport of a client that reads nothing until the test looks.

    Attributes:
        written: all bytes so far.
        buffered: what `get_write_buffer_size` says.
    """

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.99", 4711), "sockname": ("192.0.2.7", 5000)})
        self.written = bytearray()
        self.writes = 0
        self.longest_write = 0
        self.closed = asyncio.Event()
        self.grown = asyncio.Event()
        self.aborted = False
        self.buffered = 0
        self._reading = True
        self.protocol: ClientSession | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed.is_set(), "written after the end"
        self.written += data
        self.writes += 1
        self.longest_write = max(self.longest_write, len(data))
        self.grown.set()

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def is_closing(self) -> bool:
        return self.closed.is_set()

    def is_reading(self) -> bool:
        return self._reading

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self.grown.set()

    def close(self) -> None:
        if not self.closed.is_set():
            self.closed.set()
            self.grown.set()
            if self.protocol is not None:
                asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        self.aborted = True
        self.close()


class Wire:
    """One client.

    Args:
        listener: who serves it; it need not be started.
    """

    def __init__(self, listener: Listener) -> None:
        self.pipe = Pipe()
        self.session = listener.connect()
        self.pipe.protocol = self.session
        self.session.connection_made(self.pipe)
        self._reader = hiredis.Reader(
            replyError=cast("Callable[[str], Exception]", Error),
            notEnoughData=NOTHING,
            protocolError=AssertionError,
        )
        self._fed = 0

    def send(self, data: bytes) -> None:
        """Hand bytes to the server as one chunk."""
        if not self.pipe.closed.is_set():
            self.session.data_received(data)

    async def reply(self) -> Any:
        """Wait for the next reply.

        Raises:
            EOFError: the connection was closed instead.
        """
        async with asyncio.timeout(DEADLINE_S):
            while True:
                self.pipe.grown.clear()
                fresh = bytes(self.pipe.written[self._fed :])
                if fresh:
                    self._fed += len(fresh)
                    self._reader.feed(fresh)
                value = self._reader.gets()
                if value is not NOTHING:
                    return value
                if self.pipe.closed.is_set():
                    raise EOFError
                await self.pipe.grown.wait()

    async def replies(self, count: int) -> list[Any]:
        """Wait for so many replies."""
        return [await self.reply() for _ in range(count)]

    async def call(self, *args: object) -> Any:
        """Send one command and wait for its reply."""
        self.send(packed(*args))
        return await self.reply()

    async def pipeline(self, *commands: Sequence[object]) -> list[Any]:
        """Send commands in one chunk and wait for all replies."""
        self.send(b"".join(packed(*command) for command in commands))
        return await self.replies(len(commands))

    async def login(self, user: str = "fred") -> Wire:
        """Log on."""
        assert await self.call("AUTH", user, "secret") == b"OK"
        return self

    async def closed(self) -> bytes:
        """Wait for the end; gives the bytes written that no reply was made of yet."""
        async with asyncio.timeout(DEADLINE_S):
            await self.pipe.closed.wait()
        rest = bytes(self.pipe.written[self._fed :])
        self._fed = len(self.pipe.written)
        return rest


def packed(*args: object) -> bytes:
    """Encode a command; numbers and text are turned into bytes."""
    parts = [arg if isinstance(arg, bytes) else str(arg).encode() for arg in args]
    return bytes(hiredis.pack_command(cast("Any", tuple(parts))))


@asynccontextmanager
async def small_listener(
    home: Path, settings: Settings | None = None
) -> AsyncIterator[tuple[Listener, SmallEngine]]:
    """A listener over the small engine; its port is not open."""
    engine = SmallEngine(home, settings)
    await engine.start()
    listener = Listener(engine, SmallAuth())
    try:
        yield listener, engine
    finally:
        await listener.stop()
        await engine.stop()


@asynccontextmanager
async def real_listener(
    home: Path, settings: Settings | None = None
) -> AsyncIterator[tuple[Listener, Engine]]:
    """A listener over the server's engine, without replication; its port is not open."""
    config = replace(load(Home(home), install=True), settings=settings or settings_for())
    journal = Journal(Home(home).journal, 2**20, 1, "127.0.0.1:5010", False)
    engine = Engine(config, journal, replication=False)
    await engine.start()
    listener = Listener(engine, SmallAuth())
    try:
        await _until_it_takes_writes(engine)
        yield listener, engine
    finally:
        await listener.stop()
        await engine.stop()
        journal.close()


async def _until_it_takes_writes(engine: Engine) -> None:
    if engine.read_only:
        ready = asyncio.Event()
        engine.on_change.append(lambda: None if engine.read_only else ready.set())
        async with asyncio.timeout(DEADLINE_S):
            await ready.wait()
