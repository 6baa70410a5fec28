"""From the announcement of a rollback to its ledger.

    prepare    before anything is undone: what the doomed commits changed, from the logical tail;
               where that does not know a commit, all keys and values as they are
    settle     right after it, with the database as it was at the sync point: `before` of each
               change is looked up, the kept keys and values are compared, the ledger is written

Between the two lies the directory `pending`, which outlives the process. A site that died there
either still has the doomed commits, and the library announces the rollback again, or it has not:
then the ledger is settled when its environment is opened, before anything else is applied.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from berkeleydb import db

from storage import dump
from storage.database import Database
from storage.doomed import DoomedWrite, Explained, LoggedCommit, commits_behind, is_there
from storage.environment import Environment
from storage.ledger import Entry, Head, Ledgers, decode_file, new_file
from storage.library import DatabaseMissing
from storage.users import USERS_FILE

T = TypeVar("T")

PENDING: Final = "pending"
_HEAD: Final = "head.json"
_WRITES: Final = "writes"
_DUMP: Final = ".dump"
# Password hashes stay in the database; that a user's record was changed is enough to know.
HIDDEN_FILES: Final = frozenset({USERS_FILE})
_TRIES_MAX: Final = 5


class TooMuch(Exception):
    """More would be undone than may be without the operator's word."""


class Stopped(Exception):
    """The site is stopping."""


class _Pending(msgspec.Struct, frozen=True, kw_only=True):
    """What is known between the two steps.

    Args:
        head: as far as it is known.
        last: the last doomed commit; as long as the log holds it, nothing was undone.
        dumped: databases whose keys and values were kept.
    """

    head: Head
    last: LoggedCommit
    dumped: list[str]


class _Write(msgspec.Struct, frozen=True, array_like=True):
    lsn: tuple[int, int]
    time_s: float
    user: str
    changes: list[tuple[str, bytes, bytes | None]]


class Undoing:
    """See the module's text. *Thread:* all of it one of the environment's.

    Args:
        environment: open.
        files: the databases whose keys and values clients set.
        tail: the logical tail's directory.
        ledgers: where the ledger goes.
    """

    def __init__(
        self, environment: Environment, files: Sequence[str], tail: Path, ledgers: Ledgers
    ) -> None:
        self._environment = environment
        self._files = files
        self._databases: dict[str, Database] = {}
        self._tail = tail
        self._ledgers = ledgers
        self._directory = ledgers.directory / PENDING
        self._stopping = False

    def stop(self) -> None:
        """Break off what is under way. *Thread:* any."""
        self._stopping = True

    def _unless_stopped(self, items: Iterator[T]) -> Iterator[T]:
        for item in items:
            if self._stopping:
                raise Stopped
            yield item

    # -- before --------------------------------------------------------------------------------

    def prepare(self, head: Head, *, writes_max: int, keep_bytes_max: int) -> Head:
        """Keep what must be known of the commits behind `head.sync_point`.

        Args:
            head: with its site, its master and the sync point.
            writes_max: most client's writes, and most commits that are nobody's.
            keep_bytes_max: most bytes of keys and values that are set aside.

        Returns:
            The head, with what there is to be undone.

        Raises:
            TooMuch: it is more than that; says what. Nothing is kept.
            Stopped: the site is stopping.
            OSError: the disk refused.
            db.DBError: the library refused.
        """
        self.drop()
        self._directory.mkdir(parents=True, mode=0o700)
        try:
            return self._prepare(head, writes_max, keep_bytes_max)
        except BaseException:
            self.drop()
            raise

    def _prepare(self, head: Head, writes_max: int, keep_bytes_max: int) -> Head:
        explained = Explained(self._tail)
        commits = writes = 0
        last = None
        with new_file(self._directory / _WRITES) as file:
            env = self._environment.env
            for last in self._unless_stopped(commits_behind(env, head.sync_point)):
                commits += 1
                for write in explained.writes(last):
                    writes += 1
                    file.write(_line(write))
                if writes + explained.unexplained > writes_max:
                    raise TooMuch(f"more than {writes_max} writes")
        assert last is not None, "the library found a commit to be undone"
        dumped = self._dump(keep_bytes_max) if explained.unexplained else []
        head = msgspec.structs.replace(
            head,
            log_end=last.lsn,
            commits=commits,
            unexplained=explained.unexplained,
            writes=writes,
        )
        pending = _Pending(head=head, last=last, dumped=dumped)
        with new_file(self._directory / _HEAD) as file:
            file.write(msgspec.json.format(msgspec.json.encode(pending)))
        return head

    def _dump(self, bytes_max: int) -> list[str]:
        left = bytes_max
        dumped = []
        for name in self._files:
            shown = dump.digest if name in HIDDEN_FILES else bytes
            try:
                pairs = self._unless_stopped(dump.walk(self._database(name).handle()))
                left -= dump.write(pairs, self._dumped(name), left, shown)
            except DatabaseMissing:
                self._dumped(name).write_bytes(b"")
            except dump.TooBig:
                size = (
                    f"{bytes_max / 2**20:.0f} MiB" if bytes_max >= 2**20 else f"{bytes_max} bytes"
                )
                raise TooMuch(f"a database of more than {size} would have to be kept") from None
            dumped.append(name)
        return dumped

    def _dumped(self, name: str) -> Path:
        return self._directory / f"{name}{_DUMP}"

    def _database(self, file: str) -> Database:
        return self._databases.setdefault(file, Database(self._environment, file))

    def close(self) -> None:
        """Close what was opened. Nobody may be inside the library."""
        for database in self._databases.values():
            database.close()

    def drop(self) -> None:
        """Forget what is pending: it is settled, or nothing is undone after all."""
        shutil.rmtree(self._directory, ignore_errors=True)

    # -- after ---------------------------------------------------------------------------------

    def pending(self) -> Head | None:
        """What is prepared and not settled.

        Raises:
            StorageError: it cannot be read.
        """
        found = self._pending()
        return found.head if found is not None else None

    def _pending(self) -> _Pending | None:
        try:
            return decode_file(self._directory / _HEAD, _Pending)
        except FileNotFoundError:
            return None

    def was_undone(self) -> bool:
        """Tell whether what is pending is gone from the log."""
        found = self._pending()
        return found is not None and not is_there(self._environment.env, found.last)

    def settle(self) -> Head | None:
        """Write the ledger of what is pending; None when nothing is.

        The database should be as it was at the sync point; the ledger says so when it is not.

        Raises:
            StorageError: what is pending cannot be read, or a database.
            OSError: the disk refused; it stays pending.
            db.DBError: the library refused; it stays pending.
        """
        found = self._pending()
        if found is None:
            return None
        behind = commits_behind(self._environment.env, found.head.sync_point)
        exact = next(behind, None) is None
        behind.close()
        start = msgspec.structs.replace(found.head, exact=exact)
        for attempt in range(_TRIES_MAX):
            for database in self._databases.values():
                database.drop()  # its handle is of before
            try:
                head = self._ledgers.write(start, self._entries(found))
                break
            except (db.DBRepHandleDeadError, db.DBLockDeadlockError, db.DBLockNotGrantedError):
                if attempt == _TRIES_MAX - 1:
                    raise
        self.drop()
        return head

    def _entries(self, found: _Pending) -> Iterator[Entry]:
        values: dict[tuple[str, bytes], bytes | None] = {}
        number = 0
        for write in self._writes():
            number += 1
            for file, key, after in write.changes:
                hidden = file in HIDDEN_FILES
                at = (file, key)
                if not hidden and at not in values:
                    values[at] = self._value(file, key)
                yield Entry(
                    write=number,
                    file=file,
                    key=key,
                    before=None if hidden else values[at],
                    after=after,
                    lsn=write.lsn,
                    time_s=write.time_s,
                    user=write.user,
                    hidden=hidden,
                )
                values[at] = after
        for file in found.dumped:
            for key, then, now in self._differences(file):
                if (file, key) in values:
                    continue
                number += 1
                hidden = file in HIDDEN_FILES
                yield Entry(
                    write=number,
                    file=file,
                    key=key,
                    before=None if hidden else now,
                    after=(None if then is None else b"") if hidden else then,
                    hidden=hidden,
                )

    def _writes(self) -> Iterable[_Write]:
        decoder = msgspec.json.Decoder(_Write)
        with (self._directory / _WRITES).open("rb") as lines:
            for line in lines:
                yield decoder.decode(line)

    def _value(self, file: str, key: bytes) -> bytes | None:
        try:
            return self._database(file).handle().get(key)
        except DatabaseMissing:
            return None

    def _differences(self, file: str) -> Iterator[dump.Difference]:
        then = dump.read(self._dumped(file))
        try:
            handle = self._database(file).handle()
        except DatabaseMissing:
            return dump.differences(then, iter(()))
        now = dump.walk(handle)
        if file in HIDDEN_FILES:
            now = ((key, dump.digest(value)) for key, value in now)
        return dump.differences(then, now)


def _line(write: DoomedWrite) -> bytes:
    return msgspec.json.encode(_Write(write.lsn, write.time_s, write.user, write.changes)) + b"\n"
