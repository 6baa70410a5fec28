"""A network between sites that can be cut: one proxy before each site's replication port.

A site's address in the group is its proxy's; it listens elsewhere (`[replication] listen`). Who
dials says so in its first frame, so a proxy knows which two sites a connection is between, and a
cut holds the bytes of that pair in both directions, as a broken cable does: nothing is closed,
nothing is lost, everything arrives late or never.
"""

import asyncio
import struct
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from replication.wire import HEADER_BYTES, Header
from ttserver.address import Address

CHUNK_BYTES = 64 * 1024
CONNECT_TIMEOUT_S = 20.0
_LEGACY_PORT = struct.Struct("<H")
_LEGACY_PORT_AT = 4


class Cutter:
    """The proxies, on a thread of their own; use `cutter()`."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cutter", daemon=True)
        self._names: dict[tuple[str, int], str] = {}
        self._cut: set[frozenset[str]] = set()
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []
        self._thread.start()

    def add(self, name: str, public: Address, real: Address) -> None:
        """Put a proxy before a site."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            try:
                await self._serve(name, real, reader, writer)
            except (OSError, EOFError, TimeoutError, asyncio.CancelledError):
                pass  # one side is gone, or all of this: so is the other side
            finally:
                self._tasks.discard(task)
                writer.close()

        async def listen() -> None:
            server = await asyncio.start_server(serve, public.host, public.port)
            self._servers.append(server)

        self._names[(public.host, public.port)] = name
        self._run(listen())

    def cut(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Let nothing through between these."""
        self._set(lambda: self._cut.update(frozenset(pair) for pair in pairs))

    def isolate(self, name: str) -> None:
        """Cut a site off from all others."""
        self.cut((name, other) for other in self._names.values() if other != name)

    def heal(self) -> None:
        """Let everything through again."""
        self._set(self._cut.clear)

    def close(self) -> None:
        """End all connections."""

        async def end() -> None:
            for server in self._servers:
                server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        self._run(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _run(self, what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(CONNECT_TIMEOUT_S)

    def _set(self, change: Callable[[], None]) -> None:
        async def tell() -> None:
            async with self._changed:
                change()
                self._changed.notify_all()

        self._run(tell())

    async def _open(self, pair: frozenset[str]) -> None:
        if pair in self._cut:
            async with self._changed:
                await self._changed.wait_for(lambda: pair not in self._cut)

    async def _serve(
        self,
        name: str,
        real: Address,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        head = await reader.readexactly(HEADER_BYTES)
        header = Header.decode(head)
        body = await reader.readexactly(header.word1 + header.word2)
        (port,) = _LEGACY_PORT.unpack_from(body, _LEGACY_PORT_AT)
        host = body[header.word1 :].split(b"\0", 1)[0].decode()
        pair = frozenset((name, self._names.get((host, port), "a stranger")))
        await self._open(pair)
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            far_reader, far_writer = await asyncio.open_connection(real.host, real.port)
        try:
            far_writer.write(head + body)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(pair, reader, far_writer))
                both.create_task(self._pump(pair, far_reader, writer))
        except* (OSError, EOFError):
            pass
        finally:
            far_writer.close()

    async def _pump(
        self, pair: frozenset[str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(CHUNK_BYTES):
            await self._open(pair)
            writer.write(data)
            await writer.drain()
        await self._open(pair)
        raise EOFError  # ends the other direction as well


@contextmanager
def cutter() -> Iterator[Cutter]:
    """Give a network without cuts; its connections end with the context."""
    made = Cutter()
    try:
        yield made
    finally:
        with suppress(RuntimeError):
            made.close()
