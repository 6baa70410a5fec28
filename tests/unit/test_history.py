"""The last changes of role, read from the journal: rows, bounds, what comes back after a start."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from replication.history import HISTORY_EVENTS, History, HistoryRow
from replication.journal import Journal, rotated
from replication.journal_line import EVENTS, format_line
from replication.wire import LSN

SITE = "db1:5010"


def line(event: str, **facts: object) -> str:
    return format_line(1_800_000_000.5, "replicant", SITE, event, facts).decode()


def rows(*lines: str, rows_max: int = 64) -> list[HistoryRow]:
    history = History(rows_max)
    for text in lines:
        history.add(text)
    return history.rows


def journal(path: Path, **options: int) -> Journal:
    sizes = {"bytes_max": 2**20, "files_max": 3} | options
    return Journal(path, sizes["bytes_max"], sizes["files_max"], SITE, False)


@pytest.mark.parametrize(
    ("event", "facts", "expected"),
    [
        (
            "became_master",
            {"generation": 4, "priority": 2, "lsn": LSN(3, 17)},
            {"generation": 4, "priority": 2, "lsn": (3, 17), "master": SITE},
        ),
        (
            "new_master",
            {"master": "db2:5010", "generation": 5},
            {"generation": 5, "master": "db2:5010"},
        ),
        (
            "master_lost",
            {"master": "db2:5010", "reason": "it closed the link"},
            {"master": "db2:5010", "why": "it closed the link"},
        ),
        (
            "election_called",
            {"nsites": 2, "nvotes": 2, "priority": 1, "lsn": LSN(1, 5)},
            {"nsites": 2, "nvotes": 2, "priority": 1, "lsn": (1, 5)},
        ),
        ("new_master", {"master": None, "generation": 5}, {"generation": 5}),
        # Whatever a text says in the place of a number, the row is made.
        ("became_master", {"generation": "many", "lsn": "3/x"}, {"master": SITE}),
    ],
)
def test_a_row_says_what_the_line_says(
    event: str, facts: dict[str, object], expected: dict[str, object]
) -> None:
    (row,) = rows(line(event, **facts))
    assert row == HistoryRow("2027-01-15 08:00:00.500Z", event, "replicant", **expected)  # type: ignore[arg-type]


def test_other_lines_are_no_history() -> None:
    assert rows(line("connection_lost", site="a"), "the library's own words", "") == []
    assert rows(line("waiting", why="x", hint="y")) == []
    assert {EVENTS[name].group for name in HISTORY_EVENTS} == {"election", "role"}


def test_the_oldest_rows_go_first() -> None:
    found = rows(*(line("new_master", generation=n) for n in range(10)), rows_max=3)
    assert [row.generation for row in found] == [7, 8, 9]


def test_what_the_journal_writes_is_in_the_history_and_comes_back_after_a_start(
    tmp_path: Path,
) -> None:
    path = tmp_path / "$DB_Msg.txt"
    first = journal(path)
    first.write("start_decided", decision="follow", why='it says "so"\nand more')
    first.write("connection_lost", site="a", reason="x")
    first.write("became_master", generation=2, priority=1)
    written = first.history.rows
    assert [row.event for row in written] == ["start_decided", "became_master"]
    assert written[0].why == 'it says "so"\nand more'
    first.close()
    second = journal(path)
    assert second.history.rows == written
    second.write("new_master", master="db2:5010", generation=3)
    assert [row.event for row in second.history.rows] == [
        "start_decided",
        "became_master",
        "new_master",
    ]
    second.close()


def test_it_is_read_back_through_rotated_files_and_long_stretches_without(tmp_path: Path) -> None:
    path = tmp_path / "$DB_Msg.txt"
    noise = line("connection_lost", site="a", reason="x" * 900) * 700  # more than a block
    rotated(path, 2).write_text(line("new_master", generation=1) + noise)
    rotated(path, 1).write_text(noise + line("new_master", generation=2) + noise)
    # A writer that was killed left half a line.
    path.write_text(
        line("new_master", generation=3) + noise + line("new_master", generation=4)[:30]
    )
    history = History()
    history.read_back([path, rotated(path, 1), rotated(path, 2), rotated(path, 3)])
    assert [row.generation for row in history.rows] == [1, 2, 3]
    few = History(2)
    few.read_back([path, rotated(path, 1), rotated(path, 2)])
    assert [row.generation for row in few.rows] == [2, 3]
    near = History()  # one block, which holds none
    near.read_back([path, rotated(path, 1), rotated(path, 2)], bytes_max=1)
    assert near.rows == []


def test_a_row_is_plain_json(tmp_path: Path) -> None:
    (row,) = rows(line("new_master", master="db2:5010", generation=3))
    assert set(msgspec.to_builtins(row)) == {
        *("time", "event", "role", "generation", "master", "lsn", "priority"),
        *("nsites", "nvotes", "votes", "why"),
    }
