"""Waiting for a commit: who is woken when, how often the history is read, and what is left over."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from berkeleydb import db

from replication.generations import Beginning, CommitToken, Fate, History
from replication.tokens import Tokens
from replication.where import Source, Where
from replication.wire import LSN
from tests.support.environments import soon

TOKEN = CommitToken(2, LSN(1, 500))
LATER = CommitToken(2, LSN(1, 900))
FOR_EVER_S = 60.0


class Site:
    """What the tokens see of a site: a replicant unless told otherwise."""

    def __init__(self) -> None:
        self.applied = LSN(1, 100)
        self.reached = 2
        self.generation = 2
        self.source = Source.TOLD
        self.database = [Beginning(1, LSN(1, 28)), Beginning(2, LSN(1, 90))]
        self.own: Beginning | None = None  # what a read finds as master
        self.refusal: Exception | None = None
        self.reads = 0
        self.announced: list[History] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.tokens = Tokens(
            asyncio.get_running_loop(),
            self._where,
            self._read,
            self._spawn,
            self.announced.append,
        )

    def _where(self) -> Where:
        return Where(self.applied, self.reached, self.generation, self.source)

    async def _read(self) -> tuple[History, Beginning | None]:
        self.reads += 1
        if self.refusal is not None:
            raise self.refusal
        return History(self.database), self.own

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.create_task(work))

    def tell(self) -> None:
        """Be told by the master."""
        self.tokens.told(History(self.database))

    def follow(self, generation: int, lsn: LSN, kept: LSN | None = None) -> None:
        """A new master takes over, and its first records are applied."""
        self.database.append(Beginning(generation, lsn, kept))
        self.generation = self.reached = generation
        self.tokens.changed()

    async def settled(self) -> None:
        """No read is under way any more."""
        await soon("all is read", lambda: all(task.done() for task in self.tasks))

    def wait(self, token: CommitToken, timeout_s: float = FOR_EVER_S) -> asyncio.Task[None]:
        async def waiting() -> None:
            self.tokens.fate(token)
            await self.tokens.change(token, timeout_s)

        return asyncio.create_task(waiting())

    async def reach(self, offset: int) -> None:
        """Apply up to there, on another thread."""
        self.applied = LSN(1, offset)
        await asyncio.to_thread(self.tokens.advanced)


@pytest.fixture
async def site() -> Site:
    made = Site()
    made.tell()
    return made


async def test_a_waiter_is_woken_when_the_log_reaches_its_commit(site: Site) -> None:
    first, second = site.wait(TOKEN), site.wait(LATER)
    await soon("both wait", lambda: site.tokens.waiting == 2)
    await site.reach(499)
    assert site.tokens.fate(TOKEN) is Fate.PENDING
    await site.reach(500)
    await asyncio.wait_for(first, FOR_EVER_S)
    assert site.tokens.fate(TOKEN) is Fate.APPLIED
    assert not second.done()
    await site.reach(1000)
    await asyncio.wait_for(second, FOR_EVER_S)
    assert site.tokens.waiting == 0


async def test_what_was_applied_just_before_is_not_missed(site: Site) -> None:
    for token in (TOKEN, CommitToken(9, LSN(1, 50))):
        site.applied = LSN(1, 100)
        site.tokens.fate(token)
        site.applied = LSN(1, 500)  # and nobody waited who could have been told
        await asyncio.wait_for(site.tokens.change(token, FOR_EVER_S), FOR_EVER_S)
        assert site.tokens.waiting == 0


async def test_a_new_generation_wakes_all_and_its_master_is_heard(site: Site) -> None:
    waiting = [site.wait(TOKEN), site.wait(LATER)]
    await soon("both wait", lambda: site.tokens.waiting == 2)
    site.follow(3, LSN(1, 600))
    await asyncio.wait_for(asyncio.gather(*waiting), FOR_EVER_S)
    assert site.tokens.fate(LATER) is Fate.PENDING, "the master has not said what it kept"
    last = site.wait(LATER)
    await soon("it waits", lambda: site.tokens.waiting == 1)
    site.tell()
    await asyncio.wait_for(last, FOR_EVER_S)
    assert site.tokens.fate(LATER) is Fate.LOST
    assert site.tokens.why_lost(LATER) == "generation 3 began without it, at 1/600"
    assert site.tokens.fate(TOKEN) is Fate.PENDING
    await site.reach(700)
    assert site.tokens.fate(TOKEN) is Fate.APPLIED
    assert site.reads == 0, "a replicant does not read while it applies"


async def test_a_log_that_was_not_compared_with_the_masters_shows_nothing(site: Site) -> None:
    site.applied = LSN(1, 1000)
    site.follow(3, LSN(1, 600))
    site.reached = 2
    site.tell()
    assert site.tokens.fate(LATER) is Fate.LOST, "whatever stands there"
    assert site.tokens.fate(TOKEN) is Fate.PENDING
    waiting = site.wait(TOKEN)
    await soon("it waits", lambda: site.tokens.waiting == 1)
    site.reached = 3
    await site.reach(700)
    await asyncio.wait_for(waiting, FOR_EVER_S)
    assert site.tokens.fate(TOKEN) is Fate.APPLIED


async def test_records_of_a_masters_own_recovery_are_no_writes(site: Site) -> None:
    site.applied = LSN(1, 1000)
    site.follow(3, LSN(1, 600), LSN(1, 400))
    site.tell()
    assert site.tokens.fate(TOKEN) is Fate.LOST
    assert site.tokens.fate(CommitToken(2, LSN(1, 400))) is Fate.APPLIED
    assert site.tokens.fate(CommitToken(3, LSN(1, 700))) is Fate.APPLIED
    # The next master did not see that itself.
    site.database[-1] = Beginning(3, LSN(1, 600))
    site.follow(4, LSN(1, 800), LSN(1, 790))
    site.tell()
    assert site.tokens.fate(TOKEN) is Fate.LOST
    # Unless its generation 3 is another one.
    site.database[-2] = Beginning(3, LSN(1, 601))
    site.tell()
    assert site.tokens.fate(TOKEN) is Fate.APPLIED


async def test_a_word_of_an_earlier_master_is_none(site: Site) -> None:
    site.applied = LSN(1, 1000)
    site.follow(3, LSN(1, 600))
    site.tell()
    site.tokens.told(History(site.database[:2]))
    assert site.tokens.fate(LATER) is Fate.LOST


async def test_without_a_master_what_is_known_must_do(site: Site) -> None:
    site.applied = LSN(1, 1000)
    site.source = Source.NONE
    assert site.tokens.fate(TOKEN) is Fate.APPLIED
    site.generation = 3
    assert site.tokens.fate(TOKEN) is Fate.PENDING, "of that master only its number is known"
    assert site.reads == 0


async def test_at_a_start_the_master_is_heard_first() -> None:
    site = Site()
    site.applied = LSN(1, 1000)
    site.tokens.start(History(site.database))
    assert site.tokens.fate(TOKEN) is Fate.PENDING, "it may know more of its beginning"
    site.source = Source.NONE
    assert site.tokens.fate(TOKEN) is Fate.APPLIED
    site.source = Source.TOLD
    site.tell()
    assert site.tokens.fate(TOKEN) is Fate.APPLIED


async def test_a_master_reads_its_history_once_and_announces_it(site: Site) -> None:
    site.applied = LSN(1, 1000)
    site.source = Source.OWN
    site.own = Beginning(3, LSN(1, 600), LSN(1, 400))
    site.follow(3, LSN(1, 600))
    await soon("it is known", lambda: site.tokens.fate(TOKEN) is Fate.LOST)
    await site.settled()
    site.tokens.changed()
    await site.settled()
    assert site.reads == 1
    assert [history.beginnings[-1] for history in site.announced] == [site.own]


async def test_under_a_native_master_it_is_read_while_somebody_asks(site: Site) -> None:
    site.applied = LSN(1, 1000)
    site.source = Source.NATIVE
    site.generation = site.reached = 3
    site.tokens.changed()
    await site.settled()
    assert site.reads == 0
    waiting = site.wait(TOKEN)
    await soon("it was read", lambda: site.reads == 1)
    await asyncio.wait_for(waiting, FOR_EVER_S)
    await site.settled()
    # The beginning comes with the first records of the generation.
    site.refusal = db.DBLockNotGrantedError(1, "in use")
    assert site.tokens.fate(TOKEN) is Fate.PENDING
    await soon("it is refused", site.tasks[-1].done)
    site.refusal = None
    site.database.append(Beginning(3, LSN(1, 600)))
    await soon("it is known", lambda: site.tokens.fate(LATER) is Fate.LOST)
    assert site.tokens.fate(TOKEN) is Fate.APPLIED
    assert not site.announced


async def test_time_outs_leave_nothing_behind(site: Site) -> None:
    waiting = [site.wait(CommitToken(2, LSN(1, 500 + n)), 0.001) for n in range(50)]
    await asyncio.gather(*waiting)
    assert site.tokens.waiting == 0
    await asyncio.wait_for(site.wait(TOKEN, 0), FOR_EVER_S)
    cancelled = site.wait(TOKEN)
    await soon("it waits", lambda: site.tokens.waiting == 1)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    assert site.tokens.waiting == 0
    last = site.wait(TOKEN)
    await soon("it waits", lambda: site.tokens.waiting == 1)
    await site.reach(500)
    await asyncio.wait_for(last, FOR_EVER_S)


async def test_a_close_lets_all_go(site: Site) -> None:
    waiting = [site.wait(TOKEN), site.wait(CommitToken(9, LSN(1, 50)))]
    await soon("both wait", lambda: site.tokens.waiting == 2)
    site.tokens.close()
    await asyncio.wait_for(asyncio.gather(*waiting), FOR_EVER_S)
    await asyncio.wait_for(site.wait(TOKEN), FOR_EVER_S)
