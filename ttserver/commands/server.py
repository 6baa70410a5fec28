"""Commands about the server: the command table, INFO, ROLE, DBSIZE, TIME, CONFIG GET.

Source: Redis, the command reference of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from ttserver.commands.arguments import text
from ttserver.commands.context import Client
from ttserver.commands.docs import describe, document
from ttserver.commands.glob import matcher
from ttserver.commands.info import KEYSPACE, info_text, role, wanted_sections
from ttserver.commands.table import Command, Kind, Table
from ttserver.replies import NULL_ARRAY, CommandError, Value, Verbatim


async def info(client: Client, args: Sequence[bytes]) -> Value:
    """INFO [section ...]."""
    sections = wanted_sections(args)
    keys = await client.server.engine.key_count() if KEYSPACE in sections else None
    return Verbatim(info_text(client.server, sections, keys))


async def dbsize(client: Client, _args: Sequence[bytes]) -> Value:
    """DBSIZE: exact."""
    return await client.server.engine.key_count()


def time(client: Client, _args: Sequence[bytes]) -> Value:
    """TIME: seconds and microseconds."""
    micros = int(client.server.wall() * 1e6)
    return [b"%d" % (micros // 1_000_000), b"%d" % (micros % 1_000_000)]


# -- CONFIG


def config_get(client: Client, args: Sequence[bytes]) -> Value:
    """CONFIG GET pattern [pattern ...]."""
    settings = {**_redis_settings(client), **client.server.settings()}
    chosen: dict[bytes, bytes] = {}
    for pattern in args[2:]:
        match = matcher(pattern.lower())
        for name, value in settings.items():
            if match(name.encode()):
                chosen[name.encode()] = value.encode()
    return chosen


def _redis_settings(client: Client) -> dict[str, str]:
    """What tools made for Redis ask for, in Redis's names."""
    return {
        "save": "",
        "appendonly": "yes",
        "databases": "1",
        "maxclients": str(client.server.clients_max),
        "maxmemory": "0",
        "port": str(client.server.port),
    }


def config_set(_client: Client, _args: Sequence[bytes]) -> Value:
    """CONFIG SET: refused."""
    raise CommandError(
        "ERR settings are not changed over this port: edit DB_CONFIG or ttserver.toml in the "
        "server's home directory and restart it"
    )


# -- COMMAND


def _table() -> Table:
    # The table holds this module's commands too, so it is complete only after the import.
    from ttserver.commands import TABLE

    return TABLE


def command(_client: Client, _args: Sequence[bytes]) -> Value:
    """COMMAND: all commands, described for programs."""
    return [describe(one) for one in _table()]


def command_count(_client: Client, _args: Sequence[bytes]) -> Value:
    """COMMAND COUNT."""
    return len(_table())


def command_info(_client: Client, args: Sequence[bytes]) -> Value:
    """COMMAND INFO [name ...]."""
    if len(args) == 2:
        return [describe(one) for one in _table()]
    found = [_by_full_name(name) for name in args[2:]]
    return [NULL_ARRAY if one is None else describe(one) for one in found]


def command_docs(_client: Client, args: Sequence[bytes]) -> Value:
    """COMMAND DOCS [name ...]."""
    if len(args) == 2:
        return {one.name: document(one) for one in _table()}
    found = [_by_full_name(name) for name in args[2:]]
    return {one.name: document(one) for one in found if one is not None}


def command_list(_client: Client, args: Sequence[bytes]) -> Value:
    """COMMAND LIST."""
    if len(args) > 2:
        raise CommandError(f"ERR COMMAND LIST takes no option '{text(args[2])}' here")
    return [one.name for one in _table()]


def _by_full_name(name: bytes) -> Command | None:
    container, _, inner = name.partition(b"|")
    found = _table().find(container)
    if found is None or not inner:
        return found
    return found.subcommands.get(inner.lower())


def _nothing(_client: Client, _args: Sequence[bytes]) -> Value:
    raise AssertionError("a container is never run itself")


def _sub(
    container: str, name: str, arity: int, run: Callable[..., Any], usage: str, summary: str
) -> Command:
    return Command(
        f"{container}|{name}",
        arity,
        Kind.LOCAL,
        run,
        summary,
        usage,
        group="server",
        before_login=container == "command",
    )


def _by_name(subcommands: Sequence[Command]) -> dict[bytes, Command]:
    return {sub.name.partition("|")[2].encode(): sub for sub in subcommands}


_NAMES: Final = "[command-name [command-name ...]]"
_COMMAND_SUBS: Final = (
    _sub("command", "count", 2, command_count, "", "Counts the commands."),
    _sub("command", "info", -2, command_info, _NAMES, "Describes commands for programs."),
    _sub("command", "docs", -2, command_docs, _NAMES, "Describes commands for people."),
    _sub("command", "list", -2, command_list, "", "Lists the names of the commands."),
)
_CONFIG_SUBS: Final = (
    _sub(
        "config", "get", -3, config_get, "parameter [parameter ...]", "Returns settings in force."
    ),
    _sub("config", "set", -2, config_set, "", "Refused: settings are edited in their files."),
)

COMMANDS: Final = (
    Command(
        "command",
        -1,
        Kind.LOCAL,
        command,
        "Describes all commands for programs.",
        group="server",
        before_login=True,
        subcommands=_by_name(_COMMAND_SUBS),
    ),
    Command(
        "config",
        -2,
        Kind.LOCAL,
        _nothing,
        "A container for commands about settings.",
        group="server",
        subcommands=_by_name(_CONFIG_SUBS),
    ),
    Command(
        "info",
        -1,
        Kind.WAITING,
        info,
        "Returns facts about the server.",
        "[section [section ...]]",
        group="server",
        in_multi=False,
    ),
    Command("role", 1, Kind.LOCAL, role, "Returns the role in replication.", group="server"),
    Command(
        "dbsize",
        1,
        Kind.WAITING,
        dbsize,
        "Counts the keys, exactly.",
        group="server",
        complexity="O(N) after a change, else O(1)",
        in_multi=False,
        right="read",
    ),
    Command("time", 1, Kind.LOCAL, time, "Returns the server's time.", group="server"),
)
