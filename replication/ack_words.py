"""Acknowledgements in words: who has a write and who has not, what a policy leaves open (pure).

The words go to clients (PERMFAILED), to the journal, to `status` and to `check`, so that all of
them say the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from replication.acks import (
    SiteAck,
    concerned,
    holds,
    requirement,
    survives_election,
    waits_for_nobody,
)
from replication.messages import AckPolicy, SiteStatus
from replication.wire import LSN

_PROTECT: Final = "write `repmgr_set_ack_policy {}` in DB_CONFIG of every site: {}."
_ONE_PROTECTS: Final = _PROTECT.format(
    "db_repmgr_acks_one", "then OK means that one other site has the write"
)
_QUORUM_PROTECTS: Final = _PROTECT.format(
    "db_repmgr_acks_quorum", "then whoever is elected has the write"
)


def describe_shortfall(
    policy: AckPolicy, sites: Sequence[SiteAck], lsn: LSN, *, two_site_strict: bool = True
) -> str:
    """Say whom a write still needed: for PERMFAILED and the journal."""
    needed = requirement(policy, sites, two_site_strict=two_site_strict)
    return f"{policy.name} needs {needed}; {describe_holders(policy, sites, lsn)}"


def describe_unreachable(
    policy: AckPolicy, sites: Sequence[SiteAck], *, two_site_strict: bool = True
) -> str:
    """Say whose connection is missing for a policy that no write can meet now."""
    needed = requirement(policy, sites, two_site_strict=two_site_strict)
    gone = [str(site) for site in concerned(policy, sites) if not site.connected]
    return f"{policy.name} needs {needed}; not connected: {_list(gone)}"


def describe_holders(policy: AckPolicy, sites: Sequence[SiteAck], lsn: LSN) -> str:
    """Say who acknowledged a write and who of those that matter did not.

    A site that acknowledged it and does not count for the policy is named all the same: it is a
    copy that an operator may need.
    """
    matter = concerned(policy, sites)
    holders = [
        f"{site}{'' if site in matter else _why_not(site)}" for site in sites if holds(site, lsn)
    ]
    late = [
        f"{site} ({f'at {site.acked}' if site.acked else 'nothing yet'}"
        f"{'' if site.connected else ', not connected'})"
        for site in matter
        if not holds(site, lsn)
    ]
    return f"{lsn} acknowledged by {_list(holders)}; missing: {_list(late)}"


def _why_not(site: SiteAck) -> str:
    joining = site.status is SiteStatus.ADDING
    return f" (does not count: {'it is being added' if joining else 'priority 0'})"


def _list(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


@dataclass(frozen=True, slots=True)
class Advice:
    """What a policy leaves open in this group, and one thing to do."""

    text: str
    hint: str


def advise(
    policy: AckPolicy, sites: Sequence[SiteAck], *, two_site_strict: bool = True
) -> Advice | None:
    """Say where an OK is worth less than it looks; None when there is nothing to say.

    Args:
        policy: the ack policy of this site as master.
        sites: every other member of the group, as it stands.
        two_site_strict: db_repmgr_conf_2site_strict.
    """
    if not any(site.is_copy for site in sites):
        return None  # a group of one: there is nobody to wait for
    reached = [replace(site, connected=True) for site in sites]
    if waits_for_nobody(policy, reached, two_site_strict=two_site_strict):
        return Advice(
            f"{policy.name} waits for nobody here: OK means one copy ({_why(policy, sites)})",
            _ONE_PROTECTS,
        )
    if waits_for_nobody(policy, sites, two_site_strict=two_site_strict):
        return Advice(
            f"{policy.name} waits for nobody while no other site is connected: OK means one copy",
            _ONE_PROTECTS,
        )
    if not survives_election(policy, sites, two_site_strict=two_site_strict):
        return Advice(
            f"{policy.name} asks for less than an election does: the others can elect a site"
            " without what was answered OK",
            _QUORUM_PROTECTS,
        )
    return None


def _why(policy: AckPolicy, sites: Sequence[SiteAck]) -> str:
    if policy is AckPolicy.NONE:
        return "that is what NONE says"
    if policy is AckPolicy.QUORUM and len(sites) == 1:
        return "this site is the quorum of a group of two"
    return "no other site has a priority above 0"
