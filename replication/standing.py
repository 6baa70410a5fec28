"""What this site holds: for its own decision at the start, and as it tells other sites."""

from __future__ import annotations

from replication.bodies import SiteAddress, Standing
from replication.coldstart import OwnStanding
from replication.core import Core
from replication.library import LogStanding
from replication.membership import Membership
from replication.memory import Memory
from replication.messages import StandingFlag
from replication.settings import GroupSettings
from replication.wire import LSN, LSN_ZERO


def at_start(
    settings: GroupSettings, held: LogStanding, members: Membership | None, memory: Memory
) -> OwnStanding:
    """Put together what the environment, its membership database and the memory say."""
    local = settings.local
    return OwnStanding(
        local,
        settings.priority,
        held.generation,
        held.committed,
        empty=held.last_lsn == LSN_ZERO or settings.witness,
        has_membership=members is not None and members.is_present(local),
        creator=settings.creator,
        remembers_group=bool(memory.group_id),
        group_id=memory.group_id,
        stable_lsn=memory.stable_lsn,
        removed=memory.removed,
    )


def describe(core: Core, applied: LSN, stable: LSN, clients: SiteAddress | None) -> Standing:
    """Return what this site says of itself to another ttserver site.

    Args:
        applied: the last permanent LSN here.
        stable: the highest LSN answered OK here as master.
        clients: where clients are served.
    """
    flags = StandingFlag(0)
    if core.complete:
        flags |= StandingFlag.COMPLETE_COPY
    elif core.own.empty:
        flags |= StandingFlag.EMPTY
    if core.is_master:
        flags |= StandingFlag.MASTER
    if core.settings.witness:
        flags |= StandingFlag.WITNESS
    if core.settings.creator:
        flags |= StandingFlag.GROUP_CREATOR
    if core.membership is not None and core.own.has_membership:
        flags |= StandingFlag.HAS_MEMBERSHIP
    version, generation = core.group.rejection
    return Standing(
        max(core.generation, core.memory.generation),
        applied,
        max(core.memory.stable_lsn, stable),
        core.settings.priority,
        int(flags),
        version,
        generation,
        None,
        core.master,
        core.memory.group_id,
        clients,
    )
