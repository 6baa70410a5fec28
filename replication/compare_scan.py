"""Reading a range of a database for a comparison: finding its end, digesting its records.

*Thread:* all of it runs on threads of the environment: opening and looking ahead on the
comparison's own, digests on the one that has stopped for it (the one that commits, or applies).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from berkeleydb import db

from replication import library
from replication.compare import (
    DIGEST_BYTES,
    KEY_TOLD_BYTES_MAX,
    KEYS_DETAIL,
    PLACE_BYTES_MAX,
    Database,
    Digest,
    Entry,
    KeyRange,
    Outcome,
    Place,
)

T = TypeVar("T")

_META_BYTES: Final = 72
_MAGIC_AT: Final = 12
_FLAGS_AT: Final = 48
_BTREE: Final = 0x053162
_OTHER_KINDS: Final = {0x061561: "hash", 0x042253: "queue", 0x074582: "heap"}
_SUBDB: Final = 0x20  # flag of a btree that lists the databases of its file
_LENGTHS: Final = struct.Struct(">II")
_TRIES_MAX: Final = 200
_TRY_PAUSE_S: Final = 0.005
_SHARE: Final = (
    0.75  # of the longest pause; what is left is for being interrupted on a busy machine
)
_DATA_DIRECTORY: Final = frozenset({"add_data_dir", "set_data_dir", "db_data_dir"})
_PASSING: Final = (db.DBLockDeadlockError, db.DBLockNotGrantedError, db.DBRepLockoutError)


class Handles:
    """Databases that are open for a comparison, with handles of its own.

    Args:
        env: the open library handle.
    """

    def __init__(self, env: db.DBEnv) -> None:
        self.env = env
        self._open: dict[Database, db.DB] = {}
        self._dead: list[db.DB] = []
        # Held by whoever reads with a handle on another thread than the one that closes it.
        self._using = threading.Lock()

    def open(self, database: Database) -> db.DB:
        """Open a database, or find it open. *Thread:* the comparison's.

        Raises:
            DBNoSuchFileError: there is no such database here.
            DBError: the library refused.
        """
        handle = self._open.get(database)
        if handle is not None:
            return handle
        handle = library.new_handle(self.env)
        try:
            handle.open(
                database.file,
                dbname=database.name or None,
                dbtype=db.DB_UNKNOWN,
                flags=db.DB_RDONLY | db.DB_THREAD | db.DB_AUTO_COMMIT,
            )
        except db.DBError:
            self._dead.append(handle)
            raise
        self._open[database] = handle
        return handle

    def close(self) -> None:
        """Close all. *Thread:* the comparison's."""
        with self._using:
            handles, self._open, self._dead = [*self._open.values(), *self._dead], {}, []
            for handle in handles:
                with contextlib.suppress(db.DBError):
                    handle.close(db.DB_NOSYNC)

    def digest(self, wanted: KeyRange, *, detail: bool, pause_s_max: float) -> Scanned:
        """Digest a range of a database that was opened before; never raises, never waits.

        *Thread:* one that has stopped for it.

        Args:
            detail: tell the records.
            pause_s_max: give up after so long; at least one record is told all the same.
        """
        began_s = time.monotonic()
        with self._using:
            handle = self._open.get(wanted.database)
            if handle is None:
                found = Scanned(Digest(Outcome.MISSING), [])
            else:
                found = self._scan(handle, wanted, detail, began_s + _SHARE * pause_s_max)
        pause_us = int((time.monotonic() - began_s) * 1e6)
        return found._replace(digest=found.digest._replace(pause_us=pause_us))

    def _scan(self, handle: db.DB, wanted: KeyRange, detail: bool, end_s: float) -> Scanned:
        try:
            with _reading(self.env, handle) as cursor:
                scan = _tell if detail else _sum_up
                return scan(_records(cursor, wanted.start), wanted.end, end_s)
        except _PASSING:
            return Scanned(Digest(Outcome.PASSED), [])
        except db.DBRepHandleDeadError as error:
            self._dead.append(self._open.pop(wanted.database))
            return Scanned(Digest(Outcome.FAILED, text=str(error)), [])
        except Exception as error:  # noqa: BLE001 - whatever it is, the thread must go on
            return Scanned(Digest(Outcome.FAILED, text=str(error)), [])

    def look_ahead(
        self, database: Database, start: Place, keys_max: int, bytes_max: int
    ) -> Scouted:
        """Find the end of the next range, and have its pages in the cache.

        Raises:
            DBError: the library refused.
        """
        handle = self.open(database)
        return _patiently(lambda: self._look_ahead(handle, start, keys_max, bytes_max))

    def _look_ahead(self, handle: db.DB, start: Place, keys_max: int, bytes_max: int) -> Scouted:
        with _reading(self.env, handle, 0) as cursor:
            keys = size = 0
            sorted_values = has_many_values(handle)
            for key, value in _records(cursor, start):
                place = (key, value if sorted_values else b"")
                full = keys >= keys_max or size >= bytes_max
                if full and len(key) <= PLACE_BYTES_MAX and len(place[1]) <= PLACE_BYTES_MAX:
                    return Scouted(place, keys, size)
                keys, size = keys + 1, size + len(key) + len(value)
        return Scouted(None, keys, size)

    def warm(self, wanted: KeyRange, keys_max: int, bytes_max: int) -> None:
        """Have a range's pages in the cache.

        Raises:
            DBError: the library refused; DBNoSuchFileError when there is no such database.
        """
        handle = self.open(wanted.database)
        _patiently(lambda: self._warm(handle, wanted, keys_max, bytes_max))

    def _warm(self, handle: db.DB, wanted: KeyRange, keys_max: int, bytes_max: int) -> None:
        with _reading(self.env, handle, 0) as cursor:
            size = 0
            for number, (key, value) in enumerate(_records(cursor, wanted.start)):
                size += len(key) + len(value)
                if number >= keys_max or size >= bytes_max or _is_past(key, value, wanted.end):
                    return


class Scouted(NamedTuple):
    """The next range: its end (None: that of the database), its records and their bytes."""

    end: Place | None
    keys: int
    bytes: int


class Scanned(NamedTuple):
    """A digest, and where the records are that it tells."""

    digest: Digest
    places: list[Place]


def has_many_values(handle: db.DB) -> bool:
    """Tell whether a key may have several values, ordered ones."""
    return bool(handle.get_flags() & db.DB_DUPSORT)


def behind(place: Place, *, many_values: bool) -> Place:
    """Return the first place behind a record."""
    key, value = place
    return (key, value + b"\0") if many_values else (key + b"\0", b"")


def _patiently(read: Callable[[], T]) -> T:
    """Read beside writers: again, when a lock was not to be had."""
    for left in reversed(range(_TRIES_MAX)):
        try:
            return read()
        except _PASSING:
            if not left:
                raise
        time.sleep(_TRY_PAUSE_S)
    raise AssertionError("the last try returns or raises")


@contextlib.contextmanager
def _reading(env: db.DBEnv, handle: db.DB, flags: int = db.DB_TXN_NOWAIT) -> Iterator[db.DBCursor]:
    """Open a cursor that keeps the lock of one page only, and waits for none."""
    txn = env.txn_begin(None, flags | db.DB_READ_COMMITTED)
    try:
        cursor = handle.cursor(txn, db.DB_READ_COMMITTED)
        try:
            yield cursor
        finally:
            cursor.close()
    finally:
        txn.abort()


def _records(cursor: db.DBCursor, start: Place) -> Iterator[tuple[bytes, bytes]]:
    key, value = start
    if value:
        item = cursor.get(key, value, db.DB_GET_BOTH_RANGE) or cursor.set_range(key + b"\0")
    else:
        item = cursor.set_range(key) if key else cursor.first()
    while item is not None:
        yield item
        item = cursor.next()


def _is_past(key: bytes, value: bytes, end: Place | None) -> bool:
    # Where a key has one value only, a place's is empty and any value is behind it.
    return end is not None and (key, value) >= end


def _sum_up(records: Iterator[tuple[bytes, bytes]], end: Place | None, end_s: float) -> Scanned:
    whole = hashlib.blake2b(digest_size=DIGEST_BYTES)
    add, lengths, clock, count = whole.update, _LENGTHS.pack, time.monotonic, 0
    for key, value in records:
        if end is not None and (key, value) >= end:
            break
        add(lengths(len(key), len(value)) + key + value)
        count += 1
        # At each record: on a busy machine a call of the library may end half a millisecond late.
        if clock() > end_s:
            return Scanned(Digest(Outcome.SLOW, count), [])
    return Scanned(Digest(Outcome.DONE, count, whole.digest()), [])


def _tell(records: Iterator[tuple[bytes, bytes]], end: Place | None, end_s: float) -> Scanned:
    entries: list[Entry] = []
    places: list[Place] = []
    complete = True
    for key, value in records:
        if _is_past(key, value, end):
            break
        if len(entries) > KEYS_DETAIL or (entries and time.monotonic() > end_s):
            complete = False
            break
        entries.append(Entry(key[:KEY_TOLD_BYTES_MAX], _digest(key), _digest(value)))
        places.append((key, value))
    digest = Digest(Outcome.DONE, len(entries), b"", tuple(entries), complete)
    return Scanned(digest, places)


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


# -- which databases there are -------------------------------------------------------------------


class Found(NamedTuple):
    """The databases of a site, those that cannot be compared with the reason, and their size."""

    databases: tuple[Database, ...]
    left_out: tuple[tuple[str, str], ...]
    bytes: int


def find_databases(env: db.DBEnv, handles: Handles) -> Found:
    """List all databases of the environment but the library's own. *Thread:* the comparison's.

    Raises:
        DBError: the library refused.
    """
    home = Path(os.fsdecode(env.db_home or "."))
    directories = {home, *_data_directories(home)}
    databases: set[Database] = set()
    left_out: list[tuple[str, str]] = []
    size = 0
    for path in sorted({path for folder in directories for path in _files(folder)}):
        meta = read_meta(path)
        if meta is None:
            continue
        kind, lists_others = meta
        size += path.stat().st_size
        names = _names_in(handles, path.name) if lists_others else [""]
        for name in names:
            database = Database(path.name, name)
            why = kind or (_unordered(handles, database))
            if why:
                left_out.append((str(database), why))
            else:
                databases.add(database)
    return Found(tuple(sorted(databases)), tuple(left_out), size)


def _data_directories(home: Path) -> Iterator[Path]:
    # The binding's own call crashes where none is set.
    try:
        lines = (home / "DB_CONFIG").read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return
    for words in map(str.split, lines):
        if len(words) > 1 and words[0] in _DATA_DIRECTORY:
            yield home / words[1]


def _files(folder: Path) -> Iterator[Path]:
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            if path.is_file() and not path.name.startswith(("__db", "log.", "DB_CONFIG")):
                yield path


def read_meta(path: Path) -> tuple[str, bool] | None:
    """Look at a file's first page: (why it cannot be compared, it holds several databases).

    Returns:
        None for a file that is no database, or not written yet.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_META_BYTES)
    except OSError:
        return None
    if len(head) < _META_BYTES:
        return None
    for order in ("<", ">"):
        (magic,) = struct.unpack_from(f"{order}I", head, _MAGIC_AT)
        if magic == _BTREE:
            (flags,) = struct.unpack_from(f"{order}I", head, _FLAGS_AT)
            return "", bool(flags & _SUBDB)
        if magic in _OTHER_KINDS:
            return f"it is a {_OTHER_KINDS[magic]} database, whose records have no order", False
    return None


def _names_in(handles: Handles, file: str) -> list[str]:
    """List the databases of a file that holds several."""
    with _reading(handles.env, handles.open(Database(file)), 0) as cursor:
        return [key.decode("utf-8", "surrogateescape") for key, _ in _records(cursor, (b"", b""))]


def _unordered(handles: Handles, database: Database) -> str:
    """Say why records of a database cannot be told apart by their order, empty when they can."""
    handle = handles.open(database)
    if handle.get_type() != db.DB_BTREE:
        return "it is no btree"
    if handle.get_flags() & db.DB_DUP and not has_many_values(handle):
        return "the values of its keys have no order"
    return ""
