"""What is said about acknowledgements: who has a write, and what a policy leaves open."""

from __future__ import annotations

import pytest

from replication.ack_words import Advice, advise, describe_shortfall, describe_unreachable
from replication.acks import SiteAck, requirement
from replication.messages import AckPolicy, SiteStatus
from replication.wire import LSN

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
    return SiteAck(eid, electable, connected, acked, status, f"db{eid}:5010")


def test_a_shortfall_says_who_has_it_and_who_has_not() -> None:
    sites = [site(1, L3), site(2, L1), site(3, electable=None, connected=False), site(4, L1)]
    assert describe_shortfall(P.QUORUM, sites, L2) == (
        "QUORUM needs 2 of 4 electable sites; 1/200 acknowledged by db1:5010;"
        " missing: db2:5010 (at 1/100), db3:5010 (nothing yet, not connected),"
        " db4:5010 (at 1/100)"
    )
    assert describe_shortfall(P.ONE, [site(1)], L1) == (
        "ONE needs one site; 1/100 acknowledged by none; missing: db1:5010 (nothing yet)"
    )


def test_a_copy_that_does_not_count_is_named() -> None:
    sites = [
        site(1, L3, electable=False),
        site(2),
        site(3, L3, status=SiteStatus.ADDING),
    ]
    assert describe_shortfall(P.QUORUM, sites, L2) == (
        "QUORUM needs 1 of 1 electable sites; 1/200 acknowledged by"
        " db1:5010 (does not count: priority 0), db3:5010 (does not count: it is being added);"
        " missing: db2:5010 (nothing yet)"
    )


def test_a_policy_that_cannot_be_met_names_who_is_away() -> None:
    sites = [site(1, electable=False, connected=False), site(2, connected=False), site(3)]
    assert describe_unreachable(P.ALL_PEERS, sites) == (
        "ALL_PEERS needs all 2 electable sites; not connected: db2:5010"
    )


@pytest.mark.parametrize(
    ("policy", "needs"),
    [
        (P.ALL, "all 3 other sites"),
        (P.ALL_AVAILABLE, "all connected sites and 1 of 2 electable sites"),
        (P.ALL_PEERS, "all 2 electable sites"),
        (P.NONE, "nobody"),
        (P.ONE, "one site"),
        (P.ONE_PEER, "one electable site"),
        (P.QUORUM, "1 of 2 electable sites"),
    ],
)
def test_whom_a_policy_needs(policy: AckPolicy, needs: str) -> None:
    sites = [site(1), site(2), site(3, electable=False)]
    assert requirement(policy, sites, two_site_strict=True) == needs


NOBODY = "{} waits for nobody here: OK means one copy ({})"
CUT_OFF = "{} waits for nobody while no other site is connected: OK means one copy"
TOO_FEW = (
    "{} asks for less than an election does: the others can elect a site without what was"
    " answered OK"
)
ZEROS = [site(1, electable=False), site(2, electable=False)]
AWAY = [site(1, electable=False, connected=False), site(2, electable=False, connected=False)]


@pytest.mark.parametrize(
    ("policy", "sites", "text"),
    [
        (P.NONE, [site(1)], NOBODY.format("NONE", "that is what NONE says")),
        (P.QUORUM, [site(1)], NOBODY.format("QUORUM", "this site is the quorum of a group of two")),
        (P.QUORUM, ZEROS, NOBODY.format("QUORUM", "no other site has a priority above 0")),
        (P.ALL_PEERS, ZEROS, NOBODY.format("ALL_PEERS", "no other site has a priority above 0")),
        (P.ALL_AVAILABLE, AWAY, CUT_OFF.format("ALL_AVAILABLE")),
        (P.ONE, [site(eid) for eid in range(1, 5)], TOO_FEW.format("ONE")),
        (P.ONE, [site(1), site(2, electable=False)], TOO_FEW.format("ONE")),
        (P.ONE_PEER, [site(eid) for eid in range(1, 5)], TOO_FEW.format("ONE_PEER")),
    ],
)
def test_where_an_ok_is_worth_less_than_it_looks(
    policy: AckPolicy, sites: list[SiteAck], text: str
) -> None:
    advice = advise(policy, sites)
    assert advice is not None
    assert advice.text == text
    better = "quorum" if "election" in text else "one"
    assert f"`repmgr_set_ack_policy db_repmgr_acks_{better}`" in advice.hint
    assert advise(AckPolicy[better.upper()], sites) is None, "the advice is good"


@pytest.mark.parametrize(
    ("policy", "sites"),
    [
        (P.NONE, []),
        (P.QUORUM, [site(1, electable=None, status=SiteStatus.ADDING)]),
        (P.ONE, [site(1)]),
        (P.ONE, ZEROS),
        (P.ONE, [site(1), site(2)]),
        (P.ONE_PEER, [site(1), site(2), site(3, electable=False)]),
        (P.QUORUM, [site(1), site(2, connected=False)]),
        (P.ALL_AVAILABLE, ZEROS),
        (P.ALL, AWAY),
    ],
)
def test_where_there_is_nothing_to_say(policy: AckPolicy, sites: list[SiteAck]) -> None:
    assert advise(policy, sites) is None


def test_a_quorum_of_two_waits_without_2site_strict() -> None:
    assert isinstance(advise(P.QUORUM, [site(1)]), Advice)
    assert advise(P.QUORUM, [site(1)], two_site_strict=False) is None
