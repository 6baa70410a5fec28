"""Handing over, step by step: both sites, every way it can fail, and who is master then."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from replication import effects
from replication.bodies import (
    REASON_BYTES_MAX,
    HandoverWord,
    SiteAddress,
    decode_handover,
    encode_handover,
)
from replication.errors import RemoteProtocolError
from replication.handover import TAKEOVER_S, Ended, Stage
from replication.messages import OwnCode
from replication.phase import Phase
from replication.wire import LSN
from tests.support.scripted_core import A, B, C, D, Script, master, replicant

LAST = LSN(2, 700)


def words(script: Script) -> list[tuple[int, int, HandoverWord]]:
    return [
        (own.link, own.code, decode_handover(own.body))
        for own in script.done(effects.SendOwn)
        if OwnCode.HANDOVER_ASK <= own.code <= OwnCode.HANDOVER_TAKE
    ]


def ended(script: Script) -> list[Ended]:
    return [effect.ended for effect in script.done(effects.HandoverEnded)]


def leads(script: Script) -> bool:
    return script.core.is_master


def waits(script: Script) -> bool:
    return script.core.handover.keeps_clients


class Master(Script):
    """A is master of a group, B is electable and connected by link 1."""

    @classmethod
    def of(cls, *others: SiteAddress) -> Script:
        script = master(*others)
        for other in others:
            script.core.site(other).electable = True
        return script


def say(script: Script, code: OwnCode, reason: str = "", *, link: int = 1) -> None:
    word = HandoverWord(script.core.generation, LAST, reason)
    script.core.handover.heard(script.now_s, link, code, word)
    script.do()


def begin(script: Script) -> None:
    assert script.core.handover.begin(script.now_s, B, 30.0) is None
    script.do()


def prepared(script: Script) -> None:
    begin(script)
    script.core.handover.prepared(script.now_s)
    script.do()


def asking(script: Script) -> None:
    prepared(script)
    script.core.handover.in_step(script.now_s, LAST)
    script.do()


def leaving(script: Script) -> None:
    asking(script)
    say(script, OwnCode.HANDOVER_READY)


def handed_over(script: Script) -> None:
    leaving(script)
    script.core.handover.stepped_down(script.now_s)
    script.do()


class TestTheOldMaster:
    def test_step_by_step(self) -> None:
        script = Master.of(B, C)
        core, eid = script.core, script.core.site(B).eid
        begin(script)
        assert script.done(effects.PrepareHandover) == [effects.PrepareHandover(eid, 30.0)]
        assert not waits(script), "writes go on"
        script.now_s += 3
        core.handover.prepared(script.now_s)
        script.do()
        [hold] = script.done(effects.HoldWrites)
        assert hold.eid == eid
        assert waits(script)
        script.now_s += 0.01
        core.handover.in_step(script.now_s, LAST)
        script.do()
        assert words(script) == [(1, OwnCode.HANDOVER_ASK, HandoverWord(core.generation, LAST))]
        say(script, OwnCode.HANDOVER_READY)
        assert script.done(effects.StepDown)
        assert leads(script), "until the library has stepped down"
        core.handover.stepped_down(script.now_s)
        script.do()
        assert not leads(script)
        assert core.client_started, "the new master's messages count"
        assert words(script) == [(1, OwnCode.HANDOVER_TAKE, HandoverWord(core.generation, LAST))]
        assert not script.done(effects.Elect)
        script.now_s += 0.02
        generation = core.generation + 1
        core.new_master(script.now_s, eid, generation)
        script.do()
        assert (core.phase, core.master) == (Phase.FOLLOWING, B)
        [end] = ended(script)
        assert (end.target, end.reason, end.generation) == (B, "", generation)
        assert end.held_s == pytest.approx(0.03)
        assert not core.handover.busy
        # First everybody learns the new role, then the writes that waited are let go.
        kinds = [type(effect) for effect in script.last]
        assert kinds.index(effects.RoleChanged) < kinds.index(effects.ReleaseWrites)

    @pytest.mark.parametrize(
        ("reach", "stage"),
        [
            (begin, Stage.PREPARING),
            (prepared, Stage.HOLDING),
            (asking, Stage.ASKING),
        ],
    )
    @pytest.mark.parametrize("how", ["time", "link", "step"])
    def test_before_it_steps_down_it_goes_on_whatever_happens(
        self, reach: Callable[[Script], None], stage: Stage, how: str
    ) -> None:
        script = Master.of(B, C)
        reach(script)
        core = script.core
        assert core.handover.stage is stage
        match how:
            case "time":
                script.tick(60.0)
            case "link":
                core.link_closed(script.now_s, 1, "reset")
                script.do()
            case _:
                core.handover.failed(script.now_s, "the disk is slow")
                script.do()
        [end] = ended(script)
        assert end.reason
        assert script.done(effects.ReleaseWrites)
        assert core.is_master
        assert not script.done(effects.StartMaster), "it never stopped being one"
        assert not waits(script)
        assert "switchover_failed" in script.notes()
        # And it can be tried again.
        assert core.handover.obstacle(C) is None

    def test_a_refusal_is_the_reason(self) -> None:
        script = Master.of(B)
        asking(script)
        say(script, OwnCode.HANDOVER_REFUSED, "it has no complete copy")
        [end] = ended(script)
        assert "it has no complete copy" in end.reason
        assert script.core.is_master

    def test_a_library_that_does_not_step_down_leaves_it_master(self) -> None:
        script = Master.of(B)
        leaving(script)
        script.core.handover.failed(script.now_s, "locked out")
        script.do()
        assert ended(script)
        assert script.core.is_master

    def test_refused_after_it_stepped_down_it_becomes_master_again_above_the_other(self) -> None:
        script = Master.of(B, C)
        handed_over(script)
        generation = script.core.generation
        say(script, OwnCode.HANDOVER_REFUSED, "locked out")
        [start] = script.done(effects.StartMaster)
        assert start.generation_above == generation + 1
        assert waits(script), "its writes still wait"
        assert not ended(script)
        script.core.became_master(script.now_s, generation + 2, LAST)
        script.do()
        [end] = ended(script)
        assert "locked out" in end.reason
        assert end.generation == generation + 2
        assert script.core.is_master

    @pytest.mark.parametrize("how", ["time", "link"])
    def test_without_news_of_the_target_the_others_vote(self, how: str) -> None:
        script = Master.of(B, C)
        handed_over(script)
        if how == "time":
            script.tick(TAKEOVER_S)
        else:
            script.core.link_closed(script.now_s, 1, "reset")
            script.do()
        [end] = ended(script)
        assert "an election decides" in end.reason
        assert script.core.phase is Phase.FOLLOWING
        assert not script.done(effects.StartMaster), "the target may be master"
        if not script.done(effects.Elect):
            script.tick()
        assert script.done(effects.Elect)

    def test_of_two_the_old_master_goes_on_without_news_of_the_other(self) -> None:
        script = Master.of(B)
        handed_over(script)
        script.core.link_closed(script.now_s, 1, "reset")
        script.do()
        assert script.done(effects.StartMaster)

    def test_somebody_else_became_master(self) -> None:
        script = Master.of(B, C)
        handed_over(script)
        script.core.new_master(script.now_s, script.core.site(C).eid, 9)
        script.do()
        [end] = ended(script)
        assert f"{C} became master instead" in end.reason

    def test_a_takeover_that_fails_twice_is_said_and_waited_out(self) -> None:
        script = Master.of(B)
        handed_over(script)
        say(script, OwnCode.HANDOVER_REFUSED, "locked out")
        script.core.takeover_failed(script.now_s, "no room")
        script.do()
        [end] = ended(script)
        assert "no room" in end.reason
        assert script.core.phase is Phase.WAITING
        assert script.done(effects.ReleaseWrites)

    def test_words_of_others_and_late_words_change_nothing(self) -> None:
        script = Master.of(B, C)
        begin(script)
        say(script, OwnCode.HANDOVER_READY)
        assert not script.done(effects.StepDown)
        script.core.handover.prepared(script.now_s)
        script.core.handover.in_step(script.now_s, LAST)
        say(script, OwnCode.HANDOVER_READY, link=2)
        say(script, OwnCode.HANDOVER_REFUSED, "not me", link=2)
        assert not script.done(effects.StepDown)
        assert not ended(script)
        word = HandoverWord(script.core.generation - 1, LAST)
        script.core.handover.heard(script.now_s, 1, OwnCode.HANDOVER_READY, word)
        script.do()
        assert not script.done(effects.StepDown)


class TestObstacles:
    def test_each_is_said(self) -> None:
        script = Master.of(B, C)
        handover = script.core.handover

        def why(target: SiteAddress) -> str:
            reason = handover.obstacle(target)
            assert reason is not None
            return reason

        assert handover.obstacle(B) is None
        assert "master already" in why(A)
        assert "no member" in why(D)
        script.core.site(C).electable = False
        assert "priority 0" in why(C)
        script.core.site(B).native = True
        assert "native" in why(B)
        script.core.site(B).native = False
        script.core.link_closed(script.now_s, 1, "reset")
        assert "not connected" in why(B)

    def test_one_change_at_a_time(self) -> None:
        script = Master.of(B, C)
        script.core.requests.join(1, D)
        script.do()
        assert "list of sites" in (script.core.handover.obstacle(B) or "")
        other = Master.of(B, C)
        begin(other)
        assert "under way" in (other.core.handover.obstacle(C) or "")
        assert "not master" in (replicant().core.handover.obstacle(A) or "")

    def test_the_best_candidate_has_the_highest_priority_then_the_most_data(self) -> None:
        script = Master.of(B, C, D)
        for site, priority, offset in ((B, 5, 100), (C, 5, 200), (D, 1, 900)):
            state = script.core.site(site)
            assert state.standing is not None
            state.standing = state.standing._replace(priority=priority, last_lsn=LSN(1, offset))
        assert [s.address for s in script.core.handover.candidates()] == [C, B, D]

    def test_the_list_of_sites_stays_while_the_role_goes(self) -> None:
        script = Master.of(B, C)
        begin(script)
        script.core.requests.join(1, D)
        script.core.requests.remove(2, C)
        script.do()
        assert [a.code for a in script.done(effects.Answer)] == [OwnCode.GM_FAILURE] * 2
        assert not script.done(effects.ChangeMembership)


class TestTheTarget:
    def ready(self) -> Script:
        return replicant(A, B, C)

    def asked(self, script: Script) -> tuple[int, str]:
        say(script, OwnCode.HANDOVER_ASK)
        [(_, code, word)] = words(script)
        return code, word.reason

    def test_it_takes_over_without_a_vote(self) -> None:
        script = self.ready()
        generation = script.core.generation
        assert self.asked(script) == (OwnCode.HANDOVER_READY, "")
        say(script, OwnCode.HANDOVER_TAKE)
        assert script.done(effects.StartMaster) == [effects.StartMaster(generation, LAST)]
        assert not script.done(effects.Elect)
        script.core.became_master(script.now_s, generation + 1, LAST)
        script.do()
        assert script.core.is_master
        assert not script.core.handover.busy

    def test_it_says_why_not(self) -> None:
        script = self.ready()
        syncing = self.ready()
        syncing.core.catch_up.started(1)
        assert self.asked(syncing) == (OwnCode.HANDOVER_REFUSED, "it has no complete copy")
        script.core.handover.heard(script.now_s, 1, OwnCode.HANDOVER_ASK, HandoverWord(77, LAST))
        script.do()
        [(_, code, word)] = words(script)
        assert (code, "generation" in word.reason) == (OwnCode.HANDOVER_REFUSED, True)
        stranger = self.ready()
        say(stranger, OwnCode.HANDOVER_ASK, link=2)
        [(link, code, word)] = words(stranger)
        assert (link, code) == (2, OwnCode.HANDOVER_REFUSED)
        assert "it follows" in word.reason
        assert self.asked(replicant(A, B, priority=0)) == (
            OwnCode.HANDOVER_REFUSED,
            "it has priority 0",
        )

    def test_told_to_take_over_when_it_cannot_it_refuses_and_stays(self) -> None:
        script = self.ready()
        script.core.catch_up.started(1)
        say(script, OwnCode.HANDOVER_TAKE)
        assert [code for _, code, _ in words(script)] == [OwnCode.HANDOVER_REFUSED]
        assert script.core.phase is Phase.FOLLOWING

    def test_a_failed_takeover_is_told_and_it_follows_again(self) -> None:
        script = self.ready()
        say(script, OwnCode.HANDOVER_TAKE)
        script.core.takeover_failed(script.now_s, "locked out")
        script.do()
        [(link, code, word)] = words(script)
        assert (link, code, word.reason) == (1, OwnCode.HANDOVER_REFUSED, "locked out")
        assert script.core.phase is Phase.FOLLOWING
        assert script.done(effects.StartClient)
        assert not script.core.handover.busy


@pytest.mark.parametrize("reason", ["", "it follows 192.0.2.10:5010", "ä"])
def test_words_travel(reason: str) -> None:
    word = HandoverWord(7, LSN(3, 4000), reason)
    assert decode_handover(encode_handover(word)) == word


def test_a_long_reason_is_cut() -> None:
    back = decode_handover(encode_handover(HandoverWord(7, LSN(3, 4000), "ä" * 1000)))
    assert back.reason == "ä" * (REASON_BYTES_MAX // 2)


@pytest.mark.parametrize("length", range(12))
def test_a_word_cut_short_is_the_other_sides_error(length: int) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_handover(encode_handover(HandoverWord(7, LSN(3, 4000)))[:length])
