"""Records of the catalog, read and written by name, with all that follows from a volume's change.

A change of volumes is made in two steps. Operations read, refuse what cannot be, and plan: a list
of `Change`s. `write` then stores these with their index keys, counts and history, and refuses
nothing; so a refusal has written nothing, as the group commit expects.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from storage.catalog.files import CatalogFiles, Pacer, last_key
from storage.catalog.index import COUNT, Key, counts_of, history_key, index_keys
from storage.catalog.names import CatalogError, media_of, shown
from storage.catalog.records import (
    Actor,
    Customer,
    HistoryRecord,
    Media,
    Repository,
    Volume,
    custody_of,
)

if TYPE_CHECKING:
    from datetime import datetime

    from berkeleydb import db

T = TypeVar("T")

_encode: Final = msgspec.json.Encoder().encode
_customer: Final = msgspec.json.Decoder(Customer)
_media: Final = msgspec.json.Decoder(Media)
_repository: Final = msgspec.json.Decoder(Repository)
_volume: Final = msgspec.json.Decoder(Volume)
_history: Final = msgspec.json.Decoder(HistoryRecord)
_counts: Final = msgspec.json.Decoder(list[int])

TIME_DIGITS: Final = len("2025-12-01T00:00:00.000")
COUNTS: Final = 3  # numbers a counter has room for, see `storage.catalog.index.counts_of`


class Change(msgspec.Struct, frozen=True):
    """One volume before and after an operation.

    Args:
        name: the volume.
        before: its record, None when it is new.
        after: its record then, None when it is deleted.
        what: the operation, for the history.
        always: it is history even when no fact of `custody_of` changed.
    """

    name: str
    before: Volume | None
    after: Volume | None
    what: str
    always: bool = True


class CatalogStore:
    """See the module's text.

    Args:
        files: gives the databases, and keeps reads in the loop short.
    """

    def __init__(self, files: Pacer) -> None:
        self.files = files

    # -- reading

    def customer(self, txn: db.DBTxn, name: str) -> Customer | None:
        """Find a customer."""
        return _read(self.files(txn).objects.handle(), txn, name, _customer)

    def media(self, txn: db.DBTxn, name: str) -> Media | None:
        """Find a media type."""
        return _read(self.files(txn).objects.handle(), txn, name, _media)

    def repository(self, txn: db.DBTxn, name: str) -> Repository | None:
        """Find a repository."""
        return _read(self.files(txn).objects.handle(), txn, name, _repository)

    def volume(self, txn: db.DBTxn, name: str) -> Volume | None:
        """Find a volume."""
        return _read(self.files(txn).volumes.handle(), txn, name, _volume)

    def the_customer(self, txn: db.DBTxn, name: str) -> Customer:
        """Find a customer that has to be there.

        Raises:
            CatalogError: NOTFOUND; as of the following methods.
        """
        return _found("customer", name, self.customer(txn, name))

    def the_media(self, txn: db.DBTxn, name: str) -> Media:
        """Find a media type that has to be there."""
        return _found("media type", name, self.media(txn, name))

    def the_repository(self, txn: db.DBTxn, name: str) -> Repository:
        """Find a repository that has to be there."""
        return _found("repository", name, self.repository(txn, name))

    def the_volume(self, txn: db.DBTxn, name: str) -> Volume:
        """Find a volume that has to be there."""
        return _found("volume", name, self.volume(txn, name))

    def counts(self, txn: db.DBTxn, name: str) -> list[int]:
        """Give the counts of a media type, or of a repository: in it, coming, going."""
        data = self.files(txn).index.handle().get(f"{COUNT} {name}".encode(), None, txn)
        return [0] * COUNTS if data is None else _counts.decode(data)

    # -- writing

    def put_object(self, txn: db.DBTxn, name: str, record: Customer | Media | Repository) -> None:
        """Store a customer, a media type or a repository."""
        self.files(txn).objects.put(name.encode(), _encode(record), txn)

    def delete_object(self, txn: db.DBTxn, name: str) -> None:
        """Delete one of these, which is there."""
        self.files(txn).objects.delete(name.encode(), txn)

    def write(self, txn: db.DBTxn, actor: Actor, changes: Sequence[Change]) -> None:
        """Store changed volumes and all that follows from them."""
        files = self.files(txn)
        counted: Counter[Key] = Counter()
        for change in changes:
            self._write_one(files, txn, actor, change)
            if change.before is not None:
                counted.subtract(counts_of(change.name, change.before))
            if change.after is not None:
                counted.update(counts_of(change.name, change.after))
        self._count(files, txn, counted)

    def _write_one(self, files: CatalogFiles, txn: db.DBTxn, actor: Actor, change: Change) -> None:
        before, after, name = change.before, change.after, change.name
        old = index_keys(name, before) if before is not None else set()
        new = index_keys(name, after) if after is not None else set()
        index = files.index.handle()  # what follows from a volume is not noted as a change
        for key in sorted(old - new):
            index.delete(key, txn)
        for key in sorted(new - old):
            index.put(key, b"", txn)
        facts_before = custody_of(before) if before is not None else {}
        facts_after = custody_of(after) if after is not None else {}
        changed = difference(facts_before, facts_after)
        number = before.changes if before is not None else self._last_number(files, txn, name)
        if changed[0] or changed[1] or change.always:
            number += 1
            self._add_history(files, txn, name, number, actor, change.what, changed)
        volumes = files.volumes
        if after is None:
            volumes.delete(name.encode(), txn)
        else:
            volumes.put(name.encode(), _encode(msgspec.structs.replace(after, changes=number)), txn)

    def _add_history(
        self,
        files: CatalogFiles,
        txn: db.DBTxn,
        name: str,
        number: int,
        actor: Actor,
        what: str,
        changed: tuple[dict[str, Any], dict[str, Any]],
    ) -> None:
        record = HistoryRecord(
            at=actor.at,
            by=actor.user,
            via=actor.program,
            what=what,
            before=changed[0],
            after=changed[1],
        )
        key = history_key(name, number)
        files.history.put(key, _encode(record), txn)
        files.times.handle().put(time_key(actor.at, key), b"", txn)

    def _last_number(self, files: CatalogFiles, txn: db.DBTxn, name: str) -> int:
        """A volume that comes back goes on with the history of the one of its name."""
        prefix = f"{name} ".encode()
        key = last_key(files.history.handle(), txn, prefix, f"{name}!".encode())
        return 0 if key is None else int(key[len(prefix) :])

    def _count(self, files: CatalogFiles, txn: db.DBTxn, counted: Counter[Key]) -> None:
        sums: dict[str, list[int]] = {}
        for (name, place), number in counted.items():
            if number:
                sums.setdefault(name, [0] * COUNTS)[place] += number
        index = files.index.handle()
        for name, numbers in sorted(sums.items()):
            there = self.counts(txn, name)
            total = [was + more for was, more in zip(there, numbers, strict=True)]
            key = f"{COUNT} {name}".encode()
            if any(total):
                index.put(key, _encode(total), txn)
            else:
                index.delete(key, txn)


def time_key(at: datetime, history: bytes) -> bytes:
    """The key of a history record in history_time.db."""
    return time_text(at).encode() + b" " + history


def time_text(at: datetime) -> str:
    """A time, which is UTC, as text whose order is that of the times."""
    return at.isoformat(timespec="milliseconds")[:TIME_DIGITS] + "Z"


def decode_volume(name: str, data: bytes) -> Volume:
    """Read a volume's record.

    Raises:
        CatalogError: this server did not write it.
    """
    return _decode(name, data, _volume)


def decode_history(key: str, data: bytes) -> HistoryRecord:
    """Read a history record, as `decode_volume`."""
    return _decode(key, data, _history)


def decode_media(name: str, data: bytes) -> Media:
    """Read a media type's record, as `decode_volume`."""
    return _decode(name, data, _media)


def decode_object(name: str, data: bytes) -> Customer | Media | Repository:
    """Read a customer's, media type's or repository's record by its name, as `decode_volume`."""
    decoders: tuple[msgspec.json.Decoder[Any], ...] = (_customer, _media, _repository)
    record: Customer | Media | Repository = _decode(name, data, decoders[name.count(".")])
    return record


def _read(handle: db.DB, txn: db.DBTxn, name: str, decoder: msgspec.json.Decoder[T]) -> T | None:
    data = handle.get(name.encode(), None, txn)
    return None if data is None else _decode(name, data, decoder)


def _decode(name: str, data: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    try:
        return decoder.decode(data)
    except msgspec.DecodeError as error:
        raise CatalogError(
            f"record {shown(name)} of the catalog cannot be read: {error}",
            code="RECORD",
            hint="this server did not write it; see what did with db5.3_dump -p.",
        ) from error


def _found(kind: str, name: str, record: T | None) -> T:
    if record is None:
        raise CatalogError(
            f"{kind} {name} does not exist",
            code="NOTFOUND",
            hint=f"add it first, or list those of {media_of(name) or 'the server'}.",
        )
    return record


def difference(
    before: Mapping[str, Any], after: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Give what history tells of a change: those facts of `custody_of` that differ."""
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return (
        {name: before[name] for name in names if name in before},
        {name: after[name] for name in names if name in after},
    )
