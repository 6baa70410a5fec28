"""The simulated library does what Berkeley DB does: each script is played on both.

A script that fails on "library" says something wrong about Berkeley DB; one that fails on
"simulated" has found where the simulation is not faithful.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from berkeleydb import db

from replication import library
from replication.messages import RepType
from replication.wire import LSN_ZERO
from tests.sim.library import AUTOROLLBACK
from tests.sim.stage import LibraryStage, Options, SimulatedStage, Site, Stage
from tests.support.environments import fast_directory

MASTER, CLIENT = db.DB_REP_MASTER, db.DB_REP_CLIENT
WOULD_ROLLBACK = -30974


@pytest.fixture(params=["library", "simulated"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    if request.param == "simulated":
        yield SimulatedStage()
        return
    with fast_directory(tmp_path) as directory:
        made = LibraryStage(directory)
        try:
            yield made
        finally:
            made.close_all()


def in_step(stage: Stage, *clients: Site) -> None:
    stage.until("clients are in step", lambda: all(c.stat["startup_complete"] for c in clients))


def group(stage: Stage, count: int = 2, priorities: tuple[int, ...] = ()) -> list[Site]:
    """A master and clients in step with it; the first write is there."""
    options = [Options(priority=p) for p in priorities] or [Options()] * count
    sites = [stage.site(o) for o in options]
    sites[0].start(MASTER)
    sites[0].env.commit(b"first", b"0")
    for site in sites[1:]:
        site.start(CLIENT)
        in_step(stage, site)
    for site in sites:
        site.answers.clear()
        site.events.clear()
    return sites


def lose_master(stage: Stage, master: Site) -> None:
    stage.close(master)
    stage.settle()


def flood(stage: Stage, master: Site, name: bytes = b"flood") -> None:
    """Write enough to fill several log files, and let go of the old ones."""
    first = library.standing(master.handle).last_lsn.file
    number = 0
    while library.standing(master.handle).last_lsn.file < first + 3:
        master.env.commit(b"%s %d" % (name, number), bytes(1000))
        number += 1
    master.env.checkpoint()
    master.env.remove_logs()
    cursor = master.handle.log_cursor()
    begins = cursor.first()
    cursor.close()
    assert begins is not None
    assert begins[0][0] & 0xFFFF_FFFF > first, "the log begins behind what others have"


# -- roles and generations -------------------------------------------------------------------------


def test_messages_mean_nothing_before_a_role(stage: Stage) -> None:
    one, two = stage.site(), stage.site()
    one.start(MASTER)
    [announcement] = [m for m in stage.queue if m.kind is RepType.NEWMASTER]
    with pytest.raises(db.DBInvalidArgError):
        two.take(announcement)


def test_an_empty_environment_has_no_log(stage: Stage) -> None:
    one = stage.site()
    held = library.standing(one.handle)
    assert (held.generation, held.last_lsn, held.permanent) == (0, LSN_ZERO, LSN_ZERO)


def test_each_new_master_has_a_higher_generation(stage: Stage) -> None:
    one = stage.site()
    generations = []
    for role in (MASTER, CLIENT, MASTER, MASTER):
        one.start(role)
        generations.append(one.stat["gen"])
    stage.close(one)
    stage.reopen(one)
    generations.append(one.stat["gen"])
    one.start(MASTER)
    generations.append(one.stat["gen"])
    assert generations == [1, 1, 2, 2, 2, 3]
    assert one.events == ["MASTER"]


def test_a_generation_can_be_raised(stage: Stage) -> None:
    one = stage.site()
    assert library.start_master(one.handle, 7) == 8
    assert one.stat["gen"] == 8


def test_a_client_does_not_write(stage: Stage) -> None:
    _master, client = group(stage)
    with pytest.raises(db.DBError):
        client.env.commit(b"mine", b"1")


def test_what_a_master_writes_first_is_in_its_log(stage: Stage) -> None:
    one = stage.site()
    one.start(MASTER)
    assert library.standing(one.handle).permanent > LSN_ZERO


# -- following -------------------------------------------------------------------------------------


def test_a_new_client_gets_a_copy_and_follows(stage: Stage) -> None:
    master, client = stage.site(), stage.site()
    master.start(MASTER)
    master.env.commit(b"before", b"1")
    client.start(CLIENT)
    stage.settle()
    wrote = master.env.commit(b"after", b"2")
    stage.settle()
    assert client.events == ["CLIENT", "NEWMASTER:1", "INIT_DONE", "STARTUPDONE"]
    assert client.answers[-1] == ("ISPERM", wrote)
    assert client.max_perm == wrote
    assert client.env.get(b"before") == b"1"
    assert client.env.get(b"after") == b"2"
    assert client.stat["gen"] == master.stat["gen"]
    assert stage.count(RepType.PAGE_REQ, client) > 0


def test_a_client_that_was_away_takes_no_copy(stage: Stage) -> None:
    master, client = group(stage)
    stage.close(client)
    wrote = master.env.commit(b"meanwhile", b"1")
    stage.settle()
    pages = stage.count(RepType.PAGE_REQ)
    stage.reopen(client)
    client.start(CLIENT)
    stage.settle()
    assert client.events == ["CLIENT", "NEWMASTER:1", "STARTUPDONE"]
    assert client.env.get(b"meanwhile") == b"1"
    assert client.max_perm >= wrote
    assert stage.count(RepType.PAGE_REQ) == pages
    assert stage.count(RepType.UPDATE_REQ, client) > 1, "it looks for databases in memory"


def test_a_record_that_comes_twice_is_acknowledged_twice(stage: Stage) -> None:
    master, client = group(stage)
    wrote = master.env.commit(b"key", b"1")
    commits = [m for m in stage.queue if m.to == client.eid]
    stage.settle()
    client.answers.clear()
    for message in commits:
        client.take(message)
    assert client.answers == [("ISPERM", wrote)]


def test_what_comes_too_early_waits(stage: Stage) -> None:
    master, client = group(stage)
    stage.keeps = lambda m: m.kind is RepType.LOG and not stage.kept
    first = master.env.commit(b"key", b"1")
    last = master.env.commit(b"key", b"2")
    stage.settle()
    assert client.answers == [("NOTPERM", first), ("NOTPERM", last)]
    client.answers.clear()
    stage.release()
    assert client.answers == [("ISPERM", last)]
    assert client.env.get(b"key") == b"2"


def test_what_was_lost_is_asked_for(stage: Stage) -> None:
    master, client = group(stage)
    stage.keeps = lambda m: m.kind is RepType.LOG and not stage.kept
    master.env.commit(b"lost", b"1")
    stage.until(
        "it has the lost record",
        lambda: client.env.get(b"lost") == b"1",
        lambda: master.env.commit(b"more", b"2"),
    )
    assert stage.count(RepType.LOG_REQ, client) + stage.count(RepType.ALL_REQ, client) > 1


def test_log_files_end_and_begin(stage: Stage) -> None:
    master, client = group(stage)
    first = library.standing(master.handle).last_lsn.file
    while library.standing(master.handle).last_lsn.file == first:
        wrote = master.env.commit(b"key", bytes(1000))
    stage.settle()
    assert client.answers[-1] == ("ISPERM", wrote)
    assert library.standing(client.handle).last_lsn == library.standing(master.handle).last_lsn
    assert stage.count(RepType.NEWFILE, master) > 0


def test_a_client_catches_up_over_the_end_of_a_file(stage: Stage) -> None:
    master, client = group(stage)
    stage.close(client)
    first = library.standing(master.handle).last_lsn.file
    while library.standing(master.handle).last_lsn.file == first:
        master.env.commit(b"key", bytes(1000))
    wrote = master.env.commit(b"key", b"last")
    stage.settle()
    stage.reopen(client)
    client.start(CLIENT)
    in_step(stage, client)
    assert client.max_perm == wrote
    assert client.env.get(b"key") == b"last"


def test_a_checkpoint_is_permanent(stage: Stage) -> None:
    master, client = group(stage)
    master.env.checkpoint()
    stage.settle()
    assert client.answers[-1][0] == "ISPERM"
    assert client.max_perm == library.standing(master.handle).permanent


def test_the_same_master_is_news_once(stage: Stage) -> None:
    master, client = group(stage)
    client.start(CLIENT)  # asks again
    stage.settle()
    assert client.events == []
    assert client.stat["master"] == master.eid
    assert stage.count(RepType.NEWMASTER, master) > 2


def test_messages_of_an_older_generation_are_ignored(stage: Stage) -> None:
    master, client = group(stage)
    master.env.commit(b"old", b"1")
    old = [m for m in stage.queue if m.to == client.eid]
    stage.queue.clear()
    master.start(CLIENT)
    master.start(MASTER)
    stage.until("it follows", lambda: client.stat["gen"] == master.stat["gen"])
    client.answers.clear()
    for message in old:
        client.take(message)
    assert client.answers == [("IGNORE", None)]


# -- copies ----------------------------------------------------------------------------------------


def test_a_client_whose_log_is_too_old_gets_a_new_copy(stage: Stage) -> None:
    master, client = group(stage)
    stage.close(client)
    flood(stage, master)
    stage.settle()
    stage.reopen(client)
    client.start(CLIENT)
    in_step(stage, client)
    assert client.events == ["CLIENT", "NEWMASTER:1", "INIT_DONE", "STARTUPDONE"]
    assert client.env.get(b"flood 0") == bytes(1000)
    assert client.env.get(b"first") == b"0"


def test_without_automatic_initialisation_it_says_so(stage: Stage) -> None:
    master, client = group(stage)
    stage.close(client)
    flood(stage, master)
    stage.settle()
    client.options.autoinit = False
    stage.reopen(client)
    client.start(CLIENT)
    stage.settle()
    assert ("JOIN_FAILURE", None) in client.answers
    assert "STARTUPDONE" not in client.events


def test_nobody_becomes_master_with_half_a_copy(stage: Stage) -> None:
    master, client = stage.site(), stage.site()
    master.start(MASTER)
    master.env.commit(b"before", b"1")
    client.start(CLIENT)
    stage.keeps = lambda m: m.kind is RepType.PAGE
    stage.settle()
    assert stage.kept
    with pytest.raises(db.DBRepUnavailError):
        client.start(MASTER)


def test_half_a_copy_is_nothing_after_a_restart(stage: Stage) -> None:
    master, client = group(stage)
    stage.close(client)
    flood(stage, master)
    stage.settle()
    stage.reopen(client)
    client.start(CLIENT)
    stage.keeps = lambda m: m.kind is RepType.PAGE
    stage.settle()
    assert stage.kept
    stage.kept.clear()
    stage.close(client)
    stage.keeps = lambda _message: False
    stage.reopen(client)
    assert library.standing(client.handle).last_lsn == LSN_ZERO
    client.start(CLIENT)
    in_step(stage, client)
    assert client.env.get(b"flood 0") == bytes(1000)


def test_a_copy_that_breaks_off_begins_anew_with_the_next_master(stage: Stage) -> None:
    master, other, client = group(stage, 3)
    stage.close(client)
    flood(stage, master)
    in_step(stage, other)
    stage.reopen(client)
    client.start(CLIENT)
    stage.keeps = lambda m: m.kind is RepType.PAGE
    stage.settle()
    stage.kept.clear()
    stage.keeps = lambda _message: False
    lose_master(stage, master)
    other.start(MASTER)
    in_step(stage, client)
    other.env.commit(b"new", b"1")
    stage.settle()
    assert client.env.get(b"new") == b"1"
    assert client.env.get(b"first") == b"0"


# -- elections -------------------------------------------------------------------------------------


def elect(stage: Stage, *sites: Site, nsites: int, nvotes: int) -> None:
    for site in sites:
        site.elect(nsites, nvotes)
    stage.settle()


def winners(*sites: Site) -> list[int]:
    return [site.eid for site in sites if "ELECTED" in site.events]


def test_the_longest_log_wins_over_priority(stage: Stage) -> None:
    master, one, two = group(stage, priorities=(10, 5, 90))
    stage.keeps = lambda m: m.to == two.eid
    master.env.commit(b"key", b"1")
    lose_master(stage, master)
    stage.kept.clear()
    stage.keeps = lambda _message: False
    elect(stage, one, two, nsites=2, nvotes=2)
    assert winners(one, two) == [one.eid]
    assert one.elections == ["decided"]


def test_equal_logs_leave_it_to_the_priority(stage: Stage) -> None:
    master, one, two = group(stage, priorities=(10, 50, 90))
    lose_master(stage, master)
    elect(stage, one, two, nsites=2, nvotes=2)
    assert winners(one, two) == [two.eid]
    two.start(MASTER)
    stage.settle()
    assert two.stat["gen"] > 1
    assert one.events[-2:] == [f"NEWMASTER:{two.eid}", "STARTUPDONE"]


def test_the_newer_data_wins_over_the_longer_log(stage: Stage) -> None:
    master, one, two = group(stage, priorities=(10, 10, 10))
    # Two writes that reach nobody but `one`, in generation 1.
    stage.keeps = lambda m: m.to == two.eid
    for number in range(9):
        master.env.commit(b"long %d" % number, bytes(1000))
    stage.settle()
    stage.kept.clear()
    lose_master(stage, master)
    stage.keeps = lambda m: one.eid in (m.to, m.sender)
    two.start(MASTER)  # generation 2, by the operator's word; it is shorter
    two.env.commit(b"short", b"2")
    stage.settle()
    stage.kept.clear()
    assert library.standing(two.handle).last_lsn < library.standing(one.handle).last_lsn
    two.start(CLIENT)
    stage.keeps = lambda _message: False
    stage.queue.clear()
    stage.joins = (2, 2)
    stage.until("somebody is elected", lambda: winners(one, two), lambda: one.elect(2, 2))
    assert winners(one, two) == [two.eid]


def test_priority_0_never_wins(stage: Stage) -> None:
    master, one, two = group(stage, priorities=(10, 0, 1))
    stage.keeps = lambda m: m.to == two.eid
    master.env.commit(b"key", b"1")
    lose_master(stage, master)
    stage.kept.clear()
    stage.keeps = lambda _message: False
    elect(stage, one, two, nsites=2, nvotes=2)
    assert winners(one, two) == [two.eid]


def test_nobody_is_elected_among_sites_of_priority_0(stage: Stage) -> None:
    master, one, two = group(stage, priorities=(10, 0, 0))
    lose_master(stage, master)
    elect(stage, one, two, nsites=2, nvotes=2)
    assert winners(one, two) == []
    assert one.elections == two.elections == ["unavailable"]


def test_too_few_votes_elect_nobody(stage: Stage) -> None:
    master, one, two = group(stage, 3)
    lose_master(stage, master)
    lose_master(stage, two)
    elect(stage, one, nsites=3, nvotes=2)
    assert winners(one) == []
    assert one.elections == ["unavailable"]


def test_a_majority_elects_when_the_time_is_over(stage: Stage) -> None:
    master, one, two = group(stage, 3)
    lose_master(stage, master)
    elect(stage, one, two, nsites=3, nvotes=2)
    assert len(winners(one, two)) == 1


def test_a_site_is_asked_to_take_part(stage: Stage) -> None:
    master, one, two = group(stage, 3)
    lose_master(stage, master)
    elect(stage, one, nsites=2, nvotes=2)
    assert ("HOLDELECTION", None) in two.answers
    assert one.elections == ["unavailable"]


def test_nobody_votes_twice_in_one_election(stage: Stage) -> None:
    master, one, two = group(stage, 3)
    lose_master(stage, master)
    lose_master(stage, two)
    before = one.stat["egen"]
    elect(stage, one, nsites=3, nvotes=2)
    assert one.stat["egen"] == before + 1
    stage.close(one)
    stage.reopen(one)
    assert one.stat["egen"] == before + 1, "it is kept in a file"


def test_a_site_that_is_behind_learns_the_number_of_the_election(stage: Stage) -> None:
    master, one, two = group(stage, 3)
    lose_master(stage, master)
    stage.keeps = lambda m: two.eid in (m.to, m.sender)
    for _ in range(3):
        elect(stage, one, nsites=3, nvotes=2)
    stage.kept.clear()
    stage.keeps = lambda _message: False
    elect(stage, two, nsites=2, nvotes=2)
    assert ("HOLDELECTION", None) in two.answers
    assert two.stat["egen"] >= one.stat["egen"]


def test_no_log_is_applied_while_a_site_votes(stage: Stage) -> None:
    master, client = group(stage)
    client.elect(3, 2)
    stage.keeps = lambda m: m.kind in (RepType.VOTE1, RepType.NEWMASTER)
    wait_for_vote(stage)
    wrote = master.env.commit(b"key", b"1")
    while stage.queue:
        message = stage.queue.popleft()
        if not stage.keeps(message):
            stage.deliver(message)
    assert ("NOTPERM", wrote) in client.answers
    assert all(name != "ISPERM" for name, _lsn in client.answers)
    stage.settle()
    assert client.elections == ["unavailable"]
    stage.until("what was skipped is asked for", lambda: client.env.get(b"key") == b"1")


def wait_for_vote(stage: Stage) -> None:
    for _ in range(10_000):
        if stage.count(RepType.VOTE1):
            return
        stage.pause()
    raise AssertionError("nobody voted")


def test_a_master_answers_votes_by_saying_so(stage: Stage) -> None:
    master, client = group(stage)
    client.elect(2, 2)
    stage.settle()
    assert winners(client) == []
    assert client.elections == ["decided"]
    assert client.stat["master"] == master.eid


# -- two masters -----------------------------------------------------------------------------------


def test_two_masters_find_out(stage: Stage) -> None:
    one, two = group(stage)
    stage.keeps = lambda _message: True
    two.start(MASTER)
    stage.settle()
    stage.kept.clear()
    stage.keeps = lambda _message: False
    two.env.commit(b"key", b"2")
    stage.settle()
    assert ("DUPMASTER", None) in one.answers
    one.start(CLIENT)
    stage.settle()
    assert one.stat["master"] == two.eid
    assert one.env.get(b"key") == b"2"


def test_what_nobody_else_has_is_rolled_back(stage: Stage) -> None:
    one, two = group(stage)
    stage.keeps = lambda _message: True
    one.env.commit(b"alone", b"1")
    two.start(MASTER)
    two.env.commit(b"key", b"2")
    stage.settle()
    stage.kept.clear()
    stage.keeps = lambda _message: False
    one.start(CLIENT)
    in_step(stage, one)
    assert one.env.get(b"alone") is None
    assert one.env.get(b"key") == b"2"
    assert library.standing(one.handle).last_lsn == library.standing(two.handle).last_lsn


def test_a_rollback_can_be_refused(stage: Stage) -> None:
    one, two = group(stage)
    one.handle.rep_set_config(AUTOROLLBACK, 0)
    stage.keeps = lambda _message: True
    one.env.commit(b"alone", b"1")
    two.start(MASTER)
    stage.settle()
    stage.kept.clear()
    stage.keeps = lambda _message: False
    one.start(CLIENT)
    with pytest.raises(db.DBError) as refused:
        stage.settle()
    assert refused.value.args[0] == WOULD_ROLLBACK
    stage.settle()
    assert one.env.get(b"alone") == b"1"
    assert "STARTUPDONE" not in one.events


def test_what_recovery_wrote_is_no_rollback(stage: Stage) -> None:
    master, client = group(stage)
    stage.close(client)
    client.options.autorollback = False
    stage.reopen(client)
    own = library.standing(client.handle).last_lsn
    assert own > library.standing(master.handle).last_lsn, "its own checkpoint"
    client.start(CLIENT)
    in_step(stage, client)
    assert library.standing(client.handle).last_lsn == library.standing(master.handle).last_lsn
