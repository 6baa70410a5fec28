"""The Replication Manager: executes what the core decides, on an environment and real sockets.

    library threads                      event loop                        other sites
    commit, apply -> Bridge.send ------- (queues of the links) ----------> frames
    Applier <-------------------------- Hub: links, frames <-------------- frames
    events, answers -> Upcalls -------> Core: decides -> effects
                                          LinkEvents: what other sites say -> Core
    LibraryWork (rep_start, ...) <------- Performer: does the effects

Here they are made and wired; the clock ticks here; and who serves clients asks here. Everything
runs in the event loop except the methods marked otherwise.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from berkeleydb import db

from replication import bodies, gmdb, library, lsn_history, memory, standing, wire
from replication.ack_reader import AckReader
from replication.acknowledge import Acknowledger, wants_acks
from replication.apply import Applier
from replication.beginnings import Beginnings
from replication.bodies import SiteAddress, Standing
from replication.bridge import Bridge
from replication.clocks import Clocks
from replication.coldstart import Decision, Start
from replication.comparisons import Comparisons
from replication.confirmations import Confirmations
from replication.core import Core
from replication.errands import Errands
from replication.handover_work import HandoverWork
from replication.held_log import HeldLog
from replication.holdings import LogNeed
from replication.holdings_notes import note_holdings
from replication.hooks import Hooks, Library
from replication.hub import Hub, later
from replication.journal import Journal
from replication.library_work import Calls, LibraryWork
from replication.link import Link
from replication.link_events import LinkEvents
from replication.membership_work import MembershipWork
from replication.messages import OwnCode
from replication.outreach import Outreach
from replication.peer import LocalSite
from replication.performer import Means, Performer
from replication.phase import Phase
from replication.progress import SyncProgress
from replication.promotion import Survey, must_be_possible, survey
from replication.settings import GroupSettings
from replication.signs import SignsOfLife
from replication.site_changes import SiteChanges
from replication.switchover import Switchover
from replication.sync_journal import SyncJournal
from replication.tasks import Tasks
from replication.tokens import Tokens
from replication.upcalls import SELF_EID, Upcalls
from replication.where import Where, where_is
from replication.wire import LSN, LSN_MAX, LSN_ZERO
from replication.witness import WitnessApplier

TICK_S = 0.05
JOURNAL_CHECK_S = 1.0  # the library writes into the journal too, past its size limit
HOLDINGS_S = 0.5  # log files are removed at most this often; what a site has grows meanwhile
MEMORY_SAVE_S = 1.0  # the stable LSN is written at most this often


class Manager:
    """See the module's text. Made in the event loop that it will run in.

    Args:
        settings: the operator's decisions.
        listen: where to listen; the local site's address unless the operator says otherwise.
        clients: where this site serves clients, told to the others.
        journal: `$DB_Msg.txt`.
        memory_path: the file beside the environment.
        hooks: whom to tell.
        new_group_id: random, used if this site creates the group.
        flush_applied: flush before acknowledging as a replicant.

    Raises:
        ReplicationError: the file beside the environment is damaged.
    """

    def __init__(
        self,
        settings: GroupSettings,
        *,
        listen: SiteAddress,
        clients: SiteAddress | None,
        journal: Journal,
        memory_path: Path,
        hooks: Hooks,
        new_group_id: int,
        flush_applied: bool = True,
    ) -> None:
        self.settings = settings
        self.journal = journal
        self.hooks = hooks
        self.ack_reader: AckReader
        self.core: Core
        self.applier: Applier
        self.comparisons: Comparisons
        self.errands: Errands
        self.clocks: Clocks
        self.site_changes: SiteChanges
        self.switchover: Switchover
        self.confirmations = Confirmations(settings, hooks.confirmed)
        self.table = self.confirmations.table
        self.roster = self.confirmations.roster
        self.pending = self.confirmations.pending
        self.pending.cut_off = self.cut_off
        self.held = HeldLog(settings.apply_bytes_max)
        self.bridge = Bridge(
            queue_bytes_max=settings.queue_bytes_max,
            asked_bytes_max=settings.asked_bytes_max,
            link_stall_s=settings.link_stall_s,
            on_permanent=hooks.permanent,
            on_stalled=self._stalled_from_thread,
            on_sync_message=self._sync_sent_from_thread,
            on_vote=self.held.voted,
        )
        self.permitted_rollback: LSN | None = None
        self.lagging: dict[int, tuple[LSN, float]] = {}  # EID: what it must reach, since when
        self.started_s = 0.0
        self._memory_path = memory_path
        self._memory = memory.load(memory_path)
        self._saved_memory = self._memory
        self._memory_saved_s = 0.0
        self._clients = clients
        self._listen = listen
        self._new_group_id = new_group_id
        self._flush_applied = flush_applied
        self._loop = asyncio.get_running_loop()
        self._syncs = SyncJournal(journal)
        self._tasks = Tasks(self._loop, self._task_failed, self._perform)
        self._beginnings = Beginnings(self._ready_links)
        spawn, announce = self._tasks.spawn, self._beginnings.begin
        self.tokens = Tokens(self._loop, self._where, self._read_history, spawn, announce)
        self._env: db.DBEnv
        self._last_commit = LSN_ZERO  # when the environment was opened
        self._upcalls: Upcalls | None = None
        self._hub: Hub
        self._signs: SignsOfLife
        self._link_events: LinkEvents
        self._acks: Acknowledger
        self._performer: Performer
        self._calls: Calls
        self._ticker: asyncio.TimerHandle | None = None
        self._ran = False
        self._leads = False
        self._stopping = False
        self._stable_sent = LSN_ZERO
        self._log_file_bytes = 0
        self._log_needs: tuple[LogNeed, ...] | None = None
        self._held_s = 0.0
        self._journal_checked_s = 0.0

    # -- life ----------------------------------------------------------------------------------

    def configure(self, env: db.DBEnv) -> None:
        """Prepare the environment before it is opened (given to storage's Environment)."""
        env.set_event_notify(self._library_event)
        env.rep_set_transport(SELF_EID, self.bridge.send)
        env.rep_set_priority(self.settings.priority)
        # A role change must not hold the event loop in a read: it is refused and tried again.
        env.rep_set_config(db.DB_REP_CONF_NOWAIT, 1)
        env.rep_set_timeout(db.DB_REP_ELECTION_TIMEOUT, int(self.settings.election_timeout_s * 1e6))

    async def start(self, library_: Library) -> None:
        """Begin: listen, ask the other sites, take a role.

        Raises:
            ReplicationError: the port cannot be opened, or the membership database is damaged.
        """
        self._env = library_.env
        self._calls = library_.worker("replication")
        held = await self._make_core(library_.env)
        self._wire(library_)
        self.ack_reader = AckReader(self.bridge.links, self._link_events.ack_read)
        self.applier.applied = held.committed
        if held.vote is not None:
            until_s = self._loop.time() + self.settings.longest_election_s
            self.held.remember(held.vote, until_s)
        await self._hub.start()
        self.applier.start()
        self.started_s = self._loop.time()
        self.core.start(self.started_s)
        self._perform()
        self._ticker = self._loop.call_later(TICK_S, self._tick)

    async def _make_core(self, env: db.DBEnv) -> library.LogStanding:
        """Read what this site holds."""

        def read() -> tuple[int, library.LogStanding]:
            held = library.standing(env)
            self._last_commit = library.last_commit(env) or LSN_ZERO
            self.tokens.start(lsn_history.read(env))
            return env.get_lg_max(), held

        self._log_file_bytes, held = await asyncio.wrap_future(self._calls.submit(read))
        members = self._memory.sites
        if not self.settings.witness:
            read_list = self._calls.submit(lambda: gmdb.read(env, held.generation))
            members = await asyncio.wrap_future(read_list)
        own = standing.at_start(self.settings, held, members, self._memory)
        self.core = Core(self.settings, own, members, self._memory, self._new_group_id)
        return held

    def _wire(self, library_: Library) -> None:
        """Make the parts and tie them together."""
        env, settings, loop = library_.env, self.settings, self._loop
        local = settings.local
        self._acks = Acknowledger(self._ready_links, self.held)
        upcalls = Upcalls(
            loop,
            env,
            self.core,
            self.journal,
            self._syncs,
            self._acks,
            self._tasks,
            self.hooks,
            self.tokens.advanced,
        )
        kind = WitnessApplier if settings.witness else Applier
        self.applier = kind(
            env,
            upcalls,
            is_choked=self.bridge.is_choked,
            flush_links=self.bridge.flush,
            bytes_max=settings.apply_bytes_max,
            held=self.held,
            flush=self._flush_applied,
        )
        self.applier.rollback.permitted = self.permitted_rollback
        library_.adopt(self.applier)
        self._signs = SignsOfLife(self.core)
        self._link_events = LinkEvents(
            loop,
            self.core,
            self.confirmations,
            self.applier,
            self.journal,
            self.standing,
            self._acked,
            self._wiped,
            self.tokens.told,
        )
        site = LocalSite(local.host, local.port, settings.priority, int(settings.ack_policy))
        self._hub = Hub(loop, site, self._listen, self._link_events)
        work = LibraryWork(
            env,
            self._calls,
            library_.worker("election"),
            self.core,
            self.held,
            self._became_master,
            upcalls.broken,
        )
        membership = MembershipWork(
            env, self._calls, self.core, self.journal, self.roster, self.bridge
        )
        handover = HandoverWork(
            env,
            self.core,
            work,
            self.bridge,
            self.table,
            self.pending,
            self.hooks.writers,
            self._send_stable,
        )
        outreach = Outreach(loop, self._hub, self.core)
        means = Means(
            self._hub,
            self.bridge,
            self.journal,
            outreach,
            work,
            membership,
            handover,
            self._tasks,
            self.standing,
            self._keep,
        )
        self._performer = Performer(self.core, means, self._changed)
        self.site_changes = SiteChanges(self.core, self._hub, self._performer)
        self.switchover = Switchover(self.core, handover, self._performer)
        self.comparisons = Comparisons(
            loop, env, library_, self.applier, self.core, self._hub, self.journal
        )
        self.errands = Errands(self.core, self._hub, self._tasks.spawn, self.hooks.errand)
        self.clocks = Clocks(self._hub, self.core.sites)
        own = self.comparisons.hears() | self.errands.hears() | self.clocks.hears()
        self._link_events.attach(self._hub, self._performer, own)
        upcalls.attach(self._hub, self.applier, work, membership, self._performer)
        self._upcalls = upcalls

    async def stop(self) -> None:
        """Close all links and end all tasks; the environment's threads are its owner's to stop."""
        self._stopping = True
        self.tokens.close()
        if self._ticker is not None:
            self._ticker.cancel()
        if self._upcalls is None:
            return  # it never got that far
        # What was answered OK since the last tick must be remembered, here and elsewhere.
        self._send_stable()
        self._note_holdings()
        self.pending.end("the site is stopping")
        self._link_events.stop()
        self.comparisons.stop()
        self._hub.stop()
        await self._tasks.stop()
        # By the thread that saved it before: two at once would damage the file.
        last = self._save_memory(self.core.memory)
        await asyncio.wait([last], timeout=MEMORY_SAVE_S)

    # -- what others ask -----------------------------------------------------------------------

    @property
    def role(self) -> str:
        if self.core.is_master or self.core.handover.keeps_clients:
            return "master"
        if self.settings.witness:
            return "witness"
        if self.core.master_link is not None:
            return "replicant"
        if self.core.phase is Phase.FOLLOWING:
            return "electing" if self._ran or self.core.electing else "replicant"
        return "none"

    @property
    def state(self) -> str:
        if self._stopping:
            return "stop-pending"
        settled = self.core.complete and self.core.question is None
        there = settled or self.settings.witness
        return "running" if self._ran and there else "start-pending"

    @property
    def serving(self) -> bool:
        """Reads can be answered: the copy here is complete."""
        return self.core.complete and self.core.phase is not Phase.TAKING_OVER

    @property
    def master(self) -> SiteAddress | None:
        return self.core.master

    @property
    def master_clients(self) -> SiteAddress | None:
        """Where the master serves clients, as far as it told."""
        if self.core.is_master:
            return self._clients
        state = self.core.sites.get(self.core.master)
        return state.standing.clients if state and state.standing else None

    @property
    def generation(self) -> int:
        return self.core.generation

    @property
    def applied(self) -> LSN:
        """The last permanent LSN here: written as master, or applied and flushed."""
        return self.bridge.last_permanent if self.core.is_master else self.applier.applied

    @property
    def sync_received(self) -> SyncProgress | None:
        """The initial sync that this site receives, or received last."""
        return self._syncs.received

    def sync_sent_bytes(self, eid: int) -> int:
        """Bytes of pages sent to a site in its last initial sync."""
        return self._syncs.sent_bytes(eid)

    def stop_confirming(self) -> None:
        """Writes are no longer taken here: answer those that wait."""
        cut_off = self.cut_off()
        if cut_off is not None:
            self.pending.refuse(cut_off)  # it may take writes again in this generation
        else:
            self.pending.end("this site is no longer master")

    def cut_off(self) -> str | None:
        """Say why this master may take no write and answer none OK. *Thread:* any."""
        if not self.core.is_master:
            return None
        # Not the loop's time: a process that was stopped must see how long at once.
        return self.core.rounds.contact.refusal(time.monotonic())

    def log_needs(self) -> tuple[LogNeed, ...] | None:
        """What the other members may still need of the log; None: not known yet. *Thread:* any."""
        return self._log_needs

    def now_s(self) -> float:
        """The loop's clock, which all times here are of."""
        return self._loop.time()

    def silent_s(self) -> float | None:
        """Seconds since anything came from a master; None for never."""
        heard_s = self.core.heartbeats.master_heard_s
        return None if heard_s is None else max(0.0, self._loop.time() - heard_s)

    def lag(self) -> tuple[int | None, float | None]:
        """How far this site is behind its master: bytes of log, seconds; None while unknown."""
        if self.core.is_master:
            return 0, 0.0
        ahead = self.core.heartbeats.master_lsn
        if ahead is None or self.core.master_link is None or self.settings.witness:
            return None, self.silent_s()
        behind = self.applier.applied
        if behind >= ahead:
            return 0, 0.0
        files = (ahead.file - behind.file) * self._log_file_bytes
        since_s = self.core.heartbeats.behind_since_s
        lag_s = 0.0 if since_s is None else self._loop.time() - since_s
        return files + ahead.offset - behind.offset, round(lag_s, 3)

    def ask_operator(self, why: str, hint: str) -> None:
        """Take no role before the operator has decided: by `promote`, or by a new start."""
        self.core.question = Decision(Start.WAIT, why=why, hint=hint)
        self.core.wait(self._loop.time(), why, hint)
        self._perform()

    def promote(self, *, over_native: bool = False) -> None:
        """Become master by the operator's word.

        Args:
            over_native: also while a native site is master.

        Raises:
            ReplicationError: it is master already, follows a living one, or is syncing.
        """
        must_be_possible(self.core, over_native=over_native)
        self.core.promote()
        self._perform()

    async def survey(self) -> Survey:
        """Find out what `promote` would cost: ask every other member what it holds."""
        return await survey(self.core, self._hub, self.applied)

    def standing(self) -> Standing:
        """What this site says of itself to another ttserver site."""
        return standing.describe(self.core, self.applied, self.pending.stable, self._clients)

    # -- the clock -----------------------------------------------------------------------------

    def _tick(self) -> None:
        now_s = self._loop.time()
        self._ticker = self._loop.call_later(TICK_S, self._tick)
        self._link_events.tick()
        self._signs.look(now_s, self._hub.links())
        # The bridge's clock is time.monotonic, as is the loop's.
        self.core.tick(now_s, self.bridge.last_broadcast_s, self.applied, self._sync_progress())
        self.pending.expire(now_s)
        self.clocks.tick(now_s)
        self.held.expire(now_s)
        if not self._ran:
            core, waited = self.core, now_s - self.started_s >= self.settings.start_wait_s
            there = core.complete or (self.settings.witness and core.phase is Phase.FOLLOWING)
            votes = self.settings.witness and core.master_link is not None
            if core.startup_done or core.is_master or votes or (there and waited):
                self._ran = True
                self.hooks.role_changed()
        self._send_stable()
        if now_s - self._held_s >= HOLDINGS_S:
            self._held_s = now_s
            self._note_holdings()
        if self.core.is_master:
            self._beginnings.tell()
        self._keep_memory(now_s)
        if now_s - self._journal_checked_s >= JOURNAL_CHECK_S:
            self._journal_checked_s = now_s
            self.journal.rotate_if_due()
        self._syncs.tick(now_s, self.core.sites, syncing=self.core.syncing)
        self.bridge.flush()
        self._perform()

    def _sync_progress(self) -> int:
        """A number that changes whenever something came that a sync needs."""
        received = self._syncs.received
        if self.core.catch_up.syncing and received and received.pages_done < received.pages_total:
            return received.pages_done  # log of a busy master comes as well, and is no use yet
        return self.applier.messages

    def _send_stable(self) -> None:
        if not self.core.is_master or self.pending.stable <= self._stable_sent:
            return
        self._stable_sent = self.pending.stable
        self.core.stable(self._stable_sent)
        body = bodies.encode_stable_lsn(self.core.generation, self._stable_sent)
        self._hub.tell(wire.encode_own(OwnCode.STABLE_LSN, body))

    def _keep(self, kept: memory.Memory) -> None:
        self._save_memory(kept)

    def _note_holdings(self) -> None:
        note_holdings(self.core, self.table, self.applier, self._link_events.early_ack)
        self._log_needs = self.core.holdings.needs(self.core.members())

    def _keep_memory(self, now_s: float) -> None:
        kept = self.core.memory
        if kept != self._saved_memory and now_s - self._memory_saved_s >= MEMORY_SAVE_S:
            self._save_memory(kept)

    def _save_memory(self, kept: memory.Memory) -> asyncio.Future[None]:
        self._saved_memory = kept
        self._memory_saved_s = self._loop.time()
        saved = asyncio.wrap_future(
            self._calls.submit(lambda: memory.save(self._memory_path, kept))
        )
        saved.add_done_callback(self._memory_saved)
        return saved

    def _memory_saved(self, saved: asyncio.Future[None]) -> None:
        if not saved.cancelled() and (error := saved.exception()) is not None:
            self._saved_memory = self._memory  # so that it is tried again
            if not self._stopping:
                why, hint = str(error), f"make room or correct the rights of {self._memory_path}"
                self.journal.write("alarm_raised", alarm="not remembered", why=why, hint=hint)

    # -- changes -------------------------------------------------------------------------------

    def _perform(self) -> None:
        self._performer.run()

    def _changed(self) -> None:
        """Roles or links are others now."""
        if self._leads and not self.core.is_master:
            # What was written here as master is here as a client.
            self.applier.led_to(self.bridge.last_permanent)
        self._leads = self.core.is_master
        self._route()
        self._link_events.take_back()
        self.applier.refuses_copy = self.core.catch_up.tries.given_up is not None
        self.roster.rebuild(self.core)
        self._log_needs = self.core.holdings.needs(self.core.members())
        if not self.core.is_master:
            self.pending.end("this site is no longer master")
        self.pending.sites_changed()
        self.tokens.changed()
        self.hooks.role_changed()

    def _where(self) -> Where:
        return where_is(self.core, self.applier, self.bridge.last_permanent, self._last_commit)

    async def _read_history(self) -> lsn_history.OwnHistory:
        env = self._env
        return await asyncio.wrap_future(self._calls.submit(lambda: lsn_history.read_own(env)))

    def _route(self) -> None:
        """Each site's messages go to its first released link, acks to the master."""
        for state in self.core.sites.values():
            chosen = state.link
            link = self._hub.link(chosen.number) if chosen else None
            witness = state.address in self.core.memory.witnesses
            self.bridge.set_link(state.eid, link, witness=witness)
        peer = self.core.catch_up.peer(self.core.master)
        link = self._hub.link(peer.link.number) if peer and peer.link else None
        self.bridge.set_peer(peer.eid if peer else 0, link)
        changed = self._acks.route(self._ack_links())
        # What was applied before the link was known to be the master's, said now. Not what is of
        # an earlier generation: the new master may never have had it.
        if changed and self.applier.applied_generation == self.core.generation:
            self._acks.send(self.core.generation, self.applier.applied)

    def _ack_links(self) -> list[Link]:
        master = self.core.sites.get(self.core.master)
        if master is None:
            return []
        first = self._hub.link(master.link.number) if master.link else None
        if first is not None and not wants_acks(first, self.settings.priority):
            return []
        links = (self._hub.link(link.number) for link in master.links if link.released)
        return [link for link in links if link is not None]

    def _became_master(self, generation: int, permanent: LSN) -> None:
        self.lagging.clear()
        if generation > self.core.generation + 1:
            self.journal.write("generation_raised", from_=self.core.generation, to=generation)
        self.confirmations.begin(generation, self.core)
        self._stable_sent = LSN_ZERO
        self._link_events.began_generation(generation)
        self.bridge.last_permanent = max(self.bridge.last_permanent, permanent)
        # What the library wrote to make this site master is not sent as permanent.
        self.hooks.permanent(permanent)

    def _acked(self, eid: int, lsn: LSN) -> None:
        """A site got further. *Thread:* any."""
        if eid in self.lagging:
            later(self._loop, self._check_caught_up, eid, lsn)
        self.hooks.acked()

    def _check_caught_up(self, eid: int, lsn: LSN) -> None:
        target, since_s = self.lagging.get(eid, (LSN_MAX, 0.0))
        state = self.core.sites.by_eid(eid)
        if lsn >= target and state is not None:
            del self.lagging[eid]
            seconds = self._loop.time() - since_s
            self.journal.write("site_caught_up", site=state.address, seconds=seconds)

    def _wiped(self, eid: int) -> None:
        self.table.forget(eid)
        self.roster.rebuild(self.core)

    def _ready_links(self) -> Sequence[Link]:
        return self._hub.links()

    def _task_failed(self, error: BaseException) -> None:
        self.journal.write("alarm_raised", alarm="internal error", why=repr(error), hint="-")

    # -- called by library threads -------------------------------------------------------------

    def _library_event(self, _env: db.DBEnv, what: int, argument: Any = None) -> None:
        """The library's event callback. *Thread:* any; it must not call the library."""
        later(self._loop, self._on_library_event, what, argument)

    def _on_library_event(self, what: int, argument: Any) -> None:
        if self._upcalls is not None and not self._stopping:
            self._upcalls.library_event(what, argument)

    def _sync_sent_from_thread(self, eid: int, kind: int, record: bytes) -> None:
        if self._upcalls is not None:
            self._upcalls.sync_sent(eid, kind, record)

    def _stalled_from_thread(self, link: Link, over_s: float) -> None:
        later(self._loop, self._on_stalled, link, over_s)

    def _on_stalled(self, link: Link, over_s: float) -> None:
        state = self.core.sites.links.get(link.number)
        if state is not None:
            site = state.site
            self.journal.write("link_stalled", site=site.address, queued_bytes=link.queued_bytes)
            reason = f"it took no data for {over_s:.1f} s"
            self.journal.write("site_lagging", site=site.address, reason=reason)
            self.lagging[site.eid] = (self.bridge.last_permanent, self._loop.time())
        link.abort(f"its queue was full for {over_s:.1f} s; it catches up from the log")
