"""What a promotion can cost, in words: every kind of other site, and what is known of it."""

from __future__ import annotations

from dataclasses import replace

from replication.bodies import SiteAddress, Standing
from replication.messages import StandingFlag
from replication.promotion import Holding, Survey, judge
from replication.wire import LSN

A, B, C = (SiteAddress("192.0.2.10", port) for port in (5010, 5011, 5012))
HERE = Survey(B, LSN(1, 5000), 3, LSN(1, 4000), complete=True)


def answers(
    site: SiteAddress, offset: int, *, master: bool = False, generation: int = 3
) -> Holding:
    flags = StandingFlag.COMPLETE_COPY | (StandingFlag.MASTER if master else StandingFlag(0))
    end = LSN(1, offset)
    standing = Standing(generation, end, LSN(0, 0), 1, int(flags))
    return Holding(site, standing, "", end, 0.0)


def silent(site: SiteAddress, offset: int = 0, *, was_master: bool = False) -> Holding:
    return Holding(site, None, "connection refused", LSN(1, offset), 34.2, was_master)


def with_others(*others: Holding) -> Survey:
    return replace(HERE, others=others)


def test_alone_with_all_that_was_acknowledged_nothing_is_lost() -> None:
    said = judge(HERE)
    assert said.losses == []
    assert said.facts == [
        "this site (192.0.2.10:5011) holds the log up to 1/5000, generation 3",
        "writes are known to have been answered OK up to 1/4000: all of those are here",
    ]


def test_acknowledged_writes_that_are_not_here() -> None:
    [loss] = judge(replace(HERE, stable_lsn=LSN(1, 6000))).losses
    assert loss == "writes that were answered OK, from 1/5000 to 1/6000"


def test_a_site_with_less_or_as_much_loses_nothing() -> None:
    for offset in (10, 5000):
        said = judge(with_others(answers(A, offset)))
        assert said.losses == []
        assert said.better is None
        assert f"{A} answers: its log ends at 1/{offset}, nothing that is not here" in said.facts


def test_a_site_with_more_is_named_as_the_better_one() -> None:
    said = judge(with_others(answers(A, 6000), answers(C, 7000)))
    assert said.better == C
    assert said.facts[-1] == f"{C} holds more: promote that one instead"
    assert [loss.split(":")[0] for loss in said.losses] == ["what 192.0.2.10"] * 2
    assert "not answered OK, as far as is known" in said.losses[0]


def test_more_log_of_an_older_generation_is_no_reason_to_go_there() -> None:
    assert judge(with_others(answers(A, 6000, generation=2))).better is None


def test_a_living_master_elsewhere() -> None:
    [loss] = judge(with_others(answers(A, 5000, master=True))).losses
    assert loss.startswith(f"{A} is master now")


def test_the_last_master_may_have_written_more_than_it_sent() -> None:
    said = judge(with_others(silent(A, 5100, was_master=True)))
    [loss] = said.losses
    assert f"what {A}, the last master, wrote and did not send" in loss
    assert (
        f"{A} does not answer (connection refused); it was heard 34 s ago, its log then ended at"
        " 1/5100" in said.facts
    )


def test_a_native_master_that_lives_undoes_what_it_did_not_send() -> None:
    said = judge(with_others(replace(silent(A, was_master=True), native=True)))
    [loss] = said.losses
    assert loss.startswith(f"what {A}, a native site, writes until it hears of this one")
    assert f"{A} is a native site, which cannot say what it holds" in said.facts
    assert judge(with_others(replace(silent(C), native=True))).losses == []


def test_a_silent_site_that_was_ahead() -> None:
    assert judge(with_others(silent(A, 5100))).losses == [f"what {A} has from 1/5000 to 1/5100"]
    assert judge(with_others(silent(A, 10))).losses == []
    never = Holding(A, None, "connection refused")
    assert (
        f"{A} does not answer (connection refused); it was never heard"
        in judge(with_others(never)).facts
    )


def test_a_site_that_cannot_lead_well_says_so() -> None:
    losses = judge(replace(HERE, complete=False, removed=True)).losses
    assert losses == [
        "this site was removed from the group: what the others wrote since is not here",
        "this site has no complete copy of the database",
    ]
