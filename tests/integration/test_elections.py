"""Elections between real sites: who leads after a loss, and what nobody loses."""

from __future__ import annotations

import asyncio
from datetime import datetime
from functools import partial
from itertools import permutations

import pytest

from replication.history import HistoryRow
from replication.journal_line import parse_line
from replication.library_work import LibraryWork
from replication.phase import Phase
from replication.wire import LSN
from tests.support.cables import Cables, cables
from tests.support.engines import EngineSite, EngineSites, fast, sites
from tests.support.environments import soon
from tests.support.groups import DEADLINE_S, followed, in_step, keys_of, master_of, started, told

__all__ = ["cables", "fast", "sites"]

QUORUM = "repmgr_set_ack_policy db_repmgr_acks_quorum"
NOT_STRICT = "rep_set_config db_repmgr_conf_2site_strict off"
THREE = (1, 1, 1)


def timeout(name: str, seconds: float) -> str:
    return f"rep_set_timeout db_rep_{name} {round(seconds * 1e6)}"


def at_s(site: EngineSite, event: str) -> float:
    """When the site's journal last told of this event."""
    lines = [parse_line(text) for text in site.events.splitlines()]
    times = [line.time for line in lines if line is not None and line.event == event]
    return datetime.fromisoformat(times[-1]).timestamp()


def check_history(first: EngineSite, new: EngineSite, other: EngineSite) -> None:
    """Both remember the loss and the election: votes, LSNs, priorities."""
    last = done_by(first)
    for site in (new, other):
        lost, called = rows(site, "master_lost")[-1], rows(site, "election_called")[-1]
        assert (lost.master, lost.generation) == (str(first.address), last)
        assert (called.nsites, called.nvotes, called.priority) == (2, 2, 1)
        assert lost.lsn is not None
        assert called.lsn == lost.lsn
    won, leads = rows(new, "election_won")[-1], rows(new, "became_master")[-1]
    assert (won.votes, won.priority, won.master) == (2, 1, str(new.address))
    assert leads.generation == new.engine.generation > last
    assert leads.lsn is not None
    follows = rows(other, "new_master")[-1]
    assert (follows.master, follows.generation) == (str(new.address), leads.generation)
    assert rows(other, "election_won") == []


def rows(site: EngineSite, event: str) -> list[HistoryRow]:
    return [row for row in site.engine.status().history if row.event == event]


def done_by(site: EngineSite) -> int:
    """The generation in which a site that is stopped led."""
    (row,) = [row for row in site.journal.history.rows if row.event == "became_master"]
    assert row.generation is not None
    return row.generation


async def test_the_others_elect_and_lose_nothing(sites: EngineSites) -> None:
    group = await started(sites.group(3, lines=[QUORUM], priorities=THREE))
    first = group[0]
    done = [await first.write(b"%d" % number) for number in range(20)]
    assert {outcome.perm_failed for outcome in done} == {None}
    await first.stop()
    new = await master_of(group[1:])
    (other,) = [site for site in group[1:] if site is not new]
    assert new.engine.generation > done[0].generation
    assert (await new.write(b"after")).perm_failed is None
    assert [await new.read(b"%d" % number) for number in range(20)] == [b"value"] * 20
    # Both had voted; from then on the loser applied nothing until it followed the winner.
    for site in (new, other):
        assert told(site, "election_called") == 1
        await soon("log passes again", partial(told, site, "log_released"))
    assert await other.read(b"after") == b"value"
    check_history(first, new, other)
    await first.start()
    await followed(new, [other, first])
    assert (await new.write(b"again")).perm_failed is None


async def test_priority_0_votes_and_never_wins(sites: EngineSites) -> None:
    group = await started(sites.group(3, lines=[QUORUM], priorities=(1, 0, 1)))
    first, voter, heir = group
    assert (await first.write(b"key")).perm_failed is None
    await first.stop()
    assert await master_of([voter, heir]) is heir
    assert told(voter, "election_called")
    await followed(heir, [voter])
    assert await voter.read(b"key") == b"value"
    await heir.stop()
    await soon("it cannot elect itself", partial(told, voter, "election_impossible"))
    assert not voter.engine.accepting


@pytest.mark.parametrize("strict", [True, False])
async def test_of_two_sites_one_goes_on_alone_only_if_the_operator_allows_it(
    sites: EngineSites, strict: bool
) -> None:
    lines = [] if strict else [NOT_STRICT]
    first, second = await started(sites.group(2, lines=lines, priorities=(1, 1)))
    assert (await first.write(b"key")).error is None
    await soon("in step", lambda: second.engine.lsn >= first.engine.lsn)
    await first.stop()
    if not strict:
        assert await master_of([second]) is second
        assert await second.read(b"key") == b"value"
        return
    await soon("it tries", partial(told, second, "election_impossible"))
    assert second.engine.status().why == (
        "no master: an election needs 2 of 2 sites, this site reaches 1"
    )
    assert second.engine.role == "electing"
    await first.start()
    leader = await master_of([first, second])
    await followed(leader, [site for site in (first, second) if site is not leader])


async def test_a_winner_that_dies_before_it_takes_over(
    sites: EngineSites, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = await started(sites.group(5, lines=[QUORUM], priorities=(1,) * 5))
    assert (await group[0].write(b"key")).perm_failed is None
    real = LibraryWork.start_master
    stuck: list[LibraryWork] = []

    async def start_master(
        work: LibraryWork, generation_above: int, holding: LSN | None = None
    ) -> None:
        if not stuck:
            stuck.append(work)
            await asyncio.Event().wait()
        await real(work, generation_above, holding)

    monkeypatch.setattr(LibraryWork, "start_master", start_master)
    await group[0].stop()
    left = group[1:]

    def taking_over() -> list[EngineSite]:
        managers = [(site, site.engine.manager) for site in left]
        return [s for s, m in managers if m is not None and m.core.phase is Phase.TAKING_OVER]

    await soon("one has won", lambda: stuck and taking_over(), deadline_s=DEADLINE_S)
    (winner,) = taking_over()
    await winner.stop()
    left.remove(winner)
    new = await master_of(left)
    await followed(new, [site for site in left if site is not new])
    assert (await new.write(b"after")).perm_failed is None
    assert await new.read(b"key") == b"value"


@pytest.mark.parametrize("order", [*permutations(range(3))][1::2])
async def test_a_group_that_was_down_finds_a_master_in_whatever_order_it_comes_up(
    sites: EngineSites, order: tuple[int, ...]
) -> None:
    group = await started(sites.group(3, lines=[QUORUM], priorities=THREE))
    assert (await group[0].write(b"key")).perm_failed is None
    for site in group:
        await site.stop()
    for number in order:
        await group[number].start(wait=False)
    new = await master_of(group)
    await followed(new, [site for site in group if site is not new])
    assert (await new.write(b"after")).perm_failed is None
    for site in group:
        await soon("in step", partial(in_step, site, new))
        assert await keys_of(site) == [b"after", b"key"]


async def test_a_group_that_starts_together_waits_the_full_time_for_all_and_only_then(
    sites: EngineSites,
) -> None:
    full_s = 1.5
    lines = [QUORUM, timeout("election_timeout", 0.3), timeout("full_election_timeout", full_s)]
    group = await started(sites.group(3, lines=lines, priorities=THREE))
    for site in group:
        await site.stop()
    for site in group[1:]:
        await site.start(wait=False)
    new = await master_of(group[1:])
    assert at_s(new, "became_master") - at_s(new, "election_called") >= full_s
    # With the third one back the next loss is an ordinary one.
    await group[0].start()
    rest = [site for site in group if site is not new]
    await followed(new, rest)
    await new.stop()
    next_ = await master_of(rest)
    assert at_s(next_, "became_master") - at_s(next_, "election_called") < full_s


async def test_of_two_masters_one_is_left_and_what_was_acknowledged(
    sites: EngineSites, cables: Cables
) -> None:
    """The old one goes on while it is cut off: nothing it took there was answered OK."""
    group = await started(
        sites.group(3, lines=[QUORUM], priorities=THREE, overrides={"replication.fence_s": 0.0})
    )
    old, *rest = group
    assert (await old.write(b"before")).perm_failed is None
    cables.cut(old, *rest)
    new = await master_of(rest)
    assert (await new.write(b"after")).perm_failed is None
    assert old.engine.accepting, "nobody told it"
    assert (await old.write(b"alone", ack_timeout_s=0.1)).perm_failed is not None
    cables.mend()
    only = await master_of(group)
    await followed(only, [site for site in group if site is not only])
    assert (await only.write(b"together")).perm_failed is None
    for site in group:
        await soon("in step", partial(in_step, site, only))
        assert await keys_of(site) == [b"after", b"before", b"together"]
