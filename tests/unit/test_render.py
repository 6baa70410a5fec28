"""A status as a person sees it: the screen, the table of sites, the one line."""

import io
from typing import Any

import pytest
from rich.console import Console

from ttserver import render
from ttserver.summary import bytes_text, lsn_text, one_line, seconds_text


def status(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "state": "running",
        "serving": True,
        "role": "replicant",
        "read_only": True,
        "site": "192.0.2.20:5010",
        "priority": 0,
        "generation": 14,
        "master": "192.0.2.10:5010",
        "lsn": [3, 2048],
        "applied_lsn": [3, 1024],
        "lag_bytes": 1_024_000,
        "lag_seconds": 3.25,
        "sync": None,
        "ack_policy": "QUORUM",
        "sites": [site()],
        "counters": {},
        "why": None,
        "hint": None,
        "notice": None,
        "client_listen": "192.0.2.20:5000",
    }
    return base | changes


def site(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "site": "192.0.2.10:5010",
        "eid": 2,
        "status": "connected",
        "role": "master",
        "electable": True,
        "acked_lsn": None,
        "lag_bytes": None,
        "last_contact_seconds": 0.2,
        "native": False,
        "tls": False,
        "error": None,
    }
    return base | changes


def shown(what: Any, *, width: int = 80) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(what)
    return out.getvalue()


def test_one_screen_answers_who_how_far_and_since_when() -> None:
    text = shown(render.status_view(status()))
    assert "192.0.2.20:5010  RUNNING  replicant of 192.0.2.10:5010  (read-only)" in text
    for fact in ("priority 0", "14", "3/2048", "3/1024", "1.02 MB, 3.2 s", "QUORUM", "0.2 s ago"):
        assert fact in text
    assert len(text.splitlines()) < 24


def test_a_master_shows_whom_it_hears_and_whether_its_reads_are_the_newest() -> None:
    fence = {"state": "open", "limit_s": 2.0, "heard": 2, "needed": 1, "left_s": 1.9}
    lease = {"lease_s": 1.0, "left_s": 0.8}
    text = shown(render.status_view(status(fence=fence, lease=lease)))
    assert "2 sites, 1 needed" in text
    assert "2 s, open" in text
    assert "0.8 s of 1 s left" in text
    cut_off = shown(
        render.status_view(status(fence=fence | {"state": "fenced"}, lease=lease | {"left_s": 0.0}))
    )
    assert "2 s, no writes" in cut_off
    assert "refused" in cut_off


def test_the_reason_and_the_remedy_stand_below_the_headline() -> None:
    text = shown(
        render.status_view(
            status(state="start-pending", serving=False, why="no site answers", hint="start one")
        )
    )
    headline, why, hint, *_ = text.splitlines()
    assert headline.endswith("(no reads)")
    assert (why.strip(), hint.strip()) == ("no site answers", "HINT: start one")


def wait(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "kind": "master",
        "subject": "",
        "why": "no site answers",
        "hint": "start one",
        "since": "2026-11-23T07:00:32+00:00",
        "seconds": 75.0,
        "still_seconds": 75.0,
        "alarm": False,
    }
    return base | changes


def test_since_when_what_else_and_the_alarm() -> None:
    other = wait(kind="site", subject="a", why="a is not connected", seconds=3.0)
    told = {"why": "no site answers", "hint": "start one", "waits": [wait(), other]}
    text = shown(render.status_view(status(**told, alarms=[wait(alarm=True)])))
    assert [line.strip() for line in text.splitlines()[1:6]] == [
        "ALARM: no progress for 75 s: no site answers",
        "no site answers",
        "since 2026-11-23 07:00:32Z (75 s)",
        "HINT: start one",
        "also: a is not connected (since 2026-11-23 07:00:32Z (3.0 s))",
    ]
    line = one_line(status(alarms=[wait(alarm=True)]))
    assert line.endswith("; ALARM: no progress for 75 s: no site answers")


def test_history_is_a_table_with_the_votes() -> None:
    row: dict[str, Any] = {
        "time": "2026-11-23 07:00:32.100Z",
        "event": "election_called",
        "role": "electing",
        "generation": 4,
        "master": None,
        "lsn": [3, 17],
        "priority": 2,
        "nsites": 3,
        "nvotes": 2,
        "votes": None,
        "why": None,
    }
    won = row | {"event": "became_master", "master": "[b]db1:1", "votes": 2, "why": "it won"}
    text = shown(render.history_table([row, won]), width=160)
    _, first, second = (line.split() for line in text.splitlines())
    assert first[2:] == ["election_called", "4", "-", "3/17", "2", "2", "of", "3"]
    assert second[2:] == [
        *("became_master", "4", "[b]db1:1", "3/17", "2", "2/2", "of", "3", "it", "won"),
    ]
    assert "no change of role" in shown(render.history_table([]))


def test_a_sync_shows_its_progress_in_pages_bytes_and_time() -> None:
    sync = {
        "phase": "receiving pages",
        "pages_done": 30,
        "pages_total": 120,
        "bytes_done": 122_880,
        "eta_seconds": 93.0,
    }
    text = shown(render.status_view(status(sync=sync)), width=120)
    assert "receiving pages 30 of 120 pages (25 %), 123 KB, 93 s left" in text
    assert one_line(status(sync=sync)).endswith("(25 %), 123 KB, 93 s left")


def test_a_sync_without_a_total_yet_divides_by_nothing() -> None:
    sync = {
        "phase": "asking for the file list",
        "pages_done": 0,
        "pages_total": 0,
        "bytes_done": 0,
        "eta_seconds": None,
    }
    assert "asking for the file list" in shown(render.status_view(status(sync=sync)))


def test_the_table_fits_a_terminal_of_80_columns() -> None:
    table = shown(render.sites_table([site(role="replicant", acked_lsn=[12, 1234567])]))
    assert max(len(line.rstrip()) for line in table.splitlines()) <= 80
    assert "12/1234567" in table
    assert "last error" not in table


def test_the_error_of_an_unreachable_site_is_a_column_of_its_own() -> None:
    far = site(status="unreachable", last_contact_seconds=None, error="connection refused")
    table = shown(render.sites_table([site(), far]), width=120)
    assert "last error" in table
    assert "connection refused" in table
    assert "never" in table


def test_kinds_of_sites() -> None:
    table = shown(render.sites_table([site(native=True, electable=False, tls=True)]), width=120)
    assert "native, TLS, never master" in table


def test_names_from_other_machines_are_no_markup() -> None:
    table = shown(render.sites_table([site(site="[red]x[/red]:1")]))
    assert "[red]x[/red]:1" in table


def test_a_lone_site_says_so() -> None:
    assert "no other site is known" in shown(render.status_view(status(sites=[])))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "running, replicant of 192.0.2.10:5010; behind by 1.02 MB"),
        ({"lag_bytes": 0}, "running, replicant of 192.0.2.10:5010"),
        ({"master": None, "why": "it is gone"}, "running, replicant without a master; it is gone"),
        ({"role": "electing", "lag_bytes": None}, "running, electing a master"),
        (
            {"role": "none", "state": "start-pending", "lag_bytes": None},
            "start-pending, no role yet",
        ),
        ({"role": "master"}, "running, master; 1 of 1 other site connected"),
        (
            {"role": "master", "sites": [site(), site(status="unreachable")]},
            "running, master; 1 of 2 other sites connected",
        ),
        ({"role": "master", "sites": []}, "running, master; no other site"),
    ],
)
def test_one_line_says_the_same(changes: dict[str, Any], line: str) -> None:
    assert one_line(status(**changes)) == line


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "-"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 KB"),
        (123_456, "123 KB"),
        (7_654_321, "7.65 MB"),
        (1_230_000_000, "1.23 GB"),
        (5_000_000_000_000, "5 TB"),
        (5_000_000_000_000_000, "5000 TB"),
    ],
)
def test_amounts(count: float | None, text: str) -> None:
    assert bytes_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (42.4, "42 s"),
        (121, "2 min 1 s"),
        (7300, "2 h 1 min"),
        (200_000, "2 d 7 h"),
    ],
)
def test_time_spans(seconds: float | None, text: str) -> None:
    assert seconds_text(seconds) == text


def test_lsns_read_as_in_the_journal() -> None:
    assert lsn_text((3, 17)) == "3/17"
    assert lsn_text(None) == "-"
