"""The other sites' clocks: what counts of what they tell, and what is no time at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replication.bodies import SiteAddress
from replication.clocks import KEPT, Skews, decode
from replication.errors import RemoteProtocolError

SITE = SiteAddress("db2", 5010)


def skew(*ahead_s: float) -> float | None:
    skews = Skews()
    for one in ahead_s:
        skews.heard(SITE, one)
    return skews.ahead_s(SITE)


def test_one_message_alone_says_nothing() -> None:
    assert skew() is None
    assert skew(-30.0) is None
    assert skew(-0.1, -0.1) == -0.1


@given(st.floats(-1e6, 1e6), st.lists(st.floats(0, 100), min_size=2, max_size=KEPT))
def test_messages_that_waited_hide_nothing_while_one_was_quick(
    ahead_s: float, waits_s: list[float]
) -> None:
    found = skew(*(ahead_s - wait_s for wait_s in waits_s))
    assert found == ahead_s - min(waits_s)


def test_a_clock_that_was_set_right_is_right_after_a_minute() -> None:
    assert skew(*[60.0] * KEPT, *[0.0] * (KEPT - 1)) == 60.0
    assert skew(*[60.0] * KEPT, *[0.0] * KEPT) == 0.0


def test_who_is_gone_is_forgotten() -> None:
    skews = Skews()
    for _ in range(2):
        skews.heard(SITE, 9.0)
    skews.forget(SITE)
    skews.forget(SITE)
    assert skews.ahead_s(SITE) is None


def test_a_body_is_microseconds_and_may_grow() -> None:
    assert decode((1_500_000).to_bytes(8)) == 1.5
    assert decode((1_500_000).to_bytes(8) + b"more of a later version") == 1.5


@pytest.mark.parametrize("body", [b"", b"\0" * 7])
def test_a_short_body_is_an_error_of_the_other_side(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(body)
