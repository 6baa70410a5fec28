"""When a site takes over from a native master, and what it answers until then."""

from __future__ import annotations

import pytest

from replication import promotion
from replication.bodies import SiteAddress
from replication.coldstart import Answer
from replication.errors import ReplicationError
from replication.phase import Phase
from replication.succession import leads_without_vote, must_be_possible, native_master
from tests.support.scripted_core import COMPLETE, A, B, C, Script, group_of, master, own, replicant

LINK_TO_MASTER = 1


def follows_native(*others: SiteAddress, priority: int = 1, strict: bool = True) -> Script:
    """B, which follows the native master A; the other members are native, too."""
    natives = (A, *others)
    script = Script(
        own(priority=priority), group_of(B, *natives), COMPLETE, others=natives, strict=strict
    )
    script.start(*[Answer(site, native=True, reason="a native site") for site in natives])
    assert script.core.phase is Phase.FOLLOWING
    for site in natives:
        script.link(site, native=True, priority=1)
    script.core.new_master(script.now_s, script.core.site(A).eid, 4)
    script.do()
    return script


def stopped(script: Script) -> Script:
    """The same after the native master is gone."""
    script.core.link_closed(script.now_s, LINK_TO_MASTER, "closed by the other site")
    script.do()
    return script


def refusal(script: Script, wanted: SiteAddress | None = None) -> tuple[str, str]:
    with pytest.raises(ReplicationError) as caught:
        must_be_possible(script.core, A, wanted)
    return str(caught.value), str(caught.value.hint)


def test_only_a_native_master_is_succeeded() -> None:
    assert native_master(follows_native().core) == A
    assert native_master(stopped(follows_native()).core) == A
    assert native_master(master(B).core) is None
    assert native_master(replicant().core) is None


def test_nothing_is_done_while_it_lives_or_where_it_cannot_succeed() -> None:
    script = follows_native(C)
    text, hint = refusal(script)
    assert text == (
        f"switchover refused: the master {A} is a native site, which cannot step down on request"
    )
    assert hint.startswith("stop it in order there")
    assert refusal(script, C)[1] == f"run the same command on {C}."
    text, hint = refusal(follows_native(priority=0))
    assert "priority 0" in text
    assert "rep_set_priority" in hint
    must_be_possible(stopped(script).core, A, B)


def test_an_election_decides_except_in_a_group_of_two() -> None:
    assert not leads_without_vote(master(B).core)
    assert leads_without_vote(stopped(follows_native()).core)
    assert not leads_without_vote(stopped(follows_native(strict=False)).core)
    alone = stopped(follows_native(C))
    alone.core.link_closed(alone.now_s, 2, "closed by the other site")
    alone.core.election_over(alone.now_s, "no majority")
    alone.do()
    assert not leads_without_vote(alone.core), "the third site may hold more"


def test_force_deposes_a_native_master_and_none_of_ours() -> None:
    with pytest.raises(ReplicationError, match="follows a living master"):
        promotion.must_be_possible(follows_native().core)
    ready = follows_native()
    ready.core.startup_finished(COMPLETE.stable_lsn)
    promotion.must_be_possible(ready.core, over_native=True)
    with pytest.raises(ReplicationError, match="follows a living master"):
        promotion.must_be_possible(replicant().core, over_native=True)
