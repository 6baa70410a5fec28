"""One opened environment and all that works on it; a panic replaces the whole.

The order of the close matters: first nobody is sent anything and nothing is taken any more
(replication, then the threads), then the databases and the environment are closed, and what was
under way is answered last, when nothing can change it.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog
from berkeleydb import db

from replication import lsn_history
from replication.bodies import SiteAddress
from replication.generations import CommitToken, Fate, History
from replication.holdings import LogNeed
from replication.hooks import Hooks
from replication.hub import later
from replication.journal import Journal
from replication.manager import Manager
from replication.wire import LSN
from storage.catalog.files import (
    CATALOG_FILE,
    GROUPS_FILE,
    HISTORY_FILE,
    VOLUMES_FILE,
    CatalogFiles,
)
from storage.catalog.names import CatalogError
from storage.commit import Committer
from storage.database import Database
from storage.environment import Environment, Lsn
from storage.ledger import Ledgers
from storage.library import StillInLibrary
from storage.reads import Reads
from storage.tail import Tail
from storage.undoing import Undoing
from storage.upkeep import Upkeep
from storage.users import USERS_FILE, UserError
from storage.worker import Worker
from ttserver.config import ServerConfig
from ttserver.engine_settings import configure_replication, group_settings
from ttserver.log_keeping import LogKeeping
from ttserver.replies import CommandError
from ttserver.standstill import Standstill
from ttserver.writes import Token, Writes

# Files, beside the keyspace, whose keys and values are compared where no tail tells what is undone.
OTHER_FILES: Final = (USERS_FILE, GROUPS_FILE, CATALOG_FILE, VOLUMES_FILE, HISTORY_FILE)
GROUP_ID_BITS: Final = 63
# What a close may take longer than it was told: the last flush, and the library's own close.
CLOSE_GRACE_S: Final = 0.5

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Listeners:
    """Whom a site tells, in the event loop.

    Args:
        role_changed: role, master, generation, state or serving may be another one.
        acked: another site acknowledged more than before. *Thread:* any.
        failed: the library needs recovery: close this site and open a new one.
        would_roll_back: the master lacks what lies behind that LSN here.
        rolled_back: that is undone. *Thread:* apply.
        in_step: the log here is that of the master.
        errand: another site asks this one, as master, to do something for it.
    """

    role_changed: Callable[[OpenSite], None]
    acked: Callable[[], None]
    failed: Callable[[OpenSite, Exception], None]
    would_roll_back: Callable[[OpenSite, LSN], None]
    rolled_back: Callable[[OpenSite, LSN], None]
    in_step: Callable[[OpenSite], None]
    errand: Callable[[bytes], Awaitable[bytes]]


class OpenSite:
    """See the module's text. Made in the event loop, opened once, closed once.

    Args:
        config: everything that was decided about this site.
        journal: `$DB_Msg.txt`.
        listeners: whom to tell.
        replication: False leaves replication out.

    Attributes:
        accepting: writes are taken; the engine's to set.
        running: `start` has come to its end, and `close` was not called.
    """

    def __init__(
        self, config: ServerConfig, journal: Journal, listeners: Listeners, *, replication: bool
    ) -> None:
        self.config = config
        self.accepting = False
        self.running = False
        self.committer: Committer
        self.reads: Reads
        self.upkeep: Upkeep
        self._loop = asyncio.get_running_loop()
        self._listeners = listeners
        self._journal = journal
        self._wired = False
        self._closed = False
        self._history = History()
        # Opens and closes the environment; a daemon thread, so a recovery can be left behind.
        self._keeper = Worker("environment")
        self._standstill = Standstill()
        self.manager = self._make_manager() if replication else None
        self.writes = Writes(self._loop, journal, self.manager)
        self.environment = Environment(
            config.home.environment,
            self._configure if self.manager is not None else None,
            self._tell_failed,
        )
        self.keys = Database(self.environment, config.settings.storage.keyspace)
        self.users = Database(self.environment, USERS_FILE)
        self.catalog = CatalogFiles(self.environment, self.users)
        self.log_keeping = LogKeeping(config, self._log_needs)
        self.tail = self._make_tail(self.manager)
        self.undoing = Undoing(
            self.environment,
            (self.keys.filename, *OTHER_FILES),
            config.home.tail,
            Ledgers(config.home.rollbacks),
        )

    # -- opening -------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the environment and start its threads.

        Raises:
            StorageError: the environment cannot be opened.

        *Cancellation:* a recovery under way goes on; `close` waits for its end.
        """
        await asyncio.wrap_future(self._keeper.submit(self.environment.open))
        environment, storage = self.environment, self.config.settings.storage
        manager = self.manager
        if manager is None:
            # What the group knew last; as long as replication is off, nothing is added to it.
            self._history = await asyncio.wrap_future(self._keeper.submit(self._read_history))
        self.reads = Reads(environment, self.drop_handles, nowait=self.config.db.rep_config.nowait)
        self.committer = Committer(
            environment,
            self.writes.deliver,
            wait_for_room=manager.bridge.wait_for_room if manager is not None else None,
            on_dead_handles=self.drop_handles,
            refusals=(CommandError, UserError, CatalogError),
            durability=storage.durability,
            batch_max=storage.group_commit_max,
            look_up_lsn=manager is None,
            tail=self.tail,
            stamp=self._generation,
        )
        self.writes.committer = self.committer
        self.upkeep = Upkeep(
            environment,
            is_master=lambda: self.accepting,
            interval_s=storage.checkpoint_interval_s,
            kbytes=storage.checkpoint_kbytes,
            removable=self.log_keeping.removable,
        )
        self._standstill.committer, self._standstill.upkeep = self.committer, self.upkeep
        end, self.writes.last = await self.reads.call(self._look_at_log)
        self._journal.write("environment_opened", lsn=end, seconds=environment.recovery_seconds)

    def _read_history(self) -> History:
        return lsn_history.read(self.environment.env)

    async def start(self) -> None:
        """Take part in replication.

        Raises:
            ReplicationError: the port cannot be opened, or the membership database is damaged.
        """
        if self.manager is not None:
            try:
                await self.manager.start(self.environment)
            finally:
                # Made in one go with what `stop` closes.
                self._wired = hasattr(self.manager, "applier")
        self.running = True

    def _look_at_log(self) -> tuple[Lsn, Lsn]:
        """Find the end of the log and its last record; the tail goes on from there."""
        last = self.environment.last_record()
        if self.tail is not None:
            self.tail.open(last)
        return self.environment.log_end(), last

    def _make_tail(self, manager: Manager | None) -> Tail | None:
        bytes_max = self.config.settings.replication.tail_bytes_max
        if manager is None or not bytes_max:
            return None
        return Tail(
            self.config.home.tail,
            bytes_max=bytes_max,
            held_by_majority=manager.roster.held_by_majority,
        )

    def _make_manager(self) -> Manager:
        config = self.config
        hooks = Hooks(
            role_changed=lambda: self._listeners.role_changed(self),
            handles_died=self.drop_handles,
            confirmed=self._confirmed,
            acked=self._listeners.acked,
            permanent=self._note_permanent,
            panicked=self._panicked,
            writers=self._standstill,
            would_roll_back=lambda lsn: self._listeners.would_roll_back(self, lsn),
            rolled_back=lambda lsn: self._listeners.rolled_back(self, lsn),
            errand=self._listeners.errand,
            in_step=lambda _synced: self._listeners.in_step(self),
        )
        listen, clients = config.replication_listen, config.settings.client.listen
        return Manager(
            group_settings(config),
            listen=SiteAddress(listen.host, listen.port),
            clients=SiteAddress(clients.host, clients.port) if clients.port else None,
            journal=self._journal,
            memory_path=config.home.root / "var" / "replication.json",
            hooks=hooks,
            new_group_id=secrets.randbits(GROUP_ID_BITS) | 1,
            flush_applied=config.settings.storage.durability == "sync",
        )

    def _configure(self, env: db.DBEnv) -> None:
        assert self.manager is not None, "replication is on"
        self.manager.configure(env)
        configure_replication(env, self.config)

    # -- called by threads ---------------------------------------------------------------------

    def drop_handles(self) -> None:
        """Have every database opened again at its next use. *Thread:* any."""
        self.keys.drop()
        self.users.drop()
        self.catalog.drop()

    @property
    def serving(self) -> bool:
        """Reads can be answered."""
        return self.running and (self.manager is None or self.manager.serving)

    def _generation(self) -> int:
        """The generation that this site writes in. *Thread:* the committer's."""
        manager = self.manager
        return manager.confirmations.generation if manager is not None else self._history.latest

    def fate(self, token: CommitToken) -> Fate:
        """Tell what became of a commit, as far as it is known here."""
        if self.manager is not None:
            return self.manager.tokens.fate(token)
        return self._history.fate(token, LSN(*self.writes.last), self._history.latest)

    def why_lost(self, token: CommitToken) -> str:
        """Say what was there instead of a commit that is lost."""
        if self.manager is not None:
            return self.manager.tokens.why_lost(token)
        return self._history.why_lost(token)

    def _confirmed(self, token: Token, shortfall: str | None) -> None:
        self.writes.confirmed(token, shortfall)

    def _note_permanent(self, lsn: tuple[int, int]) -> None:
        """A permanent record was written. *Thread:* the one that commits."""
        if (committer := getattr(self, "committer", None)) is not None:
            committer.note_permanent(lsn)

    def _panicked(self, error: Exception) -> None:
        """Replication was told that the library needs recovery. *Thread:* any."""
        self.environment.panic(str(error))

    def _tell_failed(self, error: Exception) -> None:
        later(self._loop, self._listeners.failed, self, error)

    def _log_needs(self) -> tuple[LogNeed, ...] | None:
        """What other sites may need of the log. *Thread:* any."""
        if self.manager is not None:
            return self.manager.log_needs()
        # Replication is only off for now, or there is none: then nobody else needs a log file.
        return None if self.config.db.replication else ()

    # -- closing -------------------------------------------------------------------------------

    async def close(self, timeout_s: float) -> None:
        """Close everything and answer what was under way; a second call does nothing.

        Args:
            timeout_s: how long the threads have together, seconds.

        Raises:
            StillInLibrary: a thread did not leave the library in time; nothing was closed, the
                log was flushed. End the process.
        """
        if self._closed:
            return
        deadline_s = time.monotonic() + timeout_s
        self.running = self.accepting = False
        self.undoing.stop()
        await self._stop_manager(timeout_s)
        self._standstill.release()  # a thread that is held cannot be stopped
        closed = self._keeper.submit(lambda: self._close_on_thread(deadline_s))
        try:
            async with asyncio.timeout(max(0.0, deadline_s - time.monotonic()) + CLOSE_GRACE_S):
                await asyncio.wrap_future(closed)
        except TimeoutError:
            doing = "closed" if self.environment.is_open else "opened"
            raise StillInLibrary(
                f"the environment {self.environment.home} is still being {doing} after"
                f" {timeout_s:.1f} s",
                hint="end the process; the next start recovers.",
            ) from None
        finally:
            if (committer := getattr(self, "committer", None)) is not None:
                # Writes that come later know nothing of these watches.
                committer.watches.touch_all()
            self.writes.end("the site is stopping")
        self._closed = True
        self._keeper.stop()

    async def _stop_manager(self, timeout_s: float) -> None:
        if self.manager is None or not self._wired:
            return
        try:
            async with asyncio.timeout(timeout_s / 2):
                await self.manager.stop()
        except Exception as error:  # noqa: BLE001 - the environment must be closed all the same
            log.error("replication_not_stopped", error=repr(error))

    def _close_on_thread(self, deadline_s: float) -> None:
        if not self.environment.is_open:
            return
        self.environment.stop_threads(max(0.1, deadline_s - time.monotonic()))
        self.keys.close()
        self.users.close()
        self.catalog.close()
        self.undoing.close()
        if self.tail is not None:
            self.tail.close()
        self.environment.close(max(0.1, deadline_s - time.monotonic()))
