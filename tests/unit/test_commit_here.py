"""A thread that commits its own write: at once when nobody else's waits, else like all others."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from berkeleydb import db

from storage.commit import Committer, Write
from storage.errors import StorageError
from tests.support.environments import Open, Opened, environments, fast, wait_for

__all__ = ["environments", "fast"]

THREADS = 4
WRITES = 50


@pytest.fixture
def opened(environments: Open) -> Opened:
    return environments()


def increment(opened: Opened, threads: list[int]) -> Callable[[db.DBTxn], int]:
    def work(txn: db.DBTxn) -> int:
        threads.append(threading.get_ident())
        number = int(opened.keyspace.get(txn, b"shared") or b"0") + 1
        opened.keyspace.put(txn, b"shared", b"%d" % number)
        return number

    return work


def test_a_lone_write_is_committed_by_its_own_thread(opened: Opened) -> None:
    committer = opened.committer(look_up_lsn=True)
    ran_on: list[int] = []
    write = Write(increment(opened, ran_on))
    committer.commit_here(write)
    assert ran_on == [threading.get_ident()]
    assert write.result == 1
    batch = opened.batches[-1]
    assert batch.writes == [write]
    assert batch.locally_durable
    assert batch.lsn is not None


def test_its_lsn_is_the_one_the_callback_told_this_thread(environments: Open) -> None:
    committers: list[Committer] = []

    def configure(env: db.DBEnv) -> None:
        def send(
            _e: object, _c: bytes, _r: bytes, lsn: tuple[int, int], _i: int, flags: int
        ) -> None:
            if flags & db.DB_REP_PERMANENT and committers:
                committers[0].note_permanent(lsn)

        env.rep_set_transport(1, send)
        env.rep_set_priority(1)

    opened = environments(configure=configure)
    opened.env.rep_start(db.DB_REP_MASTER)
    committers.append(opened.committer(look_up_lsn=False))
    write = Write(increment(opened, []))
    committers[0].commit_here(write)
    lsn = opened.batches[-1].lsn
    assert lsn is not None
    assert lsn == opened.environment.last_record()


def test_while_another_commits_it_waits_with_the_others(opened: Opened) -> None:
    inside, go_on = threading.Event(), threading.Event()
    ran_on: list[int] = []

    def slow(txn: db.DBTxn) -> None:
        inside.set()
        go_on.wait(30)

    committer = opened.committer()
    committer.submit(first := Write(slow))
    assert inside.wait(30)
    committer.commit_here(second := Write(increment(opened, ran_on)))
    assert ran_on == [], "it was queued"
    go_on.set()
    opened.done([first, second])
    assert second.result == 1
    assert ran_on != [threading.get_ident()]


def test_both_ways_at_once_lose_and_repeat_nothing(opened: Opened) -> None:
    committer = opened.committer(look_up_lsn=True)
    writes = [[Write(increment(opened, [])) for _ in range(WRITES)] for _ in range(THREADS)]

    def submit(mine: list[Write], how: Callable[[Write], None]) -> None:
        for write in mine:
            how(write)

    ways = (committer.commit_here, committer.submit)
    threads = [
        threading.Thread(target=submit, args=(mine, ways[number % 2]))
        for number, mine in enumerate(writes)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    every = [write for mine in writes for write in mine]
    opened.done(every)
    assert sorted(write.result for write in every) == list(range(1, THREADS * WRITES + 1))
    lsns = [batch.lsn or (0, 0) for batch in opened.batches]
    assert lsns == sorted(lsns), "batches come in the order of their commits"


def test_a_stop_waits_for_who_commits_and_refuses_who_comes_later(opened: Opened) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def slow(txn: db.DBTxn) -> str:
        inside.set()
        go_on.wait(30)
        return "done"

    committer = opened.committer()
    under_way = Write(slow)
    thread = threading.Thread(target=committer.commit_here, args=(under_way,))
    thread.start()
    assert inside.wait(30)
    committer.stop()
    committer.join(0.05)
    assert committer.is_alive(), "a thread is inside the library"
    go_on.set()
    committer.join(30)
    assert not committer.is_alive()
    thread.join(30)
    assert under_way.result == "done"
    late = Write(increment(opened, []))
    committer.commit_here(late)
    wait_for("it is refused", lambda: late.error)
    assert isinstance(late.error, StorageError)
    assert late.error.code == "TRYAGAIN"
