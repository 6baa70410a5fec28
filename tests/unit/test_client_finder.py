"""Which site a client asks next, and what it never does again by itself: step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from ttserver.client import calls
from ttserver.client.call import Call, Transaction
from ttserver.client.errors import (
    LogonRefused,
    NotAcknowledged,
    NotAllowed,
    NotNow,
    OutcomeUnknown,
    ReadOnlySite,
    ServerError,
    Unreachable,
    WriteLost,
)
from ttserver.client.finder import WAIT_MS, Exchange, Exchanged, Finder, Pause

READONLY = ReadOnlySite("write refused: this site is a replicant", code="READONLY")
LOADING = NotNow("this site has no complete copy", code="LOADING")
BROKEN = Unreachable("server b cannot be reached: connection reset")
GET, SET, INCR = calls.get("k"), calls.set_("k", 1), calls.incr("k")


def refused(code: str, kind: type[ServerError] = ServerError) -> ServerError:
    return kind(code, code=code)


class Sites:
    """Answers for three sites by a script, and notes what was asked of whom.

    Attributes:
        asked: `a GET`, `b WAITFOR INCRBY`, `pause 0.05`, in their order.
        now_s: the clock; a pause moves it on.
    """

    def __init__(self, *, names: str = "abc", deadline_s: float = 1.0, own: bool = False) -> None:
        self.asked: list[str] = []
        self.now_s = 0.0
        self.names = names
        self.finder = Finder(
            names, deadline_s=deadline_s, now=lambda: self.now_s, read_your_writes=own
        )

    def run(
        self, call: Call[Any] | Sequence[Call[Any]], *script: object, only: int | None = None
    ) -> Any:
        """Ask; the script has a reply, a list of them, or an `Exchanged` for each exchange."""
        self.asked.clear()
        several = not isinstance(call, Call)
        steps = self.finder.ask(call if not isinstance(call, Call) else [call], only)
        rest = iter(script)
        done: Exchanged | None = None
        while True:
            try:
                step = steps.send(done)
            except StopIteration as end:
                assert not list(rest), f"not asked for: {self.asked}"
                outcomes = end.value[1]
                return outcomes if several else outcomes[0]
            if isinstance(step, Pause):
                self.asked.append(f"pause {step.seconds:g}")
                self.now_s += step.seconds
                done = None
            else:
                self.asked.append(self._words(step))
                done = self._answer(next(rest, LOADING))

    def _words(self, step: Exchange) -> str:
        words = [command[0].decode() for command, _ in step.commands]
        return " ".join([self.names[step.site], *words])

    @staticmethod
    def _answer(given: object) -> Exchanged:
        if isinstance(given, Exchanged):
            return given
        return Exchanged(given if isinstance(given, list) else [given])


UNREACHABLE = Exchanged(error=BROKEN, sent=False)
LOST = Exchanged(error=BROKEN)


def test_each_kind_goes_on_with_whoever_answered_it() -> None:
    sites = Sites()
    assert sites.run(GET, UNREACHABLE, b"v") == b"v"
    assert sites.asked == ["a GET", "b GET"]
    assert sites.run(INCR, READONLY, 1) == 1
    assert sites.asked == ["b INCRBY", "c INCRBY"]
    assert sites.run(GET, b"v") == b"v"
    assert sites.asked == ["b GET"]
    assert sites.run(INCR, 2) == 2
    assert sites.asked == ["c INCRBY"]
    assert sites.run(INCR, UNREACHABLE, READONLY, 3) == 3
    assert sites.asked == ["c INCRBY", "a INCRBY", "b INCRBY"]


def test_reads_begin_where_a_write_was_answered() -> None:
    sites = Sites()
    sites.run(INCR, READONLY, 1)
    sites.run(GET, b"v")
    assert sites.asked == ["b GET"]


@pytest.mark.parametrize(
    "code", ["READONLY", "LOADING", "TRYAGAIN", "MASTERDOWN", "NODATA", "NOREPLICAS"]
)
def test_what_was_refused_before_anything_was_written_goes_on(code: str) -> None:
    assert Sites().run(INCR, refused(code), 1) == 1


@pytest.mark.parametrize("code", ["ERR", "EXISTS", "LOCKED", "PERMFAILED", "OUTOFTHEBLUE"])
def test_any_other_refusal_is_the_outcome(code: str) -> None:
    outcome = Sites().run(INCR, refused(code, NotAcknowledged))
    assert outcome.code == code


def test_a_write_whose_outcome_is_unknown_is_not_repeated() -> None:
    sites = Sites()
    outcome = sites.run(INCR, LOST)
    assert isinstance(outcome, OutcomeUnknown)
    assert str(outcome) == (
        "outcome of INCRBY is not known: server a was lost before it answered"
        " (server b cannot be reached: connection reset)"
    )
    assert sites.asked == ["a INCRBY"]


@pytest.mark.parametrize("call", [GET, SET, calls.volume_setdate("A.B.C", "none")])
def test_a_read_and_what_may_be_done_twice_is(call: Call[Any]) -> None:
    sites = Sites()
    assert sites.run(call, LOST, "fine") == "fine"
    assert len(sites.asked) == 2


@pytest.mark.parametrize(
    "call",
    [
        calls.set_("k", 1, nx=True),
        calls.delete("k"),
        calls.append("k", "v"),
        calls.volume_add("A.B.C"),
        calls.volume_move("A.B.C", "D"),
        calls.volume_flag("A.B.C", "+L"),
        calls.expire(),
        Transaction([SET, INCR]),
    ],
)
def test_what_would_answer_something_else_the_second_time_is_not(call: Call[Any]) -> None:
    assert isinstance(Sites().run(call, LOST), OutcomeUnknown)


def test_rounds_until_the_deadline_with_longer_and_longer_pauses() -> None:
    sites = Sites(deadline_s=0.4)
    sites.run(GET, b"reached once")
    outcome = sites.run(INCR, *[UNREACHABLE, READONLY, UNREACHABLE] * 4)
    assert outcome is READONLY  # says more than that others could not be reached
    round_ = ["a INCRBY", "b INCRBY", "c INCRBY"]
    waited = [["pause 0.05"], ["pause 0.1"], ["pause 0.2"], ["pause 0.4"]]
    # The last round begins before the deadline is over, and is gone through.
    assert sites.asked[: len(round_) * 4 + 3] == [
        *round_, *waited[0], *round_, *waited[1], *round_, *waited[2], *round_
    ]  # fmt: skip


def test_a_first_contact_is_not_waited_for() -> None:
    sites = Sites(deadline_s=60.0)
    outcome = sites.run(GET, UNREACHABLE, UNREACHABLE, UNREACHABLE)
    assert isinstance(outcome, Unreachable)
    assert not any(step.startswith("pause") for step in sites.asked)
    assert sites.run(GET, UNREACHABLE, UNREACHABLE, Exchanged(error=LOADING, sent=False), 1) == 1
    assert "pause 0.05" in sites.asked  # one of them is there


def test_a_single_server_that_is_no_master_says_so_at_once() -> None:
    sites = Sites(names="a", deadline_s=60.0)
    assert sites.run(INCR, READONLY) is READONLY
    assert sites.run(INCR, refused("TRYAGAIN"), 1) == 1
    assert sites.asked == ["a INCRBY", "pause 0.05", "a INCRBY"]


def test_a_refused_logon_is_final() -> None:
    wrong = LogonRefused("wrong password", code="WRONGPASS")
    assert Sites().run(GET, Exchanged(error=wrong, sent=False)) is wrong
    busy = Exchanged(error=refused("TRYAGAIN"), sent=False)
    assert Sites().run(INCR, busy, 1) == 1


# -- several at once


def test_of_many_only_those_at_the_end_that_nobody_did_go_on() -> None:
    sites = Sites()
    assert sites.run([INCR] * 3, [1, READONLY, READONLY], [2, 3]) == [1, 2, 3]
    assert sites.asked == ["a INCRBY INCRBY INCRBY", "b INCRBY INCRBY"]
    # Writes keep their order: one behind was done, so the one before it is refused.
    assert sites.run([INCR] * 2, [READONLY, 2]) == [READONLY, 2]
    # A read behind a refused write is asked again with it.
    assert sites.run([INCR, GET], [READONLY, b"old"], [1, b"1"]) == [1, b"1"]


def test_of_many_those_that_were_not_answered_are_not_known() -> None:
    sites = Sites()
    outcomes = sites.run([INCR] * 3, Exchanged([1], BROKEN))
    assert outcomes[0] == 1
    assert [type(outcome) for outcome in outcomes[1:]] == [OutcomeUnknown] * 2
    outcomes = sites.run([INCR, SET, GET], Exchanged([1], BROKEN), ["OK", b"1"])
    assert outcomes == [1, "OK", b"1"]
    outcomes = sites.run([INCR] * 2, Exchanged([LOADING], BROKEN))
    assert outcomes[0] is LOADING
    assert isinstance(outcomes[1], OutcomeUnknown)


def test_a_transaction_is_one() -> None:
    sites = Sites()
    both = Transaction([SET, INCR])
    refusal = [b"OK", READONLY, READONLY, ServerError("aborted", code="EXECABORT")]
    assert sites.run(both, refusal, [b"OK", b"QUEUED", b"QUEUED", [b"OK", 2]]) == [b"OK", 2]
    assert sites.asked == ["a MULTI SET INCRBY EXEC", "b MULTI SET INCRBY EXEC"]
    assert isinstance(sites.run(both, Exchanged([b"OK", b"QUEUED"], BROKEN)), OutcomeUnknown)
    reads = Transaction([GET])
    assert sites.run(reads, LOST, [b"OK", b"QUEUED", [b"v"]]) == [b"v"]


def test_pages_stay_with_their_site() -> None:
    sites = Sites()
    sites.run(GET, b"v")
    assert sites.run(GET, LOST, only=2) is BROKEN
    assert sites.asked == ["c GET"]


# -- read your writes


def test_a_read_takes_the_last_write_along() -> None:
    sites = Sites(own=True)
    sites.run(INCR, [READONLY, None], [1, ["3:1:500", []]])
    assert sites.asked == ["a INCRBY LASTWRITE", "b INCRBY LASTWRITE"]
    assert str(sites.finder.token) == "3:1:500"
    sites.run(INCR, [2, ["3:1:400", []]])  # heard of later, by another connection
    assert str(sites.finder.token) == "3:1:500"
    # Where it does not come in time, another site is asked.
    assert sites.run(GET, [0, b"old"], [LOADING, b""], [1, b"new"]) == b"new"
    assert sites.asked == ["b WAITFOR GET", "c WAITFOR GET", "a WAITFOR GET"]
    assert WAIT_MS > 0
    behind = Sites(own=True, deadline_s=0.0)
    behind.finder.token = sites.finder.token
    outcome = behind.run(GET, *[[0, b"old"]] * 3)
    assert outcome.code == "BEHIND"


def test_a_lost_write_is_told_once() -> None:
    sites = Sites(own=True)
    sites.run(INCR, [1, ["3:1:500", []]])
    lost = WriteLost("write 3:1:500 was rolled back", code="TOKENLOST")
    assert sites.run(GET, [lost, b"old"]) is lost
    assert sites.run(GET, b"old") == b"old"
    assert sites.asked == ["a GET"]


def test_a_write_nobody_acknowledged_is_ones_own_too() -> None:
    sites = Sites(own=True)
    late = NotAcknowledged("committed here as 3:1:500, but", code="PERMFAILED")
    assert sites.run(INCR, [late, ["3:1:500", []]]) is late
    assert str(sites.finder.token) == late.token
    # One that was refused has no token.
    denied = refused("NOPERM", NotAllowed)
    other = Sites(own=True)
    assert other.run(INCR, [denied, None]) is denied
    assert other.finder.token is None
