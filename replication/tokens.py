"""Waiting on any site until a commit is here, or is known to be lost.

A waiter sleeps until something happens that may decide its commit's fate: the log here reaches it,
the history of generations became known, the role or the master changed. It then asks for the fate
again; nothing in here polls while nothing changes.

Where the history comes from: read once before replication begins, and as a master when its
generation begins; a replicant is told by its master. Only under a native master, which tells
nothing, a replicant reads it while it applies, and only when it is asked for: the two may stand
in each other's way until a deadlock is looked for.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from berkeleydb import db

from replication.generations import Beginning, CommitToken, Fate, History
from replication.hub import later
from replication.where import Source, Where
from replication.wire import LSN

REREAD_S: Final = 0.02  # the beginning comes with the first records of the generation
REFUSED_PAUSE_S: Final = 0.1
_Waiter = tuple[LSN, int, asyncio.Future[None]]


class Tokens:
    """See the module's text. Everything in the event loop but `advanced`.

    Args:
        where: where this site is.
        read: reads the history from the environment, as a master with what it kept.
        spawn: starts a task.
        on_own: told the history that was read as a master.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        where: Callable[[], Where],
        read: Callable[[], Awaitable[tuple[History, Beginning | None]]],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        on_own: Callable[[History], None],
    ) -> None:
        self._loop = loop
        self._where = where
        self._read = read
        self._spawn = spawn
        self._on_own = on_own
        self._history = History()
        self._seen: Where
        self._known_for = 0  # the generation whose master's history it is
        self._reading = False
        self._closed = False
        self._look_due = False
        self._order = itertools.count()
        self._ahead: list[_Waiter] = []  # a heap: those whose commit the log has not reached
        self._left = 0  # of them, those that wait no more
        self._others: set[asyncio.Future[None]] = set()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._ahead) - self._left + len(self._others)

    def fate(self, token: CommitToken) -> Fate:
        """Tell what became of a commit, as far as it is known now."""
        where = self._seen = self._where()
        if where.source is Source.NONE:
            known = where.generation <= self._history.latest
        else:
            known = where.generation <= self._known_for
        if not known:
            if where.source in (Source.OWN, Source.NATIVE):
                self._refresh()
            return Fate.PENDING
        return self._history.fate(token, where.applied, where.reached)

    def why_lost(self, token: CommitToken) -> str:
        """Say what was there instead of a commit whose fate is LOST."""
        return self._history.why_lost(token)

    async def change(self, token: CommitToken, timeout_s: float) -> None:
        """Wait until the fate of a commit may be another one, or the time is over.

        Called right after `fate`, without giving others a turn between.

        *Cancellation:* safe.
        """
        if self._closed or timeout_s <= 0:
            return
        future: asyncio.Future[None] = self._loop.create_future()
        ahead = token.lsn > self._seen.applied
        if ahead:
            heapq.heappush(self._ahead, (token.lsn, next(self._order), future))
        else:
            self._others.add(future)
        try:
            # What the apply thread did since `fate` woke nobody, for nobody waited.
            if self._where() == self._seen:
                async with asyncio.timeout(timeout_s):
                    await future
        except TimeoutError:
            pass
        finally:
            self._others.discard(future)
            if ahead and not (future.done() and not future.cancelled()):
                future.cancel()
                self._forget_one()

    def advanced(self) -> None:
        """The log here got further. *Thread:* any; costs nothing while nobody waits."""
        if (self._ahead or self._others) and not self._look_due:
            self._look_due = True
            later(self._loop, self._look)

    def changed(self) -> None:
        """Role, master or generation may be another one: all ask again."""
        where = self._where()
        if where.source is Source.OWN and where.generation > self._known_for:
            self._refresh()
        self._wake_all()

    def _wake_all(self) -> None:
        waiting = [future for _, _, future in self._ahead]
        self._ahead.clear()
        self._left = 0
        waiting += self._others
        self._others.clear()
        for future in waiting:
            _wake(future)

    def start(self, history: History) -> None:
        """Take what was read before replication begins; a master knows more of its own."""
        self._history, self._known_for = history, max(0, history.latest - 1)

    def told(self, history: History) -> None:
        """Take a master's word; an earlier master's says nothing new."""
        if history.latest >= self._known_for:
            self._history, self._known_for = history.remembering(self._history), history.latest
            self._wake_all()

    def close(self) -> None:
        """Let all go; nobody can wait any more."""
        self._closed = True
        self._wake_all()

    def _look(self) -> None:
        self._look_due = False
        applied = self._where().applied
        while self._ahead and self._ahead[0][0] <= applied:
            _, _, future = heapq.heappop(self._ahead)
            if future.cancelled():
                self._left -= 1
            _wake(future)
        # What they wait for is rare, and may be this.
        others, self._others = self._others, set()
        for future in others:
            _wake(future)

    def _forget_one(self) -> None:
        """A waiter of the heap left; they are taken out when they are the greater part."""
        self._left += 1
        if self._left * 2 > len(self._ahead):
            self._ahead = [waiter for waiter in self._ahead if not waiter[2].cancelled()]
            heapq.heapify(self._ahead)
            self._left = 0

    def _refresh(self) -> None:
        if not self._reading and not self._closed:
            self._reading = True
            self._spawn(self._read_history())

    async def _read_history(self) -> None:
        pause_s, own = REREAD_S, None
        try:
            history, own = await self._read()
        except db.DBError:
            # The library changes its role, takes a copy, or applies something there.
            pause_s = REFUSED_PAUSE_S
        else:
            if own is not None:
                history = history.knowing(own)
            self.told(history)
        if own is not None:
            self._on_own(self._history)
        await asyncio.sleep(pause_s)
        self._reading = False
        self.changed()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
