"""Are the sites identical: real groups under load, differences planted in a replicant's file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from berkeleydb import db

from replication import compare_master
from replication.bodies import SiteAddress
from replication.compare_master import Options
from replication.compare_report import Report, SiteReport
from replication.core import Core
from replication.errors import ReplicationError
from tests.support.engines import EngineSite, EngineSites, fast, sites
from tests.support.environments import soon
from ttserver.comparison import compare
from ttserver.errors import TtserverError

__all__ = ["fast", "sites"]

NOBODY = "repmgr_set_ack_policy db_repmgr_acks_none"
QUICK = "rep_set_timeout db_rep_checkpoint_delay 1000"
# Nothing here depends on how fast this machine is: half of the time may be spent, and a stop may
# last as long as it takes.
PATIENT = Options(pause_s_max=30.0, share=0.9, keys_first=128)
KEYS = 700


async def started(sites: EngineSites, count: int, *lines: str) -> list[EngineSite]:
    group = sites.group(count, lines=(NOBODY, QUICK, *lines))
    for site in group:
        await site.start()
    master = group[0].engine
    await soon(
        "all replicants are in step",
        lambda: all(seen.acked_lsn for seen in master.status().sites),
        deadline_s=60,
    )
    return group


async def fill(site: EngineSite) -> None:
    """Write keys with values that are found again in the file."""

    keyspace = site.engine.keyspace
    for first in range(0, KEYS, 100):

        def work(txn: object, first: int = first) -> None:
            for number in range(first, first + 100):
                keyspace.put(txn, key(number), value(number))  # type: ignore[arg-type]

        assert (await site.engine.write(work)).error is None


def key(number: int) -> bytes:
    return b"key%06d" % (2 * number)


def value(number: int) -> bytes:
    return b"<value of %06d>" % number


async def in_step(master: EngineSite, *replicants: EngineSite) -> None:
    for replicant in replicants:
        reached = partial(_reached, replicant, master)
        await soon(f"{replicant.name} is in step", reached, deadline_s=60)


def _reached(replicant: EngineSite, master: EngineSite) -> bool:
    return replicant.engine.lsn >= master.engine.lsn


@asynccontextmanager
async def load(site: EngineSite, writers: int = 3) -> AsyncIterator[list[int]]:
    """Overwrite, add and delete keys all the time; gives the number of writes so far."""
    count = [0]

    async def write(writer: int) -> None:
        engine = site.engine
        keyspace = engine.keyspace
        number = writer
        while True:
            number += 7
            a, b = key(number % KEYS), b"%s+%d" % (key(number % KEYS), writer)

            def work(txn: object, a: bytes = a, b: bytes = b, number: int = number) -> None:
                keyspace.put(txn, a, b"%d" % number)  # type: ignore[arg-type]
                if number % 2:
                    keyspace.put(txn, b, b"%d" % number)  # type: ignore[arg-type]
                else:
                    keyspace.delete(txn, b)  # type: ignore[arg-type]

            assert (await engine.write(work)).error is None
            count[0] += 1

    tasks = [asyncio.create_task(write(writer)) for writer in range(writers)]
    try:
        yield count
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended


async def compared(master: EngineSite, options: Options = PATIENT) -> Report:
    seen: list[Report] = []
    report = await compare(master.engine, options, seen.append)
    assert seen or not report.stops, "progress is told"
    return report


def of(report: Report, site: EngineSite) -> SiteReport:
    (found,) = (one for one in report.sites if one.site == str(site.address))
    return found


@pytest.mark.parametrize("lines", [(), ("rep_set_config db_rep_conf_bulk on",)], ids=["", "bulk"])
async def test_sites_are_identical_while_writes_go_on(
    sites: EngineSites, lines: tuple[str, ...]
) -> None:
    master, one, two = await started(sites, 3, *lines)
    await fill(master)
    async with load(master) as writes:
        await soon("it writes", lambda: writes[0] > 20)
        before = writes[0]
        report = await compared(master)
        assert writes[0] > before, "the comparison stopped the writes"
    assert (report.identical, report.left_out) == (True, [])
    assert [(s.site, s.compared, s.identical) for s in report.sites] == [
        (str(site.address), True, True) for site in sorted((one, two), key=lambda s: s.address)
    ]
    databases = {one.database: one for one in report.databases}
    assert databases.keys() >= {"keys.db", "catalog.db", "volumes_index.db"}
    keys = databases["keys.db"]
    assert keys.ranges >= 2
    assert keys.records >= KEYS
    assert report.first_lsn is not None
    assert report.lsn is not None
    assert report.first_lsn < report.lsn <= master.engine.lsn
    assert report.generation == master.engine.generation
    # The marker leaves nothing behind.
    assert not [k for k in await all_keys(master) if k.startswith(b"\0")]
    assert "compare_finished identical=yes" in master.events
    # The replicants go on.
    assert (await master.write(b"behind")).error is None
    await in_step(master, one, two)
    assert await two.read(b"behind") == b"value"


async def all_keys(site: EngineSite) -> list[bytes]:
    found: list[bytes] = await site.engine.read(
        lambda txn: site.engine.keyspace.keys(txn, None, 100_000)
    )
    return found


async def plant(master: EngineSite, site: EngineSite, what: bytes, instead: bytes) -> None:
    """Change the file of a site that does not run, as a bad disk would."""
    assert len(what) == len(instead)
    # Behind a checkpoint no recovery writes these pages again.
    for one in (master, site):
        env = one.engine.environment.env
        await one.engine.call(partial(_write_all, env, checkpoint=one is master))
        await in_step(master, site)
    await site.stop()
    path = site.home.environment / "keys.db"
    data = path.read_bytes()
    # A page that was split keeps the bytes of what moved in its free space.
    assert what in data
    path.write_bytes(data.replace(what, instead))
    await site.start()


def _write_all(env: db.DBEnv, *, checkpoint: bool) -> None:
    if checkpoint:
        env.txn_checkpoint(0, 0, db.DB_FORCE)
    env.memp_sync()


@pytest.mark.parametrize(
    ("what", "instead", "first", "said"),
    [
        (value(423), b"<value of 00042E>", key(423), "has another value there"),
        (key(423), b"key000847", key(423), "is missing there"),
        (key(423), b"key000845", b"key000845", "is there and not on the master"),
    ],
    ids=["a value", "a missing key", "a key too many"],
)
async def test_a_planted_difference_is_found_by_its_key_under_load(
    sites: EngineSites, what: bytes, instead: bytes, first: bytes, said: str
) -> None:
    master, good, bad = await started(sites, 3)
    await fill(master)
    await in_step(master, good, bad)
    await plant(master, bad, what, instead)
    await in_step(master, bad)

    async def elsewhere() -> None:
        while True:
            await master.write(b"other", value=b"x")

    writing = asyncio.create_task(elsewhere())
    report = await compared(master)
    writing.cancel()
    assert not report.identical
    assert of(report, good).identical
    found = of(report, bad)
    assert (found.compared, found.identical) == (True, False)
    difference = found.difference
    assert difference is not None
    assert difference.database == "keys.db"
    assert difference.key == first.decode()
    assert difference.start <= first.decode()
    assert difference.what == said
    # It is an alarm until the site is found to be identical.
    (alarm,) = (a for a in master.engine.status().alarms if a.kind == "differs")
    assert alarm.subject == str(bad.address)
    assert f"key {first.decode()}" in alarm.why
    assert "ttserver wipe" in alarm.hint
    assert f"compare_difference site={bad.address} database=keys.db" in master.events


async def test_a_difference_that_was_put_right_is_an_alarm_no_more(sites: EngineSites) -> None:
    master, bad = await started(sites, 2)
    await fill(master)
    await in_step(master, bad)
    await plant(master, bad, value(5), b"<value of 00000X>")
    await in_step(master, bad)
    assert not (await compared(master)).identical
    keyspace = master.engine.keyspace
    for work in (
        lambda txn: keyspace.delete(txn, key(5)),
        lambda txn: keyspace.put(txn, key(5), value(5)),
    ):
        assert (await master.engine.write(work)).error is None
    await in_step(master, bad)
    assert (await compared(master)).identical
    assert not [a for a in master.engine.status().alarms if a.kind == "differs"]
    assert f'alarm_cleared alarm="sites differ: {bad.address}"' in master.events


def standalone(path: Path, kind: int = db.DB_BTREE) -> None:
    """Put a database file there that no log knows."""
    made = db.DB()
    made.open(str(path), dbtype=kind, flags=db.DB_CREATE)
    made.put(b"k", b"v")
    made.close()


async def test_databases_that_only_one_side_has(sites: EngineSites) -> None:
    master, one, two = await started(sites, 3)
    standalone(master.home.environment / "hash.db", db.DB_HASH)
    standalone(one.home.environment / "extra.db")
    report = await compared(master)
    assert report.left_out == [("hash.db", "it is a hash database, whose records have no order")]
    found = of(report, one).difference
    assert found is not None
    assert (found.database, found.key, found.what) == (
        "extra.db",
        None,
        "is there and not on the master",
    )
    assert of(report, two).identical

    standalone(master.home.environment / "extra.db")
    report = await compared(master)
    assert of(report, one).identical
    found = of(report, two).difference
    assert found is not None
    assert (found.database, found.what) == ("extra.db", "is missing there")
    assert not report.identical


async def test_who_cannot_be_compared_is_named(
    sites: EngineSites, monkeypatch: pytest.MonkeyPatch
) -> None:
    master, away, here = await started(sites, 3)
    await away.stop()
    await soon(
        "it is gone",
        lambda: next(
            s.status != "connected"
            for s in master.engine.status().sites
            if s.site == str(away.address)
        ),
    )
    report = await compared(master)
    assert report.identical, "nobody differs, and one was compared"
    gone = of(report, away)
    assert (gone.compared, gone.identical) == (False, None)
    assert (gone.why or "").startswith("it is not connected")

    monkeypatch.setattr(Core, "startup_done", False)  # as during a first sync
    report = await compared(master)
    assert (report.identical, of(report, here).why) == (False, "it has no complete copy yet")

    monkeypatch.undo()
    other = master.engine.manager
    assert other is not None
    # What a link says of itself is the only sign of a native site.
    other.core.site(SiteAddress(here.address.host, here.address.port)).native = True
    report = await compared(master)
    assert "native" in (of(report, here).why or "")
    assert not report.identical, "nobody was compared"


async def test_a_site_that_is_lost_in_between_is_left_out(
    sites: EngineSites, monkeypatch: pytest.MonkeyPatch
) -> None:
    master, silent, lost = await started(sites, 3)
    await fill(master)
    monkeypatch.setattr(compare_master, "ANSWER_TIMEOUT_S", 0.5)
    there = silent.engine.manager
    assert there is not None
    # It answers nothing, as a version that does not know the question.
    monkeypatch.setattr(there.comparisons, "_heard", lambda *_: None)
    running = asyncio.create_task(compared(master, replace(PATIENT, keys_first=64, share=0.01)))
    await soon("it began", lambda: "compare_started" in master.events)
    other = lost.engine.manager
    assert other is not None
    monkeypatch.setattr(other.comparisons, "_heard", lambda *_: None)
    await lost.stop()
    report = await running
    assert of(report, silent).why == "it gave no answer in 0.5 s"
    # Whether it was noticed before or after it was asked.
    assert of(report, lost).why in {
        "its link broke",
        "it gave no answer in 0.5 s",
    }
    assert not report.identical


async def test_it_is_refused_where_it_cannot_be_done(sites: EngineSites) -> None:
    master, replicant = await started(sites, 2)
    with pytest.raises(ReplicationError) as refused:
        await compared(replicant)
    assert refused.value.hint == f"run it on {master.address}."
    await fill(master)
    # Longer than any test takes: its stops are a millionth of the time.
    first = asyncio.create_task(compared(master, replace(PATIENT, share=1e-6)))
    await soon("it began", lambda: "compare_started" in master.events)
    with pytest.raises(ReplicationError, match="another one is under way"):
        await compared(master)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert (await compared(master)).identical

    alone = sites.make("alone", replication=False)
    await alone.start()
    with pytest.raises(TtserverError, match="replication is off"):
        await compared(alone)


async def test_it_ends_with_the_masters_role(
    sites: EngineSites, monkeypatch: pytest.MonkeyPatch
) -> None:
    master, _ = await started(sites, 2)
    await fill(master)
    running = asyncio.create_task(compared(master, replace(PATIENT, keys_first=64, share=0.01)))
    await soon("it began", lambda: "compare_started" in master.events)
    manager = master.engine.manager
    assert manager is not None
    monkeypatch.setattr(type(manager.core), "is_master", False)
    with pytest.raises((ReplicationError, TtserverError)):
        await running
