"""A simulated group of sites under one seed: it forms, is tormented, and has to recover.

formation   all sites start and join
safety      faults; the invariants are checked all the time
liveness    the faults stop; within a bounded time there is one master, all sites have the same
            log, and new writes are answered OK
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from berkeleydb import db

from replication.bodies import SiteAddress
from replication.link import Link
from replication.messages import AckPolicy
from replication.phase import Phase
from replication.wire import ACK_FRAME_BYTES, LSN, Frame, last_ack
from tests.sim.agenda import Agenda
from tests.sim.installed import installed
from tests.sim.invariants import Invariants, View, Write
from tests.sim.log import Log
from tests.sim.nemesis import Nemesis, Pair
from tests.sim.network import Network
from tests.sim.plan import LOG_FILE_BYTES, Plan
from tests.sim.process import FLUSH_S, Process, Vote
from tests.sim.region import Disk, Sync
from tests.sim.transcript import Transcript

FORMATION_S: Final = 60.0
SAFETY_S: Final = 30.0
LIVENESS_S: Final = 60.0
LOOK_S: Final = 0.1
WRITE_EVERY_S: Final = 0.06
IDLE_WRITE_EVERY_S: Final = (
    1.0  # a replicant may wait for the next write to know that it is in step
)
UPKEEP_EVERY_S: Final = 4.0
COMPARE_EVERY_S: Final = 0.5
LAST_WRITES: Final = 5
WRITES_AT_A_STOP: Final = 5
STOP_DELAY_S: Final = 0.005
LISTING_S: Final = 0.5  # what it may take to list what a roll-back undoes
OPERATOR_AFTER_S: Final = 5.0  # how long a site has to wait before somebody reads why
_EVENTS: Final = {
    value: name.removeprefix("DB_EVENT_REP_").lower()
    for name, value in vars(db).items()
    if name.startswith("DB_EVENT_REP_")
}


@dataclass(eq=False)
class Site:
    """A site over all its runs."""

    name: SiteAddress
    disk: Disk
    memory_path: Path
    process: Process | None = None
    runs: int = 0
    waiting_since_s: float | None = None
    permitted: LSN | None = None
    listing: bool = False
    vote: Vote | None = None

    @property
    def running(self) -> Process | None:
        """The run that takes part, if there is one."""
        return self.process if self.process is not None and self.process.running else None


@dataclass(frozen=True)
class Result:
    """How a run ended.

    Args:
        failure: what went wrong, None if nothing did.
        writes, ok: how many there were, how many were answered OK.
        lost: OK writes that no site has in the end (allowed for some plans).
        masters: how many generations had one.
        seconds: simulated.
    """

    plan: Plan
    failure: str | None
    digest: str
    lines: list[str]
    writes: int
    ok: int
    lost: int
    masters: int
    seconds: float


@dataclass(eq=False)
class Group:
    """See the module's text.

    Args:
        plan: what the seed stands for.
        transcript: where it is told.
    """

    plan: Plan
    transcript: Transcript = field(default_factory=Transcript)

    def __post_init__(self) -> None:
        self.agenda = Agenda()
        self.network = Network(self.agenda, self.plan.dice("network"))
        self.failure: str | None = None
        self.memories: dict[Path, Any] = {}
        self.sites = {
            name: Site(name, Disk(Log(LOG_FILE_BYTES)), Path(name.host)) for name in self.plan.sites
        }
        logs = {name: site.disk.log for name, site in self.sites.items()}
        self.invariants = Invariants(self.plan, logs, self.fail)
        self._library_dice = self.plan.dice("library")
        self._client_dice = self.plan.dice("clients")
        self._crash_dice = self.plan.dice("crashes")
        self._nemesis = Nemesis(self, self.plan.dice("nemesis"))
        self._phase = "formation"
        self._no_master_since_s: float | None = None

    # -- the run -----------------------------------------------------------------------------------

    def run(self) -> Result:
        """Run all phases, or up to the first failure."""
        with installed(self.network, self.memories, self.agenda.now), self._watched():
            try:
                self._form()
                self._torment()
                self._recover()
            finally:
                for site in self.sites.values():
                    if site.process is not None:
                        site.process.kill(powered=False)
        writes = self.invariants.writes
        everywhere = [site.disk.log for site in self.sites.values()]
        return Result(
            self.plan,
            self.failure,
            self.transcript.digest,
            self.transcript.lines,
            len(writes),
            sum(write.ok for write in writes),
            sum(write.ok and not all(map(write.is_in, everywhere)) for write in writes),
            len(self.invariants.masters),
            self.agenda.now(),
        )

    def fail(self, why: str) -> None:
        """Something is wrong; the run ends here."""
        if self.failure is None:
            self.failure = why
            self.transcript.fault(self.agenda.now(), f"WRONG: {why}")

    def _run_until(self, what: str, seconds: float, condition: Callable[[], str | None]) -> None:
        """Run until `condition` says None; it is a failure when the time is over first."""
        end_s = self.agenda.now() + seconds
        why: str | None = "it was not looked at"
        while self.failure is None and self.agenda.now() < end_s:
            self.agenda.run_for(LOOK_S, lambda: self.failure is not None)
            why = condition()
            if why is None:
                return
        if self.failure is None:
            self.fail(f"not within {seconds:.0f} s: {what}: {why}")

    def _form(self) -> None:
        self.fault(f"{self.plan}")
        for name in self.plan.sites:
            self.start(name)
        self._run_until("the group forms", FORMATION_S, self._unsettled)
        self.fault("all are members and in step")

    def _torment(self) -> None:
        if self.failure is not None:
            return
        self._phase = "safety"
        self._every(WRITE_EVERY_S, self._write)
        self._every(UPKEEP_EVERY_S, self._upkeep)
        self._every(COMPARE_EVERY_S, self._compare)
        self._nemesis.begin()
        self.agenda.run_for(SAFETY_S, lambda: self.failure is not None)

    def _recover(self) -> None:
        if self.failure is not None:
            return
        self._phase = "liveness"
        self._nemesis.end()
        self.fault("all faults stop")
        self.network.cuts = set()
        self.network.slow_s.clear()
        for name, site in self.sites.items():
            if site.process is None:
                self.start(name)
            else:
                site.process.time.go_on(at_once=True)
                site.process.flush_s = FLUSH_S
        self._every(IDLE_WRITE_EVERY_S, self._write)
        self._run_until("the group recovers", LIVENESS_S, self._unsettled)
        self._phase = "end"
        for _ in range(LAST_WRITES):
            self._run_until("a new write is answered OK", LIVENESS_S, self._last_write())
        self._run_until("all logs are the same", LIVENESS_S, self._unsettled)
        self._run_until("every write is answered", LIVENESS_S, self._unanswered)
        self._check_end()

    def _check_end(self) -> None:
        if self.failure is not None:
            return
        self._compare(all_of_it=True)
        for write in self.invariants.writes:
            lost = write.ok and not all(write.is_in(s.disk.log) for s in self.sites.values())
            promised = self.plan.policy is AckPolicy.QUORUM and not write.weakened
            if lost and promised:
                self.fail(f"{write.key.decode()} was answered OK and is lost")

    # -- looking -----------------------------------------------------------------------------------

    def _unsettled(self) -> str | None:
        """Say why the group is not at rest: one master, all in step with it, all logs the same."""
        masters = self.masters()
        if len(masters) != 1:
            self._promote(masters)
            return f"{len(masters)} masters"
        [master] = masters
        leader = self.sites[master].process
        assert leader is not None, "it is master"
        log = self.sites[master].disk.log
        for site in self.sites.values():
            process = site.running
            if process is None:
                return f"{site.name.host} is not up"
            manager = process.manager
            assert manager is not None, "it runs"
            core = manager.core
            if len(core.members()) + 1 != len(self.sites):
                return f"{site.name.host} knows {len(core.members()) + 1} members"
            if process is leader:
                continue
            self._operate(site, process)
            if core.phase is not Phase.FOLLOWING or core.master != master:
                return f"{site.name.host}: {core.phase.value}: {core.why or core.master}"
            region = process.env.region
            if region.sync is not Sync.OFF:
                return f"{site.name.host} is {region.sync.value}"
            if not region.startup_complete or not core.startup_done:
                return f"{site.name.host} has not caught up"
            if region.generation != leader.env.region.generation:
                return f"{site.name.host} is in generation {region.generation}"
            if site.disk.log.end != log.end:
                return f"the log of {site.name.host} ends at {site.disk.log.end}, not {log.end}"
        return None

    def _unanswered(self) -> str | None:
        """Name a write that waits for its answer."""
        for write in self.invariants.writes:
            process = self.sites[write.site].process
            if not write.answered and process is not None and process.number == write.run:
                return f"{write.key.decode()} at {write.site.host}"
        return None

    @property
    def _may_lose(self) -> bool:
        """The policy, or the durability, permits that what was answered OK is lost.

        Only then may it need an operator to go on.
        """
        weak = any(write.weakened for write in self.invariants.writes)
        return self.plan.policy is not AckPolicy.QUORUM or weak

    def _promote(self, masters: list[SiteAddress]) -> None:
        """Do what sites that wait ask their operator for: promote the one that holds most."""
        waiting = [s for s in self.sites.values() if self._waits(s)]
        if masters or not waiting or not self._may_lose:
            self._no_master_since_s = None
            return
        self._no_master_since_s = self._no_master_since_s or self.agenda.now()
        if self.agenda.now() - self._no_master_since_s < OPERATOR_AFTER_S:
            return
        best = max(self.sites.values(), key=lambda site: site.disk.log.end)
        process = best.running
        if process is None or process.manager is None or process.env.region.initialising:
            return
        self._no_master_since_s = None
        self.fault(f"the operator promotes {best.name.host}")
        process.loop.enter(process.manager.promote)

    def _waits(self, site: Site) -> bool:
        process = site.running
        manager = process.manager if process is not None else None
        return manager is not None and manager.core.phase is Phase.WAITING

    def _operate(self, site: Site, process: Process) -> None:
        """Do what a site that waits asks its operator for: give up a copy that nobody follows."""
        manager = process.manager
        assert manager is not None, "it runs"
        if not self._waits(site) or not self._may_lose:
            site.waiting_since_s = None
            return
        site.waiting_since_s = site.waiting_since_s or self.agenda.now()
        if self.agenda.now() - site.waiting_since_s < OPERATOR_AFTER_S:
            return
        self.fault(f"the operator wipes {site.name.host}: {manager.core.why}")
        site.waiting_since_s = None
        self._end(site, powered=True)
        site.vote = None  # it goes with the files
        site.disk = Disk(Log(LOG_FILE_BYTES))
        self.invariants.logs[site.name] = site.disk.log
        memory = self.memories.get(site.memory_path)
        if memory is not None:
            del self.memories[site.memory_path]
        self.start(site.name)

    def _compare(self, *, all_of_it: bool = False) -> None:
        for master in self.masters():
            leader = self.sites[master].process
            assert leader is not None, "it is master"
            generation = leader.env.region.generation
            sites, ends = [master], [leader.env.region.max_perm]
            for site in self.sites.values():
                process = site.running
                if process is None or process is leader:
                    continue
                region = process.env.region
                in_step = region.startup_complete and region.sync is Sync.OFF
                if in_step and region.generation == generation and process.follows == master:
                    sites.append(site.name)
                    ends.append(region.max_perm)
            self.invariants.compare(sites, ends, all_of_it=all_of_it)

    # -- clients -----------------------------------------------------------------------------------

    def _every(self, seconds: float, call: Callable[[], None]) -> None:
        phase = self._phase

        def again() -> None:
            if self._phase == phase and self.failure is None:
                call()
                self.agenda.call_later(seconds * self._client_dice.uniform(0.5, 1.5), again)

        self.agenda.call_later(seconds, again)

    def _write(self) -> None:
        masters = self.masters()
        if masters:
            self._write_at(self._client_dice.choice(masters))

    def _write_at(self, name: SiteAddress) -> Write:
        process = self.sites[name].running
        assert process is not None, "it is master"
        number = len(self.invariants.writes)
        write = Write(b"w%04d" % number, name, run=process.number)
        self.invariants.writes.append(write)

        def begun(lsn: LSN) -> None:
            write.record = process.env.disk.log.get(lsn)
            write.generation = process.env.region.generation
            text = f"{name.host:3} commits {write.key.decode()} at {lsn}"
            self.transcript.line(self.agenda.now(), text, told=False)

        value = bytes(self._client_dice.randrange(20, 400))
        process.write(write.key, value, write, begun)
        return write

    def _last_write(self) -> Callable[[], str | None]:
        masters = self.masters()
        if not masters:
            return lambda: "no master"
        write = self._write_at(masters[0])
        return lambda: None if write.ok else f"{write.key.decode()} at {masters[0].host}"

    def _upkeep(self) -> None:
        for site in self.sites.values():
            if (process := site.running) is not None:
                process.upkeep()

    # -- what processes say ------------------------------------------------------------------------

    def failed(self, process: Process, why: str) -> None:
        self.fail(f"{process.name.host}: {why}")

    def noted(self, process: Process, event: str, facts: dict[str, object]) -> None:
        self.transcript.event(self.agenda.now(), process.name.host, event, facts)

    def library_said(self, process: Process, event: int) -> None:
        region = process.env.region
        if event == db.DB_EVENT_REP_MASTER:
            now_s = self.agenda.now()
            self.invariants.master_began(process.name, region.generation, now_s)
        elif event == db.DB_EVENT_REP_ELECTED:
            env = process.env
            self.invariants.elected(process.name, env.votes.won_with, env.voters)
        text = f"{process.name.host:3} library: {_EVENTS.get(event, event)} {region.generation}"
        self.transcript.line(self.agenda.now(), text, told=False)

    def confirmed(self, process: Process, token: Any, shortfall: str | None) -> None:
        write: Write = token
        outcome = "OK" if shortfall is None else f"not OK: {shortfall}"
        text = f"{process.name.host:3} answers {write.key.decode()} {outcome}"
        self.transcript.line(self.agenda.now(), text, told=False)
        self.invariants.answered(write, self._view(process) if shortfall is None else None)

    def _view(self, process: Process) -> View:
        manager = process.manager
        assert manager is not None, "it answers"
        members = manager.core.membership
        assert members is not None, "it leads a group"
        others = members.others(process.name)
        return View(others, process.host.heard_s, self.agenda.now())

    def would_roll_back(self, process: Process, lsn: LSN) -> None:
        """List what is undone, then open the environment again, as the engine does."""
        site = self.sites[process.name]
        if site.process is not process or site.listing:
            return
        if site.permitted == lsn:
            self.fail(f"{process.name.host} did not roll back to {lsn} although it was told to")
            return
        self.fault(f"{process.name.host} lists what it takes back behind {lsn}")
        site.permitted, site.listing = lsn, True

        def reopen() -> None:
            site.listing = False
            if site.process is process:
                self.shut_down(process.name, lambda: self.start(process.name))

        process.time.call_later(LISTING_S * self._library_dice.random(), reopen)

    def rolled_back(self, process: Process, lsn: LSN) -> None:
        self.fault(f"{process.name.host} is rolled back to {lsn}")
        self.sites[process.name].permitted = None

    def spoil(self, process: Process, eid: int, frames: list[Frame]) -> list[Frame]:
        for frame in frames:
            self.transcript.bytes(process.name.host.encode(), b"%d" % eid, frame.control)
        return self._nemesis.spoil(process.name, eid, frames)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Look at every acknowledgement as it leaves, whatever sent it."""
        write = Link.write

        def watched(link: Link, frame: bytes) -> None:
            acked = last_ack(frame) if len(frame) == ACK_FRAME_BYTES else None
            if acked is not None:
                self._acknowledges(link, *acked)
            write(link, frame)

        with patch.object(Link, "write", watched):
            yield

    def _acknowledges(self, link: Link, generation: int, lsn: LSN) -> None:
        running = [site.process for site in self.sites.values() if site.process is not None]
        process = next(each for each in running if each.loop.loop is link.loop)
        self.invariants.acknowledges(
            process.name,
            generation,
            lsn,
            votes=process.env.vote_is_out,
            flushes=process.flushes,
        )

    def applied_while_voting(self, process: Process) -> None:
        self.fail(f"{process.name.host} applies log while its vote is out")

    # -- what is done to it ------------------------------------------------------------------------

    @property
    def names(self) -> list[SiteAddress]:
        return self.plan.sites

    def masters(self) -> list[SiteAddress]:
        """Every site that believes that it is master."""
        return [
            site.name
            for site in self.sites.values()
            if site.running is not None and site.running.takes_writes
        ]

    def is_up(self, site: SiteAddress) -> bool:
        return self.sites[site].running is not None

    def call_later(self, delay_s: float, call: Callable[[], None]) -> object:
        return self.agenda.call_later(delay_s, call)

    def fault(self, text: str) -> None:
        self.transcript.fault(self.agenda.now(), text)

    def cut(self, pairs: set[Pair]) -> None:
        self.network.cuts = pairs

    def slow(self, pairs: set[Pair], seconds: float) -> None:
        for pair in pairs:
            self.network.slow_s[pair] = seconds

    def reset_links(self, one: SiteAddress, two: SiteAddress) -> None:
        self.network.reset_links(one, two)

    def stop(self, site: SiteAddress, seconds: float) -> None:
        process = self.sites[site].process
        if process is None:
            return
        if not process.takes_writes:
            process.stop_for(seconds)
            return
        # In the middle of its work: what it waits for comes in while it stands still.
        for _ in range(WRITES_AT_A_STOP):
            self._write_at(site)
        delay_s = STOP_DELAY_S * self._crash_dice.random()
        self.agenda.call_later(delay_s, lambda: process.stop_for(seconds))

    def slow_disk(self, site: SiteAddress, seconds: float) -> None:
        if (process := self.sites[site].process) is not None:
            process.flush_s = seconds or FLUSH_S

    def start(self, name: SiteAddress) -> None:
        site = self.sites[name]
        if site.process is not None:
            return
        site.runs += 1
        site.listing = False
        site.process = Process(
            self.plan.settings(name),
            site.disk,
            site.memory_path,
            site.runs,
            self.agenda,
            self.network,
            self._library_dice,
            self,
            durability=self.plan.durability,
            permitted=site.permitted,
            vote=site.vote,
        )

    def _end(self, site: Site, *, powered: bool) -> None:
        process = site.process
        assert process is not None, "it runs"
        process.kill(powered=powered)
        site.process, site.vote = None, process.env.vote

    def crash(self, name: SiteAddress, *, power: bool) -> None:
        site = self.sites[name]
        if site.process is None:
            return
        self._end(site, powered=not power)
        log = site.disk.log
        had = [w for w in self.invariants.writes if w.record and w.is_on_disk(log, flushed=False)]
        lost = log.crash(self._crash_dice, power=power)
        if lost:
            text = f"{name.host} loses the last {lost} records of its log"
            self.transcript.line(self.agenda.now(), f"    {text}", told=True)
        self.invariants.crashed(name, had)

    def shut_down(self, name: SiteAddress, then: Callable[[], None] = lambda: None) -> None:
        site = self.sites[name]
        process = site.process
        if process is None:
            return

        def down() -> None:
            if site.process is process:
                self._end(site, powered=True)
                then()
                if self._phase != "safety":
                    self.start(name)  # it was on its way down when the faults stopped

        process.shut_down(lambda: self.agenda.call_later(0.0, down))
