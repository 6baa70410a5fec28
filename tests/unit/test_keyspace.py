"""The keyspace at its edges: empty keys, missing keys, ends, both directions, deletions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from berkeleydb import db

from storage.count import count_if_quiet
from storage.keyspace import LOOP_VALUE_BYTES_MAX, PACE_KEYS, Keyspace
from storage.reads import WouldBlock
from tests.support.environments import Open, Opened, environments, fast

__all__ = ["environments", "fast"]

KEYS = (b"", b"\0", b"\0\0", b"a", b"a\0", b"aa", b"ab", b"b", b"\xfe\xff", b"\xff", b"\xff\xff")


@pytest.fixture
def opened(environments: Open) -> Opened:
    return environments()


@pytest.fixture
def full(opened: Opened) -> Opened:
    with opened.txn() as txn:
        for key in KEYS:
            opened.keyspace.put(txn, key, b"<" + key + b">")
    return opened


@pytest.fixture
def txn(opened: Opened) -> Iterator[db.DBTxn]:
    txn = opened.env.txn_begin()
    yield txn
    txn.abort()


def test_a_missing_key_is_no_error(opened: Opened, txn: db.DBTxn) -> None:
    keyspace = opened.keyspace
    for _ in range(2):
        assert keyspace.get(txn, b"missing") is None
        assert keyspace.exists(txn, b"missing") is False
        assert keyspace.length(txn, b"missing") == 0
        assert keyspace.delete(txn, b"missing") is False
        assert keyspace.keys(txn, None, 10) == []
        assert keyspace.range(txn, None, None, limit=10) == []
        assert keyspace.range(txn, None, None, limit=10, reverse=True) == []
        assert keyspace.count(txn, None, 10) == (0, None)
        keyspace.put(txn, b"other", b"")
        keyspace.delete(txn, b"other")


def test_an_empty_value_is_a_value(opened: Opened, txn: db.DBTxn) -> None:
    opened.keyspace.put(txn, b"key", b"")
    assert opened.keyspace.get(txn, b"key") == b""
    assert opened.keyspace.exists(txn, b"key") is True
    assert opened.keyspace.length(txn, b"key") == 0
    assert opened.keyspace.delete(txn, b"key") is True
    assert opened.keyspace.exists(txn, b"key") is False


@pytest.mark.parametrize("key", KEYS)
def test_any_bytes_are_a_key(full: Opened, txn: db.DBTxn, key: bytes) -> None:
    assert full.keyspace.get(txn, key) == b"<" + key + b">"
    assert full.keyspace.length(txn, key) == len(key) + 2
    full.keyspace.put(txn, key, b"\0new\xff")
    assert full.keyspace.get(txn, key) == b"\0new\xff"
    assert full.keyspace.delete(txn, key)
    assert full.keyspace.keys(txn, None, 100) == [each for each in KEYS if each != key]


def test_a_touch_is_logged_and_changes_nothing(full: Opened) -> None:
    before = full.environment.log_end()
    with full.txn() as txn:
        records = full.keyspace.range(txn, None, None, limit=100)
        assert full.keyspace.touch(txn, 100, 1)
        assert full.keyspace.range(txn, None, None, limit=100) == records
        assert not full.keyspace.touch(txn, 1, 100), "all are longer"
    assert full.environment.log_end() > before


@pytest.mark.parametrize("after", [None, *KEYS, b"\0\0\0", b"aaa", b"\xff\xff\xff"])
@pytest.mark.parametrize("limit", [0, 1, 3, 100])
def test_keys_behind_a_key(full: Opened, txn: db.DBTxn, after: bytes | None, limit: int) -> None:
    expected = [key for key in KEYS if after is None or key > after]
    assert full.keyspace.keys(txn, after, limit) == expected[:limit]
    if limit:
        last = expected[limit - 1] if len(expected) >= limit else None
        assert full.keyspace.count(txn, after, limit) == (min(limit, len(expected)), last)


def test_the_places_around_an_end(full: Opened, txn: db.DBTxn) -> None:
    """After a search that found nothing the cursor stands nowhere: `next` would begin anew."""
    keyspace = full.keyspace
    assert keyspace.range(txn, b"\xff\xff\xff", None, limit=9) == []
    assert keyspace.range(txn, None, None, limit=9, after=b"\xff\xff") == []
    assert keyspace.range(txn, None, None, limit=9, after=b"\xff\xff\xff") == []
    assert keyspace.range(txn, None, None, limit=9, reverse=True, after=b"") == []
    assert keyspace.range(txn, b"b", b"a", limit=9) == []
    assert keyspace.range(txn, b"b", b"a", limit=9, reverse=True) == []
    last = keyspace.range(txn, None, b"\xff\xff\xff", limit=1, reverse=True)
    assert last == [(b"\xff\xff", b"<\xff\xff>")]
    assert keyspace.range(txn, b"", b"", limit=9) == [(b"", b"<>")]


def test_both_ends_are_included(full: Opened, txn: db.DBTxn) -> None:
    up = [key for key, _ in full.keyspace.range(txn, b"a", b"b", limit=100)]
    down = [key for key, _ in full.keyspace.range(txn, b"a", b"b", limit=100, reverse=True)]
    assert up == [b"a", b"a\0", b"aa", b"ab", b"b"]
    assert down == up[::-1]


def test_a_walk_goes_on_behind_what_was_deleted_under_it(full: Opened, txn: db.DBTxn) -> None:
    keyspace, walked, after = full.keyspace, [], None
    while keys := keyspace.keys(txn, after, 2):
        walked += keys
        after = keys[-1]
        for key in keys:
            assert keyspace.delete(txn, key)
    assert walked == list(KEYS)
    assert keyspace.keys(txn, None, 100) == []


def test_a_deletion_under_an_open_cursor_harms_nobody(full: Opened, txn: db.DBTxn) -> None:
    cursor = full.database.handle().cursor(txn)
    assert cursor.set_range(b"a") == (b"a", b"<a>")
    full.keyspace.delete(txn, b"a")
    full.keyspace.delete(txn, b"a\0")
    assert cursor.next() == (b"aa", b"<aa>")
    cursor.close()


def test_a_walk_holds_no_lock_on_what_it_passed(opened: Opened) -> None:
    with opened.txn() as txn:
        for number in range(1000):
            opened.keyspace.put(txn, b"%04d" % number, b"x" * 100)
    with opened.txn() as reader:
        held = opened.env.lock_stat()["nlocks"]
        for reverse in (False, True):
            assert len(opened.keyspace.range(reader, None, None, limit=999, reverse=reverse)) == 999
        assert len(opened.keyspace.keys(reader, None, 999)) == 999
        assert opened.keyspace.count(reader, None, 999) == (999, b"0998")
        # At most the page that each walk came to an end on.
        assert opened.env.lock_stat()["nlocks"] - held <= 4
        for number in range(0, 1000, 100):
            opened.keyspace.get(reader, b"%04d" % number)
        assert opened.env.lock_stat()["nlocks"] - held > 8


def test_a_count_without_locks_is_only_believed_when_nobody_writes(opened: Opened) -> None:
    opened.put(*(b"%d" % number for number in range(300)))
    assert count_if_quiet(opened.environment, opened.keyspace) == 300
    writer = opened.lock(b"uncommitted")
    assert opened.keyspace.count_unlocked() == 301  # what makes it unfit for a busy database
    assert count_if_quiet(opened.environment, opened.keyspace) is None
    writer.abort()
    assert count_if_quiet(opened.environment, opened.keyspace) == 300


def test_a_count_is_not_believed_when_something_was_written_meanwhile(opened: Opened) -> None:
    class Slow(Keyspace):
        def count_unlocked(self, txn: db.DBTxn | None = None) -> int | None:
            number = super().count_unlocked(txn)
            opened.put(b"meanwhile")
            return number

    assert count_if_quiet(opened.environment, Slow(opened.database.handle)) is None


def test_every_step_looks_at_the_clock(full: Opened, txn: db.DBTxn) -> None:
    looks: list[db.DBTxn] = []

    def pace(of: db.DBTxn) -> bool:
        looks.append(of)
        return False

    keyspace = Keyspace(full.database.handle, pace)
    for number in range(10 * PACE_KEYS):
        keyspace.put(txn, b"many%05d" % number, b"")
    steps = (
        (1, lambda: keyspace.get(txn, b"a")),
        (1, lambda: keyspace.exists(txn, b"a")),
        (1, lambda: keyspace.length(txn, b"a")),
        (10, lambda: keyspace.keys(txn, b"many", 10 * PACE_KEYS)),
        (10, lambda: keyspace.count(txn, b"many", 10 * PACE_KEYS)),
        (10, lambda: keyspace.range(txn, b"many", None, limit=10)),
    )
    for expected, step in steps:
        looks.clear()
        step()
        assert looks == [txn] * expected


def test_a_long_value_is_no_business_of_the_loop(opened: Opened, txn: db.DBTxn) -> None:
    in_loop = Keyspace(opened.database.handle, lambda _: True)
    for length in (0, 1, LOOP_VALUE_BYTES_MAX):
        in_loop.put(txn, b"key", b"x" * length)
        assert in_loop.get(txn, b"key") == b"x" * length
    in_loop.put(txn, b"key", b"x" * (LOOP_VALUE_BYTES_MAX + 1))
    with pytest.raises(WouldBlock):
        in_loop.get(txn, b"key")
    assert in_loop.length(txn, b"key") == LOOP_VALUE_BYTES_MAX + 1
    assert len(opened.keyspace.get(txn, b"key") or b"") == LOOP_VALUE_BYTES_MAX + 1


def test_a_walk_that_is_broken_off_leaves_no_cursor_open(full: Opened) -> None:
    def pace(_txn: db.DBTxn) -> bool:
        raise WouldBlock

    keyspace = Keyspace(full.database.handle, pace)
    txn = full.env.txn_begin()
    with pytest.raises(WouldBlock):
        keyspace.range(txn, None, None, limit=9)
    with pytest.raises(WouldBlock):
        keyspace.keys(txn, None, 9)
    txn.commit()  # the library refuses to commit under an open cursor
