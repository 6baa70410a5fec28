"""The apply thread: what came from other sites goes to the library here.

It takes all messages that wait, hands them to the library one by one, flushes the log once and
sends one cumulative acknowledgement: several times faster than a flush per commit, and no ack
leaves before what it covers is on disk. Under a steady stream it flushes at least every
`FLUSH_EVERY_S`, so that acks do not wait for a quiet moment.

The link to the master is read here, too, while nothing but log comes on it (`replication.direct`).

While this site's vote is out, log and pages wait and nothing is acknowledged; see
`replication.hold`.

START_SYNC makes the library flush its whole cache inside the call, so it has a thread of its own.
A VERIFY_REQ is preceded by a log flush: libdb 5.3.28 dies when it serves one from the middle of
a record that is only half on disk.

Source: API reference `DB_ENV->rep_process_message`.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from berkeleydb import db

from replication import bulk
from replication.direct import DirectReader
from replication.held_log import LOG_AND_PAGES, HeldLog
from replication.link import Link
from replication.messages import RepType
from replication.pauses import Pause, Pauses
from replication.rollback import COMPARING, WOULD_ROLLBACK, Rollback
from replication.wire import (
    LSN,
    REP_CONTROL_BYTES,
    Frame,
    lsn_from_library,
)

log = logging.getLogger(__name__)

FLUSH_EVERY_S: Final = 0.005
DEFERRED_POLL_S: Final = 0.01
DEFERRED_MAX: Final = 10_000  # requests of a site that does not read; more are asked for again
_LEASE_FLAG: Final = 0x10
_FLUSH_FLAG: Final = 0x02  # in a record's control part: flush the log inside the call
_LOGS: Final = frozenset({RepType.LOG, RepType.BULK_LOG})
_START_SYNC: Final = int(RepType.START_SYNC)
_VERIFY_REQ: Final = int(RepType.VERIFY_REQ)
_VOTE1: Final = int(RepType.VOTE1)
_NEWMASTER: Final = int(RepType.NEWMASTER)
_NEWCLIENT: Final = int(RepType.NEWCLIENT)
_ROLES: Final = frozenset({_NEWMASTER, _NEWCLIENT})
_WATCHED: Final = frozenset(
    {RepType.PAGE, RepType.BULK_PAGE, RepType.UPDATE, RepType.VOTE2, RepType.VERIFY_FAIL}
)
_UPDATE: Final = int(RepType.UPDATE)
_COPY: Final = LOG_AND_PAGES | {RepType.UPDATE}
_REQUESTS: Final = frozenset({RepType.ALL_REQ, RepType.LOG_REQ, RepType.PAGE_REQ})
_DEADLOCK_RETRIES_MAX: Final = 50
_LOCKOUT_PAUSE_S: Final = 0.01  # refused while the library changes its role: tried again after it
_PAUSE: Final = -3  # in place of an EID: a pause was asked for, here in the order of messages
_WAKE: Final = -2  # in place of an EID: no message, but the held log may have changed its state


class Outcomes(Protocol):
    """Whom the apply thread tells. *Thread:* the apply thread calls all of these."""

    def permanent(self, generation: int, lsn: LSN) -> None:
        """Everything up to `lsn` is applied and flushed: acknowledge it."""

    def answered(self, code: int, nsites: int = 0) -> None:
        """The library answered DUPMASTER, HOLDELECTION or JOIN_FAILURE.

        Args:
            nsites: how many votes the site waits for whose vote calls for an election.
        """

    def would_roll_back(self, sync_point: LSN) -> None:
        """The master does not have what lies behind `sync_point` here; nothing is undone yet."""

    def rolled_back(self, sync_point: LSN) -> None:
        """What lay behind `sync_point` is undone, and nothing else was applied yet."""

    def master_heard(self, eid: int) -> None:
        """A site said that it is master; whether the library believes it is to be asked."""

    def client_heard(self, eid: int) -> None:
        """A site said that it is a client: the library follows it no longer, if it did."""

    def passing(self, eid: int, kind: int, record: bytes) -> None:
        """A page, a file list, a refusal of log or a vote for this site was received."""

    def membership_logged(self) -> None:
        """A native master's membership change was applied."""

    def broken(self, eid: int, error: Exception) -> None:
        """A message could not be processed; it names the library's words."""

    def room(self) -> None:
        """The queue is short again: reading may go on."""

    def log_released(self, messages: int, dropped: int) -> None:
        """Log passes again after a vote; so many messages had waited, so many were too much."""


class Applier:
    """See the module's text.

    Args:
        env: the open library handle.
        outcomes: whom to tell.
        is_choked: whether a site's own queue is full, so its requests wait.
        flush_links: sends what the library's answers left in the links' queues.
        bytes_max: above it `put` returns True: stop reading.
        held: the log that waits while a vote is out.
        flush: flush the log before acknowledging (off: durability "nosync").

    Attributes:
        list_generation: of the master whose file list came last.
        refuses_copy: log and pages are let go: the copy here was given up. Set by the loop.
    """

    name = "apply"

    def __init__(
        self,
        env: db.DBEnv,
        outcomes: Outcomes,
        *,
        is_choked: Callable[[int], bool],
        flush_links: Callable[[], None],
        bytes_max: int,
        held: HeldLog,
        flush: bool = True,
    ) -> None:
        self._env = env
        self._outcomes = outcomes
        self._is_choked = is_choked
        self._flush_links = flush_links
        self._bytes_max = bytes_max
        self._held = held
        held.wake = self._wake
        self._flush = flush
        self.rollback = Rollback(env, outcomes.rolled_back)
        self._queue: queue.SimpleQueue[tuple[int, Sequence[Frame], int] | None] = (
            queue.SimpleQueue()
        )
        self._lending: deque[Link] = deque()
        self._direct = DirectReader(lambda: not self._queue.empty())
        self._waiting = False
        self._turns = self._turns_seen = 0  # how often the thread had nothing to do
        self._queued = 0
        self._taken = 0
        self._full = False
        self._deferred: deque[tuple[int, Frame]] = deque()
        self._pauses = Pauses()
        self._reached: LSN | None = None
        self._generation = 0
        self._membership_seen = False
        self._stopping = False
        self._applied_lock = threading.Lock()
        self.refuses_copy = False
        self.list_generation = 0
        self.applied: LSN = LSN(0, 0)
        self.applied_generation = 0
        self.messages = 0
        self.flushes = 0
        self.broken = 0
        self._sync_queue: queue.SimpleQueue[tuple[int, Frame] | None] = queue.SimpleQueue()
        self._threads = (
            threading.Thread(target=self._run, name=self.name, daemon=True),
            threading.Thread(target=self._run_sync, name="apply-sync", daemon=True),
        )

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping = True
        self._queue.put(None)
        self._direct.ring()
        self._sync_queue.put(None)

    def join(self, timeout: float | None = None) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        for thread in self._threads:
            if thread.ident is None:
                continue  # stopped before it was started
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))

    def is_alive(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    @property
    def queued_bytes(self) -> int:
        """Bytes received and not yet handed to the library."""
        return self._queued - self._taken

    def put(self, eid: int, frames: Sequence[Frame], size: int) -> bool:
        """Queue messages of one site; True: the queue is full, stop reading. *Thread:* the loop."""
        self._queued += size
        # Before the thread can take it: whoever finds the queue full is told of room later.
        if self.queued_bytes > self._bytes_max:
            self._full = True
        self._queue.put((eid, frames, size))
        self._direct.ring()
        return self._full

    def lend(self, link: Link) -> None:
        """Have a link read here, once all it brought so far is applied. *Thread:* the loop."""
        # Not while this thread is busy: it may be for long, and the loop hears more than log.
        if self._waiting and link.lend(self._direct):
            self._lending.append(link)
            self._wake()

    def take_back(self, link: Link) -> None:
        """Read a link in the loop again. *Thread:* the loop."""
        if link.take_back():
            self._direct.ring()

    @property
    def is_stuck(self) -> bool:
        """The thread has been busy with the same messages since this was asked last."""
        turns, self._turns_seen = self._turns_seen, self._turns
        return not self._waiting and turns == self._turns

    def pause_at(self, pause: Pause) -> None:
        """Stop at an LSN, behind what waits now. *Thread:* the loop."""
        self._pauses.ask(pause)
        self._queue.put((_PAUSE, (), 0))
        self._direct.ring()

    def _wake(self) -> None:
        """Have the thread look at the held log, behind what waits. *Thread:* any."""
        self._queue.put((_WAKE, (), 0))
        self._direct.ring()

    def led_to(self, reached: LSN) -> None:
        """Take what was written here while this site was master; nobody is told. *Thread:* loop."""
        with self._applied_lock:
            self.applied = max(self.applied, reached)

    def in_step(self, generation: int, reached: LSN) -> bool:
        """Take what a sync brought here without a permanent record of its own.

        Returns:
            True when that is further than what was acknowledged. *Thread:* the loop.
        """
        with self._applied_lock:
            if (generation, reached) <= (self.applied_generation, self.applied):
                return False
            self.applied, self.applied_generation = reached, generation
            return True

    # -- the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping:
            item = self._next()
            if item is not None:
                self._take_all(item)
        self._direct.close()

    def _take_all(self, item: tuple[int, Sequence[Frame], int] | None) -> None:
        """Hand `item` and all that waits behind it to the library, then acknowledge."""
        started = time.monotonic()
        while item is not None:
            eid, frames, size = item
            if eid == _WAKE:
                self._turn()
            elif eid == _PAUSE:
                self._begin_pause()
            for frame in frames:
                if self._stopping:
                    return
                self._try(eid, frame)
            self._took(size)
            if self._queue.empty():
                break
            if time.monotonic() - started >= FLUSH_EVERY_S:
                self._acknowledge()
                started = time.monotonic()
            item = self._queue.get()
        self._acknowledge()
        self._flush_links()

    def _begin_pause(self) -> None:
        given_up = self._pauses.begin()
        if given_up is not None:
            given_up()
        if self._reached is not None:
            self._pause_if_there(self._generation, self._reached)
        else:
            self._pause_if_there(self.applied_generation, self.applied)

    def _pause_if_there(self, generation: int, reached: LSN) -> None:
        due = self._pauses.reached(generation, reached)
        if due is not None:
            # First what clients of the master wait for.
            self._acknowledge()
            due()

    def _try(self, eid: int, frame: Frame) -> None:
        try:
            self._take(eid, frame)
        except Exception as error:  # noqa: BLE001 - the thread's edge: it must go on
            self.broken += 1
            self._outcomes.broken(eid, error)

    def _turn(self) -> None:
        """Begin to hold the log when all before is done, or take up what was held."""
        while self._lending:
            self._direct.add(self._lending.popleft())
        if self._held.draining:
            # The vote counts what was applied, so it may still be acknowledged.
            self._acknowledge()
            self._held.drained()
        kept = self._held.reopen()
        if kept is None:
            return
        for eid, frame in kept:
            if self._stopping:
                return
            self._try(eid, frame)
        self._outcomes.log_released(len(kept), self._held.dropped)

    def _next(self) -> tuple[int, Sequence[Frame], int] | None:
        """Wait for messages; in the meantime, serve requests that had to wait."""
        wait_s = DEFERRED_POLL_S if self._deferred else None
        item: tuple[int, Sequence[Frame], int] | None = None
        self._turns += 1
        self._waiting = True
        if self._direct.any_lent and self._queue.empty():
            read = self._direct.wait(wait_s)
            if read is not None:
                item = (*read, 0)
        else:
            with contextlib.suppress(queue.Empty):
                item = self._queue.get(timeout=wait_s)
        self._waiting = False
        if self._deferred:
            self._serve_deferred()
        return item

    def _serve_deferred(self) -> None:
        for _ in range(len(self._deferred)):
            eid, frame = self._deferred.popleft()
            if self._is_choked(eid):
                self._deferred.append((eid, frame))
            else:
                self._process(eid, frame)
        self._flush_links()

    def _took(self, size: int) -> None:
        self._taken += size
        if self._full and self.queued_bytes * 2 <= self._bytes_max:
            self._full = False
            self._outcomes.room()

    def _take(self, eid: int, frame: Frame) -> None:
        control = frame[3]
        if len(control) < REP_CONTROL_BYTES or control[35] & _LEASE_FLAG:
            # Too short, or of a site with master leases: the library would panic on it.
            self.broken += 1
            self._outcomes.broken(eid, ValueError("control part of an unsupported kind"))
            return
        kind = control[19]
        if kind in _COPY and (self._held.holding or self.refuses_copy) and self._kept(eid, frame):
            return
        if kind in _LOGS:
            if bulk.announces_membership_change(control, frame[4]):
                self._membership_seen = True
        elif kind == _START_SYNC:
            self._sync_queue.put((eid, frame))
            return
        elif kind == _VERIFY_REQ:
            self._flush_log(eid)
        elif kind in _REQUESTS and self._is_choked(eid):
            if len(self._deferred) < DEFERRED_MAX:
                self._deferred.append((eid, frame))
            return
        elif kind in _ROLES:
            self._process(eid, frame)
            self._tell_role(kind, control, eid)
            return
        elif kind in _WATCHED:
            self._watch(eid, kind, frame)
        if kind in COMPARING:
            with self.rollback.around(control):
                self._process(eid, frame)
        else:
            self._process(eid, frame)

    def _kept(self, eid: int, frame: Frame) -> bool:
        """Keep log and pages for later, or let them go; False: it is not for now to decide."""
        if not self.refuses_copy:
            if frame[3][19] == _UPDATE:
                return False
            self._held.keep(eid, frame)
        return True

    def _watch(self, eid: int, kind: int, frame: Frame) -> None:
        if kind == _UPDATE:
            self.list_generation = int.from_bytes(frame[3][20:24])
        self._outcomes.passing(eid, kind, frame[4])

    def _tell_role(self, kind: int, control: bytes, eid: int) -> None:
        """The library has an event for a new master only.

        It has none for the old one that is back after its link broke, or that stepped down.
        """
        if kind == _NEWCLIENT:
            self._outcomes.client_heard(eid)
            return
        self._held.master(int.from_bytes(control[20:24]))
        self._outcomes.master_heard(eid)

    def _process(self, eid: int, frame: Frame) -> None:
        self.messages += 1
        control = frame[3]
        if control[35] & _FLUSH_FLAG:
            # Set on every commit that the master flushed. Flushing is done here, once for all that
            # waits and before the acknowledgement, not once a commit inside the call.
            control = control[:35] + bytes((control[35] & ~_FLUSH_FLAG,)) + control[36:]
        for attempt in range(_DEADLOCK_RETRIES_MAX):
            try:
                code, detail = self._env.rep_process_message(control, frame[4], eid)
            except (db.DBLockDeadlockError, db.DBLockNotGrantedError) as error:
                if attempt == _DEADLOCK_RETRIES_MAX - 1:
                    self._outcomes.broken(eid, error)
                continue
            except db.DBRepLockoutError as error:
                if attempt == _DEADLOCK_RETRIES_MAX - 1:
                    self._outcomes.broken(eid, error)
                time.sleep(_LOCKOUT_PAUSE_S)
                continue
            except db.DBError as error:
                if error.args[0] == WOULD_ROLLBACK and self.rollback.compared is not None:
                    self._outcomes.would_roll_back(self.rollback.compared)
                else:
                    self.broken += 1
                    self._outcomes.broken(eid, error)
                return
            break
        else:
            return
        if code == db.DB_REP_ISPERM:
            self._permanent(int.from_bytes(frame[3][20:24]), lsn_from_library(detail))
        elif code is not None:
            self._answered(code, frame)

    def _answered(self, code: int, frame: Frame) -> None:
        if code == db.DB_REP_HOLDELECTION:
            voted = frame[3][19] == _VOTE1
            self._outcomes.answered(code, int.from_bytes(frame[4][4:8]) if voted else 0)
        elif code in (db.DB_REP_DUPMASTER, db.DB_REP_JOIN_FAILURE):
            self._outcomes.answered(code)

    def _permanent(self, generation: int, lsn: LSN) -> None:
        """Everything up to a permanent record is applied."""
        if self._reached is None or generation != self._generation or lsn > self._reached:
            self._reached = lsn
        self._generation = generation
        if self._pauses.waits:
            self._pause_if_there(generation, self._reached)
        if self._membership_seen:
            self._membership_seen = False
            self._outcomes.membership_logged()

    def _acknowledge(self) -> None:
        """Flush what was applied since the last time, then acknowledge it."""
        reached = self._reached
        if reached is None:
            return
        self._reached = None
        if self._held.holding:
            return  # what a control message brought; the next record acknowledges it, too
        if self._flush:
            if not self._flush_log(0):
                return
            self.flushes += 1
        with self._applied_lock:
            self.applied, self.applied_generation = reached, self._generation
        self._outcomes.permanent(self._generation, reached)

    def _flush_log(self, eid: int) -> bool:
        try:
            self._env.log_flush()
        except db.DBError as error:
            self._outcomes.broken(eid, error)
            return False
        return True

    def _run_sync(self) -> None:
        while True:
            item = self._sync_queue.get()
            if item is None or self._stopping:
                return
            self._process_quietly(*item)

    def _process_quietly(self, eid: int, frame: Frame) -> None:
        try:
            self._env.rep_process_message(frame[3], frame[4], eid)
        except db.DBError as error:
            # START_SYNC only asks to write the cache out early; the checkpoint does it anyway.
            log.debug("start_sync_failed eid=%s error=%s", eid, error)
