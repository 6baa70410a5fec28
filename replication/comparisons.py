"""Comparisons of the databases of this site with those of others, on a master and on replicants."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from berkeleydb import db

from replication import compare
from replication.apply import Applier
from replication.bodies import SiteAddress
from replication.compare_master import Comparison, Mark, Options
from replication.compare_report import Report, SiteReport
from replication.compare_scan import Handles
from replication.compare_site import CompareSite
from replication.core import Core
from replication.errors import RemoteProtocolError, ReplicationError
from replication.hub import Hub
from replication.journal import Journal
from replication.library_work import Calls
from replication.link import Link
from replication.messages import OwnCode

CODES = range(OwnCode.COMPARE_BEGIN, OwnCode.COMPARE_END + 1)
ALARM = "sites differ"


class Threads(Protocol):
    """Makes threads of the environment."""

    def worker(self, name: str) -> Calls: ...


class Comparisons:
    """See the module's text. Runs in the event loop.

    Args:
        loop: the event loop.
        env: the open library handle.
        threads: makes the thread that reads ahead; asked when there is something to compare.
        applier: is stopped on a replicant.
        core: who the members are.
        hub: the links.
        journal: `$DB_Msg.txt`.

    Attributes:
        differing: what was found of sites that differ, until one is found identical again.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        env: db.DBEnv,
        threads: Threads,
        applier: Applier,
        core: Core,
        hub: Hub,
        journal: Journal,
    ) -> None:
        self._threads = threads
        self._core = core
        self._hub = hub
        self._journal = journal
        self._worker: Calls | None = None
        self._stopped = False
        self._handles = Handles(env)
        self._site = CompareSite(loop, self._handles, self._calls, applier, core)
        self._running: Comparison | None = None
        self.differing: dict[str, str] = {}

    def stop(self) -> None:
        """Take no more; the comparison's thread is the environment's to stop."""
        self._stopped = True
        self._site.stop()

    def hears(self) -> dict[int, Callable[[Link, int, bytes], None]]:
        """Say which messages come here."""
        return dict.fromkeys(CODES, self.heard)

    def heard(self, link: Link, code: int, body: bytes) -> None:
        """A site said something about a comparison; what makes no sense closes its link."""
        state = self._core.sites.links.get(link.number)
        if state is None or not state.released or self._stopped:
            return
        try:
            self._heard(link, state.site.address, code, body)
        except RemoteProtocolError as error:
            link.close(str(error))

    def _heard(self, link: Link, address: SiteAddress, code: int, body: bytes) -> None:
        match code:
            case OwnCode.COMPARE_BEGIN:
                self._site.begin(link, compare.decode_begin(body))
            case OwnCode.COMPARE_PREPARE:
                self._site.prepare(link, *compare.decode_prepare(body))
            case OwnCode.COMPARE_AT:
                self._site.at(link, compare.decode_at(body))
            case OwnCode.COMPARE_END:
                compare.decode_begin(body)
                self._site.end()
            case OwnCode.COMPARE_ANSWER:
                answer = compare.decode_answer(body)
                if self._running is not None:
                    self._running.answered(address, answer)
            case OwnCode.COMPARE_DIGEST:
                number, digest = compare.decode_digest(body)
                if self._running is not None:
                    self._running.digested(address, number, digest)
            case _:
                raise AssertionError("only these codes come here")

    async def run(self, mark: Mark, options: Options, progress: Callable[[Report], None]) -> Report:
        """Compare this master with its replicants; see `replication.compare_master`.

        Raises:
            ReplicationError: this site is no master, or compares already.

        *Cancellation:* ends the comparison.
        """
        if not self._core.is_master:
            master = self._core.master
            raise ReplicationError(
                "the comparison was not started: this site is no master",
                code="not_master",
                hint=f"run it on {master}." if master else "wait until there is a master.",
            )
        if self._running is not None:
            raise ReplicationError(
                "the comparison was not started: another one is under way",
                code="busy",
                hint="wait for its end.",
            )
        self._running = running = Comparison(
            self._core, self._link_of, self._handles, self._calls(), mark, options, progress
        )
        members = ", ".join(str(address) for address in sorted(self._core.members()))
        self._journal.write("compare_started", sites=members)
        try:
            report = await running.run()
        finally:
            self._running = None
        self._conclude(report)
        return report

    def _conclude(self, report: Report) -> None:
        self._journal.write(
            "compare_finished",
            identical=report.identical,
            lsn=report.lsn,
            records=sum(one.records for one in report.databases),
            seconds=report.seconds,
            longest_pause_ms=report.longest_pause_ms,
        )
        for site in report.sites:
            if site.difference is not None:
                self._differs(site)
            elif site.compared and self.differing.pop(site.site, None) is not None:
                self._journal.write("alarm_cleared", alarm=f"{ALARM}: {site.site}", seconds=0.0)
            elif not site.compared:
                self._journal.write("compare_left_out", site=site.site, why=site.why)

    def _differs(self, site: SiteReport) -> None:
        found = site.difference
        assert found is not None, "it was looked at"
        key = "" if found.key is None else f", key {found.key}"
        what = f"{found.database}{key}: {found.what}"
        self._journal.write(
            "compare_difference",
            site=site.site,
            database=found.database,
            key=found.key,
            what=found.what,
            lsn=found.lsn,
        )
        if site.site not in self.differing:
            self._journal.write("alarm_raised", alarm=f"{ALARM}: {site.site}", why=what, hint=HINT)
        self.differing[site.site] = what

    def _link_of(self, address: SiteAddress) -> Link | None:
        state = self._core.sites.get(address)
        return self._hub.link(state.link.number) if state and state.link else None

    def _calls(self) -> Calls:
        if self._worker is None:
            self._worker = self._threads.worker("compare")
        return self._worker


HINT = "keep a copy of both var/db, then `ttserver wipe` on that site: it takes the master's data."
