"""The plain keyspace: one btree, key and value bytes exactly as clients gave them.

Every method takes the transaction it runs in, so the same code serves a read (a short NOWAIT
transaction), a write and a whole EXEC (the committer's transaction).

Single keys are read with full isolation, so what one transaction reads belongs together. Walks
over many keys hold the lock of one page at a time: with a lock on each page they passed, a long
KEYS would hold up every write until it ends.

Source: API reference, `DB->get`, `DBC->get`; Programmer's Reference, "Degrees of isolation".
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Final

from berkeleydb import db

from storage.changes import Note, no_note
from storage.reads import WouldBlock

Handle = Callable[[], "db.DB"]
Pair = tuple[bytes, bytes]

# A longer value is copied by a thread: this one takes about 0.1 ms.
LOOP_VALUE_BYTES_MAX: Final = 256 * 1024
# So many keys are walked over between two looks at the clock, about 0.1 ms.
PACE_KEYS: Final = 64
# Of 4 KiB: from the cache such a count takes 0.1 s.
COUNT_WHOLE_PAGES_MAX: Final = 65_536


def _no_pace(_txn: db.DBTxn) -> bool:
    return False


class Keyspace:
    """Keys in byte order.

    Args:
        handle: returns the open database, see `storage.database.Database.handle`.
        pace: asked again and again while a transaction reads, see `storage.reads.Reads.pace`.
    """

    def __init__(self, handle: Handle, pace: Callable[[db.DBTxn], bool] = _no_pace) -> None:
        self._handle = handle
        self._pace = pace
        self._note: Note = no_note
        self._file = ""

    def use(
        self,
        handle: Handle,
        pace: Callable[[db.DBTxn], bool],
        note: Note = no_note,
        file: str = "",
    ) -> None:
        """Work on another opening of the database from now on.

        Args:
            handle, pace: as for the first.
            note: told of each change, see `storage.changes.Changes`.
            file: the database's, for `note`.
        """
        self._handle, self._pace, self._note, self._file = handle, pace, note, file

    def get(self, txn: db.DBTxn, key: bytes) -> bytes | None:
        """The value, or None.

        Raises:
            WouldBlock: in the event loop, the value is too long to be copied there.
        """
        if not self._pace(txn):
            return self._handle().get(key, None, txn)
        value = self._handle().get(key, None, txn, 0, LOOP_VALUE_BYTES_MAX + 1, 0)
        if value is not None and len(value) > LOOP_VALUE_BYTES_MAX:
            raise WouldBlock
        return value

    def exists(self, txn: db.DBTxn, key: bytes) -> bool:
        """Tell whether the key is there, without copying its value."""
        self._pace(txn)
        return self._handle().exists(key, txn)

    def length(self, txn: db.DBTxn, key: bytes) -> int:
        """The value's length in bytes, 0 when the key is absent."""
        self._pace(txn)
        try:
            return self._handle().get_size(key, txn) or 0
        except db.DBNotFoundError:
            return 0

    def put(self, txn: db.DBTxn, key: bytes, value: bytes) -> None:
        """Set the value."""
        self._handle().put(key, value, txn)
        self._note((self._file, key, value))

    def delete(self, txn: db.DBTxn, key: bytes) -> bool:
        """Remove the key; tell whether it was there."""
        try:
            self._handle().delete(key, txn)
        except (db.DBNotFoundError, db.DBKeyEmptyError):
            return False
        self._note((self._file, key, None))
        return True

    def touch(self, txn: db.DBTxn, bytes_max: int, among: int) -> bool:
        """Write one of the first `among` values over with itself, if one is short enough."""
        cursor = self._handle().cursor(txn)
        try:
            item = cursor.first()
            for _ in range(among):
                if item is None:
                    return False
                key, value = item
                if len(key) + len(value) <= bytes_max:
                    cursor.put(key, value, db.DB_CURRENT)
                    return True
                item = cursor.next()
        finally:
            cursor.close()
        return False

    def keys(self, txn: db.DBTxn, after: bytes | None, limit: int) -> list[bytes]:
        """At most `limit` keys greater than `after`, ascending; None starts at the first."""
        found: list[bytes] = []
        if limit <= 0:
            return found
        cursor = self._walk(txn)
        try:
            item = _first_key(cursor, after)
            while item is not None and len(found) < limit:
                if len(found) % PACE_KEYS == 0:
                    self._pace(txn)
                found.append(item[0])
                item = cursor.next(0, 0, 0)
        finally:
            cursor.close()
        return found

    def range(
        self,
        txn: db.DBTxn,
        start: bytes | None,
        end: bytes | None,
        *,
        limit: int,
        reverse: bool = False,
        after: bytes | None = None,
    ) -> list[Pair]:
        """Keys and values from `start` to `end`, both inclusive, None being the open end.

        Args:
            txn: the transaction.
            start: the lower end, whatever the direction.
            end: the upper end.
            limit: most pairs returned.
            reverse: from `end` down to `start`.
            after: continue behind this key (in the direction of travel).
        """
        found: list[Pair] = []
        if limit <= 0:
            return found
        cursor = self._walk(txn)
        try:
            item = _first_down(cursor, end, after) if reverse else _first_up(cursor, start, after)
            while item is not None and len(found) < limit:
                self._pace(txn)
                key = item[0]
                if reverse:
                    if start is not None and key < start:
                        break
                elif end is not None and key > end:
                    break
                found.append(item)
                item = cursor.prev() if reverse else cursor.next()
        finally:
            cursor.close()
        return found

    def count(self, txn: db.DBTxn, after: bytes | None, limit: int) -> tuple[int, bytes | None]:
        """Count at most `limit` keys (1 or more) behind `after`.

        Returns:
            How many, and the last one when there may be more, else None.
        """
        cursor = self._walk(txn)
        try:
            last = _first_key(cursor, after)
            if last is None:
                return 0, None
            number = 1
            for item in islice(iter(partial(cursor.next, 0, 0, 0), None), limit - 1):
                number, last = number + 1, item
                if number % PACE_KEYS == 0:
                    self._pace(txn)
        finally:
            cursor.close()
        return number, last[0] if number == limit else None

    def count_unlocked(self, txn: db.DBTxn | None = None) -> int | None:
        """Count all keys of a small database in one go, None for a large one.

        The library's own count is thirty times as fast as a walk. But it locks no page of keys, so
        it sees what was never committed; and it keeps hold of the pages above the one it counts, so
        that a write which has to split one of these waits. See `storage.count.count_if_quiet`.
        """
        handle = self._handle()
        if handle.stat(db.DB_FAST_STAT, txn)["pagecnt"] > COUNT_WHOLE_PAGES_MAX:
            return None
        return int(handle.stat(0, txn)["ndata"])

    def _walk(self, txn: db.DBTxn) -> db.DBCursor:
        return self._handle().cursor(txn, db.DB_READ_COMMITTED)


# Reading no byte of a value (flags, length, offset: 0, 0, 0) gives the keys alone.


def _first_key(cursor: db.DBCursor, after: bytes | None) -> Pair | None:
    if after is None:
        return cursor.first(0, 0, 0)
    item = cursor.set_range(after, 0, 0, 0)
    return cursor.next(0, 0, 0) if item is not None and item[0] == after else item


def _first_up(cursor: db.DBCursor, start: bytes | None, after: bytes | None) -> Pair | None:
    if after is not None and (start is None or after >= start):
        item = cursor.set_range(after)
        return cursor.next() if item is not None and item[0] == after else item
    return cursor.first() if start is None else cursor.set_range(start)


def _first_down(cursor: db.DBCursor, end: bytes | None, after: bytes | None) -> Pair | None:
    exclusive = after is not None and (end is None or after <= end)
    top = after if exclusive else end
    if top is None:
        return cursor.last()
    item = cursor.set_range(top)
    if item is None:
        return cursor.last()
    if item[0] > top or (exclusive and item[0] == top):
        return cursor.prev()
    return item
