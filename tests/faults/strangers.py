"""Connections that do not behave."""

import random
import socket
import struct
import time
from collections.abc import Iterator

from replication.link_states import Role
from replication.peer import LocalSite, Peer
from ttserver.address import Address

TIMEOUT_S = 30.0
# A connection that takes nothing for so long is held back by the other side.
BLOCKED_S = 1.0


def connect(to: Address, source: str | None = None) -> socket.socket:
    """Connect; from another address of the loopback network when one is given."""
    return socket.create_connection(
        (to.host, to.port), TIMEOUT_S, source_address=(source, 0) if source else None
    )


def reset(sock: socket.socket) -> None:
    """Close with a reset instead of an orderly end."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def read_to_end(sock: socket.socket, deadline_s: float = TIMEOUT_S) -> bytes:
    """Read until the other side has closed; a time-out means that it does not."""
    end_s = time.monotonic() + deadline_s
    data = bytearray()
    while True:
        sock.settimeout(max(0.01, end_s - time.monotonic()))
        try:
            chunk = sock.recv(65536)
        except ConnectionResetError:
            return bytes(data)
        if not chunk:
            return bytes(data)
        data += chunk


def send_all(sock: socket.socket, data: bytes) -> None:
    """Send; the other side may have closed before it saw everything."""
    try:
        sock.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        return


def exchange(to: Address, data: bytes, deadline_s: float = TIMEOUT_S) -> bytes:
    """Send, say that nothing more comes, and give the answer."""
    with connect(to) as sock:
        send_all(sock, data)
        try:
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            return b""
        return read_to_end(sock, deadline_s)


def pour(sock: socket.socket, chunk: bytes, bytes_max: int) -> int:
    """Send the same again and again without ever reading.

    Returns:
        How many bytes the other side took before it closed, took no more, or had `bytes_max`.
    """
    sock.settimeout(BLOCKED_S)
    taken = 0
    try:
        while taken < bytes_max:
            taken += sock.send(chunk)
    except (TimeoutError, BrokenPipeError, ConnectionResetError):
        pass
    return taken


def garbage(seed: int, count: int) -> Iterator[bytes]:
    """Make byte strings of all lengths up to some thousand, with and without structure."""
    chance = random.Random(seed)
    tokens = [b"*", b"$", b"\r\n", b"-1", b"3", b"PING", b"\0", b"\xff", b"SET", b"0", b":", b"_"]
    for number in range(count):
        size = chance.choice([1, 2, 9, 40, 300, 5000])
        if number % 2:
            yield chance.randbytes(size)
        else:
            yield b"".join(chance.choices(tokens, k=size))


def introduce(to: Address, site: Address, priority: int = 0) -> tuple[socket.socket, Peer]:
    """Dial a replication port as this site and go through the handshake, as far as it goes."""
    peer = Peer(Role.DIALLER, LocalSite(site.host, site.port, priority, 5))
    peer.start()
    sock = connect(to)
    sock.sendall(peer.data_to_send())
    while not peer.ready and not peer.closed:
        data = sock.recv(65536)
        if not data:
            peer.receive_eof()
            break
        peer.receive_data(data)
        sock.sendall(peer.data_to_send())
    return sock, peer
