"""Read-your-writes on real sites: a write's token on every site, before and after a roll-back."""

from __future__ import annotations

import asyncio

import pytest

from replication.messages import AckPolicy
from replication.wire import LSN
from tests.support.engines import EngineSite, EngineSites, fast, sites
from tests.support.environments import soon
from ttserver.write_waits import TokenLost

__all__ = ["fast", "sites"]

ACKS_NONE = "repmgr_set_ack_policy db_repmgr_acks_none"
FOR_EVER_S = 60.0


async def started(sites: EngineSites) -> list[EngineSite]:
    """Start a master and a replicant, in step."""
    group = sites.group(2, lines=(ACKS_NONE,))
    for site in group:
        await site.start()
    master = group[0].engine
    await soon("the replicant is connected", lambda: master.status().sites[0].acked_lsn)
    return group


async def test_a_replicant_shows_the_write_when_its_token_is_met(sites: EngineSites) -> None:
    master, replicant = await started(sites)
    waits = replicant.engine.waits
    for number in range(20):
        token = master.token(await master.write(b"key", value=b"%d" % number))
        assert await waits.applied(token, FOR_EVER_S)
        assert await replicant.read(b"key") == b"%d" % number
        assert await master.engine.waits.applied(token, 0), "at the master it is there already"
    # A reader there keeps the page: what comes for it cannot be applied.
    reader = replicant.engine.environment.env.txn_begin()
    try:
        assert replicant.engine.keyspace.get(reader, b"key") == b"19"
        token = master.token(await master.write(b"key", value=b"late"))
        assert not await waits.applied(token, 0)
        assert not await waits.applied(token, 0.1)
        waiting = asyncio.create_task(waits.applied(token, FOR_EVER_S))
        await asyncio.sleep(0)
    finally:
        reader.abort()
    assert await waiting
    assert await replicant.read(b"key") == b"late"
    # Nobody wrote that yet; and a stop lets its waiter go.
    beyond = token._replace(lsn=LSN(token.lsn.file + 7, 28))
    for site in (master, replicant):
        assert not await site.engine.waits.applied(beyond, 0.01)
    waiting = asyncio.create_task(waits.applied(beyond, FOR_EVER_S))
    await asyncio.sleep(0)
    await replicant.stop()
    assert not await asyncio.wait_for(waiting, FOR_EVER_S)


async def test_a_write_that_is_rolled_back_is_lost_on_every_site(sites: EngineSites) -> None:
    old, new = await started(sites)
    kept = old.token(await old.write(b"kept"))
    assert await new.engine.waits.applied(kept, FOR_EVER_S)
    await new.stop()
    outcome = await old.write(b"doomed", policy=AckPolicy.ONE)
    assert outcome.perm_failed is not None
    doomed = old.token(outcome)
    assert await old.engine.waits.applied(doomed, 0), "nobody knows better yet"
    await old.stop()
    await new.start(wait=False)
    await soon("it looks for its master", lambda: new.engine.manager is not None)
    waiting = asyncio.create_task(new.engine.waits.applied(doomed, FOR_EVER_S))
    manager = new.engine.manager
    assert manager is not None
    manager.promote()
    await soon("it takes writes", lambda: new.engine.accepting, deadline_s=60)
    with pytest.raises(TokenLost, match=f"write {doomed} was rolled back: generation"):
        await waiting
    assert await new.engine.waits.applied(kept, FOR_EVER_S)
    later = new.token(await new.write(b"later"))
    assert later.generation > doomed.generation
    await old.start()
    assert await old.engine.waits.applied(later, FOR_EVER_S)
    assert await old.read(b"doomed") is None
    for site in (old, new):
        assert await site.engine.waits.applied(kept, 0)
        with pytest.raises(TokenLost):
            await site.engine.waits.applied(doomed, 0)
        with pytest.raises(TokenLost):
            site.engine.waits.acked_by(doomed)
    assert await new.engine.waits.acked(kept, 1, FOR_EVER_S) == 1, "the old master follows"
    # The next start reads the same from the environment.
    await old.stop()
    await old.start()
    await soon("it follows", lambda: old.engine.role == "replicant")
    assert await old.engine.waits.applied(later, FOR_EVER_S)
    with pytest.raises(TokenLost):
        await old.engine.waits.applied(doomed, FOR_EVER_S)


async def test_without_replication_a_token_is_of_the_last_generation(sites: EngineSites) -> None:
    site = sites.make()
    await site.start()
    before = site.token(await site.write(b"before"))
    await site.stop()
    site.replication = False
    await site.start()
    alone = site.token(await site.write(b"alone"))
    assert alone.generation == before.generation
    for token, here in ((before, True), (alone, True), (alone._replace(generation=9), False)):
        assert await site.engine.waits.applied(token, 0) is here
    await site.stop()
    site.replication = True
    await site.start()
    after = site.token(await site.write(b"after"))
    assert after.generation > alone.generation
    for token in (before, alone, after):
        assert await site.engine.waits.applied(token, FOR_EVER_S)


async def test_waiting_outlives_an_environment_that_is_replaced(sites: EngineSites) -> None:
    master, replicant = await started(sites)
    waits = replicant.engine.waits
    token = master.token(await master.write(b"key"))
    assert await waits.applied(token, FOR_EVER_S)
    beyond = token._replace(lsn=LSN(token.lsn.file, token.lsn.offset + 1))
    waiting = asyncio.create_task(waits.applied(beyond, FOR_EVER_S))
    await asyncio.sleep(0)
    replicant.engine.environment.panic("a test of the reopening")
    await soon("it was opened again", lambda: replicant.engine.reopened == 1)
    assert await waits.applied(token, FOR_EVER_S)
    await master.write(b"key")
    assert await waiting


async def test_a_site_without_replication_has_its_own_writes(sites: EngineSites) -> None:
    site = sites.make(replication=False)
    await site.start()
    token = site.token(await site.write(b"key"))
    assert await site.engine.waits.applied(token, 0)
    assert not await site.engine.waits.applied(token._replace(lsn=LSN(9, 28)), 0)
