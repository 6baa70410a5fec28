"""The log of a simulated environment, and the databases that it makes.

Records have places as in the library: a file number and an offset in it, a new file when one is
full. What was not flushed is lost with the process or the machine, whole records at a time.

A transaction is its data records and a commit record; the databases are what all committed
transactions of the log make of the state before its first record. So rolling back is cutting the
log and computing the state anew.
"""

from __future__ import annotations

import random
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, NamedTuple

from replication.wire import LSN

HEADER_BYTES: Final = 12
FILE_HEADER_BYTES: Final = 28  # the record that begins each file; not replicated
LOG_EMPTY: Final = LSN(1, 0)  # the library's "initial" LSN
_HEAD: Final = struct.Struct("=II")  # type, transaction: the machine's own order, as the library
_PART: Final = struct.Struct(">I")


class RecordType(IntEnum):
    """Types of log records; those the library knows have its numbers."""

    REGISTER = 2
    COMMIT = 10
    CHECKPOINT = 11
    RECYCLE = 14
    PUT = 41


PERMANENT: Final = frozenset({RecordType.COMMIT, RecordType.CHECKPOINT})


class Record(NamedTuple):
    """One record of the log."""

    lsn: LSN
    data: bytes

    @property
    def type(self) -> int:
        return int.from_bytes(self.data[:4], sys.byteorder)

    @property
    def end(self) -> LSN:
        """Where the next one begins, if it fits into the file."""
        return LSN(self.lsn.file, self.lsn.offset + HEADER_BYTES + len(self.data))


def make(kind: RecordType, txn: int, *parts: bytes) -> bytes:
    """Return a record's bytes."""
    body = b"".join(_PART.pack(len(part)) + part for part in parts)
    return _HEAD.pack(kind, txn) + body


def parts_of(data: bytes) -> list[bytes]:
    """Return what `make` was given."""
    parts, at = [], _HEAD.size
    while at < len(data):
        (length,) = _PART.unpack_from(data, at)
        at += _PART.size
        parts.append(data[at : at + length])
        at += length
    return parts


@dataclass
class Databases:
    """What committed transactions made: file -> key -> value.

    Args:
        files: the databases.
        pending: data of transactions that have not committed.
        as_of: records before it are in the files already (pages copied from a master).
    """

    files: dict[bytes, dict[bytes, bytes]] = field(default_factory=dict)
    pending: dict[int, list[tuple[bytes, bytes, bytes | None]]] = field(default_factory=dict)
    as_of: LSN = LOG_EMPTY

    def apply(self, record: Record) -> None:
        """Take the next record of the log."""
        if record.lsn < self.as_of:
            return
        kind, txn = _HEAD.unpack_from(record.data)
        if kind == RecordType.PUT:
            file, key, *value = parts_of(record.data)
            self.pending.setdefault(txn, []).append((file, key, value[0] if value else None))
        elif kind == RecordType.COMMIT:
            for file, key, new in self.pending.pop(txn, ()):
                if new is None:
                    self.files.get(file, {}).pop(key, None)
                else:
                    self.files.setdefault(file, {})[key] = new

    def copy(self) -> Databases:
        """Return the same state, independent of this one."""
        files = {name: dict(items) for name, items in self.files.items()}
        return Databases(files, {txn: list(d) for txn, d in self.pending.items()}, self.as_of)


class Log:
    """See the module's text.

    Args:
        file_bytes_max: size at which a new file begins.

    Attributes:
        end: where the next record goes.
        flushed: everything before it is on the disk.
        written: everything before it outlives the process: the operating system has it.
        databases: the state that the log makes.
    """

    def __init__(self, file_bytes_max: int) -> None:
        self.file_bytes_max = file_bytes_max
        self.end = self.flushed = self.written = LOG_EMPTY
        self.databases = Databases()
        self._base = Databases()
        self._records: list[Record] = []
        self._at: dict[LSN, int] = {}

    # -- reading -------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)

    @property
    def first(self) -> Record | None:
        return self._records[0] if self._records else None

    @property
    def last(self) -> Record | None:
        return self._records[-1] if self._records else None

    def index(self, lsn: LSN) -> int | None:
        """Where in the sequence the record at this place is; None: there is none."""
        return self._at.get(lsn)

    def get(self, lsn: LSN) -> Record | None:
        """Return the record at this place."""
        at = self._at.get(lsn)
        return None if at is None else self._records[at]

    def since(self, index: int) -> list[Record]:
        """Return all records from this index on."""
        return self._records[max(0, index) :]

    def last_of(self, kinds: frozenset[RecordType], before: LSN | None = None) -> Record | None:
        """Return the last record of these types (before a place, if one is given)."""
        at = len(self._records) if before is None else self._at[before]
        return next((r for r in reversed(self._records[:at]) if r.type in kinds), None)

    def file_end(self, file: int) -> LSN | None:
        """Return where a file ended that is followed by another one; None if that is unknown."""
        at = self._at.get(LSN(file + 1, FILE_HEADER_BYTES))
        if at:
            return self._records[at - 1].end
        last = self.last  # the next file may hold nothing yet
        begun = last is not None and last.lsn.file == file < self.end.file
        return last.end if last is not None and begun else None

    # -- writing -------------------------------------------------------------------------------

    def put(self, data: bytes) -> tuple[Record, LSN | None]:
        """Append a record; returns it and, when a new file began for it, where the old one ends."""
        old_end: LSN | None = None
        if self.end.offset == 0:
            self.end = LSN(self.end.file, FILE_HEADER_BYTES)
        if self.end.offset + HEADER_BYTES + len(data) > self.file_bytes_max:
            old_end = self.end
            self.new_file()
        record = Record(self.end, data)
        self._append(record)
        return record, old_end

    def new_file(self) -> None:
        """Begin the next file."""
        self.end = LSN(self.end.file + 1, FILE_HEADER_BYTES)

    def put_at(self, lsn: LSN, data: bytes) -> Record:
        """Append a master's record where the master has it."""
        assert lsn == self.end or self.end.offset == 0, f"{lsn} does not follow {self.end}"
        record = Record(lsn, data)
        self._append(record)
        return record

    def _append(self, record: Record) -> None:
        self._at[record.lsn] = len(self._records)
        self._records.append(record)
        self.end = record.end
        self.databases.apply(record)

    def write(self) -> None:
        """Give everything to the operating system."""
        self.written = self.end

    def flush(self) -> None:
        """Put everything on the disk."""
        self.flushed = self.written = self.end

    def truncate_after(self, lsn: LSN) -> list[Record]:
        """Cut the log behind the record at `lsn`; returns what was cut off."""
        keep = self._at[lsn] + 1
        cut, self._records = self._records[keep:], self._records[:keep]
        for record in cut:
            del self._at[record.lsn]
        self.end = self._records[-1].end
        self.flushed = min(self.flushed, self.end)
        self.written = min(self.written, self.end)
        if cut:
            self._recompute()
        return cut

    def _recompute(self) -> None:
        self.databases = self._base.copy()
        for record in self._records:
            self.databases.apply(record)

    def remove_files_below(self, file: int) -> None:
        """Remove the files before this one (log archiving)."""
        keep = next((i for i, r in enumerate(self._records) if r.lsn.file >= file), None)
        if not keep:
            return
        for record in self._records[:keep]:
            self._base.apply(record)
        self._records = self._records[keep:]
        self._at = {record.lsn: at for at, record in enumerate(self._records)}

    def replace(self, databases: Databases, begins: LSN) -> None:
        """Throw everything away: the pages of a master take its place, its log follows.

        Args:
            databases: the copied pages.
            begins: the first record that will come.
        """
        self._records, self._at = [], {}
        self._base, self.databases = databases, databases.copy()
        self.end = self.flushed = self.written = begins

    # -- crashes -------------------------------------------------------------------------------

    def crash(self, dice: random.Random, *, power: bool) -> int:
        """Lose what was not on disk, or not written, but for the first few records of it.

        Args:
            power: the machine dies, not only the process.

        Returns:
            How many records went.
        """
        safe_until = self.flushed if power else self.written
        safe = sum(1 for record in self._records if record.lsn < safe_until)
        keep = safe + dice.randint(0, len(self._records) - safe)
        lost = len(self._records) - keep
        if not keep:
            self.end = LOG_EMPTY
            self._records, self._at = [], {}
            self._recompute()
        elif lost:
            self.truncate_after(self._records[keep - 1].lsn)
        self.flushed = self.written = self.end
        return lost
