"""When each site was heard last: any byte on one of its links is a sign of life."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from replication.core import Core
from replication.link import Link

LATE_S: Final = 0.5  # the process stood still for so long: what came meanwhile is not read yet


class SignsOfLife:
    """See the module's text. To be called at every tick of the clock, in the event loop.

    Args:
        core: whose sites they are.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._heartbeats = core.settings.heartbeat_send_s > 0
        self._looked_s: float | None = None
        self._was_late = True

    def look(self, now_s: float, links: Iterable[Link]) -> None:
        """See on which links something came since the last time."""
        late = self._looked_s is not None and now_s - self._looked_s > LATE_S
        # After a standstill the sockets hold bytes of before: they may be read only now.
        in_time = not late and not self._was_late
        self._looked_s, self._was_late = now_s, late
        for link in links:
            state = self._core.sites.links.get(link.number)
            if state is None:
                continue
            came = link.bytes_in != state.bytes_in
            # While nothing is read, silence means nothing.
            if late or came or link.is_paused:
                state.bytes_in, state.heard_s = link.bytes_in, now_s
                state.site.heard_s = now_s
                if state is self._core.master_link:
                    self._core.heartbeats.master_heard_s = now_s
            if in_time and (came or link.is_paused):
                state.site.contact_s = now_s
            elif state.native and self._core.is_master:
                state.site.contact_s = max(state.site.contact_s, self._native_s(now_s, link))

    def _native_s(self, now_s: float, link: Link) -> float:
        """When a native site, which answers no rounds, can be said to have been in reach."""
        if not self._heartbeats:
            return now_s  # nothing goes out that its host would confirm
        return now_s - link.confirmed_ago_s()
