"""One run of a site: the whole Replication Manager on a simulated environment, until it dies.

Everything from the manager down to the link's machine is the real code. Simulated are the library,
the sockets, the clock and the threads: what a thread of the environment does is done here after a
little while, one thing after the other. Only an election, which sits in the library, has a real
thread; it and the simulation take turns, so that nothing ever runs at the same time.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar, cast

from berkeleydb import db

from replication.apply import DEFERRED_POLL_S, Applier
from replication.bodies import SiteAddress
from replication.held_log import LOG_AND_PAGES
from replication.hooks import Hooks, Stoppable
from replication.journal import Journal
from replication.manager import Manager
from replication.settings import GroupSettings
from replication.wire import LSN, Frame
from tests.sim.agenda import Agenda
from tests.sim.databases import LOCKED_OUT
from tests.sim.library import AUTOROLLBACK, KEYS_FILE, SimulatedEnv
from tests.sim.loop import ProcessTime, SimulatedLoop
from tests.sim.network import Host, Network
from tests.sim.plan import ELECTION_TIMEOUT_S
from tests.sim.protocol import EID_INVALID
from tests.sim.region import Disk
from tests.sim.votes import Ended

T = TypeVar("T")

OPEN_S: Final = 0.1  # recovery and the rest of a start
CALL_S: Final = 0.0005  # a call on a thread of the environment
APPLY_S: Final = 0.001
COMMIT_S: Final = 0.0003
FLUSH_S: Final = 0.002
LOG_BUDGET_FILES: Final = 3


class Surroundings(Protocol):
    """Whom a process tells."""

    def failed(self, process: Process, why: str) -> None: ...
    def noted(self, process: Process, event: str, facts: dict[str, object]) -> None: ...
    def library_said(self, process: Process, event: int) -> None: ...
    def confirmed(self, process: Process, token: Any, shortfall: str | None) -> None: ...
    def would_roll_back(self, process: Process, lsn: LSN) -> None: ...
    def rolled_back(self, process: Process, lsn: LSN) -> None: ...
    def applied_while_voting(self, process: Process) -> None: ...
    def spoil(self, process: Process, eid: int, frames: list[Frame]) -> list[Frame]: ...


class _Killed(BaseException):
    """Ends a thread whose process is gone."""


class BlockingCall:
    """A call that may sit in the library: a thread, and the simulation, take turns."""

    current: BlockingCall | None = None

    def __init__(self, call: Callable[[], Any], done: Callable[[Any, BaseException | None], None]):
        self._call = call
        self._done = done
        self._ours = threading.Semaphore(0)
        self._theirs = threading.Semaphore(0)
        self._outcome: tuple[Any, BaseException | None] | None = None
        self._killed = False
        self._thread = threading.Thread(target=self._run, name="election", daemon=True)

    def start(self) -> None:
        """Let it run until it waits or is over."""
        self._switch(self._thread.start)

    def resume(self) -> None:
        """Let it go on."""
        self._switch(self._ours.release)

    def kill(self) -> None:
        """End the thread; nobody hears of its outcome."""
        if self._thread.is_alive() and self._outcome is None:
            self._killed = True
            self._switch(self._ours.release)

    def wait(self) -> None:
        """Called by the thread: let the simulation go on until `resume`."""
        self._theirs.release()
        self._ours.acquire()
        if self._killed:
            raise _Killed

    def _switch(self, to_thread: Callable[[], object]) -> None:
        before, BlockingCall.current = BlockingCall.current, self
        to_thread()
        self._theirs.acquire()
        BlockingCall.current = before
        if self._outcome is not None:
            self._thread.join()
            if not self._killed:
                self._done(*self._outcome)

    def _run(self) -> None:
        try:
            self._outcome = self._call(), None
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits for the outcome
            self._outcome = None, error
        self._theirs.release()


@dataclass
class Vote:
    """A vote of a site, which outlives the process that cast it.

    Args:
        generation: of the master that it may make.
        ended_s: when the call that cast it returned, or the process died.
    """

    generation: int
    ended_s: float | None = None


class SiteEnv(SimulatedEnv):
    """The environment of a process; `rep_elect` sits in it, as in the library."""

    process: Process
    vote: Vote | None = None
    voters = 0  # members of the group by the list here, when an election was called last

    @property
    def vote_is_out(self) -> bool:
        """This site's vote may still make somebody master who has not what it applies now."""
        region, vote = self.region, self.vote
        follows = region.is_master or region.master != EID_INVALID
        if vote is None or (follows and region.generation >= vote.generation):
            return False
        return vote.ended_s is None or region.clock.now() < vote.ended_s + ELECTION_TIMEOUT_S

    def hold_election(self, nsites: int, nvotes: int, ended: Ended) -> None:
        vote = Vote(self.region.egen)
        self.voters = self.process.members

        def over(error: Exception | None) -> None:
            vote.ended_s = self.region.clock.now()
            ended(error)

        new = self.vote is None or self.vote.generation < vote.generation
        super().hold_election(nsites, nvotes, over)
        if new and self.region.disk.egen == vote.generation + 1:  # it was cast
            self.vote = vote

    def rep_process_message(
        self, control: bytes, record: bytes, eid: int
    ) -> tuple[int | None, LSN | None]:
        votes, end = self.vote_is_out, self.disk.log.end
        answer = super().rep_process_message(control, record, eid)
        if votes and control[19] in LOG_AND_PAGES and self.disk.log.end > end:
            self.process.surroundings.applied_while_voting(self.process)
        return answer

    def rep_start(self, role: int) -> None:
        if role != self.region.role and self.process.commits:
            # The library waits for transactions under way; so does who calls it, by trying again.
            raise db.DBRepLockoutError(LOCKED_OUT, "DB_REP_LOCKOUT")
        super().rep_start(role)

    def rep_elect(self, nsites: int, nvotes: int) -> None:
        call = BlockingCall.current
        assert call is not None, "elections are held on a thread of their own"
        outcome: list[Exception | None] = []

        def ended(error: Exception | None) -> None:
            outcome.append(error)
            if waits:
                self.process.time.call_later(0.0, call.resume)

        waits = False
        self.hold_election(nsites, nvotes, ended)
        if not outcome:
            waits = True
            call.wait()
        if outcome[0] is not None:
            raise outcome[0]


class Calls:
    """A thread of the environment: its calls are done one after the other.

    Args:
        blocking: they may sit in the library.
    """

    def __init__(self, process: Process, *, blocking: bool) -> None:
        self._process = process
        self._blocking = blocking
        self._free_s = 0.0
        self._under_way: set[BlockingCall] = set()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        done: Future[T] = Future()
        time = self._process.time
        self._free_s = max(self._free_s, time.now()) + self._process.dice.random() * CALL_S
        start = self._block if self._blocking else self._do
        time.call_later(self._free_s - time.now(), lambda: start(call, done))
        return done

    def _do(self, call: Callable[[], T], done: Future[T]) -> None:
        try:
            done.set_result(call())
        except Exception as error:  # noqa: BLE001 - as a thread's future
            done.set_exception(error)

    def _block(self, call: Callable[[], T], done: Future[T]) -> None:
        def finished(value: Any, error: BaseException | None) -> None:
            self._under_way.discard(blocking)
            if error is None:
                done.set_result(value)
            else:
                done.set_exception(error)

        blocking = BlockingCall(call, finished)
        self._under_way.add(blocking)
        blocking.start()

    def kill(self) -> None:
        for blocking in list(self._under_way):
            blocking.kill()


class SimulatedApplier(Applier):
    """The apply thread without a thread: it takes up what waits after a little while."""

    process: Process
    _due = False
    _ended = False

    def start(self) -> None:
        self._schedule()

    def stop(self) -> None:
        self._stopping = self._ended = True

    def join(self, timeout: float | None = None) -> None:
        """Nobody to wait for."""

    def is_alive(self) -> bool:
        return not self._ended

    def put(self, eid: int, frames: Any, size: int) -> bool:
        spoilt = self.process.surroundings.spoil(self.process, eid, list(frames))
        full = super().put(eid, spoilt, size)
        self._schedule()
        return full

    def _wake(self) -> None:
        super()._wake()
        self._schedule()

    def _schedule(self) -> None:
        if not self._due:
            self._due = True
            delay_s = self.process.dice.random() * APPLY_S
            self.process.time.call_later(delay_s, self._take_up)

    def _take_up(self) -> None:
        self._due = False
        if self._stopping:
            return
        if not self._queue.empty():
            self._take_all(self._queue.get())
        while not self._sync_queue.empty():
            item = self._sync_queue.get()
            if item is not None:
                self._process_quietly(*item)
        if self._deferred:
            self.process.time.call_later(DEFERRED_POLL_S, self._serve)

    def _serve(self) -> None:
        self._serve_deferred()
        self._schedule()


class SimulatedJournal:
    """The journal: its lines become part of the transcript."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def write(self, event: str, /, **facts: object) -> None:
        self._process.surroundings.noted(self._process, event, facts)

    def write_seldom(self, event: str, /, *, every_s: float, burst: int, **facts: object) -> None:
        self.write(event, **facts)

    def set_role(self, role: str) -> None:
        """The transcript does not name roles."""

    def rotate_if_due(self) -> None:
        """It has no file."""


async def no_errand(_request: bytes) -> bytes:
    """Nobody asks a simulated master to write for somebody else."""
    return b""


class Process:
    """See the module's text.

    Args:
        settings: the operator's.
        disk: what the site has.
        memory_path: where it keeps the file beside its environment.
        durability: sync, write_nosync or nosync.
        permitted: where the log may be rolled back to.
        vote: its last one of an earlier run.
        number: of the run, for names.
        agenda, network, dice, surroundings: of the simulation.
    """

    def __init__(
        self,
        settings: GroupSettings,
        disk: Disk,
        memory_path: Path,
        number: int,
        agenda: Agenda,
        network: Network,
        dice: random.Random,
        surroundings: Surroundings,
        *,
        durability: str,
        permitted: LSN | None,
        vote: Vote | None,
    ) -> None:
        self.settings = settings
        self.number = number
        self.dice = dice
        self.surroundings = surroundings
        self.flushes = durability == "sync"
        self._writes = durability == "write_nosync"
        self.time = ProcessTime(agenda)
        self.loop = SimulatedLoop(self.time, lambda why: surroundings.failed(self, why))
        self.network = network
        self.host = Host(settings.local, self.time, self.loop)
        network.hosts[settings.local] = self.host
        self.env = SiteEnv(disk, self.time, dice)
        self.env.process = self
        self.env.vote = vote
        self.manager: Manager | None = None
        self.running = False
        self.flush_s = FLUSH_S
        self._committing = 0
        self._waiting: list[Callable[[], None]] | None = None  # while no write may begin
        self._no_checkpoints = False
        self._accepting = False
        self._disk = disk
        self._memory_path = memory_path
        self._permitted = permitted
        self._threads: list[Calls] = []
        self.time.call_later(OPEN_S * (1 + dice.random()), self._open)

    @property
    def name(self) -> SiteAddress:
        return self.settings.local

    # -- life --------------------------------------------------------------------------------------

    def _open(self) -> None:
        self.loop.enter(self._make)

    def _make(self) -> None:
        self.manager = manager = Manager(
            self.settings,
            listen=self.settings.local,
            clients=None,
            journal=cast(Journal, SimulatedJournal(self)),
            memory_path=self._memory_path,
            hooks=Hooks(
                role_changed=self._role_changed,
                handles_died=lambda: None,
                confirmed=lambda token, shortfall: self.surroundings.confirmed(
                    self, token, shortfall
                ),
                acked=lambda: None,
                permanent=lambda _lsn: None,
                panicked=lambda error: self.surroundings.failed(self, f"panic: {error!r}"),
                writers=self,
                would_roll_back=lambda lsn: self.surroundings.would_roll_back(self, lsn),
                rolled_back=lambda lsn: self.surroundings.rolled_back(self, lsn),
                in_step=lambda _synced: None,
                errand=no_errand,
            ),
            new_group_id=self.dice.getrandbits(62) | 1,
            flush_applied=self.flushes,
        )
        manager.permitted_rollback = self._permitted
        manager.configure(cast(db.DBEnv, self.env))
        self.env.rep_set_config(AUTOROLLBACK, 0)
        notify = self.env.settings.notify
        assert notify is not None, "the manager listens to events"

        def told(event: int, argument: int | None) -> None:
            self.surroundings.library_said(self, event)
            notify(event, argument)

        self.env.settings.notify = told
        self.env.open()
        self.loop.create_task(self._start(manager))

    def _role_changed(self) -> None:
        """As the engine does: a master that takes no writes any more answers those that wait."""
        manager = self.manager
        if manager is None or not self.running:
            return
        leads = manager.core.is_master or manager.core.handover.keeps_clients
        accepts = leads and manager.cut_off() is None
        if self._accepting and not accepts:
            manager.stop_confirming()
        self._accepting = accepts

    async def _start(self, manager: Manager) -> None:
        await manager.start(Owner(self))
        self.running = True

    def kill(self, *, powered: bool) -> None:
        """End it now.

        Args:
            powered: the machine lives on and closes its connections.
        """
        self.running = False
        self.time.alive = False
        vote = self.env.vote
        if vote is not None and vote.ended_s is None:
            vote.ended_s = self.time.now()
        self.host.powered = powered
        for thread in self._threads:
            thread.kill()
        self.loop.kill()
        self.network.process_died(self.host)

    def stop_for(self, seconds: float) -> None:
        """Stop it (SIGSTOP) for a while."""
        self.time.stop_for(seconds)

    def shut_down(self, then: Callable[[], object]) -> None:
        """Stop it in good order."""
        manager = self.manager
        if manager is None or not self.running:
            then()
            return

        async def stop() -> None:
            await manager.stop()
            self.env.log_flush()
            then()

        self.running = False
        self.loop.enter(lambda: self.loop.create_task(stop()))

    def thread(self, name: str) -> Calls:
        """Return one of the environment's threads."""
        self._threads.append(Calls(self, blocking=name == "election"))
        return self._threads[-1]

    # -- clients -----------------------------------------------------------------------------------

    @property
    def members(self) -> int:
        """How many sites the group has by the list here."""
        return 1 if self.manager is None else len(self.manager.core.members()) + 1

    @property
    def commits(self) -> bool:
        """A commit waits for the disk."""
        return self._committing > 0

    @property
    def follows(self) -> SiteAddress | None:
        """The master that the library follows."""
        region = self.env.region
        if self.manager is None or not region.is_client:
            return None
        state = self.manager.core.sites.by_eid(region.master)
        return state.address if state is not None else None

    @property
    def takes_writes(self) -> bool:
        """Whether this site believes that it may write."""
        return self.running and self.manager is not None and self.manager.core.is_master

    def write(self, key: bytes, value: bytes, token: Any, begun: Callable[[LSN], None]) -> None:
        """Commit a write as the committer would; `Surroundings.confirmed` tells what became of it.

        Args:
            begun: told the place of its commit record, before it is flushed.
        """

        def commit() -> None:
            if self._waiting is not None:
                self._waiting.append(commit)
            else:
                self._commit(key, value, token, begun)

        self.time.call_later(self.dice.random() * COMMIT_S, commit)

    def _commit(self, key: bytes, value: bytes, token: Any, begun: Callable[[LSN], None]) -> None:
        manager = self.manager
        assert manager is not None, "it takes writes"
        generation = manager.confirmations.generation  # before it begins: an earlier one at worst
        try:
            lsn = self.env.commit((KEYS_FILE, key, value))
        except db.DBError as error:
            self.surroundings.confirmed(self, token, f"not committed: {error.args[-1]}")
            return
        begun(lsn)
        if self.flushes:
            self._committing += 1
            delay_s = self.dice.random() * self.flush_s
            self.time.call_later(delay_s, lambda: self._flushed(lsn, generation, token))
        else:
            if self._writes:
                self._disk.log.write()
            self._committed(lsn, generation, token)

    def _flushed(self, lsn: LSN, generation: int, token: Any) -> None:
        self._committing -= 1
        self.env.log_flush()
        self._committed(lsn, generation, token)

    def _committed(self, lsn: LSN, generation: int, token: Any) -> None:
        manager = self.manager
        assert manager is not None, "it committed"
        self.loop.enter(lambda: manager.confirmations.confirm(lsn, token, generation=generation))

    # -- standing still while the master's role is handed over -----------------------------------

    def hold_checkpoints(self) -> bool:
        self._no_checkpoints = True
        return True

    def hold_writes(self) -> bool:
        if self._waiting is None:
            self._waiting = []
        return not self._committing

    def release(self) -> None:
        waiting, self._waiting = self._waiting or [], None
        self._no_checkpoints = False
        for commit in waiting:
            commit()

    def upkeep(self) -> None:
        """Write a checkpoint and let go of log that nobody needs."""
        manager = self.manager
        master = self.takes_writes and self.env.region.is_master
        if manager is None or not master or self._no_checkpoints:
            return
        self.env.checkpoint()
        end = self._disk.log.end.file
        needs = manager.log_needs() or ()
        needed = [need.file for need in needs if need.file is not None]
        self.env.remove_logs_below(max(min(needed, default=end), end - LOG_BUDGET_FILES))


class Owner:
    """What the manager calls the library: the environment and its threads."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @property
    def env(self) -> db.DBEnv:
        return cast(db.DBEnv, self._process.env)

    def worker(self, name: str) -> Calls:
        return self._process.thread(name)

    def adopt(self, thread: Stoppable) -> None:
        """It ends with the process."""
