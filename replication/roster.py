"""The other members as the ack policies see them, kept up to date for each acknowledgement."""

from __future__ import annotations

from replication.acks import AckTable, SiteAck, holds
from replication.core import Core
from replication.messages import SiteStatus
from replication.sites import SiteState
from replication.wire import LSN, LSN_MAX, LSN_ZERO


class Roster:
    """See the module's text.

    Args:
        table: what each site acknowledged.
    """

    def __init__(self, table: AckTable) -> None:
        self._table = table
        # Replaced as a whole or item by item: other threads may read it at any time.
        self._sites: list[SiteAck] = []

    def sites(self) -> list[SiteAck]:
        """The other members. *Thread:* any."""
        return self._sites

    def rebuild(self, core: Core) -> None:
        """Links, membership or the table changed."""
        members = core.membership
        if members is None:
            self._sites = []
            return
        with self._table.lock:
            self._sites = [
                SiteAck(
                    state.eid,
                    _electable(core, state),
                    state.link is not None,
                    self._table.acked(state.eid),
                    SiteStatus(member.status),
                    str(member.address),
                    member.address in core.memory.witnesses,
                )
                for member in members.others(core.settings.local)
                for state in [core.site(member.address)]
            ]

    def acked(self, eid: int, lsn: LSN) -> None:
        """A site got further. *Thread:* any that holds the table's lock."""
        for at, site in enumerate(self._sites):
            if site.eid == eid:
                # Not `replace`, which looks at every field by name: each ack comes by here.
                self._sites[at] = SiteAck(
                    eid, site.electable, site.connected, lsn, site.status, site.name, site.witness
                )

    def acked_by(self, lsn: LSN) -> list[str]:
        """Name the sites that acknowledged this LSN."""
        return [str(site) for site in self._sites if holds(site, lsn)]

    def acking(self) -> int:
        """How many members could acknowledge now."""
        return sum(1 for site in self._sites if site.connected and site.counts)

    def held_by_majority(self) -> LSN:
        """Up to where so many members hold the log that, with this site, they are a majority.

        A site that elects needs one of them, whoever they are. *Thread:* any.
        """
        if not any(site.is_copy for site in self._sites):
            return LSN_MAX  # nobody who could win
        held = sorted((site.acked or LSN_ZERO for site in self._sites), reverse=True)
        needed = (len(held) + 1) // 2
        return held[needed - 1] if needed else LSN_MAX


def _electable(core: Core, state: SiteState) -> bool | None:
    """Whether a site may become master: said by itself, else remembered, else unknown."""
    if state.link is not None or state.standing is not None:
        return state.electable
    priority = core.memory.priorities.get(state.address)
    return None if priority is None else priority > 0
