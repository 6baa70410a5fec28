"""Acknowledgements read by the thread that waits for one, so that they need no change of thread.

A thread that committed a write here borrows the links that carry the log, sleeps on their sockets
and takes what is nothing but acknowledgements. Anything else goes to the loop, and the link with
it. One thread reads at a time; the others sleep until the loop, or that one, wakes them.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import weakref
from collections.abc import Callable, Sequence

from replication.link import Link
from replication.wire import LSN

Ack = tuple[int, LSN]


class AckReader:
    """See the module's text. *Thread:* any.

    Args:
        links: those that carry the log now.
        on_ack: told (EID, generation, LSN).
    """

    def __init__(
        self, links: Callable[[], Sequence[Link]], on_ack: Callable[[int, int, LSN], None]
    ) -> None:
        self._links = links
        self._on_ack = on_ack
        self._turn = threading.Lock()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        weakref.finalize(self, os.close, self._bell)
        self._sleeping = False
        self._polled: dict[int, Link] = {}
        self._poll = select.poll()

    def read_until(self, done: Callable[[], bool]) -> None:
        """Read acknowledgements until this is done; return at once if somebody else does so.

        It also returns when no link is left to be read here. Whoever makes `done` true elsewhere
        calls `ring`.
        """
        if not self._turn.acquire(blocking=False):
            return
        links = [link for link in self._links() if link.released and link.borrow(self)]
        try:
            while links and not done():
                self._wait(links, done)
                links = [link for link in links if link.is_lent(self)]
        finally:
            for link in links:
                link.take_back(self)
            self._turn.release()

    def ring(self) -> None:
        """Something is done: whoever reads looks whether it was what it waits for."""
        if self._sleeping:
            os.eventfd_write(self._bell, 1)

    def _wait(self, links: list[Link], done: Callable[[], bool]) -> None:
        if links != list(self._polled.values()):
            self._watch(links)
        # There `done` is made true before this is looked at, here it is the other way round.
        self._sleeping = True
        try:
            if done():
                return
            ready = self._poll.poll()
        finally:
            self._sleeping = False
        for fileno, _events in ready:
            if fileno == self._bell:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._bell)
                continue
            link = self._polled[fileno]
            ack = link.read_borrowed(self, _acks_of(link))
            if ack is not None:
                self._on_ack(link.eid, *ack)

    def _watch(self, links: list[Link]) -> None:
        self._poll = select.poll()
        self._poll.register(self._bell, select.POLLIN)
        # A link that was closed meanwhile is found to be lent no longer before anybody sleeps.
        self._polled = {link.fileno: link for link in links if link.fileno >= 0}
        for fileno in self._polled:
            self._poll.register(fileno, select.POLLIN)


def _acks_of(link: Link) -> Callable[[bytes], tuple[Ack | None, int]]:
    def cut(data: bytes) -> tuple[Ack | None, int]:
        ack = link.peer.receive_acks(data) if data else None
        return ack, 0 if ack is None else len(data)

    return cut
