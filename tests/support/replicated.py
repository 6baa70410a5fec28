"""Real replicated environments in one process, joined by function calls instead of sockets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from berkeleydb import db

from replication.apply import Applier
from replication.held_log import HeldLog
from replication.messages import MessageType
from replication.wire import LSN, Frame, lsn_from_library

DEADLINE_S = 20.0
MASTER_EID, REPLICANT_EID = 1, 2
FLAGS = (
    db.DB_CREATE
    | db.DB_INIT_LOCK
    | db.DB_INIT_LOG
    | db.DB_INIT_MPOOL
    | db.DB_INIT_REP
    | db.DB_INIT_TXN
    | db.DB_RECOVER
    | db.DB_THREAD
)


def wait_for(what: str, condition: Callable[[], object], deadline_s: float = DEADLINE_S) -> None:
    """Wait until `condition` holds; for tests whose parts are threads."""
    end_s = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end_s, f"not in {deadline_s} s: {what}"
        time.sleep(0.002)


def frame(control: bytes, record: bytes) -> Frame:
    """Return the frame that carries a message."""
    return Frame(MessageType.REP_MESSAGE, len(control), len(record), control, record)


@contextmanager
def environment(
    home: Path, eid: int = MASTER_EID, send: Callable[..., None] | None = None
) -> Iterator[db.DBEnv]:
    """Open a replicated environment; without `send` it speaks to nobody."""
    home.mkdir(parents=True, exist_ok=True)
    env = db.DBEnv()
    try:
        env.rep_set_transport(eid, send or (lambda *_: None))
        env.rep_set_priority(1)
        env.set_flags(db.DB_TXN_NOSYNC, 1)
        env.open(str(home), FLAGS, 0o600)
        yield env
        env.log_flush()
    finally:
        env.close()


@dataclass
class Told:
    """What an applier told; the applier calls from its threads."""

    acks: list[tuple[int, LSN]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    nsites: list[int] = field(default_factory=list)
    syncs: list[int] = field(default_factory=list)
    masters: list[int] = field(default_factory=list)
    clients: list[int] = field(default_factory=list)
    membership: int = 0
    failures: list[Exception] = field(default_factory=list)
    rooms: int = 0
    released: list[tuple[int, int]] = field(default_factory=list)
    announced: list[LSN] = field(default_factory=list)
    undone: list[LSN] = field(default_factory=list)
    choked: bool = False

    def would_roll_back(self, sync_point: LSN) -> None:
        self.announced.append(sync_point)

    def rolled_back(self, sync_point: LSN) -> None:
        self.undone.append(sync_point)

    def permanent(self, generation: int, lsn: LSN) -> None:
        self.acks.append((generation, lsn))

    def answered(self, code: int, nsites: int = 0) -> None:
        self.answers.append(code)
        self.nsites.append(nsites)

    def master_heard(self, eid: int) -> None:
        self.masters.append(eid)

    def client_heard(self, eid: int) -> None:
        self.clients.append(eid)

    def passing(self, eid: int, kind: int, record: bytes) -> None:
        self.syncs.append(kind)

    def membership_logged(self) -> None:
        self.membership += 1

    def broken(self, eid: int, error: Exception) -> None:
        self.failures.append(error)

    def room(self) -> None:
        self.rooms += 1

    def log_released(self, messages: int, dropped: int) -> None:
        self.released.append((messages, dropped))


class Observed:
    """A real library handle; the calls an applier makes are noted, and can be held up or failed."""

    def __init__(self, env: db.DBEnv) -> None:
        self._env = env
        self.calls: list[str] = []
        self.open = threading.Event()
        self.open.set()
        self.raises: list[Exception] = []
        self.hold: int | None = None  # only messages of this kind are held up

    def rep_process_message(self, control: bytes, record: bytes, eid: int) -> Any:
        kind = control[19]
        if self.hold is None or self.hold == kind:
            assert self.open.wait(DEADLINE_S), "the test forgot to open it"
        if self.raises:
            raise self.raises.pop(0)
        self.calls.append(f"message {kind}")
        return self._env.rep_process_message(control, record, eid)

    def log_flush(self) -> None:
        self.calls.append("flush")
        self._env.log_flush()


@dataclass
class Site:
    """One environment with its apply thread."""

    env: db.DBEnv
    seen: Observed
    told: Told
    applier: Applier
    held: HeldLog


class Pair:
    """A master and a replicant. What the master sends can be kept back for a while."""

    def __init__(self) -> None:
        self.kept: list[Frame] | None = None
        self.master: Site
        self.replicant: Site
        self.names: list[bytes] = []

    def from_master(
        self, _env: db.DBEnv, control: bytes, record: bytes, _lsn: Any, _eid: int, _flags: int
    ) -> None:
        kept = self.kept
        if kept is not None:
            kept.append(frame(control, record))
        else:
            self.deliver([frame(control, record)])

    def from_replicant(
        self, _env: db.DBEnv, control: bytes, record: bytes, _lsn: Any, _eid: int, _flags: int
    ) -> None:
        size = len(control) + len(record)
        self.master.applier.put(REPLICANT_EID, [frame(control, record)], size)

    def deliver(self, frames: list[Frame]) -> bool:
        """Queue messages of the master at the replicant."""
        size = sum(len(f.control) + len(f.rec) for f in frames)
        return self.replicant.applier.put(MASTER_EID, frames, size)

    def commit(self, count: int, size: int = 100, flags: int = 0) -> LSN:
        """Write records at the master; returns the end of its log."""
        for _ in range(count):
            txn = self.master.env.txn_begin()
            self.database.put(b"key %d" % len(self.names), bytes(size), txn)
            txn.commit(flags)
            self.names.append(b"key %d" % len(self.names))
        return lsn_from_library(self.master.env.rep_stat()["max_perm_lsn"])

    database: db.DB


@contextmanager
def site(home: Path, eid: int, send: Callable[..., None], *, bytes_max: int) -> Iterator[Site]:
    """Open an environment and start its apply thread."""
    with environment(home, eid, send) as env:
        told, seen, held = Told(), Observed(env), HeldLog(bytes_max)
        applier = Applier(
            seen,  # type: ignore[arg-type]  # a handle that is looked at
            told,
            is_choked=lambda _eid: told.choked,
            flush_links=lambda: None,
            bytes_max=bytes_max,
            held=held,
        )
        applier.start()
        try:
            yield Site(env, seen, told, applier, held)
        finally:
            seen.open.set()
            applier.stop()
            applier.join(DEADLINE_S)
            assert not applier.is_alive()


@contextmanager
def pair(home: Path, *, bytes_max: int = 32 * 2**20) -> Iterator[Pair]:
    """Run a master and a replicant that is in step with it."""
    made = Pair()
    with (
        site(home / "m", MASTER_EID, made.from_master, bytes_max=bytes_max) as made.master,
        site(home / "r", REPLICANT_EID, made.from_replicant, bytes_max=bytes_max) as made.replicant,
    ):
        made.master.env.rep_start(db.DB_REP_MASTER)
        made.database = db.DB(made.master.env)
        made.database.open("keys.db", dbtype=db.DB_BTREE, flags=db.DB_CREATE | db.DB_AUTO_COMMIT)
        made.replicant.env.rep_start(db.DB_REP_CLIENT)
        env = made.replicant.env
        try:
            wait_for("the replicant is in step", lambda: env.rep_stat()["startup_complete"])
            end = made.commit(1)
            wait_for("it acknowledged", lambda: (1, end) in made.replicant.told.acks)
            made.replicant.told.failures.clear()  # of what came before it had a role
            yield made
        finally:
            for applier in (made.master.applier, made.replicant.applier):
                made.replicant.seen.open.set()
                applier.stop()
                applier.join(DEADLINE_S)
            made.database.close()
