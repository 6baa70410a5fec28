"""What making this site master by force would cost: who holds what, asked now.

`survey` asks; `Survey` is what it found, as plain facts; `judge` says it in sentences (pure).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from replication.bodies import SiteAddress, Standing
from replication.core import Core
from replication.errors import ReplicationError
from replication.hub import Hub
from replication.messages import OwnCode, StandingFlag
from replication.peer_events import RequestUnsupported, StandingReceived
from replication.wire import LSN, LSN_ZERO

ASK_TIMEOUT_S: Final = 1.5  # a person waits; who has not answered by then is not there


@dataclass(frozen=True, slots=True)
class Holding:
    """What is known of another member.

    Args:
        standing: its own words, now; None when it does not answer or cannot tell.
        reason: why there are none.
        last_lsn: the end of its log when something was last heard of it.
        heard_s: how long ago that was, seconds; None for never.
        was_master: the last master this site followed.
        native: it answers, and is a native site.
    """

    site: SiteAddress
    standing: Standing | None = None
    reason: str = ""
    last_lsn: LSN = LSN_ZERO
    heard_s: float | None = None
    was_master: bool = False
    native: bool = False


@dataclass(frozen=True, slots=True)
class Survey:
    """What this site holds, what the others hold, and up to where writes were answered OK.

    Args:
        stable_lsn: as far as anybody who answered knows.
        removed: this site was taken out of the group.
        complete: it holds a complete copy.
    """

    site: SiteAddress
    last_lsn: LSN
    generation: int
    stable_lsn: LSN
    complete: bool
    removed: bool = False
    others: tuple[Holding, ...] = ()


@dataclass(slots=True)
class Judgement:
    """A survey in words.

    Args:
        losses: what will be lost, or can be; empty when nothing can.
        facts: who holds what.
        better: a site that holds more, where it should be done instead.
    """

    losses: list[str] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    better: SiteAddress | None = None


def must_be_possible(core: Core, *, over_native: bool = False) -> None:
    """Refuse what is not needed, or would make a master of half a copy.

    Args:
        over_native: also while a native site is master, which cannot be asked to step down.

    Raises:
        ReplicationError: the site is master already, follows a living one, or is syncing.
    """
    if core.is_master:
        raise ReplicationError("this site is master already", code="already", hint="nothing to do.")
    if core.settings.witness:
        raise ReplicationError(
            "this site is a witness and holds no data", code="witness", hint="promote another site."
        )
    link = core.master_link
    if link is not None and not (over_native and link.native):
        raise ReplicationError(
            f"this site follows a living master ({core.master})",
            code="master_alive",
            hint=f"run `ttserver switchover --to {core.settings.local}` there: it loses nothing;"
            " or stop that master first.",
        )
    if core.syncing:
        raise ReplicationError(
            "this site is receiving a copy of the database and cannot become master",
            code="syncing",
            hint="wait for the sync to end, or promote a site that holds a complete copy.",
        )


async def survey(core: Core, hub: Hub, applied: LSN) -> Survey:
    """Ask every other member what it holds. *Cancellation:* closes the connections."""
    now_s = asyncio.get_running_loop().time()
    members = [site for site in core.members() if site != core.settings.local]
    asked = await asyncio.gather(*(_ask(core, hub, site, now_s) for site in members))
    stable = [core.memory.stable_lsn]
    stable += [other.standing.stable_lsn for other in asked if other.standing is not None]
    return Survey(
        core.settings.local,
        applied,
        core.generation,
        max(stable),
        core.complete,
        core.own.removed,
        tuple(asked),
    )


async def _ask(core: Core, hub: Hub, site: SiteAddress, now_s: float) -> Holding:
    state = core.site(site)
    heard_s = None if state.heard_s is None else now_s - state.heard_s
    was_master = site == core.last_master
    last = state.standing.last_lsn if state.standing is not None else LSN_ZERO
    if was_master and core.heartbeats.master_lsn is not None:
        last = max(last, core.heartbeats.master_lsn)
    try:
        answer = await hub.ask(site, OwnCode.SITE_QUERY, ASK_TIMEOUT_S)
    except ReplicationError as error:
        return Holding(site, None, str(error), last, heard_s, was_master)
    if isinstance(answer, StandingReceived):
        standing = answer.standing
        return Holding(site, standing, "", standing.last_lsn, 0.0, was_master)
    native = isinstance(answer, RequestUnsupported)
    return Holding(site, None, "it gave no answer", last, heard_s, was_master, native)


def judge(found: Survey) -> Judgement:
    """Say what can be lost when this site becomes master."""
    said = Judgement()
    here = f"this site ({found.site}) holds the log up to {found.last_lsn}"
    said.facts.append(f"{here}, generation {found.generation}")
    if found.removed:
        said.losses.append(
            "this site was removed from the group: what the others wrote since is not here"
        )
    if not found.complete:
        said.losses.append("this site has no complete copy of the database")
    if found.stable_lsn > found.last_lsn:
        said.losses.append(
            f"writes that were answered OK, from {found.last_lsn} to {found.stable_lsn}"
        )
    elif found.stable_lsn > LSN_ZERO:
        said.facts.append(
            f"writes are known to have been answered OK up to {found.stable_lsn}: all of those are"
            " here"
        )
    for other in found.others:
        _judge_one(found, other, said)
    if said.better is not None:
        said.facts.append(f"{said.better} holds more: promote that one instead")
    return said


def _judge_one(found: Survey, other: Holding, said: Judgement) -> None:
    standing = other.standing
    if other.native:
        said.facts.append(f"{other.site} is a native site, which cannot say what it holds")
        if other.was_master:
            said.losses.append(
                f"what {other.site}, a native site, writes until it hears of this one, and what it"
                " wrote and did not send: it undoes that without keeping it"
            )
        return
    if standing is None:
        _judge_silent(found, other, said)
        return
    where = f"{other.site} answers: its log ends at {standing.last_lsn}"
    if standing.flags & StandingFlag.MASTER:
        where += "; it is master"
        said.losses.append(
            f"{other.site} is master now: what it writes from here on, until it hears of this site"
        )
    if standing.last_lsn <= found.last_lsn:
        said.facts.append(f"{where}, nothing that is not here")
        return
    said.facts.append(where)
    if found.stable_lsn <= found.last_lsn:
        said.losses.append(
            f"what {other.site} has from {found.last_lsn} to {standing.last_lsn}: not answered OK,"
            " as far as is known"
        )
    complete = bool(standing.flags & StandingFlag.COMPLETE_COPY)
    better = next((o.last_lsn for o in found.others if o.site == said.better), LSN_ZERO)
    # The end of an older generation's log says little: what it has more may be undone already.
    if complete and standing.generation >= found.generation and standing.last_lsn > better:
        said.better = other.site


def _judge_silent(found: Survey, other: Holding, said: Judgement) -> None:
    ago = "was never heard" if other.heard_s is None else f"was heard {other.heard_s:.0f} s ago"
    known = f", its log then ended at {other.last_lsn}" if other.last_lsn > LSN_ZERO else ""
    said.facts.append(f"{other.site} does not answer ({other.reason}); it {ago}{known}")
    if other.was_master:
        said.losses.append(
            f"what {other.site}, the last master, wrote and did not send: it is undone there when"
            " it comes back"
        )
    elif other.last_lsn > found.last_lsn:
        said.losses.append(f"what {other.site} has from {found.last_lsn} to {other.last_lsn}")
