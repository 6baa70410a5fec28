"""Taking over from a native master, which cannot be asked to step down (see `handover` for ours).

While it lives nothing is done without force. Once it is stopped the others elect; in a group of
two, where one vote elects nobody, the other site takes over when it is asked to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replication.election import ballot
from replication.errors import ReplicationError
from replication.phase import Phase

if TYPE_CHECKING:
    from replication.bodies import SiteAddress
    from replication.core import Core


def native_master(core: Core) -> SiteAddress | None:
    """Return the native site that leads the group, or led it last and nobody since."""
    site = core.master or core.last_master
    if core.is_master or site is None or not core.site(site).native:
        return None
    return site


def must_be_possible(core: Core, native: SiteAddress, wanted: SiteAddress | None) -> None:
    """Refuse what cannot come to anything.

    Args:
        native: the native master.
        wanted: who is to take over; None for this site.

    Raises:
        ReplicationError: that master lives, or this site is not the one to take over.
    """
    here = core.settings.local
    if wanted not in (None, here):
        raise _refused(f"{native} is a native site", f"run the same command on {wanted}.")
    if core.settings.priority == 0:
        raise _refused(
            f"this site ({here}) has priority 0",
            "raise rep_set_priority in DB_CONFIG and start this site again.",
        )
    if core.master_link is not None:
        raise _refused(
            f"the master {native} is a native site, which cannot step down on request",
            "stop it in order there, then this site is elected, or takes over when this command is"
            " given again; `--force` deposes it and says what is lost.",
        )


def leads_without_vote(core: Core) -> bool:
    """Tell whether this site of two may lead though it wins no election.

    The other one has stopped, so what it had acknowledged is here. In a larger group a third site
    may hold more: there an election decides, or `promote`, which says what is lost.
    """
    if core.phase is not Phase.FOLLOWING or core.electing or len(core.members()) != 1:
        return False
    strict = core.settings.two_site_strict
    numbers = ballot(2, two_site_strict=strict, master_just_lost=False)
    return numbers.nvotes > 1 or not core.settings.elections


def _refused(why: str, hint: str) -> ReplicationError:
    return ReplicationError(f"switchover refused: {why}", code="switchover_refused", hint=hint)
