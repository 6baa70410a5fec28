"""A master tells the others where the generations of its log begin."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from replication import bodies, wire
from replication.generations import History
from replication.link import Link
from replication.messages import OwnCode


class Beginnings:
    """Tells each ttserver site once on each of its links.

    Args:
        links: all ready links.
    """

    def __init__(self, links: Callable[[], Sequence[Link]]) -> None:
        self._links = links
        self._frame = b""
        self._told: set[int] = set()

    def begin(self, history: History) -> None:
        """This site is master, and this is its history."""
        body = bodies.encode_generations(history.beginnings)
        self._frame = wire.encode_own(OwnCode.GENERATIONS, body)
        self._told.clear()
        self.tell()

    def tell(self) -> None:
        """Tell those that were not told; called while this site is master."""
        if not self._frame:
            return
        links = self._links()
        self._told &= {link.number for link in links}
        for link in links:
            remote = link.peer.remote
            if link.released and remote and not remote.native and link.number not in self._told:
                self._told.add(link.number)
                link.write(self._frame)
