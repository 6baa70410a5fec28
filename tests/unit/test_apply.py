"""The apply thread between two real environments: acknowledgements, strange messages, bounds."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from berkeleydb import db

from replication import apply
from replication.messages import RepType
from replication.rollback import WOULD_ROLLBACK
from replication.wire import LSN, lsn_from_library
from tests.support.links import control
from tests.support.replicated import MASTER_EID, Pair, frame, pair, wait_for

LEASE = 0x10


@pytest.fixture
def sites(tmp_path: Path) -> Iterator[Pair]:
    with pair(tmp_path) as made:
        yield made


def held(sites: Pair) -> int:
    """Count the replicant's records."""
    handle = db.DB(sites.replicant.env)
    try:
        handle.open("keys.db", dbtype=db.DB_BTREE, flags=db.DB_RDONLY)
        return len(handle.keys())
    finally:
        handle.close()


def acked(sites: Pair) -> LSN:
    return sites.replicant.told.acks[-1][1]


class TestAcknowledging:
    def test_what_is_acknowledged_is_applied(self, sites: Pair) -> None:
        end = sites.commit(200)
        wait_for("all is acknowledged", lambda: acked(sites) == end)
        assert held(sites) == 201
        assert sites.replicant.applier.applied == end
        assert sites.replicant.applier.applied_generation == 1
        assert {generation for generation, _ in sites.replicant.told.acks} == {1}

    def test_one_flush_and_one_ack_for_all_that_waits(
        self, sites: Pair, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(apply, "FLUSH_EVERY_S", 60.0)
        sites.kept = []
        end = sites.commit(50)
        before = len(sites.replicant.told.acks)
        sites.replicant.seen.calls.clear()
        sites.deliver(sites.kept)
        wait_for("it is acknowledged", lambda: acked(sites) == end)
        assert sites.replicant.told.acks[before:] == [(1, end)]
        calls = sites.replicant.seen.calls
        assert calls.count("flush") == 1
        assert calls[-1] == "flush", "nothing is acknowledged before it is on disk"

    def test_commits_the_master_flushed_are_flushed_together_here(
        self, sites: Pair, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(apply, "FLUSH_EVERY_S", 60.0)
        sites.kept = []
        end = sites.commit(50, flags=db.DB_TXN_SYNC)
        flushed = sites.replicant.env.log_stat()["scount"]
        sites.deliver(sites.kept)
        wait_for("it is acknowledged", lambda: acked(sites) == end)
        assert sites.replicant.env.log_stat()["scount"] == flushed + 1
        assert held(sites) == 51

    def test_under_a_steady_stream_acks_do_not_wait_for_its_end(
        self, sites: Pair, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(apply, "FLUSH_EVERY_S", 0.0)
        sites.kept = []
        sites.commit(5)
        before = len(sites.replicant.told.acks)
        sites.replicant.seen.open.clear()
        for each in sites.kept:
            sites.deliver([each])
        sites.replicant.seen.open.set()
        end = lsn_from_library(sites.master.env.rep_stat()["max_perm_lsn"])
        wait_for("all is acknowledged", lambda: acked(sites) == end)
        assert len(sites.replicant.told.acks) - before >= 5

    def test_messages_out_of_order_are_put_in_order_by_the_library(self, sites: Pair) -> None:
        sites.kept = []
        end = sites.commit(10)
        sites.deliver(list(reversed(sites.kept)))
        sites.kept = None
        wait_for("all is acknowledged", lambda: acked(sites) == end)
        assert held(sites) == 11

    def test_a_sync_counts_only_if_it_leads_further(self, sites: Pair) -> None:
        applier = sites.replicant.applier
        here = applier.applied
        assert not applier.in_step(1, here)
        assert not applier.in_step(1, LSN(1, 28))
        assert applier.in_step(1, LSN(here.file, here.offset + 1))
        assert applier.in_step(2, LSN(1, 28)), "another generation, maybe after a roll-back"
        assert (applier.applied_generation, applier.applied) == (2, LSN(1, 28))


class TestStrangeMessages:
    def test_a_lease_or_a_short_control_part_never_reaches_the_library(self, sites: Pair) -> None:
        calls = sites.replicant.seen.calls
        calls.clear()
        sites.deliver(
            [
                frame(control(RepType.LOG, flags=LEASE), b"lease"),
                frame(control(RepType.LOG)[:35], b"short"),
                frame(b"", b""),
            ]
        )
        wait_for("they are refused", lambda: len(sites.replicant.told.failures) == 3)
        assert calls == []
        end = sites.commit(1)
        wait_for("and nothing stands still", lambda: acked(sites) == end)

    def test_what_the_library_refuses_stops_nothing(self, sites: Pair) -> None:
        wrong = bytearray(control(RepType.LOG))
        wrong[3] = 99  # the version of the library's messages
        sites.deliver([frame(bytes(wrong), b"")])
        wait_for("it is told", lambda: sites.replicant.told.failures)
        end = sites.commit(1)
        wait_for("and nothing stands still", lambda: acked(sites) == end)

    def test_nor_does_a_bug(self, sites: Pair) -> None:
        sites.replicant.seen.raises.append(TypeError("a bug"))
        sites.deliver([frame(control(RepType.MASTER_REQ), b"")])
        wait_for("it is told", lambda: sites.replicant.told.failures)
        end = sites.commit(1)
        wait_for("and nothing stands still", lambda: acked(sites) == end)

    def test_a_deadlock_is_tried_again(self, sites: Pair) -> None:
        sites.replicant.seen.raises += [db.DBLockDeadlockError(-30993, "deadlock")] * 3
        end = sites.commit(1)
        wait_for("it is acknowledged", lambda: acked(sites) == end)
        assert not sites.replicant.told.failures

    def test_so_is_what_came_while_the_library_changed_its_role(self, sites: Pair) -> None:
        sites.replicant.seen.raises += [db.DBRepLockoutError(-30978, "operation locked out")] * 3
        end = sites.commit(1)
        wait_for("it is acknowledged", lambda: acked(sites) == end)
        assert not sites.replicant.told.failures

    def test_but_not_for_ever(self, sites: Pair) -> None:
        tries = apply._DEADLOCK_RETRIES_MAX
        sites.replicant.seen.raises += [db.DBLockDeadlockError(-30993, "deadlock")] * tries
        sites.deliver([frame(control(RepType.MASTER_REQ), b"")])
        wait_for("it is told", lambda: sites.replicant.told.failures)
        assert len(sites.replicant.told.failures) == 1

    def test_a_roll_back_that_is_not_allowed_is_told(self, sites: Pair) -> None:
        sites.replicant.seen.raises += [
            db.DBError(0, "it does not match yet"),
            db.DBError(WOULD_ROLLBACK, "would roll back"),
        ]
        verify = bytearray(control(RepType.VERIFY))
        verify[8:16] = (3).to_bytes(4) + (28).to_bytes(4)
        later = bytearray(verify)
        later[12:16] = (1028).to_bytes(4)
        sites.deliver([frame(bytes(later), b""), frame(bytes(verify), b"")])
        wait_for("it is told", lambda: sites.replicant.told.announced)
        assert sites.replicant.told.announced == [LSN(3, 28)]
        sites.replicant.told.failures.clear()
        assert not sites.replicant.told.failures

    def test_the_log_is_flushed_before_somebody_compares_it(self, sites: Pair) -> None:
        # libdb 5.3.28 dies when it serves a VERIFY_REQ inside a record that is half on disk.
        calls = sites.master.seen.calls
        calls.clear()
        lsn = tuple(sites.commit(1))
        request = frame(control(RepType.VERIFY_REQ, lsn=(lsn[0], lsn[1])), b"")
        sites.master.applier.put(MASTER_EID + 1, [request], 36)
        message = f"message {int(RepType.VERIFY_REQ)}"
        wait_for("it is served", lambda: message in calls)
        assert calls[calls.index(message) - 1] == "flush"

    def test_start_sync_holds_nothing_up(self, sites: Pair) -> None:
        seen = sites.replicant.seen
        seen.hold = RepType.START_SYNC
        seen.open.clear()
        sites.deliver([frame(control(RepType.START_SYNC), b"")])
        end = sites.commit(1)
        wait_for("later messages are acknowledged", lambda: acked(sites) == end)
        seen.open.set()
        message = f"message {int(RepType.START_SYNC)}"
        wait_for("it is done beside them", lambda: message in seen.calls)

    def test_a_master_that_is_back_is_told_although_the_library_has_no_event(
        self, sites: Pair
    ) -> None:
        told = sites.replicant.told
        told.masters.clear()
        sites.master.env.rep_start(db.DB_REP_MASTER)  # says NEWMASTER again, the same generation
        wait_for("it is heard", lambda: told.masters == [MASTER_EID])
        assert sites.replicant.env.rep_stat()["master"] == MASTER_EID


class TestBounds:
    def test_a_full_queue_says_stop_and_later_go_on(self, tmp_path: Path) -> None:
        with pair(tmp_path, bytes_max=3000) as sites:
            seen, applier, told = (
                sites.replicant.seen,
                sites.replicant.applier,
                sites.replicant.told,
            )
            wait_for("nothing waits", lambda: applier.queued_bytes == 0)
            rooms = told.rooms
            sites.kept = []
            end = sites.commit(20, size=500)
            seen.open.clear()
            stops = [sites.deliver([each]) for each in sites.kept]
            assert not stops[0]
            assert stops[-1]
            assert stops == sorted(stops), "full until there is room"
            assert told.rooms == rooms
            seen.open.set()
            wait_for("there is room", lambda: told.rooms == rooms + 1)
            wait_for("all is applied", lambda: acked(sites) == end)
            assert applier.queued_bytes == 0
            assert told.rooms == rooms + 1, "said once"
            assert not sites.deliver([])

    def test_one_message_larger_than_the_queue_passes(self, tmp_path: Path) -> None:
        with pair(tmp_path, bytes_max=3000) as sites:
            rooms = sites.replicant.told.rooms
            end = sites.commit(1, size=100_000)
            wait_for("it is applied", lambda: acked(sites) == end)
            wait_for("there is room", lambda: sites.replicant.told.rooms > rooms)

    def test_what_a_site_asks_waits_while_its_queue_is_full(self, sites: Pair) -> None:
        told, seen = sites.master.told, sites.master.seen
        message = f"message {int(RepType.ALL_REQ)}"
        told.choked = True
        seen.calls.clear()
        request = frame(control(RepType.ALL_REQ), b"")
        sites.master.applier.put(2, [request], 36)
        other = frame(control(RepType.MASTER_REQ), b"")
        sites.master.applier.put(2, [other], 36)
        wait_for("others pass", lambda: f"message {int(RepType.MASTER_REQ)}" in seen.calls)
        assert message not in seen.calls
        told.choked = False
        wait_for("then it is served", lambda: message in seen.calls)

    def test_wishes_of_a_site_that_reads_nothing_are_bounded(
        self, sites: Pair, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(apply, "DEFERRED_MAX", 5)
        sites.master.told.choked = True
        sites.master.seen.calls.clear()
        request = frame(control(RepType.ALL_REQ), b"")
        marker = frame(control(RepType.MASTER_REQ), b"")
        sites.master.applier.put(2, [request] * 50 + [marker], 51 * 36)
        calls = sites.master.seen.calls
        wait_for("all were looked at", lambda: f"message {int(RepType.MASTER_REQ)}" in calls)
        sites.master.told.choked = False
        wait_for("some are served", lambda: calls.count(f"message {int(RepType.ALL_REQ)}") == 5)


class TestVoting:
    """Log waits while a vote is out, all else passes."""

    def begin(self, sites: Pair, vote: int = 2) -> None:
        replicant = sites.replicant
        assert replicant.held.begin().result(20) is None
        replicant.held.voted(vote)
        replicant.seen.calls.clear()
        replicant.told.acks.clear()

    def test_what_was_received_before_the_vote_is_applied_and_acknowledged_first(
        self, sites: Pair, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(apply, "FLUSH_EVERY_S", 60.0)
        replicant = sites.replicant
        replicant.seen.open.clear()
        end = sites.commit(20)
        drained = replicant.held.begin()
        later = sites.commit(1)
        assert not drained.done()
        replicant.seen.open.set()
        drained.result(20)
        assert acked(sites) == end
        assert replicant.held.holding
        wait_for("nothing waits", lambda: replicant.applier.queued_bytes == 0)
        assert acked(sites) == end
        assert replicant.held.kept
        assert replicant.env.rep_stat()["max_perm_lsn"][1] < later.offset

    def test_log_waits_and_control_passes(self, sites: Pair) -> None:
        replicant = sites.replicant
        self.begin(sites)
        end = sites.commit(10)
        for kind in (RepType.ALIVE_REQ, RepType.VOTE1, RepType.NEWMASTER, RepType.LOG_REQ):
            sites.deliver([frame(control(kind), bytes(24))])
            passed = f"message {int(kind)}"
            wait_for(passed, partial(replicant.seen.calls.count, passed))
        assert f"message {int(RepType.LOG)}" not in replicant.seen.calls
        assert not replicant.told.acks
        assert held(sites) == 1
        assert replicant.told.released == []
        # The election had no result, and the master is back.
        replicant.held.over(0.0, 2.0)
        replicant.held.expire(1.9)
        assert replicant.held.holding
        replicant.held.expire(2.0)
        wait_for("all is acknowledged", lambda: (1, end) in replicant.told.acks)
        wait_for("it is told", lambda: replicant.told.released)
        assert replicant.told.released == [(replicant.held.kept, 0)]
        assert held(sites) == 11
        after = sites.commit(1)
        wait_for("and so is what comes", lambda: (1, after) in replicant.told.acks)

    def test_a_master_that_is_not_of_this_vote_ends_nothing(self, sites: Pair) -> None:
        replicant = sites.replicant
        self.begin(sites, vote=5)
        replicant.held.over(0.0, 2.0)
        replicant.told.masters.clear()
        sites.master.env.rep_start(db.DB_REP_MASTER)  # says NEWMASTER again
        end = sites.commit(1)
        wait_for("it is heard", lambda: replicant.told.masters)
        wait_for("nothing waits", lambda: replicant.applier.queued_bytes == 0)
        assert replicant.held.holding
        assert not replicant.told.acks
        replicant.held.master(5)
        wait_for("its log passes", lambda: (1, end) in replicant.told.acks)

    def test_a_master_of_this_vote_is_followed_at_once(self, sites: Pair) -> None:
        replicant, env = sites.replicant, sites.master.env
        self.begin(sites, vote=2)
        replicant.held.over(0.0, 60.0)
        sites.database.close()
        env.rep_start(db.DB_REP_CLIENT)
        env.rep_start(db.DB_REP_MASTER)  # one generation higher
        assert env.rep_stat()["gen"] == 2
        sites.database = db.DB(env)
        sites.database.open("keys.db", dbtype=db.DB_BTREE, flags=db.DB_AUTO_COMMIT)
        end = sites.commit(1)
        wait_for("its log passes", lambda: (2, end) in replicant.told.acks)
        assert replicant.told.released

    def test_what_is_too_much_is_dropped_and_asked_for_again(self, tmp_path: Path) -> None:
        with pair(tmp_path, bytes_max=3000) as sites:
            replicant = sites.replicant
            self.begin(sites)
            kept_back = sites.commit(50, size=500)
            wait_for("nothing waits", lambda: replicant.applier.queued_bytes == 0)
            assert 0 < replicant.held.kept < 30
            assert replicant.held.dropped > 40
            assert not replicant.told.acks
            replicant.held.over(0.0, 2.0)
            replicant.held.expire(2.0)
            wait_for("it is told", lambda: replicant.told.released)
            assert replicant.told.released == [(replicant.held.kept, replicant.held.dropped)]
            # The library looks for a gap now and then, when something comes behind it.
            acks = replicant.told.acks
            wait_for("it asks", lambda: [sites.commit(1)] and acks and acks[-1][1] > kept_back)
            end = sites.commit(1)
            wait_for("all is acknowledged", lambda: (1, end) in acks)
            assert held(sites) == len(sites.names)


def test_a_membership_change_of_a_native_master_is_noticed_with_its_transaction(
    sites: Pair,
) -> None:
    record = (200).to_bytes(4, "little") + bytes(60)
    seen = sites.replicant.seen
    sites.kept = []
    end = sites.commit(1)
    real = seen.rep_process_message

    def process(control_: bytes, record_: bytes, eid: int) -> object:
        # The library never sees the made-up record; everything else goes to it.
        return (None, None) if record_ == record else real(control_, record_, eid)

    seen.rep_process_message = process  # type: ignore[assignment, method-assign]
    sites.deliver([frame(control(RepType.LOG), record), *sites.kept])
    wait_for("it is applied", lambda: acked(sites) == end)
    wait_for("it is told", lambda: sites.replicant.told.membership == 1)
