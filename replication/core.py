"""The replication manager's decisions, as a deterministic machine (no input or output).

An input (a link came up, a message was heard, the clock ticked) changes the state and leaves
effects, which `take` hands to the shell. There is no clock, socket, file or library in here: time
comes in as `now_s`, everything else as plain values.

    PROBING -> WAITING (why says for what) -> PROBING ...
            -> JOINING -> FOLLOWING
            -> FOLLOWING <-> (election) -> TAKING_OVER -> MASTER
            -> TAKING_OVER -> MASTER

Source: Programmer's Reference, "Replication Manager" and "Building the communications
infrastructure"; who becomes master at a cold start is `replication.coldstart`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum

from replication import bodies, coldstart, effects
from replication.bodies import SiteAddress, Standing
from replication.coldstart import OwnStanding, Start
from replication.election import ballot
from replication.membership import Membership, keeps_outgoing
from replication.memory import Memory
from replication.messages import OwnCode, StandingFlag
from replication.settings import GroupSettings
from replication.wire import LSN, LSN_ZERO

REPROBE_S = 1.0  # a waiting site asks again this often: people are looking at it
DIAL_PAUSE_FIRST_S = 0.1
GAP_SILENCE_S = 0.5  # behind a heartbeat's LSN without progress for so long: look for the gap
FIRST_ELECTION_WAIT_S = 1.0  # cold start: let the others come up before the first vote


class Phase(Enum):
    """What the manager is doing."""

    PROBING = "asking the other sites what they hold"
    WAITING = "waiting"
    JOINING = "asking to be taken into the group"
    FOLLOWING = "following"
    TAKING_OVER = "becoming master"
    MASTER = "master"


@dataclass(slots=True, eq=False)
class LinkState:
    """One connection to a site, as far as decisions need it."""

    number: int
    site: "SiteState"
    outgoing: bool
    native: bool
    subordinate: bool
    released: bool = False
    heard_s: float = 0.0
    bytes_in: int = 0
    monitored: bool = False


@dataclass(slots=True, eq=False)
class SiteState:
    """Another site of the group."""

    address: SiteAddress
    eid: int
    links: list[LinkState] = field(default_factory=list)
    dialling: bool = False
    next_dial_s: float = 0.0
    dial_pause_s: float = DIAL_PAUSE_FIRST_S
    electable: bool = False
    native: bool = False
    standing: Standing | None = None
    heard_s: float | None = None
    last_error: str = ""

    @property
    def link(self) -> LinkState | None:
        """The connection messages go out on: the first that was released."""
        for link in self.links:
            if link.released and not link.subordinate:
                return link
        return None


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
        self.membership = membership
        self.memory = memory
        self.phase = Phase.PROBING
        self.why: str | None = None
        self.hint: str | None = None
        self.generation = own.generation
        self.master: SiteAddress | None = None
        self.client_started = False
        self.electing = False
        self.complete = memory.complete and not own.empty
        self.startup_done = False
        self.syncing = False
        self.sites: dict[SiteAddress, SiteState] = {}
        self.by_eid: dict[int, SiteState] = {}
        self.links: dict[int, LinkState] = {}
        self._new_group_id = new_group_id
        self._effects: list[effects.Effect] = []
        self._answers: dict[SiteAddress, coldstart.Answer] = {}
        self._probing: set[SiteAddress] = set()
        self._next_probe_s: float | None = None
        self._next_election_s: float | None = None
        self._master_just_lost = False
        self._last_heartbeat_s = 0.0
        self._behind: tuple[float, LSN] | None = None
        self.master_heard_s: float | None = None
        self.master_lsn: LSN | None = None
        self.behind_since_s: float | None = None
        self._forward_generation = 0
        self._changing = False
        self._requests: list[tuple[int, SiteAddress]] = []
        for remote in settings.remotes:
            self.site(remote.address)
        if membership is not None:
            self._learn_members(membership)

    # -- what the shell asks -------------------------------------------------------------------

    def take(self) -> list[effects.Effect]:
        """Return what is to be done, in order, and forget it."""
        pending, self._effects = self._effects, []
        return pending

    def site(self, address: SiteAddress) -> SiteState:
        """The site's state; a new one gets the next EID (this site is 1)."""
        state = self.sites.get(address)
        if state is None:
            state = SiteState(address, 2 + len(self.sites))
            self.sites[address] = self.by_eid[state.eid] = state
        return state

    @property
    def is_master(self) -> bool:
        return self.phase is Phase.MASTER

    def members(self) -> list[SiteAddress]:
        """The other members whatever their status; without a membership, those configured."""
        if self.membership is None:
            return [r.address for r in self.settings.remotes]
        return [m.address for m in self.membership.others(self.settings.local)]

    def is_present(self, address: SiteAddress) -> bool:
        """Tell whether the site is a full member."""
        return self.membership is not None and self.membership.is_present(address)

    # -- start ---------------------------------------------------------------------------------

    def start(self, now_s: float) -> None:
        """Begin: ask every other site what it holds, then decide."""
        self._probe(now_s)

    def _probe(self, now_s: float) -> None:
        self.phase = Phase.PROBING
        self._next_probe_s = None
        self._answers.clear()
        self._probing = {a for a in self._others()}
        for address in sorted(self._probing):
            self._do(effects.Probe(address, self.settings.probe_timeout_s))
        if not self._probing:
            self._decide(now_s)

    def _others(self) -> Iterable[SiteAddress]:
        known = {r.address for r in self.settings.remotes} | set(self.members())
        known |= set(self.memory.priorities) if self.membership is None else set()
        return known - {self.settings.local}

    def probe_done(self, now_s: float, answer: coldstart.Answer) -> None:
        """Take what one site answered."""
        if answer.standing is not None:
            self._heard_standing(self.site(answer.address), answer.standing)
        self.site(answer.address).last_error = answer.reason
        self._answers[answer.address] = answer
        self._probing.discard(answer.address)
        if self.phase is Phase.PROBING and not self._probing:
            self._decide(now_s)

    def _decide(self, now_s: float) -> None:
        decision = coldstart.decide(
            self.own,
            list(self._answers.values()),
            self.memory.priorities,
            self.members(),
            any(r.creator for r in self.settings.remotes),
        )
        if decision.start is Start.WAIT:
            self._wait(now_s, decision.why, decision.hint)
            return
        self._note("start_decided", decision=decision.start.value, why=decision.why)
        self.why = self.hint = None
        if decision.start in (Start.MASTER, Start.CREATE):
            above = max(decision.generation_above, self.memory.generation)
            self._take_over(above)
        elif self.own.has_membership and self.is_present(self.settings.local):
            self._follow(now_s)
        else:
            self._join(decision.master)
        if decision.start is Start.ELECT:
            self._next_election_s = now_s + FIRST_ELECTION_WAIT_S

    def _wait(self, now_s: float, why: str, hint: str | None) -> None:
        if why != self.why:
            self._note("waiting", why=why, hint=hint)
        self.phase = Phase.WAITING
        self.why, self.hint = why, hint
        self._next_probe_s = now_s + REPROBE_S
        self._do(effects.RoleChanged())

    def promote(self) -> None:
        """Become master because the operator says so."""
        above = max(
            self.memory.generation,
            self.generation,
            *(s.standing.generation for s in self.sites.values() if s.standing),
            0,
        )
        self.why = self.hint = None
        self._note("promoted", generation_above=above)
        self._take_over(above)

    # -- joining -------------------------------------------------------------------------------

    def _join(self, master: SiteAddress | None) -> None:
        self.phase = Phase.JOINING
        self._forward_generation = 0
        if master is None:
            natives = [a.address for a in self._answers.values() if a.native]
            master = natives[0] if natives else self.settings.remotes[0].address
        self._note("join_requested", to=master)
        self._do(effects.Join(master))

    def joined(self, now_s: float, membership: Membership) -> None:
        """The group took this site in; its database will come with the data."""
        self._adopt(membership)
        self.own = replace(self.own, has_membership=True)
        self._note("joined_group", members=self._member_names(), version=membership.version)
        self._follow(now_s)

    def join_forwarded(self, now_s: float, to: SiteAddress, generation: int) -> None:
        """The site asked is not master and names another; followed while the generation grows."""
        if generation > self._forward_generation and to != self.settings.local:
            self._forward_generation = generation
            self._do(effects.Join(to))
        else:
            self.join_failed(now_s, f"the sites forward each other's request (last to {to})")

    def join_failed(self, now_s: float, reason: str) -> None:
        """The request was refused or nobody answered; ask around again later."""
        self._wait(
            now_s,
            f"this site was not taken into the group: {reason}",
            "see $DB_Msg.txt on the master; it must be running and reach this site's address.",
        )

    # -- following -----------------------------------------------------------------------------

    def _follow(self, now_s: float) -> None:
        self.phase = Phase.FOLLOWING
        self.client_started = True
        self._do(effects.StartClient())
        self._do(effects.RoleChanged())
        for address in self._others():
            self.site(address).next_dial_s = now_s
        self._dial_due(now_s)

    def new_master(self, now_s: float, eid: int, generation: int) -> None:
        """The library says who is master."""
        self.generation = max(self.generation, generation)
        self._remember(generation=self.generation)
        state = self.by_eid.get(eid)
        self.master = state.address if state else None
        self._master_just_lost = False
        self._next_election_s = None
        self._behind = None
        self.why = self.hint = None
        self._note("new_master", master=self.master, generation=generation)
        self._do(effects.RoleChanged())

    def sync_started(self) -> None:
        """Internal initialisation begins: the copy here is not complete until it ends."""
        if not self.syncing:
            self.syncing, self.complete, self.startup_done = True, False, False
            self._remember(complete=False)
            self._do(effects.RoleChanged())

    def startup_finished(self) -> None:
        """The library says that this replicant has caught up with the master's log."""
        self.syncing, self.complete, self.startup_done = False, True, True
        self._remember(complete=True)
        self._note("startup_done", master=self.master, generation=self.generation)
        self._do(effects.LoadMembership())
        self._do(effects.RoleChanged())

    def join_failure(self, now_s: float) -> None:
        """The library cannot sync with this master and automatic initialisation is off."""
        self._wait(
            now_s,
            f"the log here does not fit the master's ({self.master}) and internal initialisation"
            " is off",
            "remove `rep_set_config db_rep_conf_autoinit off` from DB_CONFIG, or run"
            " `ttserver wipe` here and start again.",
        )

    # -- links ---------------------------------------------------------------------------------

    def admits(self, address: SiteAddress) -> bool:
        """Whether a site that dialled in is a member; else it is rejected."""
        return self.is_present(address)

    @property
    def rejection(self) -> tuple[int, int]:
        """(version, generation) that a rejected site is told."""
        if self.membership is None:
            return (0, 0)
        return (self.membership.version, self.membership.generation)

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
        state = self.site(address)
        state.dialling = False
        state.dial_pause_s = DIAL_PAUSE_FIRST_S
        state.electable, state.native, state.heard_s = electable, native, now_s
        state.last_error = ""
        link = LinkState(number, state, outgoing, native, subordinate, heard_s=now_s)
        self.links[number] = link
        self._collide(state, link)
        state.links.append(link)
        if priority is not None or not electable:
            self._learn_priority(address, priority if electable and priority else 0)
        self._note(
            "connection_established",
            site=address,
            direction="outgoing" if outgoing else "incoming",
            native=native,
            electable=electable,
        )
        if native or subordinate:
            self._release(link)
        else:
            # A ttserver site says what it holds before a message of its counts.
            self._do(effects.SendStanding(number))
        self._do(effects.RoleChanged())

    def _collide(self, state: SiteState, new: LinkState) -> None:
        """Keep one link of two: a newer incoming replaces an older, else the lower dials."""
        if new.subordinate:
            return
        for old in [link for link in state.links if not link.subordinate]:
            if old.outgoing == new.outgoing:
                self._do(effects.CloseLink(old.number, "replaced by a newer connection"))
            elif not keeps_outgoing(self.settings.local, state.address):
                ours = new if new.outgoing else old
                self._do(effects.CloseLink(ours.number, "both sites dialled; theirs stays"))

    def parameters_changed(self, number: int, *, electable: bool) -> None:
        """A site's priority went to 0 or above it."""
        link = self.links.get(number)
        if link is not None:
            link.site.electable = electable
            if not electable:
                self._learn_priority(link.site.address, 0)
            self._do(effects.RoleChanged())

    def standing(self, now_s: float, number: int, standing: Standing) -> None:
        """A ttserver site said what it holds."""
        link = self.links.get(number)
        if link is None:
            return
        self._heard_standing(link.site, standing)
        if standing.flags & StandingFlag.MASTER and not self.is_master:
            refusal = coldstart.refusal(self._own_now(), link.site.address, standing)
            if refusal is not None:
                self._note("master_refused", site=link.site.address, why=refusal.why)
                self._do(effects.CloseLink(number, refusal.why))
                self._wait(now_s, refusal.why, refusal.hint)
                return
            if standing.group_id and standing.group_id != self.memory.group_id:
                self._remember(group_id=standing.group_id)
        if not link.released:
            self._release(link)

    def _heard_standing(self, state: SiteState, standing: Standing) -> None:
        state.standing = standing
        state.electable = standing.priority > 0
        self._learn_priority(state.address, standing.priority)
        self._remember(generation=max(self.memory.generation, standing.generation))

    def _release(self, link: LinkState) -> None:
        link.released = True
        self._do(effects.ReleaseLink(link.number))
        if link.subordinate:
            return
        if self.client_started and not self.is_master and self.master_link is None:
            self._do(effects.StartClient())
        elif self.is_master and self.membership is not None:
            self._share_with(link)

    @property
    def master_link(self) -> LinkState | None:
        """The link to the master, if there is one."""
        state = self.sites.get(self.master) if self.master else None
        return state.link if state else None

    def link_closed(self, now_s: float, number: int, reason: str) -> None:
        """A link is gone."""
        link = self.links.pop(number, None)
        if link is None:
            return
        state = link.site
        state.links.remove(link)
        state.last_error = reason
        if state.links:
            return
        self._note("connection_lost", site=state.address, reason=reason)
        state.next_dial_s = now_s + DIAL_PAUSE_FIRST_S
        if state.address == self.master and not self.is_master:
            self.master = None
            self._master_just_lost = True
            self._next_election_s = now_s
            self._note("master_lost", master=state.address, reason=reason)
        self._do(effects.RoleChanged())

    def dial_failed(self, now_s: float, address: SiteAddress, reason: str) -> None:
        """A site could not be reached; the pause doubles up to the retry time."""
        state = self.site(address)
        state.dialling = False
        if reason != state.last_error:
            self._note("connection_failed", site=address, reason=reason)
        state.last_error = reason
        state.next_dial_s = now_s + state.dial_pause_s
        state.dial_pause_s = min(2 * state.dial_pause_s, self.settings.connection_retry_s)

    def rejected(self, now_s: float, address: SiteAddress, version: int, generation: int) -> None:
        """A site does not take this one for a member."""
        state = self.site(address)
        state.dialling = False
        state.last_error = "it does not take this site for a member"
        state.next_dial_s = now_s + self.settings.connection_retry_s
        mine = self.membership
        self._note("connection_rejected", site=address, version=version, generation=generation)
        newer = mine is None or mine.is_older_than(generation, version)
        if newer and (version or generation) and not self.is_master:
            # Removed, or the group's list was made anew: ask around (the answers tell whether
            # following that group would lose this site's copy), then join again.
            self.own = replace(self._own_now(), has_membership=False)
            self.membership = None
            self._probe(now_s)

    def _dial_due(self, now_s: float) -> None:
        if self.phase not in (Phase.FOLLOWING, Phase.MASTER):
            return
        for address in self.members():
            state = self.site(address)
            if state.links or state.dialling or now_s < state.next_dial_s:
                continue
            state.dialling = True
            self._do(effects.Dial(address))

    # -- elections -----------------------------------------------------------------------------

    def election_wanted(self, now_s: float) -> None:
        """The library asks for an election (another site called one)."""
        self._next_election_s = now_s
        self._elect_due(now_s)

    def _elect_due(self, now_s: float) -> None:
        due = self._next_election_s
        if due is None or now_s < due or self.electing or not self.settings.elections:
            return
        if self.phase is not Phase.FOLLOWING or self.master_link is not None:
            self._next_election_s = None
            return
        members = len(self.members()) + 1
        numbers = ballot(
            members,
            two_site_strict=self.settings.two_site_strict,
            master_just_lost=self._master_just_lost,
        )
        connected = 1 + sum(1 for s in self.sites.values() if s.link is not None)
        if connected < numbers.nvotes:
            why = (
                f"no master: an election needs {numbers.nvotes} of {members} sites, this site"
                f" reaches {connected}"
            )
            if why != self.why:
                self._note("election_impossible", why=why)
            self.why = why
            self.hint = "start the other sites, or check the network between them."
            self._next_election_s = now_s + self.settings.connection_retry_s
            return
        self._master_just_lost = False
        self.electing = True
        self._next_election_s = None
        self._note("election_called", nsites=numbers.nsites, nvotes=numbers.nvotes)
        self._do(effects.Elect(*numbers))
        self._do(effects.RoleChanged())

    def elected(self) -> None:
        """This site won."""
        self._note("election_won", priority=self.settings.priority)
        self._take_over(0)

    def election_over(self, now_s: float, outcome: str) -> None:
        """The election call returned; without a master another follows."""
        self.electing = False
        self._note("election_over", outcome=outcome)
        if self.phase is Phase.FOLLOWING and self.master_link is None:
            retry_s = min(self.settings.election_retry_s, 2 * self.settings.election_timeout_s)
            self._next_election_s = now_s + retry_s
        self._do(effects.RoleChanged())

    def duplicate_master(self, now_s: float) -> None:
        """Two sites are master: step down and let a vote decide."""
        self._note("duplicate_master")
        self.master = None
        self._follow(now_s)
        self._next_election_s = now_s

    # -- being master --------------------------------------------------------------------------

    def _take_over(self, generation_above: int) -> None:
        self.phase = Phase.TAKING_OVER
        self.master = None
        self._do(effects.StartMaster(generation_above))
        self._do(effects.RoleChanged())

    def became_master(self, generation: int) -> None:
        """The library made this site master."""
        self.generation = generation
        self.client_started = False
        self.phase = Phase.MASTER
        self.master = self.settings.local
        self.syncing, self.complete, self.startup_done = False, True, True
        group_id = self.memory.group_id or self._new_group_id
        self._remember(generation=generation, complete=True, group_id=group_id)
        self._note("became_master", generation=generation, priority=self.settings.priority)
        self.why = self.hint = None
        self._do(effects.LoadMembership())
        self._do(effects.RoleChanged())

    def takeover_failed(self, now_s: float, reason: str) -> None:
        """The library refused to make this site master."""
        self._wait(now_s, f"this site could not become master: {reason}", None)

    def membership_loaded(self, now_s: float, membership: Membership | None) -> None:
        """The membership database was read (again); None when there is none."""
        if self.is_master:
            local = self.settings.local
            if membership is None:
                first = Membership.create(local, self.generation)
                self._note("group_created", members=str(local), version=first.version)
                self._change((first,), None)
            else:
                self._adopt(membership.in_generation(self.generation))
                if not self.is_present(local):
                    self._change(self._steps_to_add(local), None)
                else:
                    self._share()
        elif membership is not None and self._is_newer(membership):
            self._adopt(membership)
            self.own = replace(self.own, has_membership=self.is_present(self.settings.local))
        self._dial_due(now_s)

    def join_asked(self, request: int, address: SiteAddress) -> None:
        """A site asks to be taken in."""
        if self._forward(request):
            return
        if self.is_present(address):
            assert self.membership is not None
            body = self.membership.share_for(address)
            self._do(effects.Answer(request, OwnCode.JOIN_SUCCESS, body))
            return
        self._note("join_received", site=address)
        self._requests.append((request, address))
        self._next_change()

    def _forward(self, request: int) -> bool:
        """Answer a request that only a master can grant; True when that was done."""
        if self.is_master and self.membership is not None:
            return False
        link = self.master_link
        if link is None or self.master is None:
            self._do(effects.Answer(request, OwnCode.GM_FAILURE))
        else:
            body = bodies.encode_forward(self.master, self.generation)
            self._do(effects.Answer(request, OwnCode.GM_FORWARD, body))
        return True

    def _next_change(self) -> None:
        if self._requests and not self._changing:
            request, address = self._requests[0]
            self._change(self._steps_to_add(address), request)

    def _steps_to_add(self, address: SiteAddress) -> tuple[Membership, ...]:
        assert self.membership is not None
        adding = self.membership.adding(address)
        return (adding, adding.present(address))

    def _change(self, steps: tuple[Membership, ...], request: int | None) -> None:
        self._changing = True
        self._do(effects.ChangeMembership(steps, request))

    def membership_changed(self, membership: Membership, request: int | None) -> None:
        """The steps are committed; answer, tell all members."""
        self._changing = False
        self._adopt(membership)
        self._note("membership_changed", members=self._member_names(), version=membership.version)
        if request is not None:
            address = next(r[1] for r in self._requests if r[0] == request)
            self._requests = [r for r in self._requests if r[0] != request]
            body = membership.share_for(address)
            self._do(effects.Answer(request, OwnCode.JOIN_SUCCESS, body))
        self._share()
        self._do(effects.RoleChanged())
        self._next_change()

    def membership_failed(self, request: int | None, reason: str) -> None:
        """The change was not committed."""
        self._changing = False
        self._note("membership_change_failed", reason=reason)
        if request is not None:
            self._requests = [r for r in self._requests if r[0] != request]
            self._do(effects.Answer(request, OwnCode.GM_FAILURE))
        self._next_change()

    def membership_shared(self, membership: Membership) -> None:
        """Another site sent its site list; adopted when it is newer and names this site."""
        if (
            not self.is_master
            and self._is_newer(membership)
            and membership.find(self.settings.local) is not None
        ):
            self._adopt(membership)

    def _share(self) -> None:
        for link in list(self.links.values()):
            if link.released and not link.subordinate:
                self._share_with(link)

    def _share_with(self, link: LinkState) -> None:
        assert self.membership is not None
        # Never to a site that the list does not name: a native one would panic.
        if self.membership.is_present(link.site.address):
            body = self.membership.share_for(link.site.address)
            self._do(effects.SendOwn(link.number, OwnCode.SHARING, body))

    # -- signs of life -------------------------------------------------------------------------

    def heartbeat(self, now_s: float, number: int, generation: int, lsn: LSN, applied: LSN) -> None:
        """A master's heartbeat came.

        Args:
            applied: what was applied here, to see a gap at the end of the log.
        """
        link = self.links.get(number)
        if link is None:
            return
        link.monitored = True
        if self.is_master:
            if generation > self.generation:
                self.duplicate_master(now_s)
            else:
                self._do(effects.StartMaster(0))  # says NEWMASTER again, the other steps down
            return
        self.master_lsn = lsn
        if lsn <= applied:
            self.behind_since_s = None
        elif self.behind_since_s is None:
            self.behind_since_s = now_s
        if generation != self.generation or lsn <= applied:
            self._behind = None
        elif self._behind is None or applied > self._behind[1]:
            self._behind = (now_s, applied)
        elif now_s - self._behind[0] >= GAP_SILENCE_S and not self.syncing:
            self._behind = (now_s, applied)
            self._note("gap_suspected", master_lsn=lsn, applied=applied)
            self._do(effects.StartClient())

    def stable(self, lsn: LSN) -> None:
        """The master says up to where writes were answered OK."""
        if lsn > self.memory.stable_lsn:
            # Kept by the shell's own pace, not written at each step.
            self.memory = replace(self.memory, stable_lsn=lsn)

    def tick(self, now_s: float, last_broadcast_s: float) -> None:
        """The clock: retries, heartbeats, monitors.

        Args:
            last_broadcast_s: when something last went out to every site.
        """
        if self._next_probe_s is not None and now_s >= self._next_probe_s:
            if self.phase is Phase.WAITING:
                self._probe(now_s)
            self._next_probe_s = None
        self._dial_due(now_s)
        self._elect_due(now_s)
        if self.is_master:
            last_s = max(last_broadcast_s, self._last_heartbeat_s)
            if self.settings.heartbeat_send_s and now_s - last_s >= self.settings.heartbeat_send_s:
                self._last_heartbeat_s = now_s
                self._do(effects.SendHeartbeat())
            return
        link = self.master_link
        monitor_s = self.settings.heartbeat_monitor_s
        if link is not None and link.monitored and monitor_s:
            silent_s = now_s - link.heard_s
            if silent_s > monitor_s:
                reason = f"nothing heard from the master for {silent_s:.1f} s"
                self._do(effects.CloseLink(link.number, reason))

    # -- small things --------------------------------------------------------------------------

    def _do(self, effect: effects.Effect) -> None:
        self._effects.append(effect)

    def _note(self, event: str, **facts: object) -> None:
        self._do(effects.Note(event, facts))

    def _remember(self, **changes: object) -> None:
        memory = replace(self.memory, **changes)  # type: ignore[arg-type]
        if memory != self.memory:
            self.memory = memory
            self._do(effects.SaveMemory(memory))

    def _learn_priority(self, address: SiteAddress, priority: int) -> None:
        memory = self.memory.with_priority(address, priority)
        if memory is not self.memory:
            self.memory = memory
            self._do(effects.SaveMemory(memory))

    def _own_now(self) -> OwnStanding:
        return replace(
            self.own,
            empty=self.own.empty and not self.complete,
            group_id=self.memory.group_id,
            stable_lsn=self.memory.stable_lsn,
            generation=self.generation,
        )

    def _is_newer(self, membership: Membership) -> bool:
        mine = self.membership
        return mine is None or mine.is_older_than(membership.generation, membership.version)

    def _adopt(self, membership: Membership) -> None:
        self.membership = membership
        self._learn_members(membership)

    def _learn_members(self, membership: Membership) -> None:
        for member in membership.members:
            if member.address != self.settings.local:
                self.site(member.address)

    def _member_names(self) -> str:
        members = self.membership.members if self.membership is not None else ()
        return ", ".join(str(m.address) for m in members)


__all__ = ["LSN_ZERO", "Core", "LinkState", "Phase", "SiteState"]
