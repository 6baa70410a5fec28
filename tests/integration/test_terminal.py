"""Prompts and live screens, on a real pseudo-terminal."""

import contextlib
import fcntl
import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator

import pytest

from tests.integration.daemons import ROOT, Site, sites

__all__ = ["sites"]

DEADLINE_S = 30.0
PRESS_EVERY_S = 1.0


class Terminal:
    """One command of `ttserver` on a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        self._end, other = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ttserver", *arguments],
            stdin=other,
            stdout=other,
            stderr=other,
            cwd=ROOT,
            start_new_session=True,
            preexec_fn=_take_terminal,  # noqa: PLW1509 - one call, no lock
            env={**os.environ, "TERM": "xterm-256color"},
        )
        os.close(other)
        self.text = ""

    def read_until(self, wanted: str) -> None:
        """Read the screen until it shows something."""
        seen = len(self.text)
        end = time.monotonic() + DEADLINE_S
        while wanted not in self.text[seen:]:
            assert self._read(end), f"{wanted!r} never came: {self.text!r}"

    def type(self, line: str) -> None:
        os.write(self._end, line.encode())

    def finish(self) -> int:
        """Read to the end and give the exit status."""
        end = time.monotonic() + DEADLINE_S
        while self._read(end):
            pass
        return self.process.wait(timeout=DEADLINE_S)

    def interrupt(self) -> int:
        """Press Ctrl-C until the process ends, and give its exit status.

        Once is not enough where it comes just before the process begins to read: then the handler
        has run already, and nothing interrupts the read.
        """
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end:
            self.type("\x03")
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self.process.wait(timeout=PRESS_EVERY_S)
        raise AssertionError(f"it does not end: {self.text!r}")

    def close(self) -> None:
        self.process.kill()
        self.process.wait(timeout=DEADLINE_S)
        os.close(self._end)

    def _read(self, end: float) -> bool:
        ready, _, _ = select.select([self._end], [], [], max(0.0, end - time.monotonic()))
        assert ready, f"nothing more came: {self.text!r}"
        try:
            data = os.read(self._end, 65536)
        except OSError:  # EIO: nobody has the other end open any more
            return False
        self.text += data.decode("utf-8", "replace")
        return bool(data)


def _take_terminal() -> None:
    """Let Ctrl-C on the terminal reach this process, as a shell does."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    made: list[Terminal] = []

    def open_(site: Site, *arguments: str) -> Terminal:
        made.append(Terminal("--home", str(site.home), *arguments))
        return made[-1]

    yield open_
    for one in made:
        one.close()


@pytest.fixture
def master(sites: Callable[[str], Site]) -> Site:
    site = sites("master")
    site.init("master")
    site.start()
    site.wait_for_state("running")
    return site


def test_wipe_asks_first(sites: Callable[[str], Site], terminal: Callable[..., Terminal]) -> None:
    site, far = sites("replicant"), sites("far")
    site.init("replicant", far)
    data = site.home / "var" / "db" / "keys.db"
    data.write_text("x")
    no = terminal(site, "wipe")
    no.read_until("Remove them?")
    no.type("n\n")
    assert no.finish() == 1
    assert "nothing was changed" in no.text
    assert data.exists()
    yes = terminal(site, "wipe")
    yes.read_until("Remove them?")
    yes.type("y\n")
    assert yes.finish() == 0
    assert not data.exists()


def test_a_password_is_asked_for_twice_and_not_shown(
    master: Site, terminal: Callable[..., Terminal]
) -> None:
    screen = terminal(master, "user", "add", "bob", "--role", "administrator")
    # The blank after the colon comes once the terminal has stopped to show what is typed.
    screen.read_until("Password for bob: ")
    screen.type("four random words\n")
    screen.read_until("confirmation: ")
    screen.type("four random words\n")
    assert screen.finish() == 0
    assert "user bob added (administrator)" in screen.text
    assert "four random" not in screen.text


def test_watch_redraws_one_screen_until_ctrl_c(
    master: Site, terminal: Callable[..., Terminal]
) -> None:
    screen = terminal(master, "status", "--watch", "--interval", "0.1")
    screen.read_until("RUNNING")
    master.end()
    screen.read_until("no daemon runs on")
    screen.type("\x03")
    assert screen.finish() == 0


def test_ctrl_c_at_a_prompt_changes_nothing(
    master: Site, terminal: Callable[..., Terminal]
) -> None:
    screen = terminal(master, "user", "remove", "tapemaster")
    screen.read_until("Remove user tapemaster?")
    assert screen.interrupt() != 0
    assert [user["name"] for user in master.json("user", "list")] == ["tapemaster"]
