"""A site that holds writes which its new master does not have: they are listed, then taken back."""

from __future__ import annotations

import shutil
from collections.abc import Iterable

import pytest
from berkeleydb import db

from replication.messages import AckPolicy
from storage.errors import StorageError
from storage.ledger import Entry, Head
from tests.support.engines import EngineSite, EngineSites, fast, sites
from tests.support.environments import soon

__all__ = ["fast", "sites"]

ACKS_ONE = "repmgr_set_ack_policy db_repmgr_acks_one"
DEADLINE_S = 60.0


async def diverged(
    sites: EngineSites, *lines: str, tail: Iterable[tuple[bytes, bytes]], **overrides: object
) -> list[EngineSite]:
    """Have a master write what its replicant never sees; it is stopped, the other promoted."""
    settings = {name.replace("__", "."): value for name, value in overrides.items()}
    group = sites.group(2, lines=(ACKS_ONE, *lines), overrides=settings)
    old, new = group
    for site in group:
        await site.start()
    await soon("connected", lambda: old.engine.status().sites[0].acked_lsn)
    for key in (b"both", b"changed", b"removed"):
        assert (await old.write(key, value=b"old")).perm_failed is None
    await new.stop()
    for key, value in tail:
        assert (await old.write(key, value=value)).perm_failed is not None
    await old.stop()
    await promoted(new)
    return group


async def promoted(site: EngineSite) -> None:
    await site.start(wait=False)
    await soon("it takes part", lambda: site.engine.manager is not None)
    manager = site.engine.manager
    assert manager is not None
    manager.promote()
    await soon("it is master", lambda: site.engine.accepting, deadline_s=DEADLINE_S)


async def in_step(old: EngineSite, new: EngineSite) -> None:
    await soon(
        "in step",
        lambda: (
            old.engine.state == "running"
            and old.engine.role == "replicant"
            and old.engine.lsn >= new.engine.lsn
        ),
        deadline_s=DEADLINE_S,
    )


def contents(site: EngineSite) -> dict[bytes, bytes]:
    handle = db.DB(site.engine.environment.env)
    try:
        handle.open("keys.db", flags=db.DB_RDONLY | db.DB_THREAD)
        return dict(handle.items())
    finally:
        handle.close()


def ledger(site: EngineSite) -> tuple[Head, list[Entry]]:
    ledgers = site.engine.rejoin.ledgers
    (head,) = ledgers.heads()
    return head, list(ledgers.entries(head.id))


def listed(entries: list[Entry]) -> list[tuple[bytes, bytes | None, bytes | None]]:
    return [(entry.key, entry.before, entry.after) for entry in entries]


async def test_the_ledger_lists_exactly_what_is_taken_back(sites: EngineSites) -> None:
    tail = [(b"new", b"1"), (b"changed", b"2"), (b"new", b"3")]
    old, new = await diverged(sites, tail=tail)
    await new.write(b"other", value=b"new master's", policy=AckPolicy.NONE)
    await old.start(wait=False)
    await in_step(old, new)
    assert contents(old) == contents(new)
    assert contents(old)[b"changed"] == b"old"
    head, entries = ledger(old)
    assert listed(entries) == [
        (b"new", None, b"1"),
        (b"changed", b"old", b"2"),
        (b"new", b"1", b"3"),
    ]
    assert [entry.write for entry in entries] == [1, 2, 3]
    assert (head.writes, head.differences, head.unexplained) == (3, 0, 0)
    assert (head.site, head.master, head.exact) == (str(old.address), str(new.address), True)
    lsns = [entry.lsn for entry in entries]
    assert all(lsn is not None and head.sync_point < lsn <= head.log_end for lsn in lsns)
    counters = old.engine.status().counters
    assert (counters["rollbacks"], counters["writes_rolled_back"]) == (1, 3)
    assert counters["rollback_ledgers_open"] == 1
    for event in ("rollback_found", "rollback_listed", "rollback_done", "alarm_raised"):
        assert f" {event} " in old.events
    assert not (old.home.rollbacks / "pending").exists()
    await soon("the tail is of no use now", lambda: not list(old.home.tail.iterdir()))


async def test_without_a_tail_the_databases_are_compared(sites: EngineSites) -> None:
    tail = [(b"new", b"1"), (b"changed", b"2"), (b"new", b"3")]
    old, new = await diverged(sites, tail=tail)
    shutil.rmtree(old.home.tail)
    await new.write(b"other", policy=AckPolicy.NONE)
    await old.start(wait=False)
    await in_step(old, new)
    assert contents(old) == contents(new)
    head, entries = ledger(old)
    assert listed(entries) == [(b"changed", b"old", b"2"), (b"new", None, b"3")]
    assert {(entry.lsn, entry.user) for entry in entries} == {(None, None)}
    assert (head.writes, head.differences) == (0, 2)
    assert head.unexplained >= 3


async def waits_for_the_operator(site: EngineSite) -> None:
    await soon(
        "the operator is asked", lambda: site.engine.status().waits and site.engine.status().why
    )
    await soon(
        "the operator is asked",
        lambda: [wait for wait in site.engine.status().waits if wait.kind == "rollback"],
        deadline_s=DEADLINE_S,
    )


TAIL = [(b"tail%d" % number, b"value") for number in range(5)]


@pytest.mark.parametrize(
    ("lines", "overrides", "reason"),
    [
        ((), {"replication__rollback_writes_max": 4}, "more than 4 writes"),
        (("rep_set_config db_rep_conf_autorollback off",), {}, "more than 0 writes"),
    ],
)
async def test_too_much_is_left_to_the_operator(
    sites: EngineSites, lines: Iterable[str], overrides: dict[str, object], reason: str
) -> None:
    old, new = await diverged(sites, *lines, tail=TAIL, **overrides)
    await old.start(wait=False)
    await waits_for_the_operator(old)
    engine = old.engine
    status = engine.status()
    assert (status.state, status.read_only) == ("start-pending", True)
    assert status.why is not None
    assert status.hint is not None
    assert str(new.address) in status.why
    assert status.why.endswith(reason)
    assert "rollback accept" in status.hint
    assert [alarm.kind for alarm in status.alarms] == ["rollback"]
    # Nothing is undone, and what is there is served.
    assert await old.read(b"tail4") == b"value"
    assert engine.rejoin.ledgers.heads() == []
    assert engine.status().counters["rollbacks"] == 0
    engine.rejoin.accept()
    await in_step(old, new)
    assert contents(old) == contents(new)
    head, entries = ledger(old)
    assert [entry.key for entry in entries] == [key for key, _ in TAIL]
    assert head.writes == 5


async def test_a_big_database_without_a_tail_is_left_to_the_operator(sites: EngineSites) -> None:
    old, new = await diverged(sites, tail=TAIL, replication__rollback_keep_bytes_max=100)
    shutil.rmtree(old.home.tail)
    await old.start(wait=False)
    await waits_for_the_operator(old)
    why = old.engine.status().why
    assert why is not None
    assert why.endswith("a database of more than 100 bytes would have to be kept")
    old.engine.rejoin.accept()
    await in_step(old, new)
    assert ledger(old)[0].differences == 5


async def test_a_site_that_is_promoted_instead_keeps_its_writes(sites: EngineSites) -> None:
    old, new = await diverged(sites, tail=TAIL, replication__rollback_writes_max=0)
    await old.start(wait=False)
    await waits_for_the_operator(old)
    await new.stop()
    manager = old.engine.manager
    assert manager is not None
    manager.promote()
    await soon("it is master", lambda: old.engine.accepting, deadline_s=DEADLINE_S)
    assert await old.read(b"tail4") == b"value"
    with pytest.raises(StorageError, match="no roll-back waits"):
        old.engine.rejoin.accept()
    await new.start(wait=False)
    await in_step(new, old)
    assert contents(new) == contents(old)
    # The other one had written nothing but its own records.
    assert listed(ledger(new)[1]) == []


async def test_the_library_rolls_back_by_itself_where_the_operator_says_so(
    sites: EngineSites,
) -> None:
    old, new = await diverged(sites, "rep_set_config db_rep_conf_autorollback on", tail=TAIL)
    await old.start(wait=False)
    await in_step(old, new)
    assert contents(old) == contents(new)
    assert old.engine.rejoin.ledgers.heads() == []
    assert "rollback_found" not in old.events


async def test_a_replicant_that_is_ahead(sites: EngineSites) -> None:
    """It got what its master never kept: no tail tells what that was."""
    group = sites.group(3, lines=(ACKS_ONE,))
    master, ahead, behind = group
    for site in group:
        await site.start()
    await soon("connected", lambda: all(site.acked_lsn for site in master.engine.status().sites))
    await master.write(b"all", value=b"1", policy=AckPolicy.ALL)
    await behind.stop()
    await master.write(b"all", value=b"2")
    await master.write(b"more", value=b"3")
    await soon("ahead", lambda: ahead.engine.lsn >= master.engine.lsn)
    await master.stop()
    await ahead.stop()
    await promoted(behind)
    await ahead.start(wait=False)
    await in_step(ahead, behind)
    assert contents(ahead) == contents(behind)
    head, entries = ledger(ahead)
    assert listed(entries) == [(b"all", b"1", b"2"), (b"more", None, b"3")]
    assert head.differences == 2


async def test_a_live_master_that_meets_another_one(sites: EngineSites) -> None:
    """Two masters at once: the one that gives in lists its writes, without a restart."""
    group = sites.group(2, lines=(ACKS_ONE,))
    old, new = group
    for site in group:
        await site.start()
    await soon("connected", lambda: old.engine.status().sites[0].acked_lsn)
    await old.write(b"both")
    await new.stop()
    await old.write(b"mine")
    await old.stop()
    await promoted(new)
    await new.write(b"yours", policy=AckPolicy.NONE)
    await old.start(wait=False)
    await in_step(old, new)
    # Once more, the other way round, with the libraries of both running for a while.
    await new.stop()
    await promoted_while_running(old)
    await old.write(b"again", policy=AckPolicy.NONE)
    await new.start(wait=False)
    await in_step(new, old)
    assert contents(new) == contents(old)


async def promoted_while_running(site: EngineSite) -> None:
    manager = site.engine.manager
    assert manager is not None
    manager.promote()
    await soon("it is master", lambda: site.engine.accepting, deadline_s=DEADLINE_S)
