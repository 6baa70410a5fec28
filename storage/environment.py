"""The one owner of the Berkeley DB environment, and of every thread that may enter the library.

Why threads are made here: a thread inside the library while the environment closes crashes the
process. So whoever calls the library does it on a `Worker` (or a thread given to `adopt`) of this
environment, or on the event loop thread, which is the thread that has it closed. `close` stops and
joins them all first, and refuses to close when one is still inside.

Source: Berkeley DB Programmer's Reference, "Environment FAQ" and "Architecting Transactional Data
Store applications"; API reference `DB_ENV->open`, `DB_ENV->close`.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from berkeleydb import db

from storage import regions
from storage.changes import Changes
from storage.errors import StorageError
from storage.library import LIBRARY_ERRORS, EnvironmentFailed, StillInLibrary, from_library
from storage.worker import Stoppable, Worker

Lsn = tuple[int, int]

__all__ = ["Environment", "Lsn", "Stoppable", "Worker", "is_empty"]

log = logging.getLogger(__name__)

OPEN_FLAGS: Final = (
    db.DB_CREATE
    | db.DB_INIT_LOCK
    | db.DB_INIT_LOG
    | db.DB_INIT_MPOOL
    | db.DB_INIT_TXN
    | db.DB_THREAD
    | db.DB_RECOVER
)
FILE_MODE: Final = 0o600  # the environment holds password hashes
FLUSH_TIMEOUT_S: Final = 0.5  # of the last flush, when a thread is stuck in the library
FULL_BYTES: Final = 2**20  # less than this free is a full disk
COMMIT_RECORD: Final = 10  # type of a log record that commits a transaction
# Between a commit's record and the end of the log lie at most the few of a checkpoint.
COMMIT_LOOK_BACK: Final = 32
_RECORD_HEAD: Final = struct.Struct("=Ii")  # the binding gives transaction ids signed


def lsn_from_library(pair: Lsn) -> Lsn:
    """Take an LSN from the binding, which leaves the upper half of its two numbers to chance."""
    return (pair[0] & 0xFFFFFFFF, pair[1] & 0xFFFFFFFF)


# Kept as the library handle's private object once the library refused to make a database handle,
# as it does when it needs recovery. The binding has put that handle into its list of those to
# close, and freed it: closing the environment would walk into freed memory.
HANDLE_REFUSED: Final = "a database handle was refused"


class Environment:
    """A transactional Berkeley DB environment.

    Args:
        home: the directory of the environment (var/db); made if absent, mode 0700.
        configure: called with the new DBEnv before it is opened; replication sets its transport,
            event callback and settings there. None: replication stays off.
        on_panic: called once, on whichever thread found that the library needs recovery.

    Attributes:
        recovery_seconds: how long the open took.
        panicked: the library said that it needs recovery; close it and make a new one.
        changes: notes of what the committer's transaction writes.
    """

    def __init__(
        self,
        home: Path,
        configure: Callable[[db.DBEnv], None] | None = None,
        on_panic: Callable[[Exception], None] | None = None,
    ) -> None:
        self.home = home
        self._configure = configure
        self._on_panic = on_panic
        self._env: db.DBEnv | None = None
        self._threads: list[Stoppable] = []
        self._regions: list[Path] = []
        self._panic_lock = threading.Lock()
        self.opened_at = 0.0
        self.recovery_seconds = 0.0
        self.log_file_bytes = 0
        self.panicked = False
        self.changes = Changes()

    @property
    def env(self) -> db.DBEnv:
        """The open library handle.

        Raises:
            EnvironmentFailed: it is closed.
        """
        if self._env is None:
            raise EnvironmentFailed(
                f"the environment {self.home} is closed",
                hint="wait until the site is running again.",
            )
        return self._env

    @property
    def is_open(self) -> bool:
        return self._env is not None

    def open(self) -> None:
        """Open with recovery. Blocks as long as recovery takes: call it off the event loop.

        Raises:
            StorageError: with the library's words, the directory and what to do.
        """
        started = time.monotonic()
        try:
            self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise from_library(error, f"{self.home} cannot be made") from error
        env = db.DBEnv()
        try:
            regions.must_have_room(self.home)
            self._prepare(env)
            flags = OPEN_FLAGS if self._configure is None else OPEN_FLAGS | db.DB_INIT_REP
            env.open(str(self.home), flags, FILE_MODE)
            self._regions = list(regions.mapped(self.home))
            regions.reserve(self.home)
            self.log_file_bytes = env.get_lg_max()
        except (*LIBRARY_ERRORS, OSError) as error:
            _close_quietly(env, self.home)
            regions.release(self._regions)
            raise self._not_opened(error) from error
        except BaseException:
            _close_quietly(env, self.home)
            raise
        self._env = env
        self.opened_at = time.time()
        self.recovery_seconds = time.monotonic() - started

    def _prepare(self, env: db.DBEnv) -> None:
        """Set what DB_CONFIG, which the open reads, may say otherwise."""
        # Commits name their own durability; what is applied from a master is flushed by the
        # apply thread once a batch, so the environment's default is not to flush.
        env.set_flags(db.DB_TXN_NOSYNC, 1)
        # The region files' first pages are written, not only mapped: see `storage.regions`.
        env.set_flags(db.DB_REGION_INIT, 1)
        # A conflict that can never end is ended when it arises. The victim has written least, so
        # it is a reader and not a batch of many clients, whoever came first.
        env.set_lk_detect(db.DB_LOCK_MINWRITE)
        if self._configure is not None:
            self._configure(env)

    def _not_opened(self, error: Exception) -> StorageError:
        what = f"the environment {self.home} cannot be opened"
        try:
            found = os.statvfs(self.home)
        except OSError:
            return from_library(error, what)
        if found.f_bavail * found.f_frsize < FULL_BYTES:
            # In the library's words a region file that found no room is "unable to join".
            return from_library(OSError(errno.ENOSPC, str(error.args[-1])), what)
        return from_library(error, what)

    def new_handle(self) -> db.DB:
        """Make a handle for one database, not open yet. *Thread:* any of this environment's.

        Raises:
            DBRunRecoveryError: the library needs recovery.
        """
        env = self.env
        env.txn_stat()  # mostly finds that out first, so that the close can do its work
        try:
            return db.DB(env)
        except LIBRARY_ERRORS:
            env.set_private(HANDLE_REFUSED)
            raise

    def worker(self, name: str, *, threads: int = 1) -> Worker:
        """Start threads that may call the library."""
        worker = Worker(name, threads=threads)
        self._threads.append(worker)
        return worker

    def adopt(self, thread: Stoppable) -> None:
        """Count `thread` among those that `close` stops and joins first."""
        self._threads.append(thread)

    def failed(self, error: BaseException) -> None:
        """Take note of a library error; the first that asks for recovery is passed on.

        *Thread:* any.
        """
        if isinstance(error, db.DBRunRecoveryError):
            self.panic(str(error.args[-1]))

    def panic(self, words: str) -> None:
        """Take note that the library asks for recovery; told once, with the cause if it shows.

        *Thread:* any; does not call the library.
        """
        with self._panic_lock:
            first, self.panicked = not self.panicked, True
        if first and self._on_panic is not None:
            self._on_panic(self._why_failed(words))

    def _why_failed(self, words: str) -> StorageError:
        what = f"the environment {self.home} failed"
        try:
            found = os.statvfs(self.home)
        except OSError as error:
            return from_library(error, what)
        # The library names no cause. A log that cannot grow is the usual one.
        if found.f_bavail * found.f_frsize < FULL_BYTES:
            return from_library(OSError(errno.ENOSPC, words), what)
        return EnvironmentFailed(
            f"{what}: the library needs recovery ({words})",
            hint="it is opened again; see the server's log for the library's own words.",
        )

    def log_end(self) -> Lsn:
        """The LSN where the next log record goes. *Thread:* any of this environment's."""
        stat = self.env.log_stat()
        return (stat["cur_file"], stat["cur_offset"])

    def last_record(self) -> Lsn:
        """The LSN of the last log record, (0, 0) when the log is empty."""
        cursor = self.env.log_cursor()
        try:
            record = cursor.last()
        finally:
            cursor.close()
        return (0, 0) if record is None else lsn_from_library(record[0])

    def commit_record(self, txn_id: int) -> Lsn | None:
        """Find the LSN of a transaction that was committed just now; None if it logged nothing."""
        cursor = self.env.log_cursor()
        try:
            record = cursor.last()
            for _ in range(COMMIT_LOOK_BACK):
                if record is None:
                    break
                lsn, data = record
                if _commits(data, txn_id):
                    return (lsn[0], lsn[1])
                record = cursor.prev()
        finally:
            cursor.close()
        return None

    def stop_threads(self, timeout_s: float) -> None:
        """Stop and join every thread, so that databases and the environment can be closed.

        Args:
            timeout_s: for all of them together, and for a last flush if one does not come out.

        Raises:
            StillInLibrary: a thread did not come out; see `close`.
        """
        # The last flush has to fit in as well.
        deadline = time.monotonic() + max(timeout_s / 2, timeout_s - FLUSH_TIMEOUT_S)
        for thread in self._threads:
            thread.stop()
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        inside = [str(getattr(t, "name", t)) for t in self._threads if t.is_alive()]
        if inside:
            self._flush_briefly()
            raise StillInLibrary(
                f"the environment {self.home} was not closed: still inside the library after "
                f"{timeout_s:.1f} s: {', '.join(inside)}",
                hint="end the process; the log is flushed and the next start recovers.",
            )
        self._threads.clear()

    def close(self, timeout_s: float) -> None:
        """Stop and join every thread, then close the library's handle.

        Args:
            timeout_s: how long the threads have together, seconds.

        Raises:
            StillInLibrary: a thread did not come out; nothing was closed. The log was flushed,
                so the caller may end the process and the next start recovers.
        """
        self.stop_threads(timeout_s)
        env, self._env = self._env, None
        if env is None:
            return
        if not self.panicked:
            try:
                env.log_flush()
            except LIBRARY_ERRORS as error:
                log.warning("log_flush_failed home=%s error=%s", self.home, error)
        _close_quietly(env, self.home)
        regions.release(self._regions)

    def _flush_briefly(self) -> None:
        """Flush the log; on a thread, because the stuck one may hold what a flush needs."""
        env = self._env
        if env is None or self.panicked:
            return

        def flush() -> None:
            try:
                env.log_flush()
            except LIBRARY_ERRORS as error:
                log.warning("log_flush_failed home=%s error=%s", self.home, error)

        thread = threading.Thread(target=flush, name="last-flush", daemon=True)
        thread.start()
        thread.join(FLUSH_TIMEOUT_S)
        if thread.is_alive():
            log.warning(
                "log_flush_failed home=%s error=not done in %s s", self.home, FLUSH_TIMEOUT_S
            )


def _close_quietly(env: db.DBEnv, home: Path) -> None:
    if env.get_private() == HANDLE_REFUSED:
        log.warning("environment_abandoned home=%s", home)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(env))  # its end would be a close as well
        return
    try:
        env.close()
    except LIBRARY_ERRORS as error:
        # A panicked environment cannot close cleanly; the next open recovers it.
        log.warning("environment_close_failed home=%s error=%s", home, error)


def _commits(record: bytes, txn_id: int) -> bool:
    """Tell whether a log record is this transaction's commit: its type, then its transaction."""
    # In the machine's own byte order, as all of a log is.
    return len(record) >= _RECORD_HEAD.size and _RECORD_HEAD.unpack_from(record) == (
        COMMIT_RECORD,
        txn_id,
    )


def is_empty(home: Path) -> bool:
    """Tell whether an environment directory holds no log, so no data (it may hold DB_CONFIG)."""
    try:
        return not any(path.name.startswith("log.") for path in home.iterdir())
    except FileNotFoundError:
        return True
