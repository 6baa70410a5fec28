"""Rejoins a master that lacks the end of this site's log, without discarding it in silence.

    announced -> prepared -> environment opened again -> rolled back -> settled -> in step
                    |                                       (apply thread, before anything else)
                    v
                 the operator is asked (too much, or no room for the ledger)

Announced by the library before anything is undone (see `replication.rollback`). Prepared: the
writes are listed, and what the logical tail does not know is kept whole (`storage.undoing`). Then
the library begins anew, rolls back to that very place, and the ledger is completed with the values
of before. It is one line in the journal, an alarm and a file; `ttserver rollback` shows it.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import structlog

from replication.hub import later
from replication.wire import LSN
from storage.errors import StorageError
from storage.ledger import Head, Ledgers
from storage.library import LIBRARY_ERRORS
from storage.undoing import Stopped, TooMuch

if TYPE_CHECKING:
    from collections.abc import Callable

    from ttserver.engine import Engine
    from ttserver.open_site import OpenSite
    from ttserver.reapply import Report

ALARM: Final = "rollback"
_CANNOT: Final = (StorageError, OSError, *LIBRARY_ERRORS)
_UNLIMITED: Final = 2**62

log = structlog.get_logger(__name__)


class Rejoin:
    """See the module's text. In the event loop unless a method says otherwise.

    Args:
        engine: whose site rejoins.

    Attributes:
        ledgers: of this site.
        rollbacks: how many there were since the start.
        writes: clients' writes and differing keys that they undid.
        open_ledgers: how many ledgers wait for somebody to look.
    """

    def __init__(self, engine: Engine) -> None:
        self.ledgers = Ledgers(engine.config.home.rollbacks)
        self.rollbacks = 0
        self.writes = 0
        self.open_ledgers = 0
        self._engine = engine
        self._permitted: LSN | None = None
        self._asked: LSN | None = None  # where the operator has to decide
        self._pending = False
        self._alarm_s: float | None = None
        self._task: asyncio.Task[None] | None = None
        self._calls: set[asyncio.Task[None]] = set()
        # Set explicitly, the library's switch keeps its meaning.
        self._never = engine.config.db.rep_config.autorollback is False

    # -- an environment comes and goes ---------------------------------------------------------

    async def opened(self, site: OpenSite) -> None:
        """Settle what an earlier process left, before replication changes anything.

        Raises:
            StorageError, OSError, DBError: it cannot be read.
        """
        if site.manager is None:
            return
        site.manager.permitted_rollback = self._permitted
        undoing = site.undoing

        def settle() -> tuple[bool, Head | None, int]:
            if undoing.pending() is None:
                return False, None, self.ledgers.open_count()
            if not undoing.was_undone():
                return True, None, self.ledgers.open_count()
            return False, undoing.settle(), self.ledgers.open_count()

        self._pending, head, self.open_ledgers = await site.reads.call(settle)
        if head is not None:
            self._done(head)

    async def stop(self) -> None:
        """Leave what is under way; the next start finds it."""
        tasks = [*self._calls] + ([self._task] if self._task is not None else [])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- before --------------------------------------------------------------------------------

    def would_roll_back(self, site: OpenSite, sync_point: LSN) -> None:
        """The library announces that it would undo what lies behind `sync_point`."""
        if site is not self._engine.site or not site.running or self._task is not None:
            return
        if sync_point == self._permitted:
            self._ask(site, sync_point, "the library did not do a roll-back that it was told to do")
        else:
            self._begin(site, sync_point, forced=False)

    def question(self) -> str:
        """What the operator is asked.

        Raises:
            StorageError: nothing.
        """
        site, sync_point = self._engine.site, self._asked
        question = site.manager.core.question if site is not None and site.manager else None
        if question is None or sync_point is None or self._task is not None:
            raise StorageError(
                "no roll-back waits for a decision on this site",
                code="NOTHING_ASKED",
                hint="see what the site waits for: ttserver status",
            )
        return question.why

    def accept(self) -> None:
        """The operator wants what was asked.

        Raises:
            StorageError: nothing was asked.
        """
        self.question()
        site, sync_point = self._engine.site, self._asked
        assert site is not None, "it asks"
        assert sync_point is not None, "it asks"
        self._begin(site, sync_point, forced=True)

    def _begin(self, site: OpenSite, sync_point: LSN, *, forced: bool) -> None:
        self._task = asyncio.get_running_loop().create_task(
            self._prepare(site, sync_point, forced=forced)
        )

    async def _prepare(self, site: OpenSite, sync_point: LSN, *, forced: bool) -> None:
        engine, undoing = self._engine, site.undoing
        settings = engine.config.settings.replication
        head = self._head(sync_point)
        writes_max = 0 if self._never else settings.rollback_writes_max
        bytes_max = settings.rollback_keep_bytes_max
        if forced:
            writes_max = bytes_max = _UNLIMITED
        engine.journal.write("rollback_found", master=head.master, to=sync_point)
        try:
            head = await site.reads.call(
                lambda: undoing.prepare(head, writes_max=writes_max, keep_bytes_max=bytes_max)
            )
        except Stopped:
            return
        except TooMuch as much:
            self._ask(site, sync_point, str(much))
            return
        except _CANNOT as error:
            self._ask(site, sync_point, f"what is undone cannot be listed: {error}")
            return
        finally:
            self._task = None
        self._permitted, self._asked, self._pending = sync_point, None, True
        engine.journal.write(
            "rollback_listed",
            ledger=head.id,
            writes=head.writes,
            commits=head.commits,
            unexplained=head.unexplained,
        )
        engine.reopening.replace(
            site,
            f"it takes back {_count(head.writes, 'write')} that {head.master or 'its master'} does"
            " not have, and follows it",
        )

    def _head(self, sync_point: LSN) -> Head:
        now = datetime.now(UTC)
        engine = self._engine
        return Head(
            id=now.strftime("%Y%m%d-%H%M%S-") + f"{now.microsecond // 1000:03d}",
            found=now.isoformat(timespec="milliseconds"),
            site=str(engine.config.local),
            master=engine.master,
            generation=engine.generation,
            sync_point=(sync_point.file, sync_point.offset),
            log_end=(0, 0),
            commits=0,
            unexplained=0,
        )

    def _ask(self, site: OpenSite, sync_point: LSN, reason: str) -> None:
        engine, manager = self._engine, site.manager
        assert manager is not None, "without replication nothing is rolled back"
        self._asked = sync_point
        why = (
            f"this site holds writes that {engine.master or 'its master'} does not have, and does"
            f" not take them back by itself: {reason}"
        )
        hint = (
            "`ttserver rollback accept` here lists them in a ledger and takes them back;"
            " `ttserver promote` here keeps them, and the others lose theirs."
        )
        engine.journal.write("rollback_refused", to=sync_point, why=reason)
        engine.journal.write("alarm_raised", alarm=ALARM, why=why, hint=hint)
        manager.ask_operator(why, hint)

    # -- after ---------------------------------------------------------------------------------

    def rolled_back(self, site: OpenSite, sync_point: LSN) -> None:
        """The library has rolled back: complete the ledger. *Thread:* apply, which waits."""
        loop = self._engine.loop
        try:
            head = site.undoing.settle()
        except Exception as error:  # noqa: BLE001 - the site must go on following
            later(loop, self._not_settled, sync_point, error)
        else:
            if head is not None:
                later(loop, self._done, head)

    def _not_settled(self, sync_point: LSN, error: Exception) -> None:
        log.error("ledger_not_settled", error=repr(error), sync_point=tuple(sync_point))
        self._permitted, self._pending = None, False
        self._engine.journal.write(
            "alarm_raised",
            alarm=ALARM,
            why=f"the ledger of what was taken back is not complete: {error}",
            hint="make room on the disk and start this site again, which completes it.",
        )

    def _done(self, head: Head) -> None:
        engine = self._engine
        self._permitted, self._pending = None, False
        undone = head.writes + head.differences
        self.rollbacks += 1
        self.writes += undone
        self.open_ledgers += bool(undone)
        engine.journal.write(
            "rollback_done",
            ledger=head.id,
            to=head.sync_point,
            commits=head.commits,
            writes=head.writes,
            differences=head.differences,
        )
        if undone:
            self._alarm_s = time.monotonic()
            engine.journal.write(
                "alarm_raised",
                alarm=ALARM,
                why=f"taken back: {_count(undone, 'write')} of this site that"
                f" {head.master or 'its master'} did not have",
                hint=f"see them: ttserver rollback show {head.id}; write them again:"
                f" ttserver rollback reapply {head.id}",
            )
        engine.changed()

    def reapplied(self, report: Report) -> None:
        """Writes of a ledger were written again."""
        engine = self._engine
        engine.journal.write(
            "rollback_reapplied",
            ledger=report.ledger,
            applied=report.applied,
            same=report.same,
            conflicts=report.conflict,
            skipped=report.skipped,
        )
        if not self.open_ledgers and self._alarm_s is not None:
            seconds = time.monotonic() - self._alarm_s
            engine.journal.write("alarm_cleared", alarm=ALARM, seconds=seconds)
            self._alarm_s = None

    # -- when nothing has to be undone ---------------------------------------------------------

    def role_changed(self, site: OpenSite) -> None:
        """A site that becomes master keeps what it has."""
        manager = site.manager
        if manager is None or not manager.core.is_master:
            return
        manager.core.question = None
        self._permitted = self._asked = None
        if self._pending:
            self._avert(site)

    def in_step(self, site: OpenSite) -> None:
        """This site's log is that of its master: its tail describes nothing that can be lost."""
        self._asked = None
        if self._pending:
            self._avert(site)
        if site.tail is not None:
            self._off_loop(site, site.tail.reset)

    def _avert(self, site: OpenSite) -> None:
        self._pending = False
        self._permitted = None
        self._engine.journal.write("rollback_averted")
        self._off_loop(site, site.undoing.drop)

    def _off_loop(self, site: OpenSite, call: Callable[[], None]) -> None:
        task = asyncio.get_running_loop().create_task(site.reads.call(call))
        self._calls.add(task)
        task.add_done_callback(self._called)

    def _called(self, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("rejoin_call_failed", error=repr(error))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s'[: number != 1]}"
