"""`HOST:PORT` as people write it; an IPv6 address stands in brackets."""

import re

import msgspec

from storage.hosts import bare_host, host_problem, is_wildcard

PORT_MAX = 65535


class Address(msgspec.Struct, frozen=True, order=True):
    """A host (a name or an address, without brackets) and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def wildcard(self) -> bool:
        """Whether this means every interface, and so is good for listening only."""
        return is_wildcard(self.host)


def parse_address(text: str, *, port_min: int = 1) -> Address:
    """Read HOST:PORT.

    Args:
        text: such as `db1:5010`, `192.0.2.1:5010`, `[::1]:5010`.
        port_min: 0 where the kernel may choose the port.

    Raises:
        ValueError: with the reason, a sentence's end: "got db1".
    """
    host, colon, port = text.strip().rpartition(":")
    if not colon:
        raise ValueError(f'must be HOST:PORT, got "{text}"')
    if ":" in host and bare_host(host) == host:
        raise ValueError(f'must be HOST:PORT with an IPv6 address in brackets, got "{text}"')
    host = bare_host(host)
    problem = host_problem(host)
    if problem is not None:
        raise ValueError(f'must be HOST:PORT, got "{text}": {problem}')
    if not re.fullmatch("[0-9]{1,5}", port) or not port_min <= int(port) <= PORT_MAX:
        raise ValueError(f'must have a port of {port_min}..{PORT_MAX}, got "{text}"')
    return Address(host, int(port))
