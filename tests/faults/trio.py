"""Three sites under load, and everything that can happen to one of them, or between them.

Each round hits the group once (kill, freeze, cut off, all at once), lets it go on as far as it
should, undoes the harm, and waits until everybody follows one master again. At the end every write
that was answered OK at QUORUM has to be on every site.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from storage.users import ADMINISTRATOR
from tests.faults.storm import verify
from tests.faults.writers import Load
from tests.support.cutter import Cutter, cutter
from tests.support.sites import PASSWORD, Site, caught_up, running_sites, wait_for
from ttserver.demo.ports import reserved
from ttserver.init import Role

WRITERS = 3
# So many writes are answered OK before the harm is done, and again after it.
ACKED_BEFORE = (20, 200)
ACKED_AFTER = 20
# A client that meets a frozen site must go on to the next.
REPLY_TIMEOUT_S = 3.0
FROZEN_S = (0.2, 3.0)
CUT_S = (0.2, 4.0)


class Trio:
    """See the module's text.

    Args:
        sites: three, Running.
        network: between them.
        seed: of everything that is left to chance here.
        say: told of each round.
    """

    def __init__(
        self,
        sites: Sequence[Site],
        network: Cutter,
        seed: int,
        say: Callable[[str], None] = print,
    ) -> None:
        self.sites = sites
        self.network = network
        self.load = Load(WRITERS, self._connect, seed, moves=True)
        self.gaps_s: list[float] = []
        self._random = random.Random(seed)
        self._say = say

    def run(self, rounds: int) -> None:
        """Do harm so often, then see that everything acknowledged is everywhere."""
        with self.load:
            for number in range(rounds):
                self.round(number)
        self.reckon()

    def round(self, number: int) -> None:
        """Hit the group once and see it recover."""
        self._acknowledged(self._random.randint(*ACKED_BEFORE))
        harm = self._random.choices(
            [self._kill, self._kill_two, self._freeze, self._isolate, self._cut_one_pair],
            weights=(6, 1, 3, 4, 2),
        )[0]
        victim = self.master() if self._random.random() < 0.6 else self._random.choice(self.sites)
        began_s = time.monotonic()
        what = harm(victim)
        self._in_step()
        self._acknowledged(ACKED_AFTER)
        gap_s = time.monotonic() - began_s
        self.gaps_s.append(gap_s)
        self._say(f"round {number}: {what}; all in step after {gap_s:.1f} s")

    # -- harm

    def _kill(self, victim: Site) -> str:
        was = self._role(victim)
        victim.kill()
        self._acknowledged(ACKED_AFTER)  # by the two others
        victim.start()
        return f"killed {was}"

    def _kill_two(self, victim: Site) -> str:
        other = self._random.choice([site for site in self.sites if site is not victim])
        was = f"{self._role(victim)} and {self._role(other)}"
        victim.kill()
        other.kill()
        self._pause(1.0)
        victim.start()
        other.start()
        return f"killed {was}"

    def _freeze(self, victim: Site) -> str:
        was, seconds = self._role(victim), self._random.uniform(*FROZEN_S)
        victim.freeze()
        threading.Event().wait(seconds)
        victim.thaw()
        return f"froze {was} for {seconds:.1f} s"

    def _isolate(self, victim: Site) -> str:
        was = self._role(victim)
        self.network.isolate(victim.name)
        self._acknowledged(ACKED_AFTER)  # by the two others
        self._pause(CUT_S[1])
        self.network.heal()
        return f"cut off {was}"

    def _cut_one_pair(self, victim: Site) -> str:
        other = self._random.choice([site for site in self.sites if site is not victim])
        seconds = self._random.uniform(*CUT_S)
        self.network.cut([(victim.name, other.name)])
        threading.Event().wait(seconds)
        self.network.heal()
        return f"cut between {victim.name} and {other.name} for {seconds:.1f} s"

    # -- looking

    def master(self) -> Site:
        """Wait for a master that takes writes, and give it."""
        found = wait_for(lambda: f"a master: {self._statuses()}", self._find_master)
        assert found is not None
        return found

    def _find_master(self) -> Site | None:
        for site in self.sites:
            status = site.status()
            if status is not None and status["role"] == "master" and not status["read_only"]:
                return site
        return None

    def _role(self, site: Site) -> str:
        status = site.status() or {}
        return f"{site.name} ({status.get('role', 'down')})"

    def _statuses(self) -> list[object]:
        keys = ("state", "role", "master", "generation", "lsn", "why")
        return [
            {key: status[key] for key in keys} if (status := site.status()) else None
            for site in self.sites
        ]

    def _in_step(self) -> None:
        wait_for(lambda: f"all in step: {self._statuses()}", self._all_follow)

    def _all_follow(self) -> bool:
        statuses = [site.status() for site in self.sites]
        masters = [s for s in statuses if s is not None and s["role"] == "master"]
        followers = [s for s in statuses if s is not None and s["role"] == "replicant"]
        return (
            len(masters) == 1
            and len(followers) == 2
            and all(s["master"] == masters[0]["site"] for s in followers)
            and all(s["state"] == "running" for s in (*masters, *followers))
        )

    def _connect(self) -> redis.Redis:
        """Log on at one that says it is master; while one is cut off, two may."""
        for site in random.sample(self.sites, len(self.sites)):
            client = redis.Redis(
                host=site.clients.host,
                port=site.clients.port,
                username=ADMINISTRATOR,
                password=PASSWORD,
                socket_timeout=REPLY_TIMEOUT_S,
                socket_connect_timeout=REPLY_TIMEOUT_S,
                retry=Retry(NoBackoff(), 0),
                single_connection_client=True,
            )
            try:
                if client.role()[0] in (b"master", "master"):
                    return client
            except (redis.RedisError, OSError):
                pass
            client.close()
        raise redis.ConnectionError("no site is master now")

    def _acknowledged(self, more: int) -> None:
        wanted = self.load.acknowledged + more
        wait_for(
            lambda: f"{more} writes answered OK: {self._why()}",
            lambda: self.load.acknowledged >= wanted or self.load.complaints(),
        )
        assert not self.load.complaints(), self._why()

    def _why(self) -> str:
        return f"{self.load.complaints()[:3]} {self._statuses()}"

    def _pause(self, most_s: float) -> None:
        """Let a random time pass: what is hit is the moment, nothing is waited for."""
        threading.Event().wait(self._random.uniform(0, most_s))

    def reckon(self) -> None:
        """See that all sites hold what was acknowledged, and that their files are sound."""
        assert not self.load.complaints(), self._why()
        self._in_step()
        master = self.master()
        others = [site for site in self.sites if site is not master]
        wait_for(
            lambda: f"all have everything: {self._statuses()}",
            lambda: all(caught_up(master, site) for site in others),
        )
        contents = master.contents()
        assert not self.load.disagreements(contents), self.load.disagreements(contents)[:5]
        for site in others:
            assert site.contents() == contents, f"{site.name} differs from {master.name}"
        for site in (*others, master):
            assert site.stop() == 0
            verify(site)
        self._say(
            f"{self.load.acknowledged} writes answered OK, {self.load.uncertain} left open,"
            f" {len(contents)} keys, the same on all three sites"
        )


@contextmanager
def trio(directory: Path, seed: int, say: Callable[[str], None] = print) -> Iterator[Trio]:
    """Make three sites with a network that can be cut, all Running, QUORUM acknowledging."""
    with cutter() as network, running_sites(directory) as make:
        sites = [make(name) for name in ("one", "two", "three")]
        with reserved("127.0.0.1") as a, reserved("127.0.0.1") as b, reserved("127.0.0.1") as c:
            for site, real, priority in zip(sites, (a, b, c), (3, 2, 1), strict=True):
                role: Role = "master" if site is sites[0] else "replicant"
                others = [other for other in sites if other is not site]
                site.init(role, *others, priority=priority)
                site.toml(replication={"listen": str(real)})
                network.add(site.name, site.replication, real)
            for site in sites:
                site.start()
            for site in sites:
                site.wait_running()
            yield Trio(sites, network, seed, say)
