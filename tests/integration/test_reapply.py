"""Writes that were taken back are written again on the master of today, and over nothing."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from berkeleydb import db

from replication.errors import ReplicationError
from replication.messages import AckPolicy
from storage.ledger import Head
from tests.integration.test_rejoin import diverged, in_step, ledger, promoted_while_running
from tests.support.engines import EngineSite, EngineSites, fast, sites
from tests.support.environments import soon
from ttserver import reapply
from ttserver.errors import TtserverError
from ttserver.reapply import Again, Answer, Change, Report, Request

__all__ = ["fast", "sites"]

TAIL = [(b"new", b"1"), (b"changed", b"2"), (b"new", b"3"), (b"big", b"x" * 300_000)]


async def rejoined(sites: EngineSites, **how: object) -> tuple[EngineSite, EngineSite, Head]:
    old, new = await diverged(sites, tail=TAIL, **how)
    await old.start(wait=False)
    await in_step(old, new)
    return old, new, ledger(old)[0]


async def again(site: EngineSite, head: Head) -> Report:
    return await site.engine.reapply.run(head, lambda _: None)


async def test_from_a_replicant(sites: EngineSites) -> None:
    old, new, head = await rejoined(sites)
    report = await again(old, head)
    assert (report.applied, report.same, report.conflict, report.left) == (4, 0, 0, [])
    assert report.perm_failed is None
    assert await new.read(b"new") == b"3"
    assert await new.read(b"changed") == b"2"
    assert await new.read(b"big") == b"x" * 300_000
    await in_step(old, new)
    assert await old.read(b"new") == b"3"
    outcome = old.engine.rejoin.ledgers.outcome(head.id)
    assert outcome is not None
    assert outcome.settled
    # Once more does nothing.
    report = await again(old, head)
    assert (report.applied, report.same, report.conflict, report.left) == (0, 0, 0, [])


async def test_nothing_is_written_over_what_came_since(sites: EngineSites) -> None:
    old, new, head = await rejoined(sites)
    await new.write(b"new", value=b"today", policy=AckPolicy.NONE)
    report = await again(old, head)
    # The second write of the same key builds on the first one.
    assert (report.applied, report.conflict, report.left) == (2, 2, [1, 3])
    assert [(c.write, c.key, c.now) for c in report.conflicts] == [
        (1, b"new", b"today"),
        (3, b"new", b"today"),
    ]
    assert await new.read(b"new") == b"today"
    assert await new.read(b"changed") == b"2"
    assert old.engine.rejoin.ledgers.open_count() == 1
    # The operator makes room, and only what is left is tried.
    keyspace = new.engine.keyspace
    await new.engine.write(lambda txn: keyspace.delete(txn, b"new"), policy=AckPolicy.NONE)
    await new.write(b"changed", value=b"changed again", policy=AckPolicy.NONE)
    report = await again(old, head)
    assert (report.applied, report.conflict, report.left) == (2, 0, [])
    assert await new.read(b"new") == b"3"
    assert await new.read(b"changed") == b"changed again"
    assert old.engine.rejoin.ledgers.open_count() == 0


async def test_a_write_is_a_whole(sites: EngineSites) -> None:
    old, new = await diverged(sites, tail=[])
    # An EXEC of two keys, that no other site got.
    await new.stop()
    await old.start()
    await old.write(b"from", b"to", value=b"moved", ack_timeout_s=0.05)
    await old.stop()
    await new.start(wait=False)
    await soon("it takes part", lambda: new.engine.manager is not None)
    await promoted_while_running(new)
    await old.start(wait=False)
    await in_step(old, new)
    heads = old.engine.rejoin.ledgers.heads()
    await new.write(b"to", value=b"taken", policy=AckPolicy.NONE)
    report = await again(old, heads[-1])
    assert (report.applied, report.conflict) == (0, 1)
    assert await new.read(b"from") is None
    assert await new.read(b"to") == b"taken"


async def test_on_the_master_itself(sites: EngineSites) -> None:
    old, new, head = await rejoined(sites)
    await new.stop()
    await promoted_while_running(old)
    report = await again(old, head)
    assert (report.applied, report.left) == (4, [])
    assert report.perm_failed is not None
    assert await old.read(b"new") == b"3"


async def test_without_a_master_nothing_is_lost(sites: EngineSites) -> None:
    old, new, head = await rejoined(sites)
    await new.stop()
    await soon("it is missed", lambda: old.engine.master is None)
    with pytest.raises(ReplicationError, match="no master"):
        await again(old, head)
    outcome = old.engine.rejoin.ledgers.outcome(head.id)
    assert outcome is not None
    assert outcome.left == [1, 2, 3, 4]
    await new.start(wait=False)
    await soon("it takes part", lambda: new.engine.manager is not None)
    await promoted_while_running(new)
    await in_step(old, new)
    assert (await again(old, head)).applied == 4


async def test_in_many_messages(sites: EngineSites, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reapply, "CHUNK_WRITES", 2)
    old, _, head = await rejoined(sites)
    seen: list[int] = []
    report = await old.engine.reapply.run(head, lambda report: seen.append(report.applied))
    assert seen == [2, 4]
    assert report.left == []


async def test_what_does_not_fit_or_has_rules_of_its_own_is_left(
    sites: EngineSites, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reapply, "CHUNK_BYTES", 100_000)
    old, new = await diverged(sites, tail=TAIL)
    await new.stop()
    await old.start()

    def user(txn: db.DBTxn) -> None:
        old.engine.environment.changes.note(("users.db", b"alice", b""))
        old.engine.keyspace.put(txn, b"with", b"a user")

    # Not answered OK, or the site would wait for the one that has it.
    await old.engine.write(user, ack_timeout_s=0.05)
    await old.stop()
    await new.start(wait=False)
    await soon("it takes part", lambda: new.engine.manager is not None)
    await promoted_while_running(new)
    await old.start(wait=False)
    await in_step(old, new)
    head, _ = ledger(old)
    report = await again(old, head)
    assert (report.applied, report.skipped, report.left) == (3, 2, [4, 5])
    assert report.why_skipped == [
        "a write is too long to be sent to the master",
        "changes in users.db have to be made once more by hand",
    ]


async def test_one_at_a_time(sites: EngineSites) -> None:
    old, _, head = await rejoined(sites)
    first = asyncio.create_task(again(old, head))
    await asyncio.sleep(0)
    with pytest.raises(TtserverError, match="already"):
        await again(old, head)
    assert (await first).applied == 4


@pytest.mark.parametrize("body", [b"", b"\xc1", msgspec.msgpack.encode(["x", [[1, [["f"]]]]])])
async def test_a_request_that_makes_no_sense_is_answered(sites: EngineSites, body: bytes) -> None:
    site = sites.make()
    engine = await site.start()
    answer = msgspec.msgpack.decode(await engine.reapply.serve(body), type=Answer)
    assert answer.results == []
    assert answer.error is not None


async def test_a_replicant_and_a_foreign_keyspace_write_nothing(sites: EngineSites) -> None:
    old, new, _ = await rejoined(sites)
    write = Again(1, [Change("keys.db", b"key", None, b"value")])
    foreign = Again(1, [Change("users.db", b"key", None, b"value")])
    for site, asked, said in ((old, write, "replicant"), (new, foreign, "keys.db")):
        body = msgspec.msgpack.encode(Request("ledger", [asked]))
        answer = msgspec.msgpack.decode(await site.engine.reapply.serve(body), type=Answer)
        assert answer.error is not None
        assert said in answer.error
    assert await new.read(b"key") is None
