"""One site whose daemon is a child of this process."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import ttserver
from replication.journal_line import Line, parse_line
from ttserver.control_client import ControlClient, ControlError, NotRunningError
from ttserver.errors import TtserverError
from ttserver.home import Home

T = TypeVar("T")

ROOT = Path(ttserver.__file__).parents[1]
# Generous: a flush of a busy disk may take seconds, and an initial sync needs many.
DEADLINE_S = 300.0
STOP_DEADLINE_S = 60.0
LOOK_S = 0.05
TAIL_LINES = 15


class SiteError(TtserverError):
    """A site did not do what it was told or waited for."""

    default_code = "SITE"


class SiteProcess:
    """A HOME and, between `start` and `stop`, its daemon.

    Start it from the main thread: the daemon is tied to the thread that started it, so that it
    ends when this process is killed.

    Args:
        name: what to call it in messages.
        root: its HOME.
        log: the file for what the daemon writes to standard error.
        tie: the signal that the daemon gets when this process ends.
        deadline_s: how long to wait for a state.
    """

    def __init__(
        self,
        name: str,
        root: Path,
        log: Path,
        *,
        tie: signal.Signals = signal.SIGTERM,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self.name = name
        self.home = Home(root)
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None
        self.deadline_s = deadline_s
        self._tie = tie

    # -- the operator's program

    def command(self, *arguments: str) -> list[str]:
        """Give the command line of `ttserver` for this HOME."""
        return [sys.executable, "-m", "ttserver", "--home", str(self.home.root), *arguments]

    def cli(self, *arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        """Run one command on this HOME to its end."""
        return subprocess.run(
            self.command(*arguments),
            input=stdin,
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=DEADLINE_S,
            check=False,
        )

    def must(self, *arguments: str, stdin: str = "") -> str:
        """Run one command that has to succeed, and give what it printed.

        Raises:
            SiteError: its exit status was not 0.
        """
        done = self.cli(*arguments, stdin=stdin)
        if done.returncode != 0:
            raise SiteError(
                f"`ttserver {arguments[0]}` of the {self.name} failed with exit status"
                f" {done.returncode}: {done.stderr.strip()}"
            )
        return done.stdout

    # -- the daemon

    def start(
        self,
        *arguments: str,
        prefix: Sequence[str] = (),
        environment: dict[str, str] | None = None,
    ) -> None:
        """Start the daemon.

        Args:
            *arguments: of `ttserver run`.
            prefix: a program that ends by running its arguments in its own place.
            environment: variables to add.
        """
        tie = ["setpriv", "--pdeathsig", self._tie.name.removeprefix("SIG"), "--"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *prefix,
                    *(tie if shutil.which(tie[0]) else ()),
                    *self.command("run", *arguments),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, **(environment or {})},
                start_new_session=True,  # Ctrl-C is ours to pass on, in the right order
            )

    @property
    def alive(self) -> bool:
        """Whether the daemon runs."""
        return self.process is not None and self.process.poll() is None

    def status(self) -> dict[str, Any] | None:
        """Ask the daemon how it is; None while it does not answer yet."""
        try:
            with ControlClient(self.home.socket) as daemon:
                return dict(daemon.ask("status"))
        except NotRunningError:
            return None

    def wait(self, what: str, condition: Callable[[dict[str, Any]], T | None]) -> T:
        """Look at the status until the condition gives something true, and give that.

        Raises:
            SiteError: not before the deadline, or the daemon ended.
        """
        end_s = time.monotonic() + self.deadline_s
        status: dict[str, Any] | None = None
        while True:
            ended = not self.alive
            try:
                status = self.status() or status
            except ControlError as error:  # it is stopping
                if not ended:
                    raise SiteError(f"{self.name} cannot be asked: {error}") from error
            if status is not None and not ended and (found := condition(status)):
                return found
            if ended:
                assert self.process is not None, "it was started"
                raise SiteError(
                    f"{self.name} ended with exit status {self.process.returncode} before it was"
                    f" {what}"
                )
            if time.monotonic() > end_s:
                raise SiteError(
                    f"{self.name} was not {what} within {self.deadline_s:g} s: {status}"
                )
            time.sleep(LOOK_S)

    def wait_running(self) -> dict[str, Any]:
        """Wait until the site is Running; give its status."""
        return self.wait("running", lambda s: s if s["state"] == "running" else None)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int | None:
        """End the daemon in order; it is killed when it does not go.

        Returns:
            Its exit status; None when it was not running.
        """
        process = self.process
        if process is None or process.poll() is not None:
            return None
        process.send_signal(signal.SIGCONT)  # a stopped process takes no other signal
        process.send_signal(how)
        try:
            return process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return process.returncode

    def kill(self) -> None:
        """End the daemon on the spot, however it is."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(STOP_DEADLINE_S)

    def freeze(self) -> None:
        """Stop the process where it is."""
        assert self.process is not None, "it was started"
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let the process go on."""
        assert self.process is not None, "it was started"
        self.process.send_signal(signal.SIGCONT)

    # -- what it wrote

    def events(self) -> list[Line]:
        """Read the journal, `$DB_Msg.txt`; the library's own lines are left out."""
        try:
            lines = self.home.journal.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return []
        return [line for text in lines if (line := parse_line(text)) is not None]

    def tail(self, lines: int = TAIL_LINES) -> str:
        """Show the ends of the log and the journal, for a person who wants to know why."""
        parts = []
        for path in (self.log, self.home.journal):
            try:
                last = path.read_text(errors="replace").splitlines()[-lines:]
            except (FileNotFoundError, NotADirectoryError):
                last = ["(it does not exist)"]
            parts += [f"---- {self.name}: {path}", *last]
        return "\n".join(parts)
