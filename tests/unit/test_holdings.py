"""What other sites have of the log: how it is learned, and what has to be kept for them."""

from __future__ import annotations

from replication.bodies import SiteAddress, Standing
from replication.effects import Outbox
from replication.holdings import Holdings
from replication.memory import Memory
from replication.messages import StandingFlag
from replication.remembered import Remembered
from replication.sites import LinkState, Sites
from replication.wire import LSN, LSN_ZERO

A, B = SiteAddress("192.0.2.10", 5010), SiteAddress("192.0.2.11", 5010)


def standing(last: LSN, flags: StandingFlag = StandingFlag.COMPLETE_COPY) -> Standing:
    return Standing(3, last, LSN_ZERO, 1, int(flags))


class Group:
    """Two other sites."""

    def __init__(self, memory: Memory | None = None) -> None:
        self.remembered = Remembered(memory or Memory(), Outbox())
        self.sites = Sites()
        self.holdings = Holdings(self.remembered, self.sites)

    def connect(self, site: SiteAddress) -> None:
        state = self.sites.site(site)
        state.links.append(LinkState(state.eid, state, True, False, False, released=True))

    def leave(self, site: SiteAddress) -> None:
        self.sites.site(site).links.clear()

    def files(self, site: SiteAddress = A) -> list[int | None]:
        return [need.file for need in self.holdings.needs([site])]

    def words(self, site: SiteAddress = A) -> list[str]:
        return [need.why for need in self.holdings.needs([site])]


def test_nothing_is_known_at_first() -> None:
    group = Group()
    assert group.files() == [0]
    assert group.words() == [f"nothing is known of what {A} has, not connected"]


def test_what_is_acknowledged_is_kept_for_a_site_that_left() -> None:
    group = Group()
    group.connect(A)
    group.holdings.acked(A, LSN(3, 100))
    group.holdings.acked(A, LSN(4, 100))
    group.leave(A)
    assert group.files() == [4]
    assert group.words() == [f"{A} has the log up to 4/100, not connected"]
    # The next process knows it as well.
    assert Group(group.remembered.memory).files() == [4]


def test_what_a_site_says_may_only_lower_it() -> None:
    group = Group(Memory(acked={A: LSN(7, 50)}))
    group.holdings.stood(A, standing(LSN(9, 0)))
    assert group.files() == [7], "it had more than the group has, and will lose that"
    group.holdings.stood(A, standing(LSN(5, 0)))
    assert group.files() == [5]
    group.holdings.acked(A, LSN(9, 10))
    assert group.files() == [9]


def test_what_a_site_says_counts_when_nothing_is_known() -> None:
    group = Group()
    group.holdings.stood(A, standing(LSN(9, 0)))
    assert group.files() == [9]
    other = Group()
    other.holdings.became_master(LSN(8, 10))
    other.holdings.stood(A, standing(LSN(9, 0)))
    assert other.files() == [8], "what it has behind the end of the log here is another log"


def test_a_new_masters_log_bounds_what_others_can_have() -> None:
    group = Group(Memory(acked={A: LSN(9, 10), B: LSN(4, 0)}))
    group.holdings.became_master(LSN(7, 50))
    assert (group.files(A), group.files(B)) == ([7], [4])


def test_an_empty_site_needs_nothing_until_it_takes_a_copy() -> None:
    group = Group(Memory(acked={A: LSN(9, 10)}))
    group.holdings.stood(A, standing(LSN_ZERO, StandingFlag.EMPTY))
    assert group.files() == [None]
    assert A not in group.remembered.memory.acked
    group.connect(A)
    group.holdings.copy_offered(12)
    assert group.files() == [12]
    assert group.words() == [f"{A} may be taking a copy, which needs it"]
    group.holdings.acked(A, LSN(15, 0))
    assert group.files() == [15]


def test_a_copy_is_kept_for_whoever_is_connected_until_he_acknowledges_more() -> None:
    group = Group(Memory(acked={A: LSN(9, 10), B: LSN(9, 20)}))
    group.connect(A)
    group.holdings.copy_offered(12)
    group.holdings.acked(A, LSN(9, 10))  # what was known
    assert group.files() == [12, 9]
    group.holdings.copy_offered(13)
    assert group.files() == [12, 9], "a list that comes twice is of the same copy"
    assert group.files(B) == [9], "it is not connected"
    group.holdings.acked(A, LSN(13, 0))
    assert group.files() == [13]


def test_a_site_that_left_takes_no_copy() -> None:
    group = Group()
    group.connect(A)
    group.holdings.copy_offered(12)
    group.leave(A)
    assert group.files() == [0]


def test_who_is_no_member_is_forgotten() -> None:
    group = Group(Memory(acked={A: LSN(9, 10), B: LSN(4, 0)}))
    group.remembered.only([B])
    assert group.remembered.memory.acked == {B: LSN(4, 0)}


def test_an_lsn_of_another_group_says_nothing() -> None:
    group = Group(Memory(group_id=7, acked={A: LSN(9, 10)}))
    group.remembered.group(8)
    assert group.files() == [0]
