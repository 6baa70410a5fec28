"""A stage for scripts about the library: real environments or simulated ones, played alike.

Sites are in one process; what one sends waits until the script has it delivered, so that a script
can hold messages back, lose them or deliver them twice. Each site's EID is the same everywhere.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, cast

from berkeleydb import db

from replication import library
from replication.messages import RepType
from replication.wire import LSN, lsn_from_library
from tests.sim.agenda import Agenda
from tests.sim.library import AUTOROLLBACK, KEYS_FILE, SimulatedEnv
from tests.sim.log import Log
from tests.sim.protocol import Control
from tests.sim.region import Disk
from tests.support.replicated import FLAGS

DEADLINE_S: Final = 20.0
PAUSE_S: Final = 0.002  # between two looks at real environments, whose threads need a while
ELECTION_TIMEOUT_S: Final = 0.4
LOG_FILE_BYTES: Final = 160 * 1024
LOG_BUFFER_BYTES: Final = 32 * 1024
STEPS_MAX: Final = 100_000
_ANSWERS: Final = {
    getattr(db, f"DB_REP_{name}"): name
    for name in ("ISPERM", "NOTPERM", "IGNORE", "DUPMASTER", "HOLDELECTION", "JOIN_FAILURE")
}
_EVENTS: Final = {
    getattr(db, f"DB_EVENT_REP_{name}"): name
    for name in ("CLIENT", "MASTER", "NEWMASTER", "STARTUPDONE", "ELECTED", "INIT_DONE")
}


class Message(NamedTuple):
    """Something on its way."""

    sender: int
    to: int
    control: bytes
    record: bytes

    @property
    def kind(self) -> RepType:
        return Control.decode(self.control).kind


class Env(Protocol):
    """What scripts ask of an environment beside the binding's own calls."""

    def commit(self, key: bytes, value: bytes) -> LSN: ...
    def checkpoint(self) -> None: ...
    def remove_logs(self) -> None: ...
    def get(self, key: bytes) -> bytes | None: ...
    def hold_election(
        self, nsites: int, nvotes: int, ended: Callable[[Exception | None], None]
    ) -> None: ...
    def close(self) -> None: ...
    @property
    def handle(self) -> db.DBEnv: ...


@dataclass
class Options:
    """How a site's environment is configured."""

    priority: int = 1
    autoinit: bool = True
    autorollback: bool = True


@dataclass(eq=False)
class Site:
    """One site on the stage, and what the library said there.

    Args:
        answers: (name, LSN or None) of each message that was answered with more than "fine".
        events: names; NEWMASTER with the EID behind a colon.
        elections: what each election ended with, "decided" or "unavailable".
    """

    stage: Stage
    eid: int
    options: Options
    env: Env = field(init=False)
    answers: list[tuple[str, LSN | None]] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    elections: list[str] = field(default_factory=list)
    electing: int = 0
    started: bool = False
    asked: bool = False

    @property
    def handle(self) -> db.DBEnv:
        return self.env.handle

    @property
    def stat(self) -> dict[str, Any]:
        return cast(dict[str, Any], self.handle.rep_stat())

    @property
    def max_perm(self) -> LSN:
        return lsn_from_library(self.stat["max_perm_lsn"])

    def start(self, role: int) -> None:
        self.started = True
        self.handle.rep_start(role)

    def elect(self, nsites: int, nvotes: int) -> None:
        """Hold an election; `Stage.settle` waits for its end."""
        self.electing += 1
        self.env.hold_election(nsites, nvotes, self._elected)

    def _elected(self, error: Exception | None) -> None:
        self.electing -= 1
        if error is not None and not isinstance(error, db.DBRepUnavailError):
            raise error
        self.elections.append("decided" if error is None else "unavailable")

    def sent(self, env: Any, control: bytes, record: bytes, lsn: Any, eid: int, flags: int) -> None:
        """The library's send callback."""
        self.stage.sent(self, eid, control, record)
        if flags & db.DB_REP_PERMANENT:
            self.stage.last_permanent = lsn_from_library(lsn)

    def told(self, env: Any, what: int, argument: int | None = None) -> None:
        """The library's event callback."""
        if what in _EVENTS:
            name = _EVENTS[what]
            self.events.append(f"{name}:{argument}" if name == "NEWMASTER" else name)

    def configure(self, env: Any) -> None:
        """Prepare an environment that is not open yet."""
        env.set_event_notify(self.told)
        env.rep_set_transport(self.eid, self.sent)
        env.rep_set_priority(self.options.priority)
        env.rep_set_timeout(db.DB_REP_ELECTION_TIMEOUT, int(ELECTION_TIMEOUT_S * 1e6))
        env.rep_set_timeout(db.DB_REP_CHECKPOINT_DELAY, 0)
        env.rep_set_config(db.DB_REP_CONF_NOWAIT, 1)
        env.rep_set_config(db.DB_REP_CONF_AUTOINIT, int(self.options.autoinit))
        env.rep_set_config(AUTOROLLBACK, int(self.options.autorollback))

    def take(self, message: Message) -> None:
        """Hand a message to the library."""
        code, detail = self.handle.rep_process_message(
            message.control, message.record, message.sender
        )
        self.asked = code == db.DB_REP_HOLDELECTION or self.asked
        if code in _ANSWERS:
            lsn = None if detail is None else lsn_from_library(cast("tuple[int, int]", detail))
            self.answers.append((_ANSWERS[code], lsn if "PERM" in _ANSWERS[code] else None))


class Stage:
    """See the module's text."""

    def __init__(self) -> None:
        self.sites: dict[int, Site] = {}
        self.queue: deque[Message] = deque()
        self.kept: list[Message] = []
        self.log: list[Message] = []
        self.keeps: Callable[[Message], bool] = lambda _message: False
        self.down: set[int] = set()
        self.last_permanent = LSN(0, 0)
        self.joins: tuple[int, int] | None = None  # nsites and nvotes for who is asked to vote

    # -- what differs ----------------------------------------------------------------------------

    def make(self, site: Site) -> Env:
        """Open the environment of a site."""
        raise NotImplementedError

    def pause(self) -> None:
        """Let a little time pass."""
        raise NotImplementedError

    # -- scripts ---------------------------------------------------------------------------------

    def site(self, options: Options | None = None) -> Site:
        """Add a site; its environment is new and empty."""
        made = Site(self, len(self.sites) + 1, options or Options())
        self.sites[made.eid] = made
        made.env = self.make(made)
        return made

    def close(self, site: Site) -> None:
        """Close a site's environment: nothing reaches it until `reopen`."""
        self.until("its election is over", lambda: not site.electing)
        self.down.add(site.eid)
        site.env.close()

    def reopen(self, site: Site) -> None:
        """Open it again, with recovery."""
        self.down.discard(site.eid)
        site.started = False
        site.answers.clear()
        site.events.clear()
        site.env = self.make(site)

    def close_all(self) -> None:
        """End it."""
        self.queue.clear()
        self.keeps = lambda _message: True
        for site in self.sites.values():
            if site.eid not in self.down and hasattr(site, "env"):
                self.close(site)

    def sent(self, sender: Site, to: int, control: bytes, record: bytes) -> None:
        """A site sent something."""
        receivers = [to] if to > 0 else [eid for eid in list(self.sites) if eid != sender.eid]
        for eid in receivers:
            message = Message(sender.eid, eid, control, record)
            self.log.append(message)
            self.queue.append(message)

    def deliver(self, message: Message) -> None:
        """Deliver one message, unless its receiver is down or has no role yet."""
        site = self.sites.get(message.to)
        if site is not None and site.started and site.eid not in self.down:
            site.take(message)

    def settle(self) -> None:
        """Deliver everything, and what comes of it, until all is quiet and no election runs."""
        for _ in range(STEPS_MAX):
            if self.queue:
                message = self.queue.popleft()
                if self.keeps(message):
                    self.kept.append(message)
                else:
                    self.deliver(message)
            elif self._joins() or any(site.electing for site in self.sites.values()):
                self.pause()
            else:
                return
        raise AssertionError("the sites never come to rest")

    def _joins(self) -> bool:
        """Have sites that were asked for it take part in an election."""
        if self.joins is None:
            return False
        asked = [s for s in self.sites.values() if s.asked and not s.electing]
        for site in asked:
            site.asked = False
            site.elect(*self.joins)
        return bool(asked)

    def until(
        self, what: str, condition: Callable[[], object], step: Callable[[], object] | None = None
    ) -> None:
        """Settle until a condition holds, doing `step` before each look."""
        end_s = time.monotonic() + DEADLINE_S
        while True:
            if step is not None:
                step()
            self.settle()
            if condition():
                return
            assert time.monotonic() < end_s, f"not within {DEADLINE_S:g} s: {what}"
            self.pause()

    def release(self) -> None:
        """Deliver what was kept, and keep nothing any more."""
        kept, self.kept = self.kept, []
        self.keeps = lambda _message: False
        self.queue.extendleft(reversed(kept))
        self.settle()

    def count(self, kind: RepType, sender: Site | None = None) -> int:
        """How many messages of a kind were sent (by one site)."""
        senders = set(self.sites) if sender is None else {sender.eid}
        return sum(1 for m in list(self.log) if m.kind is kind and m.sender in senders)


class LibraryStage(Stage):
    """Real Berkeley DB."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory
        self.left_open: list[db.DBEnv] = []

    def make(self, site: Site) -> Env:
        return _LibraryEnv(self, site, self._directory / f"site{site.eid}")

    def pause(self) -> None:
        time.sleep(PAUSE_S)


class _LibraryEnv:
    """A real environment; each call opens its own handle, for handles die."""

    def __init__(self, stage: LibraryStage, site: Site, home: Path) -> None:
        home.mkdir(exist_ok=True)
        self._stage = stage
        self._home = home
        self._threads: list[threading.Thread] = []
        self._env = db.DBEnv()
        site.configure(self._env)
        self._env.set_flags(db.DB_TXN_NOSYNC, 1)
        self._env.set_lg_bsize(LOG_BUFFER_BYTES)
        self._env.set_lg_max(LOG_FILE_BYTES)
        self._env.open(str(home), FLAGS, 0o600)

    @property
    def handle(self) -> db.DBEnv:
        return self._env

    def commit(self, key: bytes, value: bytes) -> LSN:
        txn = self._env.txn_begin()
        keys = db.DB(self._env)
        try:
            keys.open(KEYS_FILE.decode(), dbtype=db.DB_BTREE, flags=db.DB_CREATE, txn=txn)
            keys.put(key, value, txn)
        except BaseException:
            txn.abort()
            keys.close()
            raise
        txn.commit()
        lsn = self._stage.last_permanent
        keys.close()
        return lsn

    def checkpoint(self) -> None:
        self._env.txn_checkpoint(0, 0, db.DB_FORCE)

    def remove_logs(self) -> None:
        # Not by log_archive: for half a minute after a copy was asked for it removes nothing.
        needed = library.standing(self._env).permanent.file  # the checkpoint's
        for path in self._home.glob("log.*"):
            if int(path.suffix[1:]) < needed:
                path.unlink()

    def get(self, key: bytes) -> bytes | None:
        keys = db.DB(self._env)
        try:
            keys.open(KEYS_FILE.decode(), dbtype=db.DB_BTREE, flags=db.DB_RDONLY)
            return keys.get(key)
        except db.DBNoSuchFileError:
            return None
        finally:
            keys.close()

    def hold_election(
        self, nsites: int, nvotes: int, ended: Callable[[Exception | None], None]
    ) -> None:
        def run() -> None:
            try:
                self._env.rep_elect(nsites, nvotes)
            except db.DBError as error:
                ended(error)
            else:
                ended(None)

        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()

    def close(self) -> None:
        for thread in self._threads:
            thread.join(DEADLINE_S)
        try:
            self._env.close()
        except db.DBRepLockoutError:
            # In the middle of a copy the library does not let go; a process would end here.
            self._stage.left_open.append(self._env)


class SimulatedStage(Stage):
    """Simulated environments, under a clock that only the script moves."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__()
        self._agenda = Agenda()
        self._dice = random.Random(seed)
        self._disks: dict[int, Disk] = {}

    def make(self, site: Site) -> Env:
        disk = self._disks.setdefault(site.eid, Disk(Log(LOG_FILE_BYTES)))
        env = SimulatedEnv(disk, self._agenda, self._dice)
        site.configure(env)
        env.open()
        return _Simulated(env)

    def pause(self) -> None:
        self._agenda.run_for(PAUSE_S)


class _Simulated:
    """The same calls on a simulated environment."""

    def __init__(self, env: SimulatedEnv) -> None:
        self._env = env

    @property
    def handle(self) -> db.DBEnv:
        return cast(db.DBEnv, self._env)

    def commit(self, key: bytes, value: bytes) -> LSN:
        return self._env.commit((KEYS_FILE, key, value))

    def checkpoint(self) -> None:
        self._env.checkpoint()

    def remove_logs(self) -> None:
        self._env.remove_logs_below(2**31)

    def get(self, key: bytes) -> bytes | None:
        return self._env.get(KEYS_FILE, key)

    def hold_election(
        self, nsites: int, nvotes: int, ended: Callable[[Exception | None], None]
    ) -> None:
        self._env.hold_election(nsites, nvotes, ended)

    def close(self) -> None:
        self._env.log_flush()
