"""The daemon and the operator's program, as processes that talk to each other."""

import json
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.daemons import ROOT, NotifySocket, Site, sites, wait_for

__all__ = ["sites"]

Sites = Callable[[str], Site]

STATUS_KEYS = {
    "state", "serving", "role", "read_only", "site", "priority", "generation", "master", "lsn",
    "applied_lsn", "lag_bytes", "lag_seconds", "sync", "ack_policy", "sites", "counters",
}  # fmt: skip
SITE_KEYS = {
    "site", "eid", "status", "role", "electable", "acked_lsn", "lag_bytes", "last_contact_seconds",
    "native", "tls",
}  # fmt: skip


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[NotifySocket]:
    made = NotifySocket(tmp_path / "notify.sock")
    yield made
    made.close()


def one_error(text: str) -> str:
    """The error in what a daemon wrote that did not start: one line, then one hint."""
    lines = [line for line in text.splitlines() if not line.startswith("timestamp=")]
    assert len(lines) == 2, text
    assert lines[1].startswith("HINT: ")
    return lines[0]


@pytest.fixture
def master(sites: Sites) -> Site:
    """A running group of one."""
    site = sites("master")
    site.init("master")
    site.start()
    site.wait_for_state("running")
    return site


@pytest.fixture
def pair(sites: Sites) -> tuple[Site, Site]:
    """A master and its replicant, both running."""
    master, replicant = sites("master"), sites("replicant")
    master.init("master", replicant)
    replicant.init("replicant", master)
    master.start()
    replicant.start()
    master.wait_for_state("running")
    replicant.wait_for_state("running")
    return master, replicant


# -- the life of a daemon


def test_ready_is_said_when_the_site_is_running_and_not_before(
    sites: Sites, manager: NotifySocket
) -> None:
    master, replicant = sites("master"), sites("replicant")
    master.init("master", replicant)
    replicant.init("replicant", master)
    replicant.start(environment={"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "200000"})
    wait_for(
        "a status line", lambda: any(m.startswith("STATUS=start-pending") for m in manager.read())
    )
    # It waits for its master, says why, is alive, and is not ready however long that takes.
    wait_for("five watchdogs", lambda: manager.read().count("WATCHDOG=1") >= 5)
    done = replicant.cli("status")
    assert done.returncode == 1
    assert "START-PENDING" in done.stdout
    assert "READY=1" not in manager.read()
    master.start()
    wait_for("ready", lambda: "READY=1" in manager.read())
    assert replicant.cli("status").returncode == 0
    assert replicant.end() == 0
    told = manager.read()
    assert told.count("READY=1") == 1
    assert told.count("STOPPING=1") == 1
    assert told.index("READY=1") < told.index("STOPPING=1")
    assert any(m.startswith(f"STATUS=running, replicant of {master.address}") for m in told)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_closes_it_in_order_and_in_time(master: Site, how: signal.Signals) -> None:
    begun = time.monotonic()
    assert master.end(how) == 0
    assert time.monotonic() - begun < 5
    assert not (master.home / "ttserver.sock").exists()
    lines = master.journal.splitlines()
    assert f"server_stopping why={how.name}" in "\n".join(lines)
    assert " server_stopped " in lines[-1]
    assert master.cli("status").returncode == 1


def test_it_starts_again_after_a_kill(master: Site) -> None:
    master.kill()
    assert (master.home / "ttserver.sock").exists()
    assert "no daemon runs" in master.cli("status").stderr
    master.start()
    master.wait_for_state("running")
    assert master.json("user", "list")[0]["name"] == "tapemaster"


def test_the_first_administrator_is_taken_in_once(master: Site) -> None:
    wait_for("the file is gone", lambda: not (master.home / "var" / "first-user.json").exists())
    (user,) = master.json("user", "list")
    assert (user["name"], user["role"]) == ("tapemaster", "administrator")


def test_a_second_daemon_on_the_same_home_is_refused(master: Site) -> None:
    assert master.process is not None
    done = master.cli("run")
    assert done.returncode == 1
    assert one_error(done.stderr) == (
        f"ttserver: home {master.home} is in use by process {master.process.pid}"
    )
    assert master.cli("status").returncode == 0


def test_no_replication_serves_the_site_alone(sites: Sites) -> None:
    site = sites("alone")
    site.init("master")
    site.start("-X")
    site.wait_for_state("running")
    status = site.json("status")
    assert (status["role"], status["read_only"], status["sites"]) == ("master", False, [])


# -- what keeps it from starting


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("DB_CONFIG", "rep-set-priority 1\n", "ttserver: DB_CONFIG:1: "),
        ("ttserver.toml", "[client]\nlissen = 1\n", "ttserver: ttserver.toml:2: "),
    ],
)
def test_a_malformed_file_stops_the_start(sites: Sites, name: str, text: str, said: str) -> None:
    site = sites("bad")
    site.init("master")
    (site.home / name).write_text(text)
    done = site.cli("run")
    assert done.returncode == 2
    assert one_error(done.stderr).startswith(said)


def test_a_malformed_option_stops_the_start(sites: Sites) -> None:
    site = sites("bad")
    site.init("master")
    done = site.cli("run", "--client-listen", "nowhere")
    assert done.returncode == 2
    assert "client.listen must be HOST:PORT" in one_error(done.stderr)


def test_a_missing_home_stops_the_start(sites: Sites) -> None:
    done = sites("none").cli("run")
    assert done.returncode == 2
    assert "does not exist" in one_error(done.stderr)


def test_an_occupied_client_port_stops_the_start(sites: Sites) -> None:
    site = sites("master")
    site.init("master")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        done = site.cli("run", "--client-listen", where)
    assert done.returncode == 1
    assert where in one_error(done.stderr)
    assert not (site.home / "ttserver.sock").exists()


def test_an_occupied_replication_port_stops_the_start(sites: Sites) -> None:
    site = sites("master")
    site.init("master")
    with socket.create_server(("127.0.0.1", site.port)):
        done = site.cli("run", "--client-listen", "127.0.0.1:0")
    assert done.returncode == 1
    assert site.address in one_error(done.stderr)


def test_a_home_that_takes_no_more_data_stops_the_start(sites: Sites) -> None:
    site = sites("full")
    site.init("master")

    def small_files_only() -> None:
        # Stands for a full disk: no file may grow beyond this, so the regions cannot be made.
        resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, 64 * 1024))

    process = site.start(before=small_files_only)
    assert process.wait(timeout=30) == 1
    assert one_error(site.stderr.read_text()).startswith("ttserver: ")


def test_a_home_that_cannot_be_written_stops_the_start(sites: Sites) -> None:
    site = sites("readonly")
    site.init("master")
    # Root may write anywhere, so modes prove nothing: the name is taken by a directory.
    (site.home / "ttserver.lock").mkdir()
    done = site.cli("run")
    assert done.returncode == 1
    assert one_error(done.stderr).startswith(f"ttserver: home {site.home} cannot be written")


# -- the operator's program


def test_status_json_has_the_promised_keys(pair: tuple[Site, Site]) -> None:
    master, replicant = pair
    status = wait_for("the replicant is seen", lambda: (s := master.json("status"))["sites"] and s)
    assert set(status) >= STATUS_KEYS
    (other,) = status["sites"]
    assert set(other) >= SITE_KEYS
    assert (status["role"], status["site"], status["master"]) == (
        "master",
        master.address,
        master.address,
    )
    assert (other["site"], other["status"], other["role"]) == (
        replicant.address,
        "connected",
        "replicant",
    )
    assert status["ack_policy"] == "ONE"
    assert master.json("sites")[0]["site"] == replicant.address
    assert replicant.json("status")["read_only"] is True
    shown = replicant.cli("status").stdout
    assert f"RUNNING  replicant of {master.address}  (read-only)" in shown
    assert master.address in replicant.cli("sites").stdout


def test_compare_for_programs(pair: tuple[Site, Site]) -> None:
    master, replicant = pair
    wait_for("it is connected", lambda: master.json("sites")[0]["acked_lsn"])
    done = master.cli("compare", "--json", "--pause", "1000", "--share", "100")
    report = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert report["identical"] is True
    (site,) = report["sites"]
    assert (site["site"], site["compared"]) == (replicant.address, True)
    assert {one["database"] for one in report["databases"]} >= {"keys.db", "users.db"}
    assert report["lsn"] <= master.json("status")["lsn"]


def test_an_alarm_is_an_exit_status_of_its_own_until_it_is_over(sites: Sites) -> None:
    master, replicant = sites("master"), sites("replicant")
    master.init("master", replicant)
    replicant.init("replicant", master)
    with (replicant.home / "ttserver.toml").open("a") as out:
        out.write("\n[status]\nalarm_after_s = 0.3\n")
    replicant.start()
    wait_for("an alarm", lambda: replicant.status_or_none() and replicant.status()["alarms"])
    done = replicant.cli("status")
    assert done.returncode == 3
    headline, alarm, why, since, *_ = (line.strip() for line in done.stdout.splitlines())
    assert "START-PENDING" in headline
    assert alarm.startswith("ALARM: no progress for ")
    assert why.startswith(f"no master answers ({master.address}: ")
    assert since.startswith("since 2")
    assert replicant.json("status")["alarms"][0]["kind"] == "start"

    master.start()
    replicant.wait_for_state("running")
    wait_for("no alarm", lambda: not replicant.status()["alarms"])
    assert replicant.cli("status").returncode == 0
    assert 'alarm_cleared alarm="no progress: start"' in replicant.journal
    rows = replicant.json("status", "--history")
    assert [row["event"] for row in rows] == ["start_decided", "new_master"]
    assert rows[1]["master"] == master.address
    table = replicant.cli("status", "--history").stdout.splitlines()
    assert [line.split()[2] for line in table[1:]] == ["start_decided", "new_master"]


def test_users_are_changed_on_the_master_and_seen_on_the_replicant(
    pair: tuple[Site, Site],
) -> None:
    master, replicant = pair
    refused = replicant.cli("user", "add", "bob", "--password-stdin", stdin="hunter22x\n")
    assert refused.returncode == 1
    assert f"this site is a replicant of {master.address}" in one_error(refused.stderr)
    done = master.cli("user", "add", "bob", "--password-stdin", stdin="hunter22x\n")
    assert (done.returncode, done.stdout) == (0, "user bob added (user)\n")
    wait_for(
        "bob on the replicant",
        lambda: [user["name"] for user in replicant.json("user", "list")] == ["bob", "tapemaster"],
    )
    assert "hunter22x" not in master.journal + master.stderr.read_text()
    again = master.cli("user", "add", "bob", "--password-stdin", stdin="hunter22x\n")
    assert again.returncode == 1
    assert one_error(again.stderr) == "ttserver: user bob exists already"
    weak = master.cli("user", "passwd", "bob", "--password-stdin", stdin="bob\n")
    assert one_error(weak.stderr).startswith("ttserver: password refused")
    assert (
        master.cli("user", "passwd", "bob", "--password-stdin", stdin="other22x\n").returncode == 0
    )
    assert master.cli("user", "remove", "bob").returncode == 2
    assert master.cli("user", "remove", "bob", "--yes").returncode == 0
    assert master.cli("user", "remove", "bob", "--yes").returncode == 1
    last = master.cli("user", "remove", "tapemaster", "--yes")
    assert "it is the last administrator" in one_error(last.stderr)
    for event in ("user_added user=bob", "password_changed user=bob", "user_removed user=bob"):
        assert event in master.journal


def test_a_wiped_replicant_starts_over_by_itself(pair: tuple[Site, Site]) -> None:
    _, replicant = pair
    refused = replicant.cli("wipe", "--yes")
    assert refused.returncode == 1
    assert "is in use by process" in one_error(refused.stderr)
    assert replicant.end() == 0
    done = replicant.cli("wipe", "--yes")
    assert done.returncode == 0, done.stderr
    assert "removed keys.db" in done.stdout
    left = [path.name for path in (replicant.home / "var" / "db").iterdir()]
    assert left == ["DB_CONFIG"]
    replicant.start()
    replicant.wait_for_state("running")
    assert [user["name"] for user in replicant.json("user", "list")] == ["tapemaster"]


def test_a_replicant_is_promoted_when_its_master_is_dead(pair: tuple[Site, Site]) -> None:
    master, replicant = pair
    assert master.cli("promote", "--yes").stdout.startswith("this site is the master already")
    refused = replicant.cli("promote", "--yes")
    assert refused.returncode == 1
    assert f"follows a living master ({master.address})" in refused.stderr
    assert "HINT: run `ttserver switchover" in refused.stderr
    master.kill()
    wait_for("the loss is seen", lambda: replicant.status()["master"] is None)
    asked = replicant.cli("promote")
    assert asked.returncode == 2
    assert f"this site ({replicant.address}) holds the log up to" in asked.stderr
    assert f"what {master.address}, the last master, wrote and did not send" in asked.stderr
    assert replicant.status()["role"] != "master"
    plan = replicant.json("promote", "--dry-run")
    assert len(plan["losses"]) == 1
    assert plan["better"] is None
    assert replicant.status()["role"] != "master"
    done = replicant.cli("promote", "--yes")
    assert done.returncode == 0, done.stderr
    status = replicant.json("status")
    assert (status["role"], status["read_only"]) == ("master", False)


def test_check_of_a_running_site_has_no_failure(pair: tuple[Site, Site]) -> None:
    for site in pair:
        report = site.json("check")
        assert [finding for finding in report["findings"] if finding["level"] == "FAIL"] == []
        texts = "\n".join(finding["text"] for finding in report["findings"])
        assert texts.count("held by our own daemon") == 2
        assert "protocol 4" in texts


def read_lines(site: Site, *arguments: str, until: Callable[[list[str]], bool]) -> list[str]:
    """Run a command that never ends by itself, as a pipe reads it, until it said enough."""
    lines: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-m", "ttserver", "--home", str(site.home), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line.rstrip())
                if until(lines):
                    break
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) in {0, 130}
        finally:
            process.kill()
    return lines


def test_watch_writes_a_line_for_each_change(master: Site) -> None:
    lines = read_lines(master, "status", "--watch", "--interval", "0.1", until=bool)
    assert "running, master" in lines[0]


def test_watch_goes_on_when_the_daemon_stops_and_returns(master: Site) -> None:
    def until(lines: list[str]) -> bool:
        if len(lines) == 1:
            master.end()
        elif len(lines) == 2:
            master.start()
        return "running" in lines[-1] and len(lines) > 2

    lines = read_lines(master, "status", "--watch", "--interval", "0.1", until=until)
    assert any("no daemon runs on" in line for line in lines)


def test_watch_json_is_one_object_a_look(master: Site) -> None:
    lines = read_lines(
        master,
        "status",
        "--watch",
        "--json",
        "--interval",
        "0.1",
        until=lambda seen: len(seen) == 3,
    )
    assert [json.loads(line)["state"] for line in lines] == ["running"] * 3


def test_events_follow_the_journal(master: Site) -> None:
    def until(lines: list[str]) -> bool:
        if len(lines) == 1:
            master.end()
        return " server_stopped " in lines[-1]

    lines = read_lines(master, "events", "--follow", "-n", "1", until=until)
    assert any(" server_stopping why=SIGTERM" in line for line in lines)
