"""The core's wishes that are done in the library, on threads of the environment.

Two threads: one for everything, one for elections, which may sit in the library for their whole
time-out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol, TypeVar

from berkeleydb import db

from replication import library
from replication.core import Core
from replication.effects import Elect
from replication.held_log import HeldLog
from replication.library import LogStanding
from replication.phase import Phase
from replication.wire import LSN

T = TypeVar("T")

LOCKOUT_PAUSE_S = 0.05
DRAIN_S = 1.0
LOCKOUT_TRIES_MAX = 100  # some seconds: a checkpoint, or internal initialisation being set up


class Calls(Protocol):
    """A thread that runs calls one after the other (storage's Worker)."""

    def submit(self, call: Callable[[], T]) -> Future[T]: ...


class LibraryWork:
    """Each method ends by telling the core what came of it.

    Args:
        env: the open library handle.
        calls: the thread for everything but elections.
        votes: the thread for elections.
        core: whom to tell.
        held: the log that waits while a vote is out.
        on_master: told (generation, last LSN) before the core when the library made this site
            master.
        on_broken: told what failed without a way to answer.
    """

    def __init__(
        self,
        env: db.DBEnv,
        calls: Calls,
        votes: Calls,
        core: Core,
        held: HeldLog,
        on_master: Callable[[int, LSN], None],
        on_broken: Callable[[int, Exception], None],
    ) -> None:
        self._env = env
        self._calls = calls
        self._votes = votes
        self._core = core
        self._held = held
        self._on_master = on_master
        self._on_broken = on_broken
        self._loop = asyncio.get_running_loop()

    @property
    def vote(self) -> int:
        """Number of the election that this site voted in last. *Thread:* any."""
        return self._held.vote

    async def call(self, call: Callable[[], T]) -> T:
        """Run a library call on the environment's thread. *Cancellation:* it may still run."""
        return await asyncio.wrap_future(self._calls.submit(call))

    async def unlocked(self, call: Callable[[], T], wanted_in: Phase) -> T | None:
        """Call; while another change of role holds the library, try again for a while.

        Calls go to one thread in the order they are made. So a call that is not wanted any more
        is not made: a client's start behind a master's would make the library step down.

        Returns:
            None when the core is in another phase by now.
        """
        for left in reversed(range(LOCKOUT_TRIES_MAX)):
            if self._core.phase is not wanted_in:
                return None
            try:
                return await self.call(call)
            except (db.DBRepLockoutError, db.DBLockDeadlockError):
                if not left:
                    raise
                await asyncio.sleep(LOCKOUT_PAUSE_S)
        return None

    async def start_client(self) -> None:
        """Become a client, or, being one, look for the master."""
        env = self._env
        if await self._start_quietly(lambda: library.start_client(env), Phase.FOLLOWING):
            self._core.client_ready()

    async def ask_again(self) -> None:
        """Have the library ask again for what it misses."""
        env = self._env
        await self._start_quietly(lambda: library.ask_again(env), Phase.FOLLOWING)

    async def sync_now(self) -> None:
        """Have the library begin the sync that it delays."""
        env = self._env
        try:
            await self.unlocked(env.rep_sync, Phase.FOLLOWING)
        except db.DBError as error:
            if error.args[0] == db.DB_REP_JOIN_FAILURE:
                self._core.join_failure(self._loop.time())
            else:
                self._on_broken(0, error)

    async def start_master(self, generation_above: int, holding: LSN | None = None) -> None:
        """Become master.

        Args:
            holding: first apply what was received; fail unless the log reaches this LSN.
        """
        env = self._env

        def start() -> LogStanding:
            if holding is not None and (end := library.standing(env)).last_lsn < holding:
                raise db.DBError(0, f"its log ends at {end.last_lsn}, before {holding}")
            library.start_master(env, generation_above)
            return library.standing(env)

        try:
            if holding is not None:
                # Held until the library has changed its role: it would wait for a message that is
                # being processed, in steps of a second.
                drained = asyncio.wrap_future(self._held.begin())
                await asyncio.wait([drained], timeout=DRAIN_S)
                self._held.drained()
            held = await self.unlocked(start, Phase.TAKING_OVER)
        except Exception as error:
            # Whatever it was: the core waits for an answer.
            if holding is not None:
                self._held.over(self._loop.time(), 0.0)
            self._core.takeover_failed(self._loop.time(), str(error.args[-1]))
            if not isinstance(error, db.DBError):
                raise
            return
        if held is not None:
            self._held.master(held.generation)
        if holding is not None:
            self._held.over(self._loop.time(), 0.0)
        if held is None:
            return
        self._on_master(held.generation, held.permanent)
        self._core.became_master(self._loop.time(), held.generation, held.last_lsn)

    async def announce_master(self) -> None:
        """Say again that this site is master, if it still is one."""
        env = self._env
        await self._start_quietly(lambda: env.rep_start(db.DB_REP_MASTER), Phase.MASTER)

    async def _start_quietly(self, start: Callable[[], None], wanted_in: Phase) -> bool:
        """Call rep_start where nobody waits for the outcome; True when that was done."""

        def call() -> bool:
            start()
            return True

        try:
            return await self.unlocked(call, wanted_in) is not None
        except db.DBError as error:
            self._on_broken(0, error)
            return False

    async def elect(self, wanted: Elect) -> None:
        """Hold an election, and the log before it."""
        env = self._env
        outcome = "the election failed"
        try:
            drained = asyncio.wrap_future(self._held.begin())
            # Behind a lock that a reader keeps, the thread may be long; the vote can wait a while.
            await asyncio.wait([drained], timeout=wanted.counted_s)
            if self._core.phase is Phase.FOLLOWING:
                self._held.drained()
                outcome = await asyncio.wrap_future(
                    self._votes.submit(
                        lambda: library.elect(env, wanted.nsites, wanted.nvotes, wanted.timeout_s)
                    )
                )
            else:
                outcome = "not needed any more"
        finally:
            self._held.over(self._loop.time(), wanted.counted_s)
            self._core.election_over(self._loop.time(), outcome)

    async def new_master(self, eid: int) -> None:
        """The library says who is master; find out in which generation."""
        env = self._env
        stat = await self.call(env.rep_stat)
        if stat["master"] == eid:  # else there is later news, or it is a client by now
            self._core.new_master(self._loop.time(), eid, int(stat["gen"]))

    async def lose_master(self, eid: int) -> None:
        """The master says that it is a client: if the library believes it, so does the core."""
        env = self._env
        stat = await self.call(env.rep_stat)
        if stat["master"] != eid:
            self._core.master_left(self._loop.time(), eid)

    async def find_master(self, eid: int) -> None:
        """A site says that it is master: if the library believes it, so does the core."""
        env = self._env
        stat = await self.call(env.rep_stat)
        if stat["status"] == library.STATUS_CLIENT and stat["master"] == eid:
            self._core.master_again(self._loop.time(), eid, int(stat["gen"]))
