"""How often a copy may come to nothing, and what counts as one."""

from __future__ import annotations

from replication.effects import Note, Outbox, RoleChanged, SaveMemory
from replication.memory import Memory
from replication.remembered import Remembered
from replication.sync_tries import STOPPED, SyncTries


class Script:
    """The tries of one process, with what it remembers."""

    def __init__(self, tries_max: int = 3, memory: Memory | None = None) -> None:
        self.out = Outbox()
        self.remembered = Remembered(memory or Memory(), self.out)
        self.tries = SyncTries(tries_max, self.remembered, self.out)

    def events(self) -> list[str]:
        return [effect.event for effect in self.out.take() if isinstance(effect, Note)]

    def restart(self) -> Script:
        return Script(memory=self.remembered.memory)


def test_tries_that_are_broken_off_are_counted_until_there_were_too_many() -> None:
    script = Script()
    for number in (1, 2):
        script.tries.begun(1)
        script.tries.begun(1)  # more pages of the same copy
        assert any(isinstance(effect, SaveMemory) for effect in script.out.take())
        script.tries.broken("the cable was cut")
        assert script.events() == ["sync_failed"], number
        assert script.tries.given_up is None
    script.tries.begun(1)
    script.tries.broken("the cable was cut")
    found = script.out.take()
    assert [e.event for e in found if isinstance(e, Note)] == ["sync_failed", "sync_given_up"]
    assert any(isinstance(effect, RoleChanged) for effect in found)
    assert script.tries.given_up == (
        "3 syncs in a row came to nothing, the last because the cable was cut"
    )


def test_a_crash_counts_and_a_restart_forgives_nothing() -> None:
    script = Script()
    for _ in range(3):
        assert script.tries.given_up is None
        script.tries.begun(1)
        script = script.restart()
    assert script.tries.given_up is not None
    assert STOPPED in script.tries.given_up
    assert script.restart().tries.given_up is not None


def test_a_copy_that_is_complete_or_the_operator_begins_the_count_anew() -> None:
    script = Script(tries_max=2)
    for _ in range(5):
        script.tries.begun(1)
        script.tries.broken("x")
        script.tries.begun(1)
        script.tries.over()
    assert script.tries.given_up is None
    assert script.restart().tries.given_up is None
    for _ in range(2):
        script.tries.begun(1)
        script.tries.broken("x")
    given_up = [script.tries.given_up]
    script.tries.over()
    given_up.append(script.tries.given_up)
    assert given_up == ["2 syncs in a row came to nothing, the last because x", None]
    assert script.remembered.memory.sync_tries == 0


def test_news_of_the_master_that_is_copied_from_breaks_nothing() -> None:
    script = Script()
    script.tries.new_master(4)
    script.tries.begun(5)
    script.tries.new_master(5)
    assert script.events() == []
    script.tries.new_master(6)
    assert script.events() == ["sync_failed"]
    script.tries.new_master(7)
    script.tries.broken("nothing is under way")
    assert script.events() == []


def test_zero_is_no_limit() -> None:
    script = Script(tries_max=0)
    for _ in range(100):
        script.tries.begun(1)
        script.tries.broken("x")
    assert script.tries.given_up is None
