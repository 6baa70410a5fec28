"""What the parts of a simulated library share: its state, and how it speaks."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Protocol

from berkeleydb import db

from replication.messages import RepType
from replication.wire import LSN, LSN_ZERO
from tests.sim.log import LOG_EMPTY, PERMANENT, Log, RecordType
from tests.sim.protocol import (
    EID_BROADCAST,
    EID_INVALID,
    ELECTABLE,
    GROUP_ESTABLISHED,
    PERM,
    RESEND,
    Control,
)

REQUEST_GAP_S: Final = 0.04  # the library's defaults
MAX_GAP_S: Final = 1.28
HISTORY: Final = b"__db.lsn.history"  # where each generation begins
_HISTORY_KEY: Final = struct.Struct(">II")  # format, generation
_HISTORY_DATA: Final = struct.Struct(">IIIII")  # environment, LSN, time
COMMITS: Final = frozenset({RecordType.COMMIT})

Send = Callable[[bytes, bytes, tuple[int, int], int, int], object]
Notify = Callable[[int, int | None], object]


class Clock(Protocol):
    """Simulated time."""

    def now(self) -> float: ...
    def call_later(self, delay_s: float, call: Callable[[], None]) -> object: ...


class Sync(Enum):
    """Where a client is in getting in step with its master."""

    OFF = "in step"
    VERIFY = "comparing logs"
    UPDATE = "asking for the file list"
    PAGE = "copying pages"
    LOG = "copying the log"


@dataclass
class Disk:
    """What outlives the process: the log, and the two files beside it.

    Args:
        log: the log and the databases.
        generation: of `__db.rep.gen`.
        egen: of `__db.rep.egen`, None before it was made.
        initialising: an internal initialisation is under way; broken off, it leaves nothing.
        opened: how often an environment was opened on it.
    """

    log: Log
    generation: int = 0
    egen: int | None = None
    initialising: bool = False
    opened: int = 0


@dataclass
class Settings:
    """What was configured before the environment was opened."""

    eid: int = 1
    priority: int = 1
    election_timeout_s: float = 2.0
    autoinit: bool = True
    autorollback: bool = True
    send: Send | None = None
    notify: Notify | None = None


@dataclass
class Region:
    """The replication region.

    Args:
        disk: see there.
        clock: simulated time.
        dice: where tiebreakers come from.
        settings: see there.
    """

    disk: Disk
    clock: Clock
    dice: random.Random
    settings: Settings
    role: int = 0  # DB_REP_CLIENT, DB_REP_MASTER
    generation: int = 0
    egen: int = 1
    master: int = EID_INVALID
    established: bool = False
    startup_complete: bool = False
    sync: Sync = Sync.OFF
    apply_locked: bool = False
    skipped_apply: bool = False
    waiting: dict[LSN, tuple[Control, bytes]] = field(default_factory=dict)
    max_wait: LSN = LSN_ZERO
    max_perm: LSN = LSN_ZERO
    verify: LSN = LSN_ZERO
    first: LSN = LSN_ZERO
    last: LSN = LSN_ZERO
    memory_databases_loaded: bool = False
    abbreviated: bool = False
    received_s: float = 0.0
    wait_s: float = REQUEST_GAP_S
    newmaster_told: int = 0

    @property
    def log(self) -> Log:
        return self.disk.log

    @property
    def is_master(self) -> bool:
        return self.role == db.DB_REP_MASTER

    @property
    def is_client(self) -> bool:
        return self.role == db.DB_REP_CLIENT

    @property
    def initialising(self) -> bool:
        """Pages or their log are being copied: what is here is no database."""
        return self.sync in (Sync.PAGE, Sync.LOG)

    @property
    def log_is_empty(self) -> bool:
        return self.log.end in (LOG_EMPTY, LSN_ZERO)

    @property
    def next_waiting(self) -> LSN:
        """The first record that came too early."""
        return min(self.waiting, default=LSN_ZERO)

    def data_generation(self) -> int:
        """Return the last generation of which data is here."""
        history = self.log.databases.files.get(HISTORY, {})
        return max((_HISTORY_KEY.unpack(key)[1] for key in history), default=0)

    def history_record(self, begins: LSN) -> tuple[bytes, bytes, bytes]:
        """Return what a new master writes first: its generation begins here."""
        data = _HISTORY_DATA.pack(self.settings.eid, *begins, int(self.clock.now()), 0)
        return HISTORY, _HISTORY_KEY.pack(1, self.generation), data

    def last_commit(self) -> LSN:
        """Return the place of the last commit record, which is what a site votes with."""
        record = self.log.last_of(COMMITS)
        return record.lsn if record is not None else LOG_EMPTY

    def last_permanent(self, before: LSN | None = None) -> LSN | None:
        """Return the place of the last commit or checkpoint."""
        record = self.log.last_of(PERMANENT, before)
        return record.lsn if record is not None else None

    def write_generation(self) -> None:
        """Keep the generation in its file."""
        self.disk.generation = self.generation

    def is_request_due(self) -> bool:
        """Tell whether it is time to ask again; each time the pause doubles."""
        now = self.clock.now()
        if now - self.received_s < self.wait_s:
            return False
        self.wait_s = min(2 * self.wait_s, MAX_GAP_S)
        self.received_s = now
        return True

    def received(self) -> None:
        """Something that was waited for came."""
        self.received_s = self.clock.now()

    # -- speaking ------------------------------------------------------------------------------

    def send(
        self,
        kind: RepType,
        eid: int = EID_BROADCAST,
        lsn: LSN = LSN_ZERO,
        record: bytes = b"",
        flags: int = 0,
        *,
        system: bool = False,
    ) -> None:
        """Give a message to the transport.

        Args:
            system: it is of the library's own database: nobody waits for it.
        """
        send_flags = 0
        if flags & PERM:
            if not system:
                send_flags = db.DB_REP_PERMANENT
        elif kind is not RepType.LOG or flags & RESEND:
            send_flags = db.DB_REP_NOBUFFER
        if self.established:
            flags |= GROUP_ESTABLISHED
        control = Control(kind, self.generation, lsn, flags)
        assert self.settings.send is not None, "rep_set_transport was called"
        self.settings.send(control.encode(), record, lsn, eid, send_flags)

    def announce(self, eid: int = EID_BROADCAST) -> None:
        """As a master: say so."""
        self.send(RepType.NEWMASTER, eid, self.log.end)

    def ask_for_master(self) -> None:
        """Ask everybody who is master."""
        self.send(RepType.MASTER_REQ)

    def notify(self, event: int, argument: int | None = None) -> None:
        """Call the event callback."""
        if self.settings.notify is not None:
            self.settings.notify(event, argument)

    def tell_new_master(self) -> None:
        """Fire NEWMASTER, once a generation."""
        if self.newmaster_told < self.generation:
            self.newmaster_told = self.generation
            self.notify(db.DB_EVENT_REP_NEWMASTER, self.master)

    def electable_flag(self) -> int:
        return ELECTABLE if self.settings.priority else 0
