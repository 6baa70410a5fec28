"""What the library and its apply thread say, brought into the event loop and to the core.

The library's law: an event callback runs on a library thread with parts of the library held. It
must not call the library; here it only queues a call in the loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from berkeleydb import db

from replication import bulk, library
from replication.acknowledge import Acknowledger
from replication.apply import Applier
from replication.core import Core
from replication.errors import ReplicationError
from replication.hooks import Hooks
from replication.hub import Hub, later
from replication.journal import Journal
from replication.library_work import LibraryWork
from replication.membership_work import MembershipWork
from replication.messages import RepType
from replication.performer import Performer
from replication.progress import first_log_file
from replication.sync_journal import SyncJournal
from replication.tasks import Tasks
from replication.wire import LSN, LSN_ZERO

log = logging.getLogger(__name__)

SELF_EID = 1


class Upcalls:
    """The apply thread's `Outcomes`, and the library's events.

    Args:
        hooks: whom to tell outside of replication.
        advanced: the log here got further. *Thread:* any.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        env: db.DBEnv,
        core: Core,
        journal: Journal,
        syncs: SyncJournal,
        acks: Acknowledger,
        tasks: Tasks,
        hooks: Hooks,
        advanced: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._env = env
        self._core = core
        self._journal = journal
        self._syncs = syncs
        self._acks = acks
        self._tasks = tasks
        self._hooks = hooks
        self._advanced = advanced
        self._hub: Hub
        self._applier: Applier
        self._library: LibraryWork
        self._membership: MembershipWork
        self._performer: Performer

    def attach(
        self,
        hub: Hub,
        applier: Applier,
        library_: LibraryWork,
        membership: MembershipWork,
        performer: Performer,
    ) -> None:
        """Give it the parts that are made after it."""
        self._hub = hub
        self._applier = applier
        self._library = library_
        self._membership = membership
        self._performer = performer

    # -- on the apply thread -------------------------------------------------------------------

    def permanent(self, generation: int, lsn: LSN) -> None:
        """Acknowledge. *Thread:* apply."""
        self._acks.send(generation, lsn)
        self._advanced()

    def answered(self, code: int, nsites: int = 0) -> None:
        """What the library answered. *Thread:* apply."""
        later(self._loop, self._on_answered, code, nsites)

    def would_roll_back(self, sync_point: LSN) -> None:
        """The master lacks what lies behind `sync_point` here. *Thread:* apply."""
        later(self._loop, self._hooks.would_roll_back, sync_point)

    def rolled_back(self, sync_point: LSN) -> None:
        """That is undone now. *Thread:* apply."""
        self._hooks.handles_died()
        self._hooks.rolled_back(sync_point)

    def master_heard(self, eid: int) -> None:
        """A site says that it is master. *Thread:* apply."""
        later(self._loop, self._on_master_heard, eid)

    def client_heard(self, eid: int) -> None:
        """A site says that it is a client. *Thread:* apply."""
        later(self._loop, self._on_client_heard, eid)

    def passing(self, eid: int, kind: int, record: bytes) -> None:
        """A page, a file list, a refusal of log or a vote came. *Thread:* apply."""
        if kind == RepType.VOTE2:
            later(self._loop, self._core.elections.vote_came, eid)
        elif kind == RepType.VERIFY_FAIL:
            later(self._loop, self._core.catch_up.log_is_gone)
        elif kind == RepType.PAGE:
            self._syncs.page_received(len(record))
        elif kind == RepType.BULK_PAGE:
            self._syncs.page_received(len(record), bulk.count(record))
        else:
            self._syncs.list_received(self._loop.time(), record)
            later(self._loop, self._on_copy_offered, record)

    def membership_logged(self) -> None:
        """A native master changed the membership. *Thread:* apply."""
        later(self._loop, self._reload_membership)

    def broken(self, eid: int, error: Exception) -> None:
        """A message could not be processed. *Thread:* any."""
        if isinstance(error, db.DBRunRecoveryError):
            self._hooks.panicked(error)
        later(self._loop, self._on_broken, eid, error)

    def room(self) -> None:
        """The queue is short again. *Thread:* apply."""
        later(self._loop, self._on_room)

    def log_released(self, messages: int, dropped: int) -> None:
        """Log passes again after a vote. *Thread:* apply."""
        later(self._loop, self._on_log_released, messages, dropped)

    # -- on other library threads --------------------------------------------------------------

    def sync_sent(self, eid: int, kind: int, record: bytes) -> None:
        """The bridge sent a page, a file list or the wish for a page. *Thread:* any."""
        if kind == RepType.PAGE:
            self._syncs.page_sent(eid, len(record))
        elif kind == RepType.BULK_PAGE:
            self._syncs.page_sent(eid, len(record), bulk.count(record))
        elif kind == RepType.PAGE_REQ:
            if self._syncs.begin():
                later(self._loop, self._on_sync_started, eid)
        else:
            later(self._loop, self._on_file_list_sent, record)

    # -- in the loop ---------------------------------------------------------------------------

    def library_event(self, what: int, argument: Any) -> None:
        """An event of the library, brought into the loop by the manager."""
        now_s = self._loop.time()
        match what:
            case db.DB_EVENT_REP_NEWMASTER:
                if int(argument) != SELF_EID:
                    self._tasks.spawn(self._library.new_master(int(argument)))
            case db.DB_EVENT_REP_STARTUPDONE:
                self._tasks.spawn(self._startup_done())
            case db.DB_EVENT_REP_ELECTED:
                self._core.elected(self._library.vote)
            case db.DB_EVENT_REP_INIT_DONE:
                self._hooks.handles_died()
                self._reload_membership()
                # When only the log had run away from this site, under the same master, there is no
                # STARTUPDONE: the one before still counts.
                self._tasks.spawn(self._startup_done())
            case db.DB_EVENT_REP_DUPMASTER:
                self._core.duplicate_master(now_s)
            case db.DB_EVENT_REP_JOIN_FAILURE:
                self._core.join_failure(now_s)
            case db.DB_EVENT_PANIC:
                self._hooks.panicked(ReplicationError("panic", code="panic", hint="-"))
            case _:
                log.debug("library_event what=%s", what)
        self._performer.run()

    async def _startup_done(self) -> None:
        """The replicant is in step; what came without a permanent record is acknowledged now."""
        env = self._env
        now = await self._library.call(lambda: library.in_step(env))
        if now.reached == LSN_ZERO:
            return  # another master came meanwhile, and the event with it
        self._syncs.received_all(self._loop.time())
        synced = self._core.syncing
        self._core.startup_finished(now.reached)
        self._hooks.handles_died()
        self._hooks.in_step(synced)
        if self._applier.in_step(now.generation, now.reached):
            self._acks.send(now.generation, now.reached)

    def _reload_membership(self) -> None:
        self._tasks.spawn(self._membership.load())

    def _on_room(self) -> None:
        for link in self._hub.links():
            link.resume_reading()

    def _on_broken(self, eid: int, error: Exception) -> None:
        log.error("replication_message_failed eid=%s error=%r", eid, error)
        self._journal.write(
            "alarm_raised", alarm="message not processed", why=repr(error), hint="-"
        )

    def _on_log_released(self, messages: int, dropped: int) -> None:
        self._journal.write("log_released", messages=messages, dropped=dropped)
        if dropped:
            self._core.heartbeats.gap_left()
        if self._applier.applied_generation == self._core.generation:
            # The same master is back: what it was not told while the vote was out.
            self._acks.send(self._core.generation, self._applier.applied)

    def _on_master_heard(self, eid: int) -> None:
        if self._core.misses_master or self._core.settings.witness:
            self._tasks.spawn(self._library.find_master(eid))

    def _on_client_heard(self, eid: int) -> None:
        state = self._core.sites.by_eid(eid)
        if state is not None and state.address == self._core.master:
            self._tasks.spawn(self._library.lose_master(eid))

    def _on_answered(self, code: int, nsites: int) -> None:
        now_s = self._loop.time()
        match code:
            case db.DB_REP_HOLDELECTION:
                self._core.election_wanted(now_s, nsites)
            case db.DB_REP_DUPMASTER:
                self._core.duplicate_master(now_s)
            case _:
                assert code == db.DB_REP_JOIN_FAILURE, "the applier passes on no other answer"
                self._core.join_failure(now_s)
        self._performer.run()

    def _on_sync_started(self, eid: int) -> None:
        """This site asked for pages: internal initialisation has begun.

        Asking for the file list is not enough: the library does that after a restart as well,
        for databases in memory, and then takes no page.

        Args:
            eid: whom it asked; who is master may not be known here yet.
        """
        asked = self._core.sites.by_eid(eid)
        self._core.catch_up.started(self._applier.list_generation)
        self._syncs.announce_received(asked.address if asked is not None else self._core.master)
        self._performer.run()

    def _on_file_list_sent(self, record: bytes) -> None:
        connected = [s.eid for s in self._core.sites.values() if s.link is not None]
        self._syncs.list_sent(self._loop.time(), record, connected)
        self._on_copy_offered(record)

    def _on_copy_offered(self, record: bytes) -> None:
        """A site takes a copy, from here or from another: it will need the log from there on."""
        if (first := first_log_file(record)) is not None:
            self._core.holdings.copy_offered(first)
