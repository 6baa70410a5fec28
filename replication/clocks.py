"""The wall clocks of the sites, compared: each ttserver site tells the others what it reads.

Replication does not depend on equal clocks; people do, who read journals of several sites side by
side, and times in records that one master wrote and another reads. A message that waited makes the
other clock look late, never early; so the least late of the last few counts.
"""

from __future__ import annotations

import struct
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from replication import wire
from replication.bodies import SiteAddress
from replication.errors import RemoteProtocolError
from replication.hub import Hub
from replication.link import Link
from replication.messages import OwnCode
from replication.sites import Sites

TELL_EVERY_S: Final = 10.0
KEPT: Final = 6  # one minute of messages
LEAST: Final = 2  # one alone may have waited for long
_BODY: Final = struct.Struct(">Q")  # microseconds since 1970


class Skews:
    """How far the clocks of others are ahead of this one's (no input or output)."""

    def __init__(self) -> None:
        self._heard: dict[SiteAddress, deque[float]] = {}

    def heard(self, site: SiteAddress, ahead_s: float) -> None:
        """A site told its time; it was so far ahead when that came, less the way of the message."""
        self._heard.setdefault(site, deque(maxlen=KEPT)).append(ahead_s)

    def forget(self, site: SiteAddress) -> None:
        """A site is not heard any more."""
        self._heard.pop(site, None)

    def ahead_s(self, site: SiteAddress) -> float | None:
        """Seconds its clock is ahead of this one's, negative: behind; None while unknown."""
        heard = self._heard.get(site, ())
        return max(heard) if len(heard) >= LEAST else None


class Clocks:
    """Tells the others this site's time, and hears theirs. In the event loop.

    Args:
        hub: the links.
        sites: whose link is whose.
        wall: seconds since 1970.
    """

    def __init__(self, hub: Hub, sites: Sites, *, wall: Callable[[], float] = time.time) -> None:
        self.skews = Skews()
        self._hub = hub
        self._sites = sites
        self._wall = wall
        self._told: dict[int, float] = {}  # by link

    def tick(self, now_s: float) -> None:
        """Tell the time where it was not told for a while; a new link hears it at once."""
        links = {link.number: link for link in self._hub.links() if _understands(link)}
        self._told = {number: s for number, s in self._told.items() if number in links}
        for number, link in links.items():
            if now_s - self._told.get(number, -TELL_EVERY_S) >= TELL_EVERY_S:
                self._told[number] = now_s
                body = _BODY.pack(max(0, int(self._wall() * 1e6)))
                link.write(wire.encode_own(OwnCode.SITE_CLOCK, body))
        for state in self._sites.values():
            if state.link is None:
                self.skews.forget(state.address)

    def hears(self) -> dict[int, Callable[[Link, int, bytes], None]]:
        """Say which messages come here."""
        return {OwnCode.SITE_CLOCK: self.heard}

    def heard(self, link: Link, _code: int, body: bytes) -> None:
        """A site told its time; what makes no sense closes its link."""
        state = self._sites.links.get(link.number)
        try:
            theirs_s = decode(body)
        except RemoteProtocolError as error:
            link.close(str(error))
            return
        if state is not None:
            self.skews.heard(state.site.address, theirs_s - self._wall())


def decode(body: bytes) -> float:
    """Read the body of SITE_CLOCK: seconds since 1970.

    Raises:
        RemoteProtocolError: it is none.
    """
    if len(body) < _BODY.size:
        raise RemoteProtocolError(
            f"SITE_CLOCK message refused: {len(body)} bytes, it needs {_BODY.size} bytes",
            code="malformed_body",
            hint="run the same version of ttserver on all sites",
            bytes=len(body),
        )
    micros: int = _BODY.unpack_from(body)[0]
    return micros / 1e6


def _understands(link: Link) -> bool:
    remote = link.peer.remote
    return link.released and remote is not None and not remote.native and not remote.subordinate
