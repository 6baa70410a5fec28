"""What writers were told, and whether a database agrees with it (no input or output).

An answer is OK, a refusal, or no answer at all: then the write may have happened or not. The
writers of a ledger take turns on no key: each key has one writer, which waits for each answer.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Value = bytes | None  # None: the key is not there


@dataclass(slots=True)
class _Entry:
    sure: Value = None
    maybe: list[Value] = field(default_factory=list)


class Ledger:
    """The keys of one writer.

    Args:
        name: keys begin with it, so that two writers share none.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.acknowledged = 0
        self.uncertain = 0
        self._entries: dict[bytes, _Entry] = {}
        self._pairs: set[tuple[bytes, bytes]] = set()

    def attempt(self, changes: Mapping[bytes, Value]) -> None:
        """Note what is about to be written, before it is sent."""
        for key, value in changes.items():
            self._entries.setdefault(key, _Entry()).maybe.append(value)
        if len(changes) == 2:
            first, second = changes
            self._pairs.add((first, second))

    def ok(self, changes: Mapping[bytes, Value]) -> None:
        """The last attempt was answered OK."""
        self.acknowledged += 1
        for key, value in changes.items():
            self._entries[key] = _Entry(value)

    def refused(self, changes: Mapping[bytes, Value]) -> None:
        """The last attempt was refused before anything was written."""
        for key in changes:
            self._entries[key].maybe.pop()

    def unknown(self) -> None:
        """The last attempt has no answer, or one that leaves it open: it stays a maybe."""
        self.uncertain += 1

    def disagreements(self, contents: Mapping[bytes, bytes]) -> Iterable[str]:
        """Say what a database has otherwise than it was told.

        Args:
            contents: everything the database holds.
        """
        for key, entry in self._entries.items():
            found = contents.get(key)
            if found != entry.sure and found not in entry.maybe:
                yield f"{key!r} is {found!r}; acknowledged was {entry.sure!r}"
        for first, second in self._pairs:
            if contents.get(first) != contents.get(second):
                yield f"{first!r} and {second!r} were written together and differ"
