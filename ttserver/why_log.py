"""What is said of log files: whose log is about to go, or is gone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ttserver.summary import bytes_text
from ttserver.waits import Wait

if TYPE_CHECKING:
    from ttserver.log_keeping import LogKeeping


def log_waits(keeping: LogKeeping) -> Iterator[Wait]:
    """Say which sites need log that does not fit into the budget; for a master's eyes.

    A replicant's log may begin later than its master's, which says nothing.
    """
    verdict, budget = keeping.verdict, bytes_text(keeping.budget_bytes)
    for need in verdict.lost:
        yield Wait(
            "log",
            f"{need.site} will need a complete copy: {need.why}, and log files behind that were"
            " removed",
            "start that site and let it sync; a larger `[storage] log_budget` keeps log"
            " for longer.",
            subject=need.site,
            alarm_at_once=True,
        )
    gone = {need.site for need in verdict.lost}
    for short in verdict.short:
        need = short.need
        if need.site in gone:
            continue
        yield Wait(
            "log",
            f"{need.site} will need a complete copy after another {bytes_text(short.room_bytes)}"
            f" of log ([storage] log_budget is {budget}): {need.why}",
            "start that site soon, raise `[storage] log_budget`, or remove the site from the group:"
            f" `ttserver site remove {need.site}`.",
            subject=need.site,
            alarm_at_once=True,
        )
    if verdict.over_bytes:
        yield Wait(
            "log",
            f"the log files that recovery needs are {bytes_text(verdict.over_bytes)} over"
            f" [storage] log_budget ({budget})",
            "raise `[storage] log_budget`, or lower set_lg_max or `[storage] checkpoint_kbytes`.",
            quiet_s=2.0,  # until the next checkpoint
        )
