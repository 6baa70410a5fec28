"""Try a port of this machine, ask another site who answers there; blocking, for the command line.

Asks one question on a connection of its own and closes it, so that neither a running group nor a
native site takes this for a member that came or went.
"""

import errno
import socket
import time
from dataclasses import dataclass

from replication.bodies import Standing
from replication.errors import ReplicationError
from replication.link_states import Role
from replication.messages import OwnCode
from replication.peer import LocalSite, Peer
from replication.peer_events import (
    LinkEnded,
    LinkFailed,
    SiteIdentified,
    StandingReceived,
)

RECEIVE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found at an address.

    Args:
        site: who answered, None when it does not speak the replication protocol.
        standing: what it holds; only ttserver sites tell.
        problem: one phrase on what went wrong, None when nothing did.
        reached: a TCP connection came about.
    """

    site: SiteIdentified | None = None
    standing: Standing | None = None
    problem: str | None = None
    reached: bool = False


def addresses_of(host: str, port: int) -> list[tuple[int, str]]:
    """Resolve a name to all its addresses, whatever their family.

    Returns:
        Pairs of family and numeric address, each once, in the resolver's order.

    Raises:
        OSError: the name does not resolve.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys((int(family), str(where[0])) for family, *_, where in found))


def ask_site(local: LocalSite, host: str, port: int, *, timeout_s: float) -> Answer:
    """Connect to a site, trying every address of its name, and ask what it holds.

    Args:
        local: what this site says of itself.
        host: name or address, as configured.
        port: its replication port.
        timeout_s: for one address's connection, and again for the whole conversation, seconds.
    """
    problems = []
    try:
        addresses = addresses_of(host, port)
    except OSError as error:
        return Answer(problem=f"{host} does not resolve: {error.strerror or error}")
    for _, address in addresses:
        try:
            with socket.create_connection((address, port), timeout=timeout_s) as connection:
                return _converse(connection, local, timeout_s)
        except OSError as error:
            problems.append(f"{address}: {_reason(error)}")
    return Answer(problem=", ".join(problems))


def accepts(host: str, port: int, *, timeout_s: float) -> bool:
    """Tell whether anything listens there."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s):
            return True
    except OSError:
        return False


def cannot_listen(host: str, port: int) -> OSError | None:
    """Try to listen on every address of a name as the daemon would; None when that works."""
    try:
        for family, address in addresses_of(host, port):
            with socket.socket(family, socket.SOCK_STREAM) as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                trial.bind((address, port))
                # Two sockets may be bound to one port; only one may listen.
                trial.listen(1)
    except OSError as error:
        return error
    return None


def listen_hint(error: OSError, port: int) -> str:
    """Say what to do about a port that cannot be listened on."""
    hints = {
        errno.EADDRINUSE: f"see who holds it (ss -ltnp 'sport = :{port}'), or change the address",
        errno.EADDRNOTAVAIL: "write an address of this machine (ip address)",
        errno.EACCES: "take a port above 1023",
    }
    return hints.get(error.errno or 0, "change the address")


def _converse(connection: socket.socket, local: LocalSite, timeout_s: float) -> Answer:
    deadline = time.monotonic() + timeout_s
    peer = Peer(Role.DIALLER, local, request=OwnCode.SITE_QUERY)
    site: SiteIdentified | None = None
    standing: Standing | None = None
    problem: str | None = None
    peer.start()
    try:
        while not peer.closed:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            if out := peer.data_to_send():
                connection.sendall(out)
            data = connection.recv(RECEIVE_BYTES)
            for event in peer.receive_data(data) if data else peer.receive_eof():
                match event:
                    case SiteIdentified():
                        site = event
                    case StandingReceived():
                        standing = event.standing
                    case LinkFailed():
                        problem = str(event.error)
                    case LinkEnded():
                        problem = event.reason
                    case _:
                        pass
    except OSError as error:
        problem = _reason(error)
    except ReplicationError as error:
        problem = str(error)
    return Answer(site, standing, problem, reached=True)


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return (error.strerror or str(error)).lower()
