"""What a site waits for: since when, when it is spoken of, when it is an alarm."""

from __future__ import annotations

from dataclasses import replace

from ttserver.waits import KINDS, Look, Wait, WaitTracker

AFTER_S = 10.0
WALL_S = 1_800_000_000.0
MASTER = Wait("master", "no master", "start it.")
SYNC = Wait("sync", "receiving pages", "wait.", progress=0)


class Clock:
    """A tracker and its time."""

    def __init__(self, alarm_after_s: float = AFTER_S) -> None:
        self.now_s = 100.0
        self.tracker = WaitTracker(alarm_after_s)

    def look(self, *waits: Wait, after_s: float = 0.0) -> Look:
        self.now_s += after_s
        return self.tracker.look(self.now_s, WALL_S + self.now_s, waits)


def test_a_wait_keeps_the_time_it_began_whatever_is_said_of_it() -> None:
    clock = Clock()
    (first,) = clock.look(MASTER).waits
    (later,) = clock.look(replace(MASTER, why="an election is under way"), after_s=4).waits
    assert (first.seconds, later.seconds) == (0.0, 4.0)
    assert first.since == later.since == "2027-01-15T08:01:40+00:00"
    assert later.why == "an election is under way"
    (again,) = (clock.look(after_s=1), clock.look(MASTER, after_s=1))[1].waits
    assert again.seconds == 0.0


def test_no_progress_for_the_operators_time_is_an_alarm_until_it_is_over() -> None:
    clock = Clock()
    clock.look(MASTER)
    before = clock.look(MASTER, after_s=AFTER_S - 0.1)
    assert (before.raised, before.waits[0].alarm) == ([], False)
    at = clock.look(MASTER, after_s=0.1)
    assert [alarm.name for alarm in at.raised] == ["no progress: master"]
    assert at.waits[0].alarm
    again = clock.look(MASTER, after_s=5)
    assert (again.raised, again.cleared) == ([], [])
    over = clock.look(after_s=1)
    (cleared,) = over.cleared
    assert (cleared.name, round(cleared.seconds, 3)) == ("no progress: master", 6.0)
    assert over.waits == []


def test_what_moves_is_no_alarm_and_what_moves_again_clears_it() -> None:
    clock = Clock()
    for pages in range(5):
        assert not clock.look(replace(SYNC, progress=pages), after_s=AFTER_S - 1).raised
    assert clock.look(replace(SYNC, progress=4), after_s=AFTER_S).raised
    moved = clock.look(replace(SYNC, progress=5), after_s=1)
    assert [alarm.name for alarm in moved.cleared] == ["no progress: sync"]
    assert (moved.waits[0].alarm, moved.waits[0].still_seconds) == (False, 0.0)
    assert moved.waits[0].seconds > AFTER_S


def test_a_short_wait_is_not_spoken_of() -> None:
    clock = Clock()
    quiet = replace(MASTER, quiet_s=2.0)
    assert clock.look(quiet).waits == []
    assert clock.look(quiet, after_s=1.9).waits == []
    (told,) = clock.look(quiet, after_s=0.1).waits
    assert told.seconds == 2.0


def test_a_wait_that_is_only_told_while_it_stands_still() -> None:
    clock = Clock()
    lag = Wait("lag", "acknowledged", "look.", progress=0, quiet_s=2.0, only_still=True)
    for lsn in range(5):
        assert clock.look(replace(lag, progress=lsn), after_s=3).waits == []
    assert clock.look(replace(lag, progress=4), after_s=2).waits
    assert clock.look(replace(lag, progress=5), after_s=1).waits == []


def test_zero_means_never() -> None:
    clock = Clock(alarm_after_s=0)
    clock.look(MASTER)
    assert not clock.look(MASTER, after_s=1e9).raised


def test_a_failure_is_an_alarm_at_once_and_its_finder_wrote_it_down() -> None:
    clock = Clock(alarm_after_s=0)
    failed = Wait("failed", "the disk is full", "free space.", alarm_at_once=True, told=True)
    look = clock.look(failed)
    assert (look.waits[0].alarm, look.raised) == (True, [])
    assert clock.look(after_s=1).cleared == []


def test_the_worst_stands_first_and_sites_are_told_apart() -> None:
    clock = Clock()
    sites = [Wait("site", f"{name} is not connected", "start it.", name) for name in "ab"]
    waits = clock.look(*sites, MASTER).waits
    assert [(wait.kind, wait.subject) for wait in waits] == [
        ("master", ""),
        ("site", "a"),
        ("site", "b"),
    ]
    late = clock.look(*sites, after_s=AFTER_S)
    assert [alarm.name for alarm in late.raised] == ["no progress: site a", "no progress: site b"]
    assert [alarm.name for alarm in clock.look(sites[0]).cleared] == ["no progress: site b"]


def test_kinds_are_told_once() -> None:
    assert len(set(KINDS)) == len(KINDS)
