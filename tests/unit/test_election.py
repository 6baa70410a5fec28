"""The numbers of an election, and when one is called."""

from __future__ import annotations

import pytest

from replication import effects
from replication.acks import quorum_size
from replication.effects import Outbox
from replication.election import Ballot, Elections, ballot


@pytest.mark.parametrize(
    ("members", "strict", "just_lost", "expected"),
    [
        (1, True, False, Ballot(1, 1)),
        (1, True, True, Ballot(1, 1)),
        (2, True, False, Ballot(2, 2)),
        (2, True, True, Ballot(2, 2)),
        (2, False, True, Ballot(1, 1)),
        (2, False, False, Ballot(2, 1)),
        (3, True, False, Ballot(3, 2)),
        (3, True, True, Ballot(2, 2)),
        (4, True, False, Ballot(4, 3)),
        (4, True, True, Ballot(3, 3)),
        (5, False, True, Ballot(4, 3)),
    ],
)
def test_the_table(members: int, strict: bool, just_lost: bool, expected: Ballot) -> None:
    assert ballot(members, two_site_strict=strict, master_just_lost=just_lost) == expected


@pytest.mark.parametrize("members", range(1, 12))
@pytest.mark.parametrize("just_lost", [True, False])
def test_two_halves_never_both_win_and_a_quorum_is_never_missed(
    members: int, just_lost: bool
) -> None:
    nsites, nvotes = ballot(members, two_site_strict=True, master_just_lost=just_lost)
    assert 2 * nvotes > members
    assert nvotes <= nsites <= members
    holders = quorum_size(members) + 1
    assert holders + nvotes > members, "somebody who votes holds each acknowledged write"


def called(out: Outbox) -> list[effects.Elect]:
    return [effect for effect in out.take() if isinstance(effect, effects.Elect)]


class TestCalling:
    def elections(self, *, enabled: bool = True) -> tuple[Elections, Outbox]:
        out = Outbox()
        return (
            Elections(
                enabled=enabled,
                two_site_strict=True,
                timeout_s=2.0,
                first_timeout_s=9.0,
                retry_s=4.0,
                wait_s=1.0,
                out=out,
            ),
            out,
        )

    def test_one_is_due_when_it_was_called_for(self) -> None:
        elections, _ = self.elections()
        assert not elections.is_due(1e9)
        elections.call_at(5.0)
        assert not elections.is_due(4.9)
        assert elections.is_due(5.0)

    def test_they_may_be_off(self) -> None:
        elections, _ = self.elections(enabled=False)
        elections.master_lost(5.0)
        assert not elections.is_due(1e9)

    def test_never_two_at_once(self) -> None:
        elections, out = self.elections()
        elections.master_lost(5.0)
        assert elections.call(5.0, 3, 2) is None
        assert called(out) == [effects.Elect(2, 2, 0.2, 9.0)]
        assert not elections.is_due(6.0)
        elections.over(6.0, "too few", again=True)
        assert not elections.is_due(9.9)
        assert elections.is_due(10.0)

    def test_what_is_called_for_meanwhile_comes_right_behind(self) -> None:
        elections, out = self.elections()
        elections.master_lost(5.0)
        elections.call(5.0, 3, 2)
        elections.invited(5.5, 3)
        assert not elections.is_due(5.9)
        elections.over(6.0, "another election has begun", again=True)
        assert elections.is_due(6.0)
        elections.call(6.0, 3, 2)
        assert called(out)[-1] == effects.Elect(3, 2, 2.0, 9.0)

    @pytest.mark.parametrize(
        ("members", "asked", "nsites"),
        [(3, 2, 2), (3, 3, 3), (3, 0, 3), (3, 4, 3), (5, 4, 4), (5, 3, 5), (2, 1, 2), (2, 2, 2)],
    )
    def test_who_is_invited_waits_for_as_many_votes_if_that_makes_sense(
        self, members: int, asked: int, nsites: int
    ) -> None:
        elections, out = self.elections()
        elections.invited(5.0, asked)
        elections.call(5.0, members, members)
        assert called(out)[0].nsites == nsites
        elections.over(6.0, "too few", again=True)
        elections.call(9.0, members, members)
        assert called(out)[0].nsites == members, "only that once"

    @pytest.mark.parametrize(
        ("outcome", "took_s", "pause_s"),
        [("too few", 0.2, 0.0), ("decided", 0.1, 4.0), ("too few", 0.6, 4.0)],
    )
    def test_the_short_try_is_repeated_at_once_unless_somebody_may_have_won(
        self, outcome: str, took_s: float, pause_s: float
    ) -> None:
        elections, out = self.elections()
        elections.master_lost(5.0)
        elections.call(5.0, 3, 2)
        assert called(out)[0].timeout_s == pytest.approx(0.2)
        elections.over(5.0 + took_s, outcome, again=True)
        assert elections.is_due(5.0 + took_s) is not bool(pause_s)
        assert elections.is_due(5.0 + took_s + pause_s)
        elections.call(10.0, 3, 2)
        assert called(out) == [effects.Elect(2, 2, 2.0, 9.0)]
        elections.over(12.0, "too few", again=True)
        elections.call(16.0, 3, 2)
        assert called(out) == [effects.Elect(3, 2, 2.0, 9.0)]

    def test_a_winner_that_dies_before_it_leads_is_not_waited_for(self) -> None:
        elections, out = self.elections()
        elections.site_lost(4.0)
        assert not elections.is_due(9.0), "nobody had voted for it"
        elections.master_lost(5.0)
        elections.call(5.0, 5, 4)
        elections.over(6.0, "decided", again=True)
        assert not elections.is_due(6.5)
        elections.site_lost(6.5)
        assert elections.is_due(6.5)
        called(out)
        elections.call(6.5, 5, 3)
        assert called(out) == [effects.Elect(4, 3, 0.2, 9.0)]

    def test_too_few_sites_are_looked_for_again(self) -> None:
        elections, out = self.elections()
        elections.master_lost(5.0)
        why = elections.call(5.0, 3, 1)
        assert why == "no master: an election needs 2 of 3 sites, this site reaches 1"
        assert not out.take()
        assert not elections.is_due(5.9)
        assert elections.is_due(6.0)
        elections.call(6.0, 3, 2)
        assert called(out) == [effects.Elect(2, 2, 0.2, 9.0)]

    def test_only_a_group_without_a_master_so_far_takes_its_full_time(self) -> None:
        elections, out = self.elections()
        elections.call(5.0, 3, 3)
        assert called(out) == [effects.Elect(3, 2, 2.0, 9.0)]
        elections.over(6.0, "decided", again=False)
        elections.master_found()
        elections.master_lost(7.0)
        elections.call(7.0, 3, 2)
        assert called(out) == [effects.Elect(2, 2, 0.2, 2.0)]

    def test_a_master_makes_it_needless(self) -> None:
        elections, _ = self.elections()
        elections.master_lost(5.0)
        elections.master_found()
        assert not elections.is_due(1e9)
