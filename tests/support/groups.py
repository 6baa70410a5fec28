"""Waiting for a group of engines: who leads, who follows."""

from __future__ import annotations

from tests.support.engines import EngineSite
from tests.support.environments import soon

DEADLINE_S = 60.0
JOURNAL_SHOWN = 10_000  # characters of each site, when it failed


async def started(group: list[EngineSite]) -> list[EngineSite]:
    """Start all and wait until the first leads and the others follow it."""
    for site in group:
        await site.start()
    await followed(group[0], group[1:])
    return group


async def followed(master: EngineSite, others: list[EngineSite]) -> None:
    """Wait until these have acknowledged something in the master's generation."""

    def all_acked() -> bool:
        seen = {site.site: site.acked_lsn for site in master.engine.status().sites}
        return all(seen.get(str(other.address)) for other in others)

    await soon(f"all follow {master.name}", all_acked, deadline_s=DEADLINE_S)


def takes_writes(site: EngineSite) -> bool:
    """Tell whether a site is master and not cut off."""
    manager = site.engine.manager
    return site.engine.accepting and manager is not None and manager.cut_off() is None


async def master_of(group: list[EngineSite]) -> EngineSite:
    """Wait until exactly one takes writes; give it."""

    def leading() -> list[EngineSite]:
        return [site for site in group if takes_writes(site)]

    try:
        await soon("one leads", lambda: len(leading()) == 1, deadline_s=DEADLINE_S)
    except AssertionError as error:
        for site in group:
            error.add_note(f"-- {site.name}\n{site.events[-JOURNAL_SHOWN:]}")
        raise
    return leading()[0]


def in_step(site: EngineSite, master: EngineSite) -> bool:
    """Tell whether a site has all that the master has."""
    return site.engine.lsn >= master.engine.lsn


def told(site: EngineSite, event: str) -> int:
    """Count these events in the site's journal."""
    return site.events.count(f" {event} ") + site.events.count(f" {event}\n")


async def keys_of(site: EngineSite) -> list[bytes]:
    """Read all keys."""
    keyspace = site.engine.keyspace
    return await site.engine.read(lambda txn: keyspace.keys(txn, None, 100_000))
