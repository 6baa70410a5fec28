"""Sockets of the replication port: listening, accepting, dialling every resolved address.

A name may resolve to IPv6 and IPv4; all addresses are tried, in the resolver's order, so that a
host without one of the families is never stuck on it.
"""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable

from replication.bodies import SiteAddress
from replication.errors import ReplicationError
from replication.link import prepare

BACKLOG = 128
CONNECT_TIMEOUT_S = 3.0  # one address; a closed port answers at once
ACCEPT_PAUSE_S = 0.5  # out of descriptors: leave the rest in the kernel's queue for a while


class Listener:
    """The listening sockets of one address.

    Args:
        loop: the event loop.
        address: host and port; port 0 lets the kernel choose.
        on_socket: called in the loop with each accepted, prepared socket.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        address: SiteAddress,
        on_socket: Callable[[socket.socket], None],
    ) -> None:
        self._loop = loop
        self._address = address
        self._on_socket = on_socket
        self._sockets: list[socket.socket] = []

    @property
    def port(self) -> int:
        """The bound port."""
        return int(self._sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Bind and listen on every address of the host.

        Raises:
            ReplicationError: the name does not resolve or no address could be bound.
        """
        host, port = self._address
        try:
            found = await self._loop.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
        except OSError as error:
            raise ReplicationError(
                f"the replication address {self._address} does not resolve: {error.strerror}",
                code="unresolved",
                hint="correct the local repmgr_site line in DB_CONFIG, or add the name to DNS.",
            ) from error
        problem: OSError | None = None
        for family, kind, protocol, _, where in dict.fromkeys(found):
            sock = socket.socket(family, kind, protocol)
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind(where)
                sock.listen(BACKLOG)
                sock.setblocking(False)
            except OSError as error:
                sock.close()
                problem = error
                if error.errno == errno.EADDRINUSE:
                    break  # half a listener would hide the mistake
                continue
            self._sockets.append(sock)
        if problem is not None and (not self._sockets or problem.errno == errno.EADDRINUSE):
            self.close()
            raise _bind_error(self._address, problem) from problem
        for sock in self._sockets:
            self._loop.add_reader(sock.fileno(), self._accept, sock)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(BACKLOG):
            try:
                sock, _where = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                self._loop.remove_reader(listening.fileno())
                self._loop.call_later(ACCEPT_PAUSE_S, self._resume, listening)
                return
            try:
                prepare(sock)
            except OSError:  # gone again already
                sock.close()
                continue
            self._on_socket(sock)

    def _resume(self, listening: socket.socket) -> None:
        if listening.fileno() >= 0:
            self._loop.add_reader(listening.fileno(), self._accept, listening)

    def close(self) -> None:
        """Stop listening."""
        for sock in self._sockets:
            with contextlib.suppress(ValueError):
                self._loop.remove_reader(sock.fileno())
            sock.close()
        self._sockets.clear()


def _bind_error(address: SiteAddress, error: OSError) -> ReplicationError:
    if error.errno == errno.EADDRINUSE:
        hint = f"see who has it with `ss -ltnp 'sport = :{address.port}'`, or change the port."
    elif error.errno == errno.EADDRNOTAVAIL:
        hint = "the local repmgr_site line must name an address of this machine, or set"
        hint += " `[replication] listen` in ttserver.toml."
    else:
        hint = "ports below 1024 need privileges; use 5010."
    return ReplicationError(
        f"the replication port {address} cannot be opened: {error.strerror}",
        code="port",
        hint=hint,
    )


async def connect(loop: asyncio.AbstractEventLoop, address: SiteAddress) -> socket.socket:
    """Connect to a site, trying every address its name resolves to.

    Raises:
        OSError: none answered; the text names each address and its reason.

    *Cancellation:* closes the socket under way.
    """
    try:
        found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise OSError(f"the name {address.host} does not resolve ({error.strerror})") from error
    reasons = []
    for family, kind, protocol, _, where in dict.fromkeys(found):
        sock = socket.socket(family, kind, protocol)
        try:
            prepare(sock)
            await asyncio.wait_for(loop.sock_connect(sock, where), CONNECT_TIMEOUT_S)
        except TimeoutError:
            sock.close()
            reasons.append(f"{where[0]}: no answer in {CONNECT_TIMEOUT_S:.0f} s")
        except OSError as error:
            sock.close()
            reasons.append(f"{where[0]}: {(error.strerror or str(error)).lower()}")
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise OSError(", ".join(reasons) or "the name resolves to nothing")
