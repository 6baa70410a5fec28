"""Links to other sites: which of two stays, when to dial again (no I/O)."""

from collections.abc import Iterable

from replication import effects
from replication.bodies import SiteAddress
from replication.effects import Outbox
from replication.membership import keeps_outgoing
from replication.sites import DIAL_PAUSE_FIRST_S, LinkState, Sites, SiteState


class Connections:
    """Keeps the books of links and dials.

    Args:
        local: this site.
        retry_s: the longest pause between two dials of a site.
        sites: the other sites and their links.
        out: where effects go.
    """

    def __init__(self, local: SiteAddress, retry_s: float, sites: Sites, out: Outbox) -> None:
        self._local = local
        self._retry_s = retry_s
        self._sites = sites
        self._out = out

    def ready(
        self,
        now_s: float,
        number: int,
        address: SiteAddress,
        *,
        outgoing: bool,
        native: bool,
        electable: bool,
        subordinate: bool,
    ) -> LinkState:
        """A link finished its handshake."""
        state = self._sites.site(address)
        state.dialling = False
        state.electable, state.native, state.heard_s = electable, native, now_s
        state.last_error = ""
        link = LinkState(number, state, outgoing, native, subordinate, since_s=now_s, heard_s=now_s)
        self._sites.links[number] = link
        self._collide(state, link)
        state.links.append(link)
        self._out.note(
            "connection_established",
            site=address,
            direction="outgoing" if outgoing else "incoming",
            native=native,
            electable=electable,
        )
        return link

    def _collide(self, state: SiteState, new: LinkState) -> None:
        """Keep one link of two: a newer one of the same direction, else the lower site's."""
        if new.subordinate:
            return
        for old in [link for link in state.links if not link.subordinate]:
            if old.outgoing == new.outgoing:
                self._out.do(effects.CloseLink(old.number, "replaced by a newer connection"))
            elif not keeps_outgoing(self._local, state.address):
                ours = new if new.outgoing else old
                self._out.do(effects.CloseLink(ours.number, "both sites dialled; theirs stays"))

    def closed(self, now_s: float, number: int, reason: str) -> SiteState | None:
        """A link is gone; returns its site when that was the last one."""
        link = self._sites.links.pop(number, None)
        if link is None:
            return None
        state = link.site
        state.links.remove(link)
        state.last_error = reason
        if state.links:
            return None
        self._out.note("connection_lost", site=state.address, reason=reason)
        if now_s - link.since_s >= self._retry_s:
            state.dial_pause_s = DIAL_PAUSE_FIRST_S
        # A link that never lasts (a site that rejects this one) is not dialled in a tight circle.
        state.next_dial_s = max(state.next_dial_s, self._next_dial_s(now_s, state))
        return state

    def dial_failed(self, now_s: float, address: SiteAddress, reason: str) -> None:
        """A site could not be reached; the pause doubles up to the retry time."""
        state = self._sites.site(address)
        state.dialling = False
        if reason != state.last_error:
            self._out.note("connection_failed", site=address, reason=reason)
        state.last_error = reason
        state.next_dial_s = self._next_dial_s(now_s, state)

    def _next_dial_s(self, now_s: float, state: SiteState) -> float:
        pause_s = state.dial_pause_s
        state.dial_pause_s = min(2 * pause_s, self._retry_s)
        return now_s + pause_s

    def rejected(self, now_s: float, address: SiteAddress, version: int, generation: int) -> None:
        """A site does not take this one for a member."""
        state = self._sites.site(address)
        state.dialling = False
        state.last_error = "it does not take this site for a member"
        state.next_dial_s = now_s + self._retry_s
        self._out.note("connection_rejected", site=address, version=version, generation=generation)

    def dial_soon(self, now_s: float, addresses: Iterable[SiteAddress]) -> None:
        """Forget the pauses: these sites are wanted now."""
        for address in addresses:
            self._sites.site(address).next_dial_s = now_s

    def dial_due(self, now_s: float, members: Iterable[SiteAddress]) -> None:
        """Dial who is not connected and whose pause is over."""
        for address in members:
            state = self._sites.site(address)
            if state.links or state.dialling or now_s < state.next_dial_s:
                continue
            state.dialling = True
            self._out.do(effects.Dial(address))
