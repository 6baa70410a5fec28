"""The one owner of the Berkeley DB environment, and of every thread that may enter the library.

Why threads are made here: a thread inside the library while the environment closes crashes the
process. So whoever calls the library does it on a `Worker` (or a thread given to `adopt`) of this
environment, or on the event loop thread, which is the thread that closes it. `close` stops and
joins them all first, and refuses to close when one is still inside.

Source: Berkeley DB Programmer's Reference, "Environment FAQ" and "Architecting Transactional Data
Store applications"; API reference `DB_ENV->open`, `DB_ENV->close`.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol, TypeVar

from berkeleydb import db

from storage.library import EnvironmentFailed, StillInLibrary, from_library

T = TypeVar("T")
Lsn = tuple[int, int]

log = logging.getLogger(__name__)

OPEN_FLAGS = (
    db.DB_CREATE
    | db.DB_INIT_LOCK
    | db.DB_INIT_LOG
    | db.DB_INIT_MPOOL
    | db.DB_INIT_TXN
    | db.DB_THREAD
    | db.DB_RECOVER
)
FILE_MODE = 0o600  # the environment holds password hashes


class Stoppable(Protocol):
    """A thread of the environment: asked to stop, then joined."""

    def stop(self) -> None: ...
    def join(self, timeout: float | None = None) -> None: ...
    def is_alive(self) -> bool: ...


class Worker:
    """One thread with a queue of calls; the only way a coroutine calls the library.

    Calls run in the order they were submitted. After `stop`, what is queued is cancelled.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = (
            queue.SimpleQueue()
        )
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Queue `call`; its future is cancelled when the worker stops first."""
        future: Future[T] = Future()
        if self._stopped:
            future.cancel()
            return future
        self._calls.put((future, call))
        return future

    def stop(self) -> None:
        """End after the call under way."""
        self._stopped = True
        self._calls.put(None)

    def join(self, timeout: float | None = None) -> None:
        self._thread.join(timeout)

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        while True:
            item = self._calls.get()
            if item is None or self._stopped:
                if item is not None:
                    item[0].cancel()
                break
            future, call = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except BaseException as error:  # handed to whoever waits for the future
                future.set_exception(error)
        while not self._calls.empty():
            left = self._calls.get()
            if left is not None:
                left[0].cancel()


class Environment:
    """A transactional Berkeley DB environment.

    Args:
        home: the directory of the environment (var/db); made if absent, mode 0700.
        configure: called with the new DBEnv before it is opened; replication sets its transport,
            event callback and settings there. None: replication stays off.
    """

    def __init__(self, home: Path, configure: Callable[[db.DBEnv], None] | None = None) -> None:
        self.home = home
        self._configure = configure
        self._env: db.DBEnv | None = None
        self._threads: list[Stoppable] = []
        self.opened_at = 0.0
        self.recovery_seconds = 0.0
        self.panicked = False

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
            flags = OPEN_FLAGS
            if self._configure is not None:
                self._configure(env)
                flags |= db.DB_INIT_REP
            # Commits name their own durability; what is applied from a master is flushed by the
            # apply thread once a batch, so the environment's default is not to flush.
            env.set_flags(db.DB_TXN_NOSYNC, 1)
            env.open(str(self.home), flags, FILE_MODE)
        except (db.DBError, OSError) as error:
            env.close()
            raise from_library(error, f"the environment {self.home} cannot be opened") from error
        self._env = env
        self.panicked = False
        self.opened_at = time.time()
        self.recovery_seconds = time.monotonic() - started

    def worker(self, name: str) -> Worker:
        """Start a thread that may call the library."""
        worker = Worker(name)
        self._threads.append(worker)
        return worker

    def adopt(self, thread: Stoppable) -> None:
        """Count `thread` among those that `close` stops and joins first."""
        self._threads.append(thread)

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
        return (0, 0) if record is None else (record[0][0], record[0][1])

    def stop_threads(self, timeout_s: float) -> None:
        """Stop and join every thread, so that databases and the environment can be closed.

        Raises:
            StillInLibrary: a thread did not come out; see `close`.
        """
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.stop()
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        inside = [str(getattr(t, "name", t)) for t in self._threads if t.is_alive()]
        if inside:
            self._flush_quietly()
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
        try:
            env.log_flush()
        except db.DBError as error:
            log.warning("log_flush_failed home=%s error=%s", self.home, error)
        try:
            env.close()
        except db.DBError as error:
            # A panicked environment cannot close cleanly; the next open recovers it.
            log.warning("environment_close_failed home=%s error=%s", self.home, error)

    def _flush_quietly(self) -> None:
        try:
            self.env.log_flush()
        except (db.DBError, EnvironmentFailed) as error:
            log.warning("log_flush_failed home=%s error=%s", self.home, error)


def is_empty(home: Path) -> bool:
    """Tell whether an environment directory holds no log, so no data (it may hold DB_CONFIG)."""
    try:
        return not any(name.startswith("log.") for name in os.listdir(home))
    except FileNotFoundError:
        return True
