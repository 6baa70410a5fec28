"""A peer's server process, a child of this one."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

STOP_TIMEOUT_S = 30.0


class Server:
    """Starts a program that stays in the foreground; it ends with this process.

    Args:
        name: what to call it in messages.
        words: its command line.
        directory: where it is started, and what it prints goes, into `printed.txt`.
        ends_by: the signal that ends it soon; its files are thrown away.
        user: who is to run it; None for who runs this.
    """

    def __init__(
        self,
        name: str,
        words: Sequence[str],
        directory: Path,
        ends_by: signal.Signals,
        user: str | None = None,
    ) -> None:
        self.name = name
        self._ends_by = ends_by
        tie = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
        # The system forgets the signal when a program changes its user, so the user comes first.
        with (directory / "printed.txt").open("ab") as printed:
            self._process = subprocess.Popen(
                [*tie, *words],
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=printed,
                cwd=directory,
                start_new_session=True,
                user=user,
                group=user,
                extra_groups=None if user is None else (),
            )

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End it."""
        if self.alive:
            self._process.send_signal(self._ends_by)
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(STOP_TIMEOUT_S)
