"""Reads that never hold the event loop: at once when they can, on a thread when they must.

A read in the loop runs in a NOWAIT transaction, so a page that a commit or the apply thread has
locked is refused, not waited for. NOWAIT avoids locks, not the disk, and nothing tells beforehand
whether a page is in the cache. So the loop looks at its clock between the steps of a read
(`pace`): when time went by and its own thread moved blocks meanwhile, the read is broken off, and
all reads go to threads until those find the cache warm again. What cold reads cost the loop is
then one access to the disk in some hundred reads.

Two kinds of threads. The readers take every read that the loop gives away; they do not wait for
locks either. What meets a lock goes to the waiters, of which there are many, because they sleep:
a batch of the group commit keeps its locks until it is flushed, and two threads asleep behind
hot keys must not hold up the reads of all others.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Callable
from typing import Final, TypeVar

from berkeleydb import db

from storage.environment import Environment, Worker
from storage.errors import StorageError
from storage.library import LIBRARY_ERRORS, DatabaseMissing, RoleChanging, from_library

T = TypeVar("T")
Read = Callable[["db.DBTxn"], T]

SLOW_READ_S: Final = 0.001  # one fifth of the loop's stall budget of 5 ms
LOOP_READ_S_MAX: Final = 0.003  # a long pipeline of warm reads ends in the loop after this
LOOK_READS: Final = 64  # the block counter is looked at this often, whatever the clock says
WARM_READS: Final = 256  # so many thread reads in a row without disk input end the slow phase
RETRY_PAUSE_S: Final = 0.002
RETRY_FOR_S: Final = 2.0  # role changes and deadlocks are over well before this
READERS: Final = 4  # they run Python between the library's calls: more would crowd out the loop
WAITERS: Final = 16

_CONFLICTS: Final = (db.DBLockDeadlockError, db.DBLockNotGrantedError)
_PASSING: Final = (*_CONFLICTS, db.DBRepLockoutError, db.DBRepHandleDeadError)


class WouldBlock(Exception):
    """The read cannot be answered in the loop now: use `Reads.run`."""


class Reads:
    """Runs read functions in short transactions.

    Args:
        environment: an open one.
        nowait: what meets a change of the role or of the copy is given up at once (the operator's
            db_rep_conf_nowait), not tried again for a while.
        on_dead_handles: called when a database handle died, to have all reopened. *Thread:* any.

    Attributes:
        in_loop, on_thread, waited: reads answered at once, given away, and of these delayed by
            a lock.
    """

    def __init__(
        self,
        environment: Environment,
        on_dead_handles: Callable[[], None],
        *,
        nowait: bool = False,
    ) -> None:
        self._environment = environment
        self._on_dead_handles = on_dead_handles
        self._nowait = nowait
        environment.adopt(self)
        self._readers = environment.worker("reader", threads=READERS)
        self._waiters = environment.worker("waiting-reader", threads=WAITERS)
        self._own: db.DBTxn | None = None
        self._look_s = 0.0
        self._end_s = 0.0
        self._until_look = 0
        self._blocks = 0
        self._disk = False
        self._warm = 0
        self._stopped = False
        self.in_loop = 0
        self.on_thread = 0
        self.waited = 0

    @property
    def from_disk(self) -> bool:
        """True while reads go to the threads because the cache does not hold the data."""
        return self._disk

    def stop(self) -> None:
        """Answer nothing more: reads under way end at their next step. *Thread:* any."""
        self._stopped = True

    def join(self, timeout: float | None = None) -> None:
        """Nothing: the threads are the environment's."""

    def is_alive(self) -> bool:
        return False

    # -- in the loop ---------------------------------------------------------------------------

    def now(self, read: Read[T]) -> T:
        """Run `read` in the loop.

        Raises:
            WouldBlock: locked by another transaction, waiting for the disk, too much at once, or
                the role changes. `read` may have been run in part.
            StorageError: the database is missing or the library failed.
        """
        if self._disk or self._stopped:
            raise WouldBlock
        self._until_look -= 1
        if self._until_look < 0:
            self._until_look = LOOK_READS
            self._blocks = _blocks_moved()
        started_s = time.perf_counter()
        try:
            # The library's errors come out of `read` and out of the transaction's own calls.
            txn = self._environment.env.txn_begin(None, db.DB_TXN_NOWAIT)
            self._own = txn
            self._look_s, self._end_s = started_s + SLOW_READ_S, started_s + LOOP_READ_S_MAX
            try:
                result = read(txn)
            finally:
                self._own = None
                txn.abort()
        except _PASSING as error:
            if isinstance(error, db.DBRepHandleDeadError):
                self._on_dead_handles()
            raise WouldBlock from None
        except LIBRARY_ERRORS as error:
            self._environment.failed(error)
            raise from_library(error, "the read failed") from error
        finally:
            if time.perf_counter() - started_s > SLOW_READ_S:
                self._judge()
        self.in_loop += 1
        return result

    def pace(self, txn: db.DBTxn) -> bool:
        """Look at the clock between two steps of a read. *Thread:* any.

        Returns:
            True in the loop, where a step must be a short one.

        Raises:
            WouldBlock: this read has taken long enough in the loop.
            StorageError: the site is stopping.
        """
        if txn is not self._own:
            if self._stopped:
                raise _stopping()
            return False
        now_s = time.perf_counter()
        if now_s > self._look_s:
            self._look_s = now_s + SLOW_READ_S
            self._judge()
            if self._disk or now_s > self._end_s:
                raise WouldBlock
        return True

    def _judge(self) -> None:
        """Time went by in the loop: for the disk, or only for another thread's turn?"""
        blocks = _blocks_moved()
        if blocks != self._blocks:
            self._blocks = blocks
            self._warm = 0
            self._disk = True

    # -- on threads ----------------------------------------------------------------------------

    async def run(self, read: Read[T]) -> T:
        """Run `read` on a reader thread, waiting for locks.

        Args:
            read: may be run more than once.

        Raises:
            StorageError: the database is missing, the role is changing for too long, the site is
                stopping, or the library failed.

        *Cancellation:* the read itself goes on to its end; its result is dropped.
        """
        self.on_thread += 1
        try:
            return await self._on(self._readers, lambda: self._at_once(read))
        except WouldBlock:
            self.waited += 1
            return await self._on(self._waiters, lambda: self._patiently(read))

    async def call(self, call: Callable[[], T]) -> T:
        """Run something else that may enter the library, and may take long, on a thread.

        Raises:
            StorageError: the site is stopping, or the library failed.
            DBError: what passes and may be tried again: a deadlock, a lockout, a dead handle.
        """
        try:
            return await self._on(self._waiters, call)
        except _PASSING:
            raise
        except LIBRARY_ERRORS as error:
            self._environment.failed(error)
            raise from_library(error, "the database did not answer") from error

    async def _on(self, worker: Worker, call: Callable[[], T]) -> T:
        future = worker.submit(call)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if future.cancelled() and self._stopped:
                raise _stopping() from None  # the worker's doing, nobody cancelled the caller
            raise

    def _at_once(self, read: Read[T]) -> T:
        before = _blocks_moved() if self._disk else 0
        try:
            result = self._once(read, db.DB_TXN_NOWAIT)
        except _PASSING:
            raise WouldBlock from None
        if self._disk:
            self._cool(_blocks_moved() != before)
        return result

    def _patiently(self, read: Read[T]) -> T:
        deadline_s = time.monotonic() + RETRY_FOR_S
        while True:
            try:
                return self._once(read, 0)
            except _PASSING as error:
                if self._stopped:
                    raise _stopping() from None
                locked_out = isinstance(error, db.DBRepLockoutError)
                if time.monotonic() > deadline_s or (locked_out and self._nowait):
                    raise _given_up(error) from error
                time.sleep(RETRY_PAUSE_S)

    def _once(self, read: Read[T], flags: int) -> T:
        if self._stopped:
            raise _stopping()
        try:
            txn = self._environment.env.txn_begin(None, flags)
            try:
                return read(txn)
            finally:
                txn.abort()
        except _PASSING as error:
            if isinstance(error, db.DBRepHandleDeadError):
                self._on_dead_handles()
            raise
        except LIBRARY_ERRORS as error:
            self._environment.failed(error)
            raise from_library(error, "the read failed") from error

    def _cool(self, disk: bool) -> None:
        self._warm = 0 if disk else self._warm + 1
        if self._warm >= WARM_READS:
            self._disk = False


def _blocks_moved() -> int:
    """What this thread had to do with the disk so far.

    Input; output, when room in the cache is made by writing a page out (and its log records
    first); and pages of the cache itself that the system had paged out.
    """
    usage = resource.getrusage(resource.RUSAGE_THREAD)
    return usage.ru_inblock + usage.ru_oublock + usage.ru_majflt


def _stopping() -> StorageError:
    return StorageError(
        "the read was not answered: the site is stopping",
        code="TRYAGAIN",
        hint="send it again, or to another site.",
    )


def _given_up(error: Exception) -> StorageError:
    if isinstance(error, _CONFLICTS):
        return StorageError(
            f"the read was not answered: others held its keys for {RETRY_FOR_S:g} s",
            code="TRYAGAIN",
            hint="try again.",
        )
    return RoleChanging(
        "the read was not answered: the site is changing its role or copy", hint="try again."
    )


__all__ = ["DatabaseMissing", "Reads", "StorageError", "WouldBlock"]
