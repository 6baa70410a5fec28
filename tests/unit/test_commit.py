"""Group commit: every write its own reply or its own error, whatever its neighbours do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest
from berkeleydb import db

from storage import commit as commit_module
from storage.commit import Batch, Committer, Durability, Write
from storage.errors import StorageError
from storage.library import FateUnknown, WatchFailed
from tests.support.environments import Open, Opened, environments, fast, wait_for
from tests.support.pair import Pair, pair

__all__ = ["environments", "fast", "pair"]

Work = Callable[["db.DBTxn"], object]


class NotAllowedError(Exception):
    """What a work refuses with, before it writes."""


@pytest.fixture
def opened(environments: Open) -> Opened:
    return environments()


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Keeps the committer before its transaction until it is set, so that writes pile up."""
    gate = threading.Event()
    yield gate
    gate.set()


def gated(opened: Opened, gate: threading.Event, **options: object) -> Committer:
    return opened.committer(
        wait_for_room=lambda: gate.wait(30), refusals=(NotAllowedError,), **options
    )


def put(opened: Opened, key: bytes, value: bytes = b"value") -> Work:
    def work(txn: db.DBTxn) -> bytes:
        opened.keyspace.put(txn, key, value)
        return b"OK " + key

    return work


def increment(opened: Opened, key: bytes) -> Work:
    def work(txn: db.DBTxn) -> int:
        number = int(opened.keyspace.get(txn, key) or b"0") + 1
        opened.keyspace.put(txn, key, b"%d" % number)
        return number

    return work


def together(
    opened: Opened, gate: threading.Event, committer: Committer, writes: Sequence[Write]
) -> list[Batch]:
    """Have `writes` committed as one batch; give what was delivered of them."""
    first = Write(lambda txn: None)
    committer.submit(first)
    wait_for("the committer took the first", lambda: committer.queued == 0 or None)
    for write in writes:
        committer.submit(write)
    gate.set()
    opened.done([first, *writes])
    return [batch for batch in opened.batches if first not in batch.writes]


# -- each its own --------------------------------------------------------------------------------


def test_many_threads_get_each_its_own_result(opened: Opened) -> None:
    committer = opened.committer()
    writes = [
        [Write(increment(opened, b"shared"), tag=(thread, number)) for number in range(50)]
        for thread in range(8)
    ]

    def submit(mine: list[Write]) -> None:
        for write in mine:
            committer.submit(write)

    threads = [threading.Thread(target=submit, args=(mine,)) for mine in writes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    everything = [write for mine in writes for write in mine]
    came = opened.done(everything)
    assert sorted(write.result for write in everything) == list(range(1, 401))
    for mine in writes:
        # A client's writes are committed in the order it sent them.
        assert [write.result for write in mine] == sorted(write.result for write in mine)
    assert [write.result for write in came] == list(range(1, 401))
    assert opened.get(b"shared") == b"400"
    assert committer.writes == 400
    assert committer.commits == len(opened.batches)


def test_a_batch_is_one_commit(opened: Opened, gate: threading.Event) -> None:
    committer = gated(opened, gate)
    writes = [Write(put(opened, b"%d" % number)) for number in range(100)]
    (batch,) = together(opened, gate, committer, writes)
    assert batch.writes == writes
    assert [write.result for write in writes] == [b"OK %d" % number for number in range(100)]
    assert committer.commits == 2
    assert committer.biggest_batch == 100


@pytest.mark.parametrize(("batch_max", "sizes"), [(1, [1] * 7), (3, [3, 3, 1]), (7, [7])])
def test_a_batch_is_bounded(
    opened: Opened, gate: threading.Event, batch_max: int, sizes: list[int]
) -> None:
    committer = gated(opened, gate, batch_max=batch_max)
    writes = [Write(put(opened, b"%d" % number)) for number in range(7)]
    batches = together(opened, gate, committer, writes)
    assert [len(batch.writes) for batch in batches] == sizes
    assert [write for batch in batches for write in batch.writes] == writes


def test_a_batch_ends_when_its_time_is_up(
    opened: Opened, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit_module, "EXECUTE_S_MAX", 0.0)
    committer = gated(opened, gate)
    writes = [Write(put(opened, b"%d" % number)) for number in range(5)]
    batches = together(opened, gate, committer, writes)
    assert [batch.writes for batch in batches] == [[write] for write in writes]
    assert len(opened.all()) == 5


# -- the LSN ---------------------------------------------------------------------------------------


def test_the_lsn_is_the_commit_records(opened: Opened) -> None:
    committer = opened.committer(look_up_lsn=True)
    for number in range(20):
        (batch,) = opened.commit(committer, Write(put(opened, b"%d" % number)))
        assert batch.lsn == opened.environment.last_record()
        opened.env.txn_checkpoint(0, 0, db.DB_FORCE)


def test_a_batch_that_changed_nothing_has_no_lsn(opened: Opened) -> None:
    committer = opened.committer(look_up_lsn=True)
    (batch,) = opened.commit(committer, Write(lambda txn: opened.keyspace.get(txn, b"key")))
    assert batch.lsn is None


def test_with_replication_the_lsn_comes_from_the_callback(environments: Open) -> None:
    noted: list[Committer] = []

    def send(_e: object, control: bytes, _r: bytes, lsn: tuple[int, int], *rest: int) -> None:
        if rest[1] & db.DB_REP_PERMANENT and noted:
            noted[0].note_permanent(lsn)

    def configure(env: db.DBEnv) -> None:
        env.rep_set_transport(1, send)
        env.rep_set_timeout(db.DB_REP_CHECKPOINT_DELAY, 0)

    opened = environments(configure=configure, create=False)
    opened.env.rep_start(db.DB_REP_MASTER)
    opened.database.create()
    committer = opened.committer()
    noted.append(committer)
    for number in range(20):
        (batch,) = opened.commit(committer, Write(put(opened, b"%d" % number)))
        assert batch.lsn == opened.environment.last_record()
        # Permanent as well, but of another thread.
        opened.env.txn_checkpoint(0, 0, db.DB_FORCE)
    (batch,) = opened.commit(committer, Write(lambda txn: opened.keyspace.get(txn, b"key")))
    assert batch.lsn is None


@pytest.mark.parametrize(
    ("durability", "on_disk"), [("sync", True), ("write_nosync", False), ("nosync", False)]
)
def test_durability(opened: Opened, durability: Durability, on_disk: bool) -> None:
    committer = opened.committer(durability=durability)
    opened.env.log_flush()
    before = opened.env.log_stat()
    (batch,) = opened.commit(committer, Write(put(opened, b"key")))
    after = opened.env.log_stat()
    assert batch.locally_durable is on_disk
    assert (after["disk_offset"] > before["disk_offset"]) is on_disk
    assert (after["wcount"] > before["wcount"]) is (durability != "nosync")


# -- errors ----------------------------------------------------------------------------------------


def test_a_refusal_is_its_own(opened: Opened, gate: threading.Event) -> None:
    def refuse(_txn: db.DBTxn) -> None:
        raise NotAllowedError("no")

    committer = gated(opened, gate)
    writes = [
        Write(put(opened, b"before")),
        Write(refuse),
        Write(put(opened, b"after")),
    ]
    (batch,) = together(opened, gate, committer, writes)
    assert batch.writes == writes
    assert isinstance(writes[1].error, NotAllowedError)
    assert [write.error for write in writes[::2]] == [None, None]
    assert [key for key, _ in opened.all()] == [b"after", b"before"]
    assert committer.commits == 2


def test_a_write_that_the_library_refuses_fails_alone(
    opened: Opened, gate: threading.Event
) -> None:
    def bad(txn: db.DBTxn) -> None:
        opened.keyspace.put(txn, b"written first", b"and taken back")
        opened.database.handle().put(b"key", b"value", txn, db.DB_APPEND)  # not on a btree

    committer = gated(opened, gate)
    good = [Write(put(opened, b"%d" % number)) for number in range(10)]
    spoilt = Write(bad)
    (batch,) = together(opened, gate, committer, [*good[:5], spoilt, *good[5:]])
    assert [write.result for write in good] == [b"OK %d" % number for number in range(10)]
    assert isinstance(spoilt.error, StorageError)
    assert "the write was not committed: " in str(spoilt.error)
    assert spoilt.result is None
    assert [key for key, _ in opened.all()] == [b"%d" % number for number in range(10)]
    assert batch.writes == [*good[:5], spoilt, *good[5:]]
    assert committer.commits == 2, "the others share one commit all the same"


def test_a_bug_after_a_write_writes_nothing(opened: Opened, gate: threading.Event) -> None:
    def buggy(txn: db.DBTxn) -> None:
        opened.keyspace.put(txn, b"half", b"done")
        raise ZeroDivisionError

    committer = gated(opened, gate)
    good, bad = Write(put(opened, b"good")), Write(buggy)
    together(opened, gate, committer, [good, bad])
    assert isinstance(bad.error, ZeroDivisionError)
    assert good.error is None
    assert [key for key, _ in opened.all()] == [b"good"]


def test_all_may_be_bad(opened: Opened, gate: threading.Event) -> None:
    def bad(txn: db.DBTxn) -> None:
        opened.keyspace.put(txn, b"half", b"done")
        raise KeyError

    committer = gated(opened, gate, look_up_lsn=True)
    writes = [Write(bad) for _ in range(50)]
    (batch,) = together(opened, gate, committer, writes)
    assert all(isinstance(write.error, KeyError) for write in writes)
    assert opened.all() == []
    # Of nested transactions an aborted one leaves nothing for its parent to commit.
    assert batch.lsn is None or batch.lsn <= opened.environment.last_record()


def test_too_many_locks_is_an_error_that_says_so(environments: Open) -> None:
    opened = environments(
        lines=[
            "set_lk_max_locks 200",
            "set_lk_max_objects 200",
            "set_memory_max 0 1500000",
        ]
    )
    committer = opened.committer()

    def wide(txn: db.DBTxn) -> None:
        for number in range(20_000):
            opened.keyspace.put(txn, b"%06d" % (number * 7919 % 1_000_003), b"x" * 500)

    bad, good = Write(wide), Write(put(opened, b"good"))
    opened.commit(committer, bad)
    opened.commit(committer, good)
    assert isinstance(bad.error, StorageError)
    assert "too many locks at once" in str(bad.error)
    assert "set_lk_max_locks" in (bad.error.hint or "")
    assert good.error is None
    assert [key for key, _ in opened.all()] == [b"good"]


def test_a_panic_inside_the_commit_leaves_the_fate_open(environments: Open) -> None:
    told: list[Exception] = []
    opened = environments(on_panic=told.append)
    committer = opened.committer()

    def last_work(txn: db.DBTxn) -> None:
        opened.keyspace.put(txn, b"key", b"value")
        opened.env.set_flags(db.DB_PANIC_ENVIRONMENT, 1)

    write = Write(last_work)
    opened.commit(committer, write)
    assert isinstance(write.error, FateUnknown)
    assert "the write may be there or not" in str(write.error)
    wait_for("it is reported", lambda: told)


def test_a_panic_answers_everybody_and_is_reported(environments: Open) -> None:
    told: list[Exception] = []
    opened = environments(on_panic=told.append)
    committer = opened.committer()
    opened.commit(committer, Write(put(opened, b"before")))
    opened.env.set_flags(db.DB_PANIC_ENVIRONMENT, 1)
    writes = [Write(put(opened, b"%d" % number)) for number in range(10)]
    opened.commit(committer, *writes)
    for write in writes:
        assert isinstance(write.error, StorageError)
        assert "needs recovery" in str(write.error)
    wait_for("it is reported", lambda: told)
    assert len(told) == 1
    assert committer.is_alive()


# -- deadlocks and role changes --------------------------------------------------------------------


def test_a_deadlock_with_a_reader_costs_nobody_anything(
    opened: Opened, gate: threading.Event
) -> None:
    with opened.txn() as txn:
        for number in range(200):
            opened.keyspace.put(txn, b"%04d" % number, b"x" * 100)
    first, last = b"0000", b"0199"
    holds_first, go_on = threading.Event(), threading.Event()
    read: list[object] = []

    def reader() -> None:
        while True:
            txn = opened.env.txn_begin()
            try:
                read[:] = [opened.keyspace.get(txn, first)]
                holds_first.set()
                assert go_on.wait(30)
                read.append(opened.keyspace.get(txn, last))
                return
            except db.DBLockDeadlockError:
                deadlocks.append("reader")
            finally:
                txn.abort()

    deadlocks: list[str] = []
    thread = threading.Thread(target=reader)
    thread.start()
    assert holds_first.wait(30)

    def write_last(txn: db.DBTxn) -> str:
        opened.keyspace.put(txn, last, b"new")
        go_on.set()
        # The reader waits for the page that this transaction has: then it wants the reader's.
        wait_for(
            "the reader waits", lambda: opened.env.lock_stat()["lock_wait"] > 0 or deadlocks or None
        )
        opened.keyspace.put(txn, first, b"new")
        return "written"

    committer = gated(opened, gate)
    writes = [Write(write_last), *(Write(put(opened, b"other %d" % n)) for n in range(5))]
    together(opened, gate, committer, writes)
    thread.join(30)
    assert not thread.is_alive()
    assert writes[0].result == "written"
    assert all(write.error is None for write in writes)
    assert len(read) == 2
    assert deadlocks or committer.retries, "they did not deadlock"
    assert (opened.get(first), opened.get(last)) == (b"new", b"new")
    assert all(opened.get(b"other %d" % number) for number in range(5))


def test_a_deadlocked_batch_runs_again_with_its_watches_as_they_were(
    opened: Opened, gate: threading.Event
) -> None:
    committer = gated(opened, gate)
    opened.put(b"watched")
    watch = committer.watches.add([b"watched"])
    runs: list[int] = []

    def deadlock_once(txn: db.DBTxn) -> None:
        runs.append(1)
        opened.keyspace.put(txn, b"watched", b"new")
        if len(runs) == 1:
            raise db.DBLockDeadlockError(-30993, "as the library raises it")

    own = Write(increment(opened, b"n"), keys=[b"n", b"watched"], watch=watch)
    writes = [own, Write(deadlock_once, keys=[b"watched"])]
    together(opened, gate, committer, writes)
    assert len(runs) == 2
    assert committer.retries == 1
    assert own.error is None, "the retry took the batch's own change for somebody else's"
    assert own.result == 1
    assert opened.get(b"n") == b"1"


def test_locks_that_are_kept_for_good_fail_the_write(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit_module, "RETRIES_MAX", 3)
    monkeypatch.setattr(commit_module, "RETRY_PAUSE_S", 0.0)
    runs: list[int] = []

    def always(_txn: db.DBTxn) -> None:
        runs.append(1)
        raise db.DBLockNotGrantedError(-30992, "as the library raises it")

    committer = opened.committer()
    write = Write(always)
    opened.commit(committer, write)
    assert isinstance(write.error, StorageError)
    assert write.error.code == "TRYAGAIN"
    assert len(runs) == 4
    good = Write(put(opened, b"good"))
    opened.commit(committer, good)
    assert good.error is None


def test_a_lock_time_out_is_waited_for_again(environments: Open) -> None:
    opened = environments(lines=["set_lock_timeout 20000"])
    opened.put(b"key")
    holder = opened.lock(b"key")
    committer = opened.committer()
    write = Write(put(opened, b"key", b"new"))
    committer.submit(write)

    def timed_out() -> bool:
        opened.env.lock_detect(db.DB_LOCK_EXPIRE)  # as upkeep does, with the deadlocks
        return committer.retries > 0

    try:
        wait_for("the wait timed out", timed_out)
    finally:
        holder.abort()
    opened.done([write])
    assert write.error is None
    assert opened.get(b"key") == b"new"


def test_a_site_that_is_no_master_any_more_says_try_again(pair: Pair) -> None:
    pair.start()
    opened = pair.master.opened
    committer = opened.committer(on_dead_handles=opened.database.drop)
    good = Write(put(opened, b"good"))
    opened.commit(committer, good)
    assert good.error is None
    pair.master.become(db.DB_REP_CLIENT)
    late = [Write(put(opened, b"late %d" % number)) for number in range(3)]
    opened.commit(committer, *late)
    for write in late:
        assert isinstance(write.error, StorageError)
        assert write.error.code == "TRYAGAIN", str(write.error)
    pair.master.become(db.DB_REP_MASTER)
    again = Write(put(opened, b"again"))
    opened.commit(committer, again)
    assert again.error is None
    assert opened.get(b"again") == b"value"


# -- WATCH -----------------------------------------------------------------------------------------


def test_a_watched_key_changed_in_the_same_batch(opened: Opened, gate: threading.Event) -> None:
    committer = gated(opened, gate)
    watch = committer.watches.add([b"watched"])
    change = Write(put(opened, b"watched"), keys=[b"watched"])
    exec_ = Write(put(opened, b"written"), keys=[b"written"], watch=watch)
    together(opened, gate, committer, [change, exec_])
    assert isinstance(exec_.error, WatchFailed)
    assert change.error is None
    assert opened.get(b"written") is None


def test_a_watched_key_changed_by_an_earlier_batch(opened: Opened) -> None:
    committer = opened.committer()
    watch = committer.watches.add([b"watched"])
    opened.commit(committer, Write(put(opened, b"watched"), keys=[b"watched"]))
    assert watch.dirty
    exec_ = Write(put(opened, b"written"), watch=watch)
    opened.commit(committer, exec_)
    assert isinstance(exec_.error, WatchFailed)
    assert opened.get(b"written") is None


def test_other_keys_do_not_matter(opened: Opened, gate: threading.Event) -> None:
    committer = gated(opened, gate)
    watch = committer.watches.add([b"watched"])
    writes = [
        Write(put(opened, b"other"), keys=[b"other"]),
        Write(put(opened, b"watched"), keys=[b"watched"], watch=watch),
        Write(put(opened, b"other"), keys=[b"other"]),
    ]
    together(opened, gate, committer, writes)
    assert [write.error for write in writes] == [None, None, None]


def test_of_two_that_watch_the_same_key_the_first_wins(
    opened: Opened, gate: threading.Event
) -> None:
    committer = gated(opened, gate)
    writes = [
        Write(increment(opened, b"key"), keys=[b"key"], watch=committer.watches.add([b"key"]))
        for _ in range(5)
    ]
    together(opened, gate, committer, writes)
    assert [type(write.error) for write in writes] == [type(None), *[WatchFailed] * 4]
    assert opened.get(b"key") == b"1"


def test_a_write_that_failed_changed_no_watched_key(opened: Opened, gate: threading.Event) -> None:
    def refuse(_txn: db.DBTxn) -> None:
        raise NotAllowedError

    def bug(txn: db.DBTxn) -> None:
        opened.keyspace.put(txn, b"watched", b"half")
        raise KeyError

    committer = gated(opened, gate)
    watch = committer.watches.add([b"watched"])
    exec_ = Write(put(opened, b"written"), watch=watch)
    together(
        opened,
        gate,
        committer,
        [Write(refuse, keys=[b"watched"]), Write(bug, keys=[b"watched"]), exec_],
    )
    assert exec_.error is None
    assert not watch.dirty


def test_who_sees_the_change_sees_the_mark(opened: Opened) -> None:
    """A read-only EXEC looks at the watch after its read."""
    committer = opened.committer()
    for number in range(200):
        watch, value = committer.watches.add([b"key"]), b"%d" % number
        committer.submit(Write(put(opened, b"key", value), keys=[b"key"]))
        while opened.get(b"key") != value:
            continue
        assert watch.dirty
        watch.close()


# -- the end ---------------------------------------------------------------------------------------


def test_a_stop_refuses_what_is_queued(opened: Opened, gate: threading.Event) -> None:
    committer = gated(opened, gate)
    under_way = Write(put(opened, b"under way"))
    committer.submit(under_way)
    wait_for("it is taken", lambda: committer.queued == 0 or None)
    queued = [Write(put(opened, b"queued %d" % number)) for number in range(20)]
    for write in queued:
        committer.submit(write)
    committer.stop()
    gate.set()
    committer.join(10)
    assert not committer.is_alive()
    opened.done([under_way, *queued])
    assert under_way.error is None
    for write in queued:
        assert isinstance(write.error, StorageError)
        assert write.error.code == "TRYAGAIN"
    assert [key for key, _ in opened.all()] == [b"under way"]


def test_a_stop_in_the_middle_of_a_batch_is_heard(opened: Opened, gate: threading.Event) -> None:
    """The sign to stop may be taken from the queue together with writes."""
    committer = gated(opened, gate)
    committer.submit(Write(put(opened, b"first")))
    wait_for("it is taken", lambda: committer.queued == 0 or None)
    second = Write(put(opened, b"second"))
    committer.submit(second)
    committer.stop()
    gate.set()
    committer.join(10)
    assert not committer.is_alive()
    opened.done([second])


def test_a_write_that_comes_after_the_end_is_refused(opened: Opened) -> None:
    committer = opened.committer()
    committer.stop()
    committer.join(10)
    late = Write(put(opened, b"late"))
    committer.submit(late)
    opened.done([late])
    assert isinstance(late.error, StorageError)
    assert late.error.code == "TRYAGAIN"


def test_no_write_is_forgotten_however_stop_and_submit_meet(opened: Opened) -> None:
    for _ in range(50):
        committer = opened.committer()
        writes = [Write(lambda txn: None) for _ in range(20)]
        start = threading.Barrier(2)

        def submit(
            committer: Committer = committer,
            writes: list[Write] = writes,
            start: threading.Barrier = start,
        ) -> None:
            start.wait(10)
            for write in writes:
                committer.submit(write)

        thread = threading.Thread(target=submit)
        thread.start()
        start.wait(10)
        committer.stop()
        thread.join(10)
        committer.join(10)
        opened.done(writes)
        came = [write for batch in opened.batches for write in batch.writes]
        assert sorted(map(id, came)) == sorted(map(id, writes)), "each exactly once"
        opened.batches.clear()


def test_held_it_begins_nothing_and_forgets_nothing(opened: Opened) -> None:
    committer = opened.committer()
    wait_for("it is held", lambda: committer.hold() or None)
    assert committer.hold(), "asked again, it still is"
    writes = [Write(put(opened, b"%d" % number)) for number in range(3)]
    committer.submit(writes[0])
    elsewhere = threading.Thread(target=committer.commit_here, args=(writes[1],))
    elsewhere.start()
    elsewhere.join(30)
    assert not elsewhere.is_alive(), "whoever could commit here queues, too"
    committer.submit(writes[2])
    assert committer.commits == 0
    assert opened.get(b"0") is None
    committer.release()
    opened.done(writes)
    assert [write.result for write in writes] == [b"OK 0", b"OK 1", b"OK 2"]


def test_it_is_held_only_once_no_transaction_is_under_way(opened: Opened) -> None:
    inside, go_on = threading.Event(), threading.Event()
    committer = opened.committer()

    def slow(_txn: db.DBTxn) -> None:
        inside.set()
        assert go_on.wait(30)

    writes = [Write(slow), Write(put(opened, b"next"))]
    committer.submit(writes[0])
    assert inside.wait(30)
    committer.submit(writes[1])
    assert not committer.hold()
    go_on.set()
    wait_for("it is held", lambda: committer.hold() or None)
    opened.done(writes[:1])
    assert opened.get(b"next") is None, "the wish came first"
    committer.release()
    opened.done(writes)


def test_a_wish_to_hold_can_be_taken_back(opened: Opened) -> None:
    committer = opened.committer()
    committer.release()
    committer.hold()
    committer.release()
    committer.release()
    write = Write(put(opened, b"key"))
    committer.submit(write)
    opened.done([write])


def test_back_pressure_comes_before_the_transaction(opened: Opened) -> None:
    active: list[int] = []
    committer = opened.committer(
        wait_for_room=lambda: active.append(opened.env.txn_stat()["nactive"])
    )
    opened.commit(committer, Write(put(opened, b"key")))
    opened.commit(committer, Write(put(opened, b"key")))
    assert active == [0, 0]


def test_the_locks_of_a_batch_are_kept_until_it_is_flushed(opened: Opened) -> None:
    """What a reader saw is not undone by a power failure."""
    committer = opened.committer()
    done = threading.Event()
    seen_unflushed: list[bytes] = []

    def look() -> None:
        while not done.is_set():
            value = opened.get(b"key")
            end = opened.env.log_stat()
            flushed = (end["disk_file"], end["disk_offset"])
            if value is not None and flushed < lsn_of.get(value, (0, 0)):
                seen_unflushed.append(value)

    lsn_of: dict[bytes, tuple[int, int]] = {}
    thread = threading.Thread(target=look)
    thread.start()
    began = time.monotonic()
    number = 0
    while time.monotonic() - began < 0.3:
        number += 1
        value = b"%d" % number

        def work(txn: db.DBTxn, value: bytes = value) -> None:
            opened.keyspace.put(txn, b"key", value)
            lsn_of[value] = opened.environment.log_end()

        opened.commit(committer, Write(work))
    done.set()
    thread.join(10)
    assert number > 1
    assert seen_unflushed == []
