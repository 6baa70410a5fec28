"""Upkeep: checkpoints, dirty-page trickle, deadlock detection and log removal, off the loop.

One thread. A checkpoint bounds the time recovery takes; trickling keeps checkpoints (a master's
own, and the flush a replicant does when the master's checkpoint record arrives) short. Deadlocks
are found at each conflict (`set_lk_detect`); the periodic pass catches lock time-outs.

Source: Programmer's Reference, "Checkpoints", "Deadlock detection", "Log file removal".
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection

from berkeleydb import db

from storage import log_retention
from storage.environment import Environment, lsn_from_library
from storage.library import LIBRARY_ERRORS
from storage.log_retention import Logs

log = logging.getLogger(__name__)

TICK_S = 1.0
SAY_AGAIN_S = 60.0
CLEAN_PERCENT = 60  # share of the cache kept clean by trickling


class Upkeep:
    """The upkeep thread.

    Args:
        environment: an open one; the thread is adopted by it.
        is_master: checkpoints only run where this answers True; a replicant's come with the
            master's log.
        interval_s: a checkpoint at least this often, if anything was logged since.
        kbytes: a checkpoint after so much log, KiB; 0: only by time.
        removable: given the log files, on this thread, answers with the numbers of those to be
            removed; None: remove nothing.
        tick_s: how often it looks.

    Attributes:
        passes: how often it looked.
        checkpoints, last_checkpoint_s: how many were taken, seconds the last one took.
        deadlocks: lock requests that the periodic pass turned down.
        logs_removed: log files removed.
    """

    name = "upkeep"

    def __init__(
        self,
        environment: Environment,
        *,
        is_master: Callable[[], bool],
        interval_s: float,
        kbytes: int,
        removable: Callable[[Logs], Collection[int]] | None = None,
        tick_s: float = TICK_S,
    ) -> None:
        self._environment = environment
        self._is_master = is_master
        self._interval_s = interval_s
        self._kbytes = kbytes
        self._removable = removable
        self._tick_s = tick_s
        self._stop = threading.Event()
        self._may_work = threading.Lock()
        self._said = ""
        self._said_s = 0.0
        self.passes = 0
        self.checkpoints = 0
        self.deadlocks = 0
        self.logs_removed = 0
        self.last_checkpoint_s = 0.0
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        environment.adopt(self)
        self._thread.start()

    def stop(self) -> None:
        """End after the call under way."""
        self._stop.set()

    def join(self, timeout: float | None = None) -> None:
        self._thread.join(timeout)

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def hold(self) -> bool:
        """Do nothing until `release`; True once no pass is under way, until then ask again."""
        return self._may_work.acquire(blocking=False)

    def release(self) -> None:
        """Go on; only after a `hold` that was True."""
        self._may_work.release()

    def _run(self) -> None:
        last = time.monotonic()
        while not self._stop.wait(self._tick_s) and not self._environment.panicked:
            if not self._may_work.acquire(blocking=False):
                continue  # the next tick comes soon enough
            try:
                due = time.monotonic() - last >= self._interval_s
                if self._attempt(due=due) and due:
                    last = time.monotonic()
            finally:
                self._may_work.release()
            self.passes += 1

    def _attempt(self, *, due: bool) -> bool:
        try:
            self._work(due=due)
        except (db.DBRepLockoutError, db.DBAccessError) as error:
            # The role changed between the question and the call; the next tick asks again.
            log.debug("upkeep_skipped error=%s", error)
        except (*LIBRARY_ERRORS, OSError) as error:
            self._environment.failed(error)
            self._say(str(error))
        else:
            return True
        return False

    def _work(self, *, due: bool) -> None:
        env = self._environment.env
        self.deadlocks += env.lock_detect(db.DB_LOCK_MINWRITE)
        env.memp_trickle(CLEAN_PERCENT)
        if self._is_master():
            if due:
                self._checkpoint(0)
            elif self._kbytes:
                self._checkpoint(self._kbytes)
        self._remove_logs()

    def _checkpoint(self, kbytes: int) -> None:
        env = self._environment.env
        last = lsn_from_library(env.txn_stat()["last_ckp"])
        before = time.monotonic()
        # 0 with no minutes means "if anything was logged since the last one".
        env.txn_checkpoint(kbytes, 0)
        if lsn_from_library(env.txn_stat()["last_ckp"]) != last:
            self.last_checkpoint_s = time.monotonic() - before
            self.checkpoints += 1

    def _remove_logs(self) -> None:
        if self._removable is None:
            return
        numbers = self._removable(log_retention.look(self._environment))
        if numbers:
            self.logs_removed += len(log_retention.remove(self._environment, numbers))

    def _say(self, text: str) -> None:
        """Log a failure; the same one again only now and then (a full disk stays so for hours)."""
        now = time.monotonic()
        if text != self._said or now - self._said_s >= SAY_AGAIN_S:
            self._said, self._said_s = text, now
            log.warning("upkeep_failed error=%s", text)
