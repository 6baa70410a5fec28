"""What the logical tail's files hold, and how they are read again (see `storage.tail`).

A file begins with `HEADER`: a magic word and the file's number in the order of writing. Behind it
stand records, each with its length and a checksum that covers the file's number as well. So what
an earlier use of the same blocks left behind, or a loss of power tore, ends the reading of a file
and is taken for nothing else.
"""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

log = logging.getLogger(__name__)

Lsn = tuple[int, int]
Change = tuple[str, bytes, bytes | None]  # file, key, new value or None for a key removed
Author = tuple[str, int]  # user, and how many changes there are up to the end of that user's write

SUFFIX: Final = ".tail"
MAGIC: Final = b"TTTAIL1\n"
HEADER: Final = struct.Struct("<8sQ")
RECORD: Final = struct.Struct("<II")


class CommitRecord(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """One transaction, written down before it was committed.

    Args:
        txn_id: the library's number of it, as its commit record in the log has it.
        behind: an LSN of earlier; transaction numbers are used again after a recovery.
        time_s: seconds since 1970.
        authors: one of each client's write that changed something, in order.
        changes: what they changed, in order.
    """

    txn_id: int
    behind: Lsn
    time_s: float
    authors: list[Author]
    changes: list[Change]


class OwnRecord(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """A permanent log record of the server itself: a checkpoint, the membership, a new file."""

    lsn: Lsn


Record = CommitRecord | OwnRecord
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)


def encode(record: Record, seed: int) -> bytes:
    """Make a record's bytes for a file whose header's checksum is `seed`."""
    body = _encoder.encode(record)
    return RECORD.pack(len(body), zlib.crc32(body, seed)) + body


def header(number: int) -> bytes:
    """Make a file's first bytes."""
    return HEADER.pack(MAGIC, number)


@dataclass(frozen=True, slots=True)
class TailFile:
    """A file of the tail, as it was found."""

    path: Path
    number: int
    size_bytes: int


def find(directory: Path) -> list[TailFile]:
    """Find the files of a tail, in the order they were written; what is no such file is left."""
    found = []
    for path in sorted(directory.glob(f"*{SUFFIX}")):
        try:
            with path.open("rb") as file:
                head = file.read(HEADER.size)
            size = path.stat().st_size
        except OSError as error:
            log.warning("tail_file_not_read path=%s error=%s", path, error)
            continue
        if len(head) == HEADER.size and head.startswith(MAGIC):
            found.append(TailFile(path, HEADER.unpack(head)[1], size))
    return sorted(found, key=lambda each: each.number)


def read(directory: Path) -> Iterator[Record]:
    """Read all whole records, in the order they were written. Blocks."""
    for each in find(directory):
        try:
            data = memoryview(each.path.read_bytes())
        except OSError as error:
            log.warning("tail_file_not_read path=%s error=%s", each.path, error)
            continue
        yield from read_one(data)


def read_one(data: memoryview) -> Iterator[Record]:
    """Read the whole records of one file's bytes."""
    seed, at = zlib.crc32(data[: HEADER.size]), HEADER.size
    while at + RECORD.size <= len(data):
        length, checksum = RECORD.unpack_from(data, at)
        at += RECORD.size
        body = data[at : at + length]
        if not length or len(body) < length or zlib.crc32(body, seed) != checksum:
            return
        try:
            yield _decoder.decode(body)
        except msgspec.DecodeError as error:
            log.warning("tail_record_not_read error=%s", error)  # of a later version
            return
        at += length
