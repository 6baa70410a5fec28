"""What a client is told about the site it has connected to, when it takes no writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replication.phase import Phase

if TYPE_CHECKING:
    from ttserver.engine import Engine


def notice_of(engine: Engine) -> str | None:
    """Say in one sentence what this site is; None on one that takes writes, or is not open."""
    if engine.accepting or not engine.is_open:
        return None
    master = engine.master_client_address or engine.master
    if engine.role == "witness":
        return f"this site is a witness and holds no data; the master is {master or 'not known'}"
    if engine.role == "replicant" and master:
        return f"this site is a read-only replicant; the master is {master}"
    since = engine.stale_s()
    age = f"; its data is {since:.0f} s old" if since is not None and engine.serving else ""
    if engine.manager is not None and engine.manager.core.phase is Phase.REMOVED:
        return f"this site was removed from the group and is read-only{age}"
    return f"this site is read-only and has no master now{age}"
