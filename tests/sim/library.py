"""A simulated Berkeley DB environment with its Base replication API, as far as ttserver uses it.

It has the names of the binding's `DBEnv`, answers as it does and raises its exceptions, so that
everything above it is the real code. Nothing in it waits: `rep_elect`, which sits in the library
for its whole time, is `hold_election` here and says by a call that it is over.

That it behaves like the library is not said but tested: tests/sim/test_library.py plays the same
scripts on it and on Berkeley DB.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

from berkeleydb import db

from replication.messages import RepType
from replication.wire import LSN, LSN_ZERO
from tests.sim.databases import SimulatedTxn
from tests.sim.following import FINE, Answer, Following
from tests.sim.log import LOG_EMPTY, Databases, Log, Record, RecordType, make
from tests.sim.protocol import (
    EID_INVALID,
    FLUSH,
    GROUP_ESTABLISHED,
    PERM,
    Control,
    decode_egen,
    encode_egen,
)
from tests.sim.region import Clock, Disk, Region, Settings, Sync
from tests.sim.serving import Serving
from tests.sim.votes import Ended, Votes

KEYS_FILE: Final = b"keys.db"
AUTOROLLBACK: Final = 8  # the binding lacks the name
_INVALID: Final = 22
_REQUESTS: Final = frozenset(
    {RepType.ALL_REQ, RepType.LOG_REQ, RepType.PAGE_REQ, RepType.VERIFY_REQ, RepType.UPDATE_REQ}
)
_OF_ANY_GENERATION: Final = frozenset(
    {
        RepType.ALIVE_REQ,
        RepType.NEWCLIENT,
        RepType.MASTER_REQ,
        RepType.DUPMASTER,
        RepType.VOTE1,
    }
)
_RAISE_GENERATION: Final = frozenset({RepType.ALIVE, RepType.VOTE1, RepType.VOTE2})
_LOG: Final = frozenset({RepType.LOG, RepType.LOG_MORE, RepType.NEWFILE})
_FOR_CLIENTS: Final = frozenset(
    {*_LOG, RepType.PAGE, RepType.UPDATE, RepType.VERIFY, RepType.VERIFY_FAIL, RepType.REREQUEST}
)


class LogCursor:
    """Walks the log."""

    def __init__(self, log: Log) -> None:
        self._records = list(log)
        self._at = len(self._records)

    def _here(self) -> tuple[tuple[int, int], bytes] | None:
        if not 0 <= self._at < len(self._records):
            return None
        record = self._records[self._at]
        return tuple(record.lsn), record.data  # type: ignore[return-value]  # two numbers

    def first(self) -> tuple[tuple[int, int], bytes] | None:
        self._at = 0
        return self._here()

    def last(self) -> tuple[tuple[int, int], bytes] | None:
        self._at = len(self._records) - 1
        return self._here()

    def next(self) -> tuple[tuple[int, int], bytes] | None:
        self._at += 1
        return self._here()

    def prev(self) -> tuple[tuple[int, int], bytes] | None:
        self._at -= 1
        return self._here()

    def set(self, lsn: tuple[int, int]) -> tuple[tuple[int, int], bytes] | None:
        self._at = next((i for i, r in enumerate(self._records) if r.lsn == lsn), -1)
        return self._here()

    def close(self) -> None:
        self._records = []


class SimulatedEnv:
    """See the module's text.

    Args:
        disk: what outlives it.
        clock: simulated time.
        dice: where chance comes from.
    """

    def __init__(self, disk: Disk, clock: Clock, dice: random.Random) -> None:
        self.disk = disk
        self.settings = Settings()
        self.region = Region(disk, clock, dice, self.settings)
        self.following = Following(self.region)
        self.votes = Votes(self.region, self.following.request_again)
        self.serving = Serving(self.region)
        self.txn_begun = 0

    # -- opening, as the binding -----------------------------------------------------------------

    def set_event_notify(self, notify: Callable[[Any, int, int | None], object]) -> None:
        self.settings.notify = lambda event, argument: notify(self, event, argument)

    def rep_set_transport(
        self, eid: int, send: Callable[[Any, bytes, bytes, tuple[int, int], int, int], object]
    ) -> None:
        self.settings.eid = eid
        self.settings.send = lambda *message: send(self, *message)

    def rep_set_priority(self, priority: int) -> None:
        self.settings.priority = priority

    def rep_set_config(self, which: int, on: int) -> None:
        if which == db.DB_REP_CONF_AUTOINIT:
            self.settings.autoinit = bool(on)
        elif which == AUTOROLLBACK:
            self.settings.autorollback = bool(on)

    def rep_set_timeout(self, which: int, microseconds: int) -> None:
        if which == db.DB_REP_ELECTION_TIMEOUT:
            self.settings.election_timeout_s = microseconds / 1e6

    def open(self) -> None:
        """Open with recovery."""
        disk, region = self.disk, self.region
        disk.opened += 1
        if disk.initialising:  # nothing of a copy that broke off can be used
            disk.log.replace(Databases(), LOG_EMPTY)
            disk.initialising = False
        region.generation = disk.generation
        if disk.egen is None:
            disk.egen = region.generation + 1
        region.egen = disk.egen
        if disk.log.last is not None:
            # Recovery ends with a checkpoint, which no other site has.
            disk.log.put(make(RecordType.CHECKPOINT, 0, b"opened %d" % disk.opened))
            disk.log.flush()
        permanent = region.last_permanent()
        region.max_perm = permanent or LSN_ZERO

    # -- the log and the databases -----------------------------------------------------------------

    def log_cursor(self) -> LogCursor:
        return LogCursor(self.disk.log)

    def log_flush(self) -> None:
        self.disk.log.flush()

    def log_stat(self) -> dict[str, Any]:
        end = self.disk.log.end
        return {"cur_file": end.file, "cur_offset": end.offset}

    def get_lg_max(self) -> int:
        return self.disk.log.file_bytes_max

    def commit(
        self, *puts: tuple[bytes, bytes, bytes | None], flush: bool = False, system: bool = False
    ) -> LSN:
        """Make one transaction of (file, key, value or None); returns its commit record's place.

        Raises:
            db.DBError: this is no master.
        """
        if self.region.is_client:
            raise db.DBPermissionsError(1, "BDB: database environment is a replication client")
        self.txn_begun += 1
        txn = 0x8000_0000 | (self.txn_begun & 0x7FFF_FFFF)
        for file, key, value in puts:
            parts = (file, key) if value is None else (file, key, value)
            self._put(make(RecordType.PUT, txn, *parts), system=system)
        stamp = b"%d" % int(self.region.clock.now() * 1e6)
        record = self._put(
            make(RecordType.COMMIT, txn, stamp), PERM | (FLUSH if flush else 0), system=system
        )
        if flush:
            self.disk.log.flush()
        return record.lsn

    def checkpoint(self) -> LSN:
        """Write a checkpoint."""
        if self.region.is_master:
            self.region.send(RepType.START_SYNC, lsn=self.disk.log.end)
        record = self._put(make(RecordType.CHECKPOINT, 0, b"%d" % self.txn_begun), PERM | FLUSH)
        self.disk.log.flush()
        return record.lsn

    def remove_logs_below(self, file: int) -> None:
        """Remove log files, never the one with the last checkpoint."""
        last = self.disk.log.last_of(frozenset({RecordType.CHECKPOINT}))
        if last is not None:
            self.disk.log.remove_files_below(min(file, last.lsn.file))

    def txn_begin(self, parent: None = None, flags: int = 0) -> SimulatedTxn:
        """Begin a transaction."""
        return SimulatedTxn(self)

    def get(self, file: bytes, key: bytes) -> bytes | None:
        """Read a key."""
        return self.disk.log.databases.files.get(file, {}).get(key)

    def _put(self, data: bytes, flags: int = 0, *, system: bool = False) -> Record:
        record, old_end = self.disk.log.put(data)
        region = self.region
        if region.is_master:
            if old_end is not None:
                region.send(RepType.NEWFILE, lsn=old_end, record=encode_egen(19))
            region.send(RepType.LOG, lsn=record.lsn, record=data, flags=flags, system=system)
            if flags & PERM:
                region.max_perm = record.lsn
        return record

    # -- replication -------------------------------------------------------------------------------

    def rep_stat(self) -> dict[str, Any]:
        region = self.region
        return {
            "status": region.role,
            "gen": region.generation,
            "egen": region.egen,
            "master": region.master,
            "startup_complete": int(region.startup_complete),
            "max_perm_lsn": tuple(region.max_perm),
            "next_lsn": tuple(self.disk.log.end),
            "env_id": self.settings.eid,
        }

    def rep_start(self, role: int) -> None:
        """Become master or client; as a client already, look for the master."""
        self.disk.log.flush()
        region = self.region
        if role == db.DB_REP_MASTER:
            self._start_master()
            return
        if not region.is_client:
            region.master = EID_INVALID
            self.votes.won = False
            region.role = db.DB_REP_CLIENT
            region.waiting.clear()
            region.send(RepType.NEWCLIENT)
            region.notify(db.DB_EVENT_REP_CLIENT)
            return
        region.send(RepType.NEWCLIENT)

    def _start_master(self) -> None:
        region = self.region
        if region.initialising:
            raise db.DBRepUnavailError(-30973, "cannot become master during internal init")
        changes = not region.is_master
        if changes:
            region.generation = max(region.generation + 1, region.egen)
            if self.votes.won:
                self.votes.done()
                self.votes.won = False
            region.egen = max(region.egen, region.generation + 1)
            region.write_generation()
        region.master = self.settings.eid
        region.role = db.DB_REP_MASTER
        region.established = region.memory_databases_loaded = True
        region.abbreviated = region.skipped_apply = False
        region.sync = Sync.OFF
        begins = self.disk.log.end
        region.announce()
        if not changes:
            return
        self._put(make(RecordType.RECYCLE, 0, b"%d" % region.generation))
        self.commit(region.history_record(begins), flush=True, system=True)
        region.notify(db.DB_EVENT_REP_MASTER)

    def hold_election(self, nsites: int, nvotes: int, ended: Ended) -> None:
        """Begin what `rep_elect` does; `ended` is called with what it would raise, or None."""
        self.votes.hold(nsites, nvotes, ended)

    def rep_process_message(
        self, control: bytes, record: bytes, eid: int
    ) -> tuple[int | None, LSN | None]:
        """Take a message of another site."""
        message = Control.decode(control)
        region = self.region
        if not region.role:
            raise db.DBInvalidArgError(_INVALID, "not configured as replication master or client")
        code, detail = self._accept(message, record, eid)
        if code is None and message.flags & PERM:
            return db.DB_REP_NOTPERM, message.lsn
        return code, detail

    def _accept(self, message: Control, record: bytes, eid: int) -> Answer:
        """Look at the generation first."""
        region, kind = self.region, message.kind
        if message.generation < region.generation and kind not in _OF_ANY_GENERATION:
            return (db.DB_REP_IGNORE, None) if message.flags & PERM else FINE
        if message.generation > region.generation:
            if region.is_master:
                if kind is not RepType.DUPMASTER:
                    region.send(RepType.DUPMASTER)
                return db.DB_REP_DUPMASTER, None
            if kind in _RAISE_GENERATION:
                region.master = EID_INVALID
                region.generation = message.generation
                if kind is RepType.ALIVE:
                    region.ask_for_master()
            elif kind is not RepType.NEWMASTER:
                if region.is_request_due():
                    region.ask_for_master()
                return FINE
        if message.flags & GROUP_ESTABLISHED:
            region.established = True
        return self._handle(message, record, eid)

    def _handle(self, message: Control, record: bytes, eid: int) -> Answer:
        region, kind = self.region, message.kind
        recovering = region.sync is not Sync.OFF and not region.is_master
        if kind in _LOG and self.following.skips_log(message) and not region.is_master:
            self._skip(kind, eid)
            return FINE
        if kind in _FOR_CLIENTS and region.is_master:
            region.send(RepType.DUPMASTER)
            return db.DB_REP_DUPMASTER, None
        if kind in _LOG:
            return self.following.log(message, record)
        if kind in _REQUESTS or kind is RepType.MASTER_REQ:
            self._serve(message, record, eid, recovering=recovering)
            return FINE
        return self._about_masters(message, record, eid), None

    def _about_masters(self, message: Control, record: bytes, eid: int) -> int | None:
        region, kind = self.region, message.kind
        match kind:
            case RepType.NEWMASTER:
                return self._new_master(message, eid)
            case RepType.DUPMASTER:
                return db.DB_REP_DUPMASTER if region.is_master else None
            case RepType.ALIVE:
                return self.votes.alive(decode_egen(record))
            case RepType.ALIVE_REQ:
                body = encode_egen(region.egen)
                region.send(RepType.ALIVE, eid, self.disk.log.end, body)
            case RepType.VOTE1:
                return self.votes.vote1(eid, message, record)
            case RepType.VOTE2:
                return self.votes.vote2(eid, record)
            case RepType.NEWSITE:
                if region.is_master:
                    region.announce(eid)
                return db.DB_REP_NEWSITE
            case RepType.NEWCLIENT:
                self._new_client(message, record, eid)
                return db.DB_REP_NEWSITE
            case _:
                return self._about_copies(message, record, eid)
        return None

    def _new_master(self, message: Control, eid: int) -> int | None:
        region = self.region
        if not region.is_master:
            self.votes.done()
            return self.following.new_master(eid, message)
        if eid == self.settings.eid:
            return None
        region.send(RepType.DUPMASTER)
        return db.DB_REP_DUPMASTER

    def _new_client(self, message: Control, record: bytes, eid: int) -> None:
        region = self.region
        if region.is_client and eid == region.master:
            # The master is a client now.
            region.master = EID_INVALID
            if region.initialising:
                self.following.forget_copy()
        self.serving.new_client(eid, message, record)

    def _about_copies(self, message: Control, record: bytes, eid: int) -> int | None:
        following, kind = self.following, message.kind
        match kind:
            case RepType.UPDATE:
                return following.update(eid, message, record)
            case RepType.PAGE:
                return following.page(message, record)
            case RepType.VERIFY:
                return following.verify(message, record)
            case RepType.VERIFY_FAIL:
                return following.verify_failed(message)
            case RepType.REREQUEST:
                following.request_again()
            case RepType.START_SYNC:
                pass  # asks to write the cache out, and there is none
            case _:
                raise db.DBInvalidArgError(_INVALID, f"unknown message {kind.name}")
        return None

    def _serve(self, message: Control, record: bytes, eid: int, *, recovering: bool) -> None:
        region, serving, kind = self.region, self.serving, message.kind
        if kind is RepType.UPDATE_REQ:
            if region.is_master:
                serving.update_request()
            return
        lost = region.is_client and region.master == EID_INVALID
        if recovering or (lost and kind is not RepType.MASTER_REQ):
            self._skip(kind, eid)
            return
        match kind:
            case RepType.MASTER_REQ:
                serving.master_request(eid, message)
                behind = region.is_client and message.generation < region.generation
                if behind and eid == region.master:
                    region.master = EID_INVALID
            case RepType.ALL_REQ:
                serving.all_request(eid, message.lsn)
            case RepType.LOG_REQ:
                serving.log_request(eid, message.lsn, record)
            case RepType.VERIFY_REQ:
                serving.verify_request(eid, message.lsn)
            case _:
                serving.page_request(eid)

    def _skip(self, kind: RepType, eid: int) -> None:
        """A message makes no sense now: ask again for what is needed, or have the sender do so."""
        region = self.region
        request = region.is_client and kind in _REQUESTS
        if not (request or region.is_request_due()) or kind is RepType.MASTER_REQ:
            return
        if region.master == EID_INVALID:
            region.ask_for_master()
        elif eid == region.master:
            self.following.request_again()
        elif region.is_client:
            region.send(RepType.REREQUEST, eid)

    @property
    def is_empty(self) -> bool:
        return self.disk.log.end in (LOG_EMPTY, LSN_ZERO)
