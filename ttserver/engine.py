"""The database of one site: environment, group commit, reads and replication, wired together.

    client session -> submit -> Committer (thread) -> commit -> Bridge.send -> other sites
                                     |                              |
                                 deliver (batch, LSN)              acks
                                     v                              v
                              Manager.confirm ---- waits ---> policy held, or not -> on_done (loop)

Everything here runs in the event loop unless a method says otherwise. When the library panics the
engine closes everything and opens it again; clients are answered LOADING meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import structlog
from berkeleydb import db

from replication.bodies import SiteAddress
from replication.errors import ReplicationError
from replication.journal import Journal
from replication.manager import Manager
from replication.messages import AckPolicy
from storage.commit import Committer, Watch
from storage.environment import Environment
from storage.errors import StorageError
from storage.keyspace import Keyspace
from storage.library import (
    LIBRARY_ERRORS,
    DatabaseMissing,
    EnvironmentFailed,
    StillInLibrary,
    from_library,
)
from storage.reads import Reads, WouldBlock
from storage.upkeep import Upkeep
from ttserver import freshness, refused
from ttserver.config import ServerConfig
from ttserver.engine_status import build_status
from ttserver.key_count import KeyCount
from ttserver.master_databases import make_databases
from ttserver.notice import notice_of
from ttserver.open_site import Listeners, OpenSite
from ttserver.reapply import Reapply
from ttserver.refused import Refused
from ttserver.rejoin import Rejoin
from ttserver.reopening import CANNOT_OPEN, CLOSE_S, Reopening
from ttserver.signals import give_up
from ttserver.site_data import SiteData
from ttserver.status import Status
from ttserver.why import Why
from ttserver.write_waits import WriteWaits
from ttserver.writes import Lsn, WriteOutcome, Writes, set_outcome

__all__ = ["Engine", "Refused", "WriteOutcome"]

T = TypeVar("T")

ACCEPT_PAUSE_S: Final = 0.1
ACCEPT_PAUSE_S_MAX: Final = 2.0

log = structlog.get_logger(__name__)


class Engine:
    """See the module's text.

    Args:
        config: everything that was decided about this site.
        journal: `$DB_Msg.txt`, open.
        replication: False turns the replication subsystem off (`-X`).
        on_stuck: called when the environment has to be reopened and cannot even be closed,
            because a thread does not leave the library; ends the process when left out.
    """

    def __init__(
        self,
        config: ServerConfig,
        journal: Journal,
        *,
        replication: bool = True,
        on_stuck: Callable[[StillInLibrary], None] | None = None,
    ) -> None:
        self.config = config
        self.journal = journal
        self.replication = replication
        self.started_at = datetime.now(UTC)
        self.keyspace = Keyspace(_closed)
        data = SiteData(self.must_have_site)
        self.users, self.groups = data.users, data.groups
        self.access, self.accounts, self.catalog = data.access, data.accounts, data.catalog
        self.on_change: list[Callable[[], None]] = []
        self.failure: Exception | None = None
        self._limited = freshness.is_limited(self)
        self.why = Why(config.settings.status.alarm_after_s)
        self.reopening = Reopening(self, on_stuck if on_stuck is not None else _end_process)
        self.rejoin = Rejoin(self)
        self.too_few_acks = 0  # writes refused by min_acks_to_accept
        self.reapply = Reapply(self)
        self._site: OpenSite | None = None
        self.loop: asyncio.AbstractEventLoop
        self._opening: asyncio.Task[None] | None = None
        self._stopping = False
        self._last_lsn: Lsn = (0, 0)
        self._ran = False
        self._key_count = KeyCount(self, self.keyspace, lambda: self.lsn)
        self.waits = WriteWaits(lambda: self._site if self.is_open else None)

    # -- life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the environment and take a role.

        Raises:
            StorageError: the environment cannot be opened.
            ReplicationError: the replication port cannot.

        *Cancellation:* call `stop`; a recovery under way cannot be broken off.
        """
        self.loop = asyncio.get_running_loop()
        await self.open_site()

    async def stop(self, timeout_s: float = 5.0) -> None:
        """Close everything.

        Raises:
            StillInLibrary: a thread did not leave the library in time; end the process.
        """
        self._stopping = True
        self._last_lsn = self.lsn
        self.waits.close()
        await self._key_count.stop()
        await self.reopening.stop()
        await self._stop_opening()
        await self.rejoin.stop()
        if self._site is not None:
            await self.close_site(self._site, timeout_s)

    async def open_site(self) -> None:
        """Open the environment, as the first or in place of another.

        Raises:
            StorageError, ReplicationError, OSError: it cannot be opened.
        """
        rejoin = self.rejoin
        listeners = Listeners(
            self._role_changed,
            self.waits.acks_came,
            self.reopening.failed,
            rejoin.would_roll_back,
            rejoin.rolled_back,
            rejoin.in_step,
            self.reapply.serve,
        )
        site = OpenSite(self.config, self.journal, listeners, replication=self.replication)
        self._site = site
        try:
            await site.open()
            note = site.environment.changes.note
            self.keyspace.use(site.keys.handle, site.reads.pace, note, site.keys.filename)
            await rejoin.opened(site)
            await site.start()
            if site.environment.panicked:
                raise EnvironmentFailed(
                    "the environment failed while it was opened",
                    hint="see $DB_Msg.txt for the library's own words.",
                )
        except CANNOT_OPEN as error:
            with contextlib.suppress(StorageError):
                await self.close_site(site, CLOSE_S)
            if isinstance(error, LIBRARY_ERRORS):
                raise from_library(error, "this site cannot start") from error
            raise
        self.failure = None
        self._role_changed(site)

    async def _stop_opening(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)

    async def close_site(self, site: OpenSite, timeout_s: float) -> None:
        """Close an environment and let go of all who wait for it.

        Raises:
            StillInLibrary: a thread did not leave the library in time.
        """
        await self._stop_opening()
        try:
            await site.close(timeout_s)
        finally:
            self.waits.wake()

    # -- roles ---------------------------------------------------------------------------------

    def _role_changed(self, site: OpenSite) -> None:
        if site is not self._site:
            return
        self._key_count.forget()
        self.rejoin.role_changed(site)
        if self._may_accept(site):
            if not site.accepting and self._opening is None:
                self._opening = self.loop.create_task(self._accept_writes(site))
        elif site.accepting:
            site.accepting = False
            site.committer.watches.touch_all()
            if site.manager is not None:
                site.manager.stop_confirming()
        self.changed()

    def _may_accept(self, site: OpenSite) -> bool:
        if self._stopping or not site.running:
            return False
        manager = site.manager
        if manager is None:
            return True
        # Writes wait while the role is handed over: if that fails, they go on here.
        leads = manager.core.is_master or manager.core.handover.keeps_clients
        return leads and manager.cut_off() is None

    async def _accept_writes(self, site: OpenSite) -> None:
        """Make what a master needs, then take writes."""
        pause_s = ACCEPT_PAUSE_S
        try:
            while self._may_accept(site) and not site.accepting:
                try:
                    await make_databases(site, self.users, self.config.home.first_user)
                except StorageError as error:
                    self.failure = error
                    log.error("databases_not_created", error=str(error), again_in_s=pause_s)
                    self.changed()
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, ACCEPT_PAUSE_S_MAX)
                    continue
                self.failure = None
                # The role may have changed meanwhile.
                site.accepting = self._may_accept(site)
        finally:
            self._opening = None
        self.changed()

    def changed(self) -> None:
        """Something is another thing now: tell all who listen."""
        if self.replication:
            self.journal.set_role(self.role)
        # An environment that was replaced begins anew.
        self._ran = self.is_open and (self._ran or self.state == "running")
        self.waits.wake()
        for listener in self.on_change:
            listener()

    def must_have_site(self) -> OpenSite:
        """The open environment with all that works on it, for those that look inside."""
        if self._site is None:
            raise _not_open()
        return self._site

    # -- parts, those of the last environment while a new one is opened ------------------------

    @property
    def manager(self) -> Manager | None:
        """The Replication Manager; None without replication or before it took part."""
        site = self._site
        return site.manager if site is not None and site.running else None

    @property
    def committer(self) -> Committer:
        return self.must_have_site().committer

    @property
    def reads(self) -> Reads:
        return self.must_have_site().reads

    @property
    def environment(self) -> Environment:
        return self.must_have_site().environment

    @property
    def upkeep(self) -> Upkeep:
        return self.must_have_site().upkeep

    # -- what the site is ----------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """The environment is open and has its role; False while it is opened, again or first."""
        return self._site is not None and self._site.running

    @property
    def site(self) -> OpenSite | None:
        """The environment of now, or the last one while another is opened."""
        return self._site

    def note_lsn(self) -> None:
        """Keep the LSN that is told while no environment is open."""
        self._last_lsn = self.lsn

    @property
    def reopened(self) -> int:
        """How many environments were replaced."""
        return self.reopening.count

    @property
    def stopping(self) -> bool:
        return self._stopping

    @property
    def accepting(self) -> bool:
        """Writes are taken here."""
        return self._site is not None and self._site.accepting

    @property
    def role(self) -> str:
        if not self.is_open:
            return "none"
        manager = self.manager
        return manager.role if manager is not None else "master"

    @property
    def state(self) -> str:
        if self._stopping:
            return "stop-pending"
        if not self.is_open:
            return "start-pending"
        manager = self.manager
        if manager is None or manager.core.is_master:
            # One that takes over while it runs stays running for the moment it takes no writes.
            return "running" if self.accepting or self._ran else "start-pending"
        return manager.state

    @property
    def serving(self) -> bool:
        """Reads are answered."""
        site = self._site
        return site is not None and site.serving

    @property
    def read_only(self) -> bool:
        return not self.accepting

    @property
    def generation(self) -> int:
        manager = self.manager
        return manager.generation if manager is not None else 0

    @property
    def master(self) -> str | None:
        """The master's replication address."""
        manager = self.manager
        if manager is None:
            return str(self.config.local) if self.is_open else None
        return str(manager.master) if manager.master else None

    @property
    def master_client_address(self) -> str | None:
        """Where the master serves clients, if it said so."""
        manager = self.manager
        if manager is None:
            return str(self.config.settings.client.listen) if self.is_open else None
        address = manager.master_clients
        return str(address) if address else None

    @property
    def lsn(self) -> Lsn:
        """The last permanent LSN here; the last known one while it is not open. *Thread:* any."""
        site = self._site
        if site is None or not site.running:
            return self._last_lsn
        return site.manager.applied if site.manager is not None else site.writes.last

    @property
    def ack_policy(self) -> str:
        """The group's ack policy, by its name."""
        return self.config.db.ack_policy if self.replication else "NONE"

    @property
    def ack_timeout_s(self) -> float:
        """How long a write waits for acknowledgements."""
        return self.config.db.timeouts.ack_s

    @property
    def perm_failed(self) -> int:
        """Writes whose ack policy was not met."""
        return self._site.writes.perm_failed if self._site is not None else 0

    @property
    def ack_failed(self) -> tuple[Lsn, str] | None:
        """The last write whose ack policy was not met, and who was missing; None since one was."""
        return self._site.writes.ack_failed if self._site is not None else None

    @property
    def notice(self) -> str | None:
        """One sentence for a client that should know where it is."""
        return notice_of(self)

    def stale_s(self) -> float | None:
        """Seconds since a master was heard; 0 on a master, None for never."""
        manager = self.manager
        if manager is None or manager.core.is_master:
            return 0.0
        return manager.silent_s()

    def status(self) -> Status:
        """Everything about this site, at any time."""
        return build_status(self)

    # -- writes --------------------------------------------------------------------------------

    def submit(
        self,
        work: Callable[[db.DBTxn], Any],
        on_done: Callable[[WriteOutcome], None],
        *,
        keys: Sequence[bytes] = (),
        watch: Watch | None = None,
        policy: AckPolicy | None = None,
        ack_timeout_s: float | None = None,
        user: str = "",
    ) -> None:
        """Queue one write for the group commit. *Thread:* any.

        Args:
            work: runs on the committer thread, maybe more than once: a pure function of the
                database. If it raises, nothing of it is written.
            on_done: called in the loop.
            keys: those it may change, for WATCH.
            watch: fail when one of the watched keys was changed.
            policy: other than the group's.
            ack_timeout_s: other than the group's, seconds.
            user: who writes, for the ledger of a roll-back.

        Raises:
            Refused: this site takes no writes now.
        """
        self._must_accept().submit(
            work,
            on_done,
            keys=keys,
            watch=watch,
            policy=policy,
            timeout_s=ack_timeout_s,
            user=user,
        )

    def _must_accept(self) -> Writes:
        site, manager = self._site, self.manager
        cut_off = manager is not None and manager.cut_off() is not None
        if site is None or not site.accepting or cut_off:
            raise refused.write_refused(self)
        needed = self.config.settings.replication.min_acks_to_accept
        if needed and manager is not None:
            connected = manager.confirmations.able()
            if connected < needed:
                self.too_few_acks += 1
                raise refused.too_few_acks(connected, needed)
        return site.writes

    async def write(
        self,
        work: Callable[[db.DBTxn], Any],
        *,
        keys: Sequence[bytes] = (),
        watch: Watch | None = None,
        policy: AckPolicy | None = None,
        ack_timeout_s: float | None = None,
        user: str = "",
    ) -> WriteOutcome:
        """`submit`, awaited.

        *Cancellation:* the write may still happen; only its outcome is lost.
        """
        done: asyncio.Future[WriteOutcome] = asyncio.get_running_loop().create_future()
        self.submit(
            work,
            set_outcome(done),
            keys=keys,
            watch=watch,
            policy=policy,
            ack_timeout_s=ack_timeout_s,
            user=user,
        )
        return await done

    def write_from_thread(
        self, work: Callable[[db.DBTxn], Any], *, keys: Sequence[bytes] = ()
    ) -> WriteOutcome:
        """`submit`, and wait for the outcome. *Thread:* any but the loop's and the committer.

        With nobody else's write waiting, this thread commits its own.

        Raises:
            Refused: this site takes no writes now.
        """
        return self._must_accept().write_here(work, keys=keys)

    # -- reads ---------------------------------------------------------------------------------

    def read_now(self, read: Callable[[db.DBTxn], T]) -> T:
        """Read in the loop.

        Raises:
            WouldBlock: it could take long; use `read`. Part of it may have run.
            Refused: LOADING, too stale, or maybe not the newest.
            StorageError: the library failed.
        """
        site = self._site
        if site is None or not self.serving:
            raise refused.loading(self)
        if not site.keys.is_open:
            raise WouldBlock
        result = site.reads.now(read)
        if self._limited:
            freshness.check(self)
        return result

    async def read(self, read: Callable[[db.DBTxn], T], *, limited: bool = True) -> T:
        """Read on a reader thread, waiting for locks and the disk.

        Args:
            read: may be run more than once.
            limited: data that is too old, or maybe not the newest, is refused as the operator
                wants it; False for what the server itself looks up.

        Raises:
            Refused: LOADING, too stale, or maybe not the newest.
            StorageError: the library failed, or the site is stopping.
        """
        site = self._site
        if site is None or not self.serving:
            raise refused.loading(self)
        try:
            result = await site.reads.run(read)
        except DatabaseMissing as missing:
            raise Refused(str(missing), code="LOADING", hint=missing.hint) from missing
        if limited:
            freshness.check(self)
        return result

    async def call(self, call: Callable[[], T]) -> T:
        """Run something else that enters the library on a thread made for it.

        Raises:
            StorageError: the site is stopping, or the library failed.
        """
        return await self.must_have_site().reads.call(call)

    def watch(self, keys: Iterable[bytes]) -> Watch:
        """Watch keys until the result is closed."""
        site = self.must_have_site()
        if site.accepting:
            return site.committer.watches.add(keys)
        # What a replicant applies names no keys: anything that came since is a change.
        seen = self.lsn
        return site.committer.watches.add(keys, lambda: self.lsn != seen)

    async def key_count(self) -> int:
        """Count all keys, exactly; counted again only when something was committed since.

        Raises:
            Refused, StorageError: as `read`.
        """
        return await self._key_count.get()

    # -- the master's role ---------------------------------------------------------------------

    async def switchover(self, to: tuple[str, int] | None, timeout_s: float) -> None:
        """Hand the master's role over to another site, and wait until it has it.

        Args:
            to: where it replicates or serves clients; None for the best one.
            timeout_s: how long it may take to be nearly in step.

        Raises:
            Refused: this site goes on as master, or an election decides; it says which.
        """
        manager = self.manager
        if manager is None:
            raise Refused("replication is off here", code="ERR", hint="start without -X.")
        try:
            target = manager.switchover.target(SiteAddress(*to) if to is not None else None)
            await manager.switchover.run(target, timeout_s)
        except ReplicationError as error:
            raise Refused(str(error), code="ERR", hint=error.hint) from error


def _not_open() -> EnvironmentFailed:
    return EnvironmentFailed(
        "the environment is not open", hint="wait until the site is running again."
    )


def _closed() -> db.DB:
    raise _not_open()


def _end_process(stuck: StillInLibrary) -> None:
    give_up(str(stuck), status=1)
