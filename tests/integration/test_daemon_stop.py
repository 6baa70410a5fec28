"""A stop that cannot be orderly: the library or the event loop is stuck. Five seconds, no more."""

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
from storage.library import StillInLibrary

async def stuck_in_library(self, timeout_s):
    raise StillInLibrary("the environment was not closed: still inside the library", hint="-")

async def stuck_loop(self, timeout_s):
    time.sleep(600)

Engine.stop = {"library": stuck_in_library, "loop": stuck_loop}[sys.argv[1]]
main(["--home", sys.argv[2], "run", "--client-listen", "127.0.0.1:0"])
"""


def start(site: Site, stuck: str) -> "subprocess.Popen[str]":
    site.init("master")
    with site.stderr.open("w") as log:
        site.process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, stuck, str(site.home)],
            stdout=subprocess.DEVNULL,
            stderr=log,
            text=True,
            cwd=ROOT,
        )
    site.wait_for_state("running")
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
