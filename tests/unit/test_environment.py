"""The environment's owner: recovery, its threads, a close that never happens under a thread."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from berkeleydb import db

from storage import regions
from storage.database import Database
from storage.environment import Environment, Worker, is_empty
from storage.errors import StorageError
from storage.library import EnvironmentFailed, StillInLibrary
from tests.support.environments import Open, Stuck, configured, environments, fast, wait_for

__all__ = ["environments", "fast"]

ROOT = Path(__file__).parents[2]

_KILLED = """
import os, sys
from pathlib import Path
from berkeleydb import db
from storage.database import Database
from storage.environment import Environment

environment = Environment(Path(sys.argv[1]))
environment.open()
keys = Database(environment, "keys.db").create()
for number in range(500):
    txn = environment.env.txn_begin()
    keys.put(b"%04d" % number, b"x" * 200, txn)
    txn.commit(db.DB_TXN_SYNC)
lost = environment.env.txn_begin()
keys.put(b"lost", b"never committed", lost)
os.kill(os.getpid(), 9)
"""


def test_what_was_committed_before_a_kill_is_there_after_the_next_open(
    environments: Open, fast: Path
) -> None:
    home = configured(fast / "killed")
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, str(home)], cwd=ROOT, timeout=60, check=False
    )
    assert killed.returncode == -9
    opened = environments("killed")
    assert opened.get(b"lost") is None
    assert [key for key, _ in opened.all()] == [b"%04d" % number for number in range(500)]
    assert opened.environment.recovery_seconds > 0


_FAILS_BETWEEN = """
import sys
from pathlib import Path
from berkeleydb import db
from storage.database import Database
from storage.environment import Environment

home = Path(sys.argv[1])
environment = Environment(home)
environment.open()
Database(environment, "keys.db").create()
make = db.DB

def fails(env):
    env.set_flags(db.DB_PANIC_ENVIRONMENT, 1)
    return make(env)

db.DB = fails
for _ in range(3):
    try:
        Database(environment, "users.db").create()
    except db.DBRunRecoveryError:
        pass
environment.panic("needs recovery")
garbage = [bytes(200) for _ in range(1000)]
environment.close(5)
db.DB = make
environment = Environment(home)
environment.open()
Database(environment, "users.db").create()
environment.close(5)
"""


def test_an_environment_that_fails_while_a_handle_is_made_is_replaced(fast: Path) -> None:
    home = configured(fast / "failed")
    subprocess.run(
        [sys.executable, "-c", _FAILS_BETWEEN, str(home)], cwd=ROOT, timeout=60, check=True
    )


def test_it_is_closed_until_it_is_opened_and_after_it_was_closed(fast: Path) -> None:
    environment = Environment(configured(fast / "env"))
    with pytest.raises(EnvironmentFailed, match="is closed"):
        _ = environment.env
    environment.open()
    assert environment.is_open
    assert environment.log_file_bytes == 1048576
    environment.close(5)
    environment.close(5)
    with pytest.raises(EnvironmentFailed, match="is closed"):
        _ = environment.env


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file/db cannot be made: ") as refused:
        Environment(tmp_path / "file" / "db").open()
    assert refused.value.hint


def test_a_bad_db_config_is_an_error_with_the_librarys_words(fast: Path) -> None:
    home = configured(fast / "env", ["set_cachesize many"])
    environment = Environment(home)
    with pytest.raises(StorageError, match=f"the environment {home} cannot be opened: "):
        environment.open()
    assert not environment.is_open


def test_what_the_administrator_says_wins_over_our_defaults(environments: Open) -> None:
    assert environments("ours").env.get_lk_detect() == db.DB_LOCK_MINWRITE
    own = environments("theirs", lines=["set_lk_detect db_lock_oldest"])
    assert own.env.get_lk_detect() == db.DB_LOCK_OLDEST


def test_calls_run_in_their_order_on_one_thread(environments: Open) -> None:
    worker = environments().environment.worker("calls")
    ran: list[tuple[int, str]] = []

    def note(number: int) -> None:
        ran.append((number, threading.current_thread().name))

    calls = [worker.submit(partial(note, number)) for number in range(100)]
    for call in calls:
        call.result(5)
    assert ran == [(number, "calls") for number in range(100)]


def test_a_calls_error_is_its_own(environments: Open) -> None:
    worker = environments().environment.worker("calls")
    bad, good = worker.submit(lambda: 1 // 0), worker.submit(lambda: 7)
    with pytest.raises(ZeroDivisionError):
        bad.result(5)
    assert good.result(5) == 7


def test_threads_of_one_worker_work_side_by_side(environments: Open) -> None:
    worker = environments().environment.worker("many", threads=3)
    together = threading.Barrier(3, timeout=10)
    assert len({call.result(10) for call in [worker.submit(together.wait) for _ in range(3)]}) == 3


def test_a_stopped_worker_cancels_what_waits_and_what_comes() -> None:
    worker, entered, leave = Worker("calls"), threading.Event(), threading.Event()

    def occupy() -> str:
        entered.set()
        assert leave.wait(10)
        return "done"

    under_way = worker.submit(occupy)
    assert entered.wait(10)
    waiting = worker.submit(lambda: "never")
    worker.stop()
    late = worker.submit(lambda: "never")
    assert waiting.cancelled()
    assert late.cancelled()
    leave.set()
    worker.join(10)
    assert not worker.is_alive()
    assert under_way.result(0) == "done"


def test_no_call_is_forgotten_however_stop_and_submit_meet() -> None:
    for _ in range(200):
        worker, start = Worker("calls", threads=2), threading.Barrier(2)
        with ThreadPoolExecutor(1) as other:
            submitted = other.submit(_submit_some, worker, start)
            start.wait(10)
            worker.stop()
            futures = submitted.result(10)
        worker.join(10)
        for future in futures:
            assert future.cancelled() or future.result(5) == 1


def _submit_some(worker: Worker, start: threading.Barrier) -> list[Future[int]]:
    start.wait(10)
    return [worker.submit(lambda: 1) for _ in range(5)]


def test_a_thread_that_stays_in_the_library_keeps_the_environment_open(environments: Open) -> None:
    opened = environments()
    opened.put(b"key")
    other = Database(opened.environment, "other.db")
    other.create()
    holder = opened.lock(b"key")
    waiting = threading.Event()

    def wait_for_the_lock() -> None:
        txn = opened.env.txn_begin()
        waiting.set()
        try:
            opened.keyspace.get(txn, b"key")  # inside the library until `holder` is ended
        finally:
            txn.abort()

    opened.environment.adopt(Stuck(wait_for_the_lock))
    assert waiting.wait(5)
    wait_for("the thread waits for the lock", lambda: opened.env.lock_stat()["lock_wait"] > 0)
    flushed = opened.env.log_stat()["disk_offset"]
    with opened.txn() as txn:
        other.handle().put(b"committed", b"not flushed", txn)
    began = time.monotonic()
    with pytest.raises(StillInLibrary, match=r"still inside the library after 1\.0 s: stuck"):
        opened.environment.close(1.0)
    assert time.monotonic() - began < 2.5
    assert opened.environment.is_open
    assert opened.env.log_stat()["disk_offset"] > flushed
    holder.abort()
    other.close()
    opened.close()
    assert not opened.environment.is_open


def test_a_panic_is_passed_on_once_with_what_to_do(environments: Open) -> None:
    told: list[Exception] = []
    opened = environments(on_panic=told.append)
    opened.env.set_flags(db.DB_PANIC_ENVIRONMENT, 1)
    for _ in range(2):
        with pytest.raises(db.DBRunRecoveryError) as panic:
            opened.env.txn_begin()
        opened.environment.failed(panic.value)
    opened.environment.failed(db.DBInvalidArgError(22, "no panic"))
    assert opened.environment.panicked
    (error,) = told
    assert isinstance(error, EnvironmentFailed)
    assert "the library needs recovery (" in str(error)
    assert error.hint


def test_after_a_panic_it_can_be_closed_and_opened_again(environments: Open) -> None:
    opened = environments()
    with opened.txn() as txn:
        opened.keyspace.put(txn, b"key", b"kept")
    opened.env.log_flush()
    opened.env.set_flags(db.DB_PANIC_ENVIRONMENT, 1)
    with pytest.raises(db.DBRunRecoveryError) as panic:
        opened.env.txn_begin()
    opened.environment.failed(panic.value)
    opened.close()
    assert not opened.environment.is_open
    assert environments().get(b"key") == b"kept"


def test_log_positions(environments: Open) -> None:
    opened = environments(create=False)
    assert opened.environment.last_record() == (0, 0)
    opened.database.create()
    last = opened.environment.last_record()
    assert (1, 28) <= last < opened.environment.log_end()


def test_a_commits_record_is_found_behind_a_checkpoint(environments: Open) -> None:
    opened = environments()
    txn = opened.env.txn_begin()
    opened.keyspace.put(txn, b"key", b"value")
    number = txn.id()
    txn.commit()
    expected = opened.environment.last_record()
    opened.env.txn_checkpoint(0, 0, db.DB_FORCE)
    assert opened.environment.last_record() > expected
    assert opened.environment.commit_record(number) == expected
    reader = opened.env.txn_begin()
    opened.keyspace.get(reader, b"key")
    number = reader.id()
    reader.commit()
    assert opened.environment.commit_record(number) is None


def test_blocks_are_set_aside_for_the_regions_and_given_back(environments: Open) -> None:
    opened = environments()
    home = opened.environment.home
    files = regions.mapped(home)
    assert {path.name for path in files} >= {"__db.001", "__db.002", "__db.003"}
    for path, size in files.items():
        assert path.stat().st_blocks * 512 >= size > path.stat().st_size
    opened.close()
    assert regions.mapped(home) == {}
    for path in files:
        assert path.stat().st_blocks * 512 <= path.stat().st_size + 4096


def test_a_disk_without_room_for_the_cache_is_told_before_it_is_opened(fast: Path) -> None:
    home = configured(fast / "env", ["set_cachesize 0 1048576 1", "set_cachesize 1000000 0 1"])
    environment = Environment(home)
    with pytest.raises(StorageError, match=r"the disk is full \(\d+ MB are free, its cache may"):
        environment.open()
    assert is_empty(home)


@pytest.mark.parametrize(
    ("names", "empty"),
    [((), True), (("DB_CONFIG",), True), (("__db.001",), True), (("log.0000000001",), False)],
)
def test_an_environment_is_empty_without_a_log(
    tmp_path: Path, names: tuple[str, ...], empty: bool
) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert is_empty(tmp_path) is empty
    assert is_empty(tmp_path / "missing")
