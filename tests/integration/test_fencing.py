"""A master that is cut off: it refuses writes in time, steps down, and reads what is the newest."""

from __future__ import annotations

import asyncio
import time
from functools import partial

import pytest

from replication.messages import AckPolicy
from tests.support.cables import Cables, cables
from tests.support.engines import EngineSite, EngineSites, fast, sites
from tests.support.environments import soon
from tests.support.groups import DEADLINE_S, followed, in_step, keys_of, master_of, started, told
from ttserver.engine import Refused

__all__ = ["cables", "fast", "sites"]

QUORUM = "repmgr_set_ack_policy db_repmgr_acks_quorum"
FENCE_S = 0.6
LEASE_S = 0.5
SLACK_S = 0.5  # between what is heard and the next tick of a clock, on a busy machine


async def group_of(
    sites: EngineSites, priorities: tuple[int, ...] = (1, 1, 1), **settings: object
) -> list[EngineSite]:
    overrides = {f"replication.{name}": value for name, value in settings.items()}
    group = sites.group(len(priorities), lines=[QUORUM], priorities=priorities, overrides=overrides)
    return await started(group)


async def last_ok_s(site: EngineSite, policy: AckPolicy) -> tuple[float, Refused]:
    """Write until that is refused; give when the last OK was asked for, and the refusal."""
    last_s, number = -1.0, 0
    while True:
        asked_s = time.monotonic()
        try:
            outcome = await site.write(b"late %d" % number, policy=policy)
        except Refused as refused:
            return last_s, refused
        if outcome.perm_failed is None:
            last_s = asked_s
        number += 1
        await asyncio.sleep(0.01)


async def test_a_cut_off_master_refuses_writes_in_time_and_then_steps_down(
    sites: EngineSites, cables: Cables
) -> None:
    group = await group_of(sites, fence_s=FENCE_S)
    old, *rest = group
    await soon("its fence is up", lambda: fence_state(old) == "open")
    assert (await old.write(b"before")).perm_failed is None
    cables.cut(old, *rest)
    cut_s = time.monotonic()
    # With this policy nothing else keeps it from saying OK to what will be lost.
    last_s, refused = await last_ok_s(old, AckPolicy.NONE)
    assert cut_s < last_s < cut_s + FENCE_S + SLACK_S
    assert str(refused) == (
        f"write refused: this master is cut off: for {FENCE_S:g} s it heard from 0 of 2 other"
        " sites, 1 are needed to rule out another master (replication.fence_s)"
    )
    assert refused.code == "TRYAGAIN"
    await soon("the clock has noticed", lambda: fence_state(old) == "fenced")
    status = old.engine.status()
    assert (status.role, status.read_only) == ("master", True)
    assert status.fence is not None
    assert (status.fence.state, status.fence.heard, status.fence.left_s) == ("fenced", 0, 0.0)
    assert status.waits[0].kind == "fenced"
    assert await old.read(b"before") == b"value", "reads go on"
    await soon("it steps down", lambda: old.engine.role == "electing", deadline_s=DEADLINE_S)
    assert told(old, "fenced") == told(old, "stepped_down") == 1
    assert await master_of(rest) in rest


async def test_mended_it_follows_whom_the_others_elected(
    sites: EngineSites, cables: Cables
) -> None:
    group = await group_of(sites, fence_s=FENCE_S)
    old, *rest = group
    await soon("its fence is up", lambda: fence_state(old) == "open")
    assert (await old.write(b"before")).perm_failed is None
    cables.cut(old, *rest)
    assert (await old.write(b"lost", ack_timeout_s=0.1)).perm_failed is not None
    await soon("it steps down", lambda: old.engine.role == "electing", deadline_s=DEADLINE_S)
    new = await master_of(rest)
    assert (await new.write(b"after")).perm_failed is None
    cables.mend()
    await followed(new, [site for site in group if site is not new])
    for site in group:
        await soon("in step", partial(in_step, site, new))
        assert await keys_of(site) == [b"after", b"before"]


def fence_state(site: EngineSite) -> str | None:
    fence = site.engine.status().fence
    return None if fence is None else fence.state


async def test_a_master_that_keeps_the_majority_goes_on(sites: EngineSites, cables: Cables) -> None:
    group = await group_of(sites, fence_s=FENCE_S)
    master, near, far = group
    cables.cut(far, master, near)
    await soon("the other is missed", lambda: far.engine.role == "electing", deadline_s=DEADLINE_S)
    for number in range(10):
        assert (await master.write(b"%d" % number)).perm_failed is None
        await asyncio.sleep(FENCE_S / 5)
    # Now it has nobody, and gets one back before it has to step down.
    await soon("its fence is open", lambda: fence_state(master) == "open")
    cables.cut(near, master)
    await soon("it is fenced", lambda: fence_state(master) == "fenced")
    cables.mend()
    leader = await master_of(group)
    await followed(leader, [site for site in group if site is not leader])
    assert (await leader.write(b"again")).perm_failed is None


@pytest.mark.parametrize("priorities", [(1, 1), (1, 0, 0)])
async def test_where_nobody_could_take_over_or_by_choice_it_goes_on_alone(
    sites: EngineSites, cables: Cables, priorities: tuple[int, ...]
) -> None:
    group = await group_of(sites, priorities, fence_s=FENCE_S)
    master, *rest = group
    cables.cut(master, *rest)
    for _ in range(10):
        await asyncio.sleep(FENCE_S / 4)
        assert master.engine.status().fence is None
        assert (await master.write(b"alone", policy=AckPolicy.NONE)).perm_failed is None


async def test_in_a_group_of_two_the_operator_may_want_it(
    sites: EngineSites, cables: Cables
) -> None:
    master, other = await group_of(sites, (1, 1), fence_s=FENCE_S, fence_sites_min=2)
    await soon("its fence is up", lambda: fence_state(master) == "open")
    cables.cut(master, other)
    _, refused = await last_ok_s(master, AckPolicy.NONE)
    assert "it heard from 0 of 1 other sites" in str(refused)
    cables.mend()
    assert (await (await master_of([master, other])).write(b"again")).error is None


async def test_a_lease_ends_before_another_master_can_be_elected(
    sites: EngineSites, cables: Cables
) -> None:
    group = await group_of(sites, fence_s=0.0, lease_s=LEASE_S)
    old, *rest = group
    await soon("it has the lease", lambda: lease_left(old))
    assert (await old.write(b"key", value=b"old")).perm_failed is None
    assert await old.read(b"key") == b"old"
    assert old.engine.read_now(old.get(b"key")) == b"old"
    promised = [site.engine.manager.core.rounds for site in rest if site.engine.manager]
    cables.cut(old, *rest)
    read: list[float] = []
    new: list[tuple[float, bytes]] = []

    async def read_on() -> None:
        while not new:
            asked_s = time.monotonic()
            try:
                value = await old.read(b"key")
            except Refused as refused:
                assert f"for {LEASE_S:g} s no majority" in str(refused)  # noqa: PT017
                break
            assert value == b"old"
            read.append(asked_s)
            await asyncio.sleep(0.01)

    reading = asyncio.create_task(read_on())
    until_s = max(rounds.promised_until_s for rounds in promised)
    master = await master_of(rest)
    assert time.monotonic() > until_s, "both had given their word"
    assert (await master.write(b"key", value=b"new")).perm_failed is None
    new.append((time.monotonic(), b"new"))
    await reading
    assert read
    assert max(read) < until_s + 0.01
    with pytest.raises(Refused, match="no majority"):
        old.engine.read_now(old.get(b"key"))
    await soon("the new one has it", lambda: lease_left(master))
    assert await master.read(b"key") == b"new"
    assert master.engine.status().lease is not None
    other = next(site for site in rest if site is not master)
    assert await other.read(b"key") in (b"old", b"new"), "a replicant reads what it has"
    cables.mend()
    await followed(await master_of(group), [s for s in group if not s.engine.accepting])


def lease_left(site: EngineSite) -> float:
    lease = site.engine.status().lease
    return 0.0 if lease is None else lease.left_s
