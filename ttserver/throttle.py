"""Slow down whoever fails, by a table that cannot grow (sans-I/O).

After `free` failures each further attempt of the same key has to wait, twice as long each time up
to `delay_max_s`. Attempts at the same moment queue up one delay behind the other, so opening many
connections does not help; who would have to wait longer than `wait_max_s` is turned away. Someone
who tries one after the other always gets an answer, a late one.
"""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

DELAY_FIRST_S: Final = 0.25
DELAY_MAX_S: Final = 5.0
FORGET_AFTER_S: Final = 600.0
# Some 200 bytes each. An attacker with so many addresses could also just use them.
ENTRIES_MAX: Final = 10_000


@dataclass(slots=True)
class _Entry:
    failures: int = 0
    in_flight: int = 0
    failed_at_s: float = 0.0
    free_at_s: float = 0.0  # when the next attempt may start


class Throttle(Generic[K]):
    """Failures by key; the key failed or used longest ago is dropped when the table is full.

    Args:
        free: failures without any delay.
        delay_first_s: the delay after those, seconds.
        delay_max_s: where doubling ends, seconds.
        wait_max_s: longest wait that is still granted; at least `delay_max_s`.
        forget_after_s: a key without a failure for so long starts anew, seconds.
        entries_max: keys that are remembered.
    """

    def __init__(
        self,
        *,
        free: int,
        delay_first_s: float = DELAY_FIRST_S,
        delay_max_s: float = DELAY_MAX_S,
        wait_max_s: float = DELAY_MAX_S,
        forget_after_s: float = FORGET_AFTER_S,
        entries_max: int = ENTRIES_MAX,
    ) -> None:
        assert wait_max_s >= delay_max_s, "who tries one after the other must get an answer"
        self._free = free
        self._delay_first_s = delay_first_s
        self._delay_max_s = delay_max_s
        self._wait_max_s = wait_max_s
        self._forget_after_s = forget_after_s
        self._entries_max = entries_max
        self._entries: OrderedDict[K, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def reserve(self, key: K, now_s: float) -> float | None:
        """Ask when an attempt may start, and keep that place.

        Returns:
            Seconds to wait, mostly 0; None when too many wait already.
        """
        entry = self._known(key, now_s)
        if entry is None:
            return 0.0
        level = entry.failures + entry.in_flight
        if level < self._free:
            return 0.0
        start_s = max(now_s, entry.free_at_s)
        if start_s - now_s > self._wait_max_s:
            return None
        entry.free_at_s = start_s + self._delay_s(level)
        return start_s - now_s

    def started(self, key: K, now_s: float) -> None:
        """Count an attempt under way: it may fail, and the next must not start as if it had not."""
        self._entry(key, now_s).in_flight += 1

    def finished(self, key: K) -> None:
        """Take back what `started` counted."""
        entry = self._entries.get(key)
        if entry is not None and entry.in_flight:
            entry.in_flight -= 1
            self._drop_if_idle(key, entry)

    def failed(self, key: K, now_s: float) -> None:
        """Count a failure."""
        entry = self._entry(key, now_s)
        entry.failures += 1
        entry.failed_at_s = now_s
        if entry.failures >= self._free:
            entry.free_at_s = max(entry.free_at_s, now_s + self._delay_s(entry.failures))

    def forgive(self, key: K) -> None:
        """Forget the failures: the right password was given."""
        entry = self._entries.get(key)
        if entry is not None:
            entry.failures = 0
            entry.free_at_s = 0.0
            self._drop_if_idle(key, entry)

    def _drop_if_idle(self, key: K, entry: _Entry) -> None:
        if not entry.failures and not entry.in_flight:
            del self._entries[key]

    def _delay_s(self, level: int) -> float:
        doublings = min(level - self._free, 60)  # 2**60 is more than any maximum
        return min(self._delay_first_s * 2.0**doublings, self._delay_max_s)

    def _known(self, key: K, now_s: float) -> _Entry | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if not entry.in_flight and now_s - entry.failed_at_s > self._forget_after_s:
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return entry

    def _entry(self, key: K, now_s: float) -> _Entry:
        entry = self._known(key, now_s)
        if entry is None:
            entry = self._entries[key] = _Entry()
            if len(self._entries) > self._entries_max:
                self._entries.popitem(last=False)
        return entry
