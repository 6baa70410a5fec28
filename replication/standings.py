"""What other ttserver sites say they hold, and what follows from it (no input or output)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replication import coldstart, effects
from replication.messages import StandingFlag

if TYPE_CHECKING:
    from replication.bodies import Standing
    from replication.core import Core
    from replication.effects import Outbox
    from replication.remembered import Remembered
    from replication.sites import LinkState, SiteState


class Standings:
    """See the module's text.

    Args:
        core: which this is a part of.
        remembered: what outlives the environment.
        out: where effects go.
    """

    def __init__(self, core: Core, remembered: Remembered, out: Outbox) -> None:
        self._core = core
        self._remembered = remembered
        self._out = out

    def heard(self, state: SiteState, standing: Standing) -> None:
        """A site said what it holds, asked or on its link."""
        state.standing = standing
        self._core.holdings.stood(state.address, standing)
        state.electable = standing.priority > 0
        self._remembered.witness(state.address, bool(standing.flags & StandingFlag.WITNESS))
        self._remembered.priority(state.address, standing.priority)
        self._remembered.generation(standing.generation)

    def of_link(self, now_s: float, link: LinkState, standing: Standing) -> bool:
        """A site said it on a link of its own.

        Returns:
            False when the site is a master that must not be followed; its link is closed.
        """
        core, site = self._core, link.site.address
        self.heard(link.site, standing)
        newer_known = core.master_link not in (None, link) and core.generation > standing.generation
        if standing.flags & StandingFlag.MASTER and not core.is_master and not newer_known:
            refusal = coldstart.refusal(core.own_now(), site, standing)
            if refusal is not None:
                self._out.note("master_refused", site=site, why=refusal.why)
                self._out.do(effects.CloseLink(link.number, refusal.why))
                core.wait(now_s, refusal.why, refusal.hint)
                return False
            if standing.group_id:
                self._remembered.group(standing.group_id)
        elif site == core.master and standing.generation >= core.generation:
            # It came back before its old link was missed. In an older generation it would only
            # not have heard yet that its library made it master.
            core.master_gone(now_s, site, "it is master no longer")
        return True
