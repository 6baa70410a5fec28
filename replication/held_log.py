"""The log that waits while this site's vote is out: `replication.hold` between the threads.

    event loop       begin, over, expire, master   ------+
    election thread  voted (the send callback)     ------+-- Hold (state machine)
    apply thread     drained, keep, reopen         ------+

Whoever changes the state sets `holding`; only the apply thread clears it, when it takes up what was
kept, so that log stays in its order and nothing is acknowledged before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Final

from replication.hold import Hold, State
from replication.messages import RepType
from replication.wire import Frame

# What is or ends up as log or pages. All else (votes, ALIVE, NEWMASTER, VERIFY, requests) passes.
LOG_AND_PAGES: Final = frozenset(
    {
        RepType.LOG,
        RepType.LOG_MORE,
        RepType.BULK_LOG,
        RepType.NEWFILE,
        RepType.PAGE,
        RepType.PAGE_MORE,
        RepType.PAGE_FAIL,
        RepType.BULK_PAGE,
    }
)

Kept = tuple[int, Frame]


class HeldLog:
    """See the module's text.

    Args:
        bytes_max: so much is kept; what comes on top is dropped and asked for again. Not reading
            the links instead would keep the news of a master away.

    Attributes:
        holding: keep log, acknowledge nothing. Read without the lock by the apply thread.
        wake: makes the apply thread call `drained` and `reopen`; the applier sets it.
        vote: number of the election that this site voted in last since its start, 0 for none.
        kept, dropped: messages since log was held, or when it was held last.
    """

    def __init__(self, bytes_max: int) -> None:
        self.holding = False
        self.wake: Callable[[], None] = lambda: None
        self.kept = 0
        self.dropped = 0
        self.vote = 0
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._hold = Hold()
        self._frames: list[Kept] = []
        self._bytes = 0
        self._drained: Future[None] | None = None

    @property
    def state(self) -> State:
        """Where the machine stands. *Thread:* any."""
        return self._hold.state

    @property
    def draining(self) -> bool:
        """What was received before the election has to be applied. *Thread:* any."""
        return self._hold.state is State.DRAINING

    # -- the event loop, and the threads of elections -------------------------------------------

    def remember(self, vote: int, until_s: float) -> None:
        """At the start: a vote of before may still be counted until then."""
        with self._lock:
            self._hold.remember(vote, until_s)
            self._changed()

    def begin(self) -> Future[None]:
        """An election is to be held; done when the log is held and all before it was applied."""
        done: Future[None] = Future()
        with self._lock:
            self._hold.begin()
            self._changed()
            if self._hold.holding:
                done.set_result(None)
            else:
                self._drained = done
        if not done.done():
            self.wake()
        return done

    def voted(self, generation: int) -> None:
        """A vote leaves this site. *Thread:* that of elections, the library on its stack."""
        with self._lock:
            self.vote = generation
            self._hold.voted(generation)
            self._changed()

    def master(self, generation: int) -> None:
        """A master is followed, or this site is master. *Thread:* any."""
        with self._lock:
            self._hold.master(generation)
        self._wake_if_open()

    def over(self, now_s: float, counted_s: float) -> None:
        """The election call returned, or was never made; see `Hold.over`."""
        with self._lock:
            self._hold.over(now_s, counted_s)
            self._drained = None
        self._wake_if_open()

    def expire(self, now_s: float) -> None:
        """The clock."""
        if self._hold.state is State.WAITING:
            with self._lock:
                self._hold.expire(now_s)
            self._wake_if_open()

    def _wake_if_open(self) -> None:
        if self.holding and not self._hold.holding:
            self.wake()

    def _changed(self) -> None:
        if self._hold.holding and not self.holding:
            self.kept = self.dropped = 0
            self.holding = True

    # -- the apply thread ----------------------------------------------------------------------

    def drained(self) -> None:
        """Hold the log from here on. Also called when waiting for the apply thread was too long.

        *Thread:* any.
        """
        with self._lock:
            if self._hold.state is not State.DRAINING:
                return
            self._hold.drained()
            self._changed()
            done, self._drained = self._drained, None
        if done is not None:
            done.set_result(None)

    def keep(self, eid: int, frame: Frame) -> None:
        """Put a message aside until `reopen`. *Thread:* apply."""
        size = len(frame.control) + len(frame.rec)
        if self._bytes + size > self._bytes_max:
            self.dropped += 1
            return
        self._bytes += size
        self.kept += 1
        self._frames.append((eid, frame))

    def reopen(self) -> Sequence[Kept] | None:
        """Give what was kept if log may pass again; None while, or when, nothing was held.

        *Thread:* apply.
        """
        with self._lock:
            if not self.holding or self._hold.holding:
                return None
            self.holding = False
        frames, self._frames, self._bytes = self._frames, [], 0
        return frames
