"""Changes of role while others are under way: in order, tried again, or not wanted any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest
from berkeleydb import db

from replication import library, library_work
from replication.bodies import SiteAddress
from replication.bridge import Bridge
from replication.coldstart import OwnStanding
from replication.core import Core
from replication.effects import Elect, Note
from replication.held_log import HeldLog
from replication.hold import State
from replication.journal import Journal
from replication.library_work import LibraryWork
from replication.memory import Memory
from replication.messages import RepType
from replication.phase import Phase
from replication.settings import GroupSettings
from replication.wire import LSN, LSN_ZERO
from tests.support.links import until
from tests.support.replicated import MASTER_EID, environment, pair

T = TypeVar("T")
A = SiteAddress("127.0.0.1", 5010)


class Thread:
    """One thread for calls; the library's refusals can be played."""

    def __init__(self, refusals: list[Exception]) -> None:
        self.pool = ThreadPoolExecutor(1)
        self.refusals = refusals
        self.calls = 0

    def submit(self, call: Callable[[], T]) -> Future[T]:
        def run() -> T:
            self.calls += 1
            if self.refusals:
                raise self.refusals.pop(0)
            return call()

        return self.pool.submit(run)


class Work:
    """A core with its library work on a real environment."""

    def __init__(self, env: db.DBEnv, tmp_path: Path, refusals: list[Exception]) -> None:
        own = OwnStanding(A, 1, 0, LSN_ZERO, empty=True, has_membership=False, creator=True)
        self.core = Core(GroupSettings(A), own, None, Memory(), 7)
        self.journal = Journal(tmp_path / "journal", 10**6, 1, str(A), False)
        self.held = HeldLog(2**20)
        self.thread = Thread(refusals)
        self.masters: list[tuple[int, LSN]] = []
        self.failures: list[Exception] = []
        self.work = LibraryWork(
            env,
            self.thread,
            self.thread,
            self.core,
            self.held,
            lambda generation, lsn: self.masters.append((generation, lsn)),
            lambda _eid, error: self.failures.append(error),
        )

    def close(self) -> None:
        self.thread.pool.shutdown()
        self.journal.close()


def lockouts(count: int) -> list[Exception]:
    return [db.DBRepLockoutError(-30975, "another change of role is under way")] * count


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library_work, "LOCKOUT_PAUSE_S", 0.001)


class TestRoles:
    async def test_a_lockout_is_waited_for(self, tmp_path: Path) -> None:
        with environment(tmp_path / "env") as env:
            made = Work(env, tmp_path, lockouts(3))
            made.core.phase = Phase.TAKING_OVER
            await made.work.start_master(8)
            made.close()
            assert made.core.is_master
            assert made.core.generation > 8
            [(generation, last)] = made.masters
            assert generation == made.core.generation
            assert last == library.standing(env).permanent

    async def test_but_not_for_ever(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(library_work, "LOCKOUT_TRIES_MAX", 4)
        with environment(tmp_path / "env") as env:
            made = Work(env, tmp_path, lockouts(9))
            made.core.phase = Phase.TAKING_OVER
            await made.work.start_master(0)
            made.close()
        assert made.thread.calls == 4
        assert made.core.phase is Phase.WAITING
        assert not made.masters

    async def test_a_client_that_waits_for_the_lock_gives_way_to_a_master(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with environment(tmp_path / "env") as env:
            made = Work(env, tmp_path, lockouts(1))
            monkeypatch.setattr(library_work, "LOCKOUT_PAUSE_S", 0.05)
            made.core.phase = Phase.FOLLOWING
            client = asyncio.create_task(made.work.start_client())
            await until("it was refused", lambda: made.thread.calls == 1)
            made.core.phase = Phase.TAKING_OVER
            await made.work.start_master(0)
            await client
            made.close()
            assert made.core.is_master
            assert env.rep_stat()["status"] == db.DB_REP_MASTER, "it did not step down"

    async def test_whatever_goes_wrong_the_core_hears_of_it(self, tmp_path: Path) -> None:
        with environment(tmp_path / "env") as env:
            made = Work(env, tmp_path, [ValueError("a bug")])
            made.core.phase = Phase.TAKING_OVER
            with pytest.raises(ValueError, match="a bug"):
                await made.work.start_master(0)
            assert made.core.phase is Phase.WAITING
            made.core.phase = Phase.FOLLOWING
            made.core.elections.under_way = True
            made.thread.refusals.append(ValueError("a bug"))
            with pytest.raises(ValueError, match="a bug"):
                await made.work.elect(Elect(1, 1, 0.1, 0.0))
            assert not made.core.electing
            made.close()

    async def test_a_refused_client_start_is_said(self, tmp_path: Path) -> None:
        with environment(tmp_path / "env") as env:
            made = Work(env, tmp_path, [db.DBInvalidArgError(22, "no")])
            made.core.phase = Phase.FOLLOWING
            await made.work.start_client()
            started = [made.core.client_started]
            await made.work.start_client()
            started.append(made.core.client_started)
            assert len(made.failures) == 1
            assert started == [False, True]
            made.close()


class TestElection:
    async def elect(self, made: Work, counted_s: float = 0.05) -> None:
        made.core.phase = Phase.FOLLOWING
        made.core.elections.under_way = True
        await made.work.elect(Elect(3, 2, 0.05, counted_s))

    def bridge(self, held: HeldLog) -> Bridge:
        return Bridge(
            queue_bytes_max=2**20,
            asked_bytes_max=2**20,
            link_stall_s=1.0,
            on_permanent=lambda _lsn: None,
            on_stalled=lambda _link, _over_s: None,
            on_sync_message=lambda _eid, _kind, _record: None,
            on_vote=held.voted,
        )

    async def test_log_waits_from_before_the_vote_until_nobody_counts_it(
        self, tmp_path: Path
    ) -> None:
        held = HeldLog(2**20)
        states: list[tuple[int, State]] = []

        def send(*message: Any) -> None:
            states.append((message[1][19], held.state))
            bridge.send(*message)

        bridge = self.bridge(held)
        with environment(tmp_path / "env", send=send) as env:
            library.start_client(env)
            made = Work(env, tmp_path, [])
            made.work._held = held
            held.wake = held.drained  # an apply thread with nothing to do
            await self.elect(made)
            made.close()
            votes = [state for kind, state in states if kind == RepType.VOTE1]
            assert votes == [State.VOTING]
            assert not made.core.electing
            after = [held.state]
            for generation in (env.rep_stat()["egen"] - 2, env.rep_stat()["egen"] - 1):
                held.master(generation)
                after.append(held.state)
            # The first of the two is of an election before this vote.
            assert after == [State.WAITING, State.WAITING, State.OPEN]

    async def test_an_apply_thread_that_does_not_come_back_is_not_waited_for_long(
        self, tmp_path: Path
    ) -> None:
        with environment(tmp_path / "env") as env:
            library.start_client(env)
            made = Work(env, tmp_path, [])
            await self.elect(made)
            made.close()
            assert made.thread.calls == 1

    async def test_a_site_that_was_promoted_meanwhile_casts_no_vote(self, tmp_path: Path) -> None:
        with environment(tmp_path / "env") as env:
            made = Work(env, tmp_path, [])
            electing = asyncio.create_task(self.elect(made, 20.0))
            await until("it waits for the log", lambda: made.held.draining)
            made.core.phase = Phase.TAKING_OVER
            made.held.drained()
            await electing
            made.close()
            assert made.thread.calls == 0
            assert made.held.state is State.OPEN
            assert not made.core.electing


async def test_a_master_is_believed_if_the_library_believes_it(tmp_path: Path) -> None:
    with pair(tmp_path / "pair") as sites:
        made = Work(sites.replicant.env, tmp_path, [])
        made.core.phase = Phase.FOLLOWING
        for port in (5011, 5012):
            made.core.site(SiteAddress("127.0.0.1", port))
        believed = sites.replicant.env.rep_stat()["master"]
        assert believed == MASTER_EID
        await made.work.find_master(3)
        assert "new_master" not in [e.event for e in made.core.take() if isinstance(e, Note)]
        await made.work.find_master(believed)
        assert "new_master" in [e.event for e in made.core.take() if isinstance(e, Note)]
        made.close()
