"""A client of a simulated library: getting in step with a master, applying its log.

    NEWMASTER -> VERIFY: its last permanent record against the master's, backwards until they agree
              -> (once an environment) UPDATE: are there databases in memory?
              -> cut the log there -> ALL_REQ -> OFF: records are applied as they come
    no record agrees, or the master has them no more, or nothing is here
              -> UPDATE -> PAGE -> LOG -> OFF: internal initialisation

Source: the library's handling of NEWMASTER, VERIFY, UPDATE, PAGE and LOG on a client.
"""

from __future__ import annotations

from typing import Final

from berkeleydb import db

from replication.messages import RepType
from replication.wire import LSN, LSN_ZERO
from tests.sim.log import LOG_EMPTY, PERMANENT, Databases, Log, Record, RecordType
from tests.sim.protocol import (
    EID_BROADCAST,
    EID_INVALID,
    FLUSH,
    INIT,
    LOG_END,
    PERM,
    RESEND,
    Control,
    decode_pages,
    decode_update,
    encode_lsn,
)
from tests.sim.region import COMMITS, MAX_GAP_S, REQUEST_GAP_S, Region, Sync

WOULD_ROLLBACK: Final = -30974
CHECKPOINTS: Final = frozenset({RecordType.CHECKPOINT})
Answer = tuple[int | None, LSN | None]
FINE: Final[Answer] = (None, None)


class Following:
    """See the module's text.

    Args:
        region: shared with the other parts.
    """

    def __init__(self, region: Region) -> None:
        self._region = region

    # -- a master --------------------------------------------------------------------------------

    def new_master(self, eid: int, control: Control) -> int | None:
        """A site says that it is master, in this or a later generation."""
        region = self._region
        if region.generation == control.generation and region.master == eid:
            due = region.is_request_due()
            behind = region.sync is not Sync.OFF or region.log.end < control.lsn
            if due and behind:
                self.request_again()
            return None
        if region.initialising:
            self.forget_copy()
        region.waiting.clear()
        region.verify = region.max_wait = LSN_ZERO
        region.abbreviated = False
        region.generation = control.generation
        region.write_generation()
        region.egen = max(region.egen, region.generation + 1)
        region.master = eid
        region.startup_complete = False
        region.received()
        region.wait_s = REQUEST_GAP_S
        region.sync = Sync.VERIFY
        failure = self._compare_with(control)
        if failure is None:
            region.tell_new_master()
        return failure

    def _compare_with(self, control: Control) -> int | None:
        region = self._region
        last = region.last_permanent()
        first = region.log.first
        if region.log_is_empty or last is None or first is None:
            return self._initialise()
        if control.lsn.file < first.lsn.file:
            return self._initialise()  # no overlap: this site is too far ahead
        region.verify = last
        region.send(RepType.VERIFY_REQ, region.master, last)
        return None

    def _initialise(self) -> int | None:
        """Begin internal initialisation by asking for the file list."""
        region = self._region
        if not region.settings.autoinit:
            region.sync = Sync.OFF
            return db.DB_REP_JOIN_FAILURE
        region.sync, region.abbreviated = Sync.UPDATE, False
        region.first = LSN_ZERO
        if region.master != EID_INVALID:
            region.send(RepType.UPDATE_REQ, region.master)
        return None

    # -- comparing logs --------------------------------------------------------------------------

    def verify(self, control: Control, body: bytes) -> int | None:
        """The master sent the record that was asked for."""
        region = self._region
        if region.sync is not Sync.VERIFY:
            return None
        if control.lsn != region.verify:
            return None
        own = region.log.get(control.lsn)
        if own is None:
            return None
        if own.data != body:
            return self._step_back(own)
        if region.memory_databases_loaded:
            return self.match(control.lsn)
        # Once an environment: are there databases in memory to be copied? The list will tell.
        region.sync, region.abbreviated = Sync.UPDATE, True
        region.send(RepType.UPDATE_REQ, region.master)
        return None

    def _step_back(self, own: Record) -> int | None:
        region = self._region
        first = region.log.first
        assert first is not None, "the record is in it"
        checkpoint = own.type == RecordType.CHECKPOINT and first.lsn.file != 1
        if checkpoint and region.log.last_of(CHECKPOINTS, own.lsn) is None:
            # Rolling back over the last checkpoint would leave nothing to recover from.
            return self._initialise()
        before = region.last_permanent(own.lsn)
        if before is None:
            return self._initialise()
        region.verify = before
        region.received()
        region.wait_s = REQUEST_GAP_S
        to = region.master if region.master != EID_INVALID else EID_BROADCAST
        region.send(RepType.VERIFY_REQ, to, before)
        return None

    def verify_failed(self, control: Control) -> int | None:
        """The master no longer has the record that was asked for."""
        region = self._region
        lsn = control.lsn
        if region.sync in (Sync.PAGE, Sync.UPDATE):
            return None
        in_copy = region.sync is Sync.LOG and region.first <= lsn <= region.last
        if in_copy:
            self.forget_copy()
        asked = region.sync is Sync.VERIFY and lsn == region.verify
        needed = region.sync is Sync.OFF and lsn >= region.log.end
        if not (asked or in_copy or needed):
            return None
        if not region.settings.autoinit:
            return db.DB_REP_JOIN_FAILURE
        region.sync, region.abbreviated = Sync.UPDATE, False
        region.wait_s = REQUEST_GAP_S
        if region.master != EID_INVALID:
            region.send(RepType.UPDATE_REQ, region.master)
        return None

    def match(self, lsn: LSN) -> int | None:
        """The logs agree up to here: cut the rest off and ask for what follows.

        Raises:
            db.DBError: a committed transaction would be undone, and that is switched off.
        """
        region, log = self._region, self._region.log
        initialised = region.sync is Sync.LOG
        region.verify = LSN_ZERO
        doomed = log.since(_index(log, lsn) + 1)
        rolls_back = not initialised and any(record.type in COMMITS for record in doomed)
        if rolls_back and not region.settings.autorollback:
            raise db.DBError(WOULD_ROLLBACK, "DB_REP_WOULDROLLBACK")
        log.truncate_after(lsn)
        log.flush()
        region.disk.initialising = False
        region.waiting.clear()
        region.max_wait = LSN_ZERO
        region.max_perm = lsn
        region.received()
        region.wait_s = REQUEST_GAP_S
        region.sync = Sync.OFF
        if region.master != EID_INVALID:
            region.wait_s = MAX_GAP_S  # the answer takes a while
            region.send(RepType.ALL_REQ, region.master, lsn)
        if initialised:
            region.notify(db.DB_EVENT_REP_INIT_DONE)
        return None

    # -- copying everything ----------------------------------------------------------------------

    def update(self, eid: int, control: Control, body: bytes) -> int | None:
        """The master's file list came."""
        region = self._region
        if region.sync is not Sync.UPDATE:
            return None
        if region.abbreviated:
            region.memory_databases_loaded = True
            region.sync, region.abbreviated = Sync.VERIFY, False
            return self.match(region.verify)
        region.sync = Sync.PAGE
        region.disk.initialising = True
        region.waiting.clear()
        region.verify = region.max_wait = region.max_perm = LSN_ZERO
        region.first, region.last = decode_update(body), control.lsn
        region.log.replace(Databases(), LSN_ZERO)
        region.received()
        region.wait_s = REQUEST_GAP_S
        region.send(RepType.PAGE_REQ, eid)
        return None

    def page(self, control: Control, body: bytes) -> int | None:
        """All pages came, in one message."""
        region = self._region
        if region.sync is not Sync.PAGE:
            return None
        region.last = max(region.last, control.lsn)
        region.log.replace(decode_pages(body), region.first)
        region.sync = Sync.LOG
        region.received()
        region.wait_s = REQUEST_GAP_S
        region.send(RepType.LOG_REQ, region.master, region.first, encode_lsn(region.last), INIT)
        return None

    def forget_copy(self) -> None:
        """An initialisation broke off: nothing is here."""
        region = self._region
        region.log.replace(Databases(), LOG_EMPTY)
        region.disk.initialising = False
        region.waiting.clear()
        region.sync = Sync.OFF

    # -- the log ---------------------------------------------------------------------------------

    def skips_log(self, control: Control) -> bool:
        """Tell whether records make no sense now."""
        region = self._region
        if region.master == EID_INVALID:
            return True
        if region.sync is Sync.OFF:
            return False
        return region.sync is not Sync.LOG or control.lsn >= region.last

    def log(self, control: Control, body: bytes) -> Answer:
        """A record, or the end of a file, came."""
        region = self._region
        ready = region.log.end
        if region.apply_locked and control.lsn >= ready:
            region.skipped_apply = True
        permanent: LSN | None = None
        if control.lsn == ready:
            if region.apply_locked:
                return FINE
            permanent = self._take(control, body)
            while region.log.end in region.waiting:
                permanent = self._take(*region.waiting.pop(region.log.end)) or permanent
            self._forget_passed()
            if not region.waiting:
                region.wait_s, region.max_wait = REQUEST_GAP_S, LSN_ZERO
            elif region.is_request_due():
                self._request_gap(control.lsn)
        elif control.lsn > ready:
            if not region.waiting:
                region.received()
            region.waiting.setdefault(control.lsn, (control, body))
            if region.is_request_due():
                self._request_gap(control.lsn)
            if control.flags & PERM:
                return db.DB_REP_NOTPERM, control.lsn
            return FINE
        elif control.kind is RepType.LOG and Record(control.lsn, body).type in PERMANENT:
            permanent = region.max_perm
        return self._applied(control, permanent, ready)

    def _applied(self, control: Control, permanent: LSN | None, ready: LSN) -> Answer:
        region = self._region
        if region.sync is Sync.LOG and region.last != LSN_ZERO and region.log.end >= region.last:
            return self._log_ready()
        answer = FINE
        if region.sync is not Sync.LOG and permanent:
            region.max_perm = permanent
            answer = db.DB_REP_ISPERM, permanent
        at_end = control.lsn <= ready and control.flags & LOG_END
        live = control.lsn == ready and not control.flags & RESEND
        if not region.startup_complete and region.sync is not Sync.LOG and (at_end or live):
            region.startup_complete = True
            region.tell_new_master()
            region.notify(db.DB_EVENT_REP_STARTUPDONE)
        return answer

    def _log_ready(self) -> Answer:
        """The log of the copied pages is there."""
        region = self._region
        region.last = LSN_ZERO
        last = region.log.last
        assert last is not None, "its log came"
        region.log.flush()
        self.match(last.lsn)
        region.first = LSN_ZERO
        region.memory_databases_loaded = True
        return FINE

    def _take(self, control: Control, body: bytes) -> LSN | None:
        """Append what is next; returns its place when it is permanent."""
        region = self._region
        region.received()
        region.max_wait = LSN_ZERO
        if control.kind is RepType.NEWFILE:
            region.log.new_file()
            return None
        record = region.log.put_at(control.lsn, body)
        if record.type == RecordType.CHECKPOINT or control.flags & FLUSH:
            region.log.flush()
        permanent = record.type in PERMANENT or control.flags & PERM
        return record.lsn if permanent else None

    def _forget_passed(self) -> None:
        """Drop what waited and is here by now."""
        region = self._region
        for lsn in [lsn for lsn in region.waiting if lsn < region.log.end]:
            del region.waiting[lsn]

    # -- asking again ----------------------------------------------------------------------------

    def request_again(self) -> None:
        """Ask for what is waited for."""
        region = self._region
        if region.sync is Sync.VERIFY:
            if region.verify == LSN_ZERO:
                return
            kind, lsn = RepType.VERIFY_REQ, region.verify
        elif region.sync is Sync.UPDATE:
            kind, lsn = RepType.UPDATE_REQ, LSN_ZERO
        elif region.sync is Sync.PAGE:
            kind, lsn = RepType.PAGE_REQ, LSN_ZERO
        else:
            self._request_gap(None)
            return
        if region.master == EID_INVALID:
            region.ask_for_master()
        else:
            region.send(kind, region.master, lsn)

    def _request_gap(self, at: LSN | None) -> None:
        region = self._region
        wanted = at is None or region.max_wait in (LSN_ZERO, at)
        body = b""
        kind = RepType.LOG_REQ
        if wanted:
            region.max_wait = region.next_waiting
            if region.sync is Sync.LOG and region.max_wait == LSN_ZERO:
                region.max_wait = region.last
            if region.max_wait == LSN_ZERO:
                kind = RepType.ALL_REQ
            body = encode_lsn(region.max_wait)
        else:
            region.max_wait = region.log.end  # one record at a time from now on
        if region.master == EID_INVALID:
            region.ask_for_master()
        else:
            flags = INIT if region.sync is Sync.LOG else 0
            region.send(kind, region.master, region.log.end, body, flags)


def _index(log: Log, lsn: LSN) -> int:
    at = log.index(lsn)
    assert at is not None, f"{lsn} is in the log"
    return at
