"""Kills under load: rounds of kill -9, recovery and new writes, then the reckoning."""

import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults.writers import Load
from tests.support.sites import Site, wait_caught_up, wait_for

WRITERS = 4
# So many writes are answered OK before a kill, and again after it.
ACKED_BEFORE = (30, 400)
ACKED_AFTER = 30
# So many get no OK while the replicant is down.
MISSED = (5, 200)
TOOLS_TIMEOUT_S = 300


class Storm:
    """A pair of sites under load.

    Args:
        master, replicant: both Running.
        seed: of everything that is left to chance here.
        say: told of each round.
    """

    def __init__(
        self, master: Site, replicant: Site, seed: int, say: Callable[[str], None] = print
    ) -> None:
        self.master = master
        self.replicant = replicant
        self.load = Load(WRITERS, master.client, seed)
        self._random = random.Random(seed)
        self._say = say

    @property
    def sites(self) -> tuple[Site, Site]:
        """Both, the master first."""
        return self.master, self.replicant

    def run(self, rounds: int) -> None:
        """Kill so often, then see that everything acknowledged is everywhere."""
        with self.load:
            for number in range(rounds):
                self.round(number)
        self.reckon()

    def round(self, number: int) -> None:
        """Kill one site, or both, at some moment under load, and see them return."""
        self._acknowledged(self._random.randint(*ACKED_BEFORE))
        self._pause(0.05)
        victims = self._random.choices(
            [(self.master,), (self.replicant,), self.sites], weights=(9, 9, 2)
        )[0]
        began_s, acked = time.monotonic(), self.load.acknowledged
        for victim in victims:
            victim.kill()
        if self.master not in victims:
            self._missed(self._random.randint(*MISSED))
        for victim in victims:
            victim.start()
        if self._random.random() < 0.2:
            # In the middle of recovery, or of joining again.
            self._pause(1.0)
            victims[-1].kill()
            victims[-1].start()
        for site in self.sites:
            site.wait_running()
        self._acknowledged(ACKED_AFTER)
        names = " and ".join(victim.name for victim in victims)
        self._say(
            f"round {number}: killed {names} after {acked} OK;"
            f" OK again after {time.monotonic() - began_s:.1f} s"
        )

    def _acknowledged(self, more: int) -> None:
        wanted = self.load.acknowledged + more
        wait_for(
            lambda: f"{more} writes answered OK: {self._why()}",
            lambda: self.load.acknowledged >= wanted or self.load.complaints(),
        )
        assert not self.load.complaints(), self._why()

    def _missed(self, more: int) -> None:
        wanted = self.load.uncertain + more
        wait_for(
            lambda: f"{more} writes without OK: {self._why()}",
            lambda: self.load.uncertain >= wanted or self.load.complaints(),
        )

    def _why(self) -> str:
        return f"{self.load.complaints()[:3]} {[site.status() for site in self.sites]}"

    def _pause(self, most_s: float) -> None:
        """Let a random time pass: what is hit is the moment, nothing is waited for."""
        threading.Event().wait(self._random.uniform(0, most_s))

    def reckon(self) -> None:
        """See that both sites hold what was acknowledged, and that their files are sound."""
        assert not self.load.complaints(), self._why()
        wait_caught_up(self.master, self.replicant)
        contents = self.master.contents()
        assert not self.load.disagreements(contents), self.load.disagreements(contents)[:5]
        assert self.replicant.contents() == contents
        for site in self.sites:
            assert site.stop() == 0
        for site in self.sites:
            verify(site)
        self._say(
            f"{self.load.acknowledged} writes answered OK, {self.load.uncertain} left open,"
            f" {len(contents)} keys, the same on both sites"
        )


def verify(site: Site) -> None:
    """Run the library's own check on a copy of a stopped site's environment."""
    copy = site.home.root.with_name(f"{site.name}.verify")
    copy.mkdir()
    for path in site.home.environment.iterdir():
        # Not the regions: they are of the environment they were made in.
        if not path.name.startswith("__db.0"):
            shutil.copyfile(path, copy / path.name)
    databases = sorted(path.name for path in copy.glob("*.db"))
    assert "keys.db" in databases
    _tool("db5.3_recover", "-h", str(copy))
    _tool("db5.3_verify", "-q", "-h", str(copy), *databases)
    shutil.rmtree(copy)


def _tool(*command: str) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=TOOLS_TIMEOUT_S, check=False
    )
    assert done.returncode == 0, f"{Path(command[0]).name}: {done.stdout}{done.stderr}"
