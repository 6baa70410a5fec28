"""Ack arithmetic against a deliberately dumb version, and what QUORUM promises, by enumeration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, combinations, combinations_with_replacement, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replication.acks import (
    SiteAck,
    can_be_met,
    policy_lsn,
    survives_election,
    waits_for_nobody,
)
from replication.messages import AckPolicy, SiteStatus
from replication.wire import LSN, LSN_MAX

LOW, WRITE, HIGH = LSN(1, 50), LSN(1, 100), LSN(2, 10)
PRESENT, ADDING, DELETING = SiteStatus.PRESENT, SiteStatus.ADDING, SiteStatus.DELETING

sites_strategy = st.lists(
    st.builds(
        SiteAck,
        eid=st.integers(1, 9),
        electable=st.sampled_from([True, True, False, None]),
        connected=st.booleans(),
        acked=st.none() | st.sampled_from([LOW, WRITE, HIGH]),
        status=st.sampled_from([PRESENT, PRESENT, PRESENT, ADDING, DELETING]),
        witness=st.sampled_from([False, False, False, True]),
    ),
    max_size=6,
)


def dumb_holds(policy: AckPolicy, sites: Sequence[SiteAck], lsn: LSN, *, strict: bool) -> bool:
    """Count, for one LSN, in the words of the manual; a witness is only there to be counted."""
    members = 1 + len(sites)
    sites = [site for site in sites if not site.witness]
    if not any(site.status in (PRESENT, DELETING) for site in sites):
        return True
    have = [site.acked is not None and site.acked >= lsn for site in sites]
    counted = [held and site.status is PRESENT for held, site in zip(have, sites, strict=True)]
    peers = [held and site.electable is True for held, site in zip(counted, sites, strict=True)]
    missing = [
        site for held, site in zip(have, sites, strict=True) if not held and site.status != ADDING
    ]
    missing_peer = any(site.electable is not False for site in missing)
    needed = 1 if members == 2 and not strict else (members - 1) // 2
    quorum = sum(peers) >= needed or not missing_peer
    silent = any(site.connected and site.status is PRESENT for site in missing)
    return {
        AckPolicy.ALL: not missing,
        AckPolicy.ALL_AVAILABLE: quorum and not silent,
        AckPolicy.ALL_PEERS: not missing_peer,
        AckPolicy.NONE: True,
        AckPolicy.ONE: any(counted),
        AckPolicy.ONE_PEER: any(peers),
        AckPolicy.QUORUM: quorum,
    }[policy]


@settings(deadline=None, max_examples=600)
@given(st.sampled_from(AckPolicy), sites_strategy, st.booleans())
def test_policy_lsn_is_the_highest_for_which_the_policy_holds(
    policy: AckPolicy, sites: list[SiteAck], strict: bool
) -> None:
    # Between two acknowledged LSNs nothing changes, so these are all LSNs there are.
    candidates = sorted({LSN_MAX, *(site.acked for site in sites if site.acked is not None)})
    held = [lsn for lsn in candidates if dumb_holds(policy, sites, lsn, strict=strict)]
    assert policy_lsn(policy, sites, two_site_strict=strict) == max(held, default=None)
    assert held == candidates[: len(held)], "what holds for an LSN holds for all before it"


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(AckPolicy), sites_strategy, st.booleans())
def test_hopeless_means_that_even_everybody_connected_is_not_enough(
    policy: AckPolicy, sites: list[SiteAck], strict: bool
) -> None:
    best = [replace(site, acked=HIGH if site.connected else site.acked) for site in sites]
    can = can_be_met(policy, sites, WRITE, two_site_strict=strict)
    assert can is dumb_holds(policy, best, WRITE, strict=strict)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(AckPolicy), sites_strategy, st.booleans())
def test_waiting_for_nobody_means_that_no_ack_is_needed(
    policy: AckPolicy, sites: list[SiteAck], strict: bool
) -> None:
    silent = [replace(site, acked=None) for site in sites]
    expected = dumb_holds(policy, silent, WRITE, strict=strict)
    assert waits_for_nobody(policy, sites, two_site_strict=strict) is expected


# --- what QUORUM promises ----------------------------------------------------------------------

Kind = tuple[bool | None, SiteStatus, bool]  # electable, status, holds the write


def groups(kinds: Sequence[Kind], others: int) -> Iterator[list[SiteAck]]:
    """Make every group of so many other sites; which site is which does not matter."""
    for chosen in combinations_with_replacement(kinds, others):
        yield [
            SiteAck(eid, electable, True, WRITE if holds else None, status)
            for eid, (electable, status, holds) in enumerate(chosen, 1)
        ]


def can_lose_the_write(sites: Sequence[SiteAck], *, master_electable: bool, votes: int) -> bool:
    """Hold every possible election and see whether one is won by a site without the write.

    Any `votes` members or more make an election, whatever their priority, the old master too (it
    holds the write).  Of those who vote an electable one with the longest log wins: a holder, if
    there is one.  A site being added is refused by all others and can't win; for a site of
    unknown priority the worse is assumed.
    """
    voters = [(site.electable is not False, site.acked is not None, site.status) for site in sites]
    everybody = [(master_electable, True, PRESENT), *voters]
    for size in range(votes, len(everybody) + 1):
        for election in combinations(everybody, size):
            runners = [
                holds for electable, holds, status in election if electable and status != ADDING
            ]
            if runners and not any(runners):
                return True
    return False


SETTLED: list[Kind] = [
    (electable, PRESENT, holds) for electable, holds in product((True, False), (True, False))
]
CHANGING: list[Kind] = [
    (electable, status, holds)
    for electable, status, holds in product(
        (True, False, None), (PRESENT, ADDING, DELETING), (True, False)
    )
    if not (status is ADDING and holds)
]


@pytest.mark.parametrize("n", range(1, 8))
def test_a_write_that_met_quorum_survives_every_majority_election(n: int) -> None:
    checked = 0
    for sites in groups(SETTLED, n - 1):
        if policy_lsn(AckPolicy.QUORUM, sites) in (WRITE, LSN_MAX):
            assert not can_lose_the_write(sites, master_electable=True, votes=n // 2 + 1), sites
            checked += 1
    assert checked, "no group met the policy: nothing was tested"


@pytest.mark.parametrize("n", range(2, 8))
def test_witnesses_among_the_voters_lose_nothing(n: int) -> None:
    """They have a vote and nothing to compare, so they are the voters that matter most."""
    checked = 0
    for sites in groups(SETTLED, n - 1):
        group = [replace(s, witness=s.electable is False and s.acked is None) for s in sites]
        if policy_lsn(AckPolicy.QUORUM, group) in (WRITE, LSN_MAX):
            assert not can_lose_the_write(group, master_electable=True, votes=n // 2 + 1), group
            checked += any(site.witness for site in group)
    assert checked


@pytest.mark.parametrize("n", range(1, 6))
def test_nor_is_it_lost_while_members_come_and_go(n: int) -> None:
    for sites in groups(CHANGING, n - 1):
        if policy_lsn(AckPolicy.QUORUM, sites) in (WRITE, LSN_MAX):
            assert not can_lose_the_write(sites, master_electable=True, votes=n // 2 + 1), sites


def test_two_sites_of_which_one_may_win_alone() -> None:
    for sites in groups(CHANGING, 1):
        if policy_lsn(AckPolicy.QUORUM, sites, two_site_strict=False) in (WRITE, LSN_MAX):
            assert not can_lose_the_write(sites, master_electable=True, votes=1), sites


@pytest.mark.parametrize("n", range(3, 8))
def test_quorum_is_no_larger_than_it_must_be(n: int) -> None:
    """With all sites electable, one ack fewer can be lost: the size is the least that is safe."""
    short = (n - 1) // 2 - 1
    sites = [SiteAck(eid, True, True, WRITE if eid <= short else None) for eid in range(1, n)]
    assert policy_lsn(AckPolicy.QUORUM, sites) is None
    assert can_lose_the_write(sites, master_electable=True, votes=n // 2 + 1)


@pytest.mark.parametrize("n", [4, 6])
def test_a_quick_election_must_not_ask_for_fewer_votes(n: int) -> None:
    """A majority of n - 1 sites, instead of n, would lose an acknowledged write in even groups."""
    sites = [
        SiteAck(eid, True, True, WRITE if eid <= (n - 1) // 2 else None) for eid in range(1, n)
    ]
    assert policy_lsn(AckPolicy.QUORUM, sites) == WRITE
    assert can_lose_the_write(sites, master_electable=True, votes=(n - 1) // 2 + 1)
    assert not can_lose_the_write(sites, master_electable=True, votes=n // 2 + 1)


@pytest.mark.parametrize("n", range(1, 8))
def test_every_policy_in_every_group(n: int) -> None:
    """Every group of settled members, whoever is electable, connected and holds the write."""
    kinds = list(product((True, False), (True, False), (True, False)))
    for chosen in combinations_with_replacement(kinds, n - 1):
        sites = [
            SiteAck(eid, electable, connected, WRITE if holds else None)
            for eid, (electable, connected, holds) in enumerate(chosen, 1)
        ]
        for policy, strict in product(AckPolicy, (True, False)):
            met = policy_lsn(policy, sites, two_site_strict=strict) in (WRITE, LSN_MAX)
            assert met is dumb_holds(policy, sites, WRITE, strict=strict), (policy, sites, strict)


@pytest.mark.parametrize("n", range(1, 8))
def test_quorum_is_what_berkeley_db_says(n: int) -> None:
    """The words of the manual, counted out: how many of the electable ones must have it."""
    for electable in range(n):
        peers = [True] * electable + [False] * (n - 1 - electable)
        asked = min((n - 1) // 2, electable)
        for holders in range(electable + 1):
            sites = [
                SiteAck(eid, peer, True, WRITE if eid <= holders or not peer else None)
                for eid, peer in enumerate(peers, 1)
            ]
            met = policy_lsn(AckPolicy.QUORUM, sites) in (WRITE, LSN_MAX)
            assert met is (holders >= asked), (n, electable, holders)


@pytest.mark.parametrize("n", range(2, 8))
@pytest.mark.parametrize("policy", list(AckPolicy))
def test_what_is_said_about_elections_is_true(policy: AckPolicy, n: int) -> None:
    """A policy survives elections when no set of holders that meets it can be voted down."""
    for electable in range(n):
        peers = [True] * electable + [False] * (n - 1 - electable)
        group = [SiteAck(eid, peer, True, None) for eid, peer in enumerate(peers, 1)]
        loses = False
        for holding in product((False, True), repeat=n - 1):
            sites = [
                replace(site, acked=WRITE if holds else None)
                for site, holds in zip(group, holding, strict=True)
            ]
            if policy_lsn(policy, sites) in (WRITE, LSN_MAX):
                loses |= can_lose_the_write(sites, master_electable=True, votes=n // 2 + 1)
        # In a group of two the vote of the master itself is needed, and it has the write.
        if policy is AckPolicy.NONE and n == 2:
            assert not loses
        else:
            assert survives_election(policy, group) is not loses, (policy, electable)


def test_stronger_policies_imply_quorum() -> None:
    for n in range(1, 6):
        for sites in groups(SETTLED, n - 1):
            quorum = policy_lsn(AckPolicy.QUORUM, sites)
            for policy in (AckPolicy.ALL, AckPolicy.ALL_PEERS, AckPolicy.ALL_AVAILABLE):
                if policy_lsn(policy, sites) is not None:
                    assert quorum is not None, (policy, sites)


def test_the_groups_are_as_many_as_they_should_be() -> None:
    assert len(list(chain.from_iterable(groups(SETTLED, others) for others in range(7)))) == 210
