"""The engine in a group: roles, refusals, acknowledgements, a replicant's reads."""

from __future__ import annotations

import asyncio
import time

import pytest
from berkeleydb import db

from replication.messages import AckPolicy
from replication.wire import LSN
from tests.support.engines import EngineSite, EngineSites, fast, sites
from tests.support.environments import soon
from ttserver.engine import Refused

__all__ = ["fast", "sites"]

ACKS_ONE = "repmgr_set_ack_policy db_repmgr_acks_one"
ACKS_NONE = "repmgr_set_ack_policy db_repmgr_acks_none"


def ack_timeout(seconds: float) -> str:
    return f"rep_set_timeout db_rep_ack_timeout {round(seconds * 1e6)}"


async def started(sites: EngineSites, *lines: str, **overrides: object) -> list[EngineSite]:
    """Start a master and a replicant, in step."""
    settings = {name.replace("__", "."): value for name, value in overrides.items()}
    group = sites.group(2, lines=lines or (ACKS_ONE,), overrides=settings)
    for site in group:
        await site.start()
    master = group[0].engine
    await soon("the replicant is connected", lambda: master.status().sites[0].acked_lsn)
    return group


async def in_step(master: EngineSite, replicant: EngineSite) -> None:
    await soon("in step", lambda: replicant.engine.lsn >= master.engine.lsn)


async def test_master_and_replicant(sites: EngineSites) -> None:
    master, replicant = await started(sites)
    outcome = await master.write(b"key", value=b"shipped")
    assert (outcome.error, outcome.perm_failed) == (None, None)
    # With one acknowledgement it is there when the write is answered.
    assert await replicant.read(b"key") == b"shipped"
    assert replicant.engine.read_now(replicant.get(b"key")) == b"shipped"
    there, here = replicant.engine.status(), master.engine.status()
    assert (here.role, here.read_only, here.master) == ("master", False, str(master.address))
    assert (there.role, there.read_only, there.master) == (
        "replicant",
        True,
        str(master.address),
    )
    assert there.generation == here.generation > 0
    (seen,) = here.sites
    assert (seen.site, seen.status, seen.role) == (
        str(replicant.address),
        "connected",
        "replicant",
    )
    assert seen.acked_lsn == outcome.lsn
    assert seen.lag_bytes == 0
    assert there.lag_bytes == 0


async def test_a_replicant_refuses_writes_and_names_the_master(sites: EngineSites) -> None:
    master, replicant = await started(sites)
    with pytest.raises(Refused) as refused:
        await replicant.write(b"key")
    assert refused.value.code == "READONLY"
    assert str(refused.value) == (
        f"write refused: this site is a replicant (master is {master.address},"
        f" generation {master.engine.generation})"
    )
    assert refused.value.hint == f"connect to {master.address} for updates."
    assert replicant.engine.notice == (
        f"this site is a read-only replicant; the master is {master.address}"
    )


async def test_a_replicant_without_any_copy_is_loading(sites: EngineSites) -> None:
    _, replicant = sites.group(2)
    engine = await replicant.start(wait=False)
    assert engine.state == "start-pending"
    with pytest.raises(Refused, match="has no complete copy of the database yet") as refused:
        engine.read_now(replicant.get(b"key"))
    assert refused.value.code == "LOADING"
    with pytest.raises(Refused, match="no complete copy"):
        await replicant.read(b"key")
    with pytest.raises(Refused, match="no complete copy"):
        await replicant.write(b"key")
    with pytest.raises(Refused, match="no complete copy"):
        await engine.key_count()


# -- acknowledgements ------------------------------------------------------------------------------


async def test_too_few_connected_is_said_at_once(sites: EngineSites) -> None:
    master, replicant = await started(sites, ACKS_ONE, ack_timeout(60))
    await replicant.stop()
    await soon("the link is gone", lambda: master.engine.status().sites[0].status != "connected")
    began = time.monotonic()
    outcome = await master.write(b"key")
    assert time.monotonic() - began < 10
    assert outcome.perm_failed is not None
    assert outcome.error is None
    assert (outcome.result, outcome.lsn) == ("written", master.engine.lsn)
    assert await master.read(b"key") == b"value", "committed here all the same"
    assert master.engine.status().counters["perm_failed"] == 1
    await soon("the journal says so", lambda: " ack_failed " in master.events)
    # One write may ask for less, or for more.
    assert (await master.write(b"key", policy=AckPolicy.NONE)).perm_failed is None
    assert (await master.write(b"key", policy=AckPolicy.ALL)).perm_failed is not None


async def test_a_replicant_that_does_not_answer_in_time(sites: EngineSites) -> None:
    master, replicant = await started(sites, ACKS_ONE, ack_timeout(0.3))
    await master.write(b"key", value=b"old")
    # A reader there keeps the page: what comes for it cannot be applied.
    reader = replicant.engine.environment.env.txn_begin()
    assert replicant.engine.keyspace.get(reader, b"key") == b"old"
    try:
        began = time.monotonic()
        late = await master.write(b"key", value=b"new")
        waited_s = time.monotonic() - began
        assert late.perm_failed is not None
        assert str(replicant.address) in late.perm_failed
        assert waited_s >= 0.3
        # A time of one's own.
        began = time.monotonic()
        later = await master.write(b"key", value=b"newer", ack_timeout_s=0.9)
        assert later.perm_failed is not None
        assert time.monotonic() - began >= 0.9
        assert (await master.write(b"key", policy=AckPolicy.NONE)).perm_failed is None
    finally:
        reader.abort()
    await in_step(master, replicant)
    assert (await master.write(b"key")).perm_failed is None
    assert master.engine.perm_failed == 2


async def test_writes_with_different_policies_share_a_commit(sites: EngineSites) -> None:
    master, replicant = await started(sites, ACKS_ONE, ack_timeout(60))
    await replicant.stop()
    await soon("the link is gone", lambda: master.engine.status().sites[0].status != "connected")

    def ill_work(txn: db.DBTxn) -> None:
        master.engine.keyspace.put(txn, b"half", b"done")
        raise KeyError

    none, usual, ill = await asyncio.gather(
        master.write(b"1", policy=AckPolicy.NONE),
        master.write(b"2"),
        master.engine.write(ill_work),
    )
    assert (none.perm_failed, none.error) == (None, None)
    assert (usual.perm_failed is not None, usual.error) == (True, None)
    assert (ill.perm_failed, ill.error is not None) == (None, True)


async def test_wait_for_replicas(sites: EngineSites) -> None:
    master, replicant = await started(sites, ACKS_NONE)
    last, waits = master.token(await master.write(b"key")), master.engine.waits
    assert await waits.acked(last, 1, 30.0) == 1
    assert waits.acked_by(last) == [str(replicant.address)]
    began = time.monotonic()
    assert await waits.acked(last, 2, 0.05) == 1
    assert 0.05 <= time.monotonic() - began < 10
    # Asked before it is acknowledged.
    next_one = last._replace(lsn=LSN(last.lsn.file, last.lsn.offset + 1))
    waiting = asyncio.create_task(waits.acked(next_one, 1, 30.0))
    await asyncio.sleep(0)
    await master.write(b"more")
    assert await waiting == 1
    # A replicant is told nothing, and does not wait for it.
    assert await replicant.engine.waits.acked(last, 1, 0) == 0


async def test_a_policy_that_waits_for_nobody_says_so(sites: EngineSites) -> None:
    master, replicant = await started(sites, "repmgr_set_ack_policy db_repmgr_acks_quorum")
    note = master.engine.status().ack_note
    assert note is not None
    assert note.startswith(
        "QUORUM waits for nobody here: OK means one copy (this site is the quorum of a group of"
        " two); write `repmgr_set_ack_policy db_repmgr_acks_one`"
    )
    assert replicant.engine.status().ack_note is None
    await master.write(b"key")
    await master.write(b"key", policy=AckPolicy.ONE)
    counters = master.engine.status().counters
    assert counters["writes_waited_for_nobody"] >= 1
    assert counters["writes_acknowledged"] == 1


async def test_min_acks_to_accept(sites: EngineSites) -> None:
    master, replicant = await started(sites, ACKS_ONE, replication__min_acks_to_accept=1)
    assert (await master.write(b"key")).error is None
    await replicant.stop()
    await soon("the link is gone", lambda: master.engine.status().sites[0].status != "connected")
    before = master.engine.lsn
    with pytest.raises(Refused, match="0 sites that could acknowledge") as refused:
        await master.write(b"key")
    assert refused.value.code == "NOREPLICAS"
    assert master.engine.lsn == before, "nothing was written"
    assert master.engine.status().counters["writes_refused_noreplicas"] == 1


# -- a replicant's reads ---------------------------------------------------------------------------


async def test_a_replicant_counts_keys_and_watches_them(sites: EngineSites) -> None:
    master, replicant = await started(sites)
    await asyncio.gather(*(master.write(b"%03d" % number) for number in range(300)))
    await in_step(master, replicant)
    assert await replicant.engine.key_count() == 300
    watches = [replicant.engine.watch([b"watched"]) for _ in range(2)]
    assert not watches[0].dirty
    await master.write(b"300")
    await in_step(master, replicant)
    assert watches[1].dirty, "what comes with the log names no keys"
    assert await replicant.engine.key_count() == 301


async def test_a_replicants_reads_while_it_applies(sites: EngineSites) -> None:
    master, replicant = await started(sites, ACKS_NONE)

    def pair_of(value: bytes) -> object:
        def work(txn: db.DBTxn) -> None:
            for number in range(100):
                master.engine.keyspace.put(txn, b"%03d" % number, value * 50)

        return work

    def both(txn: db.DBTxn) -> tuple[bytes | None, bytes | None]:
        keyspace = replicant.engine.keyspace
        return keyspace.get(txn, b"000"), keyspace.get(txn, b"099")

    await master.engine.write(pair_of(b"0"))  # type: ignore[arg-type]
    await in_step(master, replicant)
    writing = asyncio.create_task(_write_all(master, [pair_of(b"%d" % n) for n in range(10)] * 10))
    seen: set[tuple[bytes | None, bytes | None]] = set()
    while not writing.done():
        seen.add(await replicant.engine.read(both))
    await writing
    assert len(seen) > 1
    assert all(first == last for first, last in seen), "a transaction is seen whole or not at all"


async def _write_all(site: EngineSite, works: list[object]) -> None:
    for work in works:
        assert (await site.engine.write(work)).error is None  # type: ignore[arg-type]


async def test_data_that_is_too_old_is_refused_if_the_operator_says_so(sites: EngineSites) -> None:
    master, replicant = await started(sites, ACKS_ONE, client__max_stale_s=0.5)
    await master.write(b"key")
    assert await replicant.read(b"key") == b"value"
    await master.stop()
    engine = replicant.engine
    await soon("it is too old", lambda: (engine.stale_s() or 0) > 0.5)
    with pytest.raises(Refused, match=r"the master was last heard .* the limit is 0\.5 s") as old:
        engine.read_now(replicant.get(b"key"))
    assert old.value.code == "MASTERDOWN"
    with pytest.raises(Refused, match="the master was last heard"):
        await replicant.read(b"key")


# -- changes of role -------------------------------------------------------------------------------


async def test_without_its_master_a_replicant_goes_on_reading(sites: EngineSites) -> None:
    master, replicant = await started(sites)
    await master.write(b"key")
    await master.stop()
    engine = replicant.engine
    await soon("the master is missed", lambda: engine.master is None or engine.role != "replicant")
    assert engine.state == "running"
    assert await replicant.read(b"key") == b"value"
    with pytest.raises(Refused) as refused:
        await replicant.write(b"key")
    assert refused.value.code in ("READONLY", "TRYAGAIN")
    await master.start()
    await soon("the master is back", lambda: engine.master == str(master.address))
    assert (await master.write(b"again")).perm_failed is None
    assert await replicant.read(b"again") == b"value"


async def test_a_promoted_replicant_takes_writes(sites: EngineSites) -> None:
    master, replicant = await started(sites)
    await master.write(b"key", value=b"old")
    watch = replicant.engine.watch([b"key"])
    await master.stop()
    engine = replicant.engine
    await soon("the master is missed", lambda: engine.role != "replicant")
    manager = engine.manager
    assert manager is not None
    manager.promote()
    await soon("it takes writes", lambda: engine.accepting, deadline_s=60)
    assert (engine.role, engine.state, engine.notice) == ("master", "running", None)
    assert watch.dirty
    outcome = await replicant.write(b"key", value=b"new", policy=AckPolicy.NONE)
    assert (outcome.error, outcome.generation) == (None, engine.generation)
    assert await replicant.read(b"key") == b"new"
    assert await engine.key_count() == 1
