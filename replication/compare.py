"""Are the sites identical: what is compared, how it travels, and what follows from it (no I/O).

    master                                     each replicant
    BEGIN -----------------------------------> may it be compared? which databases are there?
                          <------------------- ANSWER
    finds the end of the next range
    PREPARE ---------------------------------> opens the database, reads the range into its cache
                          <------------------- ANSWER
    commits a marker: this names the LSN
    AT (LSN, range) -------------------------> goes through the log up to that LSN, stops there,
    digests the range,                         digests the range, goes on
    goes on
                          <------------------- DIGEST
    ...
    END -------------------------------------> closes the databases

AT travels on the replicant's link behind the marker's own records and before those of any later
write, so nobody has to stop for a position that is already behind. A replicant that finds itself
further all the same (a checkpoint's record, records it had to ask for again) says so, and the range
is digested again at a later LSN.

A database is an ordered set of records. Where a key may have several values these are ordered as
well; so a place in it is a pair (key, value), the value empty where a key has only one.

All numbers are big-endian; bytes are counted by a u32 before them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import Final, NamedTuple, TypeAlias

from replication.errors import RemoteProtocolError
from replication.wire import LSN

PAUSE_S_MAX: Final = 0.020  # a range is digested in less, or a smaller one is taken
KEYS_FIRST: Final = 256
KEYS_MAX: Final = 8192
# From here on the records themselves are told, so that the first that differs has a name.
KEYS_DETAIL: Final = 64
RANGE_BYTES_MAX: Final = 1024 * 1024
PLACE_BYTES_MAX: Final = 64 * 1024  # a longer key or value is no end of a range
KEY_TOLD_BYTES_MAX: Final = 1024
DIGEST_BYTES: Final = 16
DATABASES_MAX: Final = 4096
_GROW_BELOW: Final = 0.3  # of the longest pause: then the next range is twice as large

Place: TypeAlias = tuple[bytes, bytes]
FIRST: Final[Place] = (b"", b"")


class Database(NamedTuple):
    """A database by its file and, where a file holds several, its name there."""

    file: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.file} ({self.name})" if self.name else self.file


class KeyRange(NamedTuple):
    """Records from `start` on and before `end`; None is the end of the database."""

    database: Database
    start: Place
    end: Place | None


class Outcome(IntEnum):
    """How a digest ended."""

    DONE = 1
    PASSED = 2  # this site is past the LSN already
    SLOW = 3  # it would have taken longer than the pause may
    MISSING = 4  # there is no such database
    FAILED = 5  # the library refused


class Entry(NamedTuple):
    """One record, told by its digests.

    Args:
        key: its first bytes, to show and to order.
        key_digest: of the whole key.
        value_digest: of the value.
    """

    key: bytes
    key_digest: bytes
    value_digest: bytes


class Digest(NamedTuple):
    """What one site found in a range at an LSN.

    Args:
        records: how many there are.
        whole: of all records, empty where entries are told.
        entries: the first records, where they were asked for.
        complete: entries are all there is in the range.
        pause_us: how long this site stood still for it.
        text: why it failed.
    """

    outcome: Outcome
    records: int = 0
    whole: bytes = b""
    entries: tuple[Entry, ...] = ()
    complete: bool = True
    pause_us: int = 0
    text: str = ""


class At(NamedTuple):
    """Digest this range at this LSN.

    Args:
        detail: tell the records.
        pause_us_max: do not stand still for longer.
    """

    number: int
    generation: int
    lsn: LSN
    detail: bool
    pause_us_max: int
    range: KeyRange


class Answer(NamedTuple):
    """A replicant's answer to BEGIN and PREPARE.

    Args:
        refusal: why it cannot, empty when it can.
        databases: those it has, to BEGIN.
    """

    number: int
    refusal: str = ""
    databases: tuple[Database, ...] = ()


# -- what follows from two digests ---------------------------------------------------------------


class Difference(NamedTuple):
    """The first difference of two sites in a range.

    Args:
        key: its first bytes; None when only the range is known.
        what: in words.
    """

    key: bytes | None
    what: str


class Verdict(NamedTuple):
    """What two digests of one range and one LSN say.

    Args:
        identical: as far as both looked.
        records: they are known to be identical in so many of their first records.
        everything: those are all of the range.
        difference: the first one, where it is known.
    """

    identical: bool
    records: int
    everything: bool
    difference: Difference | None = None


def judge(mine: Digest, theirs: Digest) -> Verdict:
    """Compare the digests of two sites, both DONE."""
    if mine.whole or theirs.whole:
        same = (mine.whole, mine.records) == (theirs.whole, theirs.records)
        return Verdict(same, mine.records if same else 0, everything=same)
    for at, (own, other) in enumerate(zip(mine.entries, theirs.entries, strict=False)):
        if own != other:
            return Verdict(False, at, everything=False, difference=_different(own, other))
    known, there = len(mine.entries), len(theirs.entries)
    if known > there and theirs.complete:
        missing = Difference(mine.entries[there].key, "is missing there")
        return Verdict(False, there, everything=False, difference=missing)
    if there > known and mine.complete:
        extra = Difference(theirs.entries[known].key, "is there and not on the master")
        return Verdict(False, known, everything=False, difference=extra)
    everything = mine.complete and theirs.complete
    return Verdict(True, min(known, there), everything=everything)


def _different(own: Entry, other: Entry) -> Difference:
    if own.key_digest == other.key_digest:
        return Difference(own.key, "has another value there")
    if own.key <= other.key:
        return Difference(own.key, "is missing there")
    return Difference(other.key, "is there and not on the master")


class Pace:
    """How many records the next range takes: as many as the pause allows, few around a difference.

    Args:
        pause_s_max: longest pause of one site for one range.
        keys_first: how many are tried first.
    """

    def __init__(self, pause_s_max: float = PAUSE_S_MAX, keys_first: int = KEYS_FIRST) -> None:
        self._pause_s_max = pause_s_max
        self.keys = max(KEYS_DETAIL, keys_first)

    @property
    def detail(self) -> bool:
        """The records themselves are to be told."""
        return self.keys <= KEYS_DETAIL

    def narrow(self) -> None:
        """It took too long, or differs: look at less."""
        self.keys = max(KEYS_DETAIL, self.keys // 4)

    def done(self, longest_s: float, keys: int) -> None:
        """A range was identical; a small end of a database says nothing about the pace."""
        if longest_s < _GROW_BELOW * self._pause_s_max and keys >= self.keys // 2:
            self.keys = min(KEYS_MAX, 2 * self.keys)


# -- bodies --------------------------------------------------------------------------------------

_U32: Final = struct.Struct(">I")
_AT: Final = struct.Struct(">IIIIBI")
_DIGEST: Final = struct.Struct(">IBIBI")


def encode_begin(number: int) -> bytes:
    """Encode the body of COMPARE_BEGIN and COMPARE_END."""
    return _U32.pack(number)


def decode_begin(body: bytes) -> int:
    """Decode the body of COMPARE_BEGIN and COMPARE_END."""
    reader = _Reader(body)
    number = reader.number()
    reader.end()
    return number


def encode_prepare(number: int, wanted: KeyRange) -> bytes:
    """Encode the body of COMPARE_PREPARE."""
    return _U32.pack(number) + _range(wanted)


def decode_prepare(body: bytes) -> tuple[int, KeyRange]:
    """Decode the body of COMPARE_PREPARE."""
    reader = _Reader(body)
    number, wanted = reader.number(), reader.range()
    reader.end()
    return number, wanted


def encode_answer(answer: Answer) -> bytes:
    """Encode the body of COMPARE_ANSWER."""
    databases = b"".join(_text(d.file) + _text(d.name) for d in answer.databases)
    count = _U32.pack(len(answer.databases))
    return _U32.pack(answer.number) + _text(answer.refusal) + count + databases


def decode_answer(body: bytes) -> Answer:
    """Decode the body of COMPARE_ANSWER."""
    reader = _Reader(body)
    number, refusal, count = reader.number(), reader.text(), reader.number()
    if count > DATABASES_MAX:
        raise _malformed(f"{count} databases")
    databases = tuple(Database(reader.text(), reader.text()) for _ in range(count))
    reader.end()
    return Answer(number, refusal, databases)


def encode_at(at: At) -> bytes:
    """Encode the body of COMPARE_AT."""
    head = _AT.pack(
        at.number, at.generation, at.lsn.file, at.lsn.offset, int(at.detail), at.pause_us_max
    )
    return head + _range(at.range)


def decode_at(body: bytes) -> At:
    """Decode the body of COMPARE_AT."""
    reader = _Reader(body)
    number, generation, file, offset, detail, pause_us = reader.struct(_AT)
    wanted = reader.range()
    reader.end()
    return At(number, generation, LSN(file, offset), bool(detail), pause_us, wanted)


def encode_digest(number: int, digest: Digest) -> bytes:
    """Encode the body of COMPARE_DIGEST."""
    head = _DIGEST.pack(
        number, digest.outcome, digest.records, int(digest.complete), digest.pause_us
    )
    entries = b"".join(
        _bytes(entry.key) + _bytes(entry.key_digest) + _bytes(entry.value_digest)
        for entry in digest.entries
    )
    count = _U32.pack(len(digest.entries))
    return head + _bytes(digest.whole) + _text(digest.text) + count + entries


def decode_digest(body: bytes) -> tuple[int, Digest]:
    """Decode the body of COMPARE_DIGEST."""
    reader = _Reader(body)
    number, outcome, count, complete, pause_us = reader.struct(_DIGEST)
    if outcome not in frozenset(Outcome):
        raise _malformed(f"outcome {outcome}")
    whole, text, told = reader.bytes(), reader.text(), reader.number()
    if told > KEYS_DETAIL + 1:
        raise _malformed(f"{told} records")
    entries = tuple(Entry(reader.bytes(), reader.bytes(), reader.bytes()) for _ in range(told))
    reader.end()
    found = Digest(Outcome(outcome), count, whole, entries, bool(complete), pause_us, text)
    return number, found


def _bytes(value: bytes) -> bytes:
    return _U32.pack(len(value)) + value


def _text(value: str) -> bytes:
    return _bytes(value.encode("utf-8", "surrogateescape"))


def _range(wanted: KeyRange) -> bytes:
    end = wanted.end
    return b"".join(
        (
            _text(wanted.database.file),
            _text(wanted.database.name),
            *map(_bytes, wanted.start),
            _U32.pack(end is not None),
            *map(_bytes, end if end is not None else FIRST),
        )
    )


class _Reader:
    """Reads a body from its beginning; whatever is wrong with it is one error."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def struct(self, shape: struct.Struct) -> Sequence[int]:
        if len(self._body) - self._at < shape.size:
            raise _malformed(f"{len(self._body)} bytes")
        found = shape.unpack_from(self._body, self._at)
        self._at += shape.size
        return found

    def number(self) -> int:
        return self.struct(_U32)[0]

    def bytes(self) -> bytes:
        size = self.number()
        if size > len(self._body) - self._at:
            raise _malformed(f"a part of {size} bytes")
        self._at += size
        return self._body[self._at - size : self._at]

    def text(self) -> str:
        return self.bytes().decode("utf-8", "surrogateescape")

    def range(self) -> KeyRange:
        database = Database(self.text(), self.text())
        start = (self.bytes(), self.bytes())
        ends, end = self.number(), (self.bytes(), self.bytes())
        return KeyRange(database, start, end if ends else None)

    def end(self) -> None:
        if self._at != len(self._body):
            raise _malformed(f"{len(self._body) - self._at} bytes too many")


def _malformed(what: str) -> RemoteProtocolError:
    return RemoteProtocolError(
        f"comparison message refused: {what} make no sense",
        code="malformed_body",
        hint="run the same version of ttserver on all sites",
        what=what,
    )
