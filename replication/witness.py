"""A witness: a site that votes and holds no data.

Its environment stays empty: internal initialisation is off, and what would bring log or pages is
dropped before the library sees it. So the library has no event for a new master here, and answers
every NEWMASTER with "cannot join"; who leads is read from its status instead (`Core.master_again`).
The site list, which other sites keep in a database, is in the file beside the environment.

It has priority 0, so it never wins; it counts in the majority that an election needs. No write
waits for it: it has nothing to acknowledge.

Source: Programmer's Reference, "Elections".
"""

from __future__ import annotations

from typing import Final

from replication.apply import Applier
from replication.messages import RepType
from replication.wire import REP_CONTROL_BYTES, Frame

# What elections are made of, and who leads.
HEEDED: Final = frozenset(
    {
        RepType.ALIVE,
        RepType.ALIVE_REQ,
        RepType.DUPMASTER,
        RepType.MASTER_REQ,
        RepType.NEWCLIENT,
        RepType.NEWMASTER,
        RepType.NEWSITE,
        RepType.VOTE1,
        RepType.VOTE2,
    }
)


class WitnessApplier(Applier):
    """An apply thread that takes what elections are made of and drops the rest."""

    dropped = 0

    def _take(self, eid: int, frame: Frame) -> None:
        control = frame[3]
        if len(control) >= REP_CONTROL_BYTES and control[19] not in HEEDED:
            self.dropped += 1
            return
        super()._take(eid, frame)
