"""Upkeep: checkpoints, trickling, lock time-outs and log removal, on its own thread."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection

import pytest
from berkeleydb import db

from storage.environment import lsn_from_library
from storage.library import StillInLibrary
from storage.log_retention import Logs
from storage.upkeep import Upkeep
from tests.support.environments import Open, Opened, environments, fast, wait_for
from tests.support.pair import Pair, pair

__all__ = ["environments", "fast", "pair"]

TICK_S = 0.01


def upkeep(
    opened: Opened,
    *,
    master: Callable[[], bool] = lambda: True,
    interval_s: float = 1000.0,
    kbytes: int = 0,
    removable: Callable[[Logs], Collection[int]] | None = None,
) -> Upkeep:
    return Upkeep(
        opened.environment,
        is_master=master,
        interval_s=interval_s,
        kbytes=kbytes,
        removable=removable,
        tick_s=TICK_S,
    )


def looks(keeper: Upkeep, number: int = 5) -> None:
    """Wait until the thread has looked a few times more."""
    seen = keeper.passes
    wait_for("upkeep looks", lambda: keeper.passes > seen + number)


def last_checkpoint(opened: Opened) -> tuple[int, int]:
    lsn = lsn_from_library(opened.env.txn_stat()["last_ckp"])
    return (lsn[0], lsn[1])


def test_a_checkpoint_by_time_only_when_something_was_logged(environments: Open) -> None:
    opened = environments()
    opened.put(b"key")
    keeper = upkeep(opened, interval_s=0.0)
    wait_for("a checkpoint", lambda: keeper.checkpoints)
    before = last_checkpoint(opened)
    taken = keeper.checkpoints
    looks(keeper, 10)
    assert (last_checkpoint(opened), keeper.checkpoints) == (before, taken)
    opened.put(b"other")
    wait_for("another one", lambda: keeper.checkpoints == taken + 1)
    assert last_checkpoint(opened) > before
    assert keeper.last_checkpoint_s > 0


def test_a_checkpoint_by_size(environments: Open) -> None:
    opened = environments()
    keeper = upkeep(opened, kbytes=64)
    opened.put(b"little")
    looks(keeper, 10)
    assert keeper.checkpoints == 0
    opened.put(*(b"%d" % number for number in range(100)), value=b"x" * 1000)
    wait_for("a checkpoint", lambda: keeper.checkpoints)


def test_a_checkpoint_is_no_business_of_the_event_loop(environments: Open) -> None:
    opened = environments()
    took: list[str] = []

    def master() -> bool:
        took.append(threading.current_thread().name)
        return True

    keeper = upkeep(opened, master=master, interval_s=0.0)
    opened.put(b"key")
    wait_for("a checkpoint", lambda: keeper.checkpoints)
    assert set(took) == {"upkeep"}


def test_a_replicant_takes_no_checkpoint_of_its_own(environments: Open) -> None:
    opened = environments()
    opened.put(b"key")
    keeper = upkeep(opened, master=lambda: False, interval_s=0.0, kbytes=1)
    looks(keeper, 10)
    assert keeper.checkpoints == 0


def test_dirty_pages_are_written_before_the_checkpoint(environments: Open) -> None:
    opened = environments()
    opened.put(*(b"%d" % number for number in range(1000)), value=b"x" * 1000)
    upkeep(opened)
    wait_for("pages were trickled", lambda: opened.env.memp_stat()[0]["page_trickle"])


def test_a_lock_that_waited_too_long_is_turned_down(environments: Open) -> None:
    opened = environments(lines=["set_lock_timeout 10000"])
    opened.put(b"key")
    holder = opened.lock(b"key")
    keeper = upkeep(opened)
    try:
        waiter = opened.env.txn_begin()
        with pytest.raises((db.DBLockNotGrantedError, db.DBLockDeadlockError)):
            opened.keyspace.get(waiter, b"key")
        waiter.abort()
    finally:
        holder.abort()
    wait_for("it is counted", lambda: keeper.deadlocks)


def logs(opened: Opened) -> list[int]:
    return sorted(int(path.suffix[1:]) for path in opened.environment.home.glob("log.*"))


def fill_logs(opened: Opened) -> None:
    for _ in range(50):
        opened.put(b"key", value=b"x" * 100_000)  # five files of 1 MB
    assert len(logs(opened)) >= 5


def all_below(number: int) -> Callable[[Logs], Collection[int]]:
    """Have those go that are older, as far as recovery does not need them."""

    def removable(found: Logs) -> Collection[int]:
        below = min(number, found.recovery_from)
        return {file.number for file in found.files if file.number < below}

    return removable


def test_logs_that_may_go_are_removed_after_a_checkpoint(environments: Open) -> None:
    opened = environments()
    fill_logs(opened)
    keeper = upkeep(opened, interval_s=0.0, removable=all_below(3))
    wait_for("logs are removed", lambda: logs(opened)[0] == 3)
    # Counted behind the removal, on the thread that did it.
    wait_for("both are counted", lambda: keeper.logs_removed == 2)


def test_recovery_works_with_the_logs_that_are_said_to_be_needed(environments: Open) -> None:
    opened = environments()
    fill_logs(opened)
    upkeep(opened, interval_s=0.0, removable=all_below(2**32))
    wait_for("all but those for recovery are removed", lambda: len(logs(opened)) == 1)
    last = logs(opened)[-1]
    opened.close()
    assert environments().get(b"key") == b"x" * 100_000
    assert last in logs(opened)


def test_before_a_checkpoint_recovery_needs_all(environments: Open) -> None:
    opened = environments()
    fill_logs(opened)
    seen: list[Logs] = []

    def removable(found: Logs) -> Collection[int]:
        seen.append(found)
        return ()

    upkeep(opened, removable=removable)
    found = wait_for("a look", lambda: seen[-1] if seen else None)
    assert [file.number for file in found.files] == logs(opened)
    assert found.recovery_from == found.files[0].number
    assert found.total_bytes == sum(
        path.stat().st_size for path in opened.environment.home.glob("log.*")
    )


@pytest.mark.parametrize("removable", [None, lambda _: ()])
def test_logs_stay_unless_somebody_says_otherwise(
    environments: Open, removable: Callable[[Logs], Collection[int]] | None
) -> None:
    opened = environments()
    fill_logs(opened)
    before = logs(opened)
    keeper = upkeep(opened, interval_s=0.0, removable=removable)
    wait_for("a checkpoint", lambda: keeper.checkpoints)
    looks(keeper, 5)
    assert logs(opened) == before


def test_a_replicant_removes_logs_as_well(environments: Open) -> None:
    opened = environments()
    fill_logs(opened)
    opened.env.txn_checkpoint(0, 0, db.DB_FORCE)
    keeper = upkeep(opened, master=lambda: False, removable=all_below(3))
    wait_for("logs are removed", lambda: keeper.logs_removed == 2)


def test_it_survives_a_role_change(pair: Pair) -> None:
    pair.start()
    opened = pair.master.opened
    # It believes that this is a master, all the time.
    keeper = upkeep(opened, interval_s=0.0)
    for _ in range(3):
        pair.master.become(db.DB_REP_CLIENT)
        looks(keeper, 5)
        pair.master.become(db.DB_REP_MASTER)
        opened.database.drop()
        before = keeper.checkpoints
        opened.put(b"key")
        wait_for("a checkpoint", lambda seen=before: keeper.checkpoints > seen)  # type: ignore[misc]
    assert keeper.is_alive()


def test_a_failure_is_said_once_and_it_goes_on(
    environments: Open, caplog: pytest.LogCaptureFixture
) -> None:
    opened = environments()
    fill_logs(opened)
    opened.env.txn_checkpoint(0, 0, db.DB_FORCE)
    first = opened.environment.home / "log.0000000001"
    first.unlink()
    first.mkdir()  # what should be a file cannot be removed like one
    with caplog.at_level(logging.WARNING, "storage.upkeep"):
        keeper = upkeep(opened, removable=all_below(3))
        looks(keeper, 20)
    assert len([record for record in caplog.records if "upkeep_failed" in record.message]) == 1
    first.rmdir()
    first.write_bytes(b"")
    wait_for("it goes on", lambda: keeper.logs_removed == 2)


def test_a_panic_is_reported_once(environments: Open) -> None:
    told: list[Exception] = []
    opened = environments(on_panic=told.append)
    keeper = upkeep(opened)
    opened.env.set_flags(db.DB_PANIC_ENVIRONMENT, 1)
    wait_for("the panic is reported", lambda: told)
    keeper.join(10)
    assert not keeper.is_alive()
    assert len(told) == 1


def test_a_stop_does_not_wait_for_the_next_look(environments: Open) -> None:
    opened = environments()
    keeper = Upkeep(
        opened.environment, is_master=lambda: True, interval_s=1, kbytes=1, tick_s=1000.0
    )
    began = time.monotonic()
    opened.close()
    assert time.monotonic() - began < 5
    assert not keeper.is_alive()


def test_a_checkpoint_that_takes_too_long_is_left_behind(environments: Open) -> None:
    """A replication master pauses inside its checkpoint; nothing can wake it."""

    def configure(env: db.DBEnv) -> None:
        env.rep_set_transport(1, lambda *_: None)
        env.rep_set_timeout(db.DB_REP_CHECKPOINT_DELAY, 3_000_000)

    opened = environments(configure=configure, create=False)
    opened.env.rep_start(db.DB_REP_MASTER)
    opened.database.create()
    opened.put(b"key")
    keeper = upkeep(opened, interval_s=0.0)
    wait_for("the checkpoint wrote its pages", lambda: opened.env.memp_stat()[0]["page_dirty"] == 0)
    began = time.monotonic()
    with pytest.raises(StillInLibrary, match="upkeep"):
        opened.environment.close(0.5)
    assert time.monotonic() - began < 2
    log = opened.env.log_stat()
    assert log["disk_offset"] == log["cur_offset"]
    keeper.join(10)
    opened.close()
    assert not opened.environment.is_open


def test_held_it_takes_no_checkpoint(environments: Open) -> None:
    opened = environments()
    keeper = upkeep(opened, interval_s=0.0)
    wait_for("it is held", lambda: keeper.hold() or None)
    before, taken, passes = last_checkpoint(opened), keeper.checkpoints, keeper.passes
    opened.put(b"key")
    end_s = time.monotonic() + 20 * TICK_S

    def still() -> bool:
        assert (last_checkpoint(opened), keeper.checkpoints) == (before, taken)
        assert keeper.passes == passes
        return time.monotonic() > end_s

    wait_for("some looks that must not be", still)
    keeper.release()
    wait_for("a checkpoint", lambda: keeper.checkpoints > taken)
