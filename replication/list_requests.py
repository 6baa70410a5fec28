"""Requests to take a site into the group, or out of it: who has to serve them (no I/O).

Only the master changes the list. Whoever else is asked names the master, as a native site does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replication import bodies, effects
from replication.messages import OwnCode

if TYPE_CHECKING:
    from replication.bodies import SiteAddress
    from replication.core import Core
    from replication.effects import Outbox


class ListRequests:
    """See the module's text.

    Args:
        core: which this is a part of.
        out: where effects go.
    """

    def __init__(self, core: Core, out: Outbox) -> None:
        self._core = core
        self._out = out

    def join(self, request: int, address: SiteAddress) -> None:
        """A site asks to be taken in, or somebody asks for it."""
        if self._is_ours(request):
            self._core.group.join_asked(request, address)

    def remove(self, request: int, address: SiteAddress, *, forced: bool = False) -> None:
        """Somebody asks to take a site out.

        Args:
            forced: whether or not the other sites acknowledge it.
        """
        if self._is_ours(request):
            self._core.group.remove_asked(request, address, forced=forced)

    def _is_ours(self, request: int) -> bool:
        """Whether it is this site's to serve; else say whose it is, or that it must wait."""
        core = self._core
        if core.handover.busy:
            reason = "the master's role is being handed over; ask again"
            self._out.do(effects.Answer(request, OwnCode.GM_FAILURE, reason=reason))
            return False
        if core.is_master and core.membership is not None:
            return True
        if core.master is None or core.master_link is None:
            self._out.do(effects.Answer(request, OwnCode.GM_FAILURE, reason="no master is known"))
        else:
            body = bodies.encode_forward(core.master, core.generation)
            self._out.do(effects.Answer(request, OwnCode.GM_FORWARD, body))
        return False
