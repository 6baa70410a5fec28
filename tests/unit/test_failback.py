"""The preferred master takes over again: when, when not, and how often it is tried."""

from __future__ import annotations

import pytest

from replication import effects
from replication.bodies import HandoverWord, SiteAddress
from replication.core import Core
from replication.failback import RETRY_FIRST_S, STEADY_S
from replication.messages import OwnCode
from replication.wire import LSN
from tests.support.scripted_core import A, B, C, Script, master, replicant, says


def preferring(script: Script, preferred: SiteAddress) -> Script:
    """Set the preferred master of a core that is made already."""
    script.core.failback.preferred = preferred
    return script


def leading(*others: SiteAddress, preferred: SiteAddress = B) -> Script:
    script = preferring(master(*others), preferred)
    for other in others:
        script.core.site(other).electable = True
    return script


def begun(script: Script) -> bool:
    return bool(script.done(effects.PrepareHandover))


def test_it_hands_over_once_the_preferred_site_has_been_back_for_a_while() -> None:
    script = leading(B, C)
    script.tick()
    assert not begun(script)
    script.tick(STEADY_S / 2)
    assert not begun(script)
    script.tick(STEADY_S / 2)
    assert begun(script)
    assert "failback_due" in script.notes()
    assert script.core.handover.target == B


def test_a_site_that_comes_and_goes_is_waited_for() -> None:
    script = leading(B)
    for link in (1, 2):
        script.tick()
        script.tick(STEADY_S * 0.9)
        script.core.link_closed(script.now_s, link, "reset")
        script.tick(STEADY_S * 0.9)
        assert not begun(script)
        script.link(B, priority=1, standing=says(priority=1))
    script.tick()
    script.tick(STEADY_S)
    assert begun(script)


@pytest.mark.parametrize("preferred", [A, C])
def test_the_preferred_site_itself_or_one_that_is_away_moves_nothing(
    preferred: SiteAddress,
) -> None:
    script = leading(B, preferred=preferred)
    for _ in range(10):
        script.tick(STEADY_S)
        assert not begun(script)


def test_a_replicant_moves_nothing() -> None:
    script = preferring(replicant(A, B, C), C)
    for _ in range(5):
        script.tick(STEADY_S)
        assert not begun(script)


def test_a_failure_is_tried_again_later_and_later() -> None:
    script = leading(B, C)
    script.tick()
    script.tick(STEADY_S)
    waits = []
    for _ in range(3):
        assert begun(script)
        script.core.handover.failed(script.now_s, "not in step")
        script.do()
        began_s = script.now_s
        while not begun(script):
            script.tick(0.5)
        waits.append(script.now_s - began_s)
    assert waits[0] >= RETRY_FIRST_S
    assert waits == sorted(waits)
    assert waits[-1] > waits[0]


def take_over_from(script: Script, core: Core) -> None:
    word = HandoverWord(core.generation, LSN(1, 1))
    core.handover.heard(script.now_s, 1, OwnCode.HANDOVER_TAKE, word)
    core.became_master(script.now_s, core.generation + 1, LSN(1, 5000))
    script.do()


def test_what_the_operator_moved_away_stays_until_the_preferred_site_was_away() -> None:
    script = preferring(replicant(A, B, C), A)
    core = script.core
    take_over_from(script, core)
    assert core.is_master
    for _ in range(5):
        script.tick(STEADY_S)
        assert not begun(script), "the operator is at work on that machine"
    core.link_closed(script.now_s, 1, "stopped")
    script.tick()
    script.link(A, priority=1, standing=says(priority=1))
    script.tick()
    script.tick(STEADY_S)
    assert begun(script)
