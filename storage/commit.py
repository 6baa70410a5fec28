"""Group commit: one thread, many clients' writes in one transaction, one flush.

The committer takes whatever is queued (at most `batch_max` writes), runs each write's `work` in
one transaction and commits it once. While the commit is flushed, the next writes queue up, so the
batch grows with the load by itself and no timer is needed.

Each write gets its own result or its own error, and a write that fails has written nothing:

- `work` refuses (one of `refusals`): it promises to do so before it writes anything; the others
  of the batch go on.
- the library refuses a write, or `work` raises anything else: the transaction is aborted and the
  batch runs again with a transaction of its own for each write, inside the one that is committed.
  Only the bad write's is aborted.
- deadlock: the batch runs again.
- the commit itself fails: nothing of the batch was written, all get that error. Unless the
  environment fails with it: then nobody can tell what recovery will find, and all are told so.

So `work` can run more than once and must be a pure function of the database.

The locks of a batch are kept until it is flushed: nobody reads what a power failure could undo.

A thread that may wait (`commit_here`) commits its own write when nobody else's waits: two changes
of thread less than by way of the committer.

Source: Programmer's Reference, "Transaction throughput" (group commit), "Deadlock detection",
"Nested transactions".
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from berkeleydb import db

from storage.environment import Environment, Lsn
from storage.errors import StorageError
from storage.library import LIBRARY_ERRORS, FateUnknown, RoleChanging, WatchFailed, from_library
from storage.tail import Tail
from storage.watches import Watch, Watches

__all__ = ["Batch", "Committer", "Durability", "Watch", "Watches", "Write"]

log = logging.getLogger(__name__)

Durability = Literal["sync", "write_nosync", "nosync"]
COMMIT_FLAGS: Final[dict[str, int]] = {
    "sync": db.DB_TXN_SYNC,
    "write_nosync": db.DB_TXN_WRITE_NOSYNC,
    "nosync": db.DB_TXN_NOSYNC,
}
# The first writes of a batch wait for its last; big values must not make that long.
EXECUTE_S_MAX: Final = 0.1
RETRIES_MAX: Final = 100  # then the writes fail: something holds their locks for good
RETRY_PAUSE_S: Final = 0.001
RETRY_PAUSE_S_MAX: Final = 0.02
# The library's words for a site that just became a replicant, besides the lockout itself.
_NOT_MASTER: Final = (db.DBRepLockoutError, db.DBAccessError, db.DBPermissionsError)
_AGAIN: Final = (db.DBLockDeadlockError, db.DBLockNotGrantedError, db.DBRepHandleDeadError)


@dataclass(slots=True, eq=False)
class Write:
    """One client's write on its way through the group commit.

    Args:
        work: called with the transaction, on the committer thread; what it returns is `result`.
        keys: the keys it may change, for WATCH.
        watch: refuse with `WatchFailed` when it is dirty.
        tag: whatever the submitter wants to find again in the batch.
        user: who wrote it, for the logical tail.
    """

    work: Callable[[db.DBTxn], Any]
    keys: Sequence[bytes] = ()
    watch: Watch | None = None
    tag: Any = None
    user: str = ""
    result: Any = None
    error: Exception | None = None


@dataclass(slots=True, eq=False)
class Batch:
    """Writes that were committed together, handed to `deliver`.

    `lsn` is the commit record's; None when nothing was logged (no write changed anything, or all
    failed). `stamp` is what the committer's `stamp` said before the transaction began.
    """

    writes: list[Write]
    lsn: Lsn | None = None
    stamp: int = 0
    locally_durable: bool = False
    started_s: float = field(default_factory=time.monotonic)


class _CommitFailed(Exception):
    """The environment failed inside the commit itself."""

    def __init__(self, cause: db.DBRunRecoveryError) -> None:
        super().__init__(*cause.args)
        self.cause = cause


class _Spoilt(Exception):
    """A work failed that may have written something: run the batch again, each apart."""


class Committer:
    """The one thread that commits clients' writes.

    Args:
        environment: an open one; this thread is adopted by it.
        deliver: called on the committer thread with each finished batch; it must hand over and
            return. Batches come in the order of their commits.
        wait_for_room: called before each transaction; blocks while replication is over its high
            mark (back-pressure happens here, never inside the library).
        on_dead_handles: called when a database handle died, to have all reopened.
        refusals: what a `work` raises before it writes anything.
        durability: "sync" flushes to disk, "write_nosync" writes to the system, "nosync" neither.
        batch_max: most writes of one transaction; 1 turns group commit off.
        look_up_lsn: find commits in the log; for when no replication calls `note_permanent`.
        tail: takes what each transaction changed, see `storage.tail`.
        stamp: asked before each transaction, see `Batch`.
    """

    name = "committer"

    def __init__(
        self,
        environment: Environment,
        deliver: Callable[[Batch], None],
        *,
        wait_for_room: Callable[[], None] | None = None,
        on_dead_handles: Callable[[], None] | None = None,
        refusals: tuple[type[Exception], ...] = (),
        durability: Durability = "sync",
        batch_max: int = 1024,
        look_up_lsn: bool = False,
        tail: Tail | None = None,
        stamp: Callable[[], int] = lambda: 0,
    ) -> None:
        self.changes = environment.changes
        self._tail = tail
        self._environment = environment
        self._deliver = deliver
        self._wait_for_room = wait_for_room
        self._on_dead_handles = on_dead_handles
        self._refusals = refusals
        self._flags = COMMIT_FLAGS[durability]
        self._durable = durability == "sync"
        self._batch_max = batch_max
        self._look_up_lsn = look_up_lsn
        self._stamp = stamp
        self._queue: queue.SimpleQueue[Write | None] = queue.SimpleQueue()
        self._left: deque[Write] = deque()
        self._stopping = False
        self._ended = False
        # One transaction at a time: whoever holds this is the committer for the moment.
        self._turn = threading.Lock()
        self._wants_turn = False  # the thread does; nobody gets in before it
        # Somebody wants, or has, the turn for longer than a transaction; set: nobody does.
        self._free = threading.Event()
        self._free.set()
        self._held = False
        self._ident = -1
        self._permanent: Lsn | None = None
        self._after: Callable[[Lsn], None] | None = None
        self.watches = Watches()
        self.commits = 0
        self.writes = 0
        self.unnoted = 0  # commits whose works noted no change, so that no ledger could list them
        self.retries = 0
        self.biggest_batch = 0
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        environment.adopt(self)
        self._thread.start()

    def submit(self, write: Write) -> None:
        """Queue one write. *Thread:* any. It comes back in a `Batch` given to `deliver`."""
        self._queue.put(write)
        if self._ended:
            # The thread may have taken its last look at the queue before the line above.
            self._refuse_queued()

    def commit_here(self, write: Write) -> None:
        """Commit one write on this thread when nothing else is waiting, else queue it.

        *Thread:* any that may wait for the disk, so not the event loop. The write comes back in a
        `Batch` given to `deliver`, on this thread or the committer's.
        """
        others = self._wants_turn or not self._queue.empty() or not self._free.is_set()
        if others or not self._turn.acquire(blocking=False):
            self.submit(write)
            return
        try:
            # Looked at with the turn, for which `join` waits.
            stopping = self._stopping
            if not stopping:
                self._take_turn([write])
        finally:
            self._turn.release()
        if stopping:
            self.submit(write)

    def hold(self) -> bool:
        """Begin no transaction until `release`; what is submitted waits. *Thread:* one at a time.

        Returns:
            True once none is under way; until then, ask again.
        """
        self._free.clear()
        self._held = self._held or self._turn.acquire(blocking=False)
        return self._held

    def release(self) -> None:
        """Go on with what waits; without a `hold`, nothing. *Thread:* that of `hold`."""
        if self._held:
            self._held = False
            self._turn.release()
        self._free.set()

    @property
    def queued(self) -> int:
        """Writes waiting for their transaction."""
        return self._queue.qsize() + len(self._left)

    def note_permanent(self, lsn: Lsn) -> None:
        """Learn a commit's LSN from the library's send callback.

        *Thread:* the one that commits; calls from other threads (a checkpoint's record) are not
        this committer's commits and are ignored.
        """
        if threading.get_ident() == self._ident:
            self._permanent = lsn
        elif self._tail is not None:
            self._tail.own(lsn)

    def call_behind(self, call: Callable[[Lsn], None]) -> None:
        """Call with the LSN of this commit before the next transaction begins; once for a commit.

        *Thread:* the one that commits: a `work` asks for it as its last act, each time it runs.
        `call` runs there as well, with every write waiting for it, and must not raise.
        """
        self._after = call

    def stop(self) -> None:
        """End after the transaction under way; what is queued fails with `TRYAGAIN`."""
        self._stopping = True
        self._queue.put(None)

    def join(self, timeout: float | None = None) -> None:
        deadline_s = None if timeout is None else time.monotonic() + timeout
        self._thread.join(timeout)
        # Whoever commits here is inside the library as well.
        left_s = -1 if deadline_s is None else max(0.0, deadline_s - time.monotonic())
        if self._turn.acquire(timeout=left_s):
            self._turn.release()

    def is_alive(self) -> bool:
        return self._thread.is_alive() or self._turn.locked()

    # -- the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping:
            writes = self._collect()
            if not writes or self._stopping:
                self._left.extend(writes)
                continue
            self._wants_turn = True
            self._free.wait()
            with self._turn:
                self._wants_turn = bool(self._left)
                done = self._take_turn(writes)
                self._left.extend(writes[done:])
                self._wants_turn = bool(self._left)
        self._ended = True
        self._refuse_queued()

    def _take_turn(self, writes: list[Write]) -> int:
        """Commit writes, or the first of them; returns how many. Holds the turn."""
        self._ident = threading.get_ident()
        if self._wait_for_room is not None:
            self._wait_for_room()
        return self._commit(writes)

    def _collect(self) -> list[Write]:
        """Take what waits; wait for a first one if nothing does. Empty: look whether to stop."""
        writes: list[Write] = []
        while self._left and len(writes) < self._batch_max:
            writes.append(self._left.popleft())
        get, block = self._queue.get, not writes
        while len(writes) < self._batch_max:
            try:
                write = get(block)
            except queue.Empty:
                break
            if write is None:
                break
            writes.append(write)
            block = False
        return writes

    def _refuse_queued(self) -> None:
        refused: list[Write] = []
        while self._left:
            refused.append(self._left.popleft())
        try:
            while True:
                write = self._queue.get_nowait()
                if write is not None:
                    refused.append(write)
        except queue.Empty:
            pass
        if refused:
            self._fail(
                refused,
                StorageError(
                    "the write was not started: the site is stopping",
                    code="TRYAGAIN",
                    hint="send it again to the site that is master then.",
                ),
            )

    def _fail(self, writes: list[Write], error: Exception) -> None:
        for write in writes:
            write.result, write.error = None, error
        self._deliver(Batch(writes))

    def _commit(self, writes: list[Write]) -> int:
        """Commit `writes`, or the first of them; deliver and count those that are done."""
        careful, pause_s = False, RETRY_PAUSE_S
        for attempt in range(RETRIES_MAX + 1):
            try:
                batch = self._attempt(writes, careful=careful)
            except _Spoilt:
                careful = True
                continue
            except _AGAIN as error:
                self.retries += 1
                if isinstance(error, db.DBRepHandleDeadError) and self._on_dead_handles is not None:
                    self._on_dead_handles()
                if attempt < RETRIES_MAX and not self._stopping:
                    time.sleep(pause_s)
                    pause_s = min(2 * pause_s, RETRY_PAUSE_S_MAX)
                    continue
                self._fail(writes, _kept_locked())
            except _CommitFailed as error:
                self._fail(writes, _fate_unknown())
                self._environment.failed(error.cause)
            except LIBRARY_ERRORS as error:
                self._fail(writes, _not_committed(error))
                self._environment.failed(error)
            else:
                self.biggest_batch = max(self.biggest_batch, len(batch.writes))
                self._deliver(batch)
                if self._after is not None and batch.lsn is not None:
                    self._after(batch.lsn)
                return len(batch.writes)
            break
        return len(writes)

    def _attempt(self, writes: list[Write], *, careful: bool) -> Batch:
        """Run and commit one transaction, or raise and have written nothing."""
        self._after = None
        self.changes.begin()
        self._take_permanent()
        stamp = self._stamp()
        txn = self._environment.env.txn_begin()
        try:
            done = self._execute(txn, writes, careful=careful)
        except BaseException:
            txn.abort()
            raise
        batch = Batch(done, stamp=stamp)
        own = [write.watch for write in done if write.watch is not None]
        for write in done:
            if write.error is None:
                # Before the commit lets anybody see the change. If the commit fails, a watcher
                # tries again for nothing; those of this batch would, when it runs again.
                self.watches.touch(write.keys, own)
        txn_id = txn.id()
        made_file, tail = self._take_permanent(), self._tail
        if tail is not None and made_file is not None:
            tail.own(made_file)
        if tail is not None and self.changes.items:
            tail.append(txn_id, self.changes.authors, self.changes.items)
        # From here on the transaction is the library's: a commit that fails has aborted.
        try:
            txn.commit(self._flags)
        except db.DBRunRecoveryError as error:
            raise _CommitFailed(error) from error
        batch.lsn = self._take_permanent()
        if self._look_up_lsn:
            batch.lsn = self._environment.commit_record(txn_id)
        if tail is not None and batch.lsn is not None:
            tail.committed(batch.lsn)
        batch.locally_durable = self._durable
        if batch.lsn is not None and not self.changes.items:
            self.unnoted += 1
        self.commits += 1
        self.writes += len(done)
        return batch

    def _take_permanent(self) -> Lsn | None:
        """Return the permanent LSN that this thread's last call into the library wrote."""
        lsn, self._permanent = self._permanent, None
        return lsn

    def _execute(self, txn: db.DBTxn, writes: list[Write], *, careful: bool) -> list[Write]:
        """Run the works until all are run or time is up; returns those that were."""
        run = self._run_apart if careful else self._run_together
        end_s = time.monotonic() + EXECUTE_S_MAX
        changed: set[bytes] | None = None
        notes = self.changes
        if any(write.watch is not None for write in writes):
            changed = set()
        for number, write in enumerate(writes, 1):
            watch = write.watch
            if watch is not None and (watch.dirty or not watch.keys.isdisjoint(changed or ())):
                write.result, write.error = None, WatchFailed("a watched key was changed")
                continue
            run(txn, write)
            notes.end_of_write(write.user, failed=write.error is not None)
            if changed is not None and write.error is None:
                changed.update(write.keys)
            if time.monotonic() > end_s:
                return writes[:number]
        return writes

    def _run_together(self, txn: db.DBTxn, write: Write) -> None:
        try:
            write.result = write.work(txn)
            write.error = None
        except self._refusals as refused:
            write.result, write.error = None, refused
        except _AGAIN:
            raise
        except db.DBRunRecoveryError:
            raise
        except Exception as error:
            raise _Spoilt from error

    def _run_apart(self, txn: db.DBTxn, write: Write) -> None:
        own = self._environment.env.txn_begin(txn)
        try:
            write.result = write.work(own)
            write.error = None
        except (*_AGAIN, db.DBRunRecoveryError):
            own.abort()
            raise
        except Exception as error:  # noqa: BLE001 - the write's own answer, see the module's text
            own.abort()
            write.result = None
            write.error = _not_committed(error) if isinstance(error, LIBRARY_ERRORS) else error
        else:
            own.commit()


def _not_committed(error: Exception) -> StorageError:
    if isinstance(error, _NOT_MASTER):
        return RoleChanging(
            "the write was not committed: this site takes no writes any more",
            hint="send it again to the site that is master now.",
        )
    return from_library(error, "the write was not committed")


def _fate_unknown() -> FateUnknown:
    return FateUnknown(
        "the write may be there or not: the environment failed while it was committed and needs"
        " recovery",
        hint="read it back once the server has recovered.",
    )


def _kept_locked() -> StorageError:
    return StorageError(
        "the write was not committed: others held its keys for too long",
        code="TRYAGAIN",
        hint="try again.",
    )
