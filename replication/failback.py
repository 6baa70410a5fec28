"""The preferred master takes over again when it is back (no input or output).

Another site leads while the preferred one is away. Once that one is connected again it gets what
it missed, and the role is handed over to it: every write that the other took is kept.

Not when the operator moved the role away from the preferred site, for work on that machine: then
it stays where it is until that site was away and has come back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from replication.bodies import SiteAddress
    from replication.core import Core
    from replication.effects import Outbox

STEADY_S: Final = 2.0  # a machine that comes and goes must not drag the role along
CATCH_UP_S: Final = 30.0  # then it is tried again: a first sync may take hours
RETRY_FIRST_S: Final = 5.0
RETRY_MAX_S: Final = 60.0


class Failback:
    """See the module's text.

    Args:
        core: which this is a part of.
        preferred: who should lead; None for nobody in particular.
        out: where effects go.
    """

    def __init__(self, core: Core, preferred: SiteAddress | None, out: Outbox) -> None:
        self._core = core
        self.preferred = preferred
        self._out = out
        self._due_s: float | None = None
        self._retry_s = RETRY_FIRST_S

    def tick(self, now_s: float) -> None:
        """Hand over when the preferred site has been back for a while."""
        core, preferred = self._core, self.preferred
        if preferred is None or preferred == core.settings.local:
            return
        if not core.is_master or core.handover.took_from == preferred:
            self._due_s, self._retry_s = None, RETRY_FIRST_S
        elif core.handover.busy:
            self._due_s = now_s + self._retry_s  # after its end, should it fail
        elif core.handover.obstacle(preferred) is not None:
            self._due_s, self._retry_s = None, RETRY_FIRST_S
        elif self._due_s is None:
            self._due_s = now_s + STEADY_S
        elif now_s >= self._due_s:
            self._due_s = now_s + self._retry_s
            self._retry_s = min(2 * self._retry_s, RETRY_MAX_S)
            self._out.note("failback_due", to=preferred)
            core.handover.begin(now_s, preferred, CATCH_UP_S)
