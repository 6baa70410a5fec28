"""What keeps a daemon from starting: one line that says it, one that says what to do, no ruins."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.sites import Site, Sites

pytestmark = pytest.mark.timeout(200)

FAILED, CONFIGURATION = 1, 2


@pytest.fixture
def site(sites: Sites) -> Site:
    """A master that could be started."""
    made = sites("master")
    made.init("master")
    return made


def refusal(site: Site, status: int, *arguments: str) -> str:
    """Start it, see it end at once, in order and without a trace; give the error."""
    done = site.cli("run", *arguments)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    said = [line for line in done.stderr.splitlines() if not line.startswith("timestamp=")]
    assert len(said) % 2 == 0, done.stderr
    for error, hint in zip(said[::2], said[1::2], strict=True):
        assert error.startswith("ttserver: ")
        assert re.match("HINT: [a-z`]", hint), done.stderr
    assert not site.home.socket.exists()
    return said[0].removeprefix("ttserver: ")


def ends_well(site: Site) -> None:
    """What was in the way is gone: nothing is left of the failed start."""
    site.run()
    site.put("key")
    assert site.stop() == 0


# A few through the whole daemon; the unit tests of both files have them all.
DB_CONFIG = [
    ("rep-set-priority 1", "did you mean rep_set_priority"),
    ("repmgr_site 127.0.0.1 70000", "70000"),
    ("rep_set_timeout db_rep_ack_timeout soon", "soon"),
    ("rep_set_config db_rep_conf_lease on", "db_rep_conf_lease"),
    ("set_cachesize 0 268435456 1 2", "set_cachesize"),
    ("\x00\x01\x02", ""),
    ("x" * 100_000, ""),
]


@pytest.mark.parametrize(("line", "named"), DB_CONFIG, ids=lambda text: repr(text[:40]))
def test_a_malformed_line_of_db_config(site: Site, line: str, named: str) -> None:
    number = len(site.home.db_config.read_text().splitlines()) + 1
    whole = site.home.db_config.read_text()
    site.db_config(line)
    error = refusal(site, CONFIGURATION)
    assert error.startswith(f"DB_CONFIG:{number}: ")
    assert named in error
    assert len(error) < 1000
    assert not list(site.home.environment.glob("log.*")), "the environment was opened"
    if line.startswith("rep-"):
        checked = site.cli("check")
        assert checked.returncode == CONFIGURATION
        assert f"DB_CONFIG:{number}" in checked.stdout
        site.home.db_config.write_text(whole)
        ends_well(site)


TOML = [
    (b"[client]\nlissen = 1\n", "ttserver.toml:2: "),
    (b"[client\n", "ttserver.toml:1: "),
    (b"[client]\nmax_clients = 1e400\n", "ttserver.toml:2: "),
    (b"[storage]\nkeyspace = '../../etc/passwd'\n", "ttserver.toml:2: "),
    (b"[limits]\n\xff\xfe = 1\n", "ttserver.toml"),
    (b"\x00" * 5000, "ttserver.toml"),
    (b"a = [" * 20_000, "ttserver.toml"),
]


@pytest.mark.parametrize(("text", "where"), TOML, ids=lambda text: repr(text[:40]))
def test_a_malformed_ttserver_toml(site: Site, text: bytes, where: str) -> None:
    site.home.toml.write_bytes(text)
    error = refusal(site, CONFIGURATION)
    assert error.startswith(where)
    assert len(error) < 1000
    assert not list(site.home.environment.glob("log.*")), "the environment was opened"


def as_directory(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def as_loop(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(path.name)


@pytest.mark.parametrize("spoil", [as_directory, as_loop])
@pytest.mark.parametrize("name", ["DB_CONFIG", "ttserver.toml"])
def test_a_file_that_is_none(site: Site, name: str, spoil: Callable[[Path], None]) -> None:
    spoil(site.home.root / name)
    assert refusal(site, CONFIGURATION).startswith(name)


def test_an_edited_copy_of_db_config_is_not_overwritten(site: Site) -> None:
    """Its checksum says that somebody edited it: what he meant would be lost."""
    site.run()
    assert site.stop() == 0
    copy = site.home.environment / "DB_CONFIG"
    copy.write_text(copy.read_text() + "set_cachesize 0 1048576 1\n")
    edited = copy.read_text()
    error = refusal(site, CONFIGURATION)
    assert "var/db/DB_CONFIG" in error
    assert copy.read_text() == edited


def test_a_second_daemon_on_the_same_home(site: Site) -> None:
    site.run()
    assert site.process is not None
    done = site.cli("run", "--client-listen", "127.0.0.1:0")
    assert done.returncode == FAILED
    assert f"in use by process {site.process.pid}" in done.stderr
    assert "HINT: " in done.stderr
    site.put("key")
    site.kill()
    ends_well(site)


@pytest.mark.parametrize("port", ["clients", "replication"])
def test_a_port_that_another_daemon_has(site: Site, sites: Sites, port: str) -> None:
    site.run()
    other = sites("other")
    if port == "clients":
        other.clients = site.clients
    else:
        other.replication = site.replication
    other.init("master")
    taken = other.clients if port == "clients" else other.replication
    error = refusal(other, FAILED)
    assert str(taken) in error
    assert "in use" in error
    assert not list(other.home.environment.glob("log.*")), "the environment was opened"
    assert site.stop() == 0
    ends_well(other)


def test_an_address_that_is_not_of_this_machine(site: Site) -> None:
    error = refusal(site, FAILED, "--client-listen", "192.0.2.1:5000")
    assert "192.0.2.1:5000" in error


def test_a_home_that_is_a_file(sites: Sites) -> None:
    site = sites("file")
    site.home.root.write_text("no directory")
    assert str(site.home.root) in refusal(site, CONFIGURATION)


def test_a_database_that_is_none(site: Site) -> None:
    """Damage of the data is told as what it is; nothing is made anew over it."""
    site.run()
    site.put("key")
    assert site.stop() == 0
    log = site.home.environment / "log.0000000001"
    damaged = os.urandom(log.stat().st_size)
    log.write_bytes(damaged)
    error = refusal(site, FAILED)
    assert str(site.home.environment) in error
    assert log.read_bytes()[:1000] == damaged[:1000]


def test_every_refusal_is_on_standard_error_alone(site: Site) -> None:
    site.db_config("rep-set-priority 1")
    done = subprocess.run(
        site.command("run"), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == ""
