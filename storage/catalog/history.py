"""The chain of custody: read, never changed; it outlives its volumes.

Of one volume it comes as it happened. Of a filter it comes by volume, or by time when a time was
asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Final

import msgspec

from storage.catalog.files import WALK_KEYS, behind, keys_from
from storage.catalog.filters import Filter, compile_filter
from storage.catalog.names import CatalogError, customer_of
from storage.catalog.records import HistoryRecord
from storage.catalog.store import CatalogStore, decode_history, time_text
from storage.catalog.tree import Sees

if TYPE_CHECKING:
    from berkeleydb import db

EXAMINED_MAX: Final = 2000  # keys looked at for one page, about 10 ms
TIME_CHARS: Final = len("2025-12-01T00:00:00.000Z ")


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """What history is asked for.

    Args:
        filter: of the volumes' names; a whole name is one volume.
        start, end: from and up to when, UTC; None is open.
    """

    filter: str
    start: datetime | None = None
    end: datetime | None = None


class Happened(msgspec.Struct, frozen=True):
    """One record of the history, with its place in it."""

    name: str
    number: int
    record: HistoryRecord


class HistoryPage(msgspec.Struct, frozen=True):
    """A part of a history, and where the next one goes on; None at its end."""

    records: list[Happened]
    after: bytes | None


class History:
    """See the module's text.

    Args:
        store: where the records are.
    """

    def __init__(self, store: CatalogStore) -> None:
        self._store = store

    def page(
        self, txn: db.DBTxn, span: Span, after: bytes | None, limit: int, sees: Sees
    ) -> HistoryPage:
        """At most `limit` records behind `after`; fewer, even none, with more to come.

        Raises:
            CatalogError: INVALID.
        """
        wanted = compile_filter(span.filter)
        by_time = not _is_one(span.filter) and (span.start or span.end) is not None
        walk = self._by_time if by_time else self._by_name
        found: list[Happened] = []
        for number, (place, key) in enumerate(walk(txn, wanted, span, after), start=1):
            happened = self._look(txn, key, wanted, span, sees)
            if happened is not None:
                found.append(happened)
            if len(found) == limit or number == EXAMINED_MAX:
                return HistoryPage(found, place)
        return HistoryPage(found, None)

    def _by_name(
        self, txn: db.DBTxn, wanted: Filter, span: Span, after: bytes | None
    ) -> Iterator[tuple[bytes, bytes]]:
        if _is_one(span.filter):
            prefix = f"{span.filter} ".encode()
        else:
            rest = wanted.after("", dots_left=2)
            prefix = b"" if rest is None else rest.literal.encode()
        start = prefix if after is None else _resumed(after, prefix)
        while True:
            keys = keys_from(self._store.files(txn).history.handle(), txn, start, prefix)
            for key in keys:
                yield key, key
            if len(keys) < WALK_KEYS:
                return
            start = behind(keys[-1])

    def _by_time(
        self, txn: db.DBTxn, _wanted: Filter, span: Span, after: bytes | None
    ) -> Iterator[tuple[bytes, bytes]]:
        start = b"" if span.start is None else time_text(span.start).encode()
        if after is not None:
            start = _resumed(after, b"2")  # a time, for some centuries to come
        end = b"~" if span.end is None else time_text(span.end).encode() + b"~"
        while True:
            keys = keys_from(self._store.files(txn).times.handle(), txn, start, b"")
            for key in keys:
                if key > end:
                    return
                yield key, key[TIME_CHARS:]
            if len(keys) < WALK_KEYS:
                return
            start = behind(keys[-1])

    def _look(
        self, txn: db.DBTxn, key: bytes, wanted: Filter, span: Span, sees: Sees
    ) -> Happened | None:
        name, _, number = key.decode().rpartition(" ")
        if not sees(customer_of(name)) or not wanted.matches(name):
            return None
        data = self._store.files(txn).history.handle().get(key, None, txn)
        if data is None:
            return None  # undone by a rollback since its key was read
        record = decode_history(key.decode(), data)
        if span.start is not None and record.at < span.start:
            return None
        if span.end is not None and record.at > span.end:
            return None
        return Happened(name, int(number), record)


def _is_one(text: str) -> bool:
    return text.count(".") == 2 and not set(text) & set("*?[")


def _resumed(after: bytes, prefix: bytes) -> bytes:
    if not after.startswith(prefix):
        raise CatalogError(
            "cursor refused: it belongs to another list",
            hint="begin with cursor 0, and ask the same each time.",
        )
    return behind(after)
