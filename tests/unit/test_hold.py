"""When log waits because a vote is out: every state with every input, and what comes of stories."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replication.hold import HOLDING, STATES, Hold, HoldError, Input, State

COUNTED_S = 2.0


class TestTheTable:
    @pytest.mark.parametrize(
        ("state", "input_"), list(itertools.product(State, Input)), ids=lambda part: part.name
    )
    def test_every_pair_has_a_next_state_or_is_an_error_that_names_both(
        self, state: State, input_: Input
    ) -> None:
        hold = Hold()
        hold.state = state
        after = STATES.get((state, input_))
        if after is None:
            with pytest.raises(HoldError) as error:
                hold._go(input_)
            assert str(error.value) == f"{input_.value}: cannot be {state.value}"
            assert hold.state is state
        else:
            hold._go(input_)
            assert hold.state is after

    def test_log_that_waits_passes_again_only_when_no_vote_is_out(self) -> None:
        ends = {
            pair for pair, after in STATES.items() if pair[0] in HOLDING and after is State.OPEN
        }
        assert ends == {
            (State.VOTING, Input.VOID),
            (State.FOLLOWED, Input.OVER),
            (State.FOLLOWED, Input.VOID),
            (State.WAITING, Input.MASTER),
            (State.WAITING, Input.EXPIRED),
        }

    def test_and_never_between_an_election_and_the_next(self) -> None:
        assert all(STATES.get((state, Input.BEGIN), State.VOTING) in HOLDING for state in HOLDING)


def now(hold: Hold) -> State:
    """Where it stands, as nobody can know beforehand."""
    return hold.state


def voting(vote: int | None = 5) -> Hold:
    hold = Hold()
    hold.begin()
    hold.drained()
    if vote is not None:
        hold.voted(vote)
    return hold


class TestStories:
    def test_an_election_with_a_result(self) -> None:
        hold = Hold()
        hold.begin()
        draining = hold.holding
        assert not draining, "what came before is still applied, and counted by the vote"
        hold.drained()
        assert hold.holding
        hold.voted(5)
        hold.master(5)
        assert hold.holding, "the library drops log until its call returns"
        hold.over(10.0, COUNTED_S)
        assert now(hold) is State.OPEN

    def test_one_without(self) -> None:
        hold = voting()
        hold.over(10.0, COUNTED_S)
        hold.expire(11.9)
        assert hold.holding, "the vote may still be counted elsewhere"
        hold.expire(12.0)
        assert now(hold) is State.OPEN

    @pytest.mark.parametrize(("generation", "holding"), [(4, True), (5, False), (9, False)])
    def test_only_a_master_of_that_vote_or_a_later_one_ends_it(
        self, generation: int, holding: bool
    ) -> None:
        hold = voting(5)
        hold.over(10.0, COUNTED_S)
        hold.master(generation)
        assert hold.holding is holding

    def test_a_master_of_an_earlier_election_found_before_the_vote_is_cast(self) -> None:
        hold = voting(None)
        hold.master(4)
        assert now(hold) is State.FOLLOWED
        hold.voted(5)
        assert now(hold) is State.VOTING
        hold.over(10.0, COUNTED_S)
        assert now(hold) is State.WAITING

    def test_the_winner_may_be_quicker_than_the_news_of_the_vote(self) -> None:
        hold = voting(None)
        hold.master(5)
        hold.voted(5)
        hold.over(10.0, COUNTED_S)
        assert now(hold) is State.OPEN

    def test_a_call_that_cast_no_vote(self) -> None:
        hold = voting(None)
        hold.over(10.0, COUNTED_S)
        assert now(hold) is State.OPEN

    def test_but_that_of_the_call_before_it_still_counts(self) -> None:
        hold = voting(5)
        hold.over(10.0, COUNTED_S)
        hold.begin()
        hold.over(11.0, COUNTED_S)
        hold.expire(12.5)
        assert hold.holding
        hold.expire(13.0)
        assert not hold.holding

    def test_of_two_votes_the_later_one_counts(self) -> None:
        hold = voting(5)
        hold.voted(6)
        hold.over(10.0, COUNTED_S)
        hold.begin()
        hold.voted(7)
        hold.master(6)
        assert now(hold) is State.VOTING
        hold.master(7)
        hold.over(11.0, COUNTED_S)
        assert now(hold) is State.OPEN

    def test_a_site_that_died_with_its_vote_out(self) -> None:
        hold = Hold()
        hold.remember(5, 12.0)
        assert hold.holding
        hold.master(4)
        assert hold.holding
        hold.expire(12.0)
        assert not hold.holding


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("vote"), st.integers(1, 6)),
            st.tuples(st.just("master"), st.integers(1, 6)),
            st.tuples(st.sampled_from(["begin", "drained", "over", "tick"]), st.integers(0, 3)),
        ),
        max_size=40,
    )
)
def test_while_a_vote_may_be_counted_log_waits(steps: list[tuple[str, int]]) -> None:
    """A vote is out from its cast to a master of its generation, or its election's end and more."""
    hold, now_s = Hold(), 0.0
    out: dict[int, float | None] = {}  # vote: until when it is counted, None before its call ends
    top = 0
    for what, number in steps:
        try:
            match what:
                case "begin":
                    hold.begin()
                case "drained":
                    hold.drained()
                case "vote":
                    if number <= max([top, *out]):
                        continue  # the library's next election is above all masters and votes
                    hold.voted(number)
                    out[number] = None
                case "master":
                    top = max(top, number)
                    hold.master(number)
                    out = {vote: until for vote, until in out.items() if vote > number}
                case "over":
                    hold.over(now_s, COUNTED_S)
                    out = {v: now_s + COUNTED_S if u is None else u for v, u in out.items()}
                case _:
                    now_s += number
                    hold.expire(now_s)
        except HoldError:
            continue
        out = {vote: until for vote, until in out.items() if until is None or now_s < until}
        assert hold.holding or not out
