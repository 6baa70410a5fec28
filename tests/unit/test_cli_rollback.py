"""`ttserver rollback list|show`: ledgers as a person, or a program, reads them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from storage.ledger import Entry, Head, Ledgers, Outcome
from ttserver.cli.main import run
from ttserver.home import Home

LONG = b"x" * 200


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def write(home: Home, name: str, *entries: Entry, **facts: object) -> None:
    head = Head(
        id=name,
        found="2026-11-23T07:01:02.123+00:00",
        site="192.0.2.10:5010",
        master="192.0.2.20:5010",
        generation=7,
        sync_point=(1, 1000),
        log_end=(1, 3000),
        commits=5,
        unexplained=0,
        **facts,  # type: ignore[arg-type]
    )
    Ledgers(home.rollbacks).write(head, entries)


def printed(home: Home, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert run(["--home", str(home.root), "rollback", *words]) == 0
    return capsys.readouterr().out


WRITE = Entry(
    write=1,
    file="keys.db",
    key=b"key",
    before=None,
    after=LONG,
    lsn=(1, 2000),
    time_s=1795417262.123,
    user="alice",
)
HIDDEN = Entry(write=2, file="users.db", key=b"bob", after=b"", hidden=True)
EVIL = Entry(write=3, file="keys.db", key=b"\x1b[2J\xff\n", before=b"", after=None)


def test_without_ledgers(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(home, capsys, "list") == "nothing was taken back on this site\n"
    assert json.loads(printed(home, capsys, "list", "--json")) == []
    assert run(["--home", str(home.root), "rollback", "show"]) == 1
    assert "there is no ledger" in capsys.readouterr().err
    assert run(["--home", str(home.root), "rollback", "show", "../secret"]) == 1
    assert "does not exist" in capsys.readouterr().err


def test_the_list(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    write(home, "first", WRITE)
    write(home, "second", HIDDEN, EVIL)
    done = Outcome(time="then", applied=1, same=1, left=[3, 4])
    Ledgers(home.rollbacks).write_outcome("second", done)
    _, first, second = printed(home, capsys, "list").splitlines()
    assert first.split() == [
        "first",
        "2026-11-23",
        "07:01:02.123Z",
        "192.0.2.20:5010",
        "1/1000",
        "1",
        "0",
        "no",
    ]
    assert second.split()[-5:] == ["0", "2", "2", "of", "4"]
    ledgers = json.loads(printed(home, capsys, "list", "--json"))
    assert [each["ledger"]["id"] for each in ledgers] == ["first", "second"]
    assert ledgers[1]["outcome"]["left"] == [3, 4]


def test_what_a_ledger_holds(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    write(home, "first", WRITE)
    write(home, "last", WRITE, HIDDEN, EVIL, exact=False)
    lines = printed(home, capsys, "show").splitlines()
    assert lines == [
        "192.0.2.10:5010 took back what 192.0.2.20:5010 (generation 7) did not have",
        "5 commits, from 1/1000 to 1/3000",
        "`before` may be of a later time than the roll-back",
        "1  2026-11-23 07:01:02.123Z  lsn 1/2000  by alice",
        f'  keys.db "key": (none) -> "{"x" * 60}"... (200 bytes)',
        "2  difference",
        '  users.db "bob": changed (value not kept)',
        "3  difference",
        '  keys.db "\\x1b[2J\\xff\\n": "" -> (none)',
    ]
    assert "\x1b" not in printed(home, capsys, "show")
    head, *entries = map(json.loads, printed(home, capsys, "show", "last", "--json").splitlines())
    assert (head["id"], head["writes"], head["differences"]) == ("last", 1, 2)
    assert entries[0]["lsn"] == [1, 2000]
    assert len(entries) == 3
