"""A master's part of a comparison: names LSNs, digests its own ranges, compares the answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from berkeleydb import db

from replication import compare, wire
from replication.bodies import SiteAddress
from replication.compare import (
    FIRST,
    PAUSE_S_MAX,
    RANGE_BYTES_MAX,
    Answer,
    At,
    Database,
    Difference,
    Digest,
    KeyRange,
    Outcome,
    Pace,
    Place,
    Verdict,
    judge,
)
from replication.compare_report import (
    DatabaseReport,
    Report,
    SiteReport,
    difference_report,
    whole_database,
)
from replication.compare_scan import (
    Found,
    Handles,
    Scanned,
    Scouted,
    behind,
    find_databases,
    has_many_values,
)
from replication.core import Core
from replication.errors import ReplicationError
from replication.hub import later
from replication.journal_line import printable
from replication.library_work import Calls
from replication.link import Link
from replication.messages import OwnCode
from replication.wire import LSN

T = TypeVar("T")
Mark = Callable[[Callable[[LSN], None]], Awaitable[object]]

ANSWER_TIMEOUT_S: Final = 30.0  # a replicant that is behind goes through its log first
LOOK_S: Final = 0.2
REPEATS_MAX: Final = 100  # of one range; a checkpoint comes between now and then, not so often
REPEAT_PAUSE_S: Final = 0.05
BUSY_SHARE: Final = 0.1  # of the time a site may stand still for a comparison


@dataclass(frozen=True, slots=True)
class Options:
    """What the operator decides about a comparison.

    Args:
        pause_s_max: longest stop of a site for one range.
        share: of the time, how much a site may stand still.
        keys_first: records of the first range.
    """

    pause_s_max: float = PAUSE_S_MAX
    share: float = BUSY_SHARE
    keys_first: int = compare.KEYS_FIRST


@dataclass(slots=True, eq=False)
class _Taking:
    """A replicant that takes part.

    Args:
        suspected: a range in which it differs, and where that was seen, until the key is found.
        lacking: the database that it said it has not.
    """

    address: SiteAddress
    report: SiteReport
    databases: tuple[Database, ...] = ()
    suspected: tuple[KeyRange, LSN] | None = None
    lacking: Database | None = None


@dataclass(slots=True)
class _Round:
    """One range at one LSN."""

    wanted: KeyRange
    scouted: Scouted
    lsn: LSN
    own: Scanned
    theirs: dict[_Taking, Digest] = field(default_factory=dict)


class Comparison:
    """One comparison of this master with its replicants. Runs in the event loop.

    Args:
        core: who the members are.
        link_of: the link that a site's log goes out on now, None without one.
        handles: of this comparison.
        calls: the comparison's own thread.
        mark: commits a marker, and calls on the committing thread with its LSN before the next
            transaction begins.
        options: the operator's.
        progress: told in between how far it is.
    """

    def __init__(
        self,
        core: Core,
        link_of: Callable[[SiteAddress], Link | None],
        handles: Handles,
        calls: Calls,
        mark: Mark,
        options: Options,
        progress: Callable[[Report], None],
    ) -> None:
        self._core = core
        self._link_of = link_of
        self._handles = handles
        self._calls = calls
        self._mark = mark
        self._options = options
        self._progress = progress
        self._number = 0
        self._awaited: dict[tuple[SiteAddress, int], asyncio.Future[Any]] = {}
        self._generation = core.generation
        self._taking: list[_Taking] = []
        self.report = Report(core.generation, [])

    # -- what replicants say -------------------------------------------------------------------

    def answered(self, site: SiteAddress, answer: Answer) -> None:
        """An answer came."""
        self._resolve(site, answer.number, answer)

    def digested(self, site: SiteAddress, number: int, digest: Digest) -> None:
        """A digest came."""
        self._resolve(site, number, digest)

    def _resolve(self, site: SiteAddress, number: int, value: object) -> None:
        future = self._awaited.get((site, number))
        if future is not None and not future.done():
            future.set_result(value)

    # -- the whole -----------------------------------------------------------------------------

    async def run(self) -> Report:
        """Compare everything.

        Raises:
            ReplicationError: this site is master no longer, or cannot read its own databases.

        *Cancellation:* ends the comparison; nothing stays open.
        """
        began_s = time.monotonic()
        try:
            await self._begin()
            found = await self._call(lambda: find_databases(self._handles.env, self._handles))
            self.report.left_out = list(found.left_out)
            self.report.bytes_total = found.bytes
            self._judge_lists(found)
            for database in found.databases:
                if not self._taking:
                    break
                await self._compare(database)
        except db.DBError as error:
            raise ReplicationError(
                f"this site's own databases cannot be read: {error.args[-1]}",
                code="compare_failed",
                hint="try again; see $DB_Msg.txt if it stays so.",
            ) from error
        finally:
            self._end()
        self.report.sum_up(time.monotonic() - began_s)
        return self.report

    async def _begin(self) -> None:
        """Ask every member whether it takes part."""
        for address in sorted(self._core.members()):
            report = SiteReport(str(address))
            self.report.sites.append(report)
            state = self._core.site(address)
            if self._link_of(address) is None:
                reason = f": {state.last_error}" if state.last_error else ""
                _leave_out(report, f"it is not connected{reason}")
            elif state.native:
                _leave_out(report, "it is a native site, which cannot stop at an LSN")
            else:
                self._taking.append(_Taking(address, report))
        answers = await self._ask(OwnCode.COMPARE_BEGIN, compare.encode_begin)
        for site, answer in answers.items():
            site.databases = answer.databases
            if answer.refusal:
                self._drop(site, answer.refusal)

    def _judge_lists(self, found: Found) -> None:
        """Whoever has a database that the master has not differs from it."""
        known = {*map(str, found.databases), *(name for name, _ in found.left_out)}
        for site in list(self._taking):
            extra = sorted(d for d in site.databases if str(d) not in known)
            if extra:
                what = Difference(None, "is there and not on the master")
                self._differs(site, whole_database(extra[0]), what, LSN(0, 0))

    def _end(self) -> None:
        for site in self._core.members():
            link = self._link_of(site)
            if link is not None and not self._core.site(site).native:
                body = compare.encode_begin(self._number)
                link.write(wire.encode_own(OwnCode.COMPARE_END, body))
        self._calls.submit(self._handles.close)

    # -- one database --------------------------------------------------------------------------

    async def _compare(self, database: Database) -> None:
        """Compare one database, range by range."""
        handle = await self._call(lambda: self._handles.open(database))
        many_values = has_many_values(handle)
        pace = Pace(self._options.pause_s_max, self._options.keys_first)
        report = DatabaseReport(str(database))
        self.report.databases.append(report)
        start: Place | None = FIRST
        repeats = 0
        while start is not None and self._taking:
            done = await self._round(database, start, pace)
            if done is None or not self._is_usable(done):
                repeats += 1
                self.report.repeats += 1
                if done is not None:
                    self._account_failures(done, pace, last=repeats >= REPEATS_MAX)
                await asyncio.sleep(REPEAT_PAUSE_S)
                continue
            verdicts = {
                site: judge(done.own.digest, digest) for site, digest in done.theirs.items()
            }
            if self._account_differences(done, verdicts, pace):
                continue
            repeats = 0
            start = self._advance(done, verdicts.values(), report, pace, many_values=many_values)
            self._progress(self.report)

    def _is_usable(self, done: _Round) -> bool:
        outcomes = {done.own.digest.outcome, *(d.outcome for d in done.theirs.values())}
        return outcomes <= {Outcome.DONE}

    async def _round(self, database: Database, start: Place, pace: Pace) -> _Round | None:
        """Digest the next range everywhere at one LSN; None when nobody is left to compare."""
        scouted = await self._call(
            lambda: self._handles.look_ahead(database, start, pace.keys, RANGE_BYTES_MAX)
        )
        wanted = KeyRange(database, start, scouted.end)
        await self._ask(
            OwnCode.COMPARE_PREPARE, lambda number: compare.encode_prepare(number, wanted)
        )
        if not self._taking:
            return None
        self._number += 1
        awaited = self._expect(self._number)
        done = await self._stop_everywhere(self._number, wanted, scouted, pace)
        done.theirs = await self._collect(awaited)
        for digest in (done.own.digest, *done.theirs.values()):
            self.report.paused(digest.pause_us / 1e6, self._options.pause_s_max)
        longest_s = max(
            digest.pause_us / 1e6 for digest in (done.own.digest, *done.theirs.values())
        )
        await asyncio.sleep(longest_s * (1 / self._options.share - 1))
        return done if done.theirs else None

    async def _stop_everywhere(
        self, number: int, wanted: KeyRange, scouted: Scouted, pace: Pace
    ) -> _Round:
        """Commit the marker; tell the others and digest here before the next write."""
        links = [link for site in self._taking if (link := self._link_of(site.address))]
        detail, pause_s_max = pace.detail, self._options.pause_s_max
        generation, pause_us = self._core.generation, int(pause_s_max * 1e6)
        if not self._core.is_master or generation != self._generation:
            raise _no_longer_master()
        loop = asyncio.get_running_loop()
        result: asyncio.Future[_Round] = loop.create_future()

        def stopped(lsn: LSN) -> None:  # on the thread that commits
            at = At(number, generation, lsn, detail, pause_us, wanted)
            frame = wire.encode_own(OwnCode.COMPARE_AT, compare.encode_at(at))
            for link in links:
                link.write(frame)
            own = self._handles.digest(wanted, detail=detail, pause_s_max=pause_s_max)
            later(loop, _set, result, _Round(wanted, scouted, lsn, own))

        # The marker is answered before the digest is made.
        await self._mark(stopped)
        return await asyncio.wait_for(result, ANSWER_TIMEOUT_S)

    def _account_failures(self, done: _Round, pace: Pace, *, last: bool) -> None:
        """Somebody could not digest the range: narrow it, or leave the site out in the end."""
        own = done.own.digest
        if own.outcome in (Outcome.FAILED, Outcome.MISSING):
            why = own.text or "it is gone"
            raise ReplicationError(
                f"this site's own {done.wanted.database} cannot be read: {why}",
                code="compare_failed",
                hint="try again; `db5.3_verify` checks a copy of the file.",
            )
        if Outcome.SLOW in {own.outcome, *(d.outcome for d in done.theirs.values())}:
            pace.narrow()
        for site, digest in done.theirs.items():
            match digest.outcome:
                case Outcome.MISSING if site.lacking == done.wanted.database:
                    # It was opened anew behind the LSN at which it was missing first.
                    what = Difference(None, "is missing there")
                    self._differs(site, whole_database(done.wanted.database), what, done.lsn)
                case Outcome.MISSING:
                    site.lacking = done.wanted.database
                case Outcome.FAILED if last:
                    self._drop(site, f"its {done.wanted.database} cannot be read: {digest.text}")
                case Outcome.PASSED if last:
                    self._drop(site, "it was past the LSN each time")
                case _:
                    pass

    def _account_differences(
        self, done: _Round, verdicts: dict[_Taking, Verdict], pace: Pace
    ) -> bool:
        """Take note of differences; True when the range is to be looked at more closely."""
        closer = False
        for site, verdict in verdicts.items():
            if verdict.identical:
                continue
            if verdict.difference is not None:
                self._differs(site, done.wanted, verdict.difference, done.lsn)
            else:
                site.suspected = site.suspected or (done.wanted, done.lsn)
                closer = True
        if closer:
            pace.narrow()
        return closer

    def _advance(
        self,
        done: _Round,
        verdicts: Iterable[Verdict],
        report: DatabaseReport,
        pace: Pace,
        *,
        many_values: bool,
    ) -> Place | None:
        """Go on behind what is known; returns the next range's start, None at the end."""
        alike = [verdict for verdict in verdicts if verdict.identical]
        start: Place | None = done.wanted.end
        records = done.own.digest.records
        if alike and not all(verdict.everything for verdict in alike):
            records = min(v.records for v in alike if not v.everything)
            start = behind(done.own.places[records - 1], many_values=many_values)
        if alike:
            report.ranges += 1
            report.records += records
            report.bytes += done.scouted.bytes
            self.report.seen_at(done.lsn, time.time())
        self._give_up_suspicions(done.wanted.database, start)
        digests = (done.own.digest, *done.theirs.values())
        pace.done(max(digest.pause_us for digest in digests) / 1e6, done.scouted.keys)
        return start

    def _give_up_suspicions(self, database: Database, start: Place | None) -> None:
        """A site differed in a range and does not any more, now that its records were looked at."""
        for site in list(self._taking):
            if site.suspected is None:
                continue
            wanted, lsn = site.suspected
            end = wanted.end
            past = start is None or (end is not None and start >= end)
            if wanted.database == database and past:
                what = "differed there; by the time its records were looked at they were the same"
                self._differs(site, wanted, Difference(None, what), lsn)

    # -- sites ---------------------------------------------------------------------------------

    def _differs(self, site: _Taking, wanted: KeyRange, found: Difference, lsn: LSN) -> None:
        site.report.difference = difference_report(wanted, found, lsn)
        self._taking.remove(site)

    def _drop(self, site: _Taking, why: str) -> None:
        """Leave a site out from here on."""
        _leave_out(site.report, printable(why))
        self._taking.remove(site)

    def _expect(self, number: int) -> dict[_Taking, asyncio.Future[Any]]:
        loop = asyncio.get_running_loop()
        awaited = {}
        for site in self._taking:
            awaited[site] = self._awaited[site.address, number] = loop.create_future()
        return awaited

    async def _ask(self, code: OwnCode, body: Callable[[int], bytes]) -> dict[_Taking, Answer]:
        """Ask all that take part, and wait for their answers."""
        self._number += 1
        frame = wire.encode_own(code, body(self._number))
        awaited = self._expect(self._number)
        for site in list(self._taking):
            link = self._link_of(site.address)
            if link is not None:
                link.write(frame)
        return await self._collect(awaited)

    async def _collect(self, awaited: dict[_Taking, asyncio.Future[T]]) -> dict[_Taking, T]:
        """Wait for what was asked; who is gone or says nothing is left out from here on."""
        links = {site: self._link_of(site.address) for site in awaited}
        end_s = time.monotonic() + ANSWER_TIMEOUT_S
        found: dict[_Taking, T] = {}
        try:
            for site, future in awaited.items():
                why = None
                while not future.done() and why is None:
                    await asyncio.wait([future], timeout=LOOK_S)
                    link = links[site]
                    if link is None or link.is_closed:
                        why = "its link broke"
                    elif time.monotonic() > end_s:
                        why = f"it gave no answer in {ANSWER_TIMEOUT_S:g} s"
                if future.done():
                    found[site] = future.result()
                elif why is not None:
                    self._drop(site, why)
        finally:
            self._awaited.clear()
        return found

    async def _call(self, call: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self._calls.submit(call))


def _set(result: asyncio.Future[T], value: T) -> None:
    if not result.done():
        result.set_result(value)


def _leave_out(site: SiteReport, why: str) -> None:
    site.compared, site.why = False, why


def _no_longer_master() -> ReplicationError:
    return ReplicationError(
        "the comparison ended: this site is no longer master",
        code="not_master",
        hint="run it again on the site that is master now.",
    )
