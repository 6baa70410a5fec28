"""The blocks that bulk transfer puts log records and pages into (no input or output).

    block   entries up to its end
    entry   length, LSN (file, offset), length again (u32 each), then the record or page

Source: the library's replication message formats, version 7 (BULK_LOG, BULK_PAGE).
"""

import struct
import sys
from collections.abc import Iterator
from typing import Final

from replication.messages import LOG_RECORD_MEMBERSHIP, RepType

_ENTRY: Final = struct.Struct(">4I")
_BULK_LOG: Final = int(RepType.BULK_LOG)
_MEMBERSHIP: Final = LOG_RECORD_MEMBERSHIP.to_bytes(4, sys.byteorder)


def entries(block: bytes) -> Iterator[tuple[int, int]]:
    """Yield where each entry's contents begin and how long they are; ends where it is damaged."""
    at, end = 0, len(block)
    while at + _ENTRY.size <= end:
        size = _ENTRY.unpack_from(block, at)[3]
        at += _ENTRY.size
        if at + size > end:
            return
        yield at, size
        at += size


def count(block: bytes) -> int:
    """How many records or pages there are."""
    return sum(1 for _ in entries(block))


def announces_membership_change(control: bytes, rec: bytes) -> bool:
    """Tell whether a native master announces a new site list in this log record, or block of them.

    The record is inside the transaction: read the membership database again only after the
    transaction's permanent message was applied.

    Args:
        control: the control part of a LOG or BULK_LOG message.
        rec: its other part.
    """
    if control[19] != _BULK_LOG:
        return rec.startswith(_MEMBERSHIP)
    if _MEMBERSHIP not in rec:
        return False  # the usual case, and quick
    return any(rec[at : at + min(size, 4)] == _MEMBERSHIP for at, size in entries(rec))
