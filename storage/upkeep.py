"""Upkeep: checkpoints, dirty-page trickle, deadlock detection and log removal, off the loop.

One thread. A checkpoint bounds the time recovery takes; trickling keeps checkpoints (a master's
own, and the flush a replicant does when the master's checkpoint record arrives) short. Deadlocks
are found at each conflict (`set_lk_detect`); the periodic pass catches lock time-outs.

Source: Programmer's Reference, "Checkpoints", "Deadlock detection", "Log file removal".
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable

from berkeleydb import db

from storage.environment import Environment

log = logging.getLogger(__name__)

TICK_S = 1.0
CLEAN_PERCENT = 60  # share of the cache kept clean by trickling


class Upkeep:
    """The upkeep thread.

    Args:
        environment: an open one; the thread is adopted by it.
        is_master: checkpoints and log removal only run where this answers True; a replicant's
            checkpoints come with the master's log.
        interval_s: a checkpoint at least this often, if anything was logged since.
        kbytes: a checkpoint after so much log, KiB.
        removable_below: first log file number that must be kept, None: remove nothing.
        on_panic: told when the library says that it needs recovery.
    """

    name = "upkeep"

    def __init__(
        self,
        environment: Environment,
        *,
        is_master: Callable[[], bool],
        interval_s: float,
        kbytes: int,
        removable_below: Callable[[], int | None] = lambda: None,
        on_panic: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        self._environment = environment
        self._is_master = is_master
        self._interval_s = interval_s
        self._kbytes = kbytes
        self._removable_below = removable_below
        self._on_panic = on_panic
        self._wake = threading.Event()
        self.checkpoints = 0
        self.deadlocks = 0
        self.logs_removed = 0
        self.last_checkpoint_s = 0.0
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        environment.adopt(self)
        self._thread.start()

    def stop(self) -> None:
        """End after the call under way."""
        self._wake.set()

    def join(self, timeout: float | None = None) -> None:
        self._thread.join(timeout)

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        last = time.monotonic()
        while not self._wake.wait(TICK_S):
            try:
                self.deadlocks += self._environment.env.lock_detect(db.DB_LOCK_MINWRITE)
                self._environment.env.memp_trickle(CLEAN_PERCENT)
                if self._is_master():
                    due = time.monotonic() - last >= self._interval_s
                    self._checkpoint(0 if due else self._kbytes)
                    if due:
                        last = time.monotonic()
                    self._remove_logs()
            except db.DBRunRecoveryError as error:
                self._on_panic(error)
                return
            except (db.DBRepLockoutError, db.DBPermissionsError) as error:
                # The role changed between the question and the call; the next tick asks again.
                log.debug("upkeep_skipped error=%s", error)
            except db.DBError as error:
                log.warning("upkeep_failed error=%s", error)

    def _checkpoint(self, kbytes: int) -> None:
        before = time.monotonic()
        # 0 with no minutes means "if anything was logged since the last one".
        self._environment.env.txn_checkpoint(kbytes, 0)
        self.last_checkpoint_s = time.monotonic() - before
        self.checkpoints += 1

    def _remove_logs(self) -> None:
        keep_from = self._removable_below()
        if keep_from is None:
            return
        for path in self._environment.env.log_archive(db.DB_ARCH_ABS):
            number = int(os.path.basename(path).rpartition(".")[2])
            if number < keep_from:
                os.unlink(path)
                self.logs_removed += 1
