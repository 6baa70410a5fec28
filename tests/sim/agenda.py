"""Simulated time: what is to be done when, one thing at a time, the same in every run."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable


class Entry:
    """One thing to be done; `cancel` takes it off."""

    __slots__ = ("call", "when_s")

    def __init__(self, when_s: float, call: Callable[[], None]) -> None:
        self.when_s = when_s
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None


class Agenda:
    """See the module's text. What is due at the same time is done in the order it was added."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self._heap: list[tuple[float, int, Entry]] = []
        self._numbers = itertools.count()

    def now(self) -> float:
        """Seconds since the simulation began."""
        return self._now_s

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Entry:
        """Have `call` done after a while."""
        return self.call_at(self._now_s + max(0.0, delay_s), call)

    def call_at(self, when_s: float, call: Callable[[], None]) -> Entry:
        """Have `call` done then."""
        entry = Entry(max(when_s, self._now_s), call)
        heapq.heappush(self._heap, (entry.when_s, next(self._numbers), entry))
        return entry

    def run_for(self, seconds: float, enough: Callable[[], bool] = lambda: False) -> None:
        """Do everything that is due in the next seconds, or until it is enough."""
        end_s = self._now_s + seconds
        while self._heap and self._heap[0][0] <= end_s:
            when_s, _, entry = heapq.heappop(self._heap)
            self._now_s = when_s
            if entry.call is not None:
                call, entry.call = entry.call, None
                call()
                if enough():
                    return
        self._now_s = end_s
