"""The plain keyspace: one btree, key and value bytes exactly as clients gave them.

Every method takes the transaction it runs in, so the same code serves a read (a short NOWAIT
transaction), a write and a whole EXEC (the committer's transaction).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from berkeleydb import db

Handle = Callable[[], "db.DB"]


class Keyspace:
    """Keys in byte order.

    Args:
        handle: returns the open database, see `storage.database.Database.handle`.
    """

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    def get(self, txn: db.DBTxn, key: bytes) -> bytes | None:
        """The value, or None."""
        return cast("bytes | None", self._handle().get(key, None, txn))

    def exists(self, txn: db.DBTxn, key: bytes) -> bool:
        """Tell whether the key is there, without copying its value."""
        return bool(self._handle().exists(key, txn))

    def length(self, txn: db.DBTxn, key: bytes) -> int:
        """The value's length in bytes, 0 when the key is absent."""
        size = self._handle().get_size(key, txn)
        return 0 if size is None else size

    def put(self, txn: db.DBTxn, key: bytes, value: bytes) -> None:
        """Set the value."""
        self._handle().put(key, value, txn)

    def delete(self, txn: db.DBTxn, key: bytes) -> bool:
        """Remove the key; tell whether it was there."""
        try:
            self._handle().delete(key, txn)
        except (db.DBNotFoundError, db.DBKeyEmptyError):
            return False
        return True

    def keys(self, txn: db.DBTxn, after: bytes | None, limit: int) -> list[bytes]:
        """At most `limit` keys greater than `after`, ascending; None starts at the first."""
        found: list[bytes] = []
        cursor = self._handle().cursor(txn)
        try:
            # A partial read of no bytes: keys without their values.
            item = (
                cursor.first(dlen=0, doff=0)
                if after is None
                else cursor.set_range(after, dlen=0, doff=0)
            )
            if item is not None and item[0] == after:
                item = cursor.next(dlen=0, doff=0)
            while item is not None and len(found) < limit:
                found.append(item[0])
                item = cursor.next(dlen=0, doff=0)
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
    ) -> list[tuple[bytes, bytes]]:
        """Keys and values from `start` to `end`, both inclusive, None being the open end.

        Args:
            limit: most pairs returned.
            reverse: from `end` down to `start`.
            after: continue behind this key (in the direction of travel).
        """
        found: list[tuple[bytes, bytes]] = []
        cursor = self._handle().cursor(txn)
        try:
            item = _first_down(cursor, end, after) if reverse else _first_up(cursor, start, after)
            while item is not None and len(found) < limit:
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
        """Count at most `limit` keys behind `after`; returns the count and the last key seen."""
        keys = self.keys(txn, after, limit)
        return len(keys), (keys[-1] if keys else None)


Pair = tuple[bytes, bytes]


def _first_up(cursor: db.DBCursor, start: bytes | None, after: bytes | None) -> Pair | None:
    if after is not None and (start is None or after >= start):
        item = cursor.set_range(after)
        return cursor.next() if item and item[0] == after else item
    return cast("Pair | None", cursor.first() if start is None else cursor.set_range(start))


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
