"""The replication manager's decisions, as a deterministic machine (no input or output).

An input (a link came up, a message was heard, the clock ticked) changes the state and leaves
effects, which `take` hands to the shell. There is no clock, socket, file or library in here: time
comes in as `now_s`, everything else as plain values.

    PROBING -> WAITING (why says for what) -> PROBING ...
            -> JOINING -> FOLLOWING
            -> FOLLOWING <-> (election) -> TAKING_OVER -> MASTER
            -> TAKING_OVER -> MASTER
            MASTER -> HANDING_OVER -> FOLLOWING, or TAKING_OVER again

The parts: `connections` (links and dials), `group` (the site list), `belonging` (whether this site
is in it), `handover` (to and from another master), `heartbeats`, `elections`, `rounds` (does the
majority follow), `catch_up` (the copy here), `remembered` (what outlives the environment); here is
what ties them together.

Source: Programmer's Reference, "Replication Manager" and "Building the communications
infrastructure"; who becomes master at a cold start is `replication.coldstart`.
"""

from dataclasses import replace

from replication import coldstart, effects
from replication.belonging import Belonging
from replication.bodies import SiteAddress, Standing
from replication.catch_up import CatchUp
from replication.coldstart import OwnStanding, Start
from replication.connections import Connections
from replication.effects import Outbox
from replication.election import Elections
from replication.failback import Failback
from replication.group import Group
from replication.handover import Handover
from replication.heartbeats import Heartbeats
from replication.holdings import Holdings
from replication.list_requests import ListRequests
from replication.membership import Membership
from replication.memory import Memory
from replication.phase import Phase
from replication.probes import Probes
from replication.remembered import Remembered
from replication.rounds import Rounds
from replication.settings import GroupSettings
from replication.sites import LinkState, Sites, SiteState
from replication.standings import Standings
from replication.wire import LSN

SEEK_S = 1.0  # a client that hears of no master asks this often; the library's message is small
REPROBE_S = 1.0  # a waiting site asks again this often: people are looking at it
FIRST_ELECTION_WAIT_S = 1.0  # cold start: let the others come up before the first vote


class Core:
    """See the module's text.

    Args:
        settings: the operator's.
        own: what this site holds at the start.
        membership: the membership database's contents, None without one.
        memory: what it remembers beside its environment.
        new_group_id: random, used if this site creates the group.
    """

    def __init__(
        self,
        settings: GroupSettings,
        own: OwnStanding,
        membership: Membership | None,
        memory: Memory,
        new_group_id: int,
    ) -> None:
        self.settings = settings
        self.own = own
        self.phase = Phase.PROBING
        self.why: str | None = None
        self.hint: str | None = None
        self.generation = own.generation
        self.master: SiteAddress | None = None
        self.last_master: SiteAddress | None = None
        self.client_started = False
        self._next_seek_s = 0.0
        self.sites = Sites()
        self._out = Outbox()
        self._remembered = Remembered(memory, self._out)
        self.catch_up = CatchUp(
            settings,
            self.sites,
            self._remembered,
            self._out,
            complete=memory.complete and not own.empty,
        )
        self.holdings = Holdings(self._remembered, self.sites)
        configured = [remote.address for remote in settings.remotes]
        for address in configured:
            self.sites.site(address)
        self.group = Group(settings.local, configured, membership, self.sites, self._out)
        self.connections = Connections(
            settings.local, settings.connection_retry_s, self.sites, self._out
        )
        self.heartbeats = Heartbeats(
            settings.heartbeat_send_s, settings.heartbeat_monitor_s, self._out
        )
        self.elections = Elections.by(settings, self._out)
        self._new_group_id = new_group_id
        self._probes = Probes(settings.probe_timeout_s, self._out)
        self._next_probe_s: float | None = None
        self.standings = Standings(self, self._remembered, self._out)
        self.belonging = Belonging(self, self._out, self._remembered, self._probes)
        self.handover = Handover(self, self._out)
        self.failback = Failback(self, settings.preferred, self._out)
        self.requests = ListRequests(self, self._out)
        self.rounds = Rounds(self, self._out)
        self.inviters: set[SiteAddress] = set()
        self.question: coldstart.Decision | None = None  # the operator is asked
        self._applied = own.last_lsn
        self._duplicate = False

    # -- what the shell asks -------------------------------------------------------------------

    def take(self) -> list[effects.Effect]:
        """Return what is to be done, in order, and forget it."""
        return self._out.take()

    def site(self, address: SiteAddress) -> SiteState:
        """The site's state; a new one gets the next EID (this site is 1)."""
        return self.sites.site(address)

    def site_of(self, eid: int) -> SiteAddress | None:
        """The address of a site by its EID."""
        state = self.sites.by_eid(eid)
        return state.address if state else None

    @property
    def is_master(self) -> bool:
        return self.phase is Phase.MASTER

    @property
    def electing(self) -> bool:
        return self.elections.under_way

    @property
    def memory(self) -> Memory:
        """What is to be remembered beside the environment."""
        return self._remembered.memory

    @property
    def complete(self) -> bool:
        """The copy here can be read."""
        return self.catch_up.complete

    @property
    def syncing(self) -> bool:
        """Internal initialisation replaces the copy here."""
        return self.catch_up.syncing

    @property
    def startup_done(self) -> bool:
        """This site is in step with its master."""
        return self.catch_up.startup_done

    @property
    def membership(self) -> Membership | None:
        return self.group.membership

    @property
    def master_link(self) -> LinkState | None:
        """The link to the master, if there is one."""
        state = self.sites.get(self.master)
        return state.link if state else None

    @property
    def misses_master(self) -> bool:
        """Whether this site would follow a master, but knows of none that it reaches."""
        return self.phase is Phase.FOLLOWING and self.master_link is None

    def members(self) -> list[SiteAddress]:
        """The other members whatever their status; without a membership, those configured."""
        return self.group.members()

    # -- start ---------------------------------------------------------------------------------

    def start(self, now_s: float) -> None:
        """Begin: ask every other site what it holds, then decide."""
        self.rounds.started(now_s)
        if self.own.removed:
            self.belonging.removed()
        else:
            self.probe(now_s)

    def probe(self, now_s: float) -> None:
        """Ask every other site what it holds, then decide."""
        self.phase = Phase.PROBING
        self._next_probe_s = None
        self._probes.begin(self.others())
        if self._probes.complete:
            self._decide(now_s)

    def others(self) -> set[SiteAddress]:
        """Every other site that may be one of the group."""
        known = {r.address for r in self.settings.remotes} | set(self.members()) | self.inviters
        known |= set(self.memory.priorities) if self.membership is None else set()
        return known - {self.settings.local}

    def probe_done(self, now_s: float, answer: coldstart.Answer) -> None:
        """Take what one site answered."""
        if answer.standing is not None:
            self.standings.heard(self.site(answer.address), answer.standing)
        self.site(answer.address).last_error = answer.reason
        self._probes.done(answer)
        if self.phase is Phase.PROBING and self._probes.complete:
            self._decide(now_s)

    def _decide(self, now_s: float) -> None:
        decision = self.question or coldstart.decide(
            self.own_now(),
            self._probes.answers,
            self.memory.priorities,
            self.members(),
            any(r.creator or r.helper for r in self.settings.remotes),
        )
        if decision.start is Start.WAIT:
            self.wait(now_s, decision.why, decision.hint)
            return
        self._out.note("start_decided", decision=decision.start.value, why=decision.why)
        self.why = self.hint = None
        if decision.start in (Start.MASTER, Start.CREATE):
            above = max(decision.generation_above, self.memory.generation)
            self.take_over(above)
        elif self.own.has_membership and self.group.is_present(self.settings.local):
            self.follow(now_s)
        else:
            self.belonging.join(decision.master)
        if decision.start is Start.ELECT:
            self.elections.call_at(now_s + FIRST_ELECTION_WAIT_S)

    def wait(self, now_s: float, why: str, hint: str | None) -> None:
        """Take no role, say why, and ask around again after a while."""
        if why != self.why:
            self._out.note("waiting", why=why, hint=hint)
        self.phase = Phase.WAITING
        self.why, self.hint = why, hint
        self._next_probe_s = now_s + REPROBE_S
        self._out.do(effects.RoleChanged())

    def promote(self) -> None:
        """Become master because the operator says so."""
        above = max(
            self.memory.generation,
            self.generation,
            *(s.standing.generation for s in self.sites.values() if s.standing),
            0,
        )
        self.why = self.hint = None
        self._out.note("promoted", generation_above=above)
        self.take_over(above)

    # -- following -----------------------------------------------------------------------------

    def follow(self, now_s: float) -> None:
        """Become a client and look for the master."""
        self.phase = Phase.FOLLOWING
        self._out.do(effects.StartClient())
        self._out.do(effects.RoleChanged())
        self.connections.dial_soon(now_s, self.others())
        self._dial_due(now_s)

    def client_ready(self) -> None:
        """The library is a client: from now on it takes messages."""
        self.client_started = not self.is_master

    def _seek_due(self, now_s: float) -> None:
        """Ask again who is master: the question may have gone out before a link could carry it."""
        if not self.misses_master or not self.client_started or now_s < self._next_seek_s:
            return
        self._next_seek_s = now_s + SEEK_S
        if any(link.released for link in self.sites.links.values()):
            self._out.do(effects.StartClient())

    def _dial_due(self, now_s: float) -> None:
        if self.phase in (Phase.FOLLOWING, Phase.MASTER, Phase.HANDING_OVER):
            self.connections.dial_due(now_s, self.members())

    def new_master(self, now_s: float, eid: int, generation: int, *, again: bool = False) -> None:
        """The library says who is master.

        Args:
            again: it is the one before, in the same generation.
        """
        if self.phase in (Phase.MASTER, Phase.TAKING_OVER, Phase.REMOVED):
            return  # said before the library made this site master, or before it was removed
        self.generation = max(self.generation, generation)
        self._remembered.generation(self.generation)
        self.last_master = self.master = self.site_of(eid)
        self.elections.master_found(again=again)
        self.heartbeats.new_master()
        if not again:
            self.catch_up.new_master(now_s, generation)
        if self.master_link is None:
            # Its link broke while the news was under way: nobody else would notice.
            self.elections.call_at(now_s + self.settings.connection_retry_s)
        if self.phase is Phase.HANDING_OVER:
            self.phase = Phase.FOLLOWING
        if self.phase is Phase.FOLLOWING:
            self.why = self.hint = None
        self._out.note("new_master", master=self.master, generation=generation)
        self.handover.new_master(now_s, self.master, generation)
        self._out.do(effects.RoleChanged())

    def master_again(self, now_s: float, eid: int, generation: int) -> None:
        """The library follows this master, maybe the same as before its link broke."""
        if self.misses_master:
            self.new_master(now_s, eid, generation, again=generation == self.generation)
            self.heartbeats.gap_left()
        elif self.settings.witness and self.site_of(eid) != self.master:
            # The library has no event for a new master where it may not take a copy.
            self.new_master(now_s, eid, generation)

    def master_left(self, now_s: float, eid: int) -> None:
        """The library follows this master no longer: it stepped down."""
        state = self.sites.by_eid(eid)
        if state is not None and state.address == self.master and not self.is_master:
            self.handover.master_left(now_s)
            self._elect_due(now_s)

    def startup_finished(self, reached: LSN) -> None:
        """The library says that this replicant has caught up with the master's log.

        Args:
            reached: the last permanent LSN here now.
        """
        if self.startup_done:
            return  # the end of a copy is told twice, as such and as the end of the start
        if self.syncing:
            # The copy was replaced: what was acknowledged in the old one says nothing here.
            self._remembered.stable_at_most(reached)
        self.catch_up.finished()
        self._out.note("startup_done", master=self.master, generation=self.generation)
        self._out.do(effects.LoadMembership())
        self._out.do(effects.RoleChanged())

    def join_failure(self, now_s: float) -> None:
        """The library cannot sync with this master and automatic initialisation is off."""
        if self.settings.witness:
            return  # as it should be
        self.wait(
            now_s,
            f"the log here does not fit the master's ({self.master}) and internal initialisation"
            " is off",
            "remove `rep_set_config db_rep_conf_autoinit off` from DB_CONFIG, or run"
            " `ttserver wipe` here and start again.",
        )

    # -- links ---------------------------------------------------------------------------------

    def link_ready(
        self,
        now_s: float,
        number: int,
        address: SiteAddress,
        *,
        outgoing: bool,
        native: bool,
        electable: bool,
        subordinate: bool = False,
        priority: int | None = None,
    ) -> None:
        """A link finished its handshake."""
        link = self.connections.ready(
            now_s,
            number,
            address,
            outgoing=outgoing,
            native=native,
            electable=electable,
            subordinate=subordinate,
        )
        if priority is not None or not electable:
            self._remembered.priority(address, priority if electable and priority else 0)
        if native or subordinate:
            self._release(link)
        else:
            # A ttserver site says what it holds before a message of its counts.
            self._out.do(effects.SendStanding(number))
        self._out.do(effects.RoleChanged())

    def parameters_changed(self, number: int, *, electable: bool) -> None:
        """A site's priority went to 0 or above it."""
        link = self.sites.links.get(number)
        if link is not None:
            link.site.electable = electable
            if not electable:
                self._remembered.priority(link.site.address, 0)
            self._out.do(effects.RoleChanged())

    def standing(self, now_s: float, number: int, standing: Standing) -> None:
        """A ttserver site said what it holds."""
        link = self.sites.links.get(number)
        if link is None or not self.standings.of_link(now_s, link, standing):
            return
        if not link.released:
            self._release(link)

    def own_now(self) -> OwnStanding:
        """What this site holds by now."""
        return replace(
            self.own,
            last_lsn=self._applied,
            empty=self.own.empty and not self.complete,
            group_id=self.memory.group_id,
            stable_lsn=self.memory.stable_lsn,
            remembers_group=bool(self.memory.group_id),
            generation=self.generation,
        )

    def _release(self, link: LinkState) -> None:
        link.released = True
        self._out.do(effects.ReleaseLink(link.number))
        if link.subordinate:
            return
        if self.is_master:
            self.group.share_with(link)
            self.heartbeats.greet(link)
        elif self.phase is Phase.FOLLOWING and self.master_link is None:
            # Not while taking over: the library would step down again, unnoticed.
            self._out.do(effects.StartClient())

    def link_closed(self, now_s: float, number: int, reason: str) -> None:
        """A link is gone."""
        state = self.connections.closed(now_s, number, reason)
        if state is not None and state.address == self.master and not self.is_master:
            self.master_gone(now_s, state.address, reason)
        elif state is not None and self.misses_master:
            self.elections.site_lost(now_s)
        if state is not None:
            self.handover.link_closed(now_s, state.address)
        self._out.do(effects.RoleChanged())
        self._elect_due(now_s)

    def master_gone(self, now_s: float, address: SiteAddress, reason: str) -> None:
        """The master is lost, or is one no longer."""
        self.master = None
        self.elections.master_lost(now_s)
        self._out.note("master_lost", master=address, reason=reason)

    def dial_failed(self, now_s: float, address: SiteAddress, reason: str) -> None:
        """A site could not be reached."""
        self.connections.dial_failed(now_s, address, reason)

    # -- elections -----------------------------------------------------------------------------

    def election_wanted(self, now_s: float, nsites: int = 0) -> None:
        """The library asks for an election (another site called one).

        Args:
            nsites: how many votes that site waits for, 0 if it did not say.
        """
        self.handover.others_elect(now_s)
        self.elections.invited(now_s, nsites)
        self._elect_due(now_s)

    def _elect_due(self, now_s: float) -> None:
        if not self.elections.is_due(now_s) or now_s < self.rounds.promised_until_s:
            return
        if self.phase is not Phase.FOLLOWING or self.master_link is not None:
            self.elections.call_at(None)
            return
        why = self.elections.call(now_s, len(self.members()) + 1, 1 + self.sites.connected())
        if why is None:
            return
        if why != self.why:
            self._out.note("election_impossible", why=why)
        self.why = why
        self.hint = "start the other sites, or check the network between them."

    def elected(self, vote: int = 0) -> None:
        """This site won.

        Args:
            vote: number of the election that it won; its generation is above it.
        """
        if self.phase is not Phase.FOLLOWING:
            return  # promoted meanwhile, or it must not be master; the others vote again
        self._out.note("election_won", priority=self.settings.priority, votes=self.elections.votes)
        # Else it would be that number when the library's call has not returned yet, and one more
        # when it has: as the one before it, or the one after, may have got.
        self.take_over(vote)
        self.rounds.elected = True

    def election_over(self, now_s: float, outcome: str) -> None:
        """The election call returned; without a master another follows."""
        self.elections.over(now_s, outcome, again=self.misses_master)

    def duplicate_master(self, now_s: float) -> None:
        """Two sites are master: step down and let a vote decide."""
        if self.phase is Phase.TAKING_OVER:
            self._duplicate = True  # after the library's answer, or it would undo this
        if not self.is_master:
            return
        self._out.note("duplicate_master")
        self.rounds.step_down(now_s)

    # -- being master --------------------------------------------------------------------------

    def take_over(self, generation_above: int, *, holding: LSN | None = None) -> None:
        """Become master; see `effects.StartMaster`."""
        self.phase = Phase.TAKING_OVER
        self.rounds.elected = False
        self.master = None
        self._out.do(effects.StartMaster(generation_above, holding))
        self._out.do(effects.RoleChanged())

    def became_master(self, now_s: float, generation: int, last_lsn: LSN) -> None:
        """The library made this site master.

        Args:
            last_lsn: the end of the log here; nothing behind it counts as acknowledged any more.
        """
        self._applied = last_lsn
        self.generation = generation
        self.client_started = False
        self.phase = Phase.MASTER
        self.master = self.settings.local
        self.own = replace(self.own, removed=False)
        self._remembered.removed(False)
        self._remembered.generation(generation)
        self.catch_up.finished()
        self._remembered.group(self.memory.group_id or self._new_group_id)
        self._remembered.stable_at_most(last_lsn)
        self.holdings.became_master(last_lsn)
        self.elections.master_found()
        self.rounds.began(now_s)
        self._out.note("became_master", generation=generation, priority=self.settings.priority)
        self.why = self.hint = None
        self._out.do(effects.LoadMembership())
        self._out.do(effects.RoleChanged())
        self.heartbeats.took_over(now_s)
        self.handover.became_master(now_s, generation)
        if self._duplicate:
            self._duplicate = False
            self.duplicate_master(now_s)

    def takeover_failed(self, now_s: float, reason: str) -> None:
        """The library refused to make this site master."""
        self._duplicate = False
        if self.handover.takeover_failed(now_s, reason):
            return
        self.wait(now_s, f"this site could not become master: {reason}", None)

    def membership_loaded(self, now_s: float, membership: Membership | None) -> None:
        """The membership database was read (again); None when there is none."""
        if self.is_master:
            self.group.take_over(membership, self.generation)
        elif membership is not None and self.group.is_newer(membership):
            if self.own.has_membership and membership.find(self.settings.local) is None:
                self.belonging.left_out(now_s, membership.version)
                return
            self.adopt(membership)
            present = self.group.is_present(self.settings.local)
            self.own = replace(self.own, has_membership=present)
            self._remembered.only(self.others())
        self._dial_due(now_s)

    def membership_changed(self, membership: Membership, request: int | None) -> None:
        """The change is committed."""
        self.group.changed(membership, request)
        self._remembered.only(self.others())

    def membership_failed(self, request: int | None, reason: str) -> None:
        """The change was not committed, or was taken back."""
        self.group.change_failed(request, reason)

    def membership_shared(self, membership: Membership) -> None:
        """Another site sent its site list; adopted when it is newer and names this site."""
        if (
            not self.is_master
            and self.group.is_newer(membership)
            and membership.find(self.settings.local) is not None
            and self.phase is not Phase.REMOVED
        ):
            self.adopt(membership)

    def adopt(self, membership: Membership) -> None:
        """Take this list for the truth."""
        self.group.adopt(membership)
        if self.settings.witness:
            self._remembered.sites(membership)

    # -- signs of life -------------------------------------------------------------------------

    def heartbeat(self, now_s: float, number: int, generation: int, lsn: LSN, applied: LSN) -> None:
        """A master's heartbeat came.

        Args:
            applied: what was applied here, to see a gap at the end of the log.
        """
        link = self.sites.links.get(number)
        if link is None:
            return
        link.monitored = generation
        if self.phase is Phase.FOLLOWING:
            same, busy = generation == self.generation, self.catch_up.busy
            busy = busy or self.settings.witness  # it misses nothing
            self.heartbeats.heard(now_s, lsn, applied, same_generation=same, syncing=busy)
        elif self.is_master and generation > self.generation:
            self.duplicate_master(now_s)
        elif self.is_master:
            self._out.do(effects.AnnounceMaster())  # the other hears NEWMASTER and steps down

    def stable(self, lsn: LSN) -> None:
        """The master says up to where writes were answered OK."""
        self._remembered.stable(lsn)

    def tick(
        self, now_s: float, last_broadcast_s: float, applied: LSN, sync_progress: int = 0
    ) -> None:
        """The clock: retries, heartbeats, monitors.

        Args:
            last_broadcast_s: when something last went out to every site.
            applied: the last permanent LSN here.
            sync_progress: see `CatchUp.tick`.
        """
        self._applied = applied
        if self._next_probe_s is not None and now_s >= self._next_probe_s:
            self._next_probe_s = None
            if self.phase is Phase.WAITING:
                self.probe(now_s)
        self._dial_due(now_s)
        self._elect_due(now_s)
        self._seek_due(now_s)
        self.handover.tick(now_s)
        self.failback.tick(now_s)
        if self.is_master:
            self.heartbeats.send_due(now_s, last_broadcast_s)
            self.rounds.tick(now_s)
        else:
            self.heartbeats.watch(now_s, self.master_link, self.generation)
            if self.master and self.master_link and not self.settings.witness:
                self.catch_up.tick(now_s, self.master, sync_progress)
