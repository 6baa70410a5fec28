"""`tt ping` and real daemons: no logon needed, in every state, and hints when it goes wrong."""

import os
import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.integration.daemons import ROOT, Site, sites, wait_for

__all__ = ["sites"]

Sites = Callable[[str], Site]


def client_address(site: Site) -> str:
    """Where a running daemon serves clients."""
    return str(site.json("status")["client_listen"])


def ping(server: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", "from ttserver.tt import main; main()", "ping", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
        env={**os.environ, "TT_SERVER": server, "TT_PASSWORD": ""},
    )


@pytest.fixture
def master(sites: Sites) -> Site:
    site = sites("master")
    site.init("master")
    site.start()
    site.wait_for_state("running")
    return site


def test_a_master_answers_without_a_logon(master: Site) -> None:
    address = client_address(master)
    done = ping(address, "-c", "3", "-i", "0")
    assert done.returncode == 0, done.stderr
    replies = [line for line in done.stdout.splitlines() if " seq=" in line]
    assert len(replies) == 3
    pattern = rf"56 bytes from {re.escape(address)}: seq=[123] time=[0-9.]+ ms"
    assert all(re.fullmatch(pattern, line) for line in replies)
    assert "3 sent, 3 received, 0% lost" in done.stdout
    assert done.stderr == ""


def test_a_site_that_waits_for_its_first_copy_answers_too(sites: Sites) -> None:
    absent, replicant = sites("master"), sites("replicant")
    replicant.init("replicant", absent)
    replicant.start()
    replicant.wait_for_state("start-pending")
    done = ping(client_address(replicant), "-c", "1")
    assert done.returncode == 0, done.stdout + done.stderr


def test_pings_go_on_when_the_server_closes_who_never_logs_on(sites: Sites) -> None:
    site = sites("master")
    site.init("master")
    toml = site.home / "ttserver.toml"
    text, changed = re.subn(
        r"(?m)^\[client\]$", "[client]\nauth_timeout_s = 0.2", toml.read_text(), count=1
    )
    assert changed == 1
    toml.write_text(text)
    site.start()
    site.wait_for_state("running")
    done = ping(client_address(site), "-c", "2", "-i", "1.5")
    assert done.returncode == 0, done.stderr
    assert "2 sent, 2 received, 0% lost" in done.stdout
    assert site.stderr.read_text().count("event=client_session") >= 2


def test_a_stopped_server_gives_a_hint(master: Site) -> None:
    address = client_address(master)
    assert master.end() == 0
    done = ping(address, "-c", "1")
    assert done.returncode == 1
    assert "seq=1 connection refused" in done.stdout
    assert done.stderr.startswith(f"HINT: nothing listens at {address}: start ttserver there")


def test_the_replication_port_is_told_apart_on_both_sides(master: Site) -> None:
    done = ping(master.address, "-c", "1")
    assert done.returncode == 1
    assert "HINT: see whether" in done.stderr
    assert "5010 is for replication" in done.stderr
    wait_for("the mix-up in the journal", lambda: "wrong_port" in master.journal)
