"""Ack policies: what each waits for, what it says when it can't be met, and stale acks."""

from __future__ import annotations

import pytest

from replication.acks import (
    AckTable,
    SiteAck,
    can_be_met,
    policy_after_timeout,
    policy_for_membership_change,
    policy_lsn,
    quorum_size,
    waits_for_nobody,
)
from replication.messages import AckPolicy, SiteStatus
from replication.wire import LSN, LSN_MAX

P = AckPolicy
L1, L2, L3 = LSN(1, 100), LSN(1, 200), LSN(2, 28)


def site(
    eid: int,
    acked: LSN | None = None,
    *,
    electable: bool | None = True,
    connected: bool = True,
    status: SiteStatus = SiteStatus.PRESENT,
) -> SiteAck:
    """Return a connected electable member unless told otherwise."""
    return SiteAck(eid, electable, connected, acked, status)


class TestAckTable:
    def test_the_highest_lsn_of_each_site_counts(self) -> None:
        table = AckTable(generation=4)
        assert table.record(1, 4, L2)
        assert not table.record(1, 4, L1)
        assert not table.record(1, 4, L2)
        assert table.record(1, 4, L3), "file numbers go before offsets"
        assert table.record(2, 4, L1)
        assert (table.acked(1), table.acked(2), table.acked(3)) == (L3, L1, None)
        assert table.ignored_count == 2

    @pytest.mark.parametrize("generation", [3, 5])
    def test_acks_of_other_generations_are_ignored(self, generation: int) -> None:
        table = AckTable(generation=4)
        assert not table.record(1, generation, L1)
        assert table.acked(1) is None

    def test_a_new_generation_starts_from_nothing(self) -> None:
        table = AckTable(generation=4)
        table.record(1, 4, L2)
        table.start_generation(5)
        assert table.acked(1) is None
        assert table.record(1, 5, L1)

    def test_a_removed_site_is_forgotten(self) -> None:
        table = AckTable(generation=4)
        table.record(1, 4, L2)
        table.forget(1)
        table.forget(9)
        assert table.acked(1) is None


class TestPolicies:
    THREE = (site(1, L3), site(2, L1, electable=False), site(3, L2))

    @pytest.mark.parametrize(
        ("policy", "lsn"),
        [
            (P.ALL, L1),
            (P.ALL_AVAILABLE, L1),
            (P.ALL_PEERS, L2),
            (P.NONE, LSN_MAX),
            (P.ONE, L3),
            (P.ONE_PEER, L3),
            (P.QUORUM, L3),
        ],
    )
    def test_four_sites(self, policy: AckPolicy, lsn: LSN) -> None:
        assert policy_lsn(policy, self.THREE) == lsn

    @pytest.mark.parametrize("policy", list(AckPolicy))
    def test_a_group_of_one_meets_every_policy(self, policy: AckPolicy) -> None:
        assert policy_lsn(policy, []) == LSN_MAX
        assert waits_for_nobody(policy, [])
        assert can_be_met(policy, [])

    @pytest.mark.parametrize("policy", list(AckPolicy))
    def test_so_does_a_group_whose_second_site_is_being_added(self, policy: AckPolicy) -> None:
        assert waits_for_nobody(policy, [site(1, electable=None, status=SiteStatus.ADDING)])

    def test_quorum_sizes(self) -> None:
        sizes = [quorum_size(n) for n in range(1, 8)]
        assert sizes == [0, 0, 1, 1, 2, 2, 3]
        assert quorum_size(2, two_site_strict=False) == 1
        assert quorum_size(3, two_site_strict=False) == 1

    def test_quorum_of_two_depends_on_two_site_strict(self) -> None:
        one = [site(1)]
        assert waits_for_nobody(P.QUORUM, one)
        assert not waits_for_nobody(P.QUORUM, one, two_site_strict=False)
        assert policy_lsn(P.QUORUM, [site(1, L1)], two_site_strict=False) == L1

    def test_quorum_of_the_two_site_recipe_has_no_peer_to_wait_for(self) -> None:
        assert waits_for_nobody(P.QUORUM, [site(1, electable=False)], two_site_strict=False)
        assert not waits_for_nobody(P.ONE, [site(1, electable=False)])

    def test_quorum_counts_priority_0_in_the_group_but_not_in_the_acks(self) -> None:
        zeros = [site(eid, L3, electable=False) for eid in (1, 2)]
        assert policy_lsn(P.QUORUM, [*zeros, site(3, L1), site(4, L2)]) == L1
        assert policy_lsn(P.QUORUM, [*zeros, site(3, L2)]) == L2, "all electable ones will do"

    def test_a_site_never_heard_of_may_be_electable(self) -> None:
        sites = [site(1, L2), site(2, electable=None, connected=False)]
        assert policy_lsn(P.ALL_PEERS, sites) is None
        assert policy_lsn(P.QUORUM, sites) == L2
        five = [*sites, site(3, L3, electable=False), site(4, L3, electable=False)]
        assert policy_lsn(P.QUORUM, five) is None

    def test_who_is_being_removed_is_still_waited_for_but_does_not_count(self) -> None:
        leaving = site(2, L3, status=SiteStatus.DELETING)
        assert policy_lsn(P.ONE, [site(1, L1), leaving]) == L1
        assert policy_lsn(P.ALL, [site(1, L2), leaving]) == L2
        assert policy_lsn(P.ALL_PEERS, [site(1, L2), site(2, status=SiteStatus.DELETING)]) is None

    def test_all_available_leaves_out_who_is_not_connected(self) -> None:
        sites = [site(1, L2), site(2, L1), site(3, connected=False)]
        assert policy_lsn(P.ALL_AVAILABLE, sites) == L1
        assert policy_lsn(policy_after_timeout(P.ALL_AVAILABLE), sites) == L2
        assert policy_after_timeout(P.ALL) is P.ALL

    def test_all_available_needs_a_quorum(self) -> None:
        gone = [site(1, connected=False), site(2, connected=False)]
        assert policy_lsn(P.ALL_AVAILABLE, gone) is None
        assert not can_be_met(P.ALL_AVAILABLE, gone)
        zero = site(3, L3, electable=False)
        assert policy_lsn(P.ALL_AVAILABLE, [*gone, zero]) is None

    def test_a_change_of_members_does_not_wait_for_the_site_it_is_about(self) -> None:
        adding = site(2, status=SiteStatus.ADDING, electable=None)
        for policy in AckPolicy:
            assert policy_for_membership_change(policy, [adding], second_step=False) is P.NONE
            both = [site(1), adding]
            assert policy_for_membership_change(policy, both, second_step=True) is P.NONE
            first = policy_for_membership_change(policy, both, second_step=False)
            assert first is (P.ALL_AVAILABLE if policy in (P.ALL, P.ALL_PEERS) else policy)
            if policy is not P.NONE:
                assert policy_lsn(first, [site(1, L1), adding]) == L1


class TestHope:
    def test_enough_are_connected(self) -> None:
        sites = [site(1), site(2, connected=False)]
        assert can_be_met(P.QUORUM, sites)
        assert can_be_met(P.ONE, sites)

    @pytest.mark.parametrize("policy", [P.ALL, P.ALL_PEERS, P.ONE_PEER, P.QUORUM])
    def test_too_few_are_connected(self, policy: AckPolicy) -> None:
        sites = [site(1, electable=False), site(2, connected=False)]
        assert not can_be_met(policy, sites)
        assert can_be_met(P.ONE, sites)

    def test_a_lost_site_that_holds_the_write_counts(self) -> None:
        gone = [site(1, L2, connected=False)]
        assert can_be_met(P.ONE, gone, L2)
        assert not can_be_met(P.ONE, gone, L3)
        assert not can_be_met(P.ONE, gone)
