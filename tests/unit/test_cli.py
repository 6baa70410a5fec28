"""The operator's program as a shell sees it: exit status, one line of error, one hint."""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.users import read_first_user
from ttserver.cli.main import run

Cli = Callable[..., tuple[int, str, str]]

MASTER = ("--role", "master", "--local", "127.0.0.1:5510", "--remote", "127.0.0.1:5511")


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs `ttserver --home HOME ...` and gives (exit status, stdout, stderr)."""
    monkeypatch.delenv("TTSERVER_HOME", raising=False)
    monkeypatch.setenv("COLUMNS", "200")

    def call(
        *arguments: str, home: Path | None = None, stdin: str | None = None
    ) -> tuple[int, str, str]:
        if stdin is not None:
            (tmp_path / "stdin").write_text(stdin)
        with (tmp_path / "stdin").open() if stdin is not None else Path(os.devnull).open() as given:
            monkeypatch.setattr("sys.stdin", given)
            status = run(["--home", str(home or tmp_path / "home"), *arguments])
        out, err = capsys.readouterr()
        return status, out, err

    return call


def one_hint(err: str) -> str:
    """The error's sentence; fails unless it is exactly one line and one line of advice."""
    lines = err.splitlines()
    assert len(lines) == 2, err
    assert lines[0].startswith("ttserver: ")
    assert lines[1].startswith("HINT: ")
    return lines[0].removeprefix("ttserver: ")


# -- the command line itself


def test_no_command_shows_the_help(cli: Cli) -> None:
    status, out, _ = cli()
    assert status == 2
    assert "Exit status: 0 success" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("statu",), "no such command 'statu'. Did you mean 'status'?"),
        (("status", "--jason"), "no such option: --jason (Possible options: --json)"),
        (("init",), "missing option '--role'"),
        (("user",), "missing command"),
        (("user", "add"), "missing argument 'NAME'"),
        (("status", "--interval", "0"), "invalid value for '--interval'"),
    ],
)
def test_a_usage_error_is_one_line_with_a_hint(
    cli: Cli, arguments: tuple[str, ...], said: str
) -> None:
    status, _, err = cli(*arguments)
    assert status == 2
    assert one_hint(err).startswith(said)


def test_home_may_stand_on_either_side_of_the_command(cli: Cli, tmp_path: Path) -> None:
    status, _, err = cli("status", "--home", str(tmp_path / "other"))
    assert status == 1
    assert one_hint(err) == f"home {tmp_path / 'other'} does not exist"
    status, _, err = cli("status")
    assert one_hint(err) == f"home {tmp_path / 'home'} does not exist"


def test_home_is_taken_from_the_environment(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TTSERVER_HOME", str(tmp_path / "env"))
    assert run(["status"]) == 1
    assert f"home {tmp_path / 'env'} does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ("status",),
        ("status", "--json"),
        ("sites",),
        ("promote", "--yes"),
        ("user", "list"),
        ("user", "add", "x", "--password-stdin"),
    ],
)
def test_no_daemon_is_an_error_with_a_hint(
    cli: Cli, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "home").mkdir()
    status, _, err = cli(*arguments)
    assert status == 1
    assert one_hint(err) == f"no daemon runs on {tmp_path / 'home'}"


# -- init


def test_init_makes_a_master(cli: Cli, tmp_path: Path) -> None:
    status, out, _ = cli("init", *MASTER)
    assert status == 0
    home = tmp_path / "home"
    lines = (home / "DB_CONFIG").read_text().splitlines()
    active = [line for line in lines if line and not line.startswith("#")]
    assert active == [
        "repmgr_site 127.0.0.1 5510 db_local_site on db_group_creator on",
        "repmgr_site 127.0.0.1 5511 db_bootstrap_helper on",
        "rep_set_priority 1",
        "repmgr_set_ack_policy db_repmgr_acks_one",
    ]
    assert 'listen = "127.0.0.1:5000"' in (home / "ttserver.toml").read_text()
    assert stat.S_IMODE((home / "var" / "db").stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "var" / "first-user.json").stat().st_mode) == 0o600
    assert "ack policy ONE" in out
    assert f"ttserver --home {home} run" in out


def test_the_password_is_printed_once_and_only_its_hash_is_kept(cli: Cli, tmp_path: Path) -> None:
    _, out, _ = cli("init", *MASTER)
    (line,) = (line for line in out.splitlines() if ", password " in line)
    password = line.split(", password ")[1].split()[0]
    assert len(password) >= 16
    record = read_first_user(tmp_path / "home" / "var" / "first-user.json")
    assert record is not None
    assert (record.name, record.role) == ("tapemaster", "administrator")
    assert record.password_hash.startswith("$argon2id$")
    for path in (tmp_path / "home").rglob("*"):
        assert path.is_dir() or password not in path.read_text()


def test_a_given_password_is_not_printed(cli: Cli, tmp_path: Path) -> None:
    status, out, err = cli("init", *MASTER, "--password-stdin", stdin="correct horse\nrest\n")
    assert status == 0
    assert "correct horse" not in out + err
    assert (tmp_path / "home" / "var" / "first-user.json").exists()


def test_init_makes_a_replicant_without_a_user(cli: Cli, tmp_path: Path) -> None:
    status, out, _ = cli(
        "init", "--role", "replicant", "--local", "[::1]:5511", "--remote", "db1.example:5510"
    )
    assert status == 0
    home = tmp_path / "home"
    text = (home / "DB_CONFIG").read_text()
    assert "\nrepmgr_site ::1 5511 db_local_site on\n" in text
    assert "\nrepmgr_site db1.example 5510 db_bootstrap_helper on\n" in text
    assert "\nrep_set_priority 0\n" in text
    assert 'listen = "[::1]:5000"' in (home / "ttserver.toml").read_text()
    assert not (home / "var" / "first-user.json").exists()
    assert "password" not in out


REPLICANT = ("--role", "replicant", "--local", "127.0.0.1:5511", "--remote", "127.0.0.1:5510")
THIRD = ("--remote", "127.0.0.1:5512")


@pytest.mark.parametrize(
    ("arguments", "policy", "said"),
    [
        (MASTER, "one", "it survives the loss of either machine."),
        ((*MASTER, "--priority", "7"), "one", "it survives the loss of either machine."),
        (REPLICANT, "one", "it survives the loss of either machine."),
        # Nobody else is electable as far as is known: a quorum would wait for nobody.
        ((*MASTER, *THIRD), "one", "The other sites are taken to have priority 0"),
        ((*MASTER, *THIRD, "--priority", "1"), "one", "The other sites are taken to have"),
        ((*MASTER, *THIRD, "--priority", "7", "--remote-priority", "0"), "one", "any one machine"),
        ((*REPLICANT, *THIRD), "one", "The other sites are taken to have priority 0"),
        ((*MASTER, *THIRD, "--priority", "7"), "quorum", "most of the 3 sites"),
        ((*MASTER, *THIRD, "--remote-priority", "1"), "quorum", "most of the 3 sites"),
        ((*REPLICANT, *THIRD, "--priority", "1"), "quorum", "most of the 3 sites"),
        ((*REPLICANT, *THIRD, "--remote-priority", "2"), "quorum", "most of the 3 sites"),
    ],
)
def test_init_writes_a_policy_that_waits_for_somebody_and_says_which(
    cli: Cli, tmp_path: Path, arguments: tuple[str, ...], policy: str, said: str
) -> None:
    status, out, _ = cli("init", *arguments)
    assert status == 0
    text = (tmp_path / "home" / "DB_CONFIG").read_text()
    assert f"\nrepmgr_set_ack_policy db_repmgr_acks_{policy}\n" in text
    assert f"ack policy {policy.upper()}: OK means" in out
    assert said in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--role", "master", "--local", "nowhere"), '--local must be HOST:PORT, got "nowhere"'),
        (("--role", "master", "--local", "h:0"), "--local must have a port of 1..65535"),
        (("--role", "master", "--local", "h:70000"), "--local must have a port of 1..65535"),
        (("--role", "master", "--local", "::1:5010"), "--local must be HOST:PORT with an IPv6"),
        (("--role", "master", "--local", "0.0.0.0:5010"), "--local 0.0.0.0:5010 is no address"),
        (("--role", "master", "--local", "h:5000"), "--local h:5000: port 5000 is the clients'"),
        (("--role", "replicant", "--local", "h:5010"), "a replicant has no master to follow"),
        ((*MASTER, "--remote", "127.0.0.1:5510"), "--remote 127.0.0.1:5510 is this site itself"),
        ((*MASTER, "--remote", "127.0.0.1:5511"), "--remote 127.0.0.1:5511 is given twice"),
        ((*MASTER, "--priority", "0"), "a master cannot have priority 0"),
        ((*MASTER, "--priority", "-1"), "invalid value for '--priority'"),
        (("--role", "slave", "--local", "h:5010"), "invalid value for '--role'"),
        ((*MASTER, "--password-stdin"), "password for tapemaster is empty"),
    ],
)
def test_init_refuses_and_writes_nothing(
    cli: Cli, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    status, _, err = cli("init", *arguments)
    assert status == 2
    assert one_hint(err).startswith(said)
    assert not (tmp_path / "home").exists()


def test_a_weak_password_is_refused_before_anything_is_written(cli: Cli, tmp_path: Path) -> None:
    status, _, err = cli("init", *MASTER, "--password-stdin", stdin="short\n")
    assert status != 0
    assert one_hint(err).startswith("password refused")
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("there", ["DB_CONFIG", "var/db/DB_CONFIG", "ttserver.toml"])
def test_init_leaves_an_existing_site_alone(cli: Cli, tmp_path: Path, there: str) -> None:
    path = tmp_path / "home" / there
    path.parent.mkdir(parents=True)
    path.write_text("# mine\n")
    status, _, err = cli("init", *MASTER)
    assert status == 2
    assert one_hint(err).endswith(f"already holds a site: {path} exists")
    assert path.read_text() == "# mine\n"
    assert [p.name for p in (tmp_path / "home").rglob("*") if p.is_file()] == [path.name]


def test_an_init_that_fails_half_way_can_be_done_again(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync
    calls: list[int] = []

    def full(fd: int) -> None:
        calls.append(fd)
        if len(calls) > 2:
            raise OSError(28, "No space left on device")
        real(fd)

    monkeypatch.setattr(os, "fsync", full)
    status, _, err = cli("init", *MASTER)
    assert status == 1
    assert one_hint(err) == f"{tmp_path / 'home'}: no space left on device"
    monkeypatch.undo()
    assert [p for p in (tmp_path / "home").rglob("*") if p.is_file()] == []
    assert cli("init", *MASTER)[0] == 0


# -- wipe, events


def test_wipe_needs_force_where_the_only_copy_may_be(cli: Cli, tmp_path: Path) -> None:
    cli("init", *MASTER)
    precious = tmp_path / "home" / "var" / "db" / "keys.db"
    precious.write_text("x")
    status, _, err = cli("wipe", "--yes")
    assert status == 1
    assert one_hint(err).startswith("wipe refused: this site may become master (priority 1)")
    assert precious.exists()
    status, out, err = cli("wipe", "--yes", "--force")
    assert status == 0
    assert "removed keys.db" in out
    assert "WARNING: this site may become master" in err
    assert not precious.exists()


def test_wipe_asks_and_does_nothing_without_an_answer(cli: Cli, tmp_path: Path) -> None:
    cli("init", "--role", "replicant", "--local", "a:5010", "--remote", "b:5010")
    kept = tmp_path / "home" / "var" / "db" / "keys.db"
    kept.write_text("x")
    status, _, err = cli("wipe")
    assert status == 2
    assert one_hint(err).startswith("confirmation is missing")
    assert kept.exists()
    status, out, _ = cli("wipe", "-y")
    assert status == 0
    assert ": 1 database; " in out
    assert not kept.exists()
    status, out, _ = cli("wipe", "-y")
    assert status == 0
    assert "is empty already" in out


def test_wipe_of_a_site_whose_configuration_is_broken_needs_force(cli: Cli, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "var" / "db").mkdir(parents=True)
    (home / "DB_CONFIG").write_text("rep-set-priority 0\n")
    status, _, err = cli("wipe", "--yes")
    assert status == 1
    assert "cannot be read, so it may be the master" in one_hint(err)


LINE = '2026-11-23 07:01:02.123Z master 127.0.0.1:5510 connection_accepted from=b:1 note="a b"'


def test_events_are_read_from_the_file(cli: Cli, tmp_path: Path) -> None:
    cli("init", *MASTER)
    journal = tmp_path / "home" / "var" / "db" / "$DB_Msg.txt"
    status, _, err = cli("events")
    assert status == 1
    assert "no daemon ran on this home yet" in one_hint(err)
    journal.write_text(f"older\nMASTER: rep_start\n{LINE}\n")
    status, out, _ = cli("events", "-n", "2")
    assert status == 0
    assert out.splitlines() == ["MASTER: rep_start", LINE]
    _, out, _ = cli("events", "--json", "-n", "2")
    first, second = map(json.loads, out.splitlines())
    assert first == {"event": None, "text": "MASTER: rep_start"}
    assert second["event"] == "connection_accepted"
    assert second["facts"] == {"from": "b:1", "note": "a b"}
