"""What a comparison found, as it is printed and given to programs."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from replication.compare import Database, Difference, KeyRange
from replication.wire import LSN


class DifferenceReport(msgspec.Struct, frozen=True):
    """The first difference of a site from its master.

    Args:
        database: the file and, where it holds several, the name in it.
        start: the first key of the range, `end` the key behind it; None for its end.
        key: the first key that differs, as far as it can be shown; None when only the range is
            known.
        what: in words.
        lsn: where in the log it was seen.
    """

    database: str
    start: str
    end: str | None
    key: str | None
    what: str
    lsn: tuple[int, int]


class SiteReport(msgspec.Struct):
    """One other member.

    Args:
        compared: up to the end, or until a difference was found.
        identical: None when it was not compared.
        why: why it was not compared, or not to the end.
    """

    site: str
    compared: bool = True
    identical: bool | None = None
    why: str | None = None
    difference: DifferenceReport | None = None


class DatabaseReport(msgspec.Struct):
    """How much of a database was compared."""

    database: str
    records: int = 0
    bytes: int = 0
    ranges: int = 0


class Report(msgspec.Struct):
    """A whole comparison.

    Args:
        identical: some site was compared to the end, and none differs. Each range is so at an LSN
            of its own, from `first_lsn` to `lsn`.
        time: when the last range was compared, UTC.
        stops: how often each site stood still for a range, repeats included.
        late_stops: of these, how many took longer than they may: the machine was busy with others.
        repeats: of these, how often a range had to be done again.
        bytes_total: size of all database files, for an idea of how far it is.
        left_out: databases that cannot be compared, with the reason.
    """

    generation: int
    sites: list[SiteReport]
    identical: bool = False
    first_lsn: tuple[int, int] | None = None
    lsn: tuple[int, int] | None = None
    time: str | None = None
    seconds: float = 0.0
    stops: int = 0
    late_stops: int = 0
    repeats: int = 0
    longest_pause_ms: float = 0.0
    mean_pause_ms: float = 0.0
    bytes_total: int = 0
    databases: list[DatabaseReport] = []
    left_out: list[tuple[str, str]] = []

    def sum_up(self, seconds: float) -> None:
        """Draw the conclusion."""
        self.seconds = round(seconds, 3)
        compared = [site for site in self.sites if site.compared]
        for site in compared:
            site.identical = site.difference is None
        alike = all(site.identical for site in compared)
        self.identical = bool(compared and self.databases) and alike

    def seen_at(self, lsn: LSN, wall_s: float) -> None:
        """A range was compared there."""
        self.lsn = (lsn.file, lsn.offset)
        self.first_lsn = self.first_lsn or self.lsn
        self.time = datetime.fromtimestamp(wall_s, UTC).isoformat(timespec="milliseconds")

    def paused(self, pause_s: float, pause_s_max: float) -> None:
        """A site stood still for so long."""
        self.stops += 1
        self.late_stops += pause_s > pause_s_max
        ms = pause_s * 1000
        self.longest_pause_ms = round(max(self.longest_pause_ms, ms), 3)
        self.mean_pause_ms = round(self.mean_pause_ms + (ms - self.mean_pause_ms) / self.stops, 3)


def difference_report(wanted: KeyRange, found: Difference, lsn: LSN) -> DifferenceReport:
    """Put a difference into words."""
    return DifferenceReport(
        str(wanted.database),
        shown(wanted.start[0]),
        None if wanted.end is None else shown(wanted.end[0]),
        None if found.key is None else shown(found.key),
        found.what,
        (lsn.file, lsn.offset),
    )


def whole_database(database: Database) -> KeyRange:
    """Return the range that is a database."""
    return KeyRange(database, (b"", b""), None)


def shown(key: bytes) -> str:
    """Write a key as text; what is no text, and what a terminal would act on, is escaped."""
    text = key.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
