"""The Replication Manager: executes what the core decides, on an environment and real sockets.

    library threads                      event loop                        other sites
    commit, apply -> Bridge.send ------- (queues of the links) ----------> frames
    Applier <-------------------------- Hub: links, frames <-------------- frames
    events, answers -------------------> Core: decides -> effects
    Worker (rep_start, membership) <---- effects

Everything here runs in the event loop except the methods marked otherwise.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from berkeleydb import db

from replication import acks, bodies, coldstart, effects, gmdb, library, memory, wire
from replication.acks import AckTable, SiteAck
from replication.apply import WOULD_ROLLBACK, Applier
from replication.bodies import SiteAddress, Standing
from replication.bridge import Bridge
from replication.core import Core, Phase, SiteState
from replication.errors import ReplicationError
from replication.hub import Hub, later
from replication.journal import Journal
from replication.link import Link
from replication.membership import Membership
from replication.messages import AckPolicy, OwnCode, RepType, SiteStatus, StandingFlag
from replication.peer import LocalSite
from replication.peer_events import (
    Ack,
    Event,
    Forwarded,
    Heartbeat,
    Joined,
    MembershipShared,
    ParametersChanged,
    Rejected,
    RequestReceived,
    RequestUnsupported,
    SiteIdentified,
    StableLsn,
    StandingAsked,
    StandingReceived,
)
from replication.pending import Pending, Waiting
from replication.progress import SyncProgress, parse_list
from replication.settings import GroupSettings
from replication.wire import LSN, LSN_ZERO, Frame

T = TypeVar("T")
log = logging.getLogger(__name__)

TICK_S = 0.05
SELF_EID = 1
MEMORY_SAVE_S = 1.0  # the stable LSN is written at most this often
JOIN_TIMEOUT_S = 10.0
PROGRESS_EVERY_S = 1.0


class Calls(Protocol):
    """A thread that runs calls one after the other (storage's Worker)."""

    def submit(self, call: Callable[[], T]) -> Future[T]: ...


class Stoppable(Protocol):
    def stop(self) -> None: ...
    def join(self, timeout: float | None = None) -> None: ...
    def is_alive(self) -> bool: ...


class Library(Protocol):
    """What the manager needs of the environment's owner (storage.environment.Environment)."""

    @property
    def env(self) -> db.DBEnv: ...
    def worker(self, name: str) -> Calls: ...
    def adopt(self, thread: Stoppable) -> None: ...


@dataclass(slots=True)
class Hooks:
    """Whom the manager tells, in the event loop.

    Args:
        role_changed: role, master, generation, state or serving may be another one.
        handles_died: databases must be opened again.
        confirmed: (token, None) when a write's policy held, (token, text) when it did not.
        acked: a site acknowledged more than before.
        permanent: (LSN) a permanent record was written. *Thread:* the one that commits.
        panicked: the library needs recovery. *Thread:* any.
    """

    role_changed: Callable[[], None]
    handles_died: Callable[[], None]
    confirmed: Callable[[Any, str | None], None]
    acked: Callable[[], None]
    permanent: Callable[[tuple[int, int]], None]
    panicked: Callable[[Exception], None]


class Manager:
    """See the module's text.

    Args:
        settings: the operator's decisions.
        listen: where to listen; the local site's address unless the operator says otherwise.
        clients: where this site serves clients, told to the others.
        journal: `$DB_Msg.txt`.
        memory_path: the file beside the environment.
        hooks: whom to tell.
        flush_applied: flush before acknowledging as a replicant.
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
        self.core: Core
        self.table = AckTable(0)
        self.pending = Pending(
            self.table, self._site_acks, self._confirm, two_site_strict=settings.two_site_strict
        )
        self.bridge = Bridge(
            queue_bytes_max=settings.queue_bytes_max,
            link_stall_s=settings.link_stall_s,
            on_permanent=hooks.permanent,
            on_stalled=self._stalled_from_thread,
            on_sync_message=self._sync_sent_from_thread,
        )
        self.sync_received: SyncProgress | None = None
        self.sync_sent: dict[int, SyncProgress] = {}
        self.rollbacks = 0
        self.lagging: set[int] = set()
        self.started_s = 0.0
        self._memory_path = memory_path
        self._memory = memory.load(memory_path)
        self._saved_memory = self._memory
        self._memory_saved_s = 0.0
        self._clients = clients
        self._listen = listen
        self._new_group_id = new_group_id
        self._flush_applied = flush_applied
        self._loop: asyncio.AbstractEventLoop
        self._hub: Hub
        self._library: Library
        self._calls: Calls
        self._votes: Calls
        self._applier: Applier
        self._tasks: set[asyncio.Task[None]] = set()
        self._ticker: asyncio.TimerHandle | None = None
        self._requests: dict[int, Link] = {}
        self._ack_links: tuple[Link, ...] = ()
        self._ack_file = 0
        self._ran = False
        self._stopping = False
        self._sites_cache: list[SiteAck] | None = None
        self._journaled_progress_s = 0.0
        self._stable_sent = LSN_ZERO
        self._log_file_bytes = 0

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
        self._loop = asyncio.get_running_loop()
        self._library = library_
        self._calls = library_.worker("replication")
        self._votes = library_.worker("election")
        env = library_.env
        self._applier = Applier(
            env,
            self,
            is_choked=self.bridge.is_choked,
            flush_links=self.bridge.flush,
            bytes_max=self.settings.apply_bytes_max,
            flush=self._flush_applied,
        )
        library_.adopt(self._applier)
        self._log_file_bytes = await self._call(env.get_lg_max)
        held = await self._call(lambda: library.standing(env))
        members = await self._call(lambda: gmdb.read(env, held.generation))
        self._applier.applied = held.last_lsn
        local = self.settings.local
        own = coldstart.OwnStanding(
            local,
            self.settings.priority,
            held.generation,
            held.last_lsn,
            empty=held.last_lsn == LSN_ZERO,
            has_membership=members is not None and members.is_present(local),
            creator=self.settings.creator,
            remembers_group=bool(self._memory.group_id),
            group_id=self._memory.group_id,
            stable_lsn=self._memory.stable_lsn,
        )
        self.core = Core(self.settings, own, members, self._memory, self._new_group_id)
        site = LocalSite(
            local.host, local.port, self.settings.priority, int(self.settings.ack_policy)
        )
        self._hub = Hub(self._loop, site, self._listen, self)
        await self._hub.start()
        self._applier.start()
        self.started_s = self._loop.time()
        self.core.start(self.started_s)
        self._perform()
        self._ticker = self._loop.call_later(TICK_S, self._tick)

    async def stop(self) -> None:
        """Close all links and end all tasks; the environment's threads are its owner's to stop."""
        self._stopping = True
        if self._ticker is not None:
            self._ticker.cancel()
        self.pending.fail_all("the site is stopping")
        self._hub.stop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        memory.save(self._memory_path, self.core.memory)

    # -- what others ask -----------------------------------------------------------------------

    @property
    def role(self) -> str:
        if self.core.is_master:
            return "master"
        if self.core.master_link is not None:
            return "replicant"
        if self.core.phase is Phase.FOLLOWING:
            return "electing" if self._ran or self.core.electing else "replicant"
        return "none"

    @property
    def state(self) -> str:
        if self._stopping:
            return "stop-pending"
        return "running" if self._ran and self.core.complete else "start-pending"

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
        state = self.core.sites.get(self.core.master) if self.core.master else None
        return state.standing.clients if state and state.standing else None

    @property
    def generation(self) -> int:
        return self.core.generation

    @property
    def applied(self) -> LSN:
        """The last permanent LSN here: written as master, or applied and flushed."""
        return self.bridge.last_permanent if self.core.is_master else self._applier.applied

    @property
    def applier(self) -> Applier:
        return self._applier

    def confirm(
        self,
        lsn: LSN,
        token: Any,
        *,
        policy: AckPolicy | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """Call `hooks.confirmed(token, ...)` when this commit has met its policy, or has not."""
        if not self.core.is_master:
            self.hooks.confirmed(token, "the site is no longer master")
            return
        deadline_s = self._loop.time() + (timeout_s or self.settings.ack_timeout_s)
        self.pending.add(Waiting(lsn, policy or self.settings.ack_policy, deadline_s, token))

    def acked_by(self, lsn: LSN) -> int:
        """How many other sites acknowledged this LSN."""
        return sum(1 for site in self._site_acks() if site.acked and site.acked >= lsn)

    def connected_acking(self) -> int:
        """How many members could acknowledge now."""
        return sum(1 for site in self._site_acks() if site.connected and site.counts)

    def oldest_needed_log(self) -> int | None:
        """The first log file that a member may still need; None: keep all. *Thread:* any."""
        files = []
        for site in self._site_acks():
            if site.acked is None:
                return None
            files.append(site.acked.file)
        return min(files, default=self.bridge.last_permanent.file or None)

    def now_s(self) -> float:
        """The loop's clock, which all times here are of."""
        return self._loop.time()

    def silent_s(self) -> float | None:
        """Seconds since anything came from a master; None for never."""
        heard_s = self.core.master_heard_s
        return None if heard_s is None else max(0.0, self._loop.time() - heard_s)

    def lag(self) -> tuple[int | None, float | None]:
        """How far this site is behind its master: bytes of log, seconds; None while unknown."""
        if self.core.is_master:
            return 0, 0.0
        ahead = self.core.master_lsn
        if ahead is None or self.core.master_link is None:
            return None, self.silent_s()
        behind = self._applier.applied
        if behind >= ahead:
            return 0, 0.0
        files = (ahead.file - behind.file) * self._log_file_bytes
        since_s = self.core.behind_since_s
        lag_s = 0.0 if since_s is None else self._loop.time() - since_s
        return files + ahead.offset - behind.offset, round(lag_s, 3)

    def promote(self) -> None:
        """Become master by the operator's word.

        Raises:
            ReplicationError: it is master already, or syncing.
        """
        if self.core.is_master:
            raise ReplicationError(
                "this site is master already", code="already", hint="nothing to do."
            )
        if self.core.syncing:
            raise ReplicationError(
                "this site is receiving a copy of the database and cannot become master",
                code="syncing",
                hint="wait for the sync to end, or promote a site that holds a complete copy.",
            )
        self.core.promote()
        self._perform()

    def site_acks(self) -> Sequence[SiteAck]:
        """The other members as the ack policies see them."""
        return self._site_acks()

    # -- the clock -----------------------------------------------------------------------------

    def _tick(self) -> None:
        now_s = self._loop.time()
        self._ticker = self._loop.call_later(TICK_S, self._tick)
        for link in self._hub.links():
            state = self.core.links.get(link.number)
            if state is not None and link.bytes_in != state.bytes_in:
                state.bytes_in, state.heard_s = link.bytes_in, now_s
                state.site.heard_s = now_s
                if state is self.core.master_link:
                    self.core.master_heard_s = now_s
        # The bridge's clock is time.monotonic, as is the loop's.
        self.core.tick(now_s, self.bridge.last_broadcast_s)
        self.pending.expire(now_s)
        if not self._ran:
            waited = now_s - self.started_s >= self.settings.start_wait_s
            if self.core.startup_done or self.core.is_master or (self.core.complete and waited):
                self._ran = True
                self.hooks.role_changed()
        self._send_stable()
        self._keep_memory(now_s)
        self._journal_progress(now_s)
        self.bridge.flush()
        self._perform()

    def _send_stable(self) -> None:
        if not self.core.is_master or self.pending.stable <= self._stable_sent:
            return
        self._stable_sent = self.pending.stable
        self.core.stable(self._stable_sent)
        body = bodies.encode_stable_lsn(self.core.generation, self._stable_sent)
        for link in self._hub.links():
            if link.released and link.peer.remote and not link.peer.remote.native:
                link.write(wire.encode_own(OwnCode.STABLE_LSN, body))

    def _keep_memory(self, now_s: float) -> None:
        kept = self.core.memory
        if kept != self._saved_memory and now_s - self._memory_saved_s >= MEMORY_SAVE_S:
            self._save_memory(kept)

    def _save_memory(self, kept: memory.Memory) -> None:
        self._saved_memory = kept
        self._memory_saved_s = self._loop.time()
        self._calls.submit(lambda: memory.save(self._memory_path, kept))

    # -- effects -------------------------------------------------------------------------------

    def _perform(self) -> None:
        """Do what the core decided; things it decides meanwhile are done as well."""
        changed = False
        while pending := self.core.take():
            for effect in pending:
                changed = self._do(effect) or changed
        if changed:
            self._update_links()
            self.hooks.role_changed()

    def _do(self, effect: effects.Effect) -> bool:
        """Do one thing; True when roles or links changed."""
        match effect:
            case effects.Note(event, facts):
                self.journal.write(event, **facts)
                log.info("replication %s %s", event, facts)
            case effects.Probe(address, timeout_s):
                self._spawn(self._probe(address, timeout_s))
            case effects.Join(address):
                self._spawn(self._join(address))
            case effects.Dial(address):
                self._spawn(self._dial(address))
            case effects.CloseLink(number, reason):
                if (link := self._hub.link(number)) is not None:
                    link.close(reason)
            case effects.ReleaseLink(number):
                self._release(number)
                return True
            case effects.SendOwn(number, code, body):
                if (link := self._hub.link(number)) is not None:
                    link.write(wire.encode_own(code, body))
            case effects.SendStanding(number):
                if (link := self._hub.link(number)) is not None:
                    body = bodies.encode_standing(self.standing())
                    link.write(wire.encode_own(OwnCode.SITE_STANDING, body))
            case effects.SendHeartbeat():
                generation, lsn = self.core.generation, self.bridge.last_permanent
                self.bridge.broadcast(wire.encode_heartbeat(generation, lsn))
            case effects.SaveMemory(kept):
                self._save_memory(kept)
            case effects.Answer(request, code, body):
                if (link := self._requests.pop(request, None)) is not None and not link.is_closed:
                    link.peer.answer(OwnCode(code), body)
                    link.send_machine_output()
            case effects.RoleChanged():
                return True
            case _:
                self._do_in_library(effect)
        return False

    def _do_in_library(self, effect: effects.Effect) -> None:
        env = self._library.env
        match effect:
            case effects.StartClient():
                self._spawn(self._start_client())
            case effects.StartMaster(generation_above):
                self._spawn(self._start_master(generation_above))
            case effects.Elect(nsites, nvotes):
                self._spawn(self._elect(nsites, nvotes))
            case effects.LoadMembership():
                self._spawn(self._load_membership())
            case effects.ChangeMembership(steps, request):
                self._spawn(self._change_membership(env, steps, request))
            case _:
                raise AssertionError(f"no way to do {effect}")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        if self._stopping:
            work.close()
            return
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # A bug of ours: said loudly, and the manager goes on.
            log.error("replication_task_failed", exc_info=error)
            self.journal.write("alarm_raised", alarm="internal error", why=repr(error), hint="-")
        if not self._stopping:
            self._perform()

    async def _call(self, call: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self._calls.submit(call))

    async def _probe(self, address: SiteAddress, timeout_s: float) -> None:
        try:
            event = await self._hub.ask(address, OwnCode.SITE_QUERY, timeout_s)
        except ReplicationError as error:
            answer = coldstart.Answer(address, reason=str(error))
        else:
            match event:
                case StandingReceived(standing):
                    answer = coldstart.Answer(address, standing)
                case RequestUnsupported():
                    answer = coldstart.Answer(address, native=True, reason="a native site")
                case _:
                    answer = coldstart.Answer(address, reason="it gave no answer")
        self.core.probe_done(self._loop.time(), answer)

    async def _join(self, address: SiteAddress) -> None:
        try:
            event = await self._hub.ask(address, OwnCode.JOIN_REQUEST, JOIN_TIMEOUT_S)
        except ReplicationError as error:
            self.core.join_failed(self._loop.time(), str(error))
            return
        match event:
            case Joined(sites):
                self.core.joined(self._loop.time(), Membership.from_list(sites))
            case Forwarded(to, generation):
                self.core.join_forwarded(self._loop.time(), to, generation)
            case _:
                self.core.join_failed(self._loop.time(), f"{address} is not master and knows none")

    async def _dial(self, address: SiteAddress) -> None:
        try:
            await self._hub.dial(address)
        except ReplicationError as error:
            self.core.dial_failed(self._loop.time(), address, str(error))

    async def _start_client(self) -> None:
        env = self._library.env
        try:
            await self._call(lambda: library.start_client(env))
        except db.DBError as error:
            self.broken(0, error)

    async def _start_master(self, generation_above: int) -> None:
        env = self._library.env
        repeated = self.core.is_master
        try:
            generation = await self._call(lambda: library.start_master(env, generation_above))
        except db.DBError as error:
            self.core.takeover_failed(self._loop.time(), str(error.args[-1]))
            return
        if repeated:
            return
        self.table.start_generation(generation)
        self.pending.sites_changed()
        self._stable_sent = LSN_ZERO
        held = await self._call(lambda: library.standing(env))
        self.bridge.last_permanent = max(self.bridge.last_permanent, held.last_lsn)
        self.core.became_master(generation)

    async def _elect(self, nsites: int, nvotes: int) -> None:
        env = self._library.env
        outcome = await asyncio.wrap_future(
            self._votes.submit(lambda: library.elect(env, nsites, nvotes))
        )
        self.core.election_over(self._loop.time(), outcome)

    async def _load_membership(self) -> None:
        env, generation = self._library.env, self.core.generation
        try:
            members = await self._call(lambda: gmdb.read(env, generation))
        except (ReplicationError, db.DBError) as error:
            self.journal.write("membership_change_failed", reason=str(error))
            return
        self.core.membership_loaded(self._loop.time(), members)

    async def _change_membership(
        self, env: db.DBEnv, steps: tuple[Membership, ...], request: int | None
    ) -> None:
        generation = self.core.generation
        try:
            members = await self._call(lambda: gmdb.write(env, steps, generation))
        except (ReplicationError, db.DBError) as error:
            self.core.membership_failed(request, str(error))
        else:
            self.core.membership_changed(members, request)

    # -- links ---------------------------------------------------------------------------------

    def standing(self) -> Standing:
        """What this site says of itself to another ttserver site."""
        core = self.core
        flags = StandingFlag(0)
        if core.complete:
            flags |= StandingFlag.COMPLETE_COPY
        if core.is_master:
            flags |= StandingFlag.MASTER
        if self._is_empty():
            flags |= StandingFlag.EMPTY
        if self.settings.creator:
            flags |= StandingFlag.GROUP_CREATOR
        if core.membership is not None and core.own.has_membership:
            flags |= StandingFlag.HAS_MEMBERSHIP
        version, generation = core.rejection
        return Standing(
            max(core.generation, core.memory.generation),
            max(self.applied, core.own.last_lsn),
            max(core.memory.stable_lsn, self.pending.stable),
            self.settings.priority,
            int(flags),
            version,
            generation,
            None,
            core.master,
            core.memory.group_id,
            self._clients,
        )

    def _is_empty(self) -> bool:
        return self.core.own.empty and not self.core.complete

    def _release(self, number: int) -> None:
        link = self._hub.link(number)
        state = self.core.links.get(number)
        if link is None or state is None:
            return
        link.eid = state.site.eid
        self._hub.release(link)

    def _update_links(self) -> None:
        """Route each site's messages to its first released link, and acks to the master."""
        for state in self.core.sites.values():
            chosen = state.link
            self.bridge.set_link(state.eid, self._hub.link(chosen.number) if chosen else None)
        self._sites_cache = None
        self.pending.sites_changed()
        master = self.core.sites.get(self.core.master) if self.core.master else None
        links = []
        if master is not None and self._master_wants_acks(master):
            links = [self._hub.link(link.number) for link in master.links if link.released]
        before = self._ack_links
        self._ack_links = tuple(link for link in links if link is not None)
        if self._ack_links and self._ack_links != before and self._applier.applied != LSN_ZERO:
            # What was applied before the link was known to be the master's, said now.
            self._send_ack(self.core.generation, self._applier.applied)

    def _master_wants_acks(self, master: SiteState) -> bool:
        link = master.link
        remote = self._hub.link(link.number) if link else None
        if remote is None or remote.peer.remote is None:
            return True
        policy = remote.peer.remote.ack_policy
        if policy == AckPolicy.NONE:
            return False
        peers = (AckPolicy.ALL_PEERS, AckPolicy.ONE_PEER, AckPolicy.QUORUM)
        # A ttserver master counts who has what for retention and WAIT, so it gets all acks.
        return not (remote.peer.remote.native and self.settings.priority == 0 and policy in peers)

    def admits(self, site: SiteIdentified) -> bool:
        """Hub: whether the site that dialled in is a member."""
        return self.core.admits(site.address)

    def rejection(self) -> tuple[int, int]:
        """Hub: what a site is told that is no member."""
        return self.core.rejection

    def ready(self, link: Link, site: SiteIdentified, *, outgoing: bool) -> None:
        """Hub: a link finished its handshake."""
        self.journal.write("version_agreed", site=site.address, version=4)
        self.core.link_ready(
            self._loop.time(),
            link.number,
            site.address,
            outgoing=outgoing,
            native=site.native,
            electable=site.electable,
            subordinate=site.subordinate,
            priority=site.priority,
        )
        if self.core.is_present(site.address):
            version, generation = self.core.rejection
            self.journal.write(
                "member_confirmed",
                site=site.address,
                members=len(self.core.members()) + 1,
                version=version,
            )
        self._perform()

    def event(self, link: Link, event: Event) -> None:
        """Hub: a ready link said something that is no replication message."""
        now_s = self._loop.time()
        match event:
            case Ack(generation, lsn):
                if link.eid and self.table.record(link.eid, generation, lsn):
                    self._acked(link.eid, lsn)
                return
            case Heartbeat(generation, lsn):
                self.core.heartbeat(now_s, link.number, generation, lsn, self._applier.applied)
            case StableLsn(generation, lsn):
                if generation == self.core.generation:
                    self.core.stable(lsn)
                return
            case StandingReceived(standing):
                self._on_standing(link, standing)
            case StandingAsked():
                body = bodies.encode_standing(self.standing())
                link.write(wire.encode_own(OwnCode.SITE_STANDING, body))
            case MembershipShared(sites):
                self.core.membership_shared(Membership.from_list(sites))
            case ParametersChanged(_, electable):
                self.core.parameters_changed(link.number, electable=electable)
            case Rejected(version, generation):
                state = self.core.links.get(link.number)
                if state is not None:
                    self.core.rejected(now_s, state.site.address, version, generation)
            case _:
                log.info("own_message_ignored from=%s event=%s", link.remote_name, event)
        self._perform()

    def _on_standing(self, link: Link, standing: Standing) -> None:
        state = self.core.links.get(link.number)
        if state is not None:
            self.journal.write(
                "generation_confirmed",
                site=state.site.address,
                generation=standing.generation,
                lsn=standing.last_lsn,
            )
            acked = self.table.acked(state.site.eid)
            if acked is not None and standing.last_lsn < acked:
                self.table.forget(state.site.eid)  # wiped: it no longer has what it acknowledged
        self.core.standing(self._loop.time(), link.number, standing)

    def _acked(self, eid: int, lsn: LSN) -> None:
        cache = self._sites_cache
        if cache is not None:
            for at, site in enumerate(cache):
                if site.eid == eid:
                    cache[at] = replace(site, acked=lsn)
        self.lagging.discard(eid)
        self.pending.acked()
        self.hooks.acked()

    def frames(self, link: Link, frames: Sequence[Frame], size: int) -> None:
        """Hub: replication messages of a released link."""
        if not (self.core.client_started or self.core.is_master):
            return  # the library takes none before it has a role; they are asked for again
        if self._applier.put(link.eid, frames, size):
            for each in self._hub.links():
                each.pause_reading()

    def request(self, link: Link, request: RequestReceived) -> None:
        """Hub: a one-shot request."""
        match request.code:
            case OwnCode.SITE_QUERY:
                link.peer.answer(OwnCode.SITE_STANDING, bodies.encode_standing(self.standing()))
            case OwnCode.JOIN_REQUEST:
                self._requests[link.number] = link
                self.core.join_asked(link.number, request.site.address)
                self._perform()
            case _:
                link.peer.answer(OwnCode.GM_FAILURE)

    def closed(self, link: Link, reason: str) -> None:
        """Hub: a link that was ready is gone."""
        if self._stopping:
            return
        self.core.link_closed(self._loop.time(), link.number, reason)
        self._perform()

    def refused(self, where: str, reason: str, code: str) -> None:
        """Hub: a caller was turned away."""
        if code.startswith("mixup"):
            self.journal.write("wrong_port", from_=where, spoke=reason)
        else:
            self.journal.write("connection_refused", from_=where, reason=reason)
        log.warning("replication_connection_refused from=%s reason=%s", where, reason)

    # -- acks ----------------------------------------------------------------------------------

    def _site_acks(self) -> list[SiteAck]:
        cache = self._sites_cache
        if cache is None:
            cache = self._sites_cache = self._build_site_acks()
        return cache

    def _build_site_acks(self) -> list[SiteAck]:
        members = self.core.membership
        if members is None:
            return []
        result = []
        for member in members.others(self.settings.local):
            state = self.core.site(member.address)
            connected = state.link is not None
            known = connected or state.standing is not None
            known = known or member.address in self.core.memory.priorities
            electable = (
                state.electable
                if connected or state.standing
                else (self.core.memory.priorities.get(member.address, 0) > 0)
            )
            result.append(
                SiteAck(
                    state.eid,
                    electable if known else None,
                    connected,
                    self.table.acked(state.eid),
                    SiteStatus(member.status),
                    str(member.address),
                )
            )
        return result

    def _confirm(self, token: Any, shortfall: str | None) -> None:
        self.hooks.confirmed(token, shortfall)

    # -- called by library threads -------------------------------------------------------------

    def _library_event(self, env: db.DBEnv, what: int, argument: Any = None) -> None:
        """The library's event callback. *Thread:* any; it must not call the library."""
        later(self._loop, self._on_library_event, what, argument)

    def _stalled_from_thread(self, link: Link, over_s: float) -> None:
        later(self._loop, self._on_stalled, link, over_s)

    def _sync_sent_from_thread(self, eid: int, kind: int, record: bytes) -> None:
        if kind == RepType.PAGE:
            progress = self.sync_sent.get(eid)
            if progress is not None:
                progress.page(len(record))
        elif kind == RepType.UPDATE_REQ:
            later(self._loop, self._on_sync_needed)
        else:
            later(self._loop, self._on_file_list_sent, record)

    def permanent(self, generation: int, lsn: LSN) -> None:
        """Applier: acknowledge. *Thread:* apply."""
        self._send_ack(generation, lsn)

    def _send_ack(self, generation: int, lsn: LSN) -> None:
        frame = wire.encode_ack(generation, lsn)
        links: Sequence[Link] = self._ack_links
        if lsn.file > self._ack_file:
            # A new log file: every site learns it, for its own decision which logs may go.
            self._ack_file = lsn.file
            links = [link for link in self._hub.links() if link.released] or links
        for link in links:
            link.write(frame)

    def answered(self, code: int, eid: int) -> None:
        """Applier: what the library answered. *Thread:* apply."""
        later(self._loop, self._on_answered, code)

    def sync_message(self, kind: int, record: bytes) -> None:
        """Applier: a page or a file list came. *Thread:* apply."""
        if kind == RepType.PAGE:
            if self.sync_received is not None:
                self.sync_received.page(len(record))
        else:
            later(self._loop, self._on_file_list, record)

    def membership_logged(self) -> None:
        """Applier: a native master changed the membership. *Thread:* apply."""
        later(self._loop, self._reload_membership)

    def broken(self, eid: int, error: Exception) -> None:
        """Applier: a message could not be processed. *Thread:* apply."""
        if isinstance(error, db.DBRunRecoveryError):
            self.hooks.panicked(error)
        later(self._loop, self._on_broken, eid, error)

    def room(self) -> None:
        """Applier: the queue is short again. *Thread:* apply."""
        later(self._loop, self._on_room)

    # -- and what they mean, in the loop -------------------------------------------------------

    def _on_room(self) -> None:
        for link in self._hub.links():
            link.resume_reading()

    def _on_stalled(self, link: Link, over_s: float) -> None:
        state = self.core.links.get(link.number)
        if state is not None:
            facts = {"site": state.site.address, "queued_bytes": link.queued_bytes}
            self.journal.write("link_stalled", **facts)
            self.journal.write(
                "site_lagging",
                site=state.site.address,
                reason=f"it took no data for {over_s:.1f} s",
            )
            self.lagging.add(state.site.eid)
        link.abort(f"its queue was full for {over_s:.1f} s; it catches up from the log")

    def _on_broken(self, eid: int, error: Exception) -> None:
        log.error("replication_message_failed eid=%s error=%r", eid, error)
        self.journal.write("alarm_raised", alarm="message not processed", why=repr(error), hint="-")

    def _on_answered(self, code: int) -> None:
        now_s = self._loop.time()
        match code:
            case db.DB_REP_HOLDELECTION:
                self.core.election_wanted(now_s)
            case db.DB_REP_DUPMASTER:
                self.core.duplicate_master(now_s)
            case db.DB_REP_JOIN_FAILURE:
                self.core.join_failure(now_s)
            case _:
                assert code == WOULD_ROLLBACK, "the applier passes on no other answer"
                self.journal.write("alarm_raised", alarm="rollback", why="-", hint="-")
        self._perform()

    def _on_library_event(self, what: int, argument: Any) -> None:
        if self._stopping:
            return
        now_s = self._loop.time()
        match what:
            case db.DB_EVENT_REP_NEWMASTER:
                self._spawn(self._new_master(int(argument)))
            case db.DB_EVENT_REP_STARTUPDONE:
                self._spawn(self._startup_done())
            case db.DB_EVENT_REP_ELECTED:
                self.core.elected()
            case db.DB_EVENT_REP_INIT_DONE:
                self.hooks.handles_died()
                self._reload_membership()
            case db.DB_EVENT_REP_DUPMASTER:
                self.core.duplicate_master(now_s)
            case db.DB_EVENT_REP_JOIN_FAILURE:
                self.core.join_failure(now_s)
            case db.DB_EVENT_PANIC:
                self.hooks.panicked(ReplicationError("panic", code="panic", hint="-"))
            case _:
                log.debug("library_event what=%s", what)
        self._perform()

    async def _startup_done(self) -> None:
        """The replicant is in step; what came without a permanent record is acknowledged now."""
        env = self._library.env
        reached = await self._call(lambda: library.flushed_position(env))
        self._sync_received_done()
        self.core.startup_finished()
        self.hooks.handles_died()
        if reached > self._applier.applied:
            self._applier.applied = reached
            self._send_ack(self.core.generation, reached)

    async def _new_master(self, eid: int) -> None:
        env = self._library.env
        generation = await self._call(lambda: env.rep_stat()["gen"])
        if eid != SELF_EID:
            self.core.new_master(self._loop.time(), eid, generation)

    def _reload_membership(self) -> None:
        self._spawn(self._load_membership())

    # -- progress of initial syncs -------------------------------------------------------------

    def _on_sync_needed(self) -> None:
        """This site asked for a file list: internal initialisation begins."""
        self.core.sync_started()
        self._perform()

    def _on_file_list(self, record: bytes) -> None:
        if not self.core.syncing:
            return  # the list goes to every site; this one was for another
        files = tuple(parse_list(record))
        self.sync_received = SyncProgress(self._loop.time(), files)
        self.journal.write(
            "sync_receive_started",
            master=self.core.master,
            files=len(files),
            pages=self.sync_received.pages_total,
            bytes=self.sync_received.bytes_total,
        )

    def _on_file_list_sent(self, record: bytes) -> None:
        files = tuple(parse_list(record))
        now_s = self._loop.time()
        for state in self.core.sites.values():
            # The list is broadcast; who takes pages after it is the one that syncs.
            if state.link is not None:
                self.sync_sent[state.eid] = SyncProgress(now_s, files)

    def _journal_progress(self, now_s: float) -> None:
        if now_s - self._journaled_progress_s < PROGRESS_EVERY_S:
            return
        self._journaled_progress_s = now_s
        received = self.sync_received
        if received is not None and not received.finished and self.core.syncing:
            self.journal.write(
                "sync_receive_progress",
                pages=received.pages_done,
                pages_total=received.pages_total,
                bytes=received.bytes_done,
                percent=_percent(received),
                eta_s=received.eta_s(now_s),
            )
        self._journal_sent()

    def _journal_sent(self) -> None:
        for eid, sent in list(self.sync_sent.items()):
            if not sent.pages_done or sent.finished:
                continue
            site = self.core.by_eid[eid].address
            if not sent.announced:
                sent.announced = True
                self.journal.write(
                    "sync_send_started",
                    site=site,
                    files=len(sent.files),
                    pages=sent.pages_total,
                    bytes=sent.bytes_total,
                )
            facts: dict[str, object] = {"site": site}
            if sent.pages_done >= sent.pages_total:
                sent.finished = True
                self.journal.write(
                    "sync_send_finished",
                    **facts,
                    files=len(sent.files),
                    pages=sent.pages_done,
                    bytes=sent.bytes_done,
                    seconds=self._loop.time() - sent.started_s,
                )
            else:
                self.journal.write(
                    "sync_send_progress",
                    **facts,
                    pages=sent.pages_done,
                    pages_total=sent.pages_total,
                    bytes=sent.bytes_done,
                    percent=_percent(sent),
                )

    def _sync_received_done(self) -> None:
        received = self.sync_received
        if received is None or received.finished:
            return
        received.finished = True
        self.journal.write(
            "sync_receive_finished",
            files=len(received.files),
            pages=received.pages_done,
            bytes=received.bytes_done,
            seconds=self._loop.time() - received.started_s,
        )


def _percent(progress: SyncProgress) -> int:
    total = progress.pages_total
    return min(100, 100 * progress.pages_done // total) if total else 0


__all__ = ["Hooks", "Manager", "acks"]
