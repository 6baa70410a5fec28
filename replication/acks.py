"""Acknowledgement arithmetic: which writes are permanent by which policy (pure).

`AckTable` keeps the highest LSN each site acknowledged in this generation.  The functions below
take the other members of the group as `SiteAck`s and say what follows.

An LSN is permanent under a policy when these sites hold it:

    ALL            every other member
    ALL_AVAILABLE  every connected one, and a QUORUM; after the ack time-out a QUORUM will do
    ALL_PEERS      every electable one
    NONE           nobody
    ONE            any one
    ONE_PEER       any one electable
    QUORUM         (n - 1) // 2 electable ones, n counting everybody, this site and those of
                   priority 0 too; if fewer are electable, all of those.  In a group of two 0 with
                   2SITE_STRICT (an election there needs both sites), else 1

What QUORUM promises: n // 2 + 1 votes make a master, so among any voters that can elect one is
either this site or an electable site that holds the write, and the longest log wins; the property
tests prove it by enumeration for n up to 7.  The first, quick election after the loss of a master
may wait for n - 1 sites, but it must ask for the same n // 2 + 1 votes.

Details that the words above leave open:

- A site being added neither counts for a policy nor is waited for, but makes n larger.  As long as
  no other site is a full member this is a group of one, which meets every policy.
- A site being removed does not count either, but stays among those that ALL, ALL_PEERS and "all
  electable ones" wait for: until the removal is finished it could still be elected.
- A site never heard of since start may be electable: it is waited for, and counts for nothing.

Source: DB_ENV->repmgr_set_ack_policy; "Choosing a Replication Manager Ack Policy" in the
Programmer's Reference Guide.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from replication.messages import AckPolicy, SiteStatus
from replication.wire import LSN, LSN_MAX, LSN_ZERO

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True)
class SiteAck:
    """Another member of the group as the ack policy sees it.

    Args:
        eid: the site's local number.
        electable: priority above 0; None as long as that is not known.
        connected: a link to it is ready.
        acked: the highest LSN it acknowledged in this generation, if any.
        status: its status in the site list.
        name: for messages; its number if not given.
        witness: it votes and holds no data, so nobody waits for it.
    """

    eid: int
    electable: bool | None
    connected: bool
    acked: LSN | None
    status: SiteStatus = SiteStatus.PRESENT
    name: str = ""
    witness: bool = False

    @property
    def counts(self) -> bool:
        """Whether its acknowledgements count: it is a full member that holds data."""
        return self.status is SiteStatus.PRESENT and not self.witness

    @property
    def is_copy(self) -> bool:
        """Whether it holds, or held, the data: one that is being added does not yet."""
        return self.status is not SiteStatus.ADDING and not self.witness

    def __str__(self) -> str:
        return self.name or f"site {self.eid}"


class AckTable:
    """The highest LSN acknowledged by each site in this site's generation.

    Args:
        generation: this site's.
        lock: held by whoever records an ack until all that follows from it is done, and by whoever
            reads the table to replace what was derived from it. It must let its holder in again;
            where all is done on one thread none is needed.

    Attributes:
        highest: no site acknowledged more in this generation.
    """

    __slots__ = ("_acked", "generation", "highest", "ignored_count", "lock", "recorded_count")

    def __init__(self, generation: int, lock: AbstractContextManager[object] | None = None) -> None:
        self.generation = generation
        self.lock = lock or nullcontext()
        self.highest = LSN_ZERO
        self.recorded_count = 0
        self.ignored_count = 0  # acks of another generation, or older than what was known
        self._acked: dict[int, LSN] = {}

    def start_generation(self, generation: int) -> None:
        """Forget everything: an LSN means nothing in another generation."""
        self.generation = generation
        self.highest = LSN_ZERO
        self._acked.clear()

    def record(self, eid: int, generation: int, lsn: LSN) -> bool:
        """Take an ack; returns whether the site got further by it."""
        if generation != self.generation or lsn <= self._acked.get(eid, LSN_ZERO):
            self.ignored_count += 1
            return False
        self._acked[eid] = lsn
        self.highest = max(self.highest, lsn)
        self.recorded_count += 1
        return True

    def acked(self, eid: int) -> LSN | None:
        """Return what a site acknowledged, None if nothing."""
        return self._acked.get(eid)

    def forget(self, eid: int) -> None:
        """Drop a site that was removed, or whose data was wiped."""
        self._acked.pop(eid, None)


def quorum_size(n: int, *, two_site_strict: bool = True) -> int:
    """Return how many electable sites must acknowledge besides this one, of a group of `n`."""
    if n == 2 and not two_site_strict:
        return 1
    return (n - 1) // 2


def policy_lsn(
    policy: AckPolicy, sites: Sequence[SiteAck], *, two_site_strict: bool = True
) -> LSN | None:
    """Return the highest LSN that is permanent.

    Args:
        policy: the ack policy.
        sites: every other member of the group, of any status.
        two_site_strict: db_repmgr_conf_2site_strict.

    Returns:
        LSN_MAX when nobody has to be waited for, None when no LSN is permanent.
    """
    if policy is AckPolicy.NONE or _is_alone(sites):
        return LSN_MAX
    counting = [site for site in sites if site.counts]
    peers = [site for site in counting if site.electable]
    match policy:
        case AckPolicy.ALL:
            return _held_by_all(_awaited(sites))
        case AckPolicy.ALL_PEERS:
            return _held_by_all(_awaited_peers(sites))
        case AckPolicy.ONE:
            return _held_by(1, counting)
        case AckPolicy.ONE_PEER:
            return _held_by(1, peers)
        case AckPolicy.QUORUM:
            needed = quorum_size(len(sites) + 1, two_site_strict=two_site_strict)
            return _highest(_held_by(needed, peers), _held_by_all(_awaited_peers(sites)))
        case AckPolicy.ALL_AVAILABLE:
            available = _held_by_all([site for site in counting if site.connected])
            quorum = policy_lsn(AckPolicy.QUORUM, sites, two_site_strict=two_site_strict)
            return None if available is None or quorum is None else min(available, quorum)


def policy_after_timeout(policy: AckPolicy) -> AckPolicy:
    """Return what decides when the ack time-out is over: ALL_AVAILABLE then asks for a QUORUM."""
    return AckPolicy.QUORUM if policy is AckPolicy.ALL_AVAILABLE else policy


def policy_for_membership_change(
    policy: AckPolicy, sites: Sequence[SiteAck], *, second_step: bool
) -> AckPolicy:
    """Return what a transaction on the membership database waits for.

    The first step must not wait for the very site it adds or removes; the second is a formality
    that nothing may hold up, else the group stays between two versions.

    Args:
        policy: the ack policy of ordinary writes.
        sites: every other member, with the change of this step.
        second_step: whether it is the second.
    """
    if second_step or len(sites) == 1:
        return AckPolicy.NONE
    if policy in (AckPolicy.ALL, AckPolicy.ALL_PEERS):
        return AckPolicy.ALL_AVAILABLE
    return policy


def waits_for_nobody(
    policy: AckPolicy, sites: Sequence[SiteAck], *, two_site_strict: bool = True
) -> bool:
    """Tell whether a write is permanent as soon as it is committed here."""
    silent = [replace(site, acked=None) for site in sites]
    return policy_lsn(policy, silent, two_site_strict=two_site_strict) == LSN_MAX


def can_be_met(
    policy: AckPolicy,
    sites: Sequence[SiteAck],
    lsn: LSN | None = None,
    *,
    two_site_strict: bool = True,
) -> bool:
    """Tell whether the connected sites could meet a policy, so that nobody waits in vain.

    Args:
        policy: the ack policy.
        sites: every other member of the group.
        lsn: the write in question: a site that holds it counts although its link is gone.  None
            for a write to come.
        two_site_strict: db_repmgr_conf_2site_strict.
    """
    hopeful = [replace(site, acked=_at_best(site, lsn)) for site in sites]
    return policy_lsn(policy, hopeful, two_site_strict=two_site_strict) is not None


def survives_election(
    policy: AckPolicy, sites: Sequence[SiteAck], *, two_site_strict: bool = True
) -> bool:
    """Tell whether whoever a majority elects has every write that met the policy.

    Only electable holders can save a write: the others vote, but never win.  n // 2 + 1 votes
    leave room for (n - 1) // 2 sites that do not vote; with fewer electable holders besides the
    lost master, the rest can elect a site without the write, if one of them is electable.

    Returns:
        True also when nobody else is electable: then there is no election to lose it in.
    """
    electable = len(_awaited_peers(sites))
    quorum = quorum_size(len(sites) + 1, two_site_strict=two_site_strict)
    if electable == 0:
        return True
    if policy is AckPolicy.NONE:
        return False
    if policy in (AckPolicy.ONE, AckPolicy.ONE_PEER):
        any_site = policy is AckPolicy.ONE and electable < len(_awaited(sites))
        fewest = 0 if any_site else 1
        return fewest >= min(quorum, electable)
    return True


def requirement(policy: AckPolicy, sites: Sequence[SiteAck], *, two_site_strict: bool) -> str:
    """Say in words whom a policy needs in this group."""
    if policy in (AckPolicy.QUORUM, AckPolicy.ALL_AVAILABLE):
        size = quorum_size(len(sites) + 1, two_site_strict=two_site_strict)
        electable = len(_awaited_peers(sites))
        peers = f"{min(size, electable)} of {electable} electable sites"
        return peers if policy is AckPolicy.QUORUM else f"all connected sites and {peers}"
    return {
        AckPolicy.ALL: f"all {len(_awaited(sites))} other sites",
        AckPolicy.ALL_PEERS: f"all {len(_awaited_peers(sites))} electable sites",
        AckPolicy.ONE: "one site",
        AckPolicy.ONE_PEER: "one electable site",
        AckPolicy.NONE: "nobody",
    }[policy]


def concerned(policy: AckPolicy, sites: Sequence[SiteAck]) -> list[SiteAck]:
    """Return the sites whose acknowledgement matters to a policy."""
    peers_only = policy in (AckPolicy.ALL_PEERS, AckPolicy.ONE_PEER, AckPolicy.QUORUM)
    return _awaited_peers(sites) if peers_only else _awaited(sites)


def holds(site: SiteAck, lsn: LSN) -> bool:
    """Tell whether the site acknowledged a write."""
    return site.acked is not None and site.acked >= lsn


# --- the parts of the rules --------------------------------------------------------------------


def _is_alone(sites: Iterable[SiteAck]) -> bool:
    return not any(site.is_copy for site in sites)


def _awaited(sites: Iterable[SiteAck]) -> list[SiteAck]:
    """Everybody "all" means: who is being added is not there yet, who is being removed still is."""
    return [site for site in sites if site.is_copy]


def _awaited_peers(sites: Iterable[SiteAck]) -> list[SiteAck]:
    """The electable ones of them, and those that may be for all we know."""
    return [site for site in _awaited(sites) if site.electable is not False]


def _held_by_all(sites: Iterable[SiteAck]) -> LSN | None:
    """Return the highest LSN all of them hold: LSN_MAX for no sites at all."""
    lowest = LSN_MAX
    for site in sites:
        if site.acked is None:
            return None
        lowest = min(lowest, site.acked)
    return lowest


def _held_by(count: int, sites: Iterable[SiteAck]) -> LSN | None:
    """Return the highest LSN that `count` of them hold, None if there is none."""
    if count == 0:
        return LSN_MAX
    acked = sorted((site.acked for site in sites if site.acked is not None), reverse=True)
    return acked[count - 1] if len(acked) >= count else None


def _highest(one: LSN | None, other: LSN | None) -> LSN | None:
    if one is None or other is None:
        return one or other
    return max(one, other)


def _at_best(site: SiteAck, lsn: LSN | None) -> LSN | None:
    """Return what the site may acknowledge if all goes well."""
    able = site.connected or (lsn is not None and holds(site, lsn))
    return LSN_MAX if able else None
