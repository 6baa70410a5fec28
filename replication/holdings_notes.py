"""Takes down now and then what each site has of the log, from what was acknowledged."""

from __future__ import annotations

from collections.abc import Callable

from replication.acks import AckTable
from replication.apply import Applier
from replication.core import Core
from replication.wire import LSN


def note_holdings(
    core: Core,
    table: AckTable,
    applier: Applier,
    early_ack: Callable[[int], tuple[int, LSN] | None],
) -> None:
    """Take down where each site is; called in the event loop.

    Args:
        table: what was acknowledged to this master.
        early_ack: what a site acknowledged to every site, in another master's generation.
    """
    for state in core.sites.values():
        if core.is_master:
            lsn = table.acked(state.eid)
        elif state.address == core.master:
            # It wrote what is applied here.
            same = applier.applied_generation == core.generation
            lsn = applier.applied if same else None
        else:
            early = early_ack(state.eid)
            lsn = early[1] if early is not None and early[0] == core.generation else None
        if lsn is not None:
            core.holdings.acked(state.address, lsn)
