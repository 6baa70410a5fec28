"""A replicant's part of a comparison: stops at the LSN the master names, digests, goes on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Final

from berkeleydb import db

from replication import compare, wire
from replication.apply import Applier
from replication.compare import KEYS_MAX, RANGE_BYTES_MAX, Answer, At, Digest, KeyRange, Outcome
from replication.compare_scan import Found, Handles, find_databases
from replication.core import Core
from replication.library_work import Calls
from replication.link import Link
from replication.messages import OwnCode
from replication.pauses import Pause
from replication.phase import Phase

log = logging.getLogger(__name__)

IDLE_S: Final = 120.0  # a master that says nothing for so long has forgotten to say END


class CompareSite:
    """See the module's text. Everything runs in the event loop unless it says otherwise.

    Args:
        loop: the event loop.
        handles: of this comparison; used on the threads it says.
        calls: gives the comparison's own thread.
        applier: what is stopped.
        core: knows whether this site has a copy to compare.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        handles: Handles,
        calls: Callable[[], Calls],
        applier: Applier,
        core: Core,
    ) -> None:
        self._loop = loop
        self._handles = handles
        self._calls = calls
        self._applier = applier
        self._core = core
        self._timer: asyncio.TimerHandle | None = None

    def stop(self) -> None:
        """Forget the comparison; its databases are closed with the environment."""
        if self._timer is not None:
            self._timer.cancel()

    def begin(self, link: Link, number: int) -> None:
        """The master begins one: say which databases are here, or why not."""
        self._expect_more()
        refusal = self._refusal(link)
        if refusal:
            _answer(link, Answer(number, refusal))
            return

        def list_databases() -> Found:
            self._handles.close()
            return find_databases(self._handles.env, self._handles)

        def tell(done: Future[Found]) -> None:
            try:
                _answer(link, Answer(number, "", done.result().databases))
            except CancelledError:
                return
            except db.DBError as error:
                _answer(link, Answer(number, f"its databases cannot be read: {error.args[-1]}"))

        self._calls().submit(list_databases).add_done_callback(tell)

    def _refusal(self, link: Link) -> str:
        core = self._core
        if core.phase is not Phase.FOLLOWING or core.master_link is None:
            return "it follows no master now"
        state = core.sites.links.get(link.number)
        if state is None or state.site.address != core.master:
            return f"it follows {core.master}"
        if core.syncing or not core.startup_done:
            return "it has no complete copy yet"
        return ""

    def prepare(self, link: Link, number: int, wanted: KeyRange) -> None:
        """A range is next: read it, so that the stop is short."""
        self._expect_more()

        def warm() -> None:
            self._handles.warm(wanted, KEYS_MAX, RANGE_BYTES_MAX)

        def tell(done: Future[None]) -> None:
            if done.cancelled():
                return
            error = done.exception()
            if isinstance(error, db.DBRepHandleDeadError):
                self._calls().submit(self._handles.close)  # opened again with the next range
            elif error is not None and not isinstance(error, db.DBError):
                log.error("compare_prepare_failed", exc_info=error)
            # Whatever it was, the digest says it, at an LSN.
            _answer(link, Answer(number))

        self._calls().submit(warm).add_done_callback(tell)

    def at(self, link: Link, at: At) -> None:
        """Stop there and digest."""
        self._expect_more()

        def stopped(is_there: bool) -> None:  # on the apply thread
            if is_there:
                pause_s_max = at.pause_us_max / 1e6
                found = self._handles.digest(
                    at.range, detail=at.detail, pause_s_max=pause_s_max
                ).digest
            else:
                found = Digest(Outcome.PASSED)
            body = compare.encode_digest(at.number, found)
            link.write(wire.encode_own(OwnCode.COMPARE_DIGEST, body))

        self._applier.pause_at(Pause(at.generation, at.lsn, stopped))

    def end(self) -> None:
        """The comparison is over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._calls().submit(self._handles.close)

    def _expect_more(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(IDLE_S, self.end)


def _answer(link: Link, answer: Answer) -> None:
    """Send an answer. *Thread:* any."""
    link.write(wire.encode_own(OwnCode.COMPARE_ANSWER, compare.encode_answer(answer)))
