"""The library's replication calls that the manager makes, and what they take to be right.

Each function runs on a thread of the environment, never in the event loop and never in a callback.
"""

from __future__ import annotations

import re
import struct
import sys
from dataclasses import dataclass
from typing import Final

from berkeleydb import db

from replication.election import DECIDED
from replication.messages import RepType
from replication.wire import LSN, LSN_MAX, LSN_ZERO, lsn_from_library

REP_VERSION: Final = 7
LOG_VERSION: Final = 19
_CAME: Final = re.compile(r"recvd (\d+) of (\d+)")  # votes, in the library's words
_CONTROL: Final = struct.Struct(">9I")
_EGEN: Final = struct.Struct(">I")
# A sender that is no site: the message below is this site's own word for what members told it.
_NOBODY_EID: Final = 0x7FFF_0000
# Commit, checkpoint, prepare: what the library sends as permanent. The log mostly ends with one, or
# with the few records of files that were opened and closed behind it.
_COMMIT_RECORD: Final = 10
_PERMANENT_RECORDS: Final = frozenset({_COMMIT_RECORD, 11, 13})
_LOOK_BACK_MAX: Final = 1_000_000  # of one transaction, which nobody committed; some seconds
HANDLE_REFUSED: Final = "a database handle was refused"  # storage.environment says why
STATUS_CLIENT: Final = db.DB_REP_CLIENT
STATUS_MASTER: Final = db.DB_REP_MASTER


@dataclass(frozen=True, slots=True)
class LogStanding:
    """What the log and the replication region say at the start.

    Args:
        last_lsn: of the last record.
        permanent: of the last one that replicants acknowledge.
        committed: of the last commit. Recovery ends with a checkpoint that no other site has, so
            what lies behind it says nothing about what this site holds.
        vote: the generation of an election this site voted in that may still be under way.
    """

    generation: int
    last_lsn: LSN
    permanent: LSN
    committed: LSN
    vote: int | None = None


def standing(env: db.DBEnv) -> LogStanding:
    """Read the generation and the end of the log."""
    last = permanent = committed = LSN_ZERO
    cursor = env.log_cursor()
    try:
        record = cursor.last()
        if record is not None:
            last = lsn_from_library(record[0])
        for _ in range(_LOOK_BACK_MAX):
            if record is None:
                break
            kind = int.from_bytes(record[1][:4], sys.byteorder)
            if kind in _PERMANENT_RECORDS:
                permanent = max(permanent, lsn_from_library(record[0]))
            if kind == _COMMIT_RECORD:
                committed = lsn_from_library(record[0])
                break
            record = cursor.prev()
    finally:
        cursor.close()
    stat = env.rep_stat()
    # The library writes down the generation of its next election before it votes in one.
    vote = stat["egen"] - 1 if stat["egen"] > stat["gen"] + 1 else None
    permanent = last if permanent == LSN_ZERO else permanent
    return LogStanding(stat["gen"], last, permanent, committed, vote)


def new_handle(env: db.DBEnv) -> db.DB:
    """Make a handle; a refusal is marked, for the environment must not be closed after it."""
    env.txn_stat()  # raises when the library needs recovery, mostly before the next line would
    try:
        return db.DB(env)
    except db.DBError:
        env.set_private(HANDLE_REFUSED)
        raise


def last_commit(env: db.DBEnv, before: LSN = LSN_MAX) -> LSN | None:
    """Return the last commit before an LSN; None when none is found among the last records.

    Behind the last commit there may be records that recovery wrote here, and that no other site
    has. Not while this site is a replicant: a roll-back could cut the log off meanwhile, and the
    library panics on what is behind its end.
    """
    cursor = env.log_cursor()
    try:
        record = cursor.last()
        for _ in range(_LOOK_BACK_MAX):
            if record is None:
                return None
            lsn = lsn_from_library(record[0])
            if lsn < before and int.from_bytes(record[1][:4], sys.byteorder) == _COMMIT_RECORD:
                return lsn
            record = cursor.prev()
    finally:
        cursor.close()
    return None


def start_client(env: db.DBEnv) -> None:
    """Become a client; when it is one, ask the others who is master."""
    env.rep_start(db.DB_REP_CLIENT)


def ask_again(env: db.DBEnv) -> None:
    """Have a client ask its master for the pages or records it misses, if it misses any.

    The library looks only when something comes in. Another client that refuses a request makes it
    look at once, so that is what it is told.
    """
    control = _CONTROL.pack(
        REP_VERSION, LOG_VERSION, 0, 0, RepType.REREQUEST, env.rep_stat()["gen"], 0, 0, 0
    )
    env.rep_process_message(control, b"", _NOBODY_EID)


def start_master(env: db.DBEnv, generation_above: int) -> int:
    """Become master with a generation above `generation_above`; returns it.

    The library counts up from its own generation only, and deleted `__db.rep.*` files set that
    back to 0; members at a higher one would then ignore this master for ever. An ALIVE message
    tells the library what generation the group has reached, as it would in an election.
    """
    stat = env.rep_stat()
    if stat["status"] != STATUS_MASTER and max(stat["gen"], stat["egen"] - 1) < generation_above:
        if stat["status"] != STATUS_CLIENT:
            env.rep_start(db.DB_REP_CLIENT)
        control = _CONTROL.pack(
            REP_VERSION, LOG_VERSION, 0, 0, RepType.ALIVE, generation_above, 0, 0, 0
        )
        env.rep_process_message(control, _EGEN.pack(generation_above + 1), _NOBODY_EID)
    env.rep_start(db.DB_REP_MASTER)
    return int(env.rep_stat()["gen"])


def step_down(env: db.DBEnv) -> bool:
    """Become a client after having been master.

    Raises:
        db.DBRepLockoutError: another change is under way; it has to be tried again.
    """
    env.rep_start(db.DB_REP_CLIENT)
    if env.rep_stat()["status"] != STATUS_CLIENT:
        # The library gives up without a word when a message is being processed all alone.
        raise db.DBRepLockoutError(0, "another change of role is under way")
    return True


@dataclass(frozen=True, slots=True)
class InStep:
    """What may be acknowledged at the end of a sync; `reached` is (0, 0) when it goes on."""

    generation: int
    reached: LSN


def in_step(env: db.DBEnv) -> InStep:
    """Flush the log and return how far this site follows its master.

    The library's last permanent LSN means something only after it compared the two logs: before
    that it may be of records that the master never had.
    """
    stat = env.rep_stat()
    env.log_flush()
    reached = lsn_from_library(stat["max_perm_lsn"]) if stat["startup_complete"] else LSN(0, 0)
    return InStep(int(stat["gen"]), reached)


def elect(env: db.DBEnv, nsites: int, nvotes: int, timeout_s: float) -> str:
    """Hold an election; blocks until it is decided or times out. Returns what came of it."""
    try:
        env.rep_set_timeout(db.DB_REP_ELECTION_TIMEOUT, round(timeout_s * 1e6))
        env.rep_elect(nsites, nvotes)
    except db.DBRepUnavailError as error:
        came = _CAME.search(str(error.args[-1]))
        votes = f"{came[1]} of {came[2]} votes came" if came else "too few sites answered"
        return f"no master was elected: {votes} in time"
    except db.DBError as error:
        return f"the election failed: {error.args[-1]}"
    return DECIDED
