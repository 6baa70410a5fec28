"""The journal's lines: their form, and that no text from outside can break it."""

from pathlib import PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replication.bodies import SiteAddress
from replication.coldstart import Start
from replication.journal_line import VALUE_CHARS_MAX, format_line, parse_line, printable
from replication.messages import SiteStatus
from replication.wire import LSN

NOW_S = 1795417262.1239  # 2026-11-23 07:01:02.123 UTC


def line(event: str = "connection_lost", **facts: object) -> str:
    return format_line(NOW_S, "master", "db1:5010", event, facts).decode()


def test_a_line_reads_as_time_role_site_event_and_facts() -> None:
    assert line("connection_accepted", from_="db2:5010", priority=0) == (
        "2026-11-23 07:01:02.123Z master db1:5010 connection_accepted from=db2:5010 priority=0\n"
    )


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, "-"),
        ("-", '"-"'),
        (True, "yes"),
        (False, "no"),
        (0.25, "0.250"),
        ((7, 12345), "7/12345"),
        (["db1:5010", "db2:5010"], "db1:5010,db2:5010"),
        ({"db1:5010": 0, "db2:5010": 100}, "db1:5010:0,db2:5010:100"),
        ([], '""'),
        ("", '""'),
        ("two words", '"two words"'),
        ("a=b", '"a=b"'),
        ('say "hi" \\', '"say \\"hi\\" \\\\"'),
        ("one\ntwo\r\x1b[2J", '"one\\ntwo\\r\\x1b[2J"'),
        ("abc\u202edef\u2028\x85", '"abc\\u202edef\\u2028\\x85"'),
        ("Zürich", '"Zürich"'),
        ("\udc80", '"\\udc80"'),
        (b"\x00\xffkey", '"\\x00\\\\xffkey"'),
        (LSN(7, 12345), "7/12345"),
        (SiteAddress("::1", 5010), "[::1]:5010"),
        ([SiteAddress("db1", 5010), SiteAddress("db2", 5010)], "db1:5010,db2:5010"),
        (SiteStatus.PRESENT, "present"),
        (Start.MASTER, Start.MASTER.value),
        (PurePosixPath("/var/db/keys.db"), "/var/db/keys.db"),
    ],
)
def test_values(value: object, written: str) -> None:
    assert line(x=value).split(" ", 5)[5] == f"x={written}\n"


def test_a_long_value_is_cut() -> None:
    for value in ("x" * 10_000_000, b"x" * 10_000_000):
        assert len(line(x=value)) < VALUE_CHARS_MAX + 100
    assert "x…" in line(x="x" * (VALUE_CHARS_MAX + 1))


@given(
    values=st.lists(st.text(max_size=30), max_size=4),
    role=st.text(min_size=1, max_size=5),
    site=st.text(min_size=1, max_size=9),
)
@settings(deadline=None, max_examples=200)
def test_whatever_the_text_one_line_comes_out_and_gives_it_back(
    values: list[str], role: str, site: str
) -> None:
    facts = {f"fact{n}": value for n, value in enumerate(values)}
    text = format_line(NOW_S, role, site, "event", facts).decode()
    assert text.endswith("\n")
    assert text[:-1].isprintable()
    parsed = parse_line(text[:-1])
    assert parsed is not None
    assert (parsed.time, parsed.event) == ("2026-11-23 07:01:02.123Z", "event")
    assert parsed.facts == facts
    assert (parsed.role, parsed.site) == (role, site)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1795417262:123456][4242/140035] MASTER: rep_send_message: msgv = 7",
        "2026-11-23 07:01:02.123Z master db1:5010",
        "2026-11-23 07:01:02.123Z master db1:5010 event x",
        "2026-11-23 07:01:02.123Z master db1:5010 event x=1 2",
        '2026-11-23 07:01:02.123Z master db1:5010 event x="1',
    ],
)
def test_what_is_not_a_line_of_ours_is_told_apart(text: str) -> None:
    assert parse_line(text) is None


def test_printable_escapes_what_a_terminal_would_act_on() -> None:
    assert printable("plain ü \"'\\") == "plain ü \"'\\"
    assert printable("a\x1b]0;title\x07b\u202e") == "a\\x1b]0;title\\x07b\\u202e"
