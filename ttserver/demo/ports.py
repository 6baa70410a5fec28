"""Addresses for sites that all run on this machine."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from ttserver.address import Address

CLIENT_PORT = 5000
REPLICATION_PORT = 5010


@contextmanager
def reserved(host: str, port: int = 0) -> Iterator[Address]:
    """Keep a port for a daemon of ours while the context lasts.

    A bound socket that does not listen keeps the kernel from giving the port to anybody who does
    not ask for it by number, outgoing connections included. A server that sets SO_REUSEADDR, as
    ours do, can listen on it all the same, and connecting to it is refused until one does.

    Args:
        host: an address of this machine.
        port: 0 lets the kernel choose.

    Raises:
        OSError: the port is taken, or the address is not of this machine.

    Source: ip(7), socket(7) on SO_REUSEADDR; Linux.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((host, port))
        yield Address(host, int(held.getsockname()[1]))


def free(*addresses: Address) -> bool:
    """Tell whether all of these could be listened on now."""
    with ExitStack() as stack:
        try:
            for address in addresses:
                trial = stack.enter_context(socket.socket())
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                trial.bind((address.host, address.port))
                trial.listen(1)
        except OSError:
            return False
    return True
