"""The library's replication calls on a real environment: generations, elections, standing."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from berkeleydb import db

from replication import library
from replication.messages import RepType
from replication.wire import LSN, LSN_ZERO
from tests.sim.protocol import Control, Vote
from tests.support.replicated import DEADLINE_S, environment, pair, wait_for


class TestGenerations:
    def test_a_fresh_environment_starts_low(self, tmp_path: Path) -> None:
        with environment(tmp_path) as env:
            assert library.start_master(env, 0) == 1

    @pytest.mark.parametrize("above", [1, 7, 100_000])
    def test_a_fresh_environment_goes_above(self, tmp_path: Path, above: int) -> None:
        with environment(tmp_path) as env:
            assert library.start_master(env, above) > above

    def test_an_old_environment_goes_above(self, tmp_path: Path) -> None:
        with environment(tmp_path) as env:
            library.start_master(env, 0)
        with environment(tmp_path) as env:
            assert library.start_master(env, 41) > 41
        with environment(tmp_path) as env:
            assert library.standing(env).generation > 41, "and remembers it"
            assert library.start_master(env, 0) > 42

    def test_files_of_replication_removed_by_hand(self, tmp_path: Path) -> None:
        with environment(tmp_path) as env:
            library.start_master(env, 30)
            end = library.standing(env).last_lsn
        for file in tmp_path.glob("__db*"):
            file.unlink()
        with environment(tmp_path) as env:
            held = library.standing(env)
            assert held.generation == 0, "that is the trap"
            assert held.last_lsn >= end, "the log is still there"
            assert library.start_master(env, 31) > 31

    def test_a_client_becomes_master_above(self, tmp_path: Path) -> None:
        with environment(tmp_path) as env:
            library.start_client(env)
            assert library.start_master(env, 9) > 9
            assert env.rep_stat()["status"] == db.DB_REP_MASTER

    def test_a_master_says_it_again_without_a_new_generation(self, tmp_path: Path) -> None:
        with environment(tmp_path) as env:
            generation = library.start_master(env, 5)
            assert library.start_master(env, 0) == generation
            assert library.start_master(env, 50) == generation

    def test_writes_work_above(self, tmp_path: Path) -> None:
        with environment(tmp_path) as env:
            library.start_master(env, 1000)
            handle = db.DB(env)
            flags = db.DB_CREATE | db.DB_AUTO_COMMIT
            handle.open("keys.db", dbtype=db.DB_BTREE, flags=flags)
            handle.put(b"key", b"value")
            assert handle.get(b"key") == b"value"
            handle.close()


class TestStanding:
    def test_an_empty_environment_holds_nothing(self, tmp_path: Path) -> None:
        with environment(tmp_path) as env:
            assert library.standing(env) == library.LogStanding(0, LSN_ZERO, LSN_ZERO, LSN_ZERO)

    def test_the_end_of_the_log_may_be_what_no_replicant_acknowledges(self, tmp_path: Path) -> None:
        """Behind a commit stand the records of files that were opened and closed."""
        with environment(tmp_path) as env:
            library.start_master(env, 0)
            database = db.DB(env)
            database.open("keys.db", dbtype=db.DB_BTREE, flags=db.DB_CREATE | db.DB_AUTO_COMMIT)
            database.put(b"key", b"value")
            written = library.standing(env)
            database.close()
            closed = library.standing(env)
            env.rep_set_timeout(db.DB_REP_CHECKPOINT_DELAY, 0)
            env.txn_checkpoint(0, 0, db.DB_FORCE)
            checkpoint = library.standing(env)
        assert written.permanent == written.last_lsn == closed.permanent
        assert closed.last_lsn > closed.permanent
        assert checkpoint.permanent == checkpoint.last_lsn
        assert checkpoint.committed == closed.committed == written.last_lsn

    def test_what_recovery_writes_is_no_data(self, tmp_path: Path) -> None:
        with environment(tmp_path) as env:
            library.start_master(env, 0)
            before = library.standing(env)
        with environment(tmp_path) as env:
            after = library.standing(env)
        assert after.last_lsn > before.last_lsn
        assert after.committed == before.committed

    def test_the_last_record_counts(self, tmp_path: Path) -> None:
        with environment(tmp_path) as env:
            library.start_master(env, 0)
            held = library.standing(env)
            assert held.last_lsn > LSN(1, 0)
            assert held.last_lsn < LSN(1, env.log_stat()["cur_offset"])

    def test_a_site_in_step_may_acknowledge_and_one_alone_may_not(self, tmp_path: Path) -> None:
        with pair(tmp_path / "pair") as sites:
            end = sites.commit(3)
            env = sites.replicant.env
            wait_for("in step", lambda: library.in_step(env).reached == end)
            assert library.in_step(env).generation == 1
        with environment(tmp_path / "pair" / "r") as env:
            library.start_client(env)
            assert library.in_step(env).reached == LSN_ZERO, "it compared its log with nobody's"


class TestElections:
    def test_one_site_alone_wins(self, tmp_path: Path) -> None:
        with environment(tmp_path) as env:
            library.start_client(env)
            assert library.elect(env, 1, 1, 0.05) == "decided"

    def test_too_few_answers_are_an_outcome(self, tmp_path: Path) -> None:
        with environment(tmp_path) as env:
            library.start_client(env)
            assert "1 of 2 votes came" in library.elect(env, 3, 2, 0.05)

    def test_a_vote_is_remembered_until_a_master_is_found(self, tmp_path: Path) -> None:
        with environment(tmp_path) as env:
            library.start_client(env)
            library.elect(env, 3, 2, 0.05)
            voted_in = env.rep_stat()["egen"] - 1
        with environment(tmp_path) as env:
            assert library.standing(env).vote == voted_in > 0
            library.start_master(env, 0)
            assert env.rep_stat()["gen"] > voted_in
        with environment(tmp_path) as env:
            assert library.standing(env).vote is None

    @pytest.mark.parametrize("at_once", [True, False], ids=["at once", "when the call returned"])
    def test_an_election_makes_one_generation_whenever_its_winner_takes_over(
        self, tmp_path: Path, at_once: bool
    ) -> None:
        won = threading.Event()

        def told(_env: db.DBEnv, what: int, _argument: object = None) -> None:
            if what == db.DB_EVENT_REP_ELECTED:
                won.set()

        with environment(tmp_path) as env:
            env.set_event_notify(told)
            library.start_client(env)
            number = env.rep_stat()["egen"]
            elect = threading.Thread(target=library.elect, args=(env, 2, 2, 5.0))
            elect.start()
            wait_for("it votes", lambda: env.rep_stat()["election_status"])
            generation = env.rep_stat()["gen"]
            other = Vote(number, 2, 2, priority=0)
            for kind in RepType.VOTE1, RepType.VOTE2:
                env.rep_process_message(Control(kind, generation).encode(), other.encode(), 2)
            assert won.wait(DEADLINE_S)
            if not at_once:
                elect.join()
            assert library.start_master(env, number) == number + 1
            elect.join()
            assert env.rep_stat()["status"] == db.DB_REP_MASTER

    def test_a_site_without_a_role_cannot_vote(self, tmp_path: Path) -> None:
        with environment(tmp_path) as env:
            assert library.elect(env, 1, 1, 0.05).startswith("the election failed")
