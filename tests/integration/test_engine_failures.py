"""The engine when the library fails under it, or does not let go of a thread."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest
from berkeleydb import db

from replication.generations import CommitToken
from replication.wire import LSN
from storage.library import StillInLibrary
from tests.support.engines import EngineSite, EngineSites, fast, sites
from tests.support.environments import Stuck, soon
from ttserver import reopening
from ttserver.engine import Refused

__all__ = ["fast", "sites"]


@pytest.fixture(params=[True, False], ids=["replication", "alone"])
def replication(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def panic(site: EngineSite) -> None:
    """Make the library need recovery, as it does when it cannot trust its memory any more."""
    site.engine.environment.env.set_flags(db.DB_PANIC_ENVIRONMENT, 1)


async def running_again(site: EngineSite, times: int = 1) -> None:
    engine = site.engine
    await soon(
        "it is running again",
        lambda: engine.reopened == times and engine.state == "running",
        deadline_s=60,
    )


def count_open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# -- a panic ---------------------------------------------------------------------------------------


async def test_a_failed_environment_is_opened_again(sites: EngineSites, replication: bool) -> None:
    site = sites.make(replication=replication)
    engine = await site.start()
    kept = await site.write(b"key", value=b"kept")
    assert kept.error is None
    first = engine.environment
    panic(site)
    failed = await site.write(b"lost")
    assert failed.error is not None
    assert "recovery" in str(failed.error)
    await soon("it is noticed", lambda: engine.environment is not first or not engine.is_open)
    await running_again(site)
    assert await site.read(b"key") == b"kept"
    assert await site.read(b"lost") is None
    assert (await site.write(b"new")).error is None
    assert engine.status().why is None
    assert 'alarm="environment failed"' in site.events
    assert "alarm_cleared" in site.events


async def test_clients_are_answered_while_it_is_opened_again(
    sites: EngineSites, replication: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = sites.make(replication=replication)
    engine = await site.start()
    await site.write(b"key")
    generated = site.home.environment / "DB_CONFIG"
    good = generated.read_text()
    generated.write_text("no such directive\n")
    monkeypatch.setattr(reopening, "PAUSE_S", 0.05)
    panic(site)
    await site.write(b"lost")
    await soon("the first attempt failed", lambda: "cannot be opened" in str(engine.status().why))
    status = engine.status()
    assert (status.state, status.serving, status.role) == ("start-pending", False, "none")
    assert status.hint
    assert status.lsn >= (1, 28)
    with pytest.raises(Refused, match=r"opening its database: the environment .* cannot be") as no:
        engine.read_now(site.get(b"key"))
    assert no.value.code == "LOADING"
    with pytest.raises(Refused, match="opening its database"):
        await site.read(b"key")
    with pytest.raises(Refused, match="opening its database"):
        await site.write(b"key")
    with pytest.raises(Refused, match="opening its database"):
        await engine.key_count()
    assert await engine.waits.acked(CommitToken(1, LSN(1, 28)), 1, 0) == 0
    generated.write_text(good)
    await running_again(site)
    assert await site.read(b"key") == b"value"
    assert await engine.key_count() == 1


@pytest.mark.parametrize("who", ["a read in the loop", "a read on a thread", "upkeep"])
async def test_whoever_meets_it_has_it_repaired(
    sites: EngineSites, replication: bool, who: str
) -> None:
    site = sites.make(replication=replication)
    engine = await site.start()
    await site.write(b"key")
    panic(site)
    # Without any of the others, upkeep finds it at its next look.
    if who == "a read in the loop":
        with pytest.raises(Exception, match=r"recovery|opening its database"):
            engine.read_now(site.get(b"key"))
    elif who == "a read on a thread":
        with pytest.raises(Exception, match=r"recovery|opening its database|stopping"):
            await site.read(b"key")
    await running_again(site)
    assert await site.read(b"key") == b"value"


async def test_nobody_waits_for_ever_when_it_fails_under_load(
    sites: EngineSites, replication: bool
) -> None:
    site = sites.make(replication=replication)
    engine = await site.start()
    outcomes: list[object] = []
    refused = 0
    for number in range(3000):
        if number == 1500:
            panic(site)
        try:
            engine.submit(site.put(b"%d" % number), outcomes.append)
        except Refused:
            refused += 1
        if number % 100 == 0:
            await asyncio.sleep(0)
    await running_again(site)
    await soon("all are answered", lambda: len(outcomes) + refused == 3000)


async def test_a_watch_from_before_does_not_miss_what_comes_after(sites: EngineSites) -> None:
    site = sites.make()
    engine = await site.start()
    watch = engine.watch([b"key"])
    panic(site)
    await site.write(b"other")
    await running_again(site)
    assert watch.dirty
    watch.close()


async def test_it_may_fail_more_than_once(sites: EngineSites) -> None:
    site = sites.make()
    engine = await site.start()
    open_files: list[int] = []
    for times in range(1, 4):
        await site.write(b"%d" % times)
        panic(site)
        await site.write(b"lost")
        await running_again(site, times)
        open_files.append(count_open_files())
    assert await engine.key_count() == 3
    assert open_files[-1] <= open_files[0] + 2, "a failed environment keeps no files open"


async def test_a_replicants_failure_is_repaired_and_it_follows_again(sites: EngineSites) -> None:
    master, replicant = sites.group(2, lines=["repmgr_set_ack_policy db_repmgr_acks_one"])
    await master.start()
    await replicant.start()
    await master.write(b"before")
    panic(replicant)
    await running_again(replicant)
    assert await replicant.read(b"before") == b"value"
    await soon(
        "it is followed again", lambda: master.engine.status().sites[0].status == "connected"
    )

    async def acknowledged() -> bool:
        return (await master.write(b"after")).perm_failed is None

    deadline = time.monotonic() + 30
    while not await acknowledged():
        assert time.monotonic() < deadline
    assert await replicant.read(b"after") == b"value"


async def test_a_masters_failure_is_repaired_and_its_replicant_follows_it_again(
    sites: EngineSites,
) -> None:
    master, replicant = sites.group(2, lines=["repmgr_set_ack_policy db_repmgr_acks_one"])
    await master.start()
    await replicant.start()
    assert (await master.write(b"before")).perm_failed is None
    panic(master)
    await master.write(b"lost")
    await running_again(master)
    deadline = time.monotonic() + 60
    while (await master.write(b"after")).perm_failed is not None:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    for key in (b"before", b"after"):
        assert await replicant.read(key) == b"value"


async def test_a_stop_while_it_is_opened_again(
    sites: EngineSites, replication: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = sites.make(replication=replication)
    engine = await site.start()
    await site.write(b"key")
    generated = site.home.environment / "DB_CONFIG"
    good = generated.read_text()
    generated.write_text("no such directive\n")
    monkeypatch.setattr(reopening, "PAUSE_S", 600.0)
    panic(site)
    await site.write(b"lost")
    await soon("the first attempt failed", lambda: "cannot be opened" in str(engine.status().why))
    began = time.monotonic()
    await site.stop()
    assert time.monotonic() - began < 5
    assert engine.status().state == "stop-pending"
    generated.write_text(good)
    await site.start()
    assert await site.read(b"key") == b"value"


# -- a thread that stays inside --------------------------------------------------------------------


class Holder:
    """A thread of the environment that waits for a lock which somebody keeps."""

    def __init__(self, site: EngineSite) -> None:
        environment, keyspace = site.engine.environment, site.engine.keyspace
        self._env = environment.env
        self._lock = self._env.txn_begin()
        keyspace.put(self._lock, b"held", b"")
        self._thread = Stuck(lambda: self._wait(keyspace.get))
        environment.adopt(self._thread)

    def _wait(self, get: object) -> None:
        txn = self._env.txn_begin()
        try:
            get(txn, b"held")  # type: ignore[operator]
        except db.DBError:
            pass  # the environment failed meanwhile
        finally:
            txn.abort()

    async def inside(self) -> None:
        await soon("the thread is inside", lambda: self._env.lock_stat()["lock_wait"])

    def release(self) -> None:
        self._lock.abort()
        self._thread.join(10)
        assert not self._thread.is_alive()


async def test_a_stop_does_not_wait_for_a_thread_that_stays_inside(
    sites: EngineSites, replication: bool
) -> None:
    site = sites.make(replication=replication, overrides={"storage.durability": "nosync"})
    engine = await site.start()
    holder = Holder(site)
    await holder.inside()
    began = time.monotonic()
    with pytest.raises(StillInLibrary, match=r"still inside the library after .* s: .*stuck"):
        await engine.stop(2.0)
    assert time.monotonic() - began < 2.0 + 1.0
    log = engine.environment.env.log_stat()
    assert (log["disk_file"], log["disk_offset"]) == (log["cur_file"], log["cur_offset"])
    holder.release()
    await engine.stop(5.0)  # now it can


async def test_what_cannot_be_closed_is_not_opened_a_second_time(
    sites: EngineSites, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = sites.make()
    engine = await site.start()
    environment, leave = engine.environment, threading.Event()
    environment.adopt(Stuck(lambda: leave.wait(60)))
    monkeypatch.setattr(reopening, "CLOSE_S", 0.3)
    panic(site)
    await site.write(b"lost")
    try:
        await soon("it is told", lambda: site.stuck)
        assert "stuck" in str(site.stuck[0])
        assert engine.environment is environment
        assert engine.reopened == 0
        assert engine.status().state == "start-pending"
        assert "still inside the library" in str(engine.status().why)
    finally:
        leave.set()
