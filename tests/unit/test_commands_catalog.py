"""The catalog's commands: what is asked, what is answered, by whom it may be asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.catalog_client import catalog_listener, flat, tree
from tests.support.engine import Refusal
from tests.support.wire import Error, Wire
from ttserver.commands import TABLE
from ttserver.commands.docs import document

ONE, TWO = "US04.LTO.000001L6", "US04.LTO.000002L6"


class Clients:
    """Clients of one server.

    Attributes:
        master: the administrator's, whose tree is there.
    """

    def __init__(self, listener: Any, engine: Any) -> None:
        self.listener = listener
        self.engine = engine
        self.master: Wire

    async def of(self, user: str, protocol: int = 2) -> Wire:
        wire = await Wire(self.listener).login(user)
        assert not isinstance(await wire.call("HELLO", protocol, "SETNAME", "test"), Error)
        return wire

    async def ask(self, line: str, user: str = "") -> Any:
        wire = self.master if not user else await self.of(user)
        return flat(await wire.call(*line.split()))


@pytest.fixture(params=["small", "real"])
async def clients(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Clients]:
    async with catalog_listener(tmp_path, request.param) as (listener, engine):
        made = Clients(listener, engine)
        made.master = await made.of("tapemaster")
        await tree(made.master)
        yield made


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[Clients]:
    async with catalog_listener(tmp_path, "small") as (listener, engine):
        made = Clients(listener, engine)
        made.master = await made.of("tapemaster")
        await tree(made.master)
        yield made


def picked(reply: Any, *names: str) -> list[Any]:
    return [reply[name] for name in names]


async def test_objects_are_made_shown_changed_and_deleted(clients: Clients) -> None:
    ask = clients.ask
    assert await ask("CUSTOMER.GET US04") == {
        "name": "US04",
        "description": "vault",
        "contact": "",
        "locked": 0,
        "unique": "none",
        "media_max": 0,
    }
    changed = await ask("CUSTOMER.SET US04 CONTACT fred UNIQUE server LOCK yes MAXMEDIA 9")
    assert picked(changed, "contact", "unique", "locked", "media_max") == ["fred", "server", 1, 9]
    await ask("CUSTOMER.SET US04 LOCK no")
    media = await ask("MEDIA.SET US04.LTO MAXVOLUMES 5 FILTER ??????L[4-8] WARNBACK no")
    assert picked(media, "media", "default", "volumes_max", "filter", "warn_back") == [
        *("LTO", "LIBR", 5, "??????L[4-8]", 0)
    ]
    await ask(f"VOLUME.ADD {ONE}")
    assert picked(await ask("MEDIA.GET US04.LTO"), "volumes") == [1]
    place = await ask("REPOSITORY.GET US04.LTO.LIBR")
    assert picked(place, "type", "next", "offsite", "volumes", "incoming") == [
        *("library", "OFFS", 0, 1, 0)
    ]
    assert await ask("CUSTOMER.LIST 0") == [
        "0",
        [await ask("CUSTOMER.GET ACME"), await ask("CUSTOMER.GET US04")],
    ]
    cursor, rows = await ask("REPOSITORY.LIST 0 MATCH US04.LTO.* COUNT 2")
    assert [row["name"] for row in rows] == ["US04.LTO.LIBR", "US04.LTO.OFFS"]
    cursor, rows = await ask(f"REPOSITORY.LIST {cursor} MATCH US04.LTO.* COUNT 2")
    assert (cursor, [row["name"] for row in rows]) == ("0", ["US04.LTO.SCRT"])
    assert await ask("REPOSITORY.DEL US04.LTO.LIBR") == (
        "INUSE repository US04.LTO.LIBR stays: 1 volumes are in it, 0 on the way"
    )
    await ask(f"VOLUME.DEL {ONE}")
    assert await ask("CUSTOMER.ADD X") != "OK"
    assert await ask("CUSTOMER.DEL X") == "OK"
    assert await ask("CUSTOMER.GET X") == "NOTFOUND customer X does not exist"


async def test_the_life_of_a_volume(clients: Clients) -> None:
    ask = clients.ask
    added = await ask(f"VOLUME.ADD {ONE} DESCRIPTION weekly_full DATE *+7 FLAGS E")
    assert picked(added, "name", "flags", "description", "encrypted", "container") == [
        *(ONE, "CDE", "weekly_full", 1, None)
    ]
    assert picked(added["current"], "repository", "by", "via") == ["LIBR", "tapemaster", "test"]
    moved = await ask(f"VOLUME.MOVE {ONE} OFFS")
    assert picked(moved, "flags", "carried", "warnings") == ["MCDE", 0, []]
    assert (await ask(f"VOLUME.SCANOUT {ONE}"))["flags"] == "MCDEU"
    assert (await ask(f"VOLUME.PICKUP {ONE}"))["flags"] == "MCDEUK"
    assert (await ask(f"VOLUME.CONFIRM {ONE}"))["flags"] == "CDOE"
    again = await ask(f"VOLUME.CONFIRM {ONE} AT US04.LTO.OFFS")
    assert again["flags"] == "CDOE"
    wrong = await ask(f"VOLUME.CONFIRM {ONE} AT LIBR")
    assert wrong.startswith(f"REFUSED volume {ONE} is in the wrong place")
    await ask(f"VOLUME.MOVE {ONE} LIBR")
    back = await ask(f"VOLUME.CANCEL {ONE}")
    assert back["flags"] == "CDOEW"
    assert len(back["warnings"]) == 1
    assert (await ask(f"VOLUME.SETDATE {ONE} none"))["date"] is None
    assert (await ask(f"VOLUME.SETDATE {ONE} 2031-02-28"))["date"] == "2031-02-28"
    assert (await ask(f"VOLUME.FLAG {ONE} +Ql -E"))["flags"] == "CDOlQW"
    assert (await ask(f"VOLUME.MOVE {ONE} LIBR")).startswith(f"LOCKED volume {ONE} stays")
    assert (await ask(f"VOLUME.FLAG {ONE} -l -W"))["flags"] == "CDOQ"
    assert (await ask(f"VOLUME.SET {ONE} HOME LIBR OVERDUE 3"))["overdue_days"] == 3
    assert await ask(f"VOLUME.GET {ONE}") == await ask(f"VOLUME.SET {ONE}")
    assert await ask(f"VOLUME.DEL {ONE}") == "OK"
    cursor, rows = await ask(f"VOLUME.HISTORY {ONE}")
    assert (cursor, rows[0]["what"], rows[-1]["what"]) == ("0", "add", "delete")
    assert {row["by"] for row in rows} == {"tapemaster"}
    assert [row["number"] for row in rows] == list(range(1, len(rows) + 1))
    cursor, first = await ask("VOLUME.HISTORY US04.* FROM *-1 TO * COUNT 2")
    assert [row["what"] for row in first] == ["add", "move"]
    _, rest = await ask(f"VOLUME.HISTORY US04.* FROM *-1 TO * CURSOR {cursor}")
    assert first + rest == rows
    assert await ask("VOLUME.HISTORY US04.* TO 2024-12-31") == ["0", []]
    assert await ask("VOLUME.HISTORY US04.* FROM 2031-01-01T00:00:00Z") == ["0", []]


async def test_lists_and_counts(clients: Clients) -> None:
    ask = clients.ask
    for number in range(1, 8):
        await ask(f"VOLUME.ADD US04.LTO.00000{number}L6 DATE *+{number}")
    await ask("VOLUME.ADD ACME.LTO.1 IN LIBR")
    await ask(f"VOLUME.MOVE {TWO} OFFS")

    async def names(line: str) -> list[str]:
        cursor, found = "0", []
        while True:
            cursor, rows = await ask(f"VOLUME.LIST {cursor} {line}")
            found += [row["name"] for row in rows]
            if cursor == "0":
                return found

    us = [f"US04.LTO.00000{number}L6" for number in range(1, 8)]
    assert await names("COUNT 3") == ["ACME.LTO.1", *us]
    assert await names("MATCH US04.* COUNT 2") == us
    assert await names("MATCH *[12]L6 IN LIBR") == us[:2]
    assert await names("IN US04.LTO.LIBR COUNT 5") == us
    assert await names("TO OFFS") == [TWO]
    assert await names("FLAGS M WITHOUT E") == [TWO]
    assert await names("DUE *+3") == us[:3]
    assert await ask("VOLUME.COUNT") == 8
    assert await ask("VOLUME.COUNT MATCH US04.* DUE *+2") == 2
    assert (await ask("VOLUME.LIST 12345")).startswith("ERR this cursor has expired")
    assert await ask("VOLUME.LIST x") == "ERR invalid cursor"


async def test_jobs(clients: Clients) -> None:
    ask = clients.ask
    for number in range(1, 131):
        await ask(f"VOLUME.ADD US04.LTO.{number:06d}L6 DATE *")
    await ask(f"VOLUME.FLAG {ONE} +l")
    dry = await ask("EXPIRE MATCH US04.LTO.* DRYRUN")
    assert (dry["dry"], len(dry["volumes"])) == (1, 130)
    assert sorted(dry["counts"][1::2]) == [1, 129]
    assert await ask("VOLUME.COUNT FLAGS M") == 0
    done = await ask("EXPIRE ON *")
    assert {row["verdict"] for row in done["volumes"]} == {"moving", "pending"}
    assert len(done["volumes"]) == 130
    assert await ask("VOLUME.COUNT FLAGS M") == 129
    assert (await ask("EXPIRE"))["volumes"] == []
    assert await ask("LIBRARY.BALANCE US04.LTO.LIBR") == {
        "repository": "US04.LTO.LIBR",
        "volumes": 130,
        "incoming": 0,
        "outgoing": 129,
        "difference": -129,
        "deficit": 129,
        "surplus": 0,
        "scratch": [{"repository": "US04.LTO.SCRT", "volumes": 0}],
    }
    scan = " ".join(f"{number:06d}L6" for number in range(2, 131))
    report = await ask(f"RECONCILE US04.LTO.OFFS DRYRUN IDS {scan} NONE")
    assert report["scanned"] == 130
    assert await ask("VOLUME.COUNT IN OFFS") == 0
    report = await ask(f"RECONCILE US04.LTO.OFFS IDS {scan} {TWO} NONE {ONE}")
    assert report["scanned"] == 131
    verdicts = {row["name"]: row["verdict"] for row in report["volumes"]}
    assert (verdicts["US04.LTO.NONE"], verdicts[ONE], verdicts[TWO]) == (
        *("unknown", "wrong place", "confirmed"),
    )
    assert await ask("VOLUME.COUNT IN OFFS") == 129
    report = await ask("RECONCILE US04.LTO.OFFS IDS 000002L6")
    assert len(report["volumes"]) == 128
    assert await ask("VOLUME.COUNT FLAGS a") == 128
    assert (await ask("RECONCILE US04.LTO.OFFS IDS"))["scanned"] == 0
    assert await ask("VOLUME.COUNT FLAGS a") == 129


RIGHTS: list[tuple[str, str]] = [
    # the least right that may, the command
    ("read", "CUSTOMER.GET US04"),
    ("read", "MEDIA.GET US04.LTO"),
    ("read", "REPOSITORY.GET US04.LTO.LIBR"),
    ("read", f"VOLUME.GET {ONE}"),
    ("read", "LIBRARY.BALANCE US04.LTO.LIBR"),
    ("move", f"VOLUME.SET {ONE} DESCRIPTION x"),
    ("move", f"VOLUME.SETDATE {ONE} *"),
    ("move", f"VOLUME.FLAG {ONE} +E"),
    ("move", f"VOLUME.MOVE {ONE} OFFS"),
    ("move", f"VOLUME.SCANOUT {ONE}"),
    ("move", f"VOLUME.PICKUP {ONE}"),
    ("move", f"VOLUME.CONFIRM {ONE} AT LIBR"),
    ("move", f"VOLUME.CANCEL {ONE}"),
    ("move", "RECONCILE US04.LTO.LIBR IDS 000001L6"),
    ("add", f"VOLUME.ADD {TWO}"),
    ("add", f"VOLUME.DEL {TWO}"),
    ("admin", "MEDIA.ADD US04.DL DESCRIPTION x"),
    ("admin", "MEDIA.SET US04.DL DESCRIPTION y"),
    ("admin", "REPOSITORY.ADD US04.DL.LIBR DESCRIPTION x"),
    ("admin", "REPOSITORY.SET US04.DL.LIBR DESCRIPTION y"),
    ("admin", "REPOSITORY.DEL US04.DL.LIBR"),
    ("admin", "MEDIA.DEL US04.DL"),
    ("admin", "CUSTOMER.SET US04 CONTACT x"),
    ("system", "CUSTOMER.ADD 1009"),
    ("system", "CUSTOMER.DEL 1009"),
]
LEVELS = ["read", "move", "add", "admin", "system"]


async def test_each_command_asks_for_its_right(small: Clients) -> None:
    wires = {user: await small.of(user) for user in ("fred", *LEVELS)}
    await small.ask(f"VOLUME.ADD {ONE} DATE *")
    for least, line in RIGHTS:
        for user in ["fred", *LEVELS[: LEVELS.index(least)]]:
            said = await wires[user].call(*line.split())
            assert isinstance(said, Error), f"{user}: {line}"
            assert said.startswith(f"NOPERM user {user} lacks the right "), said
        said = await wires[least].call(*line.split())
        assert not isinstance(said, Error), f"{least}: {line}: {said}"


async def test_nobody_sees_or_changes_other_customers(small: Clients) -> None:
    await small.ask(f"VOLUME.ADD {ONE} DATE *")
    await small.ask("VOLUME.ADD ACME.LTO.1 IN LIBR DATE *")
    everything = ["ACME.LTO.1", ONE]
    for user, seen in {"fred": [], "move": [ONE], "read": everything, "admin": everything}.items():
        _, rows = await small.ask("VOLUME.LIST 0", user)
        assert [row["name"] for row in rows] == seen
        assert await small.ask("VOLUME.COUNT", user) == len(seen)
        _, rows = await small.ask("VOLUME.HISTORY *", user)
        assert [row["name"] for row in rows] == seen
        _, rows = await small.ask("CUSTOMER.LIST 0", user)
        assert [row["name"] for row in rows] == sorted({name[:4] for name in seen})
    # What is not there is as forbidden as what is: nothing is learned.
    for name in (ONE, "ACME.LTO.9", "ZZZZ.LTO.1"):
        said = await small.ask(f"VOLUME.GET {name}", "fred")
        assert said == f"NOPERM user fred lacks the right READ for customer {name[:4]}"
    done = await small.ask("EXPIRE", "read")
    assert done["volumes"] == []
    done = await small.ask("EXPIRE", "admin")
    assert [row["name"] for row in done["volumes"]] == [ONE]


BAD: list[tuple[str, str]] = [
    ("CUSTOMER.ADD X DESCRIPTION", "ERR option DESCRIPTION lacks its value"),
    ("CUSTOMER.ADD X COLOR red", "ERR option 'COLOR' is none of DESCRIPTION, CONTACT, LOCK"),
    ("CUSTOMER.ADD X LOCK yes lock no", "ERR option LOCK is given twice"),
    ("CUSTOMER.ADD X LOCK maybe", "INVALID 'maybe' refused: it is neither yes nor no"),
    ("CUSTOMER.ADD X MAXMEDIA -1", "INVALID '-1' refused: it is no number from 0 up"),
    ("CUSTOMER.ADD X MAXMEDIA 99999999999", "INVALID '99999999999' refused: it is no number"),
    ("CUSTOMER.GET", "ERR wrong number of arguments for 'customer.get' command"),
    ("CUSTOMER.GET us04", "INVALID customer ID 'us04' refused"),
    ("VOLUME.ADD US04.LTO.1 DATE tomorrow", "INVALID date 'tomorrow' refused: not YYYY-MM-DD"),
    ("VOLUME.ADD US04.LTO.1 DATE 2025-02-30", "INVALID date '2025-02-30' refused"),
    ("VOLUME.ADD US04.LTO.1 DATE *+99999", "INVALID date '*+99999' refused"),
    ("VOLUME.ADD US04.LTO.1 DATE 20250101", "INVALID date '20250101' refused"),
    ("VOLUME.ADD US04.LTO.1 IN NONE", "NOTFOUND repository US04.LTO.NONE does not exist"),
    ("VOLUME.FLAG US04.LTO.1 E", "INVALID flags 'E' refused: write +E, -l or +EQ"),
    ("VOLUME.FLAG US04.LTO.1 +", "INVALID flags '+' refused: write +E, -l or +EQ"),
    ("VOLUME.FLAG US04.LTO.1 +E -E", "INVALID flag E refused: it is set and cleared at once"),
    ("VOLUME.LIST 0 MATCH [", "INVALID filter '[' refused: a `[` without its `]`"),
    ("VOLUME.LIST 0 COUNT 0", "ERR syntax error"),
    ("VOLUME.LIST 0 FLAGS Z", "INVALID flag 'Z' refused: there is none of this name"),
    ("VOLUME.HISTORY [", "INVALID filter '[' refused"),
    ("VOLUME.HISTORY * FROM 2025-13-01T00:00:00Z", "INVALID time '2025-13-01T00:00:00Z' refused"),
    ("EXPIRE ON never", "INVALID date 'never' refused"),
    ("EXPIRE MATCH [", "INVALID filter '[' refused"),
    ("RECONCILE US04.LTO.LIBR 1 2", "ERR the scanned IDs come after the word IDS"),
    ("RECONCILE US04.LTO.LIBR DRYRUN", "ERR the scanned IDs come after the word IDS"),
    ("RECONCILE US04.LTO.NONE IDS 1", "NOTFOUND repository US04.LTO.NONE does not exist"),
    ("RECONCILE US04 IDS 1", "INVALID repository name 'US04' refused"),
    ("LIBRARY.BALANCE US04.LTO.NONE", "NOTFOUND repository US04.LTO.NONE does not exist"),
]


async def test_bad_arguments_are_named(small: Clients) -> None:
    for line, said in BAD:
        assert str(await small.ask(line)).startswith(said), line
    bad = await small.master.call("VOLUME.ADD", ONE, "NOTES", b"\xff")
    assert bad == "INVALID \\xff refused: it is not UTF-8"


async def test_resp3_has_maps_nulls_and_booleans(small: Clients) -> None:
    wire = await small.of("tapemaster", 3)
    added = await wire.call("VOLUME.ADD", ONE)
    assert added[b"encrypted"] is False
    assert added[b"container"] is None
    assert added[b"current"][b"repository"] == b"LIBR"
    cursor, rows = await wire.call("VOLUME.LIST", 0)
    assert cursor == b"0"
    assert rows == [added]
    moved = await wire.call("VOLUME.MOVE", ONE, "OFFS")
    assert moved[b"warnings"] == []
    done = await wire.call("RECONCILE", "US04.LTO.OFFS", "IDS", "000001L6")
    assert done[b"counts"] == {b"confirmed": 1}


async def test_a_transaction_takes_its_place_among_the_others(clients: Clients) -> None:
    """One transaction: what fails is left out, what follows sees what went before."""
    wire = clients.master
    assert await wire.call("MULTI") == b"OK"
    for line in (
        f"VOLUME.ADD {ONE}",
        f"VOLUME.ADD {ONE}",
        f"VOLUME.MOVE {ONE} OFFS",
        f"VOLUME.GET {ONE}",
        "VOLUME.LIST 0 TO OFFS",
        "VOLUME.ADD US04.LTO.bad",
    ):
        assert await wire.call(*line.split()) == b"QUEUED"
    added, twice, moved, seen, listed, bad = flat(await wire.call("EXEC"))
    assert added["flags"] == "C"
    assert twice == f"EXISTS volume {ONE} exists already"
    assert moved["flags"] == seen["flags"] == listed[1][0]["flags"] == "MC"
    assert bad.startswith("INVALID volume ID 'bad' refused")
    assert await wire.call("MULTI") == b"OK"
    assert str(await wire.call("EXPIRE")).startswith("ERR Command not allowed inside")


async def test_a_pipeline_is_many_transactions(clients: Clients) -> None:
    names = [f"US04.LTO.{number:06d}" for number in range(300)]
    lines = [["VOLUME.ADD", name] for name in names]
    lines.insert(7, ["VOLUME.ADD", names[3]])
    lines.append(["VOLUME.COUNT"])
    replies = await clients.master.pipeline(*lines)
    assert replies.pop(7) == f"EXISTS volume {names[3]} exists already"
    assert replies.pop() == 300
    assert [flat(reply)["name"] for reply in replies] == names


async def test_a_replicant_reads_and_names_the_master(small: Clients) -> None:
    await small.ask(f"VOLUME.ADD {ONE} DATE *")
    said = "write refused: this site is a replicant (master is 192.0.2.1:5010, generation 14)"
    small.engine.refuse_writes = Refusal(said, code="READONLY", hint="go there")
    for line in (f"VOLUME.MOVE {ONE} OFFS", "CUSTOMER.ADD X", "EXPIRE"):
        assert await small.ask(line) == f"READONLY {said}"
    assert (await small.ask(f"VOLUME.GET {ONE}"))["flags"] == "CD"
    assert len((await small.ask("EXPIRE DRYRUN"))["volumes"]) == 1
    assert await small.ask("VOLUME.COUNT") == 1


async def test_a_job_whose_acks_do_not_come_says_so(small: Clients) -> None:
    await small.ask(f"VOLUME.ADD {ONE} DATE *")
    small.engine.perm_failed = "nobody acknowledged"
    assert await small.ask("EXPIRE") == (
        "PERMFAILED committed here as 1:1:28, but nobody acknowledged"
    )
    small.engine.perm_failed = None
    await small.ask("EXPIRE")
    assert (await small.ask(f"VOLUME.GET {ONE}"))["flags"] == "MCDp"


async def test_what_would_block_is_read_on_a_thread(small: Clients) -> None:
    await small.ask(f"VOLUME.ADD {ONE}")
    small.engine.would_block = True
    assert (await small.ask(f"VOLUME.GET {ONE}"))["name"] == ONE


def test_each_command_is_documented() -> None:
    commands = [command for command in TABLE if command.group == "catalog"]
    assert len(commands) > 30
    for command in commands:
        entry = document(command)
        assert entry["summary"].endswith(".")
        if command.arity not in (-1, 1):
            assert entry["arguments"][0]["name"], command.name
