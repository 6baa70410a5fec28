"""What a comparison found, in words and for programs."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from replication.compare import Database, Difference, KeyRange
from replication.compare_report import (
    DatabaseReport,
    Report,
    SiteReport,
    difference_report,
    shown,
    whole_database,
)
from replication.wire import LSN
from ttserver.cli.comparing import lines_of

KEYS = Database("keys.db")


def report(*sites: SiteReport) -> Report:
    made = Report(3, list(sites), databases=[DatabaseReport("keys.db", 700, 12_000, 4)])
    made.seen_at(LSN(1, 50), 1_800_000_000.0)
    made.seen_at(LSN(1, 90), 1_800_000_001.5)
    made.paused(0.004, 0.020)
    made.paused(0.008, 0.020)
    made.sum_up(2.5)
    return made


def text(made: Report) -> list[str]:
    return [line.plain for line in lines_of(msgspec.to_builtins(made))]


def differing(wanted: KeyRange, found: Difference) -> str:
    site = SiteReport("db2:5010", difference=difference_report(wanted, found, LSN(1, 90)))
    made = report(site)
    assert not made.identical
    first, hint, *_ = text(made)
    assert hint.startswith("HINT: keep a copy of both var/db")
    return first


def test_identical() -> None:
    made = report(SiteReport("db2:5010"))
    assert made.identical
    assert text(made) == [
        "db2:5010 is identical up to 1/90 at 2027-01-15 08:00:01.500Z",
        "  keys.db: 700 records, 12 KB, 4 ranges",
        "  2 stops, the longest 8.0 ms, on average 6.0 ms; 2.5 s",
    ]
    assert (made.first_lsn, made.lsn) == ((1, 50), (1, 90))
    made.paused(0.030, 0.020)
    assert text(made)[-1] == "  3 stops, 1 too long, the longest 30.0 ms, on average 14.0 ms; 2.5 s"


def test_what_was_not_compared_is_named_and_proves_nothing() -> None:
    away = SiteReport("db3:5010", compared=False, why="it is not connected")
    made = report(SiteReport("db2:5010"), away)
    made.left_out = [("hash.db", "no order")]
    assert made.identical
    assert "db3:5010 was not compared: it is not connected" in text(made)
    assert "  hash.db was left out: no order" in text(made)
    assert not report(away).identical
    assert not report().identical
    assert text(report())[0] == "there is no other site to compare with"
    nothing = Report(3, [SiteReport("db2:5010")])
    nothing.sum_up(1.0)
    assert not nothing.identical, "no database was looked at"


@pytest.mark.parametrize(
    ("wanted", "found", "said"),
    [
        (
            KeyRange(KEYS, (b"a", b""), (b"z", b"")),
            Difference(b"key\x1b[2J", "is missing there"),
            "keys.db: key key\\x1b[2J is missing there (seen at 1/90)",
        ),
        (
            KeyRange(Database("several.db", "one"), (b"a", b""), None),
            Difference(None, "differed"),
            "several.db (one): from a to the end: differed (seen at 1/90)",
        ),
        (
            KeyRange(KEYS, (b"", b""), (b"m", b"")),
            Difference(None, "differed"),
            "keys.db: from the beginning to m: differed (seen at 1/90)",
        ),
        (
            whole_database(KEYS),
            Difference(None, "is missing there"),
            "keys.db is missing there (seen at 1/90)",
        ),
    ],
)
def test_differences_in_words(wanted: KeyRange, found: Difference, said: str) -> None:
    assert differing(wanted, found) == f"db2:5010 DIFFERS: {said}"


def test_keys_are_shown_as_text() -> None:
    cases: list[tuple[bytes, Any]] = [
        (b"plain key", "plain key"),
        ("für".encode(), "für"),
        (b"\xff\x00", "\\xff\\x00"),
        (b"line\nfeed", "line\\nfeed"),
    ]
    for key, expected in cases:
        assert shown(key) == expected
