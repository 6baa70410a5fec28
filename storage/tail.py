"""The logical tail: what clients changed in the commits that no majority is known to hold yet.

Should another site become master without the end of this site's log, the library undoes that end
when this site comes back. Its log tells which pages change, not which keys. So the committer writes
down here, in clients' terms, what each transaction changes, and a ledger of what is undone can be
made of it (see `storage.doomed`).

It costs the commit as little as can be: a record is one copy into a mapped file, before the commit
and without a flush of its own. The copy survives the process, however it ends, as far as the commit
does. Not a loss of power: then a commit of the log may be missing here, which whoever reads both
sees, and compares the database as a whole instead.

    directory/00000001.tail, ...    blocks set aside; records one after the other

A file is used again once a majority holds all that is in it; mostly there are one or two. Above
`bytes_max` the oldest goes, whoever holds what is in it. What a commit did is matched with the log
by the transaction's number: a record whose commit never came about describes nothing.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from storage import tail_records
from storage.tail_records import HEADER, SUFFIX, Author, Change, CommitRecord, Lsn, OwnRecord

log = logging.getLogger(__name__)

FILE_BYTES: Final = 2**20
SPARE_FILES_MAX: Final = 2  # more that are free go back to the file system
AGAIN_S: Final = 10.0  # a disk that was full may have room again
_ZERO: Final = (0, 0)


class _File:
    """One mapped file.

    Attributes:
        number: its place in the order of writing.
        used: where the next record goes.
        last: the highest LSN of what is in it, as far as it is known.
    """

    __slots__ = ("_map", "_seed", "last", "number", "path", "size", "used")

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # A page without a block behind it would be a SIGBUS when the disk is full.
            os.posix_fallocate(fd, 0, size)
            self._map = mmap.mmap(fd, size)
        finally:
            os.close(fd)
        self.resume(0, _ZERO)

    def resume(self, number: int, last: Lsn) -> None:
        """Keep what an earlier process wrote, and add nothing."""
        self.number, self.last, self.used, self._seed = number, last, self.size, 0

    def begin(self, number: int) -> None:
        """Forget all records."""
        head = tail_records.header(number)
        self._map[: HEADER.size] = head
        self.number, self.last, self.used, self._seed = number, _ZERO, HEADER.size, zlib.crc32(head)

    def put(self, record: tail_records.Record) -> bool:
        """Add a record; False when there is no room for it."""
        data = tail_records.encode(record, self._seed)
        end = self.used + len(data)
        if end > self.size:
            return False
        self._map[self.used : end] = data
        self.used = end
        return True

    def close(self) -> None:
        self._map.close()


class Tail:
    """See the module's text.

    Args:
        directory: for its files alone; made if absent.
        bytes_max: of all files together.
        held_by_majority: tells up to which LSN so many members hold the log that it cannot be lost.
            Asked on the committing thread.
        file_bytes: of one file.

    Attributes:
        given_up: files used again although what was in them may yet be undone.
        failed: why nothing is written now; None while all is well.
    """

    def __init__(
        self,
        directory: Path,
        *,
        bytes_max: int,
        held_by_majority: Callable[[], Lsn],
        file_bytes: int = FILE_BYTES,
    ) -> None:
        self.directory = directory
        self.given_up = 0
        self.failed: OSError | None = None
        self._again_s = 0.0
        self._bytes_max = bytes_max
        self._held_by_majority = held_by_majority
        self._file_bytes = file_bytes
        self._lock = threading.Lock()
        self._full: deque[_File] = deque()
        self._spare: list[_File] = []
        self._current: _File | None = None
        self._next_number = 1
        self._behind: Lsn = _ZERO

    def open(self, log_end: Lsn) -> None:
        """Go on behind what an earlier process left; that stays until a majority holds `log_end`.

        Blocks. Where the directory cannot be used there is no tail, and `failed` says why.
        """
        with self._lock:
            self._behind = log_end
            try:
                self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
                for found in tail_records.find(self.directory):
                    file = _File(found.path, found.size_bytes)
                    file.resume(found.number, log_end)
                    self._full.append(file)
                    self._next_number = found.number + 1
            except OSError as error:
                self._fail(error)

    # -- writing -------------------------------------------------------------------------------

    def append(self, txn_id: int, authors: list[Author], changes: list[Change]) -> None:
        """Write down what a transaction changes, right before it is committed.

        *Thread:* the one that commits.
        """
        if self.failed is not None and time.monotonic() < self._again_s:
            return
        record = CommitRecord(txn_id, self._behind, time.time(), authors, changes)
        with self._lock:
            if self._current is not None and self._current.put(record):
                return
            try:
                self._current = self._next_file(len(tail_records.encode(record, 0)) + HEADER.size)
            except OSError as error:
                self._fail(error)
                return
            self.failed = None
            if self._current is not None:
                self._current.put(record)

    def committed(self, lsn: Lsn) -> None:
        """Take the LSN of what was appended last. *Thread:* the one that commits."""
        self._behind = lsn
        current = self._current
        if current is not None:
            current.last = lsn

    def own(self, lsn: Lsn) -> None:
        """Note a permanent record of the server itself. *Thread:* any.

        The library may be on the stack: a new file is made only for a site's first such record,
        when it becomes master. Without room the record is left out.
        """
        with self._lock:
            if self._current is None and not self._full and self.failed is None:
                try:
                    self._current = self._next_file(self._file_bytes)
                except OSError as error:
                    self._fail(error)
            if self._current is not None and self._current.put(OwnRecord(lsn)):
                self._current.last = max(self._current.last, lsn)

    def _next_file(self, needed: int) -> _File | None:
        """Go on in another file; None when there may be none that long."""
        if self._current is not None:
            self._full.append(self._current)
            self._current = None
        size = max(self._file_bytes, -(-needed // mmap.PAGESIZE) * mmap.PAGESIZE)
        if not self._make_room(size):
            return None
        number, self._next_number = self._next_number, self._next_number + 1
        for at, spare in enumerate(self._spare):
            if spare.size == size:
                del self._spare[at]
                spare.begin(number)
                return spare
        path = self.directory / f"{number:08d}{SUFFIX}"
        try:
            file = _File(path, size)
        except OSError:
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        file.begin(number)
        return file

    def _make_room(self, size: int) -> bool:
        held = self._held_by_majority()
        while self._full and self._full[0].last <= held:
            self._spare.append(self._full.popleft())
        fitting = [spare for spare in self._spare if spare.size == size][:SPARE_FILES_MAX]
        for spare in self._spare:
            if spare not in fitting:
                self._remove(spare)
        self._spare = fitting
        if self._spare:
            return True
        while self._full and sum(file.size for file in self._full) + size > self._bytes_max:
            self._remove(self._full.popleft())
            self.given_up += 1
        return size <= self._bytes_max

    def _remove(self, file: _File) -> None:
        file.close()
        with contextlib.suppress(OSError):
            file.path.unlink()

    def _fail(self, error: OSError) -> None:
        if self.failed is None:
            log.warning("tail_not_written directory=%s error=%s", self.directory, error)
        self.failed = error
        self._again_s = time.monotonic() + AGAIN_S

    # -- the end -------------------------------------------------------------------------------

    def reset(self) -> None:
        """Forget everything: this site's log is that of its master. *Thread:* any."""
        with self._lock:
            for file in (*self._full, *self._spare, self._current):
                if file is not None:
                    self._remove(file)
            self._full.clear()
            self._spare.clear()
            self._current = None

    def close(self) -> None:
        """Leave the files as they are."""
        with self._lock:
            for file in (*self._full, *self._spare, self._current):
                if file is not None:
                    file.close()
            self._full.clear()
            self._spare.clear()
            self._current = None
