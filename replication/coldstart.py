"""Who becomes master when a site starts: one pure decision (no input or output).

A site asks every other site it knows what that one holds, then decides:

    somebody is master                                    -> FOLLOW it
    a native site answers: it names no master              -> ELECT, or FOLLOW whoever leads
    no member, and somebody follows a master              -> FOLLOW, and join through that one
    removed from the group                                -> WAIT
    priority 0                                            -> FOLLOW when a member, else WAIT
    environment empty, but others hold data, or this
    site remembers a group that had data                  -> WAIT (never take a copy with it)
    own log ends before the stable LSN somebody knows     -> FOLLOW, to vote, when one that holds it
                                                             can be elected, else WAIT
    nobody has a membership database                      -> CREATE (the creator; without one the
                                                             lowest address), else WAIT
    every other member has priority 0                     -> MASTER, generation above all others
    otherwise                                             -> ELECT

The stable LSN is the highest one that was answered OK to a client. A site that lacks it must not
become master by itself: that would undo an acknowledged write. A member that is ahead only by
records that were never answered OK is no reason to wait.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from replication.bodies import SiteAddress, Standing
from replication.messages import StandingFlag
from replication.wire import LSN, LSN_ZERO


class Start(Enum):
    """What to do now."""

    FOLLOW = "follow"
    MASTER = "master"
    CREATE = "create the group"
    ELECT = "elect"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class OwnStanding:
    """What this site holds.

    Args:
        last_lsn: its last commit, or the last permanent record that it applied.
        empty: no log at all.
        has_membership: its membership database names it.
        creator: configured with db_group_creator on.
        remembers_group: it once was in a group (a file beside the environment says so).
        group_id: that group's, 0 if unknown.
        stable_lsn: the highest LSN it knows to have been answered OK.
        removed: it was removed from the group: only a living group can take it in again.
    """

    address: SiteAddress
    priority: int
    generation: int
    last_lsn: LSN
    empty: bool
    has_membership: bool
    creator: bool
    remembers_group: bool = False
    group_id: int = 0
    stable_lsn: LSN = LSN_ZERO
    removed: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What one other site said, or why it said nothing.

    Args:
        standing: None when it did not answer or is a native site.
        native: it answered, and is a native site, which cannot tell.
        reason: why there is no standing.
    """

    address: SiteAddress
    standing: Standing | None = None
    native: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided, and why in one sentence for the operator."""

    start: Start
    why: str
    hint: str | None = None
    master: SiteAddress | None = None
    generation_above: int = 0


def refusal(own: OwnStanding, master: SiteAddress, standing: Standing) -> Decision | None:
    """Say why this site must not follow `master`: doing so would lose its copy of the data.

    Returns:
        None when following it is right.
    """
    if own.empty:
        return None
    if own.group_id and standing.group_id and own.group_id != standing.group_id:
        return Decision(
            Start.WAIT,
            f"{master} is master of another group (group {standing.group_id:016x}, this site holds"
            f" data of group {own.group_id:016x}); following it would replace this site's copy",
            f"to give up this copy run `ttserver wipe` here; to keep it run `ttserver promote` here"
            f" after stopping {master}.",
            master,
        )
    if standing.last_lsn < own.stable_lsn:
        return Decision(
            Start.WAIT,
            f"the log of {master} ends at {standing.last_lsn}, before {own.stable_lsn}, up to which"
            f" writes were acknowledged and this site holds them; following it would lose them",
            f"to keep this site's data run `ttserver promote` here and `ttserver wipe` on {master};"
            f" to give it up run `ttserver wipe` here.",
            master,
        )
    return None


def decide(
    own: OwnStanding,
    answers: Sequence[Answer],
    priorities: Mapping[SiteAddress, int],
    members: Sequence[SiteAddress],
    creator_elsewhere: bool,
) -> Decision:
    """Decide what a starting site does.

    Args:
        own: what this site holds.
        answers: one for each other site that was asked.
        priorities: the last known priority of other sites, from earlier handshakes.
        members: the other members, from the membership database, else from the configuration.
        creator_elsewhere: another configured site has db_group_creator on, or is named as the
            helper through which this one joins: then this one never creates a group by itself.
    """
    standings = {a.address: a.standing for a in answers if a.standing is not None}
    masters = [a for a, s in standings.items() if s.flags & StandingFlag.MASTER]
    if masters:
        # One that was cut off may not know yet that another took its place.
        address = max(masters, key=lambda each: standings[each].generation)
        return refusal(own, address, standings[address]) or Decision(
            Start.FOLLOW, f"{address} is master", master=address
        )
    natives = [a.address for a in answers if a.native]
    if natives:
        return _beside_native(own, standings, natives[0])
    through = None if own.has_membership else _member_with_master(own, standings)
    if through is not None:
        return through
    if own.removed:
        return Decision(
            Start.WAIT,
            f"this site was removed from the group and asks to be taken in again, but no master"
            f" answers ({_silent(answers)})",
            "start the master, or check the network with `ttserver check`.",
        )
    if own.priority == 0:
        return _without_priority(own, answers)
    return (
        _emptied(own, standings)
        or _stable(own, standings)
        or _creation(own, standings, answers, creator_elsewhere)
        or _alone_or_elect(own, standings, priorities, members)
    )


def _beside_native(
    own: OwnStanding, standings: Mapping[SiteAddress, Standing], native: SiteAddress
) -> Decision:
    """A native site names no master: either one is heard of soon, or there has to be a vote.

    Native sites without priority, or started without elections, call none themselves.
    """
    if not own.has_membership:
        return Decision(Start.FOLLOW, f"{native} is a native site of the group")
    if own.priority == 0 or own.empty or _stable(own, standings) is not None:
        return Decision(Start.FOLLOW, f"{native} is a native site; follows whoever leads the group")
    return Decision(
        Start.ELECT, f"{native} is a native site: votes with it, unless the group has a master"
    )


def _member_with_master(
    own: OwnStanding, standings: Mapping[SiteAddress, Standing]
) -> Decision | None:
    """A member that follows a master this site does not know: it passes on the wish to join."""
    for address, standing in standings.items():
        if standing.master in (None, own.address):
            continue
        if own.group_id and standing.group_id and own.group_id != standing.group_id:
            continue  # the master's own answer will say so, and what to do about it
        why = f"{address} follows {standing.master}, which is master"
        return Decision(Start.FOLLOW, why, master=address)
    return None


def _without_priority(own: OwnStanding, answers: Sequence[Answer]) -> Decision:
    if own.has_membership:
        return Decision(Start.FOLLOW, "priority 0: follows whoever becomes master")
    return Decision(
        Start.WAIT,
        f"no master answers ({_silent(answers)})",
        "start the master, or check the repmgr_site lines in DB_CONFIG with `ttserver check`.",
    )


def _silent(answers: Sequence[Answer]) -> str:
    silent = "; ".join(f"{a.address}: {a.reason or 'is not master either'}" for a in answers)
    return silent or "no other site is configured"


def _emptied(own: OwnStanding, standings: Mapping[SiteAddress, Standing]) -> Decision | None:
    """A site whose data is gone must not become the master of those who still hold it."""
    if not own.empty:
        return None
    holders = {a: s for a, s in standings.items() if not s.flags & StandingFlag.EMPTY}
    if holders:
        address, standing = max(holders.items(), key=lambda item: item[1].last_lsn)
        return Decision(
            Start.WAIT,
            f"this site's environment is empty, and {address} holds data up to"
            f" {standing.last_lsn}; becoming master would take that copy with it",
            f"run `ttserver promote` on {address}, this site then follows it; or, to throw the data"
            f" away, run `ttserver wipe` there.",
        )
    if own.remembers_group:
        return Decision(
            Start.WAIT,
            "this site's environment is empty, but it was in a group that had data, and no site"
            " that holds it answers",
            "start the site that holds the data and run `ttserver promote` there; or run"
            " `ttserver promote` here to start with an empty database.",
        )
    return None


def _creation(
    own: OwnStanding,
    standings: Mapping[SiteAddress, Standing],
    answers: Sequence[Answer],
    creator_elsewhere: bool,
) -> Decision | None:
    if own.has_membership:
        return None
    if any(s.flags & StandingFlag.HAS_MEMBERSHIP for s in standings.values()):
        return None  # the group exists; whether this site may lead it is decided below
    if own.creator:
        return Decision(Start.CREATE, "creates the group (db_group_creator on)")
    if creator_elsewhere:
        names = ", ".join(f"{a.address}: {a.reason or 'no group yet'}" for a in answers)
        return Decision(
            Start.WAIT,
            f"waits for the site that creates the group, to join it ({names})",
            "start the site that has db_group_creator on in its DB_CONFIG.",
        )
    lower = [a for a, s in standings.items() if s.priority > 0 and a < own.address]
    if lower:
        return Decision(
            Start.WAIT,
            f"waits for {min(lower)}, the lowest address with a priority above 0, to create"
            " the group",
            "nothing to do; it creates the group and this site joins.",
        )
    return Decision(Start.CREATE, "creates the group (no other site has one)")


def _stable(own: OwnStanding, standings: Mapping[SiteAddress, Standing]) -> Decision | None:
    known = {address: standing.stable_lsn for address, standing in standings.items()}
    known[own.address] = own.stable_lsn
    address, stable = max(known.items(), key=lambda item: item[1])
    if own.last_lsn >= stable:
        return None
    leaders = [a for a, s in standings.items() if s.priority > 0 and s.last_lsn >= stable]
    if own.has_membership and leaders:
        # Its vote may be the one that is missing; the longer log wins.
        return Decision(
            Start.FOLLOW,
            f"this site's log ends at {own.last_lsn}, before {stable}, up to which writes are"
            f" acknowledged; {min(leaders)} holds them and can be elected, this site only votes",
        )
    return Decision(
        Start.WAIT,
        f"this site's log ends at {own.last_lsn}, before {stable}, up to which {address} knows"
        " writes to be acknowledged; becoming master would lose them",
        f"run `ttserver promote` on {address}, this site then follows it.",
    )


def _alone_or_elect(
    own: OwnStanding,
    standings: Mapping[SiteAddress, Standing],
    priorities: Mapping[SiteAddress, int],
    members: Sequence[SiteAddress],
) -> Decision:
    above = max([own.generation, *(s.generation for s in standings.values())])
    known = {a: p for a, p in priorities.items() if a in members}
    known.update({a: s.priority for a, s in standings.items()})
    # Without a membership database of its own, whoever answers may be a member of the group.
    others = set(members) if own.has_membership else {*members, *standings}
    if all(known.get(other) == 0 for other in others):
        why = "every other member has priority 0" if others else "it is the only member"
        return Decision(Start.MASTER, why, generation_above=above)
    return Decision(Start.ELECT, "more than one member may become master")
