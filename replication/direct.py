"""Links that the apply thread reads itself, so that a record needs no change of thread.

The loop lends a link that is between two frames. The apply thread then sleeps on the lent sockets
and on its own queue at once. What it reads and can use are whole replication messages; with the
first byte of anything else the link goes back to the loop, which knows the protocol, and is lent
again when that is done. The loop may take a link back at any time. Either one reads it or the
other, under the link's lock, so nothing of its state is shared.

The order of a link's messages is kept: it is lent when all it brought is in the queue, and read
here only when the queue is empty; what the loop reads after it came back is queued behind what
this thread is busy with.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Callable
from typing import Final

from replication.link import Link
from replication.wire import Frame, Limits, rep_messages

_LIMITS: Final = Limits()


class DirectReader:
    """See the module's text. All is called by the thread that waits, but `ring`.

    Args:
        has_work: there is something in the queue.
    """

    def __init__(self, has_work: Callable[[], bool]) -> None:
        self._has_work = has_work
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._sleeping = False
        self._links: list[Link] = []
        self._poll: select.poll | None = None

    @property
    def any_lent(self) -> bool:
        """Whether `wait` has to be used to learn of everything."""
        if self._poll is not None and not all(link.is_lent(self) for link in self._links):
            self._links = [link for link in self._links if link.is_lent(self)]
            self._poll = None
        return bool(self._links)

    def add(self, link: Link) -> None:
        """Read a lent link from now on."""
        if link not in self._links:
            self._links.append(link)
        self._poll = None

    def ring(self) -> None:
        """There is something in the queue, or a link was taken back. *Thread:* any."""
        # Here the queue is filled before this is looked at; there it is set before the queue is
        # looked at: either the thread sees what is in it, or it is woken.
        if self._sleeping:
            with contextlib.suppress(OSError):
                os.eventfd_write(self._bell, 1)

    def wait(self, timeout_s: float | None) -> tuple[int, list[Frame]] | None:
        """Sleep until there is something in the queue, or a link brings something.

        Returns:
            The EID of a link and messages of its site; None: look into the queue.
        """
        poll = self._poll if self._poll is not None else self._make_poll()
        self._sleeping = True
        try:
            if self._has_work():
                return None
            ready = poll.poll(None if timeout_s is None else timeout_s * 1000)
        finally:
            self._sleeping = False
        for fileno, _events in ready:
            if fileno == self._bell:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._bell)
                return None
        for link in self._links:
            frames = link.read_borrowed(self, _cut)
            if frames:
                return link.eid, frames
        return None

    def close(self) -> None:
        """Nobody waits here any more."""
        os.close(self._bell)
        self._bell = -1

    def _make_poll(self) -> select.poll:
        self._poll = poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        for link in self._links:
            if (fileno := link.fileno) >= 0:
                poll.register(fileno, select.POLLIN)
        return poll


def _cut(data: bytes) -> tuple[list[Frame], int]:
    return rep_messages(data, _LIMITS)
