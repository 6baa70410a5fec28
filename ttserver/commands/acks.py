"""Commands about where a write is: whose acknowledgement it waits for, who has it, is it here.

    ACKS policy [ms]     what this connection's writes wait for
    WAIT sites ms        until so many other sites have this connection's last write
    LASTWRITE            its token, and who has it
    WAITFOR token ms     on any site: until that write is here

A write is named by a token, `generation:file:offset`: the generation of the master that took it
and the LSN of its commit. No right is needed: who may write only for some customers asks, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from replication.generations import CommitToken
from replication.messages import AckPolicy
from replication.wire import LSN
from ttserver.commands.arguments import integer, text
from ttserver.commands.context import Client
from ttserver.commands.table import Command, Kind
from ttserver.replies import OK, CommandError, Value

ACK_TIMEOUT_MS_MAX: Final = 3_600_000
_DEFAULT: Final = "DEFAULT"
_IN_DB_CONFIG: Final = "DB_REPMGR_ACKS_"


def acks(client: Client, args: Sequence[bytes]) -> Value:
    """ACKS [policy [ms]]: whose acknowledgements this connection's writes wait for."""
    if len(args) > 3:
        raise CommandError("ERR syntax error: ACKS takes a policy and milliseconds")
    if len(args) == 1:
        engine = client.server.engine
        policy = engine.ack_policy if client.ack_policy is None else client.ack_policy.name
        timeout_s = client.ack_timeout_s or engine.ack_timeout_s
        return [policy, round(timeout_s * 1000)]
    word = text(args[1]).upper().removeprefix(_IN_DB_CONFIG)
    if word != _DEFAULT and word not in AckPolicy.__members__:
        known = ", ".join(sorted(AckPolicy.__members__))
        raise CommandError(f"ERR unknown ack policy '{text(args[1])}': use {known} or DEFAULT")
    timeout_ms = None if len(args) == 2 else integer(args[2])
    if timeout_ms is not None and not 1 <= timeout_ms <= ACK_TIMEOUT_MS_MAX:
        raise CommandError(
            f"ERR ack time-out of {timeout_ms} ms is out of range: 1 to {ACK_TIMEOUT_MS_MAX} ms"
        )
    client.ack_policy = None if word == _DEFAULT else AckPolicy[word]
    client.ack_timeout_s = None if timeout_ms is None else timeout_ms / 1000
    return OK


async def wait(client: Client, args: Sequence[bytes]) -> Value:
    """WAIT sites milliseconds: how many sites acknowledged this connection's last write.

    0 milliseconds is for ever. A reply to a write already waited for the ack policy; this asks
    for more than that.
    """
    count = integer(args[1])
    timeout_s = _timeout_s(args[2])
    engine = client.server.engine
    if engine.read_only:
        raise CommandError(
            "ERR WAIT cannot be used with replica instances. Only the master knows who "
            "acknowledged a write"
        )
    token = last_token(client) or CommitToken(0, LSN(0, 0))
    return await engine.waits.acked(token, count, timeout_s)


def last_write(client: Client, _args: Sequence[bytes]) -> Value:
    """LASTWRITE: the token of this connection's last write, and the sites that acknowledged it."""
    token = last_token(client)
    if token is None:
        return None
    return [str(token), [*client.server.engine.waits.acked_by(token)]]


async def wait_for(client: Client, args: Sequence[bytes]) -> Value:
    """WAITFOR token milliseconds: 1 when that write is here, 0 when it did not come in time."""
    try:
        token = CommitToken.parse(text(args[1]))
    except ValueError as error:
        raise CommandError(
            f"ERR '{text(args[1])}' is no token of the form generation:file:offset: {error}"
        ) from None
    return int(await client.server.engine.waits.applied(token, _timeout_s(args[2])))


def last_token(client: Client) -> CommitToken | None:
    """Name the client's last write; None before its first."""
    if client.last_write is None:
        return None
    generation, lsn = client.last_write
    return CommitToken(generation, LSN(*lsn))


def _timeout_s(argument: bytes) -> float:
    timeout_ms = integer(argument, "ERR timeout is not an integer or out of range")
    if timeout_ms < 0:
        raise CommandError("ERR timeout is negative")
    return timeout_ms / 1000


COMMANDS: Final = (
    Command(
        "acks",
        -1,
        Kind.LOCAL,
        acks,
        "Sets whose acknowledgements this connection's writes wait for, and how long.",
        "[policy [milliseconds]]",
        group="server",
        in_multi=False,
    ),
    Command(
        "wait",
        3,
        Kind.WAITING,
        wait,
        "Waits until so many sites acknowledged this connection's last write.",
        "numreplicas timeout",
        group="generic",
        in_multi=False,
    ),
    Command(
        "lastwrite",
        1,
        Kind.SETTLED,
        last_write,
        "Returns the token of this connection's last write and the sites that acknowledged it.",
        group="server",
        in_multi=False,
    ),
    Command(
        "waitfor",
        3,
        Kind.WAITING,
        wait_for,
        "Waits until the write named by a token can be read at this site.",
        "token timeout",
        group="server",
        in_multi=False,
    ),
)
