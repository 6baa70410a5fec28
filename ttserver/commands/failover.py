"""FAILOVER: hand the master's role over to another site, with no write lost.

Unlike Redis, which answers before anything has happened, this answers when the other site is
master, or says why it is not. FORCE is an error: what loses writes is the operator's
`ttserver promote`, not a client's command.

Source: Redis, the command reference of FAILOVER.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ttserver.commands.arguments import positive, syntax_error, text
from ttserver.commands.context import Client
from ttserver.commands.table import Command, Kind
from ttserver.replies import OK, CommandError, Value

TIMEOUT_MS: Final = 30_000
PORT_MAX: Final = 65_535
_BAD_TIMEOUT: Final = "ERR FAILOVER timeout must be greater than 0"


async def failover(client: Client, args: Sequence[bytes]) -> Value:
    """FAILOVER [TO host port] [TIMEOUT milliseconds]."""
    rest = list(args[1:])
    target: tuple[str, int] | None = None
    timeout_ms: int | None = None
    while rest:
        match rest.pop(0).upper():
            case b"TO" if target is None and len(rest) >= 2:
                host, port = text(rest.pop(0)), positive(rest.pop(0))
                if port > PORT_MAX:
                    raise CommandError("ERR Invalid port")
                target = (host, port)
            case b"TIMEOUT" if timeout_ms is None and rest:
                timeout_ms = positive(rest.pop(0), _BAD_TIMEOUT)
            case b"FORCE":
                raise CommandError(
                    "ERR FORCE is not supported: it would lose writes. When the master is dead for"
                    " good, run `ttserver promote` on the site that is to lead"
                )
            case b"ABORT" if len(args) == 2:
                raise CommandError(
                    "ERR ABORT is not supported: a handover that has begun ends by itself in its"
                    " TIMEOUT at most"
                )
            case _:
                raise syntax_error()
    engine = client.server.engine
    if engine.read_only:
        raise CommandError("ERR FAILOVER is not valid when server is a replica.")
    await engine.switchover(target, (timeout_ms or TIMEOUT_MS) / 1000)
    return OK


COMMANDS: Final = (
    Command(
        "failover",
        -1,
        Kind.WAITING,
        failover,
        "Hands the master's role over to another site; no write is lost.",
        "[TO host port] [TIMEOUT milliseconds]",
        group="server",
        in_multi=False,
        right="system",
    ),
)
