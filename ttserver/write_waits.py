"""Clients that wait for a write: until others acknowledged it (WAIT), until it is here (WAITFOR).

Waiting outlives changes of role and an environment that is replaced; that a write was rolled back
is told as soon as it is known.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from replication.generations import CommitToken, Fate
from replication.hub import later
from ttserver.errors import TtserverError

if TYPE_CHECKING:
    from ttserver.open_site import OpenSite


class TokenLost(TtserverError):
    """The write was rolled back, or will be where it still is."""

    default_code = "TOKENLOST"


class _Waiter:
    """One client; `woken` is set when it should look again."""

    __slots__ = ("count", "token", "woken")

    def __init__(self, token: CommitToken, count: int) -> None:
        self.token = token
        self.count = count
        self.woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake(self) -> None:
        if not self.woken.done():
            self.woken.set_result(None)


class WriteWaits:
    """See the module's text. Everything in the event loop.

    Args:
        site: asked for the open site; None while there is none.
    """

    def __init__(self, site: Callable[[], OpenSite | None]) -> None:
        self._site = site
        self._loop: asyncio.AbstractEventLoop | None = None  # of whoever waits
        self._waiting: set[_Waiter] = set()
        self._closed = False

    def acked_by(self, token: CommitToken) -> list[str]:
        """Name the other sites that acknowledged a write of this site, as far as it knows.

        Raises:
            TokenLost: it was rolled back.
        """
        site = self._site()
        if site is None or site.manager is None:
            return []
        _refuse_lost(site, token)
        # A site that acknowledged more in a later generation holds what is before it, too.
        confirmations = site.manager.confirmations
        known = confirmations.generation >= token.generation
        return confirmations.holders(token.lsn) if known else []

    async def acked(self, token: CommitToken, count: int, timeout_s: float) -> int:
        """Wait until so many sites acknowledged a write; returns how many did.

        Args:
            token: the write.
            count: how many are enough.
            timeout_s: 0 waits until this site is no longer master.

        Raises:
            TokenLost: it was rolled back.

        *Cancellation:* safe.
        """
        end_s = time.monotonic() + timeout_s if timeout_s else None
        while True:
            # Waiting before it looks: an ack may come on another thread.
            with self._listening(token, count) as waiter:
                acked, site = len(self.acked_by(token)), self._site()
                if acked >= count or self._closed or site is None or not site.accepting:
                    return acked
                if not await self._woken(waiter, end_s):
                    return len(self.acked_by(token))

    async def applied(self, token: CommitToken, timeout_s: float) -> bool:
        """Wait until a write is here, so that reads show it; False after the time-out.

        Args:
            token: of a write on any site of the group.
            timeout_s: 0 only looks.

        Raises:
            TokenLost: it was rolled back.

        *Cancellation:* safe.
        """
        end_s = time.monotonic() + timeout_s
        while not self._closed:
            site = self._site()
            if site is not None and _refuse_lost(site, token) is Fate.APPLIED and site.serving:
                return True
            if time.monotonic() >= end_s:
                break
            if site is not None and site.manager is not None:
                await site.manager.tokens.change(token, end_s - time.monotonic())
            else:
                with self._listening(token, 0) as waiter:
                    await self._woken(waiter, end_s)
        return False

    async def _woken(self, waiter: _Waiter, end_s: float | None) -> bool:
        """Wait until the waiter should look again; False when the time is over."""
        left_s = None if end_s is None else end_s - time.monotonic()
        try:
            async with asyncio.timeout(left_s):
                await waiter.woken
        except TimeoutError:
            return False
        return True

    @contextmanager
    def _listening(self, token: CommitToken, count: int) -> Iterator[_Waiter]:
        waiter = _Waiter(token, count)
        self._loop = waiter.woken.get_loop()
        self._waiting.add(waiter)
        try:
            yield waiter
        finally:
            self._waiting.discard(waiter)

    def acks_came(self) -> None:
        """A site acknowledged more than before. *Thread:* any."""
        if self._waiting and self._loop is not None:
            later(self._loop, self._look_at_acks)

    def _look_at_acks(self) -> None:
        site = self._site()
        if site is None or site.manager is None:
            self.wake()
            return
        holders = site.manager.confirmations.holders
        for waiter in list(self._waiting):
            if len(holders(waiter.token.lsn)) >= waiter.count:
                waiter.wake()

    def wake(self) -> None:
        """The role, the state or the environment may be another one: all look again."""
        for waiter in list(self._waiting):
            waiter.wake()

    def close(self) -> None:
        """Let all go: the site is stopping."""
        self._closed = True
        self.wake()


def _refuse_lost(site: OpenSite, token: CommitToken) -> Fate:
    """Return the fate of a write.

    Raises:
        TokenLost: it was rolled back.
    """
    fate = site.fate(token)
    if fate is Fate.LOST:
        raise TokenLost(
            f"write {token} was rolled back: {site.why_lost(token)}",
            hint="read the keys again, and write once more what is missing.",
        )
    return fate
