"""Real TCP connections on loopback, and waiting for conditions with a deadline."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from replication.link import Link, prepare
from replication.link_states import Role
from replication.messages import RepType
from replication.peer import LocalSite, Peer

DEADLINE_S = 20.0
SITE = LocalSite("192.0.2.10", 5010, 1, 5)
_CONTROL = struct.Struct(">9I")


async def until(what: str, condition: Callable[[], object], deadline_s: float = DEADLINE_S) -> None:
    """Wait until `condition` holds."""
    end_s = asyncio.get_running_loop().time() + deadline_s
    while not condition():
        assert asyncio.get_running_loop().time() < end_s, f"not in {deadline_s} s: {what}"
        await asyncio.sleep(0.002)


@contextmanager
def connection(buffer_bytes: int | None = None) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Give both ends of a TCP connection, prepared as the replication port prepares its sockets.

    Args:
        buffer_bytes: small kernel buffers, so that a slow reader is felt soon.
    """
    with socket.socket() as listening:
        if buffer_bytes is not None:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        listening.bind(("127.0.0.1", 0))
        listening.listen(1)
        ours = socket.socket()
        if buffer_bytes is not None:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
        ours.connect(listening.getsockname())
        theirs, _ = listening.accept()
    with ours, theirs:
        prepare(ours)
        theirs.setblocking(False)
        yield ours, theirs


class Recorded:
    """A link on one end of a connection, and what it reported."""

    def __init__(self, sock: socket.socket, number: int = 1) -> None:
        self.received = bytearray()
        self.closed: list[str] = []
        loop = asyncio.get_running_loop()
        self.link = Link(
            loop, sock, Peer(Role.ACCEPTOR, SITE), number, self._on_data, self._on_closed
        )

    def _on_data(self, _link: Link, data: bytes) -> None:
        self.received += data

    def _on_closed(self, _link: Link, reason: str) -> None:
        self.closed.append(reason)


async def read_to_end(sock: socket.socket, *, step: int = 65536, pause: bool = False) -> bytes:
    """Read until the end of the stream, slowly if `pause`."""
    loop = asyncio.get_running_loop()
    data = bytearray()
    async with asyncio.timeout(DEADLINE_S):
        while chunk := await loop.sock_recv(sock, step):
            data += chunk
            if pause:
                await asyncio.sleep(0)
    return bytes(data)


def control(
    kind: RepType, *, generation: int = 1, flags: int = 0, lsn: tuple[int, int] = (1, 28)
) -> bytes:
    """Return a control part as the library makes it."""
    return _CONTROL.pack(7, 19, *lsn, kind, generation, 0, 0, flags)
