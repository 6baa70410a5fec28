"""The last changes of role and elections of this site, read from its journal.

The journal is what they are kept in: at a start they are read back from its files, later each line
is taken as it is written. So there is one truth, it outlives the process, and rows and journal
always say the same. A few dozen rows are kept; the journal has the rest.

    journal line -> row   time, event, role, and of the facts: generation, master, LSN, priority,
                          nsites, nvotes, votes, why

*Thread:* `add` may be called by any; the rows are replaced as a whole.
"""

import re
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from replication.journal_line import EVENTS, Line, parse_line

ROWS_MAX: Final = 64
# A quiet site's last elections lie far back; a bound all the same, since a start waits for it.
READ_BACK_BYTES_MAX: Final = 8 * 1024 * 1024
_BLOCK_BYTES: Final = 256 * 1024
# What a site waits for in between is no change; the journal tells it.
_LEFT_OUT: Final = frozenset({"waiting", "log_released"})
HISTORY_EVENTS: Final = frozenset(
    name
    for name, event in EVENTS.items()
    if event.group in {"election", "role"} and name not in _LEFT_OUT
)
_WANTED: Final = re.compile(
    b" (?:" + b"|".join(sorted(name.encode() for name in HISTORY_EVENTS)) + rb")(?: |\n|$)"
)
_WHY: Final = ("why", "reason", "outcome", "decision", "hint")
_SELF_MASTER: Final = frozenset({"became_master", "election_won", "promoted"})


class HistoryRow(msgspec.Struct, frozen=True):
    """One change of role, or one step of an election; what a line does not say is None.

    Args:
        time: as the journal writes it, UTC.
        event: the journal's word.
        role: what the site was when it was written.
        lsn: where this site's log stood.
        votes: those that came, this site's own included, where it counted them.
        why: the reason or the outcome, one phrase.
    """

    time: str
    event: str
    role: str
    generation: int | None = None
    master: str | None = None
    lsn: tuple[int, int] | None = None
    priority: int | None = None
    nsites: int | None = None
    nvotes: int | None = None
    votes: int | None = None
    why: str | None = None


def row_of(line: Line) -> HistoryRow | None:
    """Make a row of a journal line; None for one that tells of no role."""
    if line.event not in HISTORY_EVENTS:
        return None
    facts = {name: text for name, text in line.facts.items() if text != "-"}
    master = facts.get("master", facts.get("to"))
    if master is None and line.event in _SELF_MASTER:
        master = line.site
    generation = facts.get("generation", facts.get("generation_above"))
    return HistoryRow(
        line.time,
        line.event,
        line.role,
        generation=_number(generation),
        master=master,
        lsn=_lsn(facts.get("lsn")),
        priority=_number(facts.get("priority")),
        nsites=_number(facts.get("nsites")),
        nvotes=_number(facts.get("nvotes")),
        votes=_number(facts.get("votes")),
        why=next((facts[name] for name in _WHY if name in facts), None),
    )


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _lsn(text: str | None) -> tuple[int, int] | None:
    found = re.fullmatch(r"(\d+)/(\d+)", text or "")
    return None if found is None else (int(found[1]), int(found[2]))


class History:
    """The last rows, oldest first.

    Args:
        rows_max: how many are kept.
    """

    def __init__(self, rows_max: int = ROWS_MAX) -> None:
        self._rows_max = rows_max
        self._rows: list[HistoryRow] = []
        self._lock = threading.Lock()

    @property
    def rows(self) -> list[HistoryRow]:
        """All rows; never changed, only replaced. *Thread:* any."""
        return self._rows

    def add(self, text: str) -> None:
        """Take one line of the journal; one that tells of no role is left out. *Thread:* any."""
        line = parse_line(text.rstrip("\n"))
        row = None if line is None else row_of(line)
        if row is not None:
            with self._lock:
                self._rows = [*self._rows, row][-self._rows_max :]

    def read_back(self, files: Iterable[Path], bytes_max: int = READ_BACK_BYTES_MAX) -> None:
        """Begin with what the journal's files say; unreadable ones are as if they were empty.

        Args:
            files: the journal and its rotated files, newest first.
            bytes_max: how far is read back at most.
        """
        found: list[HistoryRow] = []
        for path in files:
            if len(found) >= self._rows_max or bytes_max <= 0:
                break
            texts, used = _lines_back(path, self._rows_max - len(found), bytes_max)
            bytes_max -= used
            rows = (row_of(line) for text in texts if (line := parse_line(text)) is not None)
            found = [*(row for row in rows if row is not None), *found]
        with self._lock:
            self._rows = [*found, *self._rows][-self._rows_max :]


def _lines_back(path: Path, lines_max: int, bytes_max: int) -> tuple[list[str], int]:
    """Find the last lines of a file that may tell of roles; returns them and the bytes read."""
    found: list[bytes] = []
    used, rest = 0, b""
    try:
        with path.open("rb") as file:
            at = file.seek(0, 2)
            while at > 0 and used < bytes_max and len(found) < lines_max:
                size = min(_BLOCK_BYTES, at)
                at -= size
                file.seek(at)
                block = file.read(size) + rest
                used += size
                rest, _, whole = (b"", b"", block) if at == 0 else block.partition(b"\n")
                if _WANTED.search(whole) is not None:
                    found = [line for line in whole.split(b"\n") if _WANTED.search(line)] + found
    except OSError:
        return [], used
    return [line.decode("utf-8", "replace") for line in found], used
