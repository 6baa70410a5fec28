"""Rounds as the cores of a master and a voter play them: who answers, waits, or steps down."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from replication import bodies, effects
from replication.messages import OwnCode
from replication.phase import Phase
from replication.rounds import LEASE_S_MAX
from tests.support.scripted_core import END, A, B, C, Script, group_of, master, replicant, says

GENERATION = 4


def asked(
    script: Script, generation: int = GENERATION, lease_s: float = 0.0, *, link: int = 1
) -> bool:
    """Let B be asked on a link, mostly that to A; tell whether it answered."""
    script.core.rounds.asked(script.now_s, link, generation, 7, lease_s)
    script.do()
    answers = [e for e in script.done(effects.SendOwn) if e.code == OwnCode.ROUND_ANSWER]
    assert [(e.link, e.body) for e in answers] in (
        [],
        [(link, bodies.encode_round_answer(generation, 7))],
    )
    return bool(answers)


class TestVoter:
    def test_who_follows_says_so(self) -> None:
        assert asked(replicant(A, B, C))

    @pytest.mark.parametrize("generation", [GENERATION - 1, GENERATION + 1])
    def test_but_only_to_the_master_of_its_generation(self, generation: int) -> None:
        assert not asked(replicant(A, B, C), generation)

    def test_and_to_no_other_site(self) -> None:
        script = replicant(A, B, C)
        script.core.new_master(script.now_s, script.core.site(C).eid, GENERATION)
        assert not asked(script)

    def test_nobody_answers_while_its_vote_is_out(self) -> None:
        script = replicant(A, B, C)
        script.core.link_closed(script.now_s, 1, "reset")
        link = script.link(A, standing=says(master=True, priority=1))
        script.core.master_again(script.now_s, script.core.site(A).eid, GENERATION)
        assert not asked(script, link=link), "the election is under way"
        script.core.election_over(script.now_s, "too few")
        script.do()
        assert not asked(script, link=link), "the vote may still be counted"
        script.now_s += 1.9
        assert not asked(script, link=link)
        script.now_s += 0.2
        assert asked(script, link=link)

    def test_a_new_master_makes_the_vote_void(self) -> None:
        script = replicant(A, B, C)
        script.core.link_closed(script.now_s, 1, "reset")
        script.core.new_master(script.now_s, script.core.site(C).eid, GENERATION + 1)
        script.core.election_over(script.now_s, "decided")
        script.do()
        assert asked(script, GENERATION + 1, link=2)

    def test_no_election_before_its_word_is_over(self) -> None:
        script = replicant(A, B, C)
        assert asked(script, lease_s=1.0)
        script.core.link_closed(script.now_s, 1, "reset")
        script.do()
        assert not script.done(effects.Elect)
        script.tick(0.9)
        assert not script.done(effects.Elect)
        script.core.election_wanted(script.now_s, 2)
        script.do()
        assert not script.done(effects.Elect), "whoever asks"
        script.tick(0.11)
        assert script.done(effects.Elect) == [effects.Elect(2, 2, 0.2, 2.0)]

    def test_no_word_is_given_for_ever(self) -> None:
        script = replicant(A, B, C)
        assert asked(script, lease_s=1e6)
        assert script.core.rounds.promised_until_s == script.now_s + LEASE_S_MAX
        assert replicant(A, B, C).core.rounds.promised_until_s == -inf

    def test_a_site_that_was_restarted_waits_as_if_it_had_given_it(self) -> None:
        script = replicant(A, B, C)
        script.core.settings = replace(script.core.settings, lease_s=3.0)
        script.core.start(script.now_s)
        assert script.core.rounds.promised_until_s == script.now_s + 3.0


class TestMaster:
    def test_a_master_made_by_its_operator_goes_on_alone(self) -> None:
        script = lonely(elected=False)
        script.tick(30)
        assert script.core.is_master
        assert script.core.rounds.contact.refusal(script.now_s) is None

    def test_an_elected_one_that_hears_nobody_refuses_and_steps_down(self) -> None:
        script = lonely(elected=True)
        script.tick(2.1)
        assert "fenced" in script.notes()
        assert script.done(effects.RoleChanged)
        assert script.core.is_master
        script.tick(2.1)
        assert "stepped_down" in script.notes()
        assert script.core.phase is Phase.FOLLOWING
        assert script.core.master is None
        assert script.done(effects.StartClient)
        script.tick()
        assert "this site reaches 1" in (script.core.why or "")

    def test_an_answer_is_as_good_as_bytes(self) -> None:
        script = lonely(elected=True)
        link = script.link(C, standing=says(priority=1))
        script.silent = True
        for _ in range(30):
            script.tick(0.2)
            for asked_ in script.done(effects.SendRound):
                script.core.rounds.answered(link, GENERATION, asked_.number)
        assert script.core.rounds.contact.refusal(script.now_s) is None
        script.tick(0.2)
        for asked_ in script.done(effects.SendRound):
            script.core.rounds.answered(link, GENERATION - 1, asked_.number)
        script.tick(2.2)
        assert script.core.rounds.contact.refusal(script.now_s) is not None

    def test_replicants_that_never_lead_stop_no_master(self) -> None:
        script = master(B, C)
        assert script.core.memory.priorities == {B: 0, C: 0}
        script.tick(60)
        assert script.core.is_master
        assert script.core.rounds.contact.refusal(script.now_s) is None


def lonely(*, elected: bool) -> Script:
    """B of A, B and C, master without a link."""
    script = replicant(A, B, C)
    script.core.link_closed(script.now_s, 1, "reset")
    script.do()
    if elected:
        script.core.elected()
        script.core.election_over(script.now_s, "decided")
    else:
        script.core.promote()
    script.core.link_closed(script.now_s, 2, "reset")
    script.core.became_master(script.now_s, GENERATION, END)
    script.core.membership_loaded(script.now_s, group_of(A, B, C))
    script.do()
    assert script.core.is_master
    return script
