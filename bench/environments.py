"""Berkeley DB environments for the engines that use the library as it is.

Every engine's HOME gets the same DB_CONFIG, and so from ttserver's own code the same
var/db/DB_CONFIG: cache, log buffer, log files and lock tables do not differ between engines.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from berkeleydb import db

from bench.cases import Case, Lsn, SiteSpec
from storage import dbconfig
from storage.environment import lsn_from_library

POLL_S = 0.0005
KEYS_FILE = "keys.db"
COMMIT_FLAGS = {
    "sync": db.DB_TXN_SYNC,
    "write_nosync": db.DB_TXN_WRITE_NOSYNC,
    "nosync": db.DB_TXN_NOSYNC,
}
OPEN_FLAGS = (
    db.DB_CREATE
    | db.DB_INIT_LOCK
    | db.DB_INIT_LOG
    | db.DB_INIT_MPOOL
    | db.DB_INIT_TXN
    | db.DB_THREAD
    | db.DB_RECOVER
)
# As ttserver keeps its own environment: a checkpoint after so much log, looked at every second.
UPKEEP_TICK_S = 1.0
CHECKPOINT_KBYTES = 16 * 1024
CLEAN_PERCENT = 60
LOCAL_HOST = "127.0.0.1"


def write_config(spec: SiteSpec) -> Path:
    """Make a HOME with its DB_CONFIG; returns the directory of the environment."""
    home = Path(spec.home)
    home.mkdir(parents=True, exist_ok=True)
    master, replicant = (f"repmgr_site {LOCAL_HOST} {port}" for port in spec.ports)
    is_master = spec.role == "master"
    lines = [
        f"{master} db_local_site on db_group_creator on"
        if is_master
        else replicant + " db_local_site on",
        replicant if is_master else f"{master} db_bootstrap_helper on",
        f"rep_set_priority {int(is_master)}",
        f"repmgr_set_ack_policy db_repmgr_acks_{spec.case.acks}",
        f"rep_set_config db_rep_conf_bulk {'on' if spec.case.bulk else 'off'}",
    ]
    (home / "DB_CONFIG").write_text("\n".join(lines) + "\n", encoding="utf-8")
    dbconfig.install(home)
    return home / "var" / "db"


def log_end(env: db.DBEnv) -> Lsn:
    """Return the LSN of the last record in the log."""
    cursor = env.log_cursor()
    try:
        record = cursor.last()
    finally:
        cursor.close()
    assert record is not None, "something was written"
    return lsn_from_library(record[0])


def wait_applied(env: db.DBEnv, lsn: Lsn, *, flushed: bool, timeout_s: float) -> float | None:
    """Wait until a replicant has applied a permanent record.

    Args:
        lsn: of the record.
        flushed: until it is on this disk as well.
        timeout_s: at most so long.

    Returns:
        The monotonic clock then; None when the time was over first.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        reached = lsn_from_library(env.rep_stat()["max_perm_lsn"]) >= lsn
        if reached and flushed:
            log = env.log_stat()
            reached = (log["disk_file"], log["disk_offset"]) > lsn
        now = time.monotonic()
        if reached:
            return now
        if now >= deadline:
            return None
        time.sleep(POLL_S)


class Upkeep:
    """Checkpoints, trickling and deadlock detection on a thread, as ttserver does them."""

    def __init__(self, env: db.DBEnv, *, checkpoints: bool) -> None:
        self._env = env
        self._checkpoints = checkpoints
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(UPKEEP_TICK_S):
            self._env.lock_detect(db.DB_LOCK_MINWRITE)
            self._env.memp_trickle(CLEAN_PERCENT)
            if self._checkpoints:
                self._env.txn_checkpoint(CHECKPOINT_KBYTES, 0)

    def stop(self) -> None:
        """End after the call under way."""
        self._stop.set()
        self._thread.join()


class NativeStore:
    """An environment with one btree, written by one transaction a write."""

    def __init__(self, home: Path, case: Case) -> None:
        self._home = home
        self._commit_flags = COMMIT_FLAGS[case.durability]
        self.env = db.DBEnv()
        self.keys: db.DB | None = None
        self.retries = 0

    def open(self, configure: Callable[[db.DBEnv], None] | None = None) -> None:
        """Open the environment."""
        flags = OPEN_FLAGS
        if configure is not None:
            configure(self.env)
            flags |= db.DB_INIT_REP
        self.env.open(str(self._home), flags)

    def open_keys(self, *, create: bool) -> None:
        """Open the btree."""
        keys = db.DB(self.env)
        flags = db.DB_THREAD | db.DB_AUTO_COMMIT | (db.DB_CREATE if create else 0)
        keys.open(KEYS_FILE, dbtype=db.DB_BTREE, flags=flags)
        self.keys = keys

    def handle(self) -> db.DB:
        """Return the open btree."""
        assert self.keys is not None, "it is open"
        return self.keys

    def write(self, key: bytes, value: bytes) -> None:
        """Write in a transaction of its own."""
        env, keys, flags = self.env, self.handle(), self._commit_flags
        while True:
            txn = env.txn_begin()
            try:
                keys.put(key, value, txn)
            except db.DBLockDeadlockError:
                txn.abort()
                self.retries += 1
                continue
            txn.commit(flags)
            return

    def close(self) -> None:
        """Close both; nobody may be inside the library."""
        if self.keys is not None:
            self.keys.close(db.DB_NOSYNC)
        self.env.close()
