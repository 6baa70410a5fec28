"""A handover as the operator asks for it: to whom, and how it went."""

from __future__ import annotations

import asyncio
from typing import Final

from replication.bodies import SiteAddress
from replication.core import Core
from replication.errors import ReplicationError
from replication.handover import Ended
from replication.handover_work import HandoverWork
from replication.performer import Performer

CATCH_UP_S: Final = 30.0  # writes go on meanwhile


class Switchover:
    """See the module's text. Everything runs in the event loop.

    Args:
        core: whom to ask.
        work: tells how it ended.
        performer: does what the core decides.
    """

    def __init__(self, core: Core, work: HandoverWork, performer: Performer) -> None:
        self._core = core
        self._work = work
        self._performer = performer

    def target(self, wanted: SiteAddress | None) -> SiteAddress:
        """Return who would take over.

        Args:
            wanted: by its replication address, or the one where it serves clients; None for the
                site with the highest priority.

        Raises:
            ReplicationError: it cannot, or nobody can.
        """
        handover = self._core.handover
        if wanted is None:
            found = handover.candidates()
            if found:
                return found[0].address
            reasons = [
                handover.obstacle(site.address) or "" for site in self._core.sites.values()
            ] or [handover.obstacle(self._core.settings.local) or "no other site is known"]
            raise _refused("; ".join(dict.fromkeys(reasons)))
        site = next(
            (
                state.address
                for state in self._core.sites.values()
                if state.standing is not None and state.standing.clients == wanted
            ),
            wanted,
        )
        reason = handover.obstacle(site)
        if reason is not None:
            raise _refused(reason)
        return site

    def begin(self, target: SiteAddress, timeout_s: float) -> asyncio.Future[Ended]:
        """Begin to hand over; see `outcome` for what comes of it.

        Args:
            target: see `target`.
            timeout_s: how long it may take to be nearly in step; writes go on meanwhile.

        Raises:
            ReplicationError: it cannot begin.
        """
        now_s = asyncio.get_running_loop().time()
        reason = self._core.handover.begin(now_s, target, timeout_s)
        if reason is not None:
            raise _refused(reason)
        ended = self._work.ended()
        self._performer.run()
        return ended

    def outcome(self, ended: Ended) -> Ended:
        """Return how it went.

        Raises:
            ReplicationError: this site goes on as master, or an election decides; it says which.
        """
        if ended.reason:
            raise ReplicationError(
                f"{ended.target} did not become master: {ended.reason}",
                code="switchover_failed",
                hint="see $DB_Msg.txt on both sites, and `ttserver sites`.",
            )
        return ended

    async def run(self, target: SiteAddress, timeout_s: float = CATCH_UP_S) -> Ended:
        """`begin`, awaited. *Cancellation:* the handover goes on."""
        return self.outcome(await asyncio.shield(self.begin(target, timeout_s)))


def _refused(reason: str) -> ReplicationError:
    return ReplicationError(
        f"switchover refused: {reason}",
        code="switchover_refused",
        hint="see `ttserver sites` for who is connected and may become master.",
    )
