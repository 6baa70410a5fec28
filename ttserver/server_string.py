"""`user:password@server:port`, the way people name a server to `tt`; every part may be left out."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from storage.hosts import bare_host, host_problem
from ttserver.errors import ConfigurationError

SERVER_VARIABLE: Final = "TT_SERVER"
PASSWORD_VARIABLE: Final = "TT_PASSWORD"  # noqa: S105 - the name of a variable
HOST_DEFAULT: Final = "localhost"
PORT_DEFAULT: Final = 5000
_PORT: Final = re.compile("[0-9]{1,5}")
_PORT_MAX: Final = 65535


@dataclass(frozen=True, slots=True)
class ServerString:
    """Where to connect, and as whom.

    Args:
        user: None when none was named.
        password: None when none was given, to be asked for; never part of `str` or `repr`.
        host: a name or an address, IPv6 without brackets.
        port: TCP port.
    """

    user: str | None
    password: str | None = field(repr=False)
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def find_server(given: str | None, environment: Mapping[str, str]) -> ServerString:
    """Take -S, else $TT_SERVER, else this machine; the password else from $TT_PASSWORD.

    Raises:
        ConfigurationError: the string cannot be taken apart. Its text never quotes the string,
            because a password may be anywhere in it.
    """
    text = given if given is not None else environment.get(SERVER_VARIABLE, "")
    server = parse_server_string(text)
    password = environment.get(PASSWORD_VARIABLE)
    if server.password is None and password:
        return ServerString(server.user, password, server.host, server.port)
    return server


def find_servers(given: str | None, environment: Mapping[str, str]) -> list[ServerString]:
    """As `find_server`, where several servers may stand: `user:password@db1,db2:5001,db3`.

    Raises:
        ConfigurationError: see `find_server`.
    """
    text = given if given is not None else environment.get(SERVER_VARIABLE, "")
    credentials, at, places = text.strip().rpartition("@")
    return [
        find_server(f"{credentials}{at}{place.strip()}", environment) for place in places.split(",")
    ]


def parse_server_string(text: str) -> ServerString:
    """Take `user:password@server:port` apart.

    A password may hold `:` and `@`: the user ends at the first colon, the password at the last `@`.

    Raises:
        ConfigurationError: see `find_server`.
    """
    credentials, at, place = text.strip().rpartition("@")
    user, colon, password = credentials.partition(":")
    if at and not user:
        raise _wrong("the user before the `@` is missing")
    host, port = _place(place)
    return ServerString(user or None, password if colon and password else None, host, port)


def _place(place: str) -> tuple[str, int]:
    if place.startswith("["):
        host, bracket, rest = place.partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise _wrong("what follows `[` is not an IPv6 address with `]` and perhaps a port")
        host, port = bare_host(f"{host}]"), rest.removeprefix(":")
        if ":" not in host:
            raise _wrong("only an IPv6 address stands in brackets")
    elif place.count(":") > 1:
        raise _wrong("an IPv6 address must stand in brackets, as in [::1]:5000")
    else:
        host, _, port = place.partition(":")
    problem = host_problem(host) if host else None
    if problem is not None:
        raise _wrong("the server is neither a host name nor an address")
    if port and not (_PORT.fullmatch(port) and 1 <= int(port) <= _PORT_MAX):
        raise _wrong(f"the port is not a number from 1 to {_PORT_MAX}")
    return host or HOST_DEFAULT, int(port) if port else PORT_DEFAULT


def _wrong(why: str) -> ConfigurationError:
    return ConfigurationError(
        f"server string cannot be used: {why}",
        code="SERVER",
        hint=f"write user:password@server:port, parts may be left out: fred@db1, db1:5000 "
        f"(-S or ${SERVER_VARIABLE})",
    )
