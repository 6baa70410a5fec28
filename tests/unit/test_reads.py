"""Reads: in the loop when they can, on a thread when they must, answered in any case."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest
from berkeleydb import db

from storage import reads as reads_module
from storage.commit import Write
from storage.errors import StorageError
from storage.keyspace import Keyspace
from storage.library import DatabaseMissing, EnvironmentFailed
from storage.reads import READERS, WAITERS, WARM_READS, Reads, WouldBlock
from tests.support.environments import Open, Opened, environments, fast, soon, wait_for
from tests.support.pair import Pair, pair

__all__ = ["environments", "fast", "pair"]


@pytest.fixture
def opened(environments: Open) -> Opened:
    opened = environments()
    opened.put(b"key", b"other")
    return opened


@pytest.fixture
def reads(opened: Opened) -> Reads:
    reads = Reads(opened.environment, opened.database.drop)
    opened.keyspace.use(opened.database.handle, reads.pace)
    return reads


def get(opened: Opened, key: bytes = b"key") -> Callable[[db.DBTxn], bytes | None]:
    return lambda txn: opened.keyspace.get(txn, key)


# -- in the loop -----------------------------------------------------------------------------------


def test_a_read_is_answered_at_once(opened: Opened, reads: Reads) -> None:
    assert reads.now(get(opened)) == b"value"
    assert reads.now(get(opened, b"missing")) is None
    assert (reads.in_loop, reads.on_thread) == (2, 0)
    assert opened.env.txn_stat()["nactive"] == 0


def test_a_locked_page_is_not_waited_for(opened: Opened, reads: Reads) -> None:
    writer = opened.lock(b"key")
    began = time.monotonic()
    with pytest.raises(WouldBlock):
        reads.now(get(opened))
    assert time.monotonic() - began < 1
    writer.abort()
    assert reads.now(get(opened)) == b"value"
    assert not reads.from_disk


def test_an_error_of_the_read_is_its_own(opened: Opened, reads: Reads) -> None:
    with pytest.raises(ZeroDivisionError):
        reads.now(lambda txn: 1 // 0)
    assert opened.env.txn_stat()["nactive"] == 0


def test_a_missing_file_is_told(environments: Open) -> None:
    opened = environments(create=False)
    reads = Reads(opened.environment, opened.database.drop)
    with pytest.raises(DatabaseMissing):
        reads.now(get(opened))


def test_an_error_of_the_library_is_ours_with_its_words(opened: Opened, reads: Reads) -> None:
    with pytest.raises(StorageError, match=r"the read failed: .*argument"):
        reads.now(lambda txn: opened.database.handle().get(b"key", None, txn, db.DB_APPEND))


def test_a_panic_is_reported(environments: Open) -> None:
    told: list[Exception] = []
    opened = environments(on_panic=told.append)
    reads = Reads(opened.environment, opened.database.drop)
    opened.env.set_flags(db.DB_PANIC_ENVIRONMENT, 1)
    with pytest.raises(EnvironmentFailed):
        reads.now(get(opened))
    assert len(told) == 1


def test_a_long_run_of_reads_leaves_the_loop_when_its_time_is_up(
    opened: Opened, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads_module, "LOOP_READ_S_MAX", 0.005)
    monkeypatch.setattr(reads_module, "_blocks_moved", lambda: 0)
    began, steps = time.perf_counter(), []

    def many(txn: db.DBTxn) -> None:
        while time.perf_counter() - began < 30:
            opened.keyspace.get(txn, b"key")
            steps.append(1)

    with pytest.raises(WouldBlock):
        reads.now(many)
    assert time.perf_counter() - began < 5
    assert len(steps) > 1
    assert not reads.from_disk, "time alone says nothing about the disk"
    assert opened.env.txn_stat()["nactive"] == 0


def test_the_limit_is_the_loops_alone(opened: Opened, reads: Reads) -> None:
    with opened.txn() as other:
        assert reads.pace(other) is False
        # While the loop reads, others' transactions are none of its business either.
        assert reads.now(lambda txn: (reads.pace(other), reads.pace(txn))) == (False, True)
        assert reads.pace(other) is False


# -- the slow phase --------------------------------------------------------------------------------


class Blocks:
    """The thread's block counter, in the hand of the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.moved = 0
        monkeypatch.setattr(reads_module, "_blocks_moved", lambda: self.moved)

    def slow_disk_read(self, txn: db.DBTxn) -> str:
        self.moved += 8
        time.sleep(2 * reads_module.SLOW_READ_S)
        return "read"


async def test_a_slow_read_from_the_disk_sends_all_to_the_threads(
    opened: Opened, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = Blocks(monkeypatch)
    assert reads.now(blocks.slow_disk_read) == "read"
    assert reads.from_disk
    with pytest.raises(WouldBlock):
        reads.now(get(opened))
    assert await reads.run(get(opened)) == b"value"


async def test_warm_reads_on_the_threads_end_the_slow_phase(
    opened: Opened, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = Blocks(monkeypatch)
    reads.now(blocks.slow_disk_read)
    for number in range(WARM_READS - 1):
        await reads.run(get(opened))
        assert reads.from_disk, f"after {number + 1} warm reads"
    await reads.run(blocks.slow_disk_read)
    for _ in range(WARM_READS - 1):
        await reads.run(get(opened))
    assert reads.from_disk, "one cold read starts the count anew"
    await reads.run(get(opened))
    assert reads.now(get(opened)) == b"value", "the slow phase is over"


def test_a_slow_read_that_moved_no_block_is_somebody_elses_turn(
    opened: Opened, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    Blocks(monkeypatch)

    def preempted(_txn: db.DBTxn) -> None:
        time.sleep(2 * reads_module.SLOW_READ_S)

    reads.now(preempted)
    assert not reads.from_disk


def test_a_quick_read_may_come_from_the_disk(
    opened: Opened, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = Blocks(monkeypatch)
    monkeypatch.setattr(reads_module, "SLOW_READ_S", 60.0)  # whatever else this machine does

    def quick(_txn: db.DBTxn) -> None:
        blocks.moved += 8

    for _ in range(1000):
        reads.now(quick)
    assert not reads.from_disk


def test_a_run_of_cold_reads_is_broken_off(
    opened: Opened, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = Blocks(monkeypatch)
    steps: list[int] = []

    def cold(txn: db.DBTxn) -> None:
        for number in range(100):
            steps.append(number)
            blocks.slow_disk_read(txn)
            opened.keyspace.get(txn, b"key")

    with pytest.raises(WouldBlock):
        reads.now(cold)
    assert steps == [0]
    assert reads.from_disk


# -- on threads ------------------------------------------------------------------------------------


async def test_who_met_a_lock_is_answered_when_the_writer_commits(
    opened: Opened, reads: Reads
) -> None:
    writer = opened.lock(b"key")
    with pytest.raises(WouldBlock):
        reads.now(get(opened))
    waiting = asyncio.create_task(reads.run(get(opened)))
    await soon("it waits for the lock", lambda: opened.env.lock_stat()["lock_wait"])
    assert not waiting.done()
    writer.commit()
    assert await asyncio.wait_for(waiting, 10) == b"locked"
    assert reads.waited == 1


async def test_many_who_sleep_behind_locks_do_not_hold_up_the_others(
    opened: Opened, reads: Reads
) -> None:
    with opened.txn() as txn:
        for number in range(500):
            opened.keyspace.put(txn, b"%04d" % number, b"x" * 100)
    writer = opened.lock(b"0000")
    asleep = [asyncio.create_task(reads.run(get(opened, b"0000"))) for _ in range(2 * READERS)]
    await soon("all met the lock", lambda: reads.waited == len(asleep))
    for _ in range(50):
        assert await asyncio.wait_for(reads.run(get(opened, b"0499")), 10) is not None
    assert not any(task.done() for task in asleep)
    writer.abort()
    assert await asyncio.wait_for(asyncio.gather(*asleep), 10) == [b"x" * 100] * len(asleep)
    assert len(asleep) <= WAITERS


async def test_a_reader_deadlocked_with_the_committer_reads_again(
    opened: Opened, reads: Reads
) -> None:
    old, new = b"old" * 50, b"new" * 50
    with opened.txn() as txn:
        for number in range(200):
            opened.keyspace.put(txn, b"%04d" % number, old)
    committer = opened.committer()
    runs: list[int] = []
    reader_holds, writer_holds = threading.Event(), threading.Event()

    def read(txn: db.DBTxn) -> tuple[bytes | None, bytes | None]:
        runs.append(1)
        first = opened.keyspace.get(txn, b"0000")
        reader_holds.set()
        assert writer_holds.wait(10)
        return first, opened.keyspace.get(txn, b"0199")

    def write(txn: db.DBTxn) -> None:
        assert reader_holds.wait(10)
        opened.keyspace.put(txn, b"0199", new)
        writer_holds.set()
        wait_for(
            "the reader waits", lambda: opened.env.lock_stat()["lock_wait"] > 0 or len(runs) > 2
        )
        opened.keyspace.put(txn, b"0000", new)

    submitted = Write(write)
    committer.submit(submitted)
    # Read together or not at all: never the new one beside the old one.
    assert await asyncio.wait_for(reads.run(read), 20) in (
        (old, old),
        (new, new),
    )
    opened.done([submitted])
    assert submitted.error is None
    assert len(runs) >= 2


async def test_locks_that_are_kept_for_good_are_not_waited_for_for_ever(
    opened: Opened, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads_module, "RETRY_FOR_S", 0.05)

    def refused(_txn: db.DBTxn) -> None:
        raise db.DBLockDeadlockError(-30993, "as the library raises it")

    with pytest.raises(StorageError, match="others held its keys") as gave_up:
        await reads.run(refused)
    assert gave_up.value.code == "TRYAGAIN"


async def test_errors_come_back_to_who_asked(opened: Opened, reads: Reads) -> None:
    with pytest.raises(ZeroDivisionError):
        await reads.run(lambda txn: 1 // 0)
    with pytest.raises(StorageError, match="the read failed: "):
        await reads.run(lambda txn: opened.database.handle().get(b"", None, txn, db.DB_APPEND))
    assert opened.env.txn_stat()["nactive"] == 0


async def test_something_else_may_be_called(opened: Opened, reads: Reads) -> None:
    assert await reads.call(opened.environment.log_end) == opened.environment.log_end()
    with pytest.raises(StorageError, match="the database did not answer: "):
        await reads.call(lambda: opened.database.handle().get(b"", None, None, db.DB_APPEND))


async def test_a_cancelled_reader_leaves_nothing_behind(opened: Opened, reads: Reads) -> None:
    writer = opened.lock(b"key")
    task = asyncio.create_task(reads.run(get(opened)))
    await soon("it waits for the lock", lambda: opened.env.lock_stat()["lock_wait"])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    writer.abort()
    wait_for("its transaction is over", lambda: opened.env.txn_stat()["nactive"] == 0)
    assert await reads.run(get(opened)) == b"value"


# -- the end ---------------------------------------------------------------------------------------


async def test_a_stop_ends_a_long_walk_and_refuses_what_waits(opened: Opened, reads: Reads) -> None:
    with opened.txn() as txn:
        for number in range(1000):
            opened.keyspace.put(txn, b"%04d" % number, b"x")
    walking = threading.Event()

    def walk(txn: db.DBTxn) -> None:
        while True:  # for ever, as far as this test goes
            opened.keyspace.keys(txn, None, 1000)
            walking.set()

    walks = [asyncio.create_task(reads.run(walk)) for _ in range(READERS)]
    queued = asyncio.create_task(reads.run(get(opened)))
    await soon("they walk", walking.is_set)
    began = time.monotonic()
    await asyncio.to_thread(opened.close)
    assert time.monotonic() - began < 5
    for task in (*walks, queued):
        with pytest.raises(StorageError, match="the site is stopping") as refused:
            await task
        assert refused.value.code == "TRYAGAIN"
    with pytest.raises(WouldBlock):
        reads.now(get(opened))
    with pytest.raises(StorageError, match="the site is stopping"):
        await reads.run(get(opened))
    with pytest.raises(StorageError, match="the site is stopping"):
        await reads.call(lambda: None)


# -- on a replicant --------------------------------------------------------------------------------


async def test_reads_go_on_while_the_copy_is_replaced(pair: Pair) -> None:
    pair.start(lambda opened: opened.put(b"key", value=b"first"))
    replicant, master = pair.replicant.opened, pair.master.opened
    reads = Reads(replicant.environment, replicant.database.drop)
    keyspace = Keyspace(replicant.database.handle, reads.pace)

    async def read() -> bytes | None:
        def get_key(txn: db.DBTxn) -> bytes | None:
            return keyspace.get(txn, b"key")

        try:
            return reads.now(get_key)
        except WouldBlock:
            return await reads.run(get_key)

    assert await read() == b"first"
    pair.replicant.cut.set()
    for _ in range(40):
        master.put(b"key", value=b"x" * 100_000)
    master.put(b"key", value=b"second")
    master.env.txn_checkpoint(0, 0, db.DB_FORCE)
    for log in ("log.0000000001", "log.0000000002"):
        (master.environment.home / log).unlink()
    pair.replicant.cut.clear()
    deadline = time.monotonic() + 30
    while (value := await read()) != b"second":
        assert value in (b"first", b"x" * 100_000)
        assert time.monotonic() < deadline
        master.put(b"more")
        await asyncio.sleep(0.005)
    assert reads.on_thread > 0, "the old handle did not die"


async def locked_out(pair: Pair) -> None:
    """Stop a replicant in the middle of its initialisation, where the library locks calls out."""
    pair.start(lambda opened: opened.put(*(b"%d" % n for n in range(200)), value=b"x" * 2000))
    master, replicant = pair.master.opened, pair.replicant.opened
    master.env.rep_set_limit(1)  # a page, then it has to ask again
    pair.replicant.cut.set()
    for _ in range(30):
        master.put(b"key", value=b"x" * 100_000)
    master.env.txn_checkpoint(0, 0, db.DB_FORCE)
    for log in ("log.0000000001", "log.0000000002"):
        (master.environment.home / log).unlink()
    pair.replicant.cut.clear()
    deadline_s = time.monotonic() + 60
    while True:
        assert time.monotonic() < deadline_s
        master.put(b"more")
        try:
            replicant.env.txn_begin().abort()
        except db.DBRepLockoutError:
            pair.replicant.cut.set()
            return
        except db.DBRepHandleDeadError:
            pass
        await asyncio.sleep(0)


@pytest.mark.parametrize("nowait", [True, False])
async def test_what_is_locked_out_waits_a_while_unless_the_operator_says_otherwise(
    pair: Pair, nowait: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await locked_out(pair)
    replicant = pair.replicant.opened
    reads = Reads(replicant.environment, replicant.database.drop, nowait=nowait)
    monkeypatch.setattr("storage.reads.RETRY_FOR_S", 0.5)
    tried = 0

    def get_key(txn: db.DBTxn) -> bytes | None:
        nonlocal tried
        tried += 1
        return replicant.keyspace.get(txn, b"key")

    began_s = time.monotonic()
    with pytest.raises(StorageError, match="changing its role or copy") as refused:
        await reads.run(get_key)
    assert refused.value.code == "TRYAGAIN"
    assert (time.monotonic() - began_s < 0.5) is nowait
