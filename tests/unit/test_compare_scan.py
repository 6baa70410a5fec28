"""Ranges of real databases: they tile it, digests see the records alone, and stops are short."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from berkeleydb import db

from replication.compare import (
    FIRST,
    KEYS_DETAIL,
    PLACE_BYTES_MAX,
    Database,
    Digest,
    KeyRange,
    Outcome,
    Place,
    judge,
)
from replication.compare_scan import (
    Handles,
    behind,
    find_databases,
    has_many_values,
    read_meta,
)

FLAGS = (
    db.DB_CREATE
    | db.DB_INIT_LOCK
    | db.DB_INIT_LOG
    | db.DB_INIT_MPOOL
    | db.DB_INIT_TXN
    | db.DB_PRIVATE
    | db.DB_THREAD
)
PATIENT_S = 60.0
KEYS = Database("keys.db")
MANY = Database("several.db", "many")


class Site:
    """An environment and the databases made in it."""

    def __init__(self, home: Path) -> None:
        home.mkdir()
        self.home = home
        self.env = db.DBEnv()
        self.env.open(str(home), FLAGS)
        self.handles = Handles(self.env)
        self._made: list[db.DB] = []

    def make(
        self, database: Database, kind: int = db.DB_BTREE, flags: int = 0, page_bytes: int = 512
    ) -> db.DB:
        made = db.DB(self.env)
        made.set_flags(flags)
        made.set_pagesize(page_bytes)
        made.open(
            database.file,
            dbname=database.name or None,
            dbtype=kind,
            flags=db.DB_CREATE | db.DB_AUTO_COMMIT,
        )
        self._made.append(made)
        return made

    def close(self) -> None:
        self.handles.close()
        for made in self._made:
            made.close()
        self.env.close()


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Site, Site]]:
    made = Site(tmp_path / "one"), Site(tmp_path / "two")
    yield made
    for site in made:
        site.close()


def walk(
    site: Site, database: Database, keys: int, *, detail: bool = False
) -> list[tuple[KeyRange, Digest]]:
    """Go through a database in ranges of so many records."""
    found = []
    start: Place | None = FIRST
    while start is not None:
        ahead = site.handles.look_ahead(database, start, keys, 2**30)
        wanted = KeyRange(database, start, ahead.end)
        digest = site.handles.digest(wanted, detail=detail, pause_s_max=PATIENT_S).digest
        assert digest.records == ahead.keys
        found.append((wanted, digest))
        start = ahead.end
    return found


def digest(site: Site, wanted: KeyRange, *, detail: bool = False, pause_s: float = 60.0) -> Digest:
    site.handles.open(wanted.database)
    return site.handles.digest(wanted, detail=detail, pause_s_max=pause_s).digest


@pytest.mark.parametrize("keys", [1, 3, 7, 1000])
@pytest.mark.parametrize("detail", [False, True], ids=["whole", "told"])
def test_ranges_tile_a_database_and_are_the_same_in_any_layout(
    two: tuple[Site, Site], keys: int, detail: bool
) -> None:
    records = {b"%d" % n: b"v" * (n % 50) for n in range(50)} | {
        b"": b"empty",
        b"\0": b"",
        b"z": b"",
    }
    order = list(records)
    for site, seed, page_bytes in zip(two, (1, 2), (512, 8192), strict=True):
        made = site.make(KEYS, page_bytes=page_bytes)
        random.Random(seed).shuffle(order)
        for key in order:
            made.put(key, records[key])
    found = walk(two[0], KEYS, keys, detail=detail)
    assert sum(one.records for _, one in found) == len(records)
    for wanted, mine in found:
        theirs = digest(two[1], wanted, detail=detail)
        verdict = judge(mine, theirs)
        assert (verdict.identical, verdict.everything) == (True, True)


@pytest.mark.parametrize("keys", [1, 4, 1000])
def test_keys_with_many_values_are_cut_between_them(two: tuple[Site, Site], keys: int) -> None:
    for site in two:
        made = site.make(MANY, flags=db.DB_DUPSORT)
        for key in range(4):
            for value in range(9):
                made.put(b"k%d" % key, b"v%d" % value)
    found = walk(two[0], MANY, keys)
    assert sum(one.records for _, one in found) == 36
    for wanted, mine in found:
        assert judge(mine, digest(two[1], wanted)).identical
    # A value that is missing between the end of one range and the beginning of the next.
    handle = two[1].handles.open(MANY)
    assert has_many_values(handle)
    gone = db.DB(two[1].env)
    gone.open(MANY.file, dbname=MANY.name, dbtype=db.DB_BTREE, flags=db.DB_AUTO_COMMIT)
    cursor_txn = two[1].env.txn_begin()
    cursor = gone.cursor(cursor_txn)
    assert cursor.get_both(b"k2", b"v4") is not None
    cursor.delete()
    cursor.close()
    cursor_txn.commit()
    gone.close()
    differing = [w for w, mine in found if not judge(mine, digest(two[1], w)).identical]
    (only,) = differing
    assert only.start <= (b"k2", b"v4")
    assert only.end is None or only.end > (b"k2", b"v4")
    behind_it = digest(two[1], KeyRange(MANY, (b"k2", b"v4"), (b"k2", b"v7")))
    assert behind_it.records == 2
    past_all_values = digest(two[1], KeyRange(MANY, (b"k2", b"x"), None))
    assert past_all_values.records == 9


def test_places_behind_a_record() -> None:
    assert behind((b"k", b"v"), many_values=False) == (b"k\0", b"")
    assert behind((b"k", b"v"), many_values=True) == (b"k", b"v\0")


def test_a_stop_that_would_take_too_long_is_broken_off(two: tuple[Site, Site]) -> None:
    made = two[0].make(KEYS)
    for number in range(200):
        made.put(b"%06d" % number, b"v")
    everything = KeyRange(KEYS, FIRST, None)
    assert digest(two[0], everything, pause_s=-1.0).outcome is Outcome.SLOW
    # Told record by record it gets on, by one at least.
    told = digest(two[0], everything, detail=True, pause_s=-1.0)
    assert (told.outcome, told.records, told.complete) == (Outcome.DONE, 1, False)
    told = digest(two[0], everything, detail=True)
    assert (told.records, told.complete) == (KEYS_DETAIL + 1, False)


def test_a_range_is_bounded_in_bytes_and_ends_at_no_giant(two: tuple[Site, Site]) -> None:
    made = two[0].make(KEYS, page_bytes=4096)
    giant = b"b" * (PLACE_BYTES_MAX + 1)
    for key in (b"a", giant, b"c", b"d"):
        made.put(key, b"v" * 100)
    handles = two[0].handles
    assert handles.look_ahead(KEYS, FIRST, 1, 2**30).end == (b"c", b"")
    assert handles.look_ahead(KEYS, (b"c", b""), 1000, 50).end == (b"d", b"")
    told = digest(two[0], KeyRange(KEYS, FIRST, None), detail=True)
    assert [len(entry.key) for entry in told.entries] == [1, 1024, 1, 1]


def test_a_writer_that_holds_a_page_is_waited_for_or_passed(two: tuple[Site, Site]) -> None:
    made = two[0].make(KEYS)
    made.put(b"k", b"v")
    two[0].handles.open(KEYS)
    txn = two[0].env.txn_begin()
    made.put(b"k", b"w", txn)
    # Whoever stopped for it must not wait for a lock.
    assert digest(two[0], KeyRange(KEYS, FIRST, None)).outcome is Outcome.PASSED
    txn.abort()
    assert digest(two[0], KeyRange(KEYS, FIRST, None)).records == 1


def test_what_was_not_opened_is_missing(two: tuple[Site, Site]) -> None:
    wanted = KeyRange(KEYS, FIRST, None)
    with pytest.raises(db.DBNoSuchFileError):
        two[0].handles.warm(wanted, 10, 10)
    found = two[0].handles.digest(wanted, detail=False, pause_s_max=PATIENT_S)
    assert found.digest.outcome is Outcome.MISSING
    two[0].make(KEYS)
    two[0].handles.warm(wanted, 10, 10)
    assert two[0].handles.digest(wanted, detail=False, pause_s_max=PATIENT_S).digest.records == 0


def test_databases_are_found_and_those_without_order_are_named(two: tuple[Site, Site]) -> None:
    site = two[0]
    site.make(KEYS)
    site.make(MANY, flags=db.DB_DUPSORT)
    site.make(Database("several.db", "other"))
    site.make(Database("unsorted.db"), flags=db.DB_DUP)
    site.make(Database("hash.db"), db.DB_HASH)
    site.make(Database("several.db", "hashed"), db.DB_HASH)
    (site.home / "$DB_Msg.txt").write_text("the journal " * 20)
    (site.home / "short").write_bytes(b"x")
    elsewhere = site.home / "data"
    elsewhere.mkdir()
    found = find_databases(site.env, site.handles)
    assert found.databases == (KEYS, MANY, Database("several.db", "other"))
    assert dict(found.left_out) == {
        "hash.db": "it is a hash database, whose records have no order",
        "several.db (hashed)": "it is no btree",
        "unsorted.db": "the values of its keys have no order",
    }
    assert found.bytes > 0
    assert read_meta(site.home / "short") is None
    assert read_meta(site.home / "none") is None
