"""Writes that wait for their acknowledgements: who is released, when, and with which words."""

from __future__ import annotations

import pytest

from replication.acks import AckTable, SiteAck
from replication.messages import AckPolicy
from replication.pending import Counts, Pending, Waiting
from replication.wire import LSN

P = AckPolicy
LATER_S = 1000.0


class Group:
    """A master's view of its sites, and what was released so far."""

    def __init__(self, *electable: bool, two_site_strict: bool = True) -> None:
        self.table = AckTable(1)
        self.electable = list(electable)
        self.connected = [True] * len(electable)
        self.released: list[tuple[object, str | None]] = []
        self.pending = Pending(
            self.table, self.sites, self._release, two_site_strict=two_site_strict
        )
        self.pending.begin(1)

    def sites(self) -> list[SiteAck]:
        return [
            SiteAck(eid, electable, self.connected[eid], self.table.acked(eid), name=f"site {eid}")
            for eid, electable in enumerate(self.electable)
        ]

    def _release(self, token: object, shortfall: str | None) -> None:
        self.released.append((token, shortfall))

    def write(self, offset: int, policy: AckPolicy = P.ONE, deadline_s: float = LATER_S) -> None:
        self.pending.add(Waiting(1, LSN(1, offset), policy, deadline_s, offset))

    def ack(self, eid: int, offset: int) -> None:
        if self.table.record(eid, 1, LSN(1, offset)):
            self.pending.acked()

    def lose(self, eid: int) -> None:
        self.connected[eid] = False
        self.pending.sites_changed()

    @property
    def ok(self) -> list[object]:
        return [token for token, shortfall in self.released if shortfall is None]

    @property
    def failed(self) -> dict[object, str]:
        return {token: shortfall for token, shortfall in self.released if shortfall is not None}


class TestRelease:
    def test_an_ack_releases_everything_up_to_it_in_order(self) -> None:
        group = Group(True, True)
        for offset in (100, 200, 300):
            group.write(offset)
        group.ack(0, 200)
        assert group.ok == [100, 200]
        assert len(group.pending) == 1
        assert group.pending.stable == LSN(1, 200)

    def test_nobody_waits_under_none(self) -> None:
        group = Group(True)
        group.write(100, P.NONE)
        assert group.ok == [100]

    def test_each_policy_has_its_own_queue(self) -> None:
        group = Group(True, True, True)
        group.write(100, P.ALL)
        group.write(200, P.ONE)
        group.ack(0, 200)
        assert group.ok == [200]
        group.ack(1, 200)
        group.ack(2, 200)
        assert group.ok == [200, 100]

    def test_an_ack_that_came_before_its_write_counts(self) -> None:
        group = Group(True)
        group.ack(0, 100)
        group.write(100)
        assert group.ok == [100]

    def test_quorum_of_four_needs_one_electable_site(self) -> None:
        group = Group(True, True, False)
        group.write(100, P.QUORUM)
        group.ack(2, 100)
        assert not group.ok, "priority 0 does not count for a quorum"
        group.ack(1, 100)
        assert group.ok == [100]


class TestLoss:
    def test_who_cannot_be_met_any_more_is_answered_at_once(self) -> None:
        group = Group(True)
        group.write(100)
        group.lose(0)
        assert group.failed == {
            100: "ONE needs one site; 1/100 acknowledged by none; missing: site 0"
            " (nothing yet, not connected)"
        }
        assert group.pending.counts == Counts(unreachable=1)

    def test_a_write_to_come_too(self) -> None:
        group = Group(True)
        group.lose(0)
        group.write(100)
        assert 100 in group.failed

    def test_what_the_others_may_still_do_is_waited_for(self) -> None:
        group = Group(True, True)
        group.write(100)
        group.lose(0)
        assert not group.released
        group.ack(1, 100)
        assert group.ok == [100]

    def test_only_the_writes_that_lost_hope_fail_and_in_order(self) -> None:
        # Site 0 holds the first write and is gone; site 1 may still acknowledge. Both are needed.
        group = Group(True, True)
        for offset in (100, 200, 300):
            group.write(offset, P.ALL)
        group.ack(0, 100)
        group.lose(0)
        assert list(group.failed) == [200, 300]
        group.ack(1, 300)
        assert group.ok == [100]

    def test_a_site_that_left_the_group_is_not_waited_for(self) -> None:
        group = Group(True, True)
        group.write(100, P.ALL)
        group.ack(0, 100)
        group.electable.pop()
        group.pending.sites_changed()
        assert group.ok == [100]

    def test_a_master_no_longer(self) -> None:
        group = Group(True)
        group.write(100)
        group.write(200, P.ALL)
        group.pending.end("this site is no longer master")
        assert group.failed == {
            offset: f"this site is no longer master; 1/{offset} acknowledged by none;"
            " missing: site 0 (nothing yet)"
            for offset in (100, 200)
        }
        assert len(group.pending) == 0


class TestGeneration:
    def test_a_write_of_an_earlier_generation_is_never_confirmed(self) -> None:
        # Its thread slept between the commit and here, and this site is master again meanwhile.
        group = Group(True)
        group.pending.begin(2)
        assert group.table.record(0, 2, LSN(1, 200))
        group.pending.acked()
        group.write(100)
        assert group.failed[100].startswith("this site is no longer master of the generation of")
        assert group.pending.counts == Counts(deposed=1)

    def test_nothing_is_confirmed_after_the_end(self) -> None:
        group = Group(True)
        group.ack(0, 200)
        group.pending.end("this site is no longer master")
        group.write(100)
        assert group.failed[100] == (
            "this site is no longer master; 1/100 acknowledged by site 0; missing: none"
        )

    def test_what_waits_is_answered_and_the_stable_lsn_begins_anew(self) -> None:
        group = Group(True)
        group.write(100)
        group.ack(0, 100)
        group.write(200)
        group.pending.begin(2)
        assert list(group.failed) == [200]
        assert group.pending.stable == LSN(0, 0)
        assert group.table.acked(0) is None


class TestCutOff:
    def test_an_acknowledgement_that_is_read_too_late_confirms_nothing(self) -> None:
        # The process stood still, and others may have elected another master meanwhile.
        group = Group(True, True)
        group.write(100)
        group.write(200, P.ALL)
        group.pending.cut_off = lambda: "this master is cut off"
        group.ack(0, 100)
        assert not group.ok
        assert list(group.failed) == [100, 200]
        assert group.failed[100].startswith("this master is cut off; ")
        assert group.pending.stable == LSN(0, 0)

    def test_nor_does_the_lesser_policy_at_the_time_out(self) -> None:
        group = Group(True, True)
        group.write(100, P.ALL_AVAILABLE, deadline_s=1.0)
        group.ack(0, 100)
        group.pending.cut_off = lambda: "this master is cut off"
        group.pending.expire(1.0)
        assert list(group.failed) == [100]

    def test_afterwards_it_confirms_again(self) -> None:
        group = Group(True)
        group.pending.cut_off = lambda: "this master is cut off"
        group.write(100)
        group.pending.cut_off = lambda: None
        group.write(200)
        group.ack(0, 200)
        assert group.ok == [200]


class TestTimeOut:
    def test_it_names_who_is_missing(self) -> None:
        group = Group(True, True)
        group.write(100, P.ALL, deadline_s=1.0)
        group.ack(0, 100)
        group.pending.expire(0.9)
        assert not group.released
        group.pending.expire(1.0)
        assert group.failed == {
            100: "ALL needs all 2 other sites; 1/100 acknowledged by site 0; missing: site 1"
            " (nothing yet)"
        }

    def test_all_available_then_settles_for_a_quorum(self) -> None:
        group = Group(True, True)
        group.write(100, P.ALL_AVAILABLE, deadline_s=1.0)
        group.ack(0, 100)
        assert not group.ok
        group.pending.expire(1.0)
        assert group.ok == [100]

    def test_a_patient_write_does_not_hold_up_those_behind_it(self) -> None:
        group = Group(True)
        group.write(100, deadline_s=60.0)
        group.write(200, deadline_s=0.1)
        group.write(300, deadline_s=60.0)
        group.pending.expire(0.2)
        assert list(group.failed) == [200]
        group.ack(0, 300)
        assert group.ok == [100, 300]

    def test_the_late_ack_of_an_answered_write_releases_nothing_twice(self) -> None:
        group = Group(True)
        group.write(100, deadline_s=0.1)
        group.pending.expire(0.2)
        group.ack(0, 100)
        assert [token for token, _ in group.released] == [100]

    def test_a_failed_write_is_not_stable(self) -> None:
        group = Group(True)
        group.write(100, deadline_s=0.1)
        group.pending.expire(0.2)
        assert group.pending.stable == LSN(0, 0)


def test_every_write_is_counted_once_by_how_it_ended() -> None:
    group = Group(True, True)
    for offset, policy, writes in ((100, P.ONE, 3), (200, P.NONE, 5), (300, P.ALL, 7)):
        group.pending.add(Waiting(1, LSN(1, offset), policy, 1.0, offset, writes))
    group.ack(0, 300)
    group.pending.expire(1.0)
    group.write(400)
    group.pending.end("this site is stopping")
    group.pending.begin(1)
    group.lose(0)
    group.lose(1)
    group.write(500)
    assert group.pending.counts == Counts(acknowledged=3, alone=5, unreachable=1, late=7, deposed=1)


@pytest.mark.parametrize("policy", list(AckPolicy))
def test_a_write_may_follow_from_within_a_release(policy: AckPolicy) -> None:
    group = Group(True)

    def release(token: object, _shortfall: str | None) -> None:
        group.released.append((token, _shortfall))
        if token == 100:
            group.write(200, policy)

    group.pending = Pending(group.table, group.sites, release, two_site_strict=True)
    group.pending.begin(1)
    group.write(100)
    group.ack(0, 200)
    assert group.ok == [100, 200]
