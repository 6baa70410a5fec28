"""The blocks of bulk transfer: how many there are in one, and what a native master hides there."""

from __future__ import annotations

import struct
import sys

from hypothesis import given
from hypothesis import strategies as st

from replication import bulk
from replication.messages import RepType
from tests.support.links import control

MEMBERSHIP = (200).to_bytes(4, sys.byteorder)
COMMIT = (10).to_bytes(4, sys.byteorder)


def block(*records: bytes) -> bytes:
    return b"".join(
        struct.pack(">4I", len(record), 1, 28 + number, len(record)) + record
        for number, record in enumerate(records)
    )


def announces(rec: bytes) -> bool:
    return bulk.announces_membership_change(control(RepType.BULK_LOG), rec)


@given(st.lists(st.binary(max_size=50), max_size=20))
def test_all_entries_are_found(records: list[bytes]) -> None:
    whole = block(*records)
    assert [whole[at : at + size] for at, size in bulk.entries(whole)] == records
    assert bulk.count(whole) == len(records)


@given(st.binary(max_size=200))
def test_whatever_comes_is_read_without_an_error(data: bytes) -> None:
    assert bulk.count(data) <= len(data) // 16 + 1
    announces(data)


def test_a_block_that_is_cut_off_ends_there() -> None:
    assert bulk.count(block(b"one", b"two")[:-1]) == 1


def test_a_change_of_membership_is_found_among_other_records() -> None:
    assert announces(block(COMMIT, MEMBERSHIP + b"more", COMMIT))
    assert not announces(block(COMMIT, COMMIT))
    # The same bytes elsewhere are no record of that type.
    assert not announces(block(COMMIT + MEMBERSHIP))


def test_a_single_record_is_looked_at_as_before() -> None:
    for rec, found in ((MEMBERSHIP + b"more", True), (COMMIT + MEMBERSHIP, False)):
        assert bulk.announces_membership_change(control(RepType.LOG), rec) is found
