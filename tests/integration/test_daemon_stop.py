"""Starts and stops that take too long: recovery, the library or the event loop is stuck."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from tests.integration.daemons import ROOT, Site, sites, wait_for

__all__ = ["sites"]

# The real daemon, in which one call does not return; what is patched is only that call.
_PROGRAM = """
import sys, time
from ttserver import daemon
from ttserver.cli.main import main
from ttserver.engine import Engine
from storage.environment import Environment
from storage.library import StillInLibrary

async def stuck_in_library(self, timeout_s):
    raise StillInLibrary("the environment was not closed: still inside the library", hint="-")

async def stuck_loop(self, timeout_s):
    time.sleep(600)

match sys.argv[1]:
    case "library":
        Engine.stop = stuck_in_library
    case "loop":
        Engine.stop = stuck_loop
    case "recovery":
        Environment.open = lambda self: time.sleep(600)
main(["--home", sys.argv[2], "run", "--client-listen", "127.0.0.1:0"])
"""


def start(site: Site, stuck: str, *, state: str = "running") -> "subprocess.Popen[str]":
    site.init("master")
    with site.stderr.open("w") as log:
        site.process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, stuck, str(site.home)],
            stdout=subprocess.DEVNULL,
            stderr=log,
            text=True,
            cwd=ROOT,
        )
    site.wait_for_state(state)
    return site.process


def test_a_thread_inside_the_library_is_left_behind_with_a_flushed_log(
    sites: Callable[[str], Site],
) -> None:
    site = sites("stuck")
    start(site, "library")
    assert site.end() == 0
    assert "stopped_without_closing" in site.stderr.read_text()
    assert "still inside the library" in site.stderr.read_text()
    assert " server_stopped " in site.journal
    site.start()
    site.wait_for_state("running")


def test_a_stuck_event_loop_is_ended_within_the_time(sites: Callable[[str], Site]) -> None:
    site = sites("stuck")
    start(site, "loop")
    begun = time.monotonic()
    assert site.end() == 1
    assert 4.5 < time.monotonic() - begun < 8
    assert "not closed 5 s after SIGTERM" in site.stderr.read_text()


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(
    sites: Callable[[str], Site], second: signal.Signals
) -> None:
    site = sites("stuck")
    process = start(site, "loop")
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    wait_for("the first is heard", lambda: "server_stopping" in site.stderr.read_text())

    def asked_again() -> bool:
        process.send_signal(second)
        return process.poll() is not None

    wait_for("its end", asked_again)
    assert process.returncode == 1
    assert time.monotonic() - begun < 4.5
    assert f"second signal ({second.name})" in site.stderr.read_text()


def test_a_long_recovery_is_answered_for_and_can_be_stopped(
    sites: Callable[[str], Site],
) -> None:
    site = sites("recovering")
    start(site, "recovery", state="start-pending")
    status = site.json("status")
    assert status["why"] == "its database is being opened"
    assert (status["serving"], status["pid"]) == (False, site.process.pid if site.process else 0)
    assert "START-PENDING" in site.cli("status").stdout
    for command in (("user", "list"), ("user", "remove", "x", "--yes"), ("promote", "--yes")):
        refused = site.cli(*command)
        assert refused.returncode == 1
        assert "HINT: " in refused.stderr
        assert "Traceback" not in refused.stderr
    begun = time.monotonic()
    assert site.end() == 0  # the engine gives up on it in time: nothing is lost
    assert time.monotonic() - begun < 8
    assert "Traceback" not in site.stderr.read_text()
