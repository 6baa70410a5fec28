"""Real daemons for tests: processes of `python -m ttserver`, ended by their id whatever happens."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from storage.users import ADMINISTRATOR, new_record
from ttserver.control_client import ControlClient, NotRunningError
from ttserver.home import Home
from ttserver.init import make_plan, write

ROOT = Path(__file__).parents[2]
DEADLINE_S = 30.0
PASSWORD = "correct horse"


def free_port() -> int:
    """Ask the kernel for a port; nothing holds it until a daemon does."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


def wait_for(what: str, condition: Callable[[], Any], *, deadline_s: float = DEADLINE_S) -> Any:
    """Look until the condition gives something true; fail after the deadline."""
    end = time.monotonic() + deadline_s
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {deadline_s:g} s: {what}"
        time.sleep(0.02)
    return found


class NotifySocket:
    """A service manager: collects what a daemon tells it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self.messages: list[str] = []

    def read(self) -> list[str]:
        """Take what came and return all messages so far."""
        while True:
            try:
                self.messages.append(self._socket.recv(65536).decode())
            except BlockingIOError:
                return self.messages

    def close(self) -> None:
        self._socket.close()


class Site:
    """A site's HOME and, between `start` and the end, its daemon."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port()
        self.process: subprocess.Popen[str] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def stderr(self) -> Path:
        return self.home.with_name(f"{self.home.name}.stderr")

    def init(self, role: Literal["master", "replicant"], *remotes: "Site") -> None:
        """Make the HOME as `ttserver init` does; the administrator's password is PASSWORD."""
        addresses = [remote.address for remote in remotes]
        plan = make_plan(Home(self.home), role, self.address, addresses, None)
        record = new_record(ADMINISTRATOR, PASSWORD, "administrator") if role == "master" else None
        write(plan, record)

    def status(self) -> dict[str, Any]:
        """Ask the daemon how it is."""
        with ControlClient(self.home / "ttserver.sock") as daemon:
            return dict(daemon.ask("status"))

    def status_or_none(self) -> dict[str, Any] | None:
        """Ask the daemon how it is, if it answers already."""
        try:
            return self.status()
        except NotRunningError:
            return None

    def cli(self, *arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        """Run one command on this HOME."""
        return subprocess.run(
            [sys.executable, "-m", "ttserver", "--home", str(self.home), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=60,
            check=False,
            env={**os.environ, "COLUMNS": "200"},
        )

    def json(self, *arguments: str) -> Any:
        done = self.cli(*arguments, "--json")
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    def start(
        self,
        *arguments: str,
        environment: dict[str, str] | None = None,
        before: Callable[[], None] | None = None,
    ) -> "subprocess.Popen[str]":
        """Start the daemon; what it logs goes to a file beside HOME."""
        with self.stderr.open("a") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "ttserver", "--home", str(self.home), "run"),
                    *("--client-listen", "127.0.0.1:0", *arguments),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                text=True,
                cwd=ROOT,
                env={**os.environ, **(environment or {})},
                preexec_fn=before,  # noqa: PLW1509 - sets a limit and takes no lock
            )
        return self.process

    def wait_for_state(self, state: str) -> None:
        """Wait until `status` shows this state."""

        def shown() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.stderr.read_text()
            try:
                return bool(self.status()["state"] == state)
            except NotRunningError:
                return False

        wait_for(f"{self.address} {state}", shown)

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Stop the daemon and give its exit status."""
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(timeout=30)

    def kill(self) -> None:
        """End the daemon however it is."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(timeout=30)

    @property
    def journal(self) -> str:
        return (self.home / "var" / "db" / "$DB_Msg.txt").read_text()


@pytest.fixture
def sites(tmp_path: Path) -> Iterator[Callable[[str], Site]]:
    """Makes sites by name; their daemons do not outlive the test."""
    made: list[Site] = []

    def make(name: str) -> Site:
        made.append(Site(tmp_path / name))
        return made[-1]

    yield make
    for site in made:
        site.kill()
