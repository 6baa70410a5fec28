"""How a replicant gets its data: from a peer, late, in bulk; real sites on loopback."""

from __future__ import annotations

import asyncio

import pytest

from replication.errors import ReplicationError
from replication.journal_line import Line, parse_line
from replication.messages import AckPolicy
from replication.sync_control import begin_sync
from tests.support.engines import EngineSite, EngineSites, fast, sites
from tests.support.environments import soon

__all__ = ["fast", "sites"]

ACKS_NONE = "repmgr_set_ack_policy db_repmgr_acks_none"
# A request is answered with so little at a time that a sync lasts long enough to be looked at.
SLOW_LINES = ("rep_set_limit 0 16384", "rep_set_request 20000 100000")
VALUE = b"v" * 10_000
KEYS = [b"key%04d" % number for number in range(200)]


def events(site: EngineSite, event: str) -> list[Line]:
    lines = [parse_line(text) for text in site.events.splitlines()]
    return [line for line in lines if line is not None and line.event == event]


async def fill(master: EngineSite, *, value: bytes = VALUE) -> None:
    for at in range(0, len(KEYS), 20):
        await master.write(*KEYS[at : at + 20], value=value)


async def with_peer(sites: EngineSites, *lines: str) -> tuple[EngineSite, EngineSite, EngineSite]:
    """A master and a replicant that are in step, and a third site whose peer the replicant is."""
    master, peer, late = sites.group(3, lines=(ACKS_NONE, *lines))
    said = late.home.db_config.read_text()
    named = f"repmgr_site {peer.address.host} {peer.address.port}"
    late.home.db_config.write_text(said.replace(named, f"{named} db_repmgr_peer on"))
    await master.start()
    await peer.start()
    await fill(master)
    await soon("in step", lambda: peer.engine.lsn >= master.engine.lsn)
    return master, peer, late


async def holds_all(site: EngineSite) -> None:
    for key in (KEYS[0], KEYS[-1]):
        assert await site.read(key) == VALUE
    assert await site.engine.key_count() == len(KEYS)


async def test_a_replicant_syncs_from_its_peer(sites: EngineSites) -> None:
    master, peer, late = await with_peer(sites)
    await late.start()
    await holds_all(late)
    (asked,) = events(late, "sync_receive_started")
    assert asked.facts["master"] == str(peer.address)
    assert late.engine.status().counters["peer_requests"] > 0
    await soon("the peer says that it is over", lambda: events(peer, "sync_send_finished"))
    (sent,) = events(peer, "sync_send_started")
    assert sent.facts["site"] == str(late.address)
    assert str(late.address) not in {e.facts["site"] for e in events(master, "sync_send_started")}
    # The live log comes from the master, as ever.
    await master.write(b"later")
    await soon("in step", lambda: late.engine.lsn >= master.engine.lsn)
    assert await late.read(b"later") == b"value"


async def test_a_sync_goes_on_from_the_master_when_the_peer_dies(sites: EngineSites) -> None:
    master, peer, late = await with_peer(sites, *SLOW_LINES)
    await late.start(wait=False)
    await soon("pages come from the peer", lambda: _pages(late) > 10)
    assert late.engine.state == "start-pending"
    await peer.stop()
    await soon("running", lambda: late.engine.state == "running", deadline_s=60)
    await holds_all(late)
    assert events(late, "sync_asked_again")
    await soon(
        "the master says that it sent the rest",
        lambda: any(
            event.facts["site"] == str(late.address)
            for event in events(master, "sync_send_started")
        ),
    )


def _pages(site: EngineSite) -> int:
    sync = site.engine.status().sync
    return 0 if sync is None else sync.pages_done


async def test_a_peer_that_is_master_is_asked_as_the_master(sites: EngineSites) -> None:
    master, replicant = sites.group(2, lines=(ACKS_NONE,))
    said = replicant.home.db_config.read_text()
    replicant.home.db_config.write_text(
        said.replace("db_bootstrap_helper on", "db_bootstrap_helper on db_repmgr_peer on")
    )
    await master.start()
    await fill(master)
    await replicant.start()
    await holds_all(replicant)
    assert replicant.engine.status().counters["messages_dropped"] == 0


# -- delayed sync ----------------------------------------------------------------------------------

DELAY = "rep_set_config db_rep_conf_delayclient on"


async def delayed(sites: EngineSites, delay_s: float) -> tuple[EngineSite, EngineSite]:
    """A replicant that was in step, and waits to follow its master, which was started again."""
    master, replicant = sites.group(
        2, lines=(ACKS_NONE, DELAY), overrides={"replication.sync_delay_s": delay_s}
    )
    await master.start()
    await master.write(b"key", value=b"old")
    await replicant.start(wait=False)
    if not delay_s:
        await begin(replicant)
    await soon("running", lambda: replicant.engine.state == "running", deadline_s=60)
    await soon("in step", lambda: replicant.engine.lsn >= master.engine.lsn)
    await master.stop()
    await master.start()
    await soon("it takes writes", lambda: master.engine.accepting)
    await master.write(b"key", value=b"new")
    await soon("it waits", lambda: _phase(replicant) == "delayed")
    return master, replicant


def _phase(site: EngineSite) -> str | None:
    sync = site.engine.status().sync
    return None if sync is None else sync.phase


async def begin(site: EngineSite) -> str:
    """What `ttserver sync` does, when there is something to do."""
    await soon("it waits", lambda: _phase(site) == "delayed")
    manager = site.engine.manager
    assert manager is not None
    return begin_sync(manager.core, manager.now_s())


async def test_a_delayed_sync_begins_when_it_is_asked_for(sites: EngineSites) -> None:
    master, replicant = await delayed(sites, 0.0)
    # Neither by the master's messages nor by time.
    for number in range(20):
        await master.write(b"%d" % number)
        await asyncio.sleep(0.02)
    assert _phase(replicant) == "delayed"
    assert await replicant.read(b"key") == b"old", "what it has can be read meanwhile"
    status = replicant.engine.status()
    assert status.state == "running"
    assert any("waits until it is asked for" in wait.why for wait in status.waits)
    assert await begin(replicant) == f"this site syncs with {master.address} now"
    await soon("in step", lambda: replicant.engine.lsn >= master.engine.lsn)
    assert await replicant.read(b"key") == b"new"
    await soon("startup done", lambda: _phase(replicant) is None)
    manager = replicant.engine.manager
    assert manager is not None
    await soon("it is over", lambda: manager.core.startup_done)
    with pytest.raises(ReplicationError, match="no sync waits to be begun: this site is in step"):
        begin_sync(manager.core, manager.now_s())


async def test_a_delayed_sync_begins_after_its_time(sites: EngineSites) -> None:
    master, replicant = await delayed(sites, 1.0)
    assert await replicant.read(b"key") == b"old"
    await soon("in step", lambda: replicant.engine.lsn >= master.engine.lsn, deadline_s=60)
    assert await replicant.read(b"key") == b"new"
    waits = events(replicant, "sync_delayed")
    assert [line.facts["seconds"] for line in waits] == ["1.000", "1.000"]
    assert len(events(replicant, "sync_begun")) == 2


# -- bulk transfer ---------------------------------------------------------------------------------


async def test_log_and_pages_go_in_bulk(sites: EngineSites) -> None:
    lines = ("repmgr_set_ack_policy db_repmgr_acks_one", "rep_set_config db_rep_conf_bulk on")
    master, replicant = sites.group(2, lines=lines)
    await master.start()
    for at in range(0, len(KEYS), 20):
        await master.write(*KEYS[at : at + 20], value=VALUE, policy=AckPolicy.NONE)
    before = _transfers(master)
    await replicant.start()
    await holds_all(replicant)
    assert _transfers(master) > before, "the pages went in bulk"
    (finished,) = events(replicant, "sync_receive_finished")
    assert int(finished.facts["pages"]) > 100
    await soon("the master says so", lambda: events(master, "sync_send_finished"))
    (sent,) = events(master, "sync_send_finished")
    assert int(sent.facts["pages"]) > 100
    # A write of several records, and many at once, each acknowledged at its own place in the log.
    before = _transfers(master)
    outcome = await master.write(b"a", b"b", b"c")
    assert (outcome.error, outcome.perm_failed) == (None, None)
    assert master.engine.status().sites[0].acked_lsn == outcome.lsn
    outcomes = await asyncio.gather(*(master.write(b"%d" % number) for number in range(200)))
    assert all(each.perm_failed is None for each in outcomes)
    assert _transfers(master) > before
    assert await replicant.read(b"199") == b"value"
    # A transaction that is larger than the library's buffer of 1 MiB.
    big = b"x" * 3_000_000
    assert (await master.write(b"big", value=big)).perm_failed is None
    assert await replicant.read(b"big") == big
    status = replicant.engine.status()
    assert status.counters["apply_errors"] == 0
    assert master.engine.status().counters["messages_dropped"] == 0


def _transfers(site: EngineSite) -> int:
    return int(site.engine.environment.env.rep_stat()["bulk_transfers"])
