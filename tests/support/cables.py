"""Cables between sites that run in the test's own event loop: they can be cut, and mended.

A cut cable says nothing: what goes into it stays there, as on a network that loses every packet.
Mended, it delivers what its two ends have not given up meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from itertools import product

import pytest

from replication import network
from replication.bodies import SiteAddress
from replication.errors import ReplicationError
from replication.hub import Hub
from tests.support.engines import EngineSite

PIECE_BYTES = 65536

Pair = frozenset[str]


class Cables:
    """Lays itself under every connection that a hub opens from now on.

    Args:
        patch: takes it away again when the test ends.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._cut: set[Pair] = set()
        self._changed = asyncio.Event()
        self._carriers: set[asyncio.Task[None]] = set()
        cables = self

        async def connect(hub: Hub, address: SiteAddress) -> socket.socket:
            return await cables._connect(hub, address)

        patch.setattr(Hub, "_connect", connect)

    def cut(self, one: EngineSite, *others: EngineSite) -> None:
        """Cut the cables between a site and others."""
        self._cut |= {_pair(one, other) for other in others}
        self._wake()

    def split(self, part: list[EngineSite], rest: list[EngineSite]) -> None:
        """Cut all cables between two parts of a group."""
        for one, other in product(part, rest):
            self.cut(one, other)

    def mend(self) -> None:
        """Mend all."""
        self._cut.clear()
        self._wake()

    async def close(self) -> None:
        """End what carries bytes."""
        for task in self._carriers:
            task.cancel()
        await asyncio.gather(*self._carriers, return_exceptions=True)

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _connect(self, hub: Hub, address: SiteAddress) -> socket.socket:
        pair = frozenset({str(hub._local.address), str(address)})
        if pair in self._cut:
            raise ReplicationError(
                f"{address} cannot be reached: the cable is cut", code="unreachable", hint="-"
            )
        loop = asyncio.get_running_loop()
        try:
            far = await network.connect(loop, address)
        except OSError as error:
            raise ReplicationError(
                f"{address} cannot be reached: {error}", code="unreachable", hint="-"
            ) from error
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen(1)
            near = await network.connect(loop, SiteAddress(*listening.getsockname()))
            inner, _ = listening.accept()
        inner.setblocking(False)
        ends = _Ends(inner, far)
        for source, target in ((inner, far), (far, inner)):
            task = loop.create_task(self._carry(pair, ends, source, target))
            self._carriers.add(task)
            task.add_done_callback(self._carriers.discard)
        return near

    async def _carry(
        self, pair: Pair, ends: _Ends, source: socket.socket, target: socket.socket
    ) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError), ends:
            while piece := await loop.sock_recv(source, PIECE_BYTES):
                await self._mended(pair)
                await loop.sock_sendall(target, piece)
            await self._mended(pair)
            target.shutdown(socket.SHUT_WR)

    async def _mended(self, pair: Pair) -> None:
        while pair in self._cut:
            await self._changed.wait()


class _Ends:
    """Both sockets of a cable; closed when both directions are over."""

    def __init__(self, *sockets: socket.socket) -> None:
        self._sockets = sockets
        self._open = 2

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._open -= 1
        if not self._open:
            for each in self._sockets:
                each.close()


def _pair(one: EngineSite, other: EngineSite) -> Pair:
    return frozenset({str(one.address), str(other.address)})


@pytest.fixture
async def cables(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cables]:
    made = Cables(monkeypatch)
    yield made
    await made.close()
