"""Ledgers: the writes that rollbacks undid, each ledger a pair of files that a person can read.

    directory/ID.json           what happened: when, why, up to where, how many writes
    directory/ID.entries        one line a change, in the order of the writes
    directory/ID.outcome.json   what became of writing them again, once that was done

A ledger is complete when its `ID.json` is there. Keys and values are base64 in the files.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

import msgspec

from storage.errors import StorageError

Lsn = tuple[int, int]
T = TypeVar("T")

HEAD: Final = ".json"
ENTRIES: Final = ".entries"
OUTCOME: Final = ".outcome.json"
NEW: Final = ".new"


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What happened.

    Args:
        id: the ledger's name; times of rollbacks sort.
        found: when the library announced it, UTC.
        site: this one.
        master: whom it followed; None when that was not known.
        generation: the master's.
        sync_point: the last log record that both had.
        log_end: the last commit that was undone.
        commits: how many were undone, the server's own included.
        unexplained: those of them that the logical tail did not know. What they changed was found
            by comparing the databases, net, without LSN, time and user.
        writes: clients' writes that are listed.
        differences: keys listed because they differed.
        exact: `before` is as it was at the sync point, not at a later time.
    """

    id: str
    found: str
    site: str
    master: str | None
    generation: int
    sync_point: Lsn
    log_end: Lsn
    commits: int
    unexplained: int
    writes: int = 0
    differences: int = 0
    exact: bool = True


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One change of one key.

    Args:
        write: number of the client's write it belongs to, from 1; a difference has one of its own.
        file: the database.
        key: the key.
        before: its value without this change; None: there was none.
        after: its value with it; None: it was removed.
        lsn, time_s, user: of the write; None for a difference.
        hidden: the values are kept out of the ledger.
    """

    write: int
    file: str
    key: bytes
    before: bytes | None = None
    after: bytes | None = None
    lsn: Lsn | None = None
    time_s: float | None = None
    user: str | None = None
    hidden: bool = False


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of writing a ledger's writes again.

    Args:
        time: when last, UTC.
        applied: writes that are there again.
        same: writes whose values were there already.
        left: the numbers of the others, because a key has another value today, or none could be
            written.
    """

    time: str
    applied: int
    same: int
    left: list[int]

    @property
    def settled(self) -> bool:
        """Nothing is left to be decided."""
        return not self.left


class Ledgers:
    """All ledgers of a site.

    Args:
        directory: theirs alone; made with the first.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def heads(self) -> list[Head]:
        """All complete ledgers, the oldest first.

        Raises:
            StorageError: one cannot be read.
        """
        names = [
            path.name.removesuffix(HEAD)
            for path in self.directory.glob(f"*{HEAD}")
            if not path.name.endswith(OUTCOME)
        ]
        return [self.head(name) for name in sorted(names)]

    def head(self, name: str) -> Head:
        """One ledger's head.

        Raises:
            StorageError: there is none of this name, or it cannot be read.
        """
        try:
            return decode_file(self._path(name, HEAD), Head)
        except FileNotFoundError:
            raise _unknown(name) from None

    def entries(self, name: str) -> Iterator[Entry]:
        """One ledger's entries, one after the other.

        Raises:
            StorageError: as `head`.
        """
        path = self._path(name, ENTRIES)
        decoder = msgspec.json.Decoder(Entry)
        try:
            with path.open("rb") as lines:
                for line in lines:
                    yield decoder.decode(line)
        except (OSError, msgspec.MsgspecError) as error:
            raise _unreadable(path, error) from error

    def outcome(self, name: str) -> Outcome | None:
        """What became of writing it again; None: that was not tried.

        Raises:
            StorageError: it cannot be read.
        """
        try:
            return decode_file(self._path(name, OUTCOME), Outcome)
        except FileNotFoundError:
            return None

    def open_count(self) -> int:
        """How many ledgers hold something that was not written again."""
        count = 0
        for head in self.heads():
            outcome = self.outcome(head.id)
            count += bool(head.writes or head.differences) and not (outcome and outcome.settled)
        return count

    def write(self, head: Head, entries: Iterable[Entry]) -> Head:
        """Write a ledger, flushed; counts its entries. Returns the head as it was written.

        Raises:
            OSError: the disk refused.
        """
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        writes, differences, last = 0, 0, 0
        with new_file(self._path(head.id, ENTRIES)) as file:
            for entry in entries:
                file.write(msgspec.json.encode(entry) + b"\n")
                if entry.lsn is None:
                    differences += 1
                else:
                    writes += entry.write != last
                    last = entry.write
        head = msgspec.structs.replace(head, writes=writes, differences=differences)
        with new_file(self._path(head.id, HEAD)) as file:
            file.write(msgspec.json.format(msgspec.json.encode(head)))
        return head

    def write_outcome(self, name: str, outcome: Outcome) -> None:
        """Keep what became of writing it again.

        Raises:
            OSError: the disk refused.
        """
        with new_file(self._path(name, OUTCOME)) as file:
            file.write(msgspec.json.format(msgspec.json.encode(outcome)))

    def _path(self, name: str, suffix: str) -> Path:
        if "/" in name or name.startswith("."):
            raise _unknown(name)
        return self.directory / f"{name}{suffix}"


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Write a file, mode 0600, that takes its name's place, flushed, once it is whole."""
    draft = path.with_name(path.name + NEW)
    try:
        with open(draft, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    flush_directory(path.parent)


def flush_directory(path: Path) -> None:
    """Have the names in a directory outlive a loss of power."""
    directory = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def decode_file(path: Path, shape: type[T]) -> T:
    """Read a JSON file.

    Raises:
        FileNotFoundError: it is not there.
        StorageError: it cannot be read.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=shape)
    except FileNotFoundError:
        raise
    except (OSError, msgspec.MsgspecError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> StorageError:
    return StorageError(
        f"{path} cannot be read: {error}",
        code="LEDGER_DAMAGED",
        hint="move that ledger's files elsewhere; the other ledgers are not concerned.",
    )


def _unknown(name: str) -> StorageError:
    return StorageError(
        f"ledger {name[:80]!r} does not exist",
        code="LEDGER_UNKNOWN",
        hint="see which there are: ttserver rollback list",
    )
