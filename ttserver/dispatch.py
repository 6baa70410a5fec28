"""From commands to replies for one client: order, batching, transactions (no socket, no clock).

How a pipeline runs:

- reads that follow each other run together in one read transaction, in the loop; when the engine
  says that this could block, what is left of them goes to a reader thread at once;
- writes are handed to the group commit one after the other without waiting, each keeping its
  place in the replies;
- a short read behind an unanswered write goes through the group commit too: it then sees that
  write, and nothing has to wait. A long read, and whatever changes the connection, waits until all
  replies before it are known.

A command that must wait stops the client's commands, not the bytes of its socket; the shell
pauses that when too many pile up.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from storage.library import WatchFailed
from storage.reads import WouldBlock
from ttserver.commands import TABLE
from ttserver.commands.context import Client, Outcome, Store, WatchLike, rights_of
from ttserver.commands.table import Command, Kind
from ttserver.commands.transactions import IMMEDIATE, Plan, enqueue, plan
from ttserver.error_replies import EXPECTED, error_reply, perm_failed_reply
from ttserver.pending import RETURNED_BYTES, Outstanding, Pending
from ttserver.read_run import Call, ReadRun
from ttserver.replies import NULL_ARRAY, CommandError, ReplyQueue, Value, encode
from ttserver.resp import CommandReader, ForeignProtocolError, ProtocolError

if TYPE_CHECKING:
    from berkeleydb.db import DBTxn

TURN_COMMANDS: Final = 256  # then other clients get their turn
# A program with a wrong address tries again and again; the journal need not tell each time.
MIXUP_EVERY_S: Final = 60.0
MIXUP_BURST: Final = 5
NO_LOGON: Final = "NOAUTH Authentication required."
ABORTED: Final = "EXECABORT Transaction discarded because of previous errors."
Finish = Callable[[Client, Value], Value] | None

# A member of an enumeration costs fifteen times as much to name as a global.
_READ, _WRITE, _LOCAL = Kind.READ, Kind.WRITE, Kind.LOCAL
_WAITING, _EXEC = Kind.WAITING, Kind.EXEC

log = structlog.get_logger(__name__)


class Hooks(Protocol):
    """What the dispatcher needs from the connection it works for."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine; there is at most one at a time."""

    def again(self) -> None:
        """Call `next_turn` in a later turn of the loop."""

    def wake(self) -> None:
        """Replies came from elsewhere than `receive`: send them soon."""

    def end(self, reason: str, *, at_once: bool) -> None:
        """Close, after the replies still to come unless `at_once`."""


class Stop(Enum):
    """Why no further command is started."""

    SETTLE = auto()  # until all replies before are known
    CROWDED = auto()  # until half of the replies it waits for are known
    TASK = auto()  # until the coroutine under way is done
    TURN = auto()  # until the loop's next turn
    ENDED = auto()  # for good


class Dispatcher:
    """Runs one client's commands.

    Args:
        client: who they are from; counts are kept there.
        reader: where they come from.
        store: the database as commands see it.
        hooks: the connection.

    Attributes:
        replies: what is to be sent.
        outstanding: what is in the group commit.
        held: no command is started, because the client does not take its replies.
    """

    def __init__(self, client: Client, reader: CommandReader, store: Store, hooks: Hooks) -> None:
        self.client = client
        self.store = store
        self.replies = ReplyQueue()
        self.outstanding = Outstanding(store.limits.pipeline_commands_max)
        self._reader = reader
        self._hooks = hooks
        self._engine = client.server.engine
        self._backlog: list[list[bytes]] = []
        self._stop: Stop | None = None
        self.held = False
        self._finishing = False
        self._rights = rights_of(None)
        self._user = ""
        self._reads_freely = False  # reads need no look at rights or a transaction

    # -- what the connection calls

    @property
    def finished(self) -> bool:
        """True when all that came in so far is answered, or never will be."""
        if self.outstanding.count:
            return False
        return self._stop is Stop.ENDED or (self._stop is None and not self.held)

    @property
    def answering(self) -> bool:
        """True while a write or a coroutine still has to answer."""
        return self.outstanding.count > 0 or self._stop is Stop.TASK

    @property
    def stopped(self) -> bool:
        """True when bytes that come now would only pile up."""
        return self._stop is not None or self.held

    @property
    def buffered(self) -> int:
        """Bytes received that are no commands yet."""
        return self._reader.buffered

    def receive(self, data: bytes) -> None:
        """Take received bytes; what can be answered at once is in `replies` afterwards."""
        self._reader.feed(data)
        if self._stop is None and not self.held:
            self._pump()

    def hold(self) -> None:
        """Start no further command: the client does not take its replies."""
        self.held = True

    def resume(self) -> None:
        """Go on after `hold`."""
        self.held = False
        if self._stop is None:
            self._pump()

    def next_turn(self) -> None:
        """Go on after `Hooks.again`."""
        if self._stop is Stop.TURN:
            self._stop = None
            if not self.held:
                self._pump()

    def finish(self) -> None:
        """Start nothing more; what is under way still answers."""
        self._finishing = True
        if self._stop is not Stop.TASK:
            self._stop = Stop.ENDED

    # -- the course of commands

    def _pump(self) -> None:
        reader = self._reader
        budget = TURN_COMMANDS
        try:
            while True:
                batch = self._backlog
                if batch:
                    self._backlog = []
                else:
                    batch = reader.take()
                    self.client.commands += len(batch)
                self._run(batch)
                if self._stop is not None or self.held:
                    return
                if reader.hungry and not self._backlog:
                    return
                budget -= len(batch) + 1
                if budget < 0:
                    self._next_turn()
                    return
        except ProtocolError as error:
            self._stop = Stop.ENDED
            self._end_by(error)

    def _next_turn(self) -> None:
        self._stop = Stop.TURN
        self._hooks.again()

    def _go_on(self) -> None:
        """Start commands again after a stop."""
        if self._finishing:
            self._stop = Stop.ENDED
        else:
            self._stop = None
            if not self.held:
                self._pump()
        self._hooks.wake()

    def _end_by(self, error: ProtocolError) -> None:
        if isinstance(error, ForeignProtocolError):
            peer = self.client.peer
            log.warning("client_port_mixup", peer=peer, speaks=error.speaker, hint=error.hint)
            self._engine.journal.write_seldom(
                "wrong_port",
                every_s=MIXUP_EVERY_S,
                burst=MIXUP_BURST,
                from_=peer,
                spoke=f"{error.speaker} on the client port",
            )
            self._hooks.end(f"wrong protocol: {error.speaker}", at_once=True)
            return
        self._push(CommandError(f"ERR {error}"))
        self._hooks.end(str(error), at_once=False)

    def _run(self, batch: list[list[bytes]]) -> None:
        """Run commands until one has to wait; the rest goes to the backlog."""
        find = TABLE.spellings.get
        waiting = self.replies.waiting
        run: list[Call] = []
        for index, args in enumerate(batch):
            command = find(args[0])
            if (
                command is not None
                and command.simple
                and self._reads_freely
                and (command.arity == len(args) or command.fits(len(args)))
                and (command.heavy is None or not command.heavy(args))
                and not waiting
            ):
                run.append((command.run, args))
                continue
            if run:
                if not self._read_run(run, batch[index:]):
                    return
                run = []
            if not self._start(args):
                self._backlog = batch[index:]
                return
            if self._stop is not None:
                self._backlog = batch[index + 1 :]
                return
        if run:
            self._read_run(run, [])

    def _start(self, args: list[bytes]) -> bool:
        """Start one command; False when it must be tried again after the replies before it."""
        client = self.client
        queued = client.queued
        try:
            command = TABLE.resolve(args)
            keys = self._admit(command, args)
        except CommandError as error:
            if queued is not None:
                queued.broken = True
            self._push(error)
            return True
        client.last_command = command.name
        try:
            if queued is not None and command.name not in IMMEDIATE:
                self._push(enqueue(self.store.limits, queued, command, args))
                return True
            return self._start_now(command, args, keys)
        except (CommandError, *EXPECTED) as error:
            self._push(error_reply(error))
            return True

    def _admit(self, command: Command, args: list[bytes]) -> Sequence[bytes]:
        """Refuse a command that this client may not send; answers the keys of a write.

        Raises:
            CommandError: NOAUTH or NOPERM, or a key that is too long.
        """
        login = self.client.login
        if login is None:
            if not command.before_login:
                raise CommandError(NO_LOGON)
        elif command.right is not None and command.right not in self._rights:
            raise CommandError(
                f"NOPERM User {login.user} has no permissions to run the '{command.name}' command"
            )
        if command.kind is not _WRITE:
            return ()
        keys = command.keys_of(args)
        longest = self.store.limits.key_bytes_max
        for key in keys:
            if len(key) > longest:
                raise CommandError(f"ERR key is longer than {longest} bytes (key_bytes_max)")
        return keys

    def _start_now(self, command: Command, args: list[bytes], keys: Sequence[bytes]) -> bool:
        kind = command.kind
        if kind is _WRITE:
            size = sum(map(len, args))
            if command.returns_value(args):
                size += RETURNED_BYTES
            ready = args if command.prepare is None else command.prepare(self.client, args)
            self._submit(self._pending(command, ready, size), keys)
            return True
        if kind is _READ:
            return self._read(command, args)
        if kind is _EXEC:
            return self._exec()
        if kind is not _LOCAL and self.replies.waiting:
            return self._settle()
        if kind is _WAITING:
            self._spawn(self._wait_for(command, args))
            return True
        try:
            self._push(command.run(self.client, args))
        finally:
            self._refresh()
        return True

    def _refresh(self) -> None:
        """Take over what a command changed about the client."""
        client = self.client
        self._rights = rights_of(client.login)
        self._reads_freely = client.queued is None and "read" in self._rights
        self._user = client.login.user if client.login is not None else ""
        if client.login is not None:
            # Stays after RESET: what was parsed by these limits already must not be judged again.
            self._reader.trusted = True

    def _push(self, value: Value) -> None:
        if isinstance(value, CommandError):
            self.client.errors += 1
        self.replies.push(encode(value, self.client.protocol))

    def _settle(self) -> bool:
        """Try this command again when all replies before it are known."""
        self._stop = Stop.SETTLE
        return False

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._stop = Stop.TASK
        self._hooks.spawn(work)

    # -- reads

    def _read_run(self, calls: list[Call], rest: list[list[bytes]]) -> bool:
        """Answer reads that follow each other; False when `rest` went to the backlog."""
        self.client.last_command = TABLE.spellings[calls[-1][1][0]].name
        run = ReadRun(self.store, self.client, calls)
        try:
            self._engine.read_now(run.read)
        except WouldBlock:
            self._backlog = rest
            self._spawn(self._read_elsewhere(run))
            return False
        except EXPECTED as error:
            run.fail(error)
        self.replies.extend(run.replies)
        if len(run.replies) < len(calls):  # enough for now: send these first
            self._backlog = run.rest() + rest
            self._next_turn()
            return False
        return True

    async def _read_elsewhere(self, run: ReadRun) -> None:
        try:
            await self._engine.read(run.read)
        except EXPECTED as error:
            run.fail(error)
        self.replies.extend(run.replies)
        self._backlog[:0] = run.rest()
        self._go_on()

    def _read(self, command: Command, args: list[bytes]) -> bool:
        """Answer one read that is not part of a run."""
        heavy = command.heavy is not None and command.heavy(args)
        if self.replies.waiting:
            if not command.simple or heavy or command.keys != (1, 1, 1):
                return self._settle()
            size = RETURNED_BYTES if command.returns_value(args) else 0
            try:
                self._submit(self._pending(command, args, size), ())
            except CommandError:  # no writes any more; a read may still be answered
                return self._settle()
            return True
        prepared = args if command.prepare is None else command.prepare(self.client, args)
        function, store, protocol = command.run, self.store, self.client.protocol
        finish = command.finish

        def read(txn: DBTxn) -> Value:
            value = function(store, txn, prepared)
            # Long replies are encoded here, on the reader's thread.
            return value if finish is not None else encode(value, protocol)

        if not heavy:
            try:
                self._answer(self._engine.read_now(read), finish)
                return True
            except WouldBlock:
                pass
            except EXPECTED as error:
                raise error_reply(error) from error
        self._spawn(self._read_alone(read, finish))
        return True

    async def _read_alone(self, read: Callable[[DBTxn], Value], finish: Finish) -> None:
        try:
            self._answer(await self._engine.read(read), finish)
        except (CommandError, *EXPECTED) as error:
            self._push(error_reply(error))
        self._go_on()

    def _answer(self, value: Value, finish: Finish) -> None:
        if finish is None:
            self.replies.push(value)
        else:
            self._push(finish(self.client, value))

    async def _wait_for(self, command: Command, args: list[bytes]) -> None:
        try:
            self._push(await command.run(self.client, args))
        except (CommandError, *EXPECTED) as error:
            self._push(error_reply(error))
        self._refresh()
        self._go_on()

    # -- writes

    def _pending(self, command: Command, args: Any, size_bytes: int) -> Pending:
        is_write = command.kind is _WRITE
        return Pending(self.store, self._settled, command.run, args, size_bytes, is_write=is_write)

    def _submit(self, pending: Pending, keys: Sequence[bytes], watch: Any = None) -> None:
        """Hand over to the group commit.

        Raises:
            CommandError: refused; nothing was queued.
        """
        client = self.client
        try:
            self._engine.submit(
                pending.work,
                pending.done,
                keys=keys,
                watch=watch,
                user=self._user,
                policy=client.ack_policy,
                ack_timeout_s=client.ack_timeout_s,
            )
        except EXPECTED as error:
            raise error_reply(error) from error
        self.replies.open(pending)
        client.writes += pending.is_write
        if self.outstanding.add(pending):
            self._stop = Stop.CROWDED

    def _settled(self, pending: Pending, outcome: Outcome) -> None:
        """Take the outcome of a write."""
        self.outstanding.remove(pending)
        client = self.client
        value = self._value_of(pending, outcome)
        if isinstance(value, CommandError):
            client.errors += 1
        self.replies.fill(pending, encode(value, client.protocol))
        if self._stop is not None and self._may_go_on():
            self._go_on()
        else:
            self._hooks.wake()

    def _value_of(self, pending: Pending, outcome: Outcome) -> Value:
        if pending.watch is not None:
            pending.watch.close()
        if outcome.error is not None:
            if isinstance(outcome.error, WatchFailed):
                return NULL_ARRAY
            return error_reply(outcome.error)
        if pending.is_write:
            self.client.note_write(outcome)
            if outcome.perm_failed is not None:
                return perm_failed_reply(outcome)
        if pending.transaction is not None:
            return pending.transaction.finish(self.client, outcome.result)
        return outcome.result

    def _may_go_on(self) -> bool:
        if self._stop is Stop.SETTLE:
            return not self.replies.waiting
        return self._stop is Stop.CROWDED and self.outstanding.has_room

    # -- transactions

    def _exec(self) -> bool:
        client = self.client
        queued = client.queued
        if queued is None:
            raise CommandError("ERR EXEC without MULTI")
        if queued.broken:
            self._leave_transaction()
            client.unwatch()
            raise CommandError(ABORTED)
        steps = plan(client, queued)
        if not steps.writes and self.replies.waiting:
            return self._settle()
        self._leave_transaction()
        watch, client.watch = client.watch, None
        client.watched.clear()
        if steps.writes:
            self._exec_write(steps, queued.size_bytes, watch)
        elif steps.reads:
            self._spawn(self._exec_read(steps, watch))
        else:
            self._finish_exec(steps, steps.run_nothing(), watch)
        return True

    def _leave_transaction(self) -> None:
        self.client.queued = None
        self._refresh()

    def _exec_write(self, steps: Plan, size_bytes: int, watch: WatchLike | None) -> None:
        if steps.returns_values:
            size_bytes += RETURNED_BYTES
        pending = Pending(
            self.store, self._settled, steps.run, None, size_bytes, transaction=steps, watch=watch
        )
        try:
            self._submit(pending, steps.keys, watch)
        except CommandError:
            if watch is not None:
                watch.close()
            raise

    async def _exec_read(self, steps: Plan, watch: WatchLike | None) -> None:
        store = self.store
        try:
            results = await self._engine.read(lambda txn: steps.run(store, txn))
        except EXPECTED as error:
            self._push(error_reply(error))
            if watch is not None:
                watch.close()
        else:
            self._finish_exec(steps, results, watch)
        self._go_on()

    def _finish_exec(self, steps: Plan, results: list[Value], watch: WatchLike | None) -> None:
        """Answer an EXEC that wrote nothing."""
        # Looked at after the reads: what was changed before them has marked the watch by now.
        dirty = watch is not None and watch.dirty
        if watch is not None:
            watch.close()
        self._push(NULL_ARRAY if dirty else steps.finish(self.client, results))
        self._refresh()
