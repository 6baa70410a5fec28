"""Whether what was read may be answered: is it too old, or may another site know better."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ttserver import refused

if TYPE_CHECKING:
    from ttserver.engine import Engine


def is_limited(engine: Engine) -> bool:
    """Tell whether the operator set a limit at all; it does not change while the server runs."""
    settings = engine.config.settings
    return bool(settings.client.max_stale_s or settings.replication.lease_s)


def check(engine: Engine) -> None:
    """To be called after a read: only then it is certain that it read in time.

    Raises:
        Refused: `client.max_stale_s` on a replicant, `replication.lease_s` on a master.
    """
    settings = engine.config.settings
    limit_s = settings.client.max_stale_s
    if limit_s:
        stale_s = engine.stale_s()
        if stale_s is None or stale_s > limit_s:
            raise refused.too_old(stale_s, limit_s)
    manager = engine.manager
    lease_s = settings.replication.lease_s
    if not lease_s or manager is None or not manager.core.is_master:
        return
    # Not the loop's time: a process that was stopped must see how long at once.
    if time.monotonic() > manager.core.rounds.contact.fresh_until_s:
        raise refused.not_fresh(lease_s)
