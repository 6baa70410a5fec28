"""`tt` against a served port: what each verb does, prints, and ends with."""

from __future__ import annotations

import csv
import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import structlog

from tests.integration.client_port import ServedPort, served_port
from tests.support.catalog_client import GROUPS, TREE, USERS, add_users
from tests.support.engine import Refusal
from ttserver.tt import run

ONE, TWO = "US04.LTO.000001L6", "US04.LTO.000002L6"


class User:
    """Somebody at a terminal."""

    def __init__(
        self,
        port: ServedPort,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        directory: Path,
    ) -> None:
        self.port = port
        self.status = 0
        self.err = ""
        self._capsys = capsys
        self._monkeypatch = monkeypatch
        self._directory = directory

    def server(self, name: str = "tapemaster") -> str:
        return f"{name}:secret@127.0.0.1:{self.port.port}"

    def says(self, *words: str, user: str = "tapemaster", stdin: str = "") -> str:
        """Run a command line; gives what it prints, squeezed."""
        self._monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        self.status = run(["-S", self.server(user), *words])
        out, self.err = self._capsys.readouterr()
        return re.sub(r" +", " ", out).replace(" \n", "\n")

    def does(self, line: str, **how: str) -> str:
        """The same of a line without quotes, which has to succeed."""
        out = self.says(*line.split(), **how)
        assert (self.status, self.err) == (0, ""), line
        return out

    def fails(self, line: str, **how: str) -> str:
        """The same of a line that has to fail; gives what it complains of."""
        self.says(*line.split(), **how)
        assert self.status == 1, line
        return self.err

    def json(self, line: str) -> Any:
        return json.loads(self.does(f"{line} --json"))

    def file(self, text: str, name: str = "file") -> str:
        path = self._directory / name
        path.write_text(text)
        return str(path)


@pytest.fixture
def user(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[User]:
    for name in ("TT_SERVER", "TT_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    with served_port(tmp_path / "home", "small") as port:
        port.call(lambda: port.listener.server.auth.roles.update(dict.fromkeys(USERS, "user")))  # type: ignore[attr-defined]
        port.wait(add_users(port.engine))
        with redis.Redis(port=port.port, username="tapemaster", password="secret") as client:
            for line in TREE.splitlines():
                client.execute_command(*line.split())
        yield User(port, capsys, monkeypatch, tmp_path)


@pytest.fixture(autouse=True)
def no_log() -> Iterator[None]:
    """The server in this process must not write between what `tt` prints."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


def test_objects(user: User) -> None:
    assert user.does("customer list") == (
        "customer description contact unique locked media max\n"
        "ACME none no 0\n"
        "US04 vault none no 0\n"
    )
    assert user.json("media get US04.LTO")["default"] == "LIBR"
    assert [row["name"] for row in user.json("repository list US04.LTO.*")] == [
        *("US04.LTO.LIBR", "US04.LTO.OFFS", "US04.LTO.SCRT")
    ]
    assert "offsite yes" in user.does("repository get US04.LTO.OFFS")
    assert user.json("customer set US04 --lock --max-media 3 --unique customer")["locked"] is True
    assert user.json("customer set US04 --no-lock")["media_max"] == 3
    user.does("customer add 1009 -d sample")
    assert user.does("customer del 1009") == "customer 1009 deleted\n"
    assert user.fails("customer del US04 NONE") == (
        "tt: customer US04 stays: media type US04.CONT belongs to it\n"
        "tt: customer NONE does not exist\n"
    )
    made = "--type rack --next OFFS --offsite --priority 2 --no-deletes --filter ??????L6"
    row = user.json(f"repository add US04.LTO.RACK -d rack {made}")
    assert (row["type"], row["next"], row["priority"], row["deletes"]) == ("rack", "OFFS", 2, False)
    row = user.json(
        "media add ACME.DL -d tapes --max-volumes 7 --max-repositories 2 --no-warn-back"
    )
    assert (row["volumes_max"], row["repositories_max"], row["warn_back"]) == (7, 2, False)
    assert user.json("repository set US04.LTO.RACK --onsite --scratch")["scratch"] is True
    lines = user.does("repository list *.OFFS --csv").splitlines()
    assert lines[1] == "US04.CONT.OFFS,vault,rack,,yes,no,0,0,0,,yes"


def test_the_life_of_volumes(user: User) -> None:
    out = user.does(f"volume add {ONE} {TWO} -d weekly_full --date *+7 --flags E")
    assert out.splitlines()[0] == "volume repository target flags date description container"
    assert re.fullmatch(rf"{ONE} LIBR CDE \d{{4}}-\d\d-\d\d weekly_full", out.splitlines()[1])
    assert user.does(f"volume move {ONE} {TWO} OFFS").count("LIBR OFFS MCDE") == 2
    assert "MCDEU" in user.does(f"volume scanout {ONE}")
    assert "MCDEUK" in user.does(f"volume pickup {ONE}")
    scans = user.file(f"# scanned\n{ONE}\n\n{TWO}\n")
    assert user.does(f"volume confirm -f {scans}").count(" OFFS CDOE ") == 2
    user.says("volume", "move", ONE, "LIBR")
    out = user.says("volume", "cancel", ONE)
    assert user.status == 0
    assert "CDOEW" in out
    assert user.err.startswith(f"NOTE: volume {ONE} was moved back to OFFS")
    assert user.json(f"volume setdate {ONE} none")[0]["date"] is None
    assert user.json(f"volume flag {ONE} +Q -E")[0]["flags"] == "COQW"
    assert user.json(f"volume set {ONE} --notes dented --home LIBR")[0]["home"] == "LIBR"
    shown = user.does(f"volume get {ONE}")
    assert re.search(r"current OFFS since 20\S+ \S+ UTC by tapemaster \(tt\)", shown)
    assert "notes dented" in shown
    ids = user.file("000001L6\n000002L6\n")
    assert user.does(f"volume del -f {ids} -m US04.LTO") == "2 deleted\n"
    rows = user.json(f"history {ONE}")
    assert [row["what"] for row in rows][:3] == ["add", "move", "scanout"]
    table = user.does("history US04.* --from *-1 --to *+1")
    assert table.splitlines()[0] == "time (UTC) volume what user program before after"
    assert table.count("\n") == 1 + len(user.json("history US04.*"))


def test_what_is_refused_is_told_one_by_one_and_the_others_are_done(user: User) -> None:
    user.does(f"volume add {ONE}")
    said = user.fails(f"volume add {ONE} {TWO} US04.LTO.bad US04.DL.1")
    assert said == (
        f"tt: volume {ONE} exists already\n"
        "tt: volume ID 'bad' refused: not 1 to 10 of A-Z, 0-9 and dash\n"
        "tt: media type US04.DL does not exist\n"
    )
    assert user.does("volume count").strip() == "2"
    assert user.fails("volume get US04.LTO.9") == "tt: volume US04.LTO.9 does not exist\n"
    said = user.fails(f"volume move {ONE} OFFS", user="read")
    assert said == (
        "tt: user read lacks the right WRITE for customer US04\n"
        "HINT: see what you may do: tt whoami\n"
    )


def test_lists(user: User) -> None:
    user.does(" ".join(["volume add", *(f"US04.LTO.{n:06d}L6" for n in range(1, 10))]))
    user.does("volume add ACME.LTO.1 --in LIBR")
    user.does(f"volume move {ONE} OFFS")
    user.does(f"volume set {TWO} --date *+1")
    assert user.json("volume list US04.LTO.* --to OFFS --flag M")[0]["name"] == ONE
    assert len(user.json("volume list --in LIBR --not-flag M")) == 9
    assert len(user.json("volume list --limit 3")) == 3
    assert [row["name"] for row in user.json("volume list --due *+1")] == [TWO]
    assert user.does("volume count ACME.*") == "1\n"
    rows = list(csv.DictReader(io.StringIO(user.does("volume list US* --csv"))))
    assert [row["volume"] for row in rows] == [f"{n:06d}L6" for n in range(1, 10)]
    assert (rows[0]["repository"], rows[0]["target"]) == ("LIBR", "OFFS")
    out = user.says("volume", "list", "NONE.*")
    assert (user.status, out, user.err) == (0, "", "NOTE: nothing found\n")
    # What another program gets is complete and of its format, also when it is nothing.
    assert user.json("volume list NONE.*") == []
    # A file of ours can be loaded again.
    assert user.says("load", "-", stdin=user.does("volume list US* --csv")).startswith("0 added")


def test_jobs(user: User) -> None:
    user.does(" ".join(["volume add --date *", *(f"US04.LTO.{n:06d}L6" for n in range(1, 5))]))
    user.does(f"volume flag {ONE} +l")
    out = user.says("expire", "--dry-run")
    assert user.status == 0
    assert out.count("moving LIBR OFFS") == 3
    assert re.search(r"expired on \S+: 1 pending, 3 moving\n", out)
    assert user.err == "NOTE: nothing was changed (--dry-run)\n"
    assert len(user.json("expire US04.*")["volumes"]) == 4
    assert "nothing to do" in user.does("expire")
    assert user.does("report library US04.LTO.LIBR") == (
        "repository US04.LTO.LIBR\nvolumes 4\nincoming 0\noutgoing 3\ndifference -3\ndeficit 3\n"
        "surplus 0\nblank volumes in US04.LTO.SCRT 0\n"
    )
    assert user.does("report library US04.LTO.LIBR --csv") == (
        "repository,volumes,incoming,outgoing,deficit,surplus,scratch\nUS04.LTO.LIBR,4,0,3,3,0,0\n"
    )
    # As scanners write it, too.
    scan = user.file('# shelf 3\n000002L6,2031-01-01 08:00\n  000003L6 ok\n\n"NEW";x\n')
    out = user.does(f"reconcile US04.LTO.OFFS {scan}")
    assert "US04.LTO.NEW unknown" in out
    assert "US04.LTO.OFFS compared with 3 scanned: 2 confirmed, 1 unknown\n" in out
    out = user.does("reconcile US04.LTO.OFFS --csv", stdin="000002L6\n")
    assert out == "volume,verdict,repository,target,why\nUS04.LTO.000003L6,missing,OFFS,OFFS,\n"
    assert [row["name"] for row in user.json("volume list --flag a")] == ["US04.LTO.000003L6"]


def test_a_file_is_loaded_good_rows_kept_bad_rows_told(user: User) -> None:
    text = """\
volume,repository,description,date,extra
000001L6,OFFS,weekly_full,2031-01-07,x
000002L6,,  two   blanks ,1970-01-01,x
bad id,LIBR,,,x
000003L6,NONE,,,x
000001L6,OFFS,,,x
000004L6,LIBR
000005L6,LIBR,,,x,y
,LIBR,,,x
ACME.LTO.1,LIBR,,*+7,x
"000006L6",LIBR,"in ""quotes"",
and lines",,x
000007L6,LIBR,,never,x
"""
    path = user.file(text)
    told = [
        "line 4: volume US04.LTO.bad id: volume ID 'bad id' refused: not 1 to 10 of A-Z, 0-9",
        "line 5: volume US04.LTO.000003L6: repository US04.LTO.NONE does not exist",
        "line 6: volume US04.LTO.000001L6: it is in line 2, too",
        "line 7: it has fewer fields than the first line has columns",
        "line 8: it has more fields than the first line has columns",
        "line 9: its volume is empty",
        "line 13: volume US04.LTO.000007L6: date 'never' refused",
    ]

    def load(*more: str) -> str:
        out = user.says("load", path, "--customer", "US04", "--media", "LTO", *more)
        assert user.status == 1
        lines = sorted(
            (line for line in user.err.splitlines() if line.startswith("line")),
            key=lambda line: int(line.split(":")[0].split()[1]),
        )
        assert len(lines) == len(told)
        assert all(line.startswith(start) for line, start in zip(lines, told, strict=True))
        assert "NOTE: columns that are not used: extra" in user.err
        return out

    assert load("--dry-run") == "4 would be added, 0 there already, 7 bad\n"
    assert user.does("volume count") == "0\n"
    assert load() == "4 added, 0 there already, 7 bad\n"
    # Safe to run twice.
    before = user.json("volume list")
    assert load() == "0 added, 4 there already, 7 bad\n"
    assert json.loads(load("--json"))["there"] == 4
    assert user.json("volume list") == before
    shown = {row["name"]: row for row in before}
    assert list(shown) == ["ACME.LTO.1", *(f"US04.LTO.00000{n}L6" for n in (1, 2, 6))]
    assert shown[ONE]["date"] == "2031-01-07"
    assert (shown[TWO]["date"], shown[TWO]["description"]) == (None, "two blanks")
    assert shown["US04.LTO.000006L6"]["description"] == 'in "quotes", and lines'


def test_a_file_of_another_program_is_loaded_by_a_mapping_file(user: User) -> None:
    theirs = user.file(
        "label,kind,place\n000001L6,tape,Vault\nCLN001,tape,Vault\n000002L6,disk,Vault\n"
    )
    mapping = user.file(
        "customer = 'US04'\nexclude = ['CLN*']\n"
        "columns = { volume = 'label', family = 'kind', repository = 'place' }\n"
        "repositories = { Vault = 'OFFS' }\nfamilies = { tape = 'LTO' }\n",
        "map.toml",
    )
    assert user.says("load", theirs, "--map", mapping) == (
        "1 added, 0 there already, 1 bad, 1 left out\n"
    )
    assert user.status == 1
    assert user.err == "line 4: volume 000002L6: family 'disk' is not in the mapping file\n"
    assert [row["current"]["repository"] for row in user.json("volume list")] == ["OFFS"]
    again = json.loads(user.says("load", theirs, "--map", mapping, "--json"))
    assert (again["there"], again["left_out"]) == (1, 1)
    user.says("load", theirs, "--map", user.file("columns = 3\n", "bad.toml"))
    assert user.status == 2
    assert "bad.toml refused: Expected `object`, got `int` - at `$.columns`" in user.err


def test_a_long_file(user: User) -> None:
    rows = "".join(f"{number:06d}L6,LIBR\n" for number in range(3000))
    path = user.file(f"volume,repository\n{rows}")
    assert user.does(f"load {path} --customer US04 --media LTO").startswith("3000 added")
    assert user.does("volume count") == "3000\n"
    assert len(user.json("volume list")) == 3000


def test_a_file_of_another_kind(user: User) -> None:
    for text, said in {
        "": "has no column `volume` in its first line",
        "name,date\n": "has no column `volume` in its first line",
        "volume,date,date\n": "has the column `date` twice",
    }.items():
        user.says("load", user.file(text))
        assert user.status == 2
        assert said in user.err


def test_a_file_whose_rows_nobody_may_add(user: User) -> None:
    path = user.file("volume\n1\n2\n3\n")
    said = user.fails(f"load {path} --customer US04 --media LTO", user="read")
    assert said.startswith("line 2: volume US04.LTO.1: user read lacks the right ALTER")
    assert said.count("line ") == 1  # the others would be refused for the same reason


def test_what_no_other_site_confirms_is_told(user: User) -> None:
    path = user.file("volume\n1\n")
    user.port.call(lambda: setattr(user.port.engine, "perm_failed", "nobody acknowledged"))
    said = user.fails(f"load {path} --customer US04 --media LTO")
    assert "1 were added on the master alone" in said
    user.port.call(lambda: setattr(user.port.engine, "perm_failed", None))
    assert user.does(f"load {path} --customer US04 --media LTO").startswith("0 added, 1 there")


def test_users_and_groups(user: User) -> None:
    assert "WRITE:US*" in user.does("group list")
    assert "keys read system write" in user.does("whoami")
    user.does("group add ops2 --role movers --grant READ:* --grant WRITE:ACME")
    assert json.loads(user.does("group list --json"))[-1]["grants"]
    out = user.does("user add anne -g ops2 --password-stdin", stdin="four random words\n")
    assert out == "user anne added to group ops2\n"
    assert "disabled yes" in user.does("user set anne --disable")
    assert "group ops2" in user.does("user set anne --enable --unrevoke")
    out = user.does("user passwd anne --password-stdin", stdin="other random words\n")
    assert out == "password of anne changed\n"
    assert len(user.json("user list")) == len(USERS) + 2
    assert user.does("user del anne") == "user anne deleted\n"
    assert user.does("group del ops2") == "group ops2 deleted\n"
    assert user.fails("group del read") == (
        "tt: group read stays: 1 users are in it, read for one\n"
    )
    words = "secret\nfour random words\n"
    assert user.does("passwd --password-stdin", user="fred", stdin=words) == (
        "password of fred changed\n"
    )
    words = "wrong password\nfour random words\n"
    said = user.fails("passwd --password-stdin", user="fred", stdin=words)
    assert said.startswith("tt: the old password is wrong\n")
    assert len(GROUPS) == user.does("group list --csv").count("\n") - 1


def on_a_replicant(user: User) -> None:
    engine = user.port.engine

    def change() -> None:
        engine.role, engine.master_client_address = "replicant", "192.0.2.1:5000"
        engine.notice = "this site is a read-only replicant; the master is 192.0.2.1:5000"
        engine.refuse_writes = Refusal(
            "write refused: this site is a replicant (master is 192.0.2.1:5000, generation 1)",
            code="READONLY",
        )

    user.port.call(change)


def test_on_a_replicant_the_notice_is_shown_once_and_updates_name_the_master(user: User) -> None:
    user.does(f"volume add {ONE}")
    on_a_replicant(user)
    notice = "NOTE: this site is a read-only replicant; the master is 192.0.2.1:5000\n"
    assert ONE in user.says("volume", "list")
    assert (user.status, user.err) == (0, notice)
    user.says("volume", "move", ONE, "OFFS")
    assert user.status == 1
    assert user.err == (
        f"{notice}tt: write refused: this site is a replicant (master is 192.0.2.1:5000,"
        " generation 1)\nHINT: name the master, or all servers: -S user@db1,db2,db3\n"
    )


def test_of_several_servers_the_master_gets_the_updates(user: User, tmp_path: Path) -> None:
    """Reads go to the first that answers."""
    user.does(f"volume add {ONE}")
    with served_port(tmp_path / "replicant", "small") as other:
        other.call(lambda: other.listener.server.auth.roles.update(dict.fromkeys(USERS, "user")))  # type: ignore[attr-defined]
        other.wait(add_users(other.engine))
        on_a_replicant(User(other, user._capsys, user._monkeypatch, tmp_path))
        closed = 1  # tcpmux: nobody listens there
        server = f"tapemaster:secret@127.0.0.1:{closed},127.0.0.1:{other.port}"
        server += f",127.0.0.1:{user.port.port}"

        def says(*words: str) -> str:
            user.status = run(["-S", server, *words])
            out, user.err = user._capsys.readouterr()
            return out

        assert says("volume", "count") == "0\n"  # of the replicant, which is another one here
        assert "MC" in says("volume", "move", ONE, "OFFS")
        assert user.err.count("NOTE: this site is a read-only replicant") == 1
        assert user.status == 0
        path = user.file("volume\n7\n")
        assert says("load", path, "--customer", "US04", "--media", "LTO").startswith("1 added")
    assert user.does("volume count") == "2\n"


def test_a_logon_that_cannot_be(user: User) -> None:
    here = f"127.0.0.1:{user.port.port}"
    for server, said in {
        f"tapemaster:wrong@{here}": f"logon at {here} refused: wrong password",
        "tapemaster:secret@127.0.0.1:1": "server 127.0.0.1:1 cannot be reached",
        here: "user is missing: the server wants to know who you are",
        f"tapemaster@{here}": "password is missing: standard input is no terminal",
        "tapemaster@127.0.0.1:1": "server 127.0.0.1:1 cannot be reached",
        "a:b@127.0.0.1:99999": "server string cannot be used: the port is not a number",
    }.items():
        user._monkeypatch.setattr("sys.stdin", io.StringIO())
        status = run(["-S", server, "volume", "count"])
        out, err = user._capsys.readouterr()
        assert (status in (1, 2), out) == (True, "")
        assert err.startswith(f"tt: {said}")
        assert "HINT: " in err


def test_the_server_and_the_password_can_come_from_the_environment(user: User) -> None:
    user._monkeypatch.setenv("TT_SERVER", f"tapemaster@127.0.0.1:{user.port.port}")
    user._monkeypatch.setenv("TT_PASSWORD", "secret")
    assert run(["volume", "count"]) == 0
    assert run(["volume", "list", "--json", "--csv"]) == 2
    assert "--json and --csv cannot both be given" in user._capsys.readouterr().err


def test_usage(user: User) -> None:
    for line in (
        "volume move OFFS",
        "volume add",
        "volume flag US04.LTO.1",
        "volume confirm -f no-such-file",
        "volume nonsense",
        "user add anne",
    ):
        user.says(*line.split())
        assert user.status == 2, line
        assert user.err.startswith("tt: ")
        assert "HINT: " in user.err
