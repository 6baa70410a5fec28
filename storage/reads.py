"""Reads that never hold the event loop: at once when they can, on a thread when they must.

A read in the loop runs in a NOWAIT transaction, so a page that the apply thread or a commit has
locked is refused, not waited for. NOWAIT does not avoid disk reads: the loop watches its own
thread's block input counter, and when a slow read came from the disk, all reads go to the reader
threads until those find the cache warm again.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from berkeleydb import db

from storage.environment import Environment, Worker
from storage.errors import StorageError
from storage.library import DatabaseMissing, RoleChanging, from_library

T = TypeVar("T")
Read = Callable[["db.DBTxn"], T]

SLOW_READ_S = 0.001  # one fifth of the loop's stall budget of 5 ms
WARM_READS = 256  # so many thread reads in a row without disk input end the slow phase
RETRY_PAUSE_S = 0.002
RETRY_FOR_S = 2.0  # role changes and deadlocks are over well before this


class WouldBlock(Exception):
    """The read cannot be answered in the loop now: use `Reads.run`."""


class Reads:
    """Runs read functions in short transactions.

    Args:
        environment: an open one.
        on_dead_handles: called when a database handle died, to have all reopened.
        threads: reader threads; each takes one read at a time.
    """

    def __init__(
        self, environment: Environment, on_dead_handles: Callable[[], None], *, threads: int = 2
    ) -> None:
        self._environment = environment
        self._on_dead_handles = on_dead_handles
        self._workers: list[Worker] = [
            environment.worker(f"reader-{number}") for number in range(threads)
        ]
        self._next = 0
        self._disk = False
        self._warm = 0
        self._inputs = 0
        self.in_loop = 0
        self.on_thread = 0

    @property
    def from_disk(self) -> bool:
        """True while reads go to the threads because the cache does not hold the data."""
        return self._disk

    def now(self, read: Read[T]) -> T:
        """Run `read` in the loop.

        Raises:
            WouldBlock: locked by another transaction, waiting for the disk, or the role changes.
            StorageError: the database is missing or the library failed.
        """
        if self._disk:
            raise WouldBlock
        started = time.perf_counter()
        try:
            txn = self._environment.env.txn_begin(None, db.DB_TXN_NOWAIT)
            try:
                result = read(txn)
            finally:
                txn.abort()
        except (db.DBLockNotGrantedError, db.DBLockDeadlockError, db.DBRepLockoutError):
            raise WouldBlock from None
        except db.DBRepHandleDeadError:
            self._on_dead_handles()
            raise WouldBlock from None
        except db.DBError as error:
            raise from_library(error, "the read failed") from error
        if time.perf_counter() - started > SLOW_READ_S:
            self._judge()
        self.in_loop += 1
        return result

    async def run(self, read: Read[T]) -> T:
        """Run `read` on a reader thread, waiting for locks.

        Raises:
            StorageError: the database is missing, the role is changing for too long, or the
                library failed.

        *Cancellation:* the read itself goes on to its end; its result is dropped.
        """
        worker = self._workers[self._next]
        self._next = (self._next + 1) % len(self._workers)
        self.on_thread += 1
        return await asyncio.wrap_future(worker.submit(lambda: self._blocking(read)))

    def call(self, call: Callable[[], T]) -> Future[T]:
        """Run something else that may enter the library on a reader thread."""
        return self._workers[0].submit(call)

    def _judge(self) -> None:
        """A read in the loop was slow: by the disk, or only by another thread's turn?"""
        inputs = resource.getrusage(resource.RUSAGE_THREAD).ru_inblock
        if inputs != self._inputs:
            self._inputs = inputs
            self._disk = True
            self._warm = 0

    def _blocking(self, read: Read[T]) -> T:
        deadline = time.monotonic() + RETRY_FOR_S
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_inblock if self._disk else 0
        while True:
            try:
                result = self._once(read)
            except (db.DBLockDeadlockError, db.DBLockNotGrantedError, RoleChanging):
                if time.monotonic() > deadline:
                    raise RoleChanging(
                        "the read was not answered: the site is changing its role or copy",
                        hint="try again.",
                    ) from None
                time.sleep(RETRY_PAUSE_S)
                continue
            if self._disk:
                self._cool(resource.getrusage(resource.RUSAGE_THREAD).ru_inblock != before)
            return result

    def _once(self, read: Read[T]) -> T:
        try:
            txn = self._environment.env.txn_begin()
            try:
                return read(txn)
            finally:
                txn.abort()
        except (db.DBLockDeadlockError, db.DBLockNotGrantedError):
            raise
        except db.DBRepHandleDeadError:
            self._on_dead_handles()
            raise RoleChanging("the copy is being replaced") from None
        except db.DBError as error:
            raise from_library(error, "the read failed") from error

    def _cool(self, disk: bool) -> None:
        self._warm = 0 if disk else self._warm + 1
        if self._warm >= WARM_READS:
            self._disk = False


__all__ = ["DatabaseMissing", "Reads", "StorageError", "WouldBlock"]
