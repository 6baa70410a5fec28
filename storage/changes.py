"""What the transaction under way changes, noted by whoever writes: the logical tail is made of it.

Whatever writes in the committer's transaction says so here, file, key and new value, right after
the library took it. What is not noted cannot be listed by name when it is undone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from storage.tail_records import Author, Change

Note: TypeAlias = Callable[[Change], None]


def no_note(_change: Change) -> None:
    """Keep no notes: for writes that no committer makes."""


class Changes:
    """The notes of one transaction. *Thread:* the one that commits.

    Attributes:
        items: the changes, in order.
        authors: of which write each is, see `storage.tail_records.Author`.
        note: adds a change: the file, the key, the new value or None when the key was removed.
    """

    __slots__ = ("authors", "items", "note")

    def __init__(self) -> None:
        self.items: list[Change] = []
        self.authors: list[Author] = []
        # The list's own method: it is called for each key that is written.
        self.note: Note = self.items.append

    def begin(self) -> None:
        """Forget the last transaction."""
        self.items.clear()
        self.authors.clear()

    def end_of_write(self, user: str, *, failed: bool) -> None:
        """What was noted since the last one belongs to this user's write, or never happened."""
        before = self.authors[-1][1] if self.authors else 0
        if failed:
            del self.items[before:]
        elif len(self.items) > before:
            self.authors.append((user, len(self.items)))
