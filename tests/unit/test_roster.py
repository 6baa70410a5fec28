"""Up to where a majority of the group holds the log."""

from __future__ import annotations

from itertools import product

import pytest

from replication.acks import AckTable, SiteAck
from replication.roster import Roster
from replication.wire import LSN, LSN_MAX, LSN_ZERO


@pytest.mark.parametrize("others", range(7))
def test_every_other_majority_has_somebody_who_holds_it(others: int) -> None:
    """Compared with counting: this site, and those who hold that much, are more than half."""
    for reached in product((None, 1, 2), repeat=others):
        roster = Roster(AckTable(1))
        roster._sites = [
            SiteAck(eid, True, True, None if file is None else LSN(file, 0))
            for eid, file in enumerate(reached, 2)
        ]
        held = roster.held_by_majority()
        if not others:
            assert held == LSN_MAX
            continue
        for file in (1, 2):
            holders = 1 + sum(1 for each in reached if each is not None and each >= file)
            assert (held >= LSN(file, 0)) == (2 * holders > others + 1)
        assert held in (LSN_ZERO, LSN(1, 0), LSN(2, 0))
