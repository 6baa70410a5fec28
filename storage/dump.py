"""A database's keys and values in a plain file, to be compared with it later.

The file holds each pair in the order of the keys: the lengths of both, then both. It is written and
read as a stream, so its size is a matter of the disk alone.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from berkeleydb import db

from storage.ledger import new_file

Pair = tuple[bytes, bytes]
Difference = tuple[bytes, "bytes | None", "bytes | None"]  # key, value in the file, value now

_LENGTHS: Final = struct.Struct("<II")
BUFFER_BYTES: Final = 2**20
DIGEST_BYTES: Final = 16


class TooBig(Exception):
    """The database is bigger than what may be set aside for it."""


def digest(value: bytes) -> bytes:
    """Stand for a value that must not be written down."""
    return hashlib.blake2b(value, digest_size=DIGEST_BYTES).digest()


def write(
    pairs: Iterator[Pair], path: Path, bytes_max: int, shown: Callable[[bytes], bytes] = bytes
) -> int:
    """Write all of a database into a file; returns its size.

    Args:
        pairs: its keys and values; nobody changes it meanwhile.
        path: of the file.
        bytes_max: the most it may come to.
        shown: what is written for a value.

    Raises:
        TooBig: it would be longer; there is no file then.
        OSError: the disk refused.
    """
    size = 0
    with new_file(path) as file:
        for key, value in pairs:
            kept = shown(value)
            size += _LENGTHS.size + len(key) + len(kept)
            if size > bytes_max:
                raise TooBig(f"more than {bytes_max} bytes")
            file.write(_LENGTHS.pack(len(key), len(kept)) + key + kept)
    return size


def walk(handle: db.DB) -> Iterator[Pair]:
    """Give all keys and values in their order. *Thread:* one of the environment's."""
    cursor = handle.cursor()
    try:
        item = cursor.first()
        while item is not None:
            yield item
            item = cursor.next()
    finally:
        cursor.close()


def read(path: Path) -> Iterator[Pair]:
    """Give what `write` wrote."""
    with path.open("rb", buffering=BUFFER_BYTES) as file:
        while lengths := file.read(_LENGTHS.size):
            key_bytes, value_bytes = _LENGTHS.unpack(lengths)
            yield _exactly(file, key_bytes), _exactly(file, value_bytes)


def _exactly(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    assert len(data) == size, "the file took its name only when it was whole"
    return data


def differences(then: Iterator[Pair], now: Iterator[Pair]) -> Iterator[Difference]:
    """Compare two sorted streams of keys and values."""
    old, new = next(then, None), next(now, None)
    while old is not None or new is not None:
        if new is None or (old is not None and old[0] < new[0]):
            assert old is not None, "one of the two is there"
            yield old[0], old[1], None
            old = next(then, None)
        elif old is None or new[0] < old[0]:
            yield new[0], None, new[1]
            new = next(now, None)
        else:
            if old[1] != new[1]:
                yield old[0], old[1], new[1]
            old, new = next(then, None), next(now, None)
