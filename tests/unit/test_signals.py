"""A stop in time, a stop that hangs, and an operator who asks twice; in a process of its own."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ttserver.signals import SAME_WISH_S

_PROGRAM = """
import sys, threading, time
from ttserver.signals import StopSignals
StopSignals.block()
asked = threading.Event()
def on_stop(name):
    print(name, flush=True)
    asked.set()
signals = StopSignals(on_stop, timeout_s=float(sys.argv[2]))
signals.start()
print("ready", flush=True)
asked.wait()
if sys.argv[1] == "hangs":
    threading.Event().wait()
"""


@contextmanager
def program(*arguments: str) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_stop_in_time_ends_by_itself(name: str) -> None:
    with program("ends", "30") as process:
        process.send_signal(signal.Signals[name])
        out, _ = process.communicate(timeout=30)
    assert out == f"{name}\n"
    assert process.returncode == 0


def test_a_stop_that_hangs_is_ended_and_logged() -> None:
    with program("hangs", "0.2") as process:
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert time.monotonic() - begun >= 0.2
    assert "stopped_without_closing" in out
    assert "not closed 0.2 s after SIGTERM" in out


def test_the_same_wish_twice_is_no_second_signal() -> None:
    with program("ends", "30") as process:
        for _ in range(3):
            process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=30)
    assert out == "SIGTERM\n"
    assert process.returncode == 0


def test_a_second_signal_ends_it_at_once() -> None:
    with program("hangs", "600") as process:
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.readline() == "SIGTERM\n"
        heard = time.monotonic()
        while process.poll() is None and time.monotonic() - heard < 30:
            # Asked again and again, as an impatient operator does: the first late one counts.
            process.send_signal(signal.SIGINT)
            time.sleep(0.05)
        assert time.monotonic() - heard >= SAME_WISH_S
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "second signal (SIGINT)" in out
