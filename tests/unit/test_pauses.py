"""When the apply thread stops: exactly there, never behind it, one pause at a time."""

from __future__ import annotations

from replication.pauses import Pause, Pauses
from replication.wire import LSN


class Stops:
    """Pauses, and what became of each."""

    def __init__(self) -> None:
        self.pauses = Pauses()
        self.became: list[tuple[LSN, bool]] = []

    def ask(self, offset: int, generation: int = 1) -> None:
        lsn = LSN(1, offset)
        self.pauses.ask(Pause(generation, lsn, lambda there: self.became.append((lsn, there))))
        due = self.pauses.begin()
        if due is not None:
            due()

    def reach(self, offset: int, generation: int = 1) -> None:
        due = self.pauses.reached(generation, LSN(1, offset))
        if due is not None:
            due()


def test_it_waits_for_its_lsn_and_is_called_there_once() -> None:
    stops = Stops()
    stops.ask(100)
    waits = [stops.pauses.waits]
    stops.reach(50)
    assert stops.became == []
    stops.reach(100)
    assert stops.became == [(LSN(1, 100), True)]
    waits.append(stops.pauses.waits)
    assert waits == [True, False]
    stops.reach(150)
    assert len(stops.became) == 1


def test_behind_it_is_too_late() -> None:
    stops = Stops()
    stops.ask(100)
    stops.reach(101)
    assert stops.became == [(LSN(1, 100), False)]


def test_another_generation_is_another_log() -> None:
    stops = Stops()
    stops.ask(100, generation=2)
    stops.reach(100, generation=1)
    assert stops.became == []
    stops.reach(5, generation=3)
    assert stops.became == [(LSN(1, 100), False)]


def test_the_next_one_gives_up_one_that_waits() -> None:
    stops = Stops()
    stops.ask(100)
    stops.ask(200)
    assert stops.became == [(LSN(1, 100), False)]
    stops.reach(200)
    assert stops.became[1:] == [(LSN(1, 200), True)]


def test_without_one_nothing_happens() -> None:
    stops = Stops()
    stops.reach(100)
    assert stops.became == []
