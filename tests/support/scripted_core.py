"""The manager's sans-I/O core played through as a script: an input, and the effects it leaves."""

from __future__ import annotations

from typing import TypeVar

from replication import effects
from replication.bodies import SiteAddress, Standing
from replication.coldstart import Answer, OwnStanding
from replication.core import Core
from replication.membership import Member, Membership
from replication.memory import Memory
from replication.messages import StandingFlag
from replication.phase import Phase
from replication.settings import GroupSettings, RemoteSite
from replication.wire import LSN, LSN_ZERO

T = TypeVar("T")
A, B, C, D = (SiteAddress("192.0.2.10", port) for port in (5010, 5011, 5012, 5013))
END = LSN(1, 5000)
COMPLETE = Memory(group_id=7, stable_lsn=LSN(1, 4000), complete=True, generation=3)
NEW = OwnStanding(B, 1, 0, LSN_ZERO, empty=True, has_membership=False, creator=False)


def group_of(*sites: SiteAddress, version: int = 3, generation: int = 3) -> Membership:
    return Membership(version, generation, tuple(Member(*site) for site in sites))


def says(
    *, master: bool = False, priority: int = 0, last: LSN = END, group_id: int = 7
) -> Standing:
    flags = StandingFlag.HAS_MEMBERSHIP | StandingFlag.COMPLETE_COPY
    if master:
        flags |= StandingFlag.MASTER
    return Standing(3, last, LSN_ZERO, priority, int(flags), group_id=group_id)


class Script:
    """A core, a clock, and what the core wants done."""

    def __init__(
        self,
        own: OwnStanding,
        membership: Membership | None = None,
        memory: Memory | None = None,
        *,
        others: tuple[SiteAddress, ...] = (A,),
        elections: bool = True,
        strict: bool = True,
    ) -> None:
        settings = GroupSettings(
            own.address,
            tuple(RemoteSite(address) for address in others if address != own.address),
            priority=own.priority,
            creator=own.creator,
            elections=elections,
            two_site_strict=strict,
        )
        self.core = Core(settings, own, membership, memory or Memory(), new_group_id=99)
        self.now_s = 100.0
        self.links = 0
        self.silent = False  # the links stand, and nothing comes on them
        self.last: list[effects.Effect] = []

    def do(self) -> list[effects.Effect]:
        """Take the effects decided since the last time."""
        self.last = self.core.take()
        return self.last

    def done(self, kind: type[T]) -> list[T]:
        """Those of a kind among the effects last taken."""
        return [effect for effect in self.last if isinstance(effect, kind)]

    def notes(self) -> list[str]:
        return [note.event for note in self.done(effects.Note)]

    def tick(self, seconds: float = 0.0, *, applied: LSN = END) -> list[effects.Effect]:
        self.now_s += seconds
        for link in self.core.sites.links.values():
            if not self.silent:
                link.site.contact_s = self.now_s
        self.core.tick(self.now_s, self.now_s, applied)
        return self.do()

    def start(self, *answers: Answer) -> None:
        self.core.start(self.now_s)
        for answer in answers:
            self.core.probe_done(self.now_s, answer)
        self.do()

    def link(
        self,
        site: SiteAddress,
        *,
        outgoing: bool = True,
        native: bool = False,
        priority: int = 0,
        standing: Standing | None = None,
    ) -> int:
        """Bring a link up; with `standing` it is released, too."""
        self.links += 1
        self.core.link_ready(
            self.now_s,
            self.links,
            site,
            outgoing=outgoing,
            native=native,
            electable=priority > 0,
            priority=priority,
        )
        if standing is not None:
            self.core.standing(self.now_s, self.links, standing)
        self.do()
        return self.links


def own(
    site: SiteAddress = B, *, priority: int = 1, generation: int = 3, creator: bool = False
) -> OwnStanding:
    """A member with data."""
    return OwnStanding(
        site,
        priority,
        generation,
        END,
        empty=False,
        has_membership=True,
        creator=creator,
        remembers_group=True,
        group_id=7,
        stable_lsn=COMPLETE.stable_lsn,
    )


def replicant(*members: SiteAddress, priority: int = 1, strict: bool = True) -> Script:
    """B, following A, with links to all members."""
    members = members or (A, B)
    script = Script(
        own(priority=priority), group_of(*members), COMPLETE, others=members, strict=strict
    )
    answers = [Answer(A, says(master=True, priority=1))]
    answers += [Answer(site, says()) for site in members if site not in (A, B)]
    script.start(*answers)
    assert script.core.phase is Phase.FOLLOWING
    for site in members:
        if site != B:
            master = site == A
            script.link(site, priority=1, standing=says(master=master, priority=1))
    script.core.new_master(script.now_s, script.core.site(A).eid, 4)
    script.do()
    assert script.core.master_link is not None
    return script


def master(*others: SiteAddress) -> Script:
    """A, master of a group with `others`, all connected."""
    script = Script(own(A, generation=3), group_of(A, *others), COMPLETE, others=others)
    script.start(*[Answer(site, says()) for site in others])
    assert script.done(effects.StartMaster) == [effects.StartMaster(3)]
    script.core.became_master(script.now_s, 4, END)
    script.do()
    assert script.done(effects.LoadMembership)
    script.core.membership_loaded(script.now_s, group_of(A, *others))
    script.do()
    for site in others:
        script.link(site, standing=says())
    return script
