"""The manager's decisions, played through as scripts: an input, and the effects it leaves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from replication import effects
from replication.bodies import SiteAddress, Standing, decode_forward, decode_membership_list
from replication.coldstart import Answer
from replication.core import FIRST_ELECTION_WAIT_S, REPROBE_S
from replication.handover import TAKEOVER_S
from replication.heartbeats import GAP_SILENCE_S
from replication.manager import TICK_S
from replication.memory import Memory
from replication.messages import OwnCode, SiteStatus
from replication.phase import Phase
from replication.wire import LSN
from tests.support.scripted_core import (
    COMPLETE,
    END,
    NEW,
    A,
    B,
    C,
    D,
    Script,
    group_of,
    master,
    own,
    replicant,
    says,
)


class TestStart:
    def test_all_sites_are_asked_before_anything_is_decided(self) -> None:
        script = Script(NEW, others=(A, C))
        script.core.start(script.now_s)
        script.do()
        assert [probe.address for probe in script.done(effects.Probe)] == [A, C]
        script.core.probe_done(script.now_s, Answer(A, says()))
        assert script.core.phase is Phase.PROBING

    def test_a_lone_creator_becomes_master_and_makes_the_group(self) -> None:
        script = Script(replace(NEW, creator=True), others=())
        script.start()
        assert script.done(effects.StartMaster) == [effects.StartMaster(0)]
        script.core.became_master(script.now_s, 1, LSN(1, 100))
        script.do()
        assert script.core.memory.group_id == 99
        script.core.membership_loaded(script.now_s, None)
        script.do()
        [change] = script.done(effects.ChangeMembership)
        assert [m.address for m in change.steps[-1].members] == [B]
        assert change.steps[0].version == 1, "a new database begins at 1"

    def test_the_generation_goes_above_what_was_remembered_and_heard(self) -> None:
        memory = replace(COMPLETE, generation=40)
        script = Script(own(generation=0), group_of(A, B), memory)
        script.start(Answer(A, replace_generation(says(), 12)))
        assert script.done(effects.StartMaster) == [effects.StartMaster(40)]

    def test_who_waits_asks_again_and_says_why_once(self) -> None:
        script = Script(replace(NEW, priority=0), others=(A,))
        script.start(Answer(A, reason="connection refused"))
        assert script.core.phase is Phase.WAITING
        assert script.notes().count("waiting") == 1
        assert script.core.why is not None
        assert "connection refused" in script.core.why
        assert not script.tick(REPROBE_S / 2)
        script.tick(REPROBE_S)
        assert script.done(effects.Probe)
        script.core.probe_done(script.now_s, Answer(A, reason="connection refused"))
        script.do()
        assert "waiting" not in script.notes()

    def test_a_site_that_can_ask_nobody_goes_on_waiting(self) -> None:
        script = Script(replace(NEW, remembers_group=True), memory=Memory(group_id=7), others=())
        script.start()
        for _ in range(3):
            assert script.core.phase is Phase.WAITING
            assert script.tick(REPROBE_S), "it decided again"

    def test_an_operators_word_ends_the_waiting(self) -> None:
        script = Script(own(priority=0), group_of(A, B), COMPLETE)
        script.start(Answer(A, reason="connection refused"))
        script.core.promote()
        script.do()
        assert script.done(effects.StartMaster) == [effects.StartMaster(3)]


def replace_generation(standing: Standing, generation: int) -> Standing:
    return standing._replace(generation=generation)


class TestJoining:
    def joiner(self) -> Script:
        script = Script(replace(NEW, priority=0), others=(A,))
        script.start(Answer(A, says(master=True)))
        assert script.done(effects.Join) == [effects.Join(A)]
        return script

    def test_a_new_site_joins_and_follows(self) -> None:
        script = self.joiner()
        script.core.belonging.joined(script.now_s, group_of(A, B))
        script.do()
        assert script.core.phase is Phase.FOLLOWING
        assert script.done(effects.StartClient)
        assert script.done(effects.Dial) == [effects.Dial(A)]

    def test_the_client_starts_before_the_dial(self) -> None:
        script = self.joiner()
        script.core.belonging.joined(script.now_s, group_of(A, B))
        kinds = [type(effect) for effect in script.do()]
        assert kinds.index(effects.StartClient) < kinds.index(effects.Dial)

    def test_it_goes_where_it_is_sent_while_the_generation_grows(self) -> None:
        script = self.joiner()
        script.core.belonging.forwarded(script.now_s, C, 4)
        script.do()
        assert script.done(effects.Join) == [effects.Join(C)]
        script.core.belonging.forwarded(script.now_s, A, 4)
        script.do()
        assert not script.done(effects.Join)
        assert script.core.phase is Phase.WAITING
        assert script.core.why is not None
        assert "forward" in script.core.why

    def test_it_is_not_sent_to_itself(self) -> None:
        script = self.joiner()
        script.core.belonging.forwarded(script.now_s, B, 9)
        assert script.core.phase is Phase.WAITING

    def test_a_failure_leads_to_another_try(self) -> None:
        script = self.joiner()
        script.core.belonging.failed(script.now_s, "timed out")
        script.do()
        script.tick(REPROBE_S)
        script.core.probe_done(script.now_s, Answer(A, says(master=True)))
        script.do()
        assert script.done(effects.Join) == [effects.Join(A)]

    def test_sites_remembered_but_not_configured_are_asked_too(self) -> None:
        stranger = replace(own(), has_membership=False)
        script = Script(stranger, memory=replace(COMPLETE, priorities={C: 1}), others=())
        script.start(Answer(C, says(priority=1)))
        assert script.done(effects.Join) == [effects.Join(C)]

    @pytest.mark.parametrize("outcome", ["joined", "forwarded", "failed"])
    def test_an_answer_after_a_promotion_changes_nothing(self, outcome: str) -> None:
        script = self.joiner()
        script.core.promote()
        script.do()
        if outcome == "joined":
            script.core.belonging.joined(script.now_s, group_of(A, B))
        elif outcome == "forwarded":
            script.core.belonging.forwarded(script.now_s, C, 9)
        else:
            script.core.belonging.failed(script.now_s, "timed out")
        assert not script.do()
        assert script.core.phase is Phase.TAKING_OVER


class TestTakingSitesIn:
    def asked(self, script: Script, request: int, site: SiteAddress) -> list[effects.Effect]:
        script.core.requests.join(request, site)
        return script.do()

    def answers(self, script: Script) -> list[tuple[int, int]]:
        return [(answer.request, answer.code) for answer in script.done(effects.Answer)]

    def test_two_steps_then_the_answer_then_everybody_hears(self) -> None:
        script = master(B)
        self.asked(script, 1, C)
        [change] = script.done(effects.ChangeMembership)
        statuses = [[m.status for m in step.members if m.address == C] for step in change.steps]
        assert statuses == [[SiteStatus.ADDING], [SiteStatus.PRESENT]]
        script.core.membership_changed(change.steps[-1], 1)
        script.do()
        assert self.answers(script) == [(1, OwnCode.JOIN_SUCCESS)]
        [sharing] = script.done(effects.SendOwn)
        assert sharing.code == OwnCode.SHARING
        assert len(decode_membership_list(sharing.body).sites) == 3

    def test_one_change_at_a_time(self) -> None:
        script = master(B)
        self.asked(script, 1, C)
        [first] = script.done(effects.ChangeMembership)
        self.asked(script, 2, D)
        assert not script.done(effects.ChangeMembership)
        script.core.membership_changed(first.steps[-1], 1)
        script.do()
        [second] = script.done(effects.ChangeMembership)
        assert second.steps[0].version == first.steps[-1].version + 1
        script.core.membership_changed(second.steps[-1], 2)
        script.do()
        assert self.answers(script) == [(2, OwnCode.JOIN_SUCCESS)]

    def test_a_site_that_asks_twice_is_answered_twice(self) -> None:
        script = master(B)
        self.asked(script, 1, C)
        [change] = script.done(effects.ChangeMembership)
        self.asked(script, 2, C)
        script.core.membership_changed(change.steps[-1], 1)
        script.do()
        assert self.answers(script) == [(1, OwnCode.JOIN_SUCCESS), (2, OwnCode.JOIN_SUCCESS)]
        assert not script.done(effects.ChangeMembership)
        self.asked(script, 3, D)
        assert script.done(effects.ChangeMembership), "the next one is not held up"

    def test_a_failed_change_is_answered_and_the_next_begins(self) -> None:
        script = master(B)
        self.asked(script, 1, C)
        self.asked(script, 2, D)
        script.core.membership_failed(1, "not enough acknowledgements")
        script.do()
        assert self.answers(script) == [(1, OwnCode.GM_FAILURE)]
        assert script.done(effects.ChangeMembership)

    def test_a_removal_that_stopped_half_way_is_finished_first(self) -> None:
        script = master(B)
        leaving = group_of(A, B, C).deleting(C)
        script.core.group.adopt(leaving)
        self.asked(script, 1, C)
        [change] = script.done(effects.ChangeMembership)
        assert change.steps[0].find(C) is None
        assert change.steps[-1].is_present(C)

    def test_a_member_is_answered_at_once(self) -> None:
        script = master(B)
        self.asked(script, 1, B)
        assert self.answers(script) == [(1, OwnCode.JOIN_SUCCESS)]
        assert not script.done(effects.ChangeMembership)

    def test_a_replicant_names_the_master(self) -> None:
        script = replicant()
        self.asked(script, 1, C)
        [answer] = script.done(effects.Answer)
        assert answer.code == OwnCode.GM_FORWARD
        assert decode_forward(answer.body) == (A, 4)

    def test_a_replicant_without_a_master_cannot_help(self) -> None:
        script = replicant()
        script.core.link_closed(script.now_s, 1, "reset")
        self.asked(script, 1, C)
        assert self.answers(script) == [(1, OwnCode.GM_FAILURE)]

    def test_the_list_goes_to_no_stranger(self) -> None:
        script = master(B)
        script.link(D, outgoing=False, standing=says())
        assert not script.done(effects.SendOwn)
        script.core.membership_changed(group_of(A, B, version=4, generation=4), None)
        script.do()
        assert [own.link for own in script.done(effects.SendOwn)] == [1]

    def test_a_newer_list_is_adopted_only_if_it_names_this_site(self) -> None:
        script = replicant()
        script.core.membership_shared(group_of(A, C, version=9, generation=4))
        assert script.core.membership == group_of(A, B)
        newer = group_of(A, B, C, version=9, generation=4)
        script.core.membership_shared(newer)
        assert script.core.membership == newer
        script.core.membership_shared(group_of(A, B, version=2, generation=4))
        assert script.core.membership == newer

    def test_a_reload_while_a_change_is_under_way_begins_no_other(self) -> None:
        script = master(B)
        self.asked(script, 1, C)
        script.core.membership_loaded(script.now_s, None)
        assert not [e for e in script.do() if isinstance(e, effects.ChangeMembership)]


class TestRejected:
    def test_a_list_that_was_made_anew_is_joined_again(self) -> None:
        script = replicant()
        script.core.belonging.rejected(script.now_s, A, 1, 4)
        script.do()
        assert script.core.phase is Phase.PROBING
        script.core.probe_done(script.now_s, Answer(A, says(master=True)))
        script.do()
        assert script.done(effects.Join) == [effects.Join(A)]

    @pytest.mark.parametrize(("version", "generation"), [(0, 0), (2, 3), (3, 3)])
    def test_an_older_list_changes_nothing_here(self, version: int, generation: int) -> None:
        script = replicant()
        script.core.belonging.rejected(script.now_s, A, version, generation)
        assert script.core.phase is Phase.FOLLOWING

    def test_who_rejects_is_not_dialled_in_a_tight_circle(self) -> None:
        script = replicant()
        script.core.belonging.rejected(script.now_s, A, 0, 0)
        script.core.link_closed(script.now_s, 1, "rejected")
        script.do()
        script.tick(0.5)
        assert not script.done(effects.Dial)
        script.tick(0.6)
        assert script.done(effects.Dial) == [effects.Dial(A)]


class TestLinks:
    def test_a_ttserver_site_says_what_it_holds_before_its_messages_count(self) -> None:
        script = Script(own(), group_of(A, B), COMPLETE)
        script.start(Answer(A, says(master=True)))
        script.core.link_ready(100.0, 1, A, outgoing=True, native=False, electable=True)
        script.do()
        assert script.done(effects.SendStanding)
        assert not script.done(effects.ReleaseLink)
        script.core.standing(100.0, 1, says(master=True))
        script.do()
        assert script.done(effects.ReleaseLink) == [effects.ReleaseLink(1)]

    def test_a_native_site_counts_at_once(self) -> None:
        script = Script(own(), group_of(A, B), COMPLETE)
        script.start(Answer(A, native=True))
        script.link(A, native=True)
        assert script.done(effects.ReleaseLink)
        assert script.done(effects.StartClient), "which asks it who is master"

    def test_a_master_of_another_group_is_not_followed(self) -> None:
        script = Script(own(), group_of(A, B), COMPLETE)
        script.start(Answer(A, says(priority=2)))
        script.link(A, standing=says(master=True, group_id=8))
        assert script.done(effects.CloseLink)
        assert not script.done(effects.ReleaseLink)
        assert script.core.phase is Phase.WAITING
        assert script.core.why is not None
        assert "another group" in script.core.why

    def test_an_old_master_that_does_not_know_it_yet_changes_nothing(self) -> None:
        script = replicant(A, B, C)  # follows A in generation 4
        script.core.link_closed(script.now_s, 2, "cut")
        script.do()
        lacks = replace_generation(says(master=True, last=LSN(1, 3999)), 3)
        number = script.link(C, standing=lacks)
        assert not script.done(effects.CloseLink)
        assert effects.ReleaseLink(number) in script.last, "it hears from this site who is master"
        assert script.core.phase is Phase.FOLLOWING
        assert script.core.master == A

    @pytest.mark.parametrize(
        ("local", "remote", "first_outgoing", "closed"),
        [
            (A, B, True, []),  # the lower keeps what it dialled; the other side closes
            (B, A, True, [1]),
            (B, A, False, [2]),
            (A, B, False, []),
        ],
    )
    def test_of_two_dials_the_lower_sites_stays(
        self, local: SiteAddress, remote: SiteAddress, first_outgoing: bool, closed: list[int]
    ) -> None:
        script = Script(own(local, priority=0), group_of(A, B), COMPLETE, others=(remote,))
        script.start(Answer(remote, says(master=True)))
        script.link(remote, outgoing=first_outgoing)
        script.link(remote, outgoing=not first_outgoing)
        assert [close.link for close in script.done(effects.CloseLink)] == closed

    def test_a_newer_link_of_the_same_direction_replaces_the_older(self) -> None:
        script = master(B)
        script.link(B)
        assert [close.link for close in script.done(effects.CloseLink)] == [1]

    def test_losing_one_of_two_links_routes_messages_anew(self) -> None:
        script = replicant()
        script.link(A, outgoing=False, standing=says(master=True))
        script.core.link_closed(script.now_s, 1, "replaced")
        script.do()
        assert script.done(effects.RoleChanged)
        assert script.core.master == A, "the master is still there"
        link = script.core.master_link
        assert link is not None
        assert link.number == 2

    def test_the_pause_between_dials_doubles_up_to_the_retry_time(self) -> None:
        script = replicant()
        script.core.link_closed(script.now_s, 1, "reset")
        script.do()
        pauses = []
        began_s = script.now_s
        for _ in range(7):
            while not script.done(effects.Dial):
                script.tick(0.05)
            pauses.append(round(script.now_s - began_s, 2))
            began_s = script.now_s
            script.core.dial_failed(script.now_s, A, "connection refused")
            script.do()
        assert pauses == sorted(pauses)
        assert pauses[0] <= 0.15
        assert 0.95 <= pauses[-1] <= 1.05

    def test_a_site_is_dialled_once_at_a_time(self) -> None:
        script = replicant()
        script.core.link_closed(script.now_s, 1, "reset")
        script.do()
        assert len([e for e in script.tick(5) if isinstance(e, effects.Dial)]) == 1
        script.tick(5)
        assert not script.done(effects.Dial)

    def test_the_same_reason_stands_in_the_journal_once(self) -> None:
        script = replicant()
        script.core.link_closed(script.now_s, 1, "reset")
        for _ in range(3):
            script.core.dial_failed(script.now_s, A, "connection refused")
        script.do()
        assert script.notes().count("connection_failed") == 1


class TestMasterLost:
    def test_a_death_that_is_seen_starts_an_election_at_once(self) -> None:
        script = replicant(A, B, C)
        script.core.link_closed(script.now_s, 1, "reset")
        script.do()
        assert script.done(effects.Elect) == [effects.Elect(2, 2, 0.2, 2.0)], (
            "no tick is waited for"
        )

    def test_nor_does_anybody_wait_for_a_winner_that_died(self) -> None:
        sites = (A, B, C, D, A._replace(port=5014))
        script = replicant(*sites)
        script.core.link_closed(script.now_s, 1, "reset")
        script.do()
        assert script.done(effects.Elect) == [effects.Elect(4, 3, 0.2, 2.0)]
        script.core.election_over(script.now_s, "decided")
        script.core.link_closed(script.now_s, 2, "reset")
        script.do()
        assert script.done(effects.Elect) == [effects.Elect(4, 3, 0.2, 2.0)]

    def test_a_master_that_comes_back_as_none_is_lost(self) -> None:
        script = replicant(A, B, C)
        # Its host lost power: the old link is still there, and nobody noticed anything yet.
        script.link(A, outgoing=False, priority=1, standing=says()._replace(generation=4))
        assert script.core.master is None
        assert "master_lost" in script.notes()
        script.tick()
        assert script.done(effects.Elect)

    def test_a_master_that_steps_down_is_lost_when_no_other_takes_over(self) -> None:
        script = replicant(A, B, C)
        script.core.master_left(script.now_s, script.core.site(C).eid)
        assert not script.tick(TAKEOVER_S + 1), "another site that is no master says nothing"
        script.core.master_left(script.now_s, script.core.site(A).eid)
        assert not [e for e in script.tick(TAKEOVER_S - 1) if isinstance(e, effects.Elect)], (
            "it hands over: an election would come in the way"
        )
        script.core.master_left(script.now_s, script.core.site(A).eid)
        script.tick(1)
        assert "master_lost" in script.notes()
        script.tick()
        assert script.done(effects.Elect)

    def test_a_master_that_hands_over_is_not_lost(self) -> None:
        script = replicant(A, B, C)
        script.core.master_left(script.now_s, script.core.site(A).eid)
        script.core.new_master(script.now_s, script.core.site(C).eid, 5)
        script.tick(TAKEOVER_S + 1)
        assert "master_lost" not in script.notes()
        assert script.core.master == C

    def test_a_master_that_steps_down_is_lost_when_another_site_wants_an_election(self) -> None:
        script = replicant(A, B, C)
        script.core.election_wanted(script.now_s)
        assert script.core.master == A
        script.core.master_left(script.now_s, script.core.site(A).eid)
        script.core.election_wanted(script.now_s)
        script.do()
        assert script.done(effects.Elect)

    def test_a_master_that_does_not_know_yet_that_it_is_one_is_none_lost(self) -> None:
        script = replicant(A, B, C)
        script.link(A, outgoing=False, priority=1, standing=says()._replace(generation=3))
        assert script.core.master == A

    def test_a_site_that_lacks_acknowledged_writes_votes_for_one_that_has_them(self) -> None:
        remembers = replace(COMPLETE, stable_lsn=LSN(1, 9000))
        script = Script(own(), group_of(A, B, C), remembers, others=(A, C))
        ahead = says(priority=1, last=LSN(1, 9000))
        script.start(Answer(A, ahead), Answer(C, reason="no answer"))
        assert script.core.phase is Phase.FOLLOWING
        script.link(A, priority=1, standing=ahead)
        script.tick(10 * FIRST_ELECTION_WAIT_S)
        assert not script.done(effects.Elect), "it calls none by itself"
        script.core.election_wanted(script.now_s)
        script.do()
        assert script.done(effects.Elect)

    def test_two_strict_sites_hold_no_election(self) -> None:
        script = replicant(A, B)
        script.core.link_closed(script.now_s, 1, "reset")
        script.tick()
        assert not script.done(effects.Elect)
        assert "election_impossible" in script.notes()
        assert script.core.why == ("no master: an election needs 2 of 2 sites, this site reaches 1")
        script.tick(5)
        assert "election_impossible" not in script.notes(), "said once"

    def test_two_sites_that_are_not_strict_do(self) -> None:
        script = replicant(A, B, strict=False)
        script.core.link_closed(script.now_s, 1, "reset")
        script.tick()
        assert script.done(effects.Elect) == [effects.Elect(1, 1, 0.2, 2.0)]

    def test_the_first_vote_does_not_wait_for_the_lost_master(self) -> None:
        script = replicant(A, B, C)
        script.core.link_closed(script.now_s, 1, "reset")
        script.tick()
        assert script.done(effects.Elect) == [effects.Elect(2, 2, 0.2, 2.0)]
        assert not [e for e in script.tick(0.2) if isinstance(e, effects.Elect)], "one at a time"
        script.core.election_over(script.now_s, "too few")
        script.tick()
        assert script.done(effects.Elect) == [effects.Elect(2, 2, 2.0, 2.0)], "with all its time"
        script.core.election_over(script.now_s + 2.0, "too few")
        script.tick(2.1)
        assert not script.done(effects.Elect)
        script.tick(4.1)
        assert script.done(effects.Elect) == [effects.Elect(3, 2, 2.0, 2.0)], (
            "then everybody may vote"
        )

    def test_the_winner_takes_over(self) -> None:
        script = replicant(A, B, C)
        script.core.link_closed(script.now_s, 1, "reset")
        script.tick()
        script.core.elected(4)
        script.do()
        assert script.done(effects.StartMaster) == [effects.StartMaster(generation_above=4)]
        script.core.election_over(script.now_s, "decided")
        script.core.became_master(script.now_s, 5, END)
        script.do()
        assert script.core.is_master
        assert script.core.memory.generation == 5
        assert script.done(effects.SendHeartbeat) == [effects.SendHeartbeat()], (
            "its silence means something from now on, on links that had others' heartbeats"
        )
        assert not [e for e in script.tick(30) if isinstance(e, effects.Elect)]

    def test_an_election_won_after_a_promotion_is_void(self) -> None:
        script = replicant(A, B, C)
        script.core.promote()
        script.core.became_master(script.now_s, 5, END)
        script.do()
        script.core.elected()
        assert not script.do()
        assert script.core.is_master

    def test_the_loser_follows(self) -> None:
        script = replicant(A, B, C)
        script.core.link_closed(script.now_s, 1, "reset")
        script.tick()
        script.core.new_master(script.now_s, script.core.site(C).eid, 5)
        script.core.election_over(script.now_s, "decided")
        script.do()
        assert script.core.master == C
        assert not [e for e in script.tick(30) if isinstance(e, effects.Elect)]

    def test_news_of_a_master_whose_link_is_gone_already(self) -> None:
        script = replicant(A, B, C)
        script.core.link_closed(script.now_s, 1, "reset")
        script.tick()
        script.core.election_over(script.now_s, "decided")
        script.core.new_master(script.now_s, script.core.site(A).eid, 5)
        script.do()
        script.tick(1.1)
        assert script.done(effects.Elect), "nobody else would call one"

    def test_news_from_before_a_promotion_is_void(self) -> None:
        script = replicant(A, B, C)
        script.core.promote()
        script.core.new_master(script.now_s, script.core.site(A).eid, 4)
        script.core.became_master(script.now_s, 5, END)
        assert script.core.master == B

    def test_elections_may_be_off(self) -> None:
        script = Script(own(), group_of(A, B, C), COMPLETE, others=(A, C), elections=False)
        script.start(Answer(A, says(priority=1)), Answer(C, says(priority=1)))
        script.link(C, standing=says())
        script.tick(30)
        assert not script.done(effects.Elect)

    def test_a_cold_group_votes_after_a_moment(self) -> None:
        script = Script(own(), group_of(A, B, C), COMPLETE, others=(A, C))
        script.start(Answer(A, says(priority=1)), Answer(C, reason="connection refused"))
        script.link(A, standing=says(priority=1))
        script.tick(FIRST_ELECTION_WAIT_S / 2)
        assert not script.done(effects.Elect)
        script.tick(FIRST_ELECTION_WAIT_S)
        assert script.done(effects.Elect) == [effects.Elect(3, 2, 2.0, 2.0)]

    def test_the_same_master_is_back(self) -> None:
        script = replicant(A, B)
        script.core.link_closed(script.now_s, 1, "reset")
        script.tick()
        script.link(A, standing=says(master=True, priority=1))
        assert script.done(effects.StartClient), "which asks who is master"
        assert script.core.misses_master
        script.core.master_again(script.now_s, script.core.site(A).eid, 4)
        script.do()
        assert script.core.master == A
        assert script.core.why is None
        assert not [e for e in script.tick(30) if isinstance(e, effects.Elect)]

    def test_a_word_of_a_master_counts_only_if_one_is_missed(self) -> None:
        script = replicant(A, B, C)
        script.core.master_again(script.now_s, script.core.site(C).eid, 4)
        assert script.core.master == A
        script.core.promote()
        script.core.master_again(script.now_s, script.core.site(A).eid, 4)
        assert script.core.phase is Phase.TAKING_OVER


class TestTakingOver:
    def test_a_link_that_comes_up_meanwhile_does_not_undo_it(self) -> None:
        # rep_start(CLIENT) behind rep_start(MASTER) would make the library step down.
        script = replicant(A, B, C)
        script.core.promote()
        script.do()
        script.link(C, outgoing=False, standing=says())
        assert script.done(effects.ReleaseLink)
        assert not script.done(effects.StartClient)

    def test_nor_does_a_gap(self) -> None:
        script = replicant()
        script.core.promote()
        for _ in range(3):
            script.now_s += 1
            script.core.heartbeat(script.now_s, 1, 4, LSN(2, 28), END)
        assert not [e for e in script.do() if isinstance(e, effects.StartClient)]

    def test_a_failure_leads_back_to_asking(self) -> None:
        script = replicant()
        script.core.promote()
        script.core.takeover_failed(script.now_s, "out of memory")
        script.do()
        assert script.core.phase is Phase.WAITING
        script.tick(REPROBE_S)
        assert script.done(effects.Probe)

    def test_what_the_operator_gave_up_is_no_longer_counted_as_acknowledged(self) -> None:
        empty = replace(NEW, remembers_group=True, group_id=7, stable_lsn=LSN(9, 28))
        script = Script(empty, memory=Memory(group_id=7, stable_lsn=LSN(9, 28)), others=())
        script.start()
        script.core.promote()
        script.core.became_master(script.now_s, 1, LSN(1, 100))
        assert script.core.memory.stable_lsn == LSN(1, 100)


class TestDuplicateMaster:
    def test_both_step_down_and_vote(self) -> None:
        script = master(B, C)
        script.core.duplicate_master(script.now_s)
        script.do()
        assert script.core.phase is Phase.FOLLOWING
        assert script.done(effects.StartClient)
        script.tick()
        assert script.done(effects.Elect)

    def test_said_twice_it_counts_once(self) -> None:
        script = master(B, C)
        script.core.duplicate_master(script.now_s)
        script.do()
        script.tick()
        script.core.elected()
        script.do()
        script.core.duplicate_master(script.now_s)
        assert not [e for e in script.do() if isinstance(e, effects.StartClient)]

    def test_said_while_taking_over_it_counts_afterwards(self) -> None:
        script = replicant(A, B, C)
        script.core.promote()
        script.core.duplicate_master(script.now_s)
        script.do()
        assert not script.done(effects.StartClient)
        script.core.became_master(script.now_s, 5, END)
        script.do()
        assert script.done(effects.StartClient)
        assert script.core.phase is Phase.FOLLOWING

    def test_a_replicant_is_no_duplicate(self) -> None:
        script = replicant()
        script.core.duplicate_master(script.now_s)
        assert not script.do()

    def test_a_heartbeat_of_an_older_master_is_answered_by_saying_who_is(self) -> None:
        script = master(B)
        script.core.heartbeat(script.now_s, 1, 4, END, END)
        script.do()
        assert script.done(effects.AnnounceMaster)
        assert script.core.is_master

    def test_a_heartbeat_of_a_newer_master_ends_this_one(self) -> None:
        script = master(B)
        script.core.heartbeat(script.now_s, 1, 5, END, END)
        assert script.core.phase is Phase.FOLLOWING


class TestHeartbeats:
    def test_a_silent_master_is_given_up_once_it_sent_one(self) -> None:
        script = replicant()
        script.tick(60)
        assert not script.done(effects.CloseLink), "a native master sends none by default"
        script.core.heartbeat(script.now_s, 1, 4, END, END)
        script.core.sites.links[1].heard_s = script.now_s
        script.tick(0.9)
        assert not script.done(effects.CloseLink)
        script.tick(0.2)
        [closed] = script.done(effects.CloseLink)
        assert closed.link == 1
        assert "1.1 s" in closed.reason

    def test_another_masters_heartbeat_says_nothing_about_this_one(self) -> None:
        script = replicant(A, B, C)
        script.core.heartbeat(script.now_s, 2, 4, END, END)
        script.core.new_master(script.now_s, script.core.site(C).eid, 5)
        script.tick(60)
        assert not script.done(effects.CloseLink)

    @pytest.mark.parametrize("after_s", [0.0, 0.01, 0.04, 0.2])
    def test_at_defaults_silence_is_noticed_within_a_second_and_a_half(
        self, after_s: float
    ) -> None:
        script = replicant(A, B, C)
        heard_s = script.now_s + 3.0
        script.core.heartbeat(heard_s, 1, 4, END, END)
        script.core.sites.links[1].heard_s = heard_s
        script.now_s = heard_s + after_s
        while not script.done(effects.CloseLink):
            script.tick(TICK_S)
        script.core.link_closed(script.now_s, 1, "nothing heard")
        script.do()
        assert script.done(effects.Elect)
        assert 1.0 < script.now_s - heard_s <= 1.5

    def test_a_master_speaks_up_when_it_was_silent(self) -> None:
        script = master(B)
        script.core.tick(script.now_s + 0.1, script.now_s, END)
        assert not [e for e in script.do() if isinstance(e, effects.SendHeartbeat)]
        script.core.tick(script.now_s + 0.3, script.now_s, END)
        assert [e for e in script.do() if isinstance(e, effects.SendHeartbeat)]
        script.core.tick(script.now_s + 0.4, script.now_s, END)
        assert not [e for e in script.do() if isinstance(e, effects.SendHeartbeat)]

    def test_under_load_it_still_says_how_far_it_is(self) -> None:
        script = master(B)
        begun_s = script.now_s
        script.core.tick(begun_s, begun_s, END)
        script.do()
        sent = 0
        for number in range(1, 21):  # 2 s in steps of 0.1 s, each with a broadcast just before
            now_s = begun_s + number / 10
            script.core.tick(now_s, now_s - 0.01, END)
            sent += len([e for e in script.do() if isinstance(e, effects.SendHeartbeat)])
        assert sent == 2

    def test_a_new_link_hears_one_at_once_so_that_its_silence_means_something(self) -> None:
        script = master(B)
        number = script.link(B, standing=says())
        assert script.done(effects.SendHeartbeat) == [effects.SendHeartbeat(number)]
        script = replicant()
        script.link(C, standing=says())
        assert not script.done(effects.SendHeartbeat), "only a master's count"

    def beat(self, script: Script, seconds: float, applied: LSN) -> list[effects.Effect]:
        script.now_s += seconds
        script.core.heartbeat(script.now_s, 1, 4, LSN(1, 9000), applied)
        return script.do()

    def test_standing_still_behind_the_master_is_a_gap(self) -> None:
        script = replicant()
        assert not self.beat(script, 0.2, END)
        assert not self.beat(script, GAP_SILENCE_S / 2, END)
        self.beat(script, GAP_SILENCE_S, END)
        assert script.notes() == ["gap_suspected"]
        assert script.done(effects.StartClient)
        assert not self.beat(script, 0.1, END), "and not again at once"

    def test_behind_a_master_that_is_back_something_is_missing_for_sure(self) -> None:
        script = replicant()
        script.core.link_closed(script.now_s, 1, "reset")
        script.link(A, standing=says(master=True, priority=1))
        script.core.master_again(script.now_s, script.core.site(A).eid, 4)
        script.do()
        script.core.heartbeat(script.now_s, 2, 4, LSN(1, 9000), END)
        script.do()
        assert script.notes() == ["gap_suspected"]
        assert not self.beat(script, 0.1, END), "and not again at once"

    def test_moving_on_is_none(self) -> None:
        script = replicant()
        for offset in range(5001, 5010):
            assert not self.beat(script, GAP_SILENCE_S * 2, LSN(1, offset))

    def test_nor_is_a_sync(self) -> None:
        script = replicant()
        script.core.catch_up.started(1)
        script.do()
        for _ in range(4):
            assert not self.beat(script, GAP_SILENCE_S * 2, END)


class TestSync:
    def test_the_copy_is_incomplete_until_the_end(self) -> None:
        script = replicant()
        script.core.catch_up.started(1)
        script.do()
        assert not script.core.complete
        assert {saved.memory.complete for saved in script.done(effects.SaveMemory)} == {False}
        script.core.startup_finished(LSN(1, 3000))
        script.do()
        assert script.core.memory.complete
        assert script.core.memory.stable_lsn == LSN(1, 3000), "of another copy"
        assert script.done(effects.LoadMembership)

    def test_catching_up_from_the_log_forgets_nothing(self) -> None:
        script = replicant()
        script.core.startup_finished(LSN(1, 3000))
        assert script.core.memory.stable_lsn == COMPLETE.stable_lsn

    def test_a_log_that_does_not_fit_waits_for_the_operator(self) -> None:
        script = replicant()
        script.core.join_failure(script.now_s)
        assert script.core.phase is Phase.WAITING
        assert script.core.hint is not None
        assert "wipe" in script.core.hint

    def test_what_was_applied_since_the_start_counts_for_the_next_decision(self) -> None:
        script = replicant()
        script.tick(applied=LSN(2, 100))
        script.core.stable(LSN(2, 100))
        script.core.link_closed(script.now_s, 1, "reset")
        script.core.belonging.rejected(script.now_s, A, 9, 4)
        script.core.probe_done(script.now_s, Answer(A, reason="connection refused"))
        assert script.core.why is None or "log ends" not in script.core.why


class TestMemory:
    def test_the_stable_lsn_only_grows_and_is_saved_at_leisure(self) -> None:
        script = replicant()
        script.core.stable(LSN(1, 6000))
        script.core.stable(LSN(1, 5500))
        assert script.core.memory.stable_lsn == LSN(1, 6000)
        assert not script.do()

    def test_priorities_of_former_members_are_forgotten(self) -> None:
        script = replicant(A, B, C)
        script.core.membership_loaded(script.now_s, group_of(A, B, version=9, generation=4))
        script.do()
        assert set(script.core.memory.priorities) == {A, C}, "C still stands in DB_CONFIG"
        other = Script(own(), group_of(A, B, D), replace(COMPLETE, priorities={D: 1}), others=(A,))
        other.core.membership_loaded(0.0, group_of(A, B, version=9, generation=4))
        assert D not in other.core.memory.priorities


def test_messages_count_once_the_library_is_a_client() -> None:
    script = replicant()
    seen = [script.core.client_started]
    script.core.client_ready()
    seen.append(script.core.client_started)
    script.core.promote()
    script.core.became_master(script.now_s, 5, END)
    script.core.client_ready()  # said before the library made it master
    seen.append(script.core.client_started)
    assert seen == [False, True, False]


def test_a_client_that_hears_of_no_master_asks_again() -> None:
    script = Script(own(), group_of(A, B), COMPLETE, elections=False)
    script.start(Answer(A, says(master=True, priority=1)))
    # The link is there before the library is a client: its question went nowhere.
    script.link(A, priority=1, standing=says(master=True, priority=1))
    script.core.client_ready()
    script.tick(0.1)
    assert script.done(effects.StartClient)
    script.tick(0.1)
    assert not script.done(effects.StartClient), "once a second is enough"
    script.tick(1.0)
    assert script.done(effects.StartClient)
    script.core.new_master(script.now_s, script.core.site(A).eid, 4)
    script.do()
    script.tick(2.0)
    assert not script.done(effects.StartClient)
