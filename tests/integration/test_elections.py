"""Elections between real sites: who leads after a loss, and what nobody loses."""

from __future__ import annotations

from functools import partial

from replication.history import HistoryRow
from tests.support.engines import EngineSite, EngineSites, fast, sites
from tests.support.environments import soon

__all__ = ["fast", "sites"]

QUORUM = "repmgr_set_ack_policy db_repmgr_acks_quorum"
DEADLINE_S = 60.0


async def started(made: list[EngineSite]) -> list[EngineSite]:
    """Start all and wait until the first leads and the others follow it."""
    for site in made:
        await site.start()
    await linked(made[0], made[1:])
    return made


def told(site: EngineSite, event: str) -> bool:
    return f" {event} " in site.events


async def linked(master: EngineSite, others: list[EngineSite]) -> None:
    def all_acked() -> bool:
        seen = {site.site: site.acked_lsn for site in master.engine.status().sites}
        return all(seen.get(str(other.address)) for other in others)

    await soon("all follow it", all_acked, deadline_s=DEADLINE_S)


async def master_of(made: list[EngineSite]) -> EngineSite:
    """Wait until exactly one leads and takes writes; give it."""

    def leading() -> list[EngineSite]:
        return [site for site in made if site.engine.accepting]

    await soon("one leads", lambda: len(leading()) == 1, deadline_s=DEADLINE_S)
    return leading()[0]


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
    group = await started(sites.group(3, lines=[QUORUM], electable=True))
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
        assert site.events.count(" election_called ") == 1
        await soon("log passes again", partial(told, site, "log_released"))
    assert await other.read(b"after") == b"value"
    check_history(first, new, other)
    await first.start()
    await linked(new, [other, first])
    assert (await new.write(b"again")).perm_failed is None
