"""Commands about the connection itself: logon, protocol, name, and the list of clients.

Source: Redis, the command reference of each; `networking.c` for the lines of CLIENT LIST.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from ttserver.commands.arguments import integer, positive, syntax_error, text
from ttserver.commands.context import Client
from ttserver.commands.table import Command, Kind
from ttserver.errors import TtserverError
from ttserver.replies import OK, PONG, CommandError, Simple, Value, Verbatim

NAME_BYTES_MAX: Final = 256
REFUSED_LOGON: Final = "WRONGPASS invalid username-password pair or user is disabled."
_RESET: Final = Simple("RESET")


async def hello(client: Client, args: Sequence[bytes]) -> Value:
    """HELLO [2|3 [AUTH user password] [SETNAME name]]."""
    protocol = client.protocol
    if len(args) > 1:
        protocol = integer(args[1], "ERR Protocol version is not an integer or out of range")
        if protocol not in (2, 3):
            raise CommandError("NOPROTO unsupported protocol version")
    credentials, name = _hello_options(args)
    if credentials is not None:
        await _login(client, *credentials)
    if client.login is None:
        raise CommandError(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the "
            "HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and "
            "select the RESP protocol version at the same time"
        )
    if name is not None:
        client.name = _valid_name(name)
    client.protocol = protocol
    engine = client.server.engine
    return {
        b"server": b"ttserver",
        b"version": client.server.version,
        b"proto": protocol,
        b"id": client.id,
        b"mode": b"standalone",
        b"role": b"master" if engine.role == "master" else b"replica",
        b"readonly": int(engine.read_only),
        b"modules": [],
    }


def _hello_options(args: Sequence[bytes]) -> tuple[tuple[bytes, bytes] | None, bytes | None]:
    credentials, name, at = None, None, 2
    while at < len(args):
        option = args[at].upper()
        if option == b"AUTH" and at + 2 < len(args):
            credentials = (args[at + 1], args[at + 2])
            at += 3
        elif option == b"SETNAME" and at + 1 < len(args):
            name = args[at + 1]
            at += 2
        else:
            raise CommandError(f"ERR Syntax error in HELLO option '{text(args[at])}'")
    return credentials, name


async def auth(client: Client, args: Sequence[bytes]) -> Value:
    """AUTH user password."""
    if len(args) == 2:
        raise CommandError(
            "WRONGPASS AUTH needs a user and a password here: there is no default user, so a "
            "password alone says nothing about who you are"
        )
    if len(args) > 3:
        raise syntax_error()
    await _login(client, args[1], args[2])
    return OK


async def _login(client: Client, user: bytes, password: bytes) -> None:
    try:
        # What is no UTF-8 matches no user; it must look like any other wrong password.
        names = user.decode(), password.decode()
        client.login = await client.server.auth.login(*names, client.peer)
    except UnicodeDecodeError:
        client.server.totals.logons_refused += 1
        raise CommandError(REFUSED_LOGON) from None
    except TtserverError as refused:
        if refused.code in ("LOADING", "TRYAGAIN", "MASTERDOWN", "NODATA"):
            raise CommandError(f"{refused.code} {refused}") from None
        client.server.totals.logons_refused += 1
        raise CommandError(REFUSED_LOGON) from None


def ping(_client: Client, args: Sequence[bytes]) -> Value:
    """PING [message]."""
    if len(args) > 2:
        raise CommandError("ERR wrong number of arguments for 'ping' command")
    return args[1] if len(args) == 2 else PONG


def echo(_client: Client, args: Sequence[bytes]) -> Value:
    """ECHO message."""
    return args[1]


def quit_(client: Client, _args: Sequence[bytes]) -> Value:
    """QUIT: answer, then close."""
    client.end("quit")
    return OK


def reset(client: Client, _args: Sequence[bytes]) -> Value:
    """RESET: as after connecting, logged out."""
    client.queued = None
    client.unwatch()
    client.login = None
    client.unknown_since = client.server.now()
    client.protocol = 2
    client.name = b""
    client.ack_policy = client.ack_timeout_s = None
    return _RESET


def select(_client: Client, args: Sequence[bytes]) -> Value:
    """SELECT 0: there is one database."""
    if integer(args[1], "ERR invalid DB index") != 0:
        raise CommandError("ERR DB index is out of range: there is one database, 0")
    return OK


# -- CLIENT


def client_id(client: Client, _args: Sequence[bytes]) -> Value:
    """CLIENT ID."""
    return client.id


def client_getname(client: Client, _args: Sequence[bytes]) -> Value:
    """CLIENT GETNAME."""
    return client.name or None


def client_setname(client: Client, args: Sequence[bytes]) -> Value:
    """CLIENT SETNAME name; an empty name takes it away."""
    client.name = _valid_name(args[2])
    return OK


def _valid_name(name: bytes) -> bytes:
    if len(name) > NAME_BYTES_MAX:
        raise CommandError(f"ERR a client name has at most {NAME_BYTES_MAX} bytes")
    if not _printable(name):
        raise CommandError(
            "ERR Client names cannot contain spaces, newlines or special characters."
        )
    return name


def _printable(word: bytes) -> bool:
    return all(33 <= byte <= 126 for byte in word)


def client_setinfo(client: Client, args: Sequence[bytes]) -> Value:
    """CLIENT SETINFO LIB-NAME|LIB-VER value."""
    option, value = args[2].upper(), args[3]
    if option not in (b"LIB-NAME", b"LIB-VER"):
        raise CommandError(f"ERR Unrecognized option '{text(args[2])}'")
    if len(value) > NAME_BYTES_MAX or not _printable(value):
        raise CommandError(
            f"ERR {text(args[2]).lower()} cannot contain spaces, newlines or special characters."
        )
    if option == b"LIB-NAME":
        client.library = value
    else:
        client.library_version = value
    return OK


def client_info(client: Client, _args: Sequence[bytes]) -> Value:
    """CLIENT INFO."""
    return Verbatim(_line(client).encode() + b"\n")


def client_list(client: Client, args: Sequence[bytes]) -> Value:
    """CLIENT LIST [TYPE type] [ID id ...]."""
    chosen = _chosen(client, args)
    return Verbatim("".join(_line(one) + "\n" for one in chosen).encode())


def _chosen(client: Client, args: Sequence[bytes]) -> Iterator[Client]:
    clients = client.server.clients
    if len(args) == 2:
        return iter(list(clients.values()))
    option = args[2].upper()
    if option == b"TYPE" and len(args) == 4:
        everyone = _client_type(args[3]) == b"normal"
        return iter(list(clients.values()) if everyone else [])
    if option == b"ID" and len(args) > 3:
        ids = [positive(word, "ERR Invalid client ID") for word in args[3:]]
        return iter([clients[number] for number in ids if number in clients])
    raise syntax_error()


def _client_type(word: bytes) -> bytes:
    kind = word.lower()
    if kind not in (b"normal", b"master", b"replica", b"slave", b"pubsub"):
        raise CommandError(f"ERR Unknown client type '{text(word)}'")
    return kind


def _line(client: Client) -> str:
    now = client.server.now()
    multi = -1 if client.queued is None else len(client.queued.commands)
    flags = ("x" if client.queued is not None else "") or "N"
    facts = {
        "id": client.id,
        "addr": client.peer,
        "laddr": client.local,
        "fd": client.fd,
        "name": text(client.name),
        "age": int(now - client.since),
        "idle": max(0, int(now - client.last_active)),
        "flags": flags,
        "db": 0,
        "sub": 0,
        "psub": 0,
        "ssub": 0,
        "multi": multi,
        "watch": len(client.watched),
        "tot-net-in": client.bytes_in,
        "tot-net-out": client.bytes_out,
        "tot-cmds": client.commands,
        "cmd": client.last_command or "NULL",
        "user": client.user or "(none)",
        "resp": client.protocol,
        "lib-name": text(client.library),
        "lib-ver": text(client.library_version),
    }
    return " ".join(f"{name}={value}" for name, value in facts.items())


def client_kill(client: Client, args: Sequence[bytes]) -> Value:
    """CLIENT KILL address | filters: ID, ADDR, LADDR, USER, TYPE, MAXAGE, SKIPME."""
    if len(args) == 3:
        address = text(args[2])
        found = [one for one in client.server.clients.values() if one.peer == address]
        if not found:
            raise CommandError("ERR No such client")
        _kill(found)
        return OK
    if len(args) % 2:
        raise syntax_error()
    skip_me, tests = True, []
    for option, value in zip(args[2::2], args[3::2], strict=True):
        if option.upper() == b"SKIPME":
            skip_me = _yes(value)
        else:
            tests.append(_kill_filter(option.upper(), value))
    doomed = [
        one
        for one in list(client.server.clients.values())
        if all(test(one) for test in tests) and not (skip_me and one is client)
    ]
    _kill(doomed)
    return len(doomed)


def _kill_filter(option: bytes, value: bytes) -> Callable[[Client], bool]:
    shown = text(value)
    match option:
        case b"ID":
            number = positive(value, "ERR client-id should be greater than 0")
            return lambda one: one.id == number
        case b"ADDR":
            return lambda one: one.peer == shown
        case b"LADDR":
            return lambda one: one.local == shown
        case b"USER":
            return lambda one: one.user == shown
        case b"TYPE":
            normal = _client_type(value) == b"normal"
            return lambda _one: normal
        case b"MAXAGE":
            age_s = positive(value)
            return lambda one: one.server.now() - one.since >= age_s
        case _:
            raise syntax_error()


def _yes(word: bytes) -> bool:
    answer = word.lower()
    if answer not in (b"yes", b"no"):
        raise syntax_error()
    return answer == b"yes"


def _kill(clients: Sequence[Client]) -> None:
    for one in clients:
        one.end("killed")


def _nothing(_client: Client, _args: Sequence[bytes]) -> Value:
    raise AssertionError("a container is never run itself")


def _client_sub(
    name: str, arity: int, run: Callable[..., Any], usage: str, summary: str, **more: Any
) -> Command:
    return Command(
        f"client|{name}", arity, Kind.LOCAL, run, summary, usage, group="connection", **more
    )


_CLIENT: Final = (
    _client_sub("id", 2, client_id, "", "Returns the number of this connection."),
    _client_sub("info", 2, client_info, "", "Describes this connection."),
    _client_sub(
        "list", -2, client_list, "[TYPE type] [ID client-id [client-id ...]]", "Lists connections."
    ),
    _client_sub(
        "kill",
        -3,
        client_kill,
        "[address] [ID client-id] [ADDR address] [LADDR address] [USER username] [TYPE type]"
        " [MAXAGE seconds] [SKIPME yesno]",
        "Closes connections.",
        right="system",
    ),
    _client_sub("getname", 2, client_getname, "", "Returns the name of this connection."),
    _client_sub("setname", 3, client_setname, "connection-name", "Names this connection."),
    _client_sub(
        "setinfo",
        4,
        client_setinfo,
        "LIB-NAME libname | LIB-VER libver",
        "Tells which library this client is made with.",
    ),
)

COMMANDS: Final = (
    Command(
        "hello",
        -1,
        Kind.WAITING,
        hello,
        "Logs on, names the connection and chooses the protocol.",
        "[protover] [AUTH username password] [SETNAME clientname]",
        group="connection",
        before_login=True,
        in_multi=False,
    ),
    Command(
        "auth",
        -2,
        Kind.WAITING,
        auth,
        "Logs on.",
        "username password",
        group="connection",
        before_login=True,
        in_multi=False,
    ),
    Command(
        "ping",
        -1,
        Kind.LOCAL,
        ping,
        "Answers PONG, or the message.",
        "[message]",
        group="connection",
        before_login=True,
    ),
    Command("echo", 2, Kind.LOCAL, echo, "Answers the message.", "message", group="connection"),
    Command(
        "quit",
        -1,
        Kind.SETTLED,
        quit_,
        "Closes the connection.",
        group="connection",
        before_login=True,
    ),
    Command(
        "reset",
        1,
        Kind.SETTLED,
        reset,
        "Sets the connection back to its beginning, logged out.",
        group="connection",
    ),
    Command("select", 2, Kind.LOCAL, select, "Chooses database 0.", "index", group="connection"),
    Command(
        "client",
        -2,
        Kind.LOCAL,
        _nothing,
        "A container for commands about connections.",
        group="connection",
        subcommands={sub.name.partition("|")[2].encode(): sub for sub in _CLIENT},
    ),
)
