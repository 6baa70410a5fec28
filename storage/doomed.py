"""What a rollback would undo: the commits of the log behind a sync point, in clients' terms.

The log says which transactions were committed there, the logical tail (`storage.tail`) what each of
them changed. A commit that the tail does not know was written by somebody else: this site while it
was a replicant, another program, or this one before a loss of power took the end of the tail away.

Source: the library's log, its record types `txn_regop` (a commit) and their layout.
"""

from __future__ import annotations

import struct
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from berkeleydb import db

from storage import tail_records
from storage.environment import COMMIT_RECORD, Lsn, lsn_from_library
from storage.tail_records import Change, CommitRecord

_HEAD: Final = struct.Struct("=Ii")  # type, transaction
_COMMIT: Final = struct.Struct("=IiIIIi")  # and then: previous LSN, what it did, when
_COMMITTED: Final = 1


@dataclass(frozen=True, slots=True)
class LoggedCommit:
    """A commit record of the log.

    Args:
        time_s: seconds since 1970.
    """

    lsn: Lsn
    txn_id: int
    time_s: int


@dataclass(frozen=True, slots=True)
class DoomedWrite:
    """One client's write, in a commit that will be undone."""

    lsn: Lsn
    time_s: float
    user: str
    changes: list[Change]


def commits_behind(env: db.DBEnv, sync_point: Lsn) -> Generator[LoggedCommit]:
    """Walk over the commits behind `sync_point`, upwards.

    *Thread:* one of the environment's.

    Raises:
        db.DBError: the log cannot be read.
    """
    cursor = env.log_cursor()
    try:
        record = cursor.set(sync_point)
        record = cursor.next() if record is not None else cursor.first()
        while record is not None:
            lsn, data = record
            if len(data) >= _COMMIT.size and _HEAD.unpack_from(data)[0] == COMMIT_RECORD:
                _, txn_id, _, _, what, time_s = _COMMIT.unpack_from(data)
                if what == _COMMITTED:
                    yield LoggedCommit(lsn_from_library(lsn), txn_id, time_s)
            record = cursor.next()
    finally:
        cursor.close()


def is_there(env: db.DBEnv, commit: LoggedCommit) -> bool:
    """Tell whether the log still holds this very commit."""
    cursor = env.log_cursor()
    try:
        record = cursor.set(commit.lsn)
    except db.DBError:
        return False  # no record begins there, or not any more
    finally:
        cursor.close()
    if record is None or len(record[1]) < _COMMIT.size:
        return False
    type_, txn_id, _, _, _, time_s = _COMMIT.unpack_from(record[1])
    return (type_, txn_id, time_s) == (COMMIT_RECORD, commit.txn_id, commit.time_s)


class Explained:
    """The tail, ready to be asked about commits.

    Args:
        directory: the tail's.

    Attributes:
        own: commits of the server itself that were asked for so far.
        unexplained: commits that the tail does not know.
    """

    def __init__(self, directory: Path) -> None:
        self.own = 0
        self.unexplained = 0
        self._own: set[Lsn] = set()
        self._by_txn: dict[int, list[CommitRecord]] = {}
        for record in tail_records.read(directory):
            if isinstance(record, CommitRecord):
                self._by_txn.setdefault(record.txn_id, []).append(record)
            else:
                self._own.add(record.lsn)

    def writes(self, commit: LoggedCommit) -> list[DoomedWrite]:
        """Give what clients wrote in this commit, each by itself; empty when it was none of theirs.

        Numbers of transactions are used again, so it is the last record of this one whose `behind`
        lies before the commit.
        """
        known = [r for r in self._by_txn.get(commit.txn_id, ()) if r.behind < commit.lsn]
        if not known:
            if commit.lsn in self._own:
                self.own += 1
            else:
                self.unexplained += 1
            return []
        record, writes, start = known[-1], [], 0
        for user, end in record.authors:
            writes.append(DoomedWrite(commit.lsn, record.time_s, user, record.changes[start:end]))
            start = end
        return writes
