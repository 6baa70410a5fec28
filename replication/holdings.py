"""What every other member's log reaches, connected or not (no input or output).

Log files are kept by it. It is written down beside the environment: a master that was started
again knows what a site holds that has not come back yet.

What a site acknowledged moves it on. What it says of itself when its link comes up may only move
it back: a site that comes back with more than the group has will lose that. And a new master's
own end of the log bounds what anybody can have of that log.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from replication.bodies import SiteAddress, Standing
from replication.messages import StandingFlag
from replication.remembered import Remembered
from replication.sites import Sites
from replication.wire import LSN


@dataclass(frozen=True, slots=True)
class LogNeed:
    """What another member may still need of the log.

    Args:
        site: which.
        file: the first log file; 0: all that there are, None: none of them.
        acked: up to where it has the log; None while that is not known.
        why: in words.
    """

    site: SiteAddress
    file: int | None
    acked: LSN | None
    why: str


class Holdings:
    """See the module's text.

    Args:
        remembered: where it is kept.
        sites: the other sites.
    """

    def __init__(self, remembered: Remembered, sites: Sites) -> None:
        self._remembered = remembered
        self._sites = sites
        # Sites that may be taking a copy: the file it begins with, what they had acknowledged.
        self._copies: dict[SiteAddress, tuple[int, LSN | None]] = {}
        self._empty: set[SiteAddress] = set()
        self._end: LSN | None = None

    def acked(self, site: SiteAddress, lsn: LSN) -> None:
        """A site holds the log up to here."""
        known = self._remembered.memory.acked.get(site)
        self._empty.discard(site)
        copy = self._copies.get(site)
        if copy is not None and copy[1] != lsn:
            del self._copies[site]
        if lsn != known:
            self._remembered.acked(site, lsn)

    def stood(self, site: SiteAddress, standing: Standing) -> None:
        """A ttserver site said what it holds."""
        if standing.flags & StandingFlag.EMPTY:
            self._empty.add(site)
            self._remembered.acked(site, None)
            return
        self._empty.discard(site)
        known = self._remembered.memory.acked.get(site)
        bounds = [lsn for lsn in (standing.last_lsn, known, self._end) if lsn is not None]
        self._remembered.acked(site, min(bounds))

    def copy_offered(self, first_file: int) -> None:
        """Somebody asked for a copy of the database: its log begins with this file.

        Who it was is not said, so it may be any site that is connected; what it acknowledges next
        tells.
        """
        for state in self._sites.values():
            if state.link is not None and state.address not in self._copies:
                known = self._remembered.memory.acked.get(state.address)
                self._copies[state.address] = (first_file, known)

    def became_master(self, end: LSN) -> None:
        """From `end` on the log is this site's own."""
        self._end = end
        for site, lsn in self._remembered.memory.acked.items():
            if lsn > end:
                self._remembered.acked(site, end)

    def needs(self, members: Iterable[SiteAddress]) -> tuple[LogNeed, ...]:
        """Say what each other member may still need; a site can be there twice."""
        return tuple(need for site in members for need in self._needs(site))

    def _needs(self, site: SiteAddress) -> Iterator[LogNeed]:
        if site in self._remembered.memory.witnesses:
            return  # it never takes any
        state = self._sites.get(site)
        away = "" if state is not None and state.link is not None else ", not connected"
        acked = self._remembered.memory.acked.get(site)
        copy = None if away else self._copies.get(site)
        if copy is not None:
            yield LogNeed(site, copy[0], acked, f"{site} may be taking a copy, which needs it")
        if acked is not None:
            # Also beside a copy: another site may be the one that takes it.
            yield LogNeed(site, acked.file, acked, f"{site} has the log up to {acked}{away}")
        elif copy is None and site in self._empty:
            yield LogNeed(site, None, None, f"{site} has no data, so it takes a complete copy")
        elif copy is None:
            yield LogNeed(site, 0, None, f"nothing is known of what {site} has{away}")
