"""Which generation wrote what: decides whether a commit is still part of the log (pure).

Each new master notes at which LSN its generation begins, in a database that is replicated with all
the rest. So a site's own copy of it tells to which generation each place of its own log belongs:

    generation    3          4                   6
    log           |----------|-------------------|-------->
                  begins     begins              begins

A commit of generation 4 is in this log if its LSN lies between the beginnings of 4 and of 6. If it
lies behind the beginning of 6, the master of 6 did not have it when it took over, and it was, or
will be, rolled back wherever it was written.

A site that is opened with recovery writes records of its own (a checkpoint, files that were open)
behind what it got, and a commit that it never got may have had an LSN among those. So a master
looks once for the last commit before its beginning: nothing behind that, and before the beginning,
is part of the log.

Two masters in the same generation (both made master by hand while they were cut off from each
other) cannot be told apart by a generation and an LSN.

Source: API reference `DB_ENV->txn_applied`, which decides by the same records.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import NamedTuple

from replication.wire import LSN

_NUMBER_MAX = 0xFFFFFFFF
GENERATIONS_MAX = 1000  # nobody waits for a write that is older


class CommitToken(NamedTuple):
    """Names one commit of the group: the generation that wrote it and its LSN."""

    generation: int
    lsn: LSN

    def __str__(self) -> str:
        return f"{self.generation}:{self.lsn.file}:{self.lsn.offset}"

    @classmethod
    def parse(cls, text: str) -> CommitToken:
        """Read `generation:file:offset`.

        Raises:
            ValueError: it is anything else.
        """
        parts = text.split(":")
        # int() takes signs, blanks and underscores, which str(token) never has.
        if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
            raise ValueError("three numbers with colons between them are needed")
        generation, file, offset = map(int, parts)
        if max(generation, file, offset) > _NUMBER_MAX:
            raise ValueError(f"a number is above {_NUMBER_MAX}")
        return cls(generation, LSN(file, offset))


class Fate(Enum):
    """What became of a commit, as this site knows."""

    APPLIED = auto()  # it is here
    PENDING = auto()  # it is not here, or nobody can tell yet
    LOST = auto()  # a later generation began without it


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where a generation begins in the log.

    Args:
        kept: the last commit before it; None while only the beginning itself is known.
    """

    generation: int
    lsn: LSN
    kept: LSN | None = None

    def lacks(self, lsn: LSN) -> bool:
        """Tell whether a commit of an earlier generation was not there when it began."""
        return lsn >= self.lsn if self.kept is None else lsn > self.kept


class History:
    """The beginnings of all generations that are part of this site's log."""

    __slots__ = ("beginnings",)

    def __init__(self, beginnings: Iterable[Beginning] = ()) -> None:
        ordered = sorted(beginnings, key=lambda each: each.generation)
        self.beginnings = tuple(ordered[-GENERATIONS_MAX:])

    @property
    def latest(self) -> int:
        """The last generation it knows, 0 for none."""
        return self.beginnings[-1].generation if self.beginnings else 0

    def knowing(self, better: Beginning) -> History:
        """Return this history with more about one beginning."""
        return History(
            better if each.generation == better.generation else each for each in self.beginnings
        )

    def remembering(self, older: History) -> History:
        """Return this history with what an older one knew of the same beginnings."""
        known = {each.generation: each for each in older.beginnings}

        def remembered(each: Beginning) -> Beginning:
            before = known.get(each.generation)
            same = before is not None and before.lsn == each.lsn
            return replace(each, kept=before.kept) if before and same and not each.kept else each

        return History(map(remembered, self.beginnings))

    def fate(self, token: CommitToken, applied: LSN, reached: int) -> Fate:
        """Tell what became of a commit.

        Args:
            token: the commit.
            applied: the last permanent LSN here.
            reached: the generation in which that was applied: as long as it is not the last one,
                the end of the log here may be one that is rolled back.
        """
        own = self.beginning(token.generation)
        after = self.successor(token.generation)
        if own is None and after is None:
            # Generation 0 is what was written before there was a group: nobody rolls it back.
            alone = token.generation == 0 and token.lsn <= applied
            return Fate.APPLIED if alone else Fate.PENDING
        if after is not None and after.lacks(token.lsn):
            return Fate.LOST
        if own is None and self._begins_before(token.generation):
            return Fate.LOST  # the whole generation was
        if own is not None and token.lsn < own.lsn:
            return Fate.LOST  # nobody wrote that
        here = token.lsn <= applied and reached >= self.latest
        return Fate.APPLIED if here else Fate.PENDING

    def why_lost(self, token: CommitToken) -> str:
        """Say what was there instead of a commit whose fate is LOST."""
        after = self.successor(token.generation)
        if after is None or not after.lacks(token.lsn):
            return f"generation {token.generation} has no such write in the log here"
        return f"generation {after.generation} began without it, at {after.lsn}"

    def beginning(self, generation: int) -> Beginning | None:
        """Where a generation begins; None when it is not part of the log here."""
        return next((each for each in self.beginnings if each.generation == generation), None)

    def successor(self, generation: int) -> Beginning | None:
        """The first generation behind this one."""
        return next((each for each in self.beginnings if each.generation > generation), None)

    def _begins_before(self, generation: int) -> bool:
        """Whether it goes back further; it does not where the library's files were made anew."""
        return bool(self.beginnings) and self.beginnings[0].generation < generation
