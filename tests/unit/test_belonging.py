"""Sites leave the group and come back: the master's side, and that of the site itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from replication import effects
from replication.acks import SiteAck
from replication.coldstart import Answer
from replication.core import REPROBE_S
from replication.membership import Membership
from replication.membership_work import missing_acks
from replication.messages import OwnCode, SiteStatus
from replication.phase import Phase
from replication.wire import LSN
from tests.support.scripted_core import (
    COMPLETE,
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


def answers(script: Script) -> list[tuple[int, int]]:
    return [(answer.request, answer.code) for answer in script.done(effects.Answer)]


class TestTakingSitesOut:
    def removed(self, script: Script, request: int = 1) -> effects.ChangeMembership:
        script.core.requests.remove(request, C)
        script.do()
        [change] = script.done(effects.ChangeMembership)
        return change

    def finished(self, script: Script, change: effects.ChangeMembership) -> None:
        script.core.membership_changed(change.steps[-1], change.request)
        script.do()

    def test_two_steps_then_the_answer_and_only_members_hear_the_list(self) -> None:
        script = master(B, C)
        change = self.removed(script)
        statuses = [[m.status for m in step.members if m.address == C] for step in change.steps]
        assert statuses == [[SiteStatus.DELETING], []]
        self.finished(script, change)
        assert answers(script) == [(1, OwnCode.REMOVE_SUCCESS)]
        [sharing] = script.done(effects.SendOwn)
        assert (sharing.link, sharing.code) == (1, OwnCode.SHARING)
        assert [reject.link for reject in script.done(effects.RejectLink)] == [2]

    def test_it_is_rejected_by_the_other_members_too(self) -> None:
        script = replicant(A, B, C)
        script.core.membership_shared(group_of(A, B, version=9, generation=4))
        script.do()
        assert [reject.link for reject in script.done(effects.RejectLink)] == [2]

    def test_a_removal_that_was_taken_back_rejects_nobody(self) -> None:
        script = master(B, C)
        change = self.removed(script)
        script.core.group.step_done(change.steps[0])
        script.core.group.step_done(change.steps[0].present(C))
        script.core.membership_failed(1, "nobody acknowledged it")
        script.do()
        assert answers(script) == [(1, OwnCode.GM_FAILURE)]
        assert not script.done(effects.RejectLink)
        assert script.core.group.is_present(C)

    def test_who_is_no_member_is_gone_already(self) -> None:
        script = master(B)
        script.core.requests.remove(1, C)
        script.do()
        assert answers(script) == [(1, OwnCode.REMOVE_SUCCESS)]
        assert not script.done(effects.ChangeMembership)

    def test_the_master_itself_stays(self) -> None:
        script = master(B)
        script.core.requests.remove(1, A)
        script.do()
        [answer] = script.done(effects.Answer)
        assert answer.code == OwnCode.GM_FAILURE
        assert "is the master" in answer.reason

    def test_a_replicant_names_the_master(self) -> None:
        script = replicant(A, B, C)
        script.core.requests.remove(1, C)
        script.do()
        assert answers(script) == [(1, OwnCode.GM_FORWARD)]

    def test_an_addition_that_stopped_half_way_is_taken_back_in_one_step(self) -> None:
        script = master(B)
        script.core.group.step_done(group_of(A, B).adding(C))
        change = self.removed(script)
        assert [step.find(C) for step in change.steps] == [None]

    def test_removed_and_added_again_in_order(self) -> None:
        script = master(B, C)
        first = self.removed(script)
        script.core.requests.join(2, C)  # still a member: it is one until the removal is done
        script.do()
        assert answers(script) == [(2, OwnCode.JOIN_SUCCESS)]
        self.finished(script, first)
        script.core.requests.join(3, C)
        script.do()
        [second] = script.done(effects.ChangeMembership)
        self.finished(script, second)
        assert (3, OwnCode.JOIN_SUCCESS) in answers(script)

    def test_a_force_goes_with_the_change(self) -> None:
        script = master(B, C)
        script.core.requests.remove(1, C, forced=True)
        script.do()
        assert [change.forced for change in script.done(effects.ChangeMembership)] == [True]

    def test_who_waits_is_answered_when_the_master_steps_down(self) -> None:
        script = master(B, C)
        self.removed(script)
        script.core.duplicate_master(script.now_s)
        script.do()
        assert answers(script) == [(1, OwnCode.GM_FAILURE)]


@pytest.mark.parametrize("status", [SiteStatus.ADDING, SiteStatus.DELETING])
def test_a_new_master_finishes_what_the_old_one_began(status: SiteStatus) -> None:
    before = group_of(A, B, C)
    began = before.deleting(C) if status is SiteStatus.DELETING else group_of(A, B).adding(C)
    script = master(B)
    script.core.membership_loaded(script.now_s, began)
    script.do()
    [change] = script.done(effects.ChangeMembership)
    [last] = change.steps
    assert last.is_present(C) == (status is SiteStatus.ADDING)
    assert last.unfinished is None


class TestRemoved:
    def removed(self, version: int = 9, generation: int = 4) -> Script:
        script = replicant(A, B, C)
        script.core.belonging.rejected(script.now_s, A, version, generation)
        script.do()
        return script

    def test_it_says_so_closes_its_links_and_stops_trying(self) -> None:
        script = self.removed()
        core = script.core
        assert core.phase is Phase.REMOVED
        assert core.why == "this site was removed from the group"
        assert core.hint is not None
        assert f"site add {B}" in core.hint
        assert "removed_from_group" in script.notes()
        assert [close.link for close in script.done(effects.CloseLink)] == [1, 2]
        assert script.done(effects.SaveMemory)[-1].memory.removed
        for number in (1, 2):
            core.link_closed(script.now_s, number, "closed")
        script.do()
        for _ in range(20):
            script.tick(REPROBE_S)
            assert not script.done(effects.Dial)
            assert not script.done(effects.Probe)
            assert not script.done(effects.Elect)

    def test_what_the_library_says_late_changes_nothing(self) -> None:
        script = self.removed()
        script.core.new_master(script.now_s, script.core.site(A).eid, 5)
        script.core.election_wanted(script.now_s)
        script.core.membership_shared(group_of(A, B, C, version=20, generation=9))
        script.core.belonging.rejected(script.now_s, C, 20, 9)
        script.do()
        assert script.core.phase is Phase.REMOVED
        assert script.core.master is None
        assert not script.done(effects.Elect)

    @pytest.mark.parametrize("version", [1, 3])
    def test_a_group_that_lost_its_last_change_takes_it_in_again(self, version: int) -> None:
        assert self.removed(version).core.phase is Phase.PROBING

    def test_it_stays_removed_over_a_restart(self) -> None:
        memory = replace(COMPLETE, removed=True)
        script = Script(replace(own(), removed=True), group_of(A, B), memory)
        script.start()
        assert script.core.phase is Phase.REMOVED
        assert not script.done(effects.Probe)

    def test_its_own_copy_of_the_list_may_tell_it(self) -> None:
        script = replicant(A, B, C)
        script.core.membership_loaded(script.now_s, group_of(A, C, version=5, generation=4))
        assert script.core.phase is Phase.REMOVED

    def test_a_list_made_anew_in_its_own_copy_is_joined_again(self) -> None:
        script = replicant(A, B, C)
        script.core.membership_loaded(script.now_s, group_of(A, version=1, generation=4))
        script.do()
        assert script.core.phase is Phase.PROBING
        assert {probe.address for probe in script.done(effects.Probe)} == {A, C}

    def test_asked_to_it_asks_around_and_joins(self) -> None:
        script = self.removed()
        script.core.belonging.rejoin(script.now_s)
        script.do()
        assert {probe.address for probe in script.done(effects.Probe)} == {A, C}
        script.core.probe_done(script.now_s, Answer(A, says(master=True)))
        script.core.probe_done(script.now_s, Answer(C, says()))
        script.do()
        assert script.done(effects.Join) == [effects.Join(A)]
        script.core.belonging.joined(script.now_s, group_of(A, B, C, version=11, generation=4))
        script.do()
        assert script.core.phase is Phase.FOLLOWING
        assert not script.core.memory.removed

    @pytest.mark.parametrize("priority", [0, 1])
    def test_without_a_master_it_founds_no_group_and_elects_nobody(self, priority: int) -> None:
        removed = replace(own(priority=priority, creator=True), removed=True)
        script = Script(removed, group_of(A, B), replace(COMPLETE, removed=True))
        script.start()
        script.core.belonging.rejoin(script.now_s)
        script.core.probe_done(script.now_s, Answer(A, says(priority=1)))
        script.do()
        assert script.core.phase is Phase.WAITING
        assert script.core.why is not None
        assert "no master answers" in script.core.why
        assert not script.done(effects.StartMaster)
        # Asked for only once, it goes on asking by itself.
        script.tick(REPROBE_S)
        script.core.probe_done(script.now_s, Answer(A, says(master=True)))
        script.do()
        assert script.done(effects.Join) == [effects.Join(A)]

    def test_invited_by_a_site_it_never_heard_of_it_asks_that_one(self) -> None:
        script = self.removed()
        script.core.belonging.invited(script.now_s, D)
        script.do()
        assert D in {probe.address for probe in script.done(effects.Probe)}
        assert {"invited", "rejoin_asked"} <= set(script.notes())

    def test_who_belongs_to_a_group_takes_no_invitation(self) -> None:
        script = replicant()
        script.core.belonging.invited(script.now_s, D)
        assert not script.do()
        assert script.core.phase is Phase.FOLLOWING

    def test_promoted_it_is_removed_no_longer(self) -> None:
        script = self.removed()
        script.core.promote()
        script.core.became_master(script.now_s, 9, LSN(1, 5000))
        script.do()
        assert not script.core.memory.removed
        assert not script.core.own.removed


P, W = True, None  # electable, not known


@pytest.mark.parametrize(
    ("others", "missing"),
    [
        # (electable, acknowledged, status)
        ([], []),
        ([(P, 0, "deleting")], []),  # the last other one: nobody else is there to ask
        ([(P, 0, "adding")], []),
        ([(P, 0, "present"), (P, 0, "adding")], []),  # two sites: QUORUM asks for nobody
        ([(P, 0, "present"), (P, 0, "deleting")], [0]),
        ([(P, 1, "present"), (P, 0, "deleting")], []),
        ([(P, 0, "present"), (P, 1, "deleting")], [0]),  # who goes has no say
        ([(W, 0, "present"), (P, 0, "deleting")], [0]),
        ([(False, 0, "present"), (False, 0, "deleting")], []),
        ([(P, 0, "present"), (P, 0, "present"), (P, 0, "adding")], [0, 1]),
        ([(P, 0, "present"), (P, 1, "present"), (P, 0, "adding")], []),
        ([(P, 1, "present"), (P, 0, "present"), (P, 0, "present"), (P, 0, "deleting")], [1, 2]),
        ([(P, 1, "present"), (P, 1, "present"), (P, 0, "present"), (P, 0, "deleting")], []),
    ],
)
def test_a_change_is_begun_in_earnest_when_a_majority_knows(
    others: list[tuple[bool | None, int, str]], missing: list[int]
) -> None:
    lsn = LSN(3, 400)
    sites = [
        SiteAck(eid, electable, True, lsn if acked else LSN(3, 399), SiteStatus[status.upper()])
        for eid, (electable, acked, status) in enumerate(others)
    ]
    assert [site.eid for site in missing_acks(sites, lsn)] == missing


def test_of_two_that_need_no_majority_the_other_one_has_to_know() -> None:
    sites = [
        SiteAck(0, True, True, None, SiteStatus.PRESENT),
        SiteAck(1, True, True, None, SiteStatus.ADDING),
    ]
    assert missing_acks(sites, LSN(1, 1), two_site_strict=False) == sites[:1]


def test_a_list_with_two_unfinished_sites_is_finished_site_by_site() -> None:
    began = Membership(7, 3, group_of(A, B).adding(C).members + group_of(D).deleting(D).members)
    script = master(B)
    script.core.membership_loaded(script.now_s, began)
    script.do()
    [change] = script.done(effects.ChangeMembership)
    assert [step.version for step in change.steps] == [8, 9]
    assert {m.address for m in change.steps[-1].members} == {A, B, C}
