"""What `check` finds, with real sockets, real files and a real site's side of the protocol."""

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from replication import bodies
from replication.bodies import SiteAddress, Standing
from replication.link_states import Role
from replication.messages import OwnCode, ParamFlag
from replication.peer import LocalSite, Peer
from replication.peer_events import RequestReceived
from replication.wire import LSN
from ttserver import check, check_network
from ttserver.check_findings import Finding, Level
from ttserver.cli.main import run
from ttserver.home import Home

Site = Callable[..., int]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_network, "PROBE_TIMEOUT_S", 0.5)


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


def make_home(root: Path, lines: str = "", toml: str = "") -> Home:
    (root / "var" / "db").mkdir(parents=True)
    (root / "var" / "db").chmod(0o700)
    root.chmod(0o755)
    (root / "DB_CONFIG").write_text(lines)
    toml = toml or f'[client]\nlisten = "127.0.0.1:{free_port()}"\n'
    if "db_local_site" not in lines:
        # Never the usual port: something of this machine may have it.
        toml += f'[replication]\nlisten = "127.0.0.1:{free_port()}"\n'
    (root / "ttserver.toml").write_text(toml)
    return Home(root)


def found(home: Home, topic: str) -> list[Finding]:
    return [finding for finding in check.run_checks(home) if finding.topic == topic]


def one(home: Home, topic: str) -> Finding:
    (finding,) = found(home, topic)
    return finding


@pytest.fixture
def site() -> Iterator[Site]:
    """Makes a site that answers one caller after another; gives its port."""
    listening: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def serve(server: socket.socket, answer: Callable[[socket.socket], None]) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                answer(connection)

    def make(
        *, native: bool = False, priority: int = 1, garbage: bytes = b"", host: str = "127.0.0.1"
    ) -> int:
        server = socket.create_server(("127.0.0.1", 0))
        port = int(server.getsockname()[1])
        flags = 0 if native else int(ParamFlag.TTSERVER_SITE)

        def answer(connection: socket.socket) -> None:
            if garbage:
                connection.sendall(garbage)
                return
            peer = Peer(Role.ACCEPTOR, LocalSite(host, port, priority, 5, flags))
            while not peer.closed:
                data = connection.recv(65536)
                for event in peer.receive_data(data) if data else peer.receive_eof():
                    if isinstance(event, RequestReceived):
                        standing = Standing(
                            3, LSN(1, 99), LSN(1, 50), priority, 0, master=SiteAddress("m", 5010)
                        )
                        body = bodies.encode_standing(standing)
                        peer.answer(OwnCode.SITE_STANDING, body)
                connection.sendall(peer.data_to_send())

        listening.append(server)
        threads.append(threading.Thread(target=serve, args=(server, answer)))
        threads[-1].start()
        return port

    yield make
    for server in listening:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
    for thread in threads:
        thread.join(10)


def two_sites(root: Path, remote_port: int, more: str = "") -> Home:
    return make_home(
        root,
        f"repmgr_site 127.0.0.1 {free_port()} db_local_site on\n"
        f"repmgr_site 127.0.0.1 {remote_port}\n{more}",
    )


# -- this machine


def test_a_healthy_home_has_no_failure(tmp_path: Path) -> None:
    findings = list(check.run_checks(make_home(tmp_path / "home")))
    assert [finding for finding in findings if finding.level is Level.FAIL] == []
    assert {"library", "DB_CONFIG", "ttserver.toml", "disk", "client port", "site port"} <= {
        finding.topic for finding in findings if finding.level is Level.OK
    }


def test_every_mistake_of_the_configuration_is_a_line_and_the_status_is_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = make_home(
        tmp_path / "home", "rep-set-priority 1\nset_cachesize x\n", "[client]\nlisten = 1\n"
    )
    assert run(["check", "--home", str(home.root)]) == 2
    out = capsys.readouterr().out
    assert "FAIL  DB_CONFIG      DB_CONFIG:1:" in out
    assert "FAIL  DB_CONFIG      DB_CONFIG:2:" in out
    assert "FAIL  ttserver.toml  ttserver.toml:2:" in out
    assert out.count("HINT: ") >= 3


def test_a_warning_of_db_config_is_shown(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", "rep_set_priority 1\nrep_set_priority 2\n")
    fine, warning = found(home, "DB_CONFIG")
    assert fine.level is Level.OK
    assert warning.level is Level.WARN
    assert warning.text.startswith("DB_CONFIG:2: ")


def test_a_missing_home_is_the_only_failure(tmp_path: Path) -> None:
    findings = list(check.run_checks(Home(tmp_path / "none")))
    assert [finding.topic for finding in findings] == ["library", "home"]
    assert findings[1].level is Level.FAIL


def test_a_database_open_to_others_is_told(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    home.environment.chmod(0o755)
    fine, open_ = found(home, "directories")
    assert fine.level is Level.OK
    assert open_.level is Level.WARN
    assert open_.hint == f"chmod 700 {home.environment}"


def test_a_directory_of_another_user_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = make_home(tmp_path / "home")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert {finding.level for finding in found(home, "directories")} == {Level.WARN}


def test_a_full_disk_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = make_home(tmp_path / "home")
    monkeypatch.setattr(check, "DISK_FAIL_BYTES", 2**62)
    assert one(home, "disk").level is Level.FAIL
    monkeypatch.setattr(check, "DISK_FAIL_BYTES", 0)
    monkeypatch.setattr(check, "DISK_WARN_BYTES", 2**62)
    assert one(home, "disk").level is Level.WARN


# -- ports and names


def test_a_port_in_use_is_a_failure_that_names_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        home = make_home(tmp_path / "home", toml=f'[client]\nlisten = "127.0.0.1:{port}"\n')
        finding = one(home, "client port")
    assert finding.level is Level.FAIL
    assert finding.text == f"127.0.0.1:{port}: address already in use"
    assert str(port) in str(finding.hint)


def test_an_address_of_another_machine_is_a_failure(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", toml='[client]\nlisten = "192.0.2.1:5000"\n')
    finding = one(home, "client port")
    assert finding.level is Level.FAIL
    assert finding.hint == "write an address of this machine (ip address)"


def test_clients_on_loopback_only_are_a_warning(tmp_path: Path) -> None:
    assert one(make_home(tmp_path / "a"), "clients").level is Level.WARN
    toml = f'[client]\nlisten = "0.0.0.0:{free_port()}"\n'
    assert one(make_home(tmp_path / "b", toml=toml), "clients").level is Level.OK


def test_a_name_that_does_not_resolve_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def resolve(host: str, *arguments: Any, **options: Any) -> Any:
        if host == "db2.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if host == "both.example":
            return [*real("::1", *arguments, **options), *real("127.0.0.1", *arguments, **options)]
        return real(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    home = make_home(
        tmp_path / "home",
        f"repmgr_site 127.0.0.1 {free_port()} db_local_site on\n"
        "repmgr_site db2.invalid 5010\nrepmgr_site both.example 5010\n",
    )
    texts = {finding.text: finding.level for finding in found(home, "names")}
    assert texts["db2.invalid does not resolve: Name or service not known"] is Level.FAIL
    assert texts["both.example is ::1, 127.0.0.1, all are tried"] is Level.OK


# -- other sites


def test_a_ttserver_site_says_what_it_holds(tmp_path: Path, site: Site) -> None:
    port = site(priority=3)
    finding = one(two_sites(tmp_path / "home", port), "other sites")
    assert finding.level is Level.OK
    assert finding.text == (
        f"127.0.0.1:{port}: ttserver, protocol 4, may become master, generation 3, "
        "log end 1/99, master m:5010"
    )


def test_a_native_site_is_recognised_and_not_asked(tmp_path: Path, site: Site) -> None:
    port = site(native=True, priority=0)
    finding = one(two_sites(tmp_path / "home", port), "other sites")
    assert finding.level is Level.OK
    assert finding.text == f"127.0.0.1:{port}: native repmgr, protocol 4, never master"


def test_a_site_under_another_name_is_a_failure(tmp_path: Path, site: Site) -> None:
    port = site(host="localhost")
    finding = one(two_sites(tmp_path / "home", port), "other sites")
    assert finding.level is Level.FAIL
    assert finding.text == f"127.0.0.1:{port} calls itself localhost:{port}"


def test_another_service_on_the_port_is_a_failure(tmp_path: Path, site: Site) -> None:
    port = site(garbage=b"-ERR unknown command\r\n")
    finding = one(two_sites(tmp_path / "home", port), "other sites")
    assert finding.level is Level.FAIL
    assert "answers, but is no site" in finding.text


def test_a_site_that_is_down_is_a_warning(tmp_path: Path) -> None:
    port = free_port()
    finding = one(two_sites(tmp_path / "home", port), "other sites")
    assert finding.level is Level.WARN
    assert finding.text == (f"127.0.0.1:{port} does not answer: 127.0.0.1: connection refused")


def test_the_other_usual_port_is_tried_when_one_is_closed(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed, open_ = free_port(), site()
    monkeypatch.setattr(check_network, "OTHER_PORT", {closed: open_})
    finding = one(two_sites(tmp_path / "home", closed), "other sites")
    assert finding.level is Level.WARN
    assert f"but port {open_} of that host does" in finding.text


def test_a_silent_site_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        finding = one(two_sites(tmp_path / "home", port), "other sites")
    assert finding.level is Level.FAIL
    assert finding.text.endswith("no answer in time")


# -- acknowledgements


@pytest.mark.parametrize(
    ("policy", "priority", "level", "said"),
    [
        ("one", 0, Level.OK, "ONE with 1 other site"),
        ("none", 0, Level.WARN, "NONE waits for nobody here"),
        ("quorum", 1, Level.WARN, "this site is the quorum of a group of two"),
        ("one_peer", 1, Level.OK, "ONE_PEER with 1 other site"),
        ("all_peers", 0, Level.WARN, "no other site has a priority above 0"),
        ("all_available", 0, Level.WARN, "while no other site is connected"),
        ("all", 0, Level.OK, "ALL with 1 other site"),
    ],
)
def test_a_policy_that_waits_for_nobody_is_told(
    tmp_path: Path, site: Site, policy: str, priority: int, level: Level, said: str
) -> None:
    port = site(priority=priority)
    line = f"repmgr_set_ack_policy db_repmgr_acks_{policy}\n"
    finding = one(two_sites(tmp_path / "home", port, line), "ack policy")
    assert finding.level is level
    assert said in finding.text


def test_a_least_number_of_acks_that_no_group_of_this_size_has(tmp_path: Path, site: Site) -> None:
    home = two_sites(
        tmp_path / "home", site(priority=0), "repmgr_set_ack_policy db_repmgr_acks_one\n"
    )
    (home.root / "ttserver.toml").write_text("[replication]\nmin_acks_to_accept = 2\n")
    policy, least = found(home, "ack policy")
    assert (policy.level, least.level) == (Level.OK, Level.WARN)
    assert least.text == (
        "replication.min_acks_to_accept = 2 cannot be met by 1 other site: every write is refused"
        " with NOREPLICAS"
    )


def test_json_holds_every_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = two_sites(tmp_path / "home", free_port())
    assert run(["check", "--json", "--home", str(home.root)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True
    assert {"topic", "level", "text", "hint", "configuration"} == set(report["findings"][0])
    assert {finding["level"] for finding in report["findings"]} == {"ok", "warn", "skip"}
