"""Changes of the membership database on a real environment, told to the core."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
from berkeleydb import db

from replication import effects, gmdb
from replication.acks import AckTable
from replication.bodies import SiteAddress
from replication.bridge import Bridge
from replication.coldstart import OwnStanding
from replication.core import Core
from replication.held_log import HeldLog
from replication.journal import Journal
from replication.library_work import LibraryWork
from replication.membership import Membership
from replication.membership_work import MembershipWork
from replication.memory import Memory
from replication.messages import OwnCode, SiteStatus
from replication.phase import Phase
from replication.roster import Roster
from replication.settings import GroupSettings
from replication.wire import LSN, LSN_MAX, LSN_ZERO
from tests.support.environments import soon
from tests.support.replicated import environment

T = TypeVar("T")
A, B, C = (SiteAddress("127.0.0.1", port) for port in (5010, 5011, 5012))


class Thread:
    """One thread for calls; the library's refusals can be played."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1)
        self.refusals: list[Exception] = []

    def submit(self, call: Callable[[], T]) -> Future[T]:
        def run() -> T:
            if self.refusals:
                raise self.refusals.pop(0)
            return call()

        return self.pool.submit(run)


class Master:
    """A core that is master of a real environment, and the work on its membership database."""

    def __init__(self, env: db.DBEnv, bridge: Bridge, directory: Path) -> None:
        own = OwnStanding(A, 1, 0, LSN_ZERO, empty=True, has_membership=False, creator=True)
        settings = GroupSettings(A, ack_timeout_s=0.05)
        self.env = env
        self.core = Core(settings, own, None, Memory(), 7)
        self.journal = Journal(directory / "journal", 10**6, 1, str(A), False)
        self.thread = Thread()
        self.table = AckTable(0)
        self.roster = Roster(self.table)
        self.library = LibraryWork(
            env, self.thread, self.thread, self.core, HeldLog(2**20), self.began, self.broke
        )
        self.work = MembershipWork(env, self.thread, self.core, self.journal, self.roster, bridge)

    def began(self, generation: int, _lsn: LSN) -> None:
        self.table.start_generation(generation)

    def broke(self, _eid: int, error: Exception) -> None:
        raise error

    async def do(self) -> list[effects.Answer]:
        """Make all changes that the core wants; returns what it answers."""
        answers = []
        while pending := self.core.take():
            for effect in pending:
                if isinstance(effect, effects.ChangeMembership):
                    await self.work.change(effect.steps, effect.request, forced=effect.forced)
                elif isinstance(effect, effects.Answer):
                    answers.append(effect)
        return answers

    async def join(self, *sites: SiteAddress) -> None:
        for number, site in enumerate(sites, 100):
            self.core.site(site).electable = True
            self.core.requests.join(number, site)
            [answer] = await self.do()
            assert answer.code == OwnCode.JOIN_SUCCESS

    def acknowledges(self, site: SiteAddress) -> None:
        """Let a site have acknowledged everything there will ever be."""
        eid = self.core.site(site).eid
        assert self.table.record(eid, self.core.generation, LSN_MAX)
        self.roster.acked(eid, LSN_MAX)

    @property
    def written(self) -> dict[SiteAddress, SiteStatus]:
        """What the database says."""
        found = gmdb.read(self.env, self.core.generation)
        assert found is not None
        assert self.core.membership == found
        return {member.address: member.status for member in found.members}


@pytest.fixture
async def master(tmp_path: Path) -> AsyncIterator[Master]:
    bridge = Bridge(
        queue_bytes_max=2**20,
        asked_bytes_max=2**20,
        link_stall_s=1.0,
        on_permanent=lambda _lsn: None,
        on_stalled=lambda _link, _over_s: None,
        on_sync_message=lambda _eid, _kind, _record: None,
        on_vote=lambda _generation: None,
    )
    with environment(tmp_path / "env", send=bridge.send) as env:
        made = Master(env, bridge, tmp_path)
        try:
            made.core.phase = Phase.TAKING_OVER
            await made.library.start_master(0)
            made.core.take()
            await made.work.load()
            await made.do()
            assert made.written == {A: SiteStatus.PRESENT}
            yield made
        finally:
            made.thread.pool.shutdown()
            made.journal.close()


async def test_a_failure_frees_the_way_for_the_next(master: Master) -> None:
    master.core.requests.join(1, B)
    master.thread.refusals.append(db.DBLockDeadlockError(-30993, "deadlock"))
    [failed] = await master.do()
    assert failed.code == OwnCode.GM_FAILURE
    assert "deadlock" in failed.reason
    await master.join(B)
    assert master.written == {A: SiteStatus.PRESENT, B: SiteStatus.PRESENT}


async def test_a_removal_that_nobody_acknowledges_is_taken_back(master: Master) -> None:
    await master.join(B)
    await master.join(C)
    before = master.core.membership
    assert before is not None
    master.core.requests.remove(1, C)
    [answer] = await master.do()
    assert answer.code == OwnCode.GM_FAILURE
    assert f"missing: {B}" in answer.reason
    assert master.core.membership == replace(before, version=before.version + 2)
    assert master.written == dict.fromkeys((A, B, C), SiteStatus.PRESENT)


async def test_a_removal_goes_on_when_a_majority_knows_of_it(master: Master) -> None:
    await master.join(B)
    await master.join(C)
    master.core.requests.remove(1, C)
    removing = asyncio.create_task(master.do())
    group = master.core.group
    await soon("it began", lambda: group.membership and group.membership.unfinished)
    master.acknowledges(B)
    [answer] = await removing
    assert answer.code == OwnCode.REMOVE_SUCCESS
    assert master.written == {A: SiteStatus.PRESENT, B: SiteStatus.PRESENT}


async def test_by_force_it_waits_for_nobody(master: Master) -> None:
    await master.join(B)
    await master.join(C)
    for number, site in enumerate((C, B), 1):
        master.core.requests.remove(number, site, forced=True)
        [answer] = await master.do()
        assert answer.code == OwnCode.REMOVE_SUCCESS
    assert master.written == {A: SiteStatus.PRESENT}


async def test_an_addition_that_nobody_acknowledges_is_taken_back(master: Master) -> None:
    await master.join(B)
    await master.join(C)
    master.core.requests.join(1, SiteAddress("127.0.0.1", 5013))
    [answer] = await master.do()
    assert answer.code == OwnCode.GM_FAILURE
    assert master.written == dict.fromkeys((A, B, C), SiteStatus.PRESENT)


async def test_what_a_master_left_half_done_is_finished(master: Master) -> None:
    await master.join(B)
    listed = master.core.membership
    assert listed is not None
    gmdb.write(master.env, (listed.deleting(B),), master.core.generation)
    await master.work.load()
    await master.do()
    assert master.written == {A: SiteStatus.PRESENT}
    assert isinstance(master.core.membership, Membership)
    assert master.core.membership.version == listed.version + 2
