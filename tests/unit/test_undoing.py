"""From the log and the logical tail to a ledger, on a real environment that undoes nothing.

That the library undoes is tests/integration/test_rejoin.py's; here the database is changed back by
hand between the two steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from berkeleydb import db

from storage import dump
from storage.commit import Committer, Write
from storage.database import Database
from storage.doomed import Explained, commits_behind, is_there
from storage.errors import StorageError
from storage.ledger import Entry, Head, Ledgers, Outcome
from storage.tail import Tail
from storage.undoing import Stopped, TooMuch, Undoing
from storage.users import USERS_FILE, Users
from tests.support.environments import Open, Opened, environments, fast

__all__ = ["environments", "fast"]

PLENTY = 2**40
Work = Callable[["db.DBTxn"], object]


class NotAllowedError(Exception):
    """What a work refuses with, before it writes."""


class Site:
    """An environment whose committer keeps a tail."""

    def __init__(self, opened: Opened, directory: Path) -> None:
        self.opened = opened
        self.tail = Tail(
            directory / "tail", bytes_max=2**22, held_by_majority=lambda: (0, 0), file_bytes=2**16
        )
        self.tail.open(opened.environment.last_record())
        self.committer = Committer(
            opened.environment,
            opened.batches.append,
            refusals=(NotAllowedError,),
            look_up_lsn=True,
            tail=self.tail,
        )
        changes = opened.environment.changes
        self.keyspace = opened.keyspace
        self.keyspace.use(opened.database.handle, lambda _: False, changes.note, "keys.db")
        users = Database(opened.environment, USERS_FILE)
        self.users_database = users
        self.users = Users(users.handle, users.create, changes.note)
        self.ledgers = Ledgers(directory / "rollbacks")
        self.undoing = Undoing(
            opened.environment, ("keys.db", USERS_FILE), self.tail.directory, self.ledgers
        )

    def close(self) -> None:
        if self.opened.environment.is_open:
            self.opened.environment.stop_threads(30)
            self.users_database.close()
            self.undoing.close()
        self.tail.close()

    def put(self, key: bytes, value: bytes | None) -> Work:
        def work(txn: db.DBTxn) -> None:
            if value is None:
                self.keyspace.delete(txn, key)
            else:
                self.keyspace.put(txn, key, value)

        return work

    def commit(self, *works: Work, user: str = "user") -> None:
        self.opened.commit(self.committer, *[Write(work, user=user) for work in works])

    def write(self, key: bytes, value: bytes | None, user: str = "user") -> None:
        self.commit(self.put(key, value), user=user)

    def now(self) -> tuple[int, int]:
        return self.opened.environment.last_record()

    def head(self, sync_point: tuple[int, int], name: str = "ledger") -> Head:
        return Head(
            id=name,
            found="2026-11-23T07:01:02.123+00:00",
            site="192.0.2.1:5010",
            master="192.0.2.2:5010",
            generation=7,
            sync_point=sync_point,
            log_end=(0, 0),
            commits=0,
            unexplained=0,
        )

    def prepare(self, sync_point: tuple[int, int], **limits: int) -> Head:
        return self.undoing.prepare(
            self.head(sync_point), **{"writes_max": 1000, "keep_bytes_max": PLENTY, **limits}
        )

    def change_back(self, values: dict[bytes, bytes | None]) -> None:
        for key, value in values.items():
            with self.opened.txn() as txn:
                if value is None:
                    self.opened.database.handle().delete(key, txn)
                else:
                    self.opened.database.handle().put(key, value, txn)

    def settled(self) -> tuple[Head, list[Entry]]:
        head = self.undoing.settle()
        assert head is not None
        assert self.ledgers.head(head.id) == head
        return head, list(self.ledgers.entries(head.id))


@pytest.fixture
def site(environments: Open, fast: Path) -> Iterator[Site]:
    made = Site(environments(), fast)
    yield made
    made.close()


def plain(entries: Sequence[Entry]) -> list[tuple[int, bytes, bytes | None, bytes | None]]:
    return [(entry.write, entry.key, entry.before, entry.after) for entry in entries]


# -- what the tail knows of the log ----------------------------------------------------------------


def test_each_commit_is_explained_by_what_it_changed(site: Site) -> None:
    before = site.now()
    site.write(b"a", b"1", "alice")
    site.write(b"a", None, "bob")
    explained = Explained(site.tail.directory)
    writes = [w for c in commits_behind(site.opened.env, before) for w in explained.writes(c)]
    assert [(w.user, w.changes) for w in writes] == [
        ("alice", [("keys.db", b"a", b"1")]),
        ("bob", [("keys.db", b"a", None)]),
    ]
    assert (explained.own, explained.unexplained) == (0, 0)
    assert before < writes[0].lsn < writes[1].lsn == site.now()
    assert writes[0].time_s <= writes[1].time_s


def test_writes_of_one_commit_keep_their_users_and_failures_are_left_out(site: Site) -> None:
    def refuses(_txn: db.DBTxn) -> None:
        raise NotAllowedError

    def breaks(txn: db.DBTxn) -> None:
        site.keyspace.put(txn, b"broken", b"x")
        raise ValueError("a bug")

    before = site.now()
    works = [site.put(b"a", b"1"), refuses, breaks, lambda _: None, site.put(b"b", b"2")]
    writes = [Write(work, user=f"user{number}") for number, work in enumerate(works)]
    with site.committer._turn:
        site.committer._take_turn(writes)
    (commit,) = commits_behind(site.opened.env, before)
    found = Explained(site.tail.directory).writes(commit)
    assert [(w.user, [key for _, key, _ in w.changes]) for w in found] == [
        ("user0", [b"a"]),
        ("user4", [b"b"]),
    ]


def test_a_number_used_again_is_not_mistaken(environments: Open, fast: Path) -> None:
    """After a recovery the library counts its transactions from the beginning."""
    site = Site(environments(), fast)
    site.write(b"a", b"first")
    site.close()
    site.opened.close()
    site = Site(environments(create=False), fast)
    before = site.now()
    for number in range(5):
        site.write(b"a", b"%d" % number)
    explained = Explained(site.tail.directory)
    changes = [
        write.changes[0][2]
        for commit in commits_behind(site.opened.env, before)
        for write in explained.writes(commit)
    ]
    assert changes == [b"0", b"1", b"2", b"3", b"4"]
    site.close()


def test_the_servers_own_commits_are_known(site: Site) -> None:
    before = site.now()
    site.opened.put(b"own")
    site.tail.own(site.now())
    site.opened.put(b"anybody's")
    explained = Explained(site.tail.directory)
    assert [explained.writes(commit) for commit in commits_behind(site.opened.env, before)] == [
        [],
        [],
    ]
    assert (explained.own, explained.unexplained) == (1, 1)


def test_an_aborted_transaction_and_a_checkpoint_are_no_commits(site: Site) -> None:
    before = site.now()
    txn = site.opened.env.txn_begin()
    site.opened.keyspace.put(txn, b"x", b"y")
    txn.abort()
    site.opened.env.txn_checkpoint(0, 0, db.DB_FORCE)
    assert site.now() > before
    assert list(commits_behind(site.opened.env, before)) == []


def test_a_commit_is_there_as_long_as_the_log_holds_it(site: Site) -> None:
    before = site.now()
    site.write(b"a", b"1")
    (commit,) = commits_behind(site.opened.env, before)
    assert is_there(site.opened.env, commit)
    for wrong in ((commit.lsn[0], commit.lsn[1] + 1), (commit.lsn[0] + 1, 28), before):
        assert not is_there(site.opened.env, type(commit)(wrong, commit.txn_id, commit.time_s))
    assert not is_there(site.opened.env, type(commit)(commit.lsn, commit.txn_id + 1, 0))


# -- from there to the ledger ----------------------------------------------------------------------


def test_a_ledger_of_writes(site: Site) -> None:
    site.write(b"kept", b"1")
    site.write(b"removed", b"1")
    sync_point = site.now()
    site.write(b"kept", b"2", "alice")
    site.write(b"removed", None, "bob")
    site.commit(site.put(b"new", b""), user="alice")
    site.write(b"kept", b"3", "bob")
    head = site.prepare(sync_point)
    assert (head.commits, head.writes, head.unexplained) == (4, 4, 0)
    assert head.log_end == site.now()
    assert site.undoing.pending() == head
    assert not site.undoing.was_undone()
    site.change_back({b"kept": b"1", b"removed": b"1", b"new": None})
    written, entries = site.settled()
    assert plain(entries) == [
        (1, b"kept", b"1", b"2"),
        (2, b"removed", b"1", None),
        (3, b"new", None, b""),
        (4, b"kept", b"2", b"3"),
    ]
    assert [entry.user for entry in entries] == ["alice", "bob", "alice", "bob"]
    assert {entry.file for entry in entries} == {"keys.db"}
    assert (written.writes, written.differences, written.exact) == (4, 0, False)
    assert site.undoing.pending() is None
    assert site.undoing.settle() is None


def test_a_ledger_of_differences(site: Site) -> None:
    site.opened.put(b"kept", b"same", b"removed", value=b"1")
    sync_point = site.now()
    site.opened.put(b"kept", value=b"2")
    site.opened.put(b"new", value=b"3")
    site.write(b"written", b"4")  # the tail knows this one
    with site.opened.txn() as txn:
        site.opened.database.handle().delete(b"removed", txn)
    head = site.prepare(sync_point)
    assert (head.commits, head.writes, head.unexplained) == (4, 1, 3)
    site.change_back({b"kept": b"1", b"removed": b"1", b"new": None, b"written": None})
    written, entries = site.settled()
    assert plain(entries) == [
        (1, b"written", None, b"4"),
        (2, b"kept", b"1", b"2"),
        (3, b"new", None, b"3"),
        (4, b"removed", b"1", None),
    ]
    assert [entry.user for entry in entries] == ["user", None, None, None]
    assert (written.writes, written.differences) == (1, 3)


@pytest.mark.parametrize("known", [True, False])
def test_password_hashes_stay_out(site: Site, *, known: bool) -> None:
    site.users_database.create()
    sync_point = site.now()
    record = Users.hash_password("a password of some length")

    def add(txn: db.DBTxn) -> None:
        site.users_database.handle().put(b"alice", record.encode(), txn)
        if known:
            site.opened.environment.changes.note((USERS_FILE, b"alice", b""))

    if known:
        site.commit(add)
    else:
        with site.opened.txn() as txn:
            add(txn)
    site.prepare(sync_point)
    kept = b"".join(p.read_bytes() for p in (site.ledgers.directory / "pending").iterdir())
    assert record.encode() not in kept
    with site.opened.txn() as txn:
        site.users_database.handle().delete(b"alice", txn)
    _, (entry,) = site.settled()
    assert (entry.key, entry.hidden, entry.before, entry.after) == (b"alice", True, None, b"")


def test_too_much_is_left_alone(site: Site) -> None:
    sync_point = site.now()
    for number in range(3):
        site.write(b"key%d" % number, b"value")
    with pytest.raises(TooMuch, match="more than 2 writes"):
        site.prepare(sync_point, writes_max=2)
    assert site.undoing.pending() is None
    assert site.prepare(sync_point, writes_max=3).writes == 3
    site.opened.put(b"anybody's", value=b"x" * 100)
    with pytest.raises(TooMuch, match="more than 50 bytes"):
        site.prepare(sync_point, keep_bytes_max=50)
    assert site.undoing.pending() is None
    assert not (site.ledgers.directory / "pending").exists()


def test_it_is_broken_off_when_the_site_stops(site: Site) -> None:
    sync_point = site.now()
    site.write(b"key", b"value")
    site.undoing.stop()
    with pytest.raises(Stopped):
        site.prepare(sync_point)
    assert site.undoing.pending() is None


def test_a_database_that_did_not_exist_yet(site: Site) -> None:
    sync_point = site.now()
    site.opened.put(b"anybody's")
    site.write(b"mine", b"1")
    site.prepare(sync_point)  # there is no users.db
    site.change_back({b"anybody's": None, b"mine": None})
    _, entries = site.settled()
    assert [entry.key for entry in entries] == [b"mine", b"anybody's"]


def test_what_was_prepared_outlives_the_process(environments: Open, fast: Path) -> None:
    site = Site(environments(), fast)
    sync_point = site.now()
    site.write(b"key", b"value")
    head = site.prepare(sync_point)
    site.close()
    site.opened.close()
    again = Site(environments(create=False), fast)
    assert again.undoing.pending() == head
    assert not again.undoing.was_undone()
    again.change_back({b"key": None})
    assert plain(again.settled()[1]) == [(1, b"key", None, b"value")]
    again.close()


# -- ledgers ---------------------------------------------------------------------------------------


def test_ledgers_are_listed_in_order_with_what_became_of_them(site: Site) -> None:
    ledgers = site.ledgers
    assert (ledgers.heads(), ledgers.open_count()) == ([], 0)
    entry = Entry(write=1, file="keys.db", key=b"k", after=b"v", lsn=(1, 100), time_s=1.0, user="u")
    for name in ("b", "a", "c"):
        ledgers.write(site.head((1, 28), name), [entry])
    ledgers.write(site.head((1, 28), "empty"), [])
    assert [head.id for head in ledgers.heads()] == ["a", "b", "c", "empty"]
    assert ledgers.open_count() == 3
    ledgers.write_outcome("a", Outcome(time="now", applied=1, same=0, left=[]))
    ledgers.write_outcome("b", Outcome(time="now", applied=0, same=0, left=[1]))
    assert ledgers.open_count() == 2
    outcome = ledgers.outcome("b")
    assert outcome is not None
    assert (outcome.left, ledgers.outcome("c")) == ([1], None)
    assert [head.id for head in ledgers.heads()] == ["a", "b", "c", "empty"]


@pytest.mark.parametrize("name", ["nothing", "../secret", ".hidden", "a/b"])
def test_a_ledger_that_does_not_exist(site: Site, name: str) -> None:
    with pytest.raises(StorageError) as raised:
        site.ledgers.head(name)
    assert raised.value.code == "LEDGER_UNKNOWN"


def test_a_damaged_ledger_names_its_file(site: Site) -> None:
    site.ledgers.write(site.head((1, 28), "a"), [])
    (site.ledgers.directory / "a.json").write_text("{}")
    (site.ledgers.directory / "a.entries").write_text("no JSON\n")
    for look in (lambda: site.ledgers.head("a"), lambda: list(site.ledgers.entries("a"))):
        with pytest.raises(StorageError) as raised:
            look()
        assert raised.value.code == "LEDGER_DAMAGED"
        assert "a." in str(raised.value)


def test_nobody_else_may_read_them(site: Site) -> None:
    site.ledgers.write(site.head((1, 28), "a"), [])
    assert site.ledgers.directory.stat().st_mode & 0o077 == 0
    for path in (*site.ledgers.directory.iterdir(), *site.tail.directory.iterdir()):
        assert path.stat().st_mode & 0o077 == 0


# -- dumps -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("then", "now", "expected"),
    [
        ({}, {}, []),
        ({b"a": b"1"}, {}, [(b"a", b"1", None)]),
        ({}, {b"a": b"1"}, [(b"a", None, b"1")]),
        ({b"a": b"1"}, {b"a": b"1"}, []),
        ({b"a": b"1"}, {b"a": b"2"}, [(b"a", b"1", b"2")]),
        ({b"a": b""}, {b"b": b""}, [(b"a", b"", None), (b"b", None, b"")]),
        (
            {b"": b"0", b"b": b"1", b"c": b"1", b"e": b"1"},
            {b"a": b"1", b"b": b"1", b"c": b"2"},
            [(b"", b"0", None), (b"a", None, b"1"), (b"c", b"1", b"2"), (b"e", b"1", None)],
        ),
    ],
)
def test_differences(
    tmp_path: Path,
    then: dict[bytes, bytes],
    now: dict[bytes, bytes],
    expected: list[dump.Difference],
) -> None:
    path = tmp_path / "dump"
    size = dump.write(iter(sorted(then.items())), path, PLENTY)
    assert path.stat().st_size == size
    assert list(dump.differences(dump.read(path), iter(sorted(now.items())))) == expected


def test_a_dump_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "dump"
    with pytest.raises(dump.TooBig):
        dump.write(iter([(b"key", b"x" * 100)]), path, 100)
    assert list(tmp_path.iterdir()) == []
