"""Group commit: one thread, many clients' writes in one transaction, one flush.

The committer takes whatever is queued (at most `batch_max` writes), runs each write's `work` in
one transaction and commits it once. While the commit is flushed, the next writes queue up, so the
batch grows with the load by itself and no timer is needed.

Each write gets its own result or its own error:

- `work` refuses (raises anything but a library error): it must do so before it writes anything;
  the others of the batch go on.
- the library refuses one write: the transaction is aborted and every write of the batch runs
  again in a transaction of its own, so only the bad one fails.
- deadlock: the batch runs again.

So `work` can run more than once and must be a pure function of the database.

Source: Programmer's Reference, "Transaction throughput" (group commit), "Deadlock detection".
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from berkeleydb import db

from storage.environment import Environment, Lsn
from storage.errors import StorageError
from storage.library import WatchFailed, from_library

log = logging.getLogger(__name__)

Durability = Literal["sync", "write_nosync", "nosync"]
COMMIT_FLAGS: dict[str, int] = {
    "sync": db.DB_TXN_SYNC,
    "write_nosync": db.DB_TXN_WRITE_NOSYNC,
    "nosync": db.DB_TXN_NOSYNC,
}
DEADLOCK_RETRIES_MAX = 100  # then the write fails: something holds its locks for good
DEADLOCK_PAUSE_S = 0.001


class Watch:
    """The keys one connection watches; `dirty` once a write ran that may change one of them."""

    __slots__ = ("_watches", "dirty", "keys")

    def __init__(self, watches: Watches, keys: frozenset[bytes]) -> None:
        self._watches = watches
        self.keys = keys
        self.dirty = False

    def close(self) -> None:
        """Forget the keys."""
        self._watches.remove(self)


class Watches:
    """Which keys are watched by whom.

    *Thread:* `add` and `remove` on the event loop; `touch` on the committer. Every single
    operation on the dictionary is atomic under the interpreter's lock; sets are replaced, never
    changed, so the committer never walks a set that changes.
    """

    def __init__(self) -> None:
        self._by_key: dict[bytes, frozenset[Watch]] = {}
        self._lock = threading.Lock()

    def add(self, keys: Sequence[bytes]) -> Watch:
        """Start watching `keys`."""
        watch = Watch(self, frozenset(keys))
        with self._lock:
            for key in watch.keys:
                self._by_key[key] = self._by_key.get(key, frozenset()) | {watch}
        return watch

    def remove(self, watch: Watch) -> None:
        """Stop; unknown watches are ignored."""
        with self._lock:
            for key in watch.keys:
                left = self._by_key.get(key, frozenset()) - {watch}
                if left:
                    self._by_key[key] = left
                else:
                    self._by_key.pop(key, None)

    def touch(self, keys: Sequence[bytes]) -> None:
        """Mark everyone who watches one of `keys`."""
        if not self._by_key:
            return
        for key in keys:
            for watch in self._by_key.get(key, ()):
                watch.dirty = True

    def touch_all(self) -> None:
        """Mark everyone: the database changed in a way that names no keys (a role change)."""
        for watchers in list(self._by_key.values()):
            for watch in watchers:
                watch.dirty = True


@dataclass(slots=True, eq=False)
class Write:
    """One client's write on its way through the group commit.

    Args:
        work: called with the transaction, on the committer thread; what it returns is `result`.
        keys: the keys it may change, for WATCH.
        watch: refuse with `WatchFailed` when it is dirty.
        tag: whatever the submitter wants to find again in the batch.
    """

    work: Callable[[db.DBTxn], Any]
    keys: Sequence[bytes] = ()
    watch: Watch | None = None
    tag: Any = None
    result: Any = None
    error: Exception | None = None


@dataclass(slots=True, eq=False)
class Batch:
    """Writes that were committed together, handed to `deliver`.

    `lsn` is the commit record's; None when nothing was logged (no write changed anything, or all
    failed).
    """

    writes: list[Write]
    lsn: Lsn | None = None
    locally_durable: bool = False
    started_s: float = field(default_factory=time.monotonic)


class Committer:
    """The one thread that commits clients' writes.

    Args:
        environment: an open one; this thread is adopted by it.
        deliver: called on the committer thread with each finished batch; it must hand over and
            return.
        wait_for_room: called before each transaction; blocks while replication is over its high
            mark (back-pressure happens here, never inside the library).
        durability: "sync" flushes to disk, "write_nosync" writes to the system, "nosync" neither.
        batch_max: most writes of one transaction; 1 turns group commit off.
    """

    name = "committer"

    def __init__(
        self,
        environment: Environment,
        deliver: Callable[[Batch], None],
        *,
        wait_for_room: Callable[[], None] | None = None,
        durability: Durability = "sync",
        batch_max: int = 1024,
        on_panic: Callable[[Exception], None] | None = None,
    ) -> None:
        self._environment = environment
        self._deliver = deliver
        self._wait_for_room = wait_for_room
        self._flags = COMMIT_FLAGS[durability]
        self._durable = durability == "sync"
        self._batch_max = batch_max
        self._on_panic = on_panic
        self._queue: queue.SimpleQueue[Write | None] = queue.SimpleQueue()
        self._stopping = False
        self._ident = -1
        self._permanent: Lsn | None = None
        self.watches = Watches()
        self.commits = 0
        self.writes = 0
        self.retries = 0
        self.biggest_batch = 0
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        environment.adopt(self)
        self._thread.start()

    def submit(self, write: Write) -> None:
        """Queue one write. *Thread:* any. It comes back in a `Batch` given to `deliver`."""
        self._queue.put(write)

    @property
    def queued(self) -> int:
        """Writes waiting for their transaction."""
        return self._queue.qsize()

    def note_permanent(self, lsn: Lsn) -> None:
        """Learn a commit's LSN from the library's send callback.

        *Thread:* the one that commits; calls from other threads (a checkpoint's record) are not
        this committer's commits and are ignored.
        """
        if threading.get_ident() == self._ident:
            self._permanent = lsn

    def stop(self) -> None:
        """End after the transaction under way; what is queued fails with `TRYAGAIN`."""
        self._stopping = True
        self._queue.put(None)

    def join(self, timeout: float | None = None) -> None:
        self._thread.join(timeout)

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        self._ident = threading.get_ident()
        get = self._queue.get
        while True:
            first = get()
            if first is None or self._stopping:
                break
            writes = [first]
            for _ in range(min(self._queue.qsize(), self._batch_max - 1)):
                write = get()
                if write is None:
                    break
                writes.append(write)
            if self._wait_for_room is not None:
                self._wait_for_room()
            self._finish(writes)
        self._refuse_rest(first)

    def _refuse_rest(self, first: Write | None) -> None:
        left = [first] if first is not None else []
        while not self._queue.empty():
            write = self._queue.get()
            if write is not None:
                left.append(write)
        for write in left:
            write.error = StorageError(
                "the write was not started: the site is stopping",
                code="TRYAGAIN",
                hint="send it again to the site that is master then.",
            )
        if left:
            self._deliver(Batch(left))

    def _finish(self, writes: list[Write]) -> None:
        """Commit `writes` together, or one by one when the library refuses one of them."""
        try:
            batch = self._commit(writes)
        except db.DBError as error:
            if len(writes) > 1 and not isinstance(error, db.DBRunRecoveryError):
                for write in writes:
                    self._finish([write])
                return
            failure = from_library(error, "the write was not committed")
            for write in writes:
                write.result, write.error = None, failure
            if isinstance(error, db.DBRunRecoveryError):
                self._environment.panicked = True
                if self._on_panic is not None:
                    self._on_panic(failure)
            batch = Batch(writes)
        self.biggest_batch = max(self.biggest_batch, len(writes))
        self._deliver(batch)

    def _commit(self, writes: list[Write]) -> Batch:
        for attempt in range(DEADLOCK_RETRIES_MAX + 1):
            batch = Batch(writes)
            txn = self._environment.env.txn_begin()
            try:
                self._execute(txn, writes)
            except (db.DBLockDeadlockError, db.DBLockNotGrantedError):
                txn.abort()
                self.retries += 1
                if attempt == DEADLOCK_RETRIES_MAX:
                    raise
                time.sleep(DEADLOCK_PAUSE_S)
                continue
            except BaseException:
                txn.abort()
                raise
            self._permanent = None
            # From here on the transaction is the library's: a commit that fails has aborted.
            txn.commit(self._flags)
            batch.lsn = self._permanent
            batch.locally_durable = self._durable
            self.commits += 1
            self.writes += len(writes)
            return batch
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _execute(self, txn: db.DBTxn, writes: list[Write]) -> None:
        touch = self.watches.touch
        for write in writes:
            if write.watch is not None and write.watch.dirty:
                write.result, write.error = None, WatchFailed("a watched key was changed")
                continue
            try:
                write.result = write.work(txn)
                write.error = None
            except db.DBError:
                raise
            except Exception as refused:  # the write's own answer, see the module's text
                write.result, write.error = None, refused
                continue
            # Marked before the commit: if it fails, a watcher retries for nothing, no harm.
            touch(write.keys)
