"""Slowing down: the delays, the line of those who wait, and the bound of the table."""

from hypothesis import given
from hypothesis import strategies as st

from ttserver.throttle import DELAY_MAX_S, Throttle


def fail(throttle: Throttle[str], key: str, times: int, now_s: float = 0.0) -> None:
    for _ in range(times):
        throttle.failed(key, now_s)


def test_delays_double_after_the_free_failures_up_to_the_most() -> None:
    throttle: Throttle[str] = Throttle(free=3)
    now_s, waits = 100.0, []
    for _ in range(10):  # one attempt after the other, each as soon as it may
        wait_s = throttle.reserve("fred", now_s)
        assert wait_s is not None
        waits.append(wait_s)
        now_s += wait_s
        throttle.failed("fred", now_s)
    assert waits == [0, 0, 0, 0.25, 0.5, 1, 2, 4, 5, 5]


def test_attempts_at_the_same_moment_stand_in_line_and_the_last_are_turned_away() -> None:
    throttle: Throttle[str] = Throttle(free=1, delay_first_s=1.0, delay_max_s=2.0, wait_max_s=4.0)
    fail(throttle, "fred", 2)
    waits = [throttle.reserve("fred", 10.0) for _ in range(6)]
    assert waits == [0.0, 2.0, 4.0, None, None, None]
    assert throttle.reserve("fred", 12.0) == 4.0


def test_attempts_under_way_count_as_failures_until_they_are_over() -> None:
    throttle: Throttle[str] = Throttle(free=2, delay_first_s=1.0)
    throttle.started("fred", 0.0)
    assert throttle.reserve("fred", 0.0) == 0.0
    throttle.started("fred", 0.0)
    assert [throttle.reserve("fred", 0.0) for _ in range(3)] == [0.0, 1.0, 2.0]
    throttle.finished("fred")
    throttle.finished("fred")
    assert len(throttle) == 0
    assert throttle.reserve("fred", 0.0) == 0.0


def test_keys_are_apart_and_can_be_forgiven() -> None:
    throttle: Throttle[str] = Throttle(free=1, delay_first_s=1.0)
    fail(throttle, "fred", 1)
    assert throttle.reserve("anne", 0.0) == 0.0
    assert throttle.reserve("fred", 0.0) == 1.0
    throttle.forgive("fred")
    assert throttle.reserve("fred", 0.0) == 0.0


def test_failures_are_forgotten_after_a_while() -> None:
    throttle: Throttle[str] = Throttle(free=1, delay_first_s=1.0, forget_after_s=60.0)
    fail(throttle, "fred", 5)
    assert throttle.reserve("fred", 60.0) == 0.0
    assert len(throttle) == 1
    assert throttle.reserve("fred", 60.1) == 0.0
    assert len(throttle) == 0


def test_the_table_is_bounded_and_drops_who_was_quiet_longest() -> None:
    throttle: Throttle[str] = Throttle(free=1, delay_first_s=1.0, entries_max=3)
    for key in ("a", "b", "c"):
        fail(throttle, key, 1)
    throttle.reserve("a", 0.0)
    fail(throttle, "d", 1)
    assert len(throttle) == 3
    assert throttle.reserve("b", 0.0) == 0.0
    assert throttle.reserve("a", 0.0) != 0.0
    throttle.finished("b")  # dropped while under way: nothing happens


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["reserve", "started", "finished", "failed", "forgive"]),
            st.integers(0, 3),
            st.floats(0, 3),
        )
    )
)
def test_whatever_happens_a_patient_client_gets_its_turn(
    steps: list[tuple[str, int, float]],
) -> None:
    throttle: Throttle[int] = Throttle(free=2, entries_max=2)
    now_s = 0.0
    for step, key, later_s in steps:
        now_s += later_s
        match step:
            case "reserve":
                wait_s = throttle.reserve(key, now_s)
                assert wait_s is None or 0 <= wait_s <= DELAY_MAX_S
            case "started":
                throttle.started(key, now_s)
            case "failed":
                throttle.failed(key, now_s)
            case "finished":
                throttle.finished(key)
            case _:
                throttle.forgive(key)
        assert len(throttle) <= 2
    # Who lets the line run empty gets a place in it.
    for key in range(4):
        assert throttle.reserve(key, now_s + 1000 * DELAY_MAX_S) == 0.0
