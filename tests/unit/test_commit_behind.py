"""What is called behind a commit: with its LSN, before the next transaction begins, once."""

from __future__ import annotations

import pytest
from berkeleydb import db

from storage.commit import Committer, Write
from tests.support.environments import Open, Opened, environments, fast

__all__ = ["environments", "fast"]


@pytest.fixture
def opened(environments: Open) -> Opened:
    return environments()


def put(opened: Opened, key: bytes, value: bytes) -> Write:
    return Write(lambda txn: opened.keyspace.put(txn, key, value))


def test_nothing_is_written_between_the_commit_and_the_call(opened: Opened) -> None:
    committer = opened.committer(look_up_lsn=True, batch_max=1)
    calls: list[tuple[object, bytes | None]] = []

    def look(txn: db.DBTxn) -> None:
        opened.keyspace.put(txn, b"key", b"mine")
        committer.call_behind(lambda lsn: calls.append((lsn, opened.get(b"key"))))

    mine = Write(look)
    # All wait before the first is committed.
    with committer._turn:
        writes = [put(opened, b"key", b"before"), mine, put(opened, b"key", b"after")]
        for write in writes:
            committer.submit(write)
    opened.done(writes)
    (lsn,) = [batch.lsn for batch in opened.batches if mine in batch.writes]
    assert calls == [(lsn, b"mine")]
    assert opened.get(b"key") == b"after"


@pytest.mark.parametrize("first", [ValueError("no"), db.DBLockDeadlockError(-1, "again")])
def test_it_is_called_for_the_attempt_that_was_committed(opened: Opened, first: Exception) -> None:
    committer: Committer = opened.committer(look_up_lsn=True)
    calls: list[object] = []
    failures = [first]

    def work(txn: db.DBTxn) -> None:
        committer.call_behind(calls.append)
        opened.keyspace.put(txn, b"key", b"value")
        if failures:
            raise failures.pop()

    (batch,) = opened.commit(committer, Write(work))
    assert calls == ([batch.lsn] if batch.lsn is not None else [])
    calls.clear()
    opened.commit(committer, put(opened, b"other", b"value"))
    assert calls == []
