"""A btree file and its handle: made, missing, dead and opened again."""

from __future__ import annotations

import threading
import time

import pytest
from berkeleydb import db

from storage.database import Database
from storage.errors import StorageError
from storage.library import DatabaseMissing
from tests.support.environments import Open, environments, fast, wait_for
from tests.support.pair import Pair, pair

__all__ = ["environments", "fast", "pair"]


def test_a_missing_file_is_told_apart_from_other_errors(environments: Open) -> None:
    opened = environments(create=False)
    with pytest.raises(DatabaseMissing, match=r"keys\.db does not exist on this site yet"):
        opened.database.handle()
    assert not opened.database.is_open
    (opened.environment.home / "keys.db").write_bytes(b"no btree" * 1000)
    with pytest.raises(StorageError, match=r"keys\.db cannot be opened: ") as refused:
        opened.database.handle()
    assert refused.value.code == "LIBRARY"


def test_it_is_made_once_and_opened_once(environments: Open) -> None:
    database = environments(create=False).database
    handle = database.create()
    assert database.is_open
    assert database.handle() is handle is database.create()


def test_a_dropped_handle_is_replaced_and_stays_usable_for_who_is_inside(
    environments: Open,
) -> None:
    opened = environments()
    opened.put(b"key")
    before = opened.database.handle()
    opened.database.drop()
    assert not opened.database.is_open
    assert before.get(b"key") == b"value"
    after = opened.database.handle()
    assert after is not before
    assert after.get(b"key") == b"value"


def test_drop_does_not_wait_for_an_open_and_is_not_undone_by_it(environments: Open) -> None:
    opened = environments()
    opened.database.close()
    # Who removes the file in a transaction keeps others from opening it.
    remover = opened.env.txn_begin()
    opened.env.dbremove("keys.db", txn=remover)
    got: list[db.DB | Exception] = []

    def open_it() -> None:
        try:
            got.append(opened.database.handle())
        except StorageError as error:
            got.append(error)

    thread = threading.Thread(target=open_it)
    thread.start()
    wait_for("the open waits", lambda: opened.env.lock_stat()["lock_wait"] > 0 or None)
    began = time.monotonic()
    opened.database.drop()
    assert time.monotonic() - began < 1
    remover.abort()
    thread.join(30)
    (handle,) = got
    assert isinstance(handle, db.DB)
    assert opened.database.handle() is handle
    assert handle.get_dbname() == ("keys.db", None)


def test_threads_that_open_together_get_the_same_handle(environments: Open) -> None:
    opened = environments()
    opened.database.drop()
    together, got = threading.Barrier(8), []

    def open_it() -> None:
        together.wait(10)
        got.append(opened.database.handle())

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(got) == 8
    assert len(set(map(id, got))) == 1


def test_named_databases_share_a_file(environments: Open) -> None:
    opened = environments(create=False)
    one = Database(opened.environment, "many.db", "one")
    two = Database(opened.environment, "many.db", "two")
    one.create().put(b"key", b"1")
    two.create().put(b"key", b"2")
    assert (one.handle().get(b"key"), two.handle().get(b"key")) == (b"1", b"2")
    one.close()
    two.close()


def test_a_replicants_handle_dies_with_the_file_and_is_opened_again(pair: Pair) -> None:
    pair.start(lambda opened: opened.put(b"key", value=b"first"))
    replicant = pair.replicant.opened
    assert replicant.get(b"key") == b"first"
    dead = replicant.database.handle()
    _replace_the_copy(pair)
    with pytest.raises(db.DBRepHandleDeadError):
        dead.get(b"key")
    replicant.database.drop()
    assert replicant.get(b"key") == b"second"


def _replace_the_copy(pair: Pair) -> None:
    """Make the replicant start over: the log that it missed is gone."""
    pair.replicant.cut.set()
    master = pair.master.opened
    for _ in range(40):
        master.put(b"key", value=b"x" * 100_000)
    master.put(b"key", value=b"second")
    master.env.txn_checkpoint(0, 0, db.DB_FORCE)
    # By hand: while a replicant is new the library itself removes nothing.
    for log in ("log.0000000001", "log.0000000002"):
        (master.environment.home / log).unlink()
    pair.replicant.cut.clear()
    pair.replicant.events.clear()

    def copied() -> bool:
        master.put(b"more")  # each record it cannot place makes it ask again
        return db.DB_EVENT_REP_INIT_DONE in pair.replicant.events

    wait_for("the copy is replaced", copied)
    pair.wait_in_step()
