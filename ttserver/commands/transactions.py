"""MULTI, EXEC, DISCARD, WATCH, UNWATCH.

What MULTI queues, EXEC runs in one transaction: one write of the group commit, or, when it only
reads, one read transaction (so it works on a replicant). A command that fails leaves the others,
as in Redis; one that could not even be queued refuses the EXEC.

Source: Redis, "Transactions".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ttserver.commands.context import Client, Queued, Store
from ttserver.commands.keys import reply_too_long
from ttserver.commands.table import Command, Kind
from ttserver.replies import OK, QUEUED, CommandError, Value

if TYPE_CHECKING:
    from berkeleydb.db import DBTxn

    from ttserver.settings import LimitSettings

WATCHED_KEYS_MAX: Final = 10_000


def multi(client: Client, _args: Sequence[bytes]) -> Value:
    """MULTI: queue what follows."""
    if client.queued is not None:
        raise CommandError("ERR MULTI calls can not be nested")
    client.queued = Queued()
    return OK


def discard(client: Client, _args: Sequence[bytes]) -> Value:
    """DISCARD: forget what was queued, and the watched keys."""
    if client.queued is None:
        raise CommandError("ERR DISCARD without MULTI")
    client.queued = None
    client.unwatch()
    return OK


def watch(client: Client, args: Sequence[bytes]) -> Value:
    """WATCH key [key ...]: EXEC does nothing if one of them was changed."""
    if client.queued is not None:
        raise CommandError("ERR WATCH inside MULTI is not allowed")
    client.watched.update(args[1:])
    if len(client.watched) > WATCHED_KEYS_MAX:
        client.unwatch()
        raise CommandError(f"ERR more than {WATCHED_KEYS_MAX} watched keys: none is watched now")
    before = client.watch
    client.watch = client.server.engine.watch(list(client.watched))
    if before is not None:
        if before.dirty:
            client.watch.mark()
        before.close()
    return OK


def unwatch(client: Client, _args: Sequence[bytes]) -> Value:
    """UNWATCH: forget the watched keys."""
    client.unwatch()
    return OK


def enqueue(limits: LimitSettings, queued: Queued, command: Command, args: list[bytes]) -> Value:
    """Keep a command for EXEC.

    Raises:
        CommandError: it cannot be part of a transaction; EXEC will be refused.
    """
    queued.size_bytes += sum(map(len, args))
    if not command.in_multi:
        queued.broken = True
        raise CommandError("ERR Command not allowed inside a transaction")
    too_many = len(queued.commands) >= limits.multi_commands_max
    if too_many or queued.size_bytes > limits.multi_bytes_max:
        queued.broken = True
        queued.commands.clear()
        raise CommandError("ERR the transaction is too long for multi_commands_max, _bytes_max")
    queued.commands.append((command, args))
    return QUEUED


@dataclass(frozen=True, slots=True)
class Step:
    """One command of an EXEC; `ready` is a result that needs no database."""

    command: Command
    args: Any
    ready: Value = None
    is_ready: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """An EXEC about to run.

    Args:
        writes: one of the commands may write.
        reads: one of them reads.
        keys: all keys that they may change.
    """

    steps: list[Step]
    writes: bool
    reads: bool
    keys: list[bytes]

    @property
    def returns_values(self) -> bool:
        """Tell whether the reply may hold stored values."""
        return any(step.command.returns_value(step.args) for step in self.steps)

    def run_nothing(self) -> list[Value]:
        """The results when no command needs the database."""
        return [step.ready for step in self.steps]

    def run(self, store: Store, txn: DBTxn, _args: object = None) -> list[Value]:
        """Run all commands that need the database; never raises once something was written."""
        results: list[Value] = []
        left = store.limits.reply_bytes_max
        for step in self.steps:
            if step.is_ready or step.command.kind not in (Kind.READ, Kind.WRITE):
                results.append(step.ready)
                continue
            try:
                value = step.command.run(store, txn, step.args)
            except CommandError as error:
                value = error
            left -= _size(value)
            results.append(reply_too_long(store) if left < 0 else value)
        return results

    def finish(self, client: Client, results: list[Value]) -> list[Value]:
        """Run what needs the client, in the loop, and make the reply."""
        replies: list[Value] = []
        for step, value in zip(self.steps, results, strict=True):
            command = step.command
            try:
                if step.is_ready or isinstance(value, CommandError):
                    reply = value
                elif command.kind is Kind.LOCAL:
                    reply = command.run(client, step.args)
                elif command.finish is not None:
                    reply = command.finish(client, value)
                else:
                    reply = value
            except CommandError as error:
                reply = error
            replies.append(reply)
        return replies


def plan(client: Client, queued: Queued) -> Plan:
    """Make the plan of an EXEC."""
    steps: list[Step] = []
    keys: list[bytes] = []
    writes = reads = False
    for command, args in queued.commands:
        prepared: Any = args
        if command.prepare is not None:
            try:
                prepared = command.prepare(client, args)
            except CommandError as error:
                steps.append(Step(command, args, error, is_ready=True))
                continue
        if command.kind is Kind.WRITE:
            writes = True
            keys.extend(command.keys_of(args))
        elif command.kind is Kind.READ:
            reads = True
        steps.append(Step(command, prepared))
    return Plan(steps, writes, reads, keys)


def _size(value: Value) -> int:
    if isinstance(value, bytes):
        return len(value) + 16
    if isinstance(value, list):
        return 16 + sum(map(_size, value))
    return 64


COMMANDS: Final = (
    Command(
        "multi",
        1,
        Kind.LOCAL,
        multi,
        "Starts a transaction: queues what follows.",
        group="transactions",
    ),
    Command(
        "exec",
        1,
        Kind.EXEC,
        plan,
        "Runs the queued commands in one transaction.",
        group="transactions",
    ),
    Command(
        "discard",
        1,
        Kind.LOCAL,
        discard,
        "Forgets the queued commands.",
        group="transactions",
    ),
    Command(
        "watch",
        -2,
        Kind.SETTLED,
        watch,
        "Makes the next EXEC depend on keys that nobody changes before.",
        "key [key ...]",
        group="transactions",
        keys=(1, -1, 1),
        right="read",
    ),
    Command(
        "unwatch",
        1,
        Kind.LOCAL,
        unwatch,
        "Forgets the watched keys.",
        group="transactions",
    ),
)
IMMEDIATE: Final = frozenset({"exec", "discard", "multi", "watch", "quit", "reset"})
