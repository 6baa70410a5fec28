"""Acknowledges what was applied: which links an ack goes to, and when all sites hear it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from replication import wire
from replication.held_log import HeldLog
from replication.link import Link
from replication.messages import AckPolicy
from replication.wire import LSN

_PEER_POLICIES = frozenset({AckPolicy.ALL_PEERS, AckPolicy.ONE_PEER, AckPolicy.QUORUM})


class Acknowledger:
    """Sends acks straight from the apply thread.

    Args:
        everybody: all ready links. *Thread:* any.
        held: nothing is acknowledged while a vote is out.
    """

    def __init__(self, everybody: Callable[[], Sequence[Link]], held: HeldLog) -> None:
        self._everybody = everybody
        self._held = held
        # Replaced as a whole, never changed: the apply thread reads it without a lock.
        self._links: tuple[Link, ...] = ()
        self._file = 0

    def route(self, links: Sequence[Link]) -> bool:
        """Send acks on these links from now on; True when they are others than before."""
        before, self._links = self._links, tuple(links)
        return bool(self._links) and self._links != before

    def send(self, generation: int, lsn: LSN) -> None:
        """Acknowledge everything up to `lsn`. *Thread:* any."""
        if self._held.holding:
            return  # said when log passes again
        frame = wire.encode_ack(generation, lsn)
        links: Sequence[Link] = self._links
        if lsn.file > self._file:
            # A new log file: every site learns it, for its own decision which logs may go.
            self._file = lsn.file
            links = [link for link in self._everybody() if link.released] or links
        for link in links:
            link.write(frame)


def wants_acks(master: Link, own_priority: int) -> bool:
    """Tell whether the master on this link counts this site's acks."""
    remote = master.peer.remote
    # A ttserver master gets all acks, whatever its policy: it counts who has what for retention,
    # for WAIT, and for single writes that ask for more.
    if remote is None or not remote.native:
        return True
    if remote.ack_policy == AckPolicy.NONE:
        return False
    return not (own_priority == 0 and remote.ack_policy in _PEER_POLICIES)
