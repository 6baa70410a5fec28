"""Whether a master hears a majority: arithmetic, the fence's table, the lease."""

from __future__ import annotations

from itertools import product
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replication import effects
from replication.bodies import SiteAddress
from replication.contact import Contact, Fence, common_s, others_needed
from replication.effects import Outbox
from replication.election import ballot
from replication.settings import GroupSettings
from replication.sites import Sites

SELF, B, C, D, E = (SiteAddress("192.0.2.10", port) for port in range(5010, 5015))
FENCE_S = 2.0
LEASE_S = 1.0


class Master:
    """A master's contact, its clock, and what it wants done."""

    def __init__(
        self,
        *members: SiteAddress,
        elected: bool = True,
        rivals: bool = True,
        fence_s: float = FENCE_S,
        fence_sites_min: int = 3,
        two_site_strict: bool = True,
        elections: bool = True,
        lease_s: float = 0.0,
        clock_ratio: float = 1.0,
    ) -> None:
        settings = GroupSettings(
            SELF,
            fence_s=fence_s,
            fence_sites_min=fence_sites_min,
            two_site_strict=two_site_strict,
            elections=elections,
            lease_s=lease_s,
            clock_ratio=clock_ratio,
        )
        self.members, self.rivals = members, rivals
        self.sites, self.out = Sites(), Outbox()
        self.now_s = 100.0
        self.contact = Contact(settings, self.sites, self.out)
        self.contact.begin(self.now_s, elected=elected)

    def fence(self) -> Fence:
        return self.contact.fence

    def hear(self, *sites: SiteAddress) -> None:
        for site in sites:
            self.sites.site(site).contact_s = self.now_s

    def tick(self, seconds: float = 0.0) -> bool:
        self.now_s += seconds
        return self.contact.tick(self.now_s, self.members, rivals=self.rivals)

    def rounds(self) -> list[int]:
        return [e.number for e in self.out.take() if isinstance(e, effects.SendRound)]

    def answer(self, number: int, *sites: SiteAddress) -> None:
        for site in sites:
            self.contact.answered(self.sites.site(site), number)

    def takes_writes(self, at_s: float | None = None) -> bool:
        return self.contact.refusal(self.now_s if at_s is None else at_s) is None


class TestArithmetic:
    @pytest.mark.parametrize(
        ("members", "strict", "needed"),
        [(1, True, 0), (2, True, 1), (2, False, 0), (3, True, 1), (4, True, 2), (5, True, 2)],
    )
    def test_how_many_others_make_a_majority(self, members: int, strict: bool, needed: int) -> None:
        assert others_needed(members, two_site_strict=strict) == needed

    @pytest.mark.parametrize("members", range(3, 12))
    def test_a_majority_that_is_heard_leaves_too_few_to_elect(self, members: int) -> None:
        needed = others_needed(members, two_site_strict=True)
        nvotes = ballot(members, two_site_strict=True, master_just_lost=True).nvotes
        assert members - (needed + 1) < nvotes

    @pytest.mark.parametrize(
        ("heard", "count", "since"),
        [
            ([], 0, inf),
            ([5.0], 0, inf),
            ([5.0], 1, 5.0),
            ([], 1, -inf),
            ([5.0, 9.0, 7.0], 1, 9.0),
            ([5.0, 9.0, 7.0], 2, 7.0),
            ([5.0, 9.0, -inf], 3, -inf),
            ([5.0, 9.0], 3, -inf),
        ],
    )
    def test_the_time_after_which_so_many_were_heard(
        self, heard: list[float], count: int, since: float
    ) -> None:
        assert common_s(heard, count) == since

    @given(st.lists(st.floats(0, 100), max_size=6), st.integers(0, 7))
    def test_it_is_the_latest_such_time(self, heard: list[float], count: int) -> None:
        since = common_s(heard, count)
        assert (sum(at >= since for at in heard) >= count) or since == -inf
        assert all(sum(at >= later for at in heard) < count for later in heard if later > since)


class TestFence:
    def test_silence_refuses_writes_and_then_ends_the_term(self) -> None:
        master = Master(B, C)
        assert not master.tick(FENCE_S)
        assert master.takes_writes()
        assert not master.tick(0.1)
        assert master.fence() is Fence.FENCED
        assert master.contact.refusal(master.now_s) == (
            "this master is cut off: for 2 s it heard from 0 of 2 other sites, 1 are needed to"
            " rule out another master (replication.fence_s)"
        )
        assert not master.tick(FENCE_S)
        assert master.tick(0.1), "it steps down"
        notes = [e.event for e in master.out.take() if isinstance(e, effects.Note)]
        assert notes == ["fenced"]

    def test_the_majority_is_enough(self) -> None:
        master = Master(B, C, D, E)
        for _ in range(20):
            master.hear(B, E)
            assert not master.tick(0.5)
            assert master.takes_writes()
        for _ in range(10):
            master.hear(B)
            master.tick(0.5)
        assert not master.takes_writes()
        assert master.contact.reach(master.now_s) == (1, 2, 4)

    def test_heard_again_it_takes_writes_again(self) -> None:
        master = Master(B, C)
        master.tick(FENCE_S + 0.5)
        assert not master.takes_writes()
        master.hear(C)
        assert not master.tick()
        assert master.takes_writes()
        assert master.fence() is Fence.OPEN
        assert not master.tick(FENCE_S), "and counts from there"
        notes = [e.event for e in master.out.take() if isinstance(e, effects.Note)]
        assert notes == ["fenced", "unfenced"]

    def test_time_counts_even_when_nobody_looks(self) -> None:
        """A process that was stopped refuses the first write, whatever it reads first."""
        master = Master(B, C)
        master.hear(B, C)
        master.tick()
        assert master.takes_writes(master.now_s + FENCE_S)
        assert not master.takes_writes(master.now_s + FENCE_S + 0.01)
        # Then it has time to hear that it is still followed.
        assert not master.tick(60.0)
        master.answer(master.rounds()[-1], B)
        assert not master.tick(0.1)
        assert master.takes_writes()

    def test_an_answer_counts_from_when_its_round_was_sent(self) -> None:
        master = Master(B, C)
        master.tick()
        (first,) = master.rounds()
        master.tick(1.5)
        master.answer(first, B)
        master.tick(0.1)
        assert master.takes_writes(100.0 + FENCE_S)
        assert not master.takes_writes(100.0 + FENCE_S + 0.01)
        master.answer(12345, B)
        master.tick()
        assert not master.takes_writes(100.0 + FENCE_S + 0.01), "of no round of this term"

    @pytest.mark.parametrize(
        ("members", "options", "fence"),
        [
            ((), {}, Fence.OFF),
            ((B,), {}, Fence.OFF),
            ((B,), {"fence_sites_min": 2}, Fence.FENCED),
            ((B,), {"fence_sites_min": 2, "two_site_strict": False}, Fence.OFF),
            ((B, C), {}, Fence.FENCED),
            ((B, C), {"fence_s": 0.0}, Fence.OFF),
            ((B, C), {"fence_sites_min": 4}, Fence.OFF),
            ((B, C), {"elections": False}, Fence.OFF),
            ((B, C), {"rivals": False}, Fence.OFF),
        ],
    )
    def test_where_it_stands_after_a_long_silence(
        self, members: tuple[SiteAddress, ...], options: dict[str, bool], fence: Fence
    ) -> None:
        master = Master(*members, **options)
        master.tick()
        master.tick(FENCE_S + 0.1)
        assert master.fence() is fence
        assert master.takes_writes() is (fence is Fence.OFF)

    def test_one_made_by_its_operator_is_not_stopped_before_it_heard_a_majority(self) -> None:
        master = Master(B, C, elected=False)
        master.hear()
        assert not master.tick(60.0)
        assert master.takes_writes()
        assert master.fence() is Fence.UNARMED
        master.hear(B)
        master.tick()
        assert master.fence() is Fence.OPEN
        master.tick(FENCE_S + 0.1)
        assert not master.takes_writes()

    def test_what_was_heard_before_its_term_arms_nothing(self) -> None:
        master = Master(B, C, elected=False)
        master.sites.site(B).contact_s = 99.0
        master.tick(0.1)
        assert master.fence() is Fence.UNARMED

    def test_a_third_site_that_joins_puts_it_up(self) -> None:
        master = Master(B, elected=False)
        master.tick(9.0)
        assert master.fence() is Fence.OFF
        master.hear(B)
        master.members = (B, C)
        master.tick()
        assert master.fence() is Fence.OPEN
        master.tick(FENCE_S + 0.1)
        assert not master.takes_writes()

    def test_the_next_term_begins_anew(self) -> None:
        master = Master(B, C)
        master.tick()
        (number,) = master.rounds()
        master.tick(9.0)
        master.contact.begin(master.now_s, elected=True)
        master.answer(number, B, C)
        assert not master.tick(0.1)
        assert master.takes_writes()
        assert not master.takes_writes(master.now_s + FENCE_S)


class TestLease:
    def test_it_holds_from_when_the_round_was_sent(self) -> None:
        master = Master(B, C, lease_s=LEASE_S)
        master.tick()
        assert master.contact.fresh_until_s == -inf
        (number,) = master.rounds()
        sent_s = master.now_s
        master.now_s += 0.15
        master.answer(number, C)
        master.tick()
        assert master.contact.fresh_until_s == sent_s + LEASE_S

    def test_bytes_are_no_word(self) -> None:
        master = Master(B, C, lease_s=LEASE_S)
        master.hear(B, C)
        master.tick()
        assert master.contact.fresh_until_s == -inf

    def test_clocks_may_differ(self) -> None:
        master = Master(B, C, lease_s=LEASE_S, clock_ratio=100 / 102)
        master.tick()
        (number,) = master.rounds()
        master.answer(number, B)
        master.tick()
        assert master.contact.fresh_until_s == pytest.approx(100.0 + LEASE_S * 100 / 102)

    @pytest.mark.parametrize(
        ("members", "answers", "holds"),
        [
            ((), (), True),
            ((B,), (), False),
            ((B,), (B,), True),
            ((B, C, D), (B,), False),
            ((B, C, D), (B, D), True),
            ((B, C, D, E), (B,), False),
            ((B, C, D, E), (B, D), True),
        ],
    )
    @pytest.mark.parametrize("strict", [True, False])
    def test_it_needs_a_majority_of_all_members(
        self,
        members: tuple[SiteAddress, ...],
        answers: tuple[SiteAddress, ...],
        holds: bool,
        strict: bool,
    ) -> None:
        master = Master(*members, lease_s=LEASE_S, two_site_strict=strict, fence_s=0.0)
        master.tick()
        for number in master.rounds():
            master.answer(number, *answers)
        master.tick()
        assert (master.contact.fresh_until_s > master.now_s) is holds

    @pytest.mark.parametrize("members", range(1, 8))
    def test_whoever_could_elect_has_given_its_word(self, members: int) -> None:
        """By enumeration: each set whose word makes a lease meets each set that may elect."""
        others = list(range(1, members))
        nvotes = members // 2 + 1
        for given_ in product([False, True], repeat=len(others)):
            words = {site for site, word in zip(others, given_, strict=True) if word}
            agreed = common_s([1.0 if s in words else -inf for s in others], members // 2)
            if agreed == -inf:
                continue
            for votes in product([False, True], repeat=len(others)):
                voters = {site for site, vote in zip(others, votes, strict=True) if vote}
                if len(voters) >= nvotes:
                    assert words & voters

    def test_rounds_are_frequent_enough_and_not_more(self) -> None:
        for fence_s, lease_s, every_s in ((2.0, 0.0, 0.2), (0.5, 0.0, 0.1), (2.0, 0.25, 0.05)):
            master = Master(B, C, fence_s=fence_s, lease_s=lease_s)
            count = 0
            for _ in range(200):
                master.hear(B)
                master.tick(0.01)
                count += len(master.rounds())
            assert 2.0 / every_s - 4 <= count <= 2.0 / every_s + 1
        silent = Master(B, C, fence_s=0.0)
        silent.tick(5.0)
        assert not silent.rounds()
