"""What must hold in a simulated group at every moment, checked where it could break.

1.  A generation has one master, and only it answers writes OK in it.
2.  An OK at QUORUM is true: this site and enough electable others hold the write, on their disks.
3.  Who becomes master of the newest generation holds every write that was answered OK at QUORUM.
4.  What a site acknowledges is in its log, flushed, and the same as in its master's.
5.  No acknowledgement leaves a site whose vote is out.
6.  A write is answered once.
7.  Sites in step with one master have the same log.
8.  No log is applied while this site's vote is out.
9.  Whoever is elected has the votes of a majority.
10. A master that is cut off from the majority answers nothing OK later than `fence_s` after that.

A write that only sites without `durability sync` held, and that a crash took from one of them, may
be lost (docs/ARCHITECTURE.md, "What can be lost when").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from replication.bodies import SiteAddress
from replication.membership import Member
from replication.messages import AckPolicy, SiteStatus
from replication.wire import LSN, LSN_ZERO
from tests.sim.library import KEYS_FILE
from tests.sim.log import Log, Record
from tests.sim.plan import Plan

# The master looks every 0.05 s, and takes a standstill of 0.5 s for none.
FENCE_SLACK_S: Final = 0.7
FENCE_SITES_MIN: Final = 3
COMPARED_RECORDS: Final = 40  # of the end of each log, each time; everything at the end of a run


@dataclass(eq=False)
class Write:
    """A client's write and what became of it.

    Args:
        run: number of the run of that site.
        record: its commit record, once it is in the master's log.
        generation: its master's when it committed.
        ok: answered OK.
        answered: answered at all.
        weakened: a crash took it from a site that had it only in memory.
    """

    key: bytes
    site: SiteAddress
    run: int = 0
    record: Record | None = None
    generation: int = 0
    ok: bool = False
    answered: bool = False
    weakened: bool = False

    def is_in(self, log: Log) -> bool:
        """Tell whether the databases of this log have it."""
        return self.key in log.databases.files.get(KEYS_FILE, {})

    def is_on_disk(self, log: Log, *, flushed: bool) -> bool:
        """Tell whether its very commit record is in this log (or behind its beginning)."""
        assert self.record is not None, "it was committed"
        if log.get(self.record.lsn) != self.record:
            first = log.first
            return first is not None and first.lsn > self.record.lsn and self.is_in(log)
        return not flushed or self.record.lsn < log.flushed


@dataclass(frozen=True)
class View:
    """What a master knows as it answers.

    Args:
        others: the other members.
        heard_s: when something of each other site came in last.
        now_s: the time.
    """

    others: Sequence[Member]
    heard_s: Mapping[SiteAddress, float]
    now_s: float


@dataclass
class Invariants:
    """See the module's text.

    Args:
        plan: the group.
        logs: of all sites.
        broken: told what was broken; the run ends there.
    """

    plan: Plan
    logs: dict[SiteAddress, Log]
    broken: Callable[[str], None]
    masters: dict[int, SiteAddress] = field(default_factory=dict)
    writes: list[Write] = field(default_factory=list)
    stable: LSN = LSN_ZERO
    _began_s: dict[int, float] = field(default_factory=dict)
    _acked: dict[SiteAddress, tuple[int, LSN]] = field(default_factory=dict)

    @property
    def _flushed(self) -> bool:
        return self.plan.durability == "sync"

    @property
    def _promises(self) -> bool:
        """Nothing that was answered OK may be lost."""
        return self.plan.policy is AckPolicy.QUORUM

    def priority(self, site: SiteAddress) -> int:
        return self.plan.priorities[self.plan.sites.index(site)]

    # -- masters and their answers -----------------------------------------------------------------

    def master_began(self, site: SiteAddress, generation: int, now_s: float) -> None:
        """The library made a site master."""
        self._began_s[generation] = now_s
        other = self.masters.setdefault(generation, site)
        if other != site:
            self.broken(f"{site.host} and {other.host} are both master of generation {generation}")
        if generation < max(self.masters):
            return  # it won long ago and was stopped; nobody acknowledges to it any more
        if self._promises:
            lost = [w for w in self.writes if w.ok and not w.weakened and self._misses(w, site)]
            if lost:
                self.broken(
                    f"{site.host} became master of generation {generation} without"
                    f" {_names(lost)}, answered OK"
                )

    def elected(self, site: SiteAddress, votes: int, members: int) -> None:
        """A site won an election.

        Args:
            votes: for it, its own included.
            members: how many sites the group had by its list when it called the election.
        """
        if votes <= members // 2:
            self.broken(f"{site.host} is elected with {votes} of {members} votes")

    def _misses(self, write: Write, site: SiteAddress) -> bool:
        return not write.is_in(self.logs[site])

    def answered(self, write: Write, view: View | None) -> None:
        """A master answered a write.

        Args:
            view: what it knew when it answered OK; None: it answered something else.
        """
        if write.answered:
            self.broken(f"write {write.key.decode()} was answered twice")
        write.answered, write.ok = True, view is not None
        if view is None:
            return
        master = self.masters.get(write.generation)
        if master != write.site:
            self.broken(
                f"{write.site.host} answered {write.key.decode()} OK in generation"
                f" {write.generation}, whose master is {master.host if master else 'nobody'}"
            )
        self._check_held(write, view.others)
        self._check_reach(write, view)
        if self._promises and not write.weakened:
            for generation, later in self.masters.items():
                if generation > write.generation and self._misses(write, later):
                    self.broken(
                        f"{write.site.host} answered {write.key.decode()} OK in generation"
                        f" {write.generation}, but {later.host} is master of {generation} without"
                        " it"
                    )
        assert write.record is not None, "it was committed"
        self.stable = max(self.stable, write.record.lsn)

    def _check_held(self, write: Write, members: Sequence[Member]) -> None:
        """Enough others hold it: counted anew here, from what is on their disks."""
        holders = {
            site for site, log in self.logs.items() if write.is_on_disk(log, flushed=self._flushed)
        }
        if write.site not in holders and not write.weakened:
            self.broken(f"{write.site.host} answered {write.key.decode()} OK and does not hold it")
        copies = [m for m in members if m.status is not SiteStatus.ADDING]
        counting = [m for m in copies if m.status is SiteStatus.PRESENT]
        others = {member.address for member in counting} & holders
        have, needed = len(others), min(1, len(copies))
        if self.plan.policy is AckPolicy.QUORUM:
            have = sum(1 for site in others if self.priority(site))
            electable = {m.address for m in copies if self.priority(m.address)}
            needed = 0 if electable <= holders else len(members) // 2
        if have < needed and not write.weakened:
            names = ", ".join(sorted(site.host for site in others)) or "nobody"
            self.broken(
                f"{write.site.host} answered {write.key.decode()} OK: {needed} sites must hold it"
                f" besides, {names} of any priority do"
            )

    def _check_reach(self, write: Write, view: View) -> None:
        """It heard, not long ago, from enough others to make a majority with them."""
        rivals = any(self.priority(member.address) for member in view.others)
        fence_s = self.plan.fence_s
        if not fence_s or not rivals or len(view.others) + 1 < FENCE_SITES_MIN:
            return
        needed = (len(view.others) + 1) // 2
        heard_s = sorted((view.heard_s.get(m.address, 0.0) for m in view.others), reverse=True)
        since_s = max(heard_s[needed - 1], self._began_s.get(write.generation, 0.0))
        if view.now_s > since_s + fence_s + FENCE_SLACK_S:
            self.broken(
                f"{write.site.host} answered {write.key.decode()} OK, {view.now_s - since_s:.1f} s"
                " after it was cut off from the majority"
            )

    def crashed(self, site: SiteAddress, had: Iterable[Write]) -> None:
        """A site lost what was not on its disk.

        Args:
            had: the writes that it held before.
        """
        for write in had:
            if not write.is_on_disk(self.logs[site], flushed=False):
                write.weakened = True

    # -- acknowledgements --------------------------------------------------------------------------

    def acknowledges(
        self, site: SiteAddress, generation: int, lsn: LSN, *, votes: bool, flushes: bool
    ) -> None:
        """A site acknowledges.

        Args:
            votes: its vote is out.
            flushes: it has to flush first.
        """
        log, what = self.logs[site], f"{site.host} acknowledges {lsn} of generation {generation}"
        if votes:
            self.broken(f"{what} while its vote is out")
        if (generation, lsn) <= self._acked.get(site, (0, LSN_ZERO)):
            return  # said again; by now its copy may be on the way to be replaced
        self._acked[site] = generation, lsn
        record = log.get(lsn)
        first = log.first
        if record is None and (first is None or first.lsn <= lsn):
            self.broken(f"{what} and does not have it")
            return
        if flushes and lsn >= log.flushed:
            self.broken(f"{what} before it is on disk")
        master = self.masters.get(generation)
        if master is None or record is None or generation != max(self.masters):
            return
        theirs = self.logs[master].get(lsn)
        if theirs is not None and theirs != record:
            self.broken(f"{what}, which is not what {master.host} has there")

    # -- logs --------------------------------------------------------------------------------------

    def compare(self, sites: list[SiteAddress], ends: list[LSN], *, all_of_it: bool) -> None:
        """Sites are in step with one master.

        Args:
            ends: up to where each has compared its log with the master's.
            all_of_it: compare whole logs, not only their ends.
        """
        for site, end in zip(sites[1:], ends[1:], strict=True):
            ours, theirs = self.logs[sites[0]], self.logs[site]
            until = min(ends[0], end)
            records = list(theirs) if all_of_it else theirs.since(len(theirs) - COMPARED_RECORDS)
            for record in records:
                if record.lsn > until:
                    break
                other = ours.get(record.lsn)
                first = ours.first
                gone = first is None or record.lsn < first.lsn
                if other != record and not gone:
                    self.broken(
                        f"{sites[0].host} and {site.host} are in step, and differ at {record.lsn}"
                    )
                    return


def _names(writes: list[Write]) -> str:
    names = [write.key.decode() for write in writes]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
