"""Stopping the apply thread at an LSN: when it is there, and when it is too late (no I/O)."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from replication.wire import LSN


@dataclass(frozen=True, slots=True)
class Pause:
    """Stop when everything up to `lsn` of a generation is applied, and nothing behind it.

    Args:
        call: called on the apply thread, which does nothing else until it returns: with True
            there, with False when it is too late or another pause came first.
    """

    generation: int
    lsn: LSN
    call: Callable[[bool], None]


class Pauses:
    """Those that were asked for, in their order; one is waited for at a time."""

    def __init__(self) -> None:
        self.waits = False  # read after every permanent record: no call while there is none
        self._asked: deque[Pause] = deque()
        self._next: Pause | None = None

    def ask(self, pause: Pause) -> None:
        """Ask for one; `begin` follows on the apply thread. *Thread:* any."""
        self._asked.append(pause)

    def begin(self) -> Callable[[], None] | None:
        """Take the next one up; returns what becomes of one that still waited. *Thread:* apply."""
        left = self._next
        self._next = self._asked.popleft()
        self.waits = True
        return None if left is None else lambda: left.call(False)

    def reached(self, generation: int, lsn: LSN) -> Callable[[], None] | None:
        """This thread has applied everything up to here; returns what is to be done now."""
        pause = self._next
        if pause is None or (generation, lsn) < (pause.generation, pause.lsn):
            return None
        self._next = None
        self.waits = False
        there = (generation, lsn) == (pause.generation, pause.lsn)
        return lambda: pause.call(there)
