"""The engine: one site alone, and what each write and read is answered there."""

from __future__ import annotations

import asyncio
import sys
import threading
from datetime import UTC, datetime
from functools import partial

import msgspec
import pytest
from berkeleydb import db

from replication.generations import CommitToken
from replication.messages import AckPolicy
from replication.wire import LSN
from storage.commit import Batch, Write
from storage.environment import COMMIT_RECORD
from storage.errors import StorageError
from storage.library import WatchFailed
from storage.reads import WouldBlock
from storage.users import new_record, write_first_user
from tests.support.engines import EngineSites, fast, sites
from tests.support.environments import soon
from ttserver.engine import Engine, Refused
from ttserver.status import Status
from ttserver.writes import Ticket, WriteOutcome

__all__ = ["fast", "sites"]

# The contract of `status --json`.
STATUS_KEYS = {
    "state",
    "serving",
    "role",
    "read_only",
    "site",
    "priority",
    "generation",
    "master",
    "lsn",
    "applied_lsn",
    "lag_bytes",
    "lag_seconds",
    "sync",
    "ack_policy",
    "sites",
    "counters",
}


@pytest.fixture(params=[True, False], ids=["replication", "alone"])
def replication(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def is_commit(engine: Engine, lsn: tuple[int, int]) -> bool:
    """Tell whether the log holds a commit record there."""
    cursor = engine.environment.env.log_cursor()
    try:
        found = cursor.set(lsn)
    finally:
        cursor.close()
    return found is not None and int.from_bytes(found[1][:4], sys.byteorder) == COMMIT_RECORD


async def no_thread_is_left() -> None:
    """Wait until no thread is left that could be inside the library."""
    ours = ("apply", "committer", "election", "environment", "reader", "replication", "upkeep")
    await soon(
        "all threads have ended",
        lambda: not any(thread.name.startswith(ours) for thread in threading.enumerate()),
    )


# -- one site --------------------------------------------------------------------------------------


async def test_one_site_is_master_and_takes_writes(sites: EngineSites, replication: bool) -> None:
    site = sites.make(replication=replication)
    engine = await site.start()
    assert (engine.role, engine.state, engine.read_only) == ("master", "running", False)
    assert engine.serving
    assert engine.master == str(site.address)
    assert engine.notice is None
    outcome = await site.write(b"key")
    assert (outcome.result, outcome.error, outcome.perm_failed) == ("written", None, None)
    assert outcome.lsn is not None
    assert outcome.lsn <= engine.lsn
    assert is_commit(engine, outcome.lsn)
    assert outcome.generation == engine.generation
    assert engine.read_now(site.get(b"key")) == b"value"
    assert await site.read(b"key") == b"value"
    assert "environment_opened" in site.events


async def test_it_is_there_again_after_a_stop(sites: EngineSites, replication: bool) -> None:
    site = sites.make(replication=replication)
    await site.start()
    await site.write(b"key", value=b"kept")
    before = site.engine.lsn
    await site.stop()
    await no_thread_is_left()
    await site.start()
    assert await site.read(b"key") == b"kept"
    assert site.engine.lsn >= before


async def test_a_site_without_replication_lines_is_a_group_of_one(sites: EngineSites) -> None:
    site = sites.make(local=False)
    await site.start()
    for policy in (AckPolicy.ALL, AckPolicy.QUORUM, AckPolicy.ONE, AckPolicy.NONE):
        outcome = await site.write(b"key", policy=policy)
        assert outcome.perm_failed is None, policy.name
    last = site.token(outcome)
    assert await site.engine.waits.acked(last, 0, 1.0) == 0
    assert await site.engine.waits.acked(last, 1, 0.01) == 0
    assert site.engine.waits.acked_by(last) == []


async def test_the_status_has_the_keys_of_the_contract(
    sites: EngineSites, replication: bool
) -> None:
    site = sites.make(replication=replication)
    engine = site.make()

    def keys(status: Status) -> set[str]:
        return set(msgspec.to_builtins(status))

    assert keys(engine.status()) >= STATUS_KEYS
    assert (engine.status().state, engine.status().role) == ("start-pending", "none")
    await engine.start()
    await soon("it is running", lambda: engine.state == "running")
    await site.write(b"key")
    status = engine.status()
    assert keys(status) >= STATUS_KEYS
    assert (status.state, status.role, status.read_only) == ("running", "master", False)
    assert (status.lsn, status.lag_bytes, status.lag_seconds) == (engine.lsn, 0, 0.0)
    assert status.site == str(site.address)
    assert (status.sync, status.sites, status.why) == (None, [], None)
    assert status.counters["writes"] >= 1
    assert status.counters["commits"] >= 1
    await engine.stop()
    assert keys(engine.status()) >= STATUS_KEYS
    assert engine.status().state == "stop-pending"


# -- writes ----------------------------------------------------------------------------------------


async def test_many_tasks_write_each_its_own(sites: EngineSites, replication: bool) -> None:
    site = sites.make(replication=replication)
    engine = await site.start()

    def increment(txn: db.DBTxn) -> int:
        number = int(engine.keyspace.get(txn, b"n") or b"0") + 1
        engine.keyspace.put(txn, b"n", b"%d" % number)
        return number

    outcomes = await asyncio.gather(*(engine.write(increment, keys=[b"n"]) for _ in range(300)))
    assert sorted(outcome.result for outcome in outcomes) == list(range(1, 301))
    lsns = [outcome.lsn for outcome in sorted(outcomes, key=lambda outcome: outcome.result)]
    assert lsns == sorted(lsn for lsn in lsns if lsn is not None)
    assert engine.committer.commits < 300, "they shared commits"


async def test_a_works_own_error_comes_back_alone(sites: EngineSites, replication: bool) -> None:
    site = sites.make(replication=replication)
    engine = await site.start()

    def half(txn: db.DBTxn) -> None:
        engine.keyspace.put(txn, b"half", b"done")
        raise KeyError("mine")

    bad, good = await asyncio.gather(engine.write(half), site.write(b"good"))
    assert isinstance(bad.error, KeyError)
    assert (bad.lsn, bad.perm_failed) == (None, None)
    assert good.error is None
    assert await site.read(b"half") is None


async def test_one_clients_broken_callback_harms_nobody_else(sites: EngineSites) -> None:
    site = sites.make()
    engine = await site.start()

    def broken(_outcome: object) -> None:
        raise ZeroDivisionError

    for _ in range(5):
        engine.submit(site.put(b"key"), broken)
        assert (await site.write(b"other")).error is None


async def test_writes_from_threads(sites: EngineSites, replication: bool) -> None:
    site = sites.make(replication=replication)
    engine = await site.start()

    def write_some(thread: int) -> list[object]:
        return [
            engine.write_from_thread(site.put(b"%d-%d" % (thread, number))).error
            for number in range(20)
        ]

    errors = await asyncio.gather(*(asyncio.to_thread(write_some, n) for n in range(4)))
    assert errors == [[None] * 20] * 4
    assert await engine.key_count() == 80


async def test_a_read_behind_a_write_sees_it(sites: EngineSites) -> None:
    site = sites.make()
    engine = await site.start()
    written, read = await asyncio.gather(site.write(b"key"), engine.write(site.get(b"key")))
    assert written.error is None
    assert read.result == b"value"


async def test_watch(sites: EngineSites, replication: bool) -> None:
    site = sites.make(replication=replication)
    engine = await site.start()
    clean, dirty = engine.watch([b"other"]), engine.watch([b"key"])
    await site.write(b"key")
    assert (clean.dirty, dirty.dirty) == (False, True)
    assert (await site.write(b"a", watch=clean)).error is None
    assert isinstance((await site.write(b"b", watch=dirty)).error, WatchFailed)


async def test_no_batch_is_left_unsettled(sites: EngineSites) -> None:
    """Batches come from the committer while the loop takes others away."""
    site = sites.make(replication=False)
    engine = await site.start()
    writes = engine.must_have_site().writes
    done: list[int] = []
    total, threads = 20_000, 4

    def deliver(first: int) -> None:
        for number in range(first, total, threads):
            ticket = Ticket(partial(note, number), None, None, number % 3 == 0)
            writes.deliver(Batch([Write(lambda txn: None, tag=ticket)]))

    def note(number: int, _outcome: WriteOutcome) -> None:
        done.append(number)

    await asyncio.gather(*(asyncio.to_thread(deliver, number) for number in range(threads)))
    await soon("all are settled", lambda: len(done) == total)
    assert sorted(done) == list(range(total))
    assert not writes._answers


# -- reads -----------------------------------------------------------------------------------------


async def test_a_read_of_a_locked_key_waits_on_a_thread(sites: EngineSites) -> None:
    site = sites.make()
    engine = await site.start()
    await site.write(b"key", value=b"old")
    locker = engine.environment.env.txn_begin()
    engine.keyspace.put(locker, b"key", b"new")
    with pytest.raises(WouldBlock):
        engine.read_now(site.get(b"key"))
    waiting = asyncio.create_task(site.read(b"key"))
    env = engine.environment.env
    await soon("it waits", lambda: env.lock_stat()["lock_wait"])
    locker.commit()
    assert await waiting == b"new"


async def test_key_count(sites: EngineSites, replication: bool) -> None:
    site = sites.make(replication=replication)
    engine = await site.start()
    assert await engine.key_count() == 0
    await asyncio.gather(*(site.write(b"%d" % number) for number in range(500)))
    assert await engine.key_count() == 500
    thread_reads = engine.reads.on_thread
    assert await engine.key_count() == 500
    assert engine.reads.on_thread == thread_reads, "nothing was committed since"
    await engine.write(lambda txn: engine.keyspace.delete(txn, b"7"), keys=[b"7"])
    assert await engine.key_count() == 499


async def test_key_count_shows_ones_own_writes_while_others_count(sites: EngineSites) -> None:
    site = sites.make()
    engine = await site.start()
    for number in range(30):
        counting = asyncio.create_task(engine.key_count())
        await asyncio.sleep(0)
        await site.write(b"%d" % number)
        assert await engine.key_count() == number + 1
        assert await counting in (number, number + 1)


async def test_key_count_while_somebody_writes_is_made_in_steps(sites: EngineSites) -> None:
    site = sites.make()
    engine = await site.start()
    keyspace = engine.keyspace

    def many(txn: db.DBTxn) -> None:
        for number in range(5000):
            keyspace.put(txn, b"%05d" % number, b"")

    await engine.write(many)
    locker = engine.environment.env.txn_begin()
    keyspace.put(locker, b"~uncommitted", b"")
    counting = asyncio.create_task(engine.key_count())
    env = engine.environment.env
    await soon("the count meets the lock", lambda: env.lock_stat()["lock_wait"])
    locker.abort()
    assert await counting == 5000


# -- refusals --------------------------------------------------------------------------------------


async def test_too_few_sites_to_accept_a_write(sites: EngineSites) -> None:
    site = sites.make(overrides={"replication.min_acks_to_accept": 1})
    await site.start()
    with pytest.raises(Refused, match="0 sites that could acknowledge are connected, 1 are") as no:
        await site.write(b"key")
    assert no.value.code == "NOREPLICAS"
    assert await site.read(b"key") is None


async def test_before_the_start_and_after_the_stop(sites: EngineSites, replication: bool) -> None:
    site = sites.make(replication=replication)
    engine = site.make()
    with pytest.raises(Refused, match="this site is opening its database") as early:
        engine.read_now(site.get(b"key"))
    assert early.value.code == "LOADING"
    with pytest.raises(Refused, match="this site is opening its database"):
        await site.write(b"key")
    await engine.start()
    await soon("it is running", lambda: engine.state == "running")
    await site.stop()
    with pytest.raises(Refused, match="write refused: this site is stopping") as late:
        await site.write(b"key")
    assert late.value.code == "TRYAGAIN"
    with pytest.raises(Refused, match="this site is stopping"):
        engine.read_now(site.get(b"key"))
    with pytest.raises(Refused, match="this site is stopping"):
        await site.read(b"key")


# -- the first user --------------------------------------------------------------------------------


async def test_the_first_user_is_taken_in_once(sites: EngineSites, replication: bool) -> None:
    site = sites.make(replication=replication)
    path = site.home.first_user
    path.parent.mkdir(exist_ok=True)

    def record(password: str) -> None:
        write_first_user(
            path, new_record("tapemaster", password, "administrator", created=datetime.now(UTC))
        )

    record("the first password")
    engine = await site.start()
    users = engine.users
    taken = await engine.read(lambda txn: users.get(txn, "tapemaster"))
    assert taken is not None
    assert not path.exists()
    await site.stop()
    record("another password")
    engine = await site.start()
    again = await engine.read(lambda txn: engine.users.get(txn, "tapemaster"))
    assert again == taken, "who is there already stays as he is"
    assert not path.exists()


async def test_a_first_user_that_cannot_be_trusted_does_not_stop_the_site(
    sites: EngineSites,
) -> None:
    site = sites.make()
    site.home.first_user.parent.mkdir(exist_ok=True)
    site.home.first_user.write_text("{}")
    engine = await site.start()
    assert (await site.write(b"key")).error is None
    assert await engine.read(engine.users.list) == ()
    assert site.home.first_user.exists()


# -- stopping --------------------------------------------------------------------------------------


async def test_a_stop_answers_everything_that_was_under_way(
    sites: EngineSites, replication: bool
) -> None:
    site = sites.make(replication=replication)
    engine = await site.start()
    outcomes: list[object] = []
    for number in range(2000):
        engine.submit(site.put(b"%d" % number), outcomes.append)
    counting = asyncio.create_task(engine.key_count())
    waiting = asyncio.create_task(engine.waits.acked(CommitToken(1, LSN(2**31, 0)), 1, 0))
    await asyncio.sleep(0)
    await site.stop()
    await soon("all are answered", lambda: len(outcomes) == 2000)
    assert await asyncio.wait_for(waiting, 5) == 0
    await asyncio.wait([counting], timeout=5)
    assert counting.done()
    if not counting.cancelled() and (error := counting.exception()) is not None:
        assert isinstance(error, (Refused, StorageError))


async def test_a_stop_during_the_start(sites: EngineSites, replication: bool) -> None:
    for turns in range(0, 40, 3):
        site = sites.make(f"site{turns}", replication=replication)
        engine: Engine = site.make()
        starting = asyncio.create_task(engine.start())
        for _ in range(turns):
            await asyncio.sleep(0.0005)
        starting.cancel()
        await asyncio.wait([starting])
        await engine.stop(5.0)
        site.journal.close()
        assert not engine.is_open
        assert engine.status().state == "stop-pending"
        await no_thread_is_left()
        await site.start()
        assert (await site.write(b"key")).error is None
        await site.stop()
