"""Real daemons for tests: sites made as by `ttserver init`, run by `ttserver run`.

Every daemon ends with its test, however that ends: by its id when the fixture is left, and by the
kernel when the test process itself is killed. What the daemons wrote is shown when a test fails.
"""

import json
import os
import re
import shutil
import signal
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from replication.journal_line import Line
from storage.users import ADMINISTRATOR, UserRecord, new_record
from ttserver.address import Address
from ttserver.demo.ports import reserved
from ttserver.demo.site import SiteError, SiteProcess
from ttserver.init import Role, make_plan, write

T = TypeVar("T")

PASSWORD = "correct horse"
# Nothing here measures speed: a flush may take seconds, and other tests may run beside.
DEADLINE_S = 90.0
LOOK_S = 0.03
SHM = Path("/dev/shm")
SHM_FREE_BYTES_MIN = 2 * 2**30


def wait_for(
    what: str | Callable[[], str], condition: Callable[[], T], *, deadline_s: float = DEADLINE_S
) -> T:
    """Look until the condition gives something true, and give that; fail after the deadline."""
    end_s = time.monotonic() + deadline_s
    while not (found := condition()):
        if time.monotonic() > end_s:
            raise AssertionError(
                f"not within {deadline_s:g} s: {what if isinstance(what, str) else what()}"
            )
        time.sleep(LOOK_S)
    return found


@cache
def administrator() -> UserRecord:
    """Hash PASSWORD once for all sites: that takes a while, on purpose."""
    return new_record(ADMINISTRATOR, PASSWORD, "administrator")


class Remote(Protocol):
    """Another site, ours or a native one."""

    replication: Address


class Site(SiteProcess):
    """A site with its ports, its clients, and ways to harm it.

    Args:
        name: of its directory.
        directory: where its HOME and its log go.
        held: keeps its ports reserved; see `ttserver.demo.ports`.
    """

    def __init__(self, name: str, directory: Path, held: ExitStack) -> None:
        super().__init__(
            name,
            directory / name,
            directory / f"{name}.log",
            tie=signal.SIGKILL,
            deadline_s=DEADLINE_S,
        )
        self.replication = held.enter_context(reserved("127.0.0.1"))
        self.clients = held.enter_context(reserved("127.0.0.1"))
        self._begin_at = 0

    # -- its files

    def init(self, role: Role, *remotes: "Remote", priority: int | None = None) -> None:
        """Make its HOME with the code of `ttserver init`; the password is PASSWORD."""
        addresses = [str(remote.replication) for remote in remotes]
        plan = make_plan(self.home, role, str(self.replication), addresses, priority)
        write(plan, administrator() if role == "master" else None)
        self.serve_clients_at_own_port()

    def init_by_program(self, role: Role, *remotes: "Site") -> None:
        """Make its HOME with `ttserver init` itself."""
        arguments = ["init", "--role", role, "--local", str(self.replication)]
        for remote in remotes:
            arguments += ["--remote", str(remote.replication)]
        if role == "master":
            arguments.append("--password-stdin")
        self.must(*arguments, stdin=f"{PASSWORD}\n" if role == "master" else "")
        self.serve_clients_at_own_port()

    def serve_clients_at_own_port(self) -> None:
        """Write the client port into ttserver.toml."""
        self.toml(client={"listen": str(self.clients)})

    def toml(self, **sections: dict[str, object]) -> None:
        """Set keys in ttserver.toml."""
        path = self.home.toml
        tree = tomllib.loads(path.read_text()) if path.exists() else {}
        for section, keys in sections.items():
            tree.setdefault(section, {}).update(keys)
        lines = []
        for section, keys in tree.items():
            lines.append(f"[{section}]")
            # What JSON and TOML write alike: numbers, plain text, true and false.
            lines += [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
        path.write_text("\n".join(lines) + "\n")

    def db_config(self, *lines: str) -> None:
        """Add lines to DB_CONFIG."""
        with self.home.db_config.open("a") as out:
            out.writelines(f"{line}\n" for line in lines)

    def empty_environment(self, keep: Callable[[str], bool] = lambda _: False) -> list[str]:
        """Remove files of var/db by hand.

        Returns:
            The names of what was removed.
        """
        gone = [path for path in self.home.environment.iterdir() if not keep(path.name)]
        for path in gone:
            path.unlink()
        return sorted(path.name for path in gone)

    # -- its daemon

    def run(self, *arguments: str, **options: Any) -> dict[str, Any]:
        """Start the daemon and wait until the site is Running; give its status."""
        self.start(*arguments, **options)
        return self.wait_running()

    def start(self, *arguments: str, **options: Any) -> None:
        """Start the daemon; `new_events` begin here."""
        self._begin_at = len(self.events())
        super().start(*arguments, **options)

    def wait(self, what: str, condition: Callable[[dict[str, Any]], T | None]) -> T:
        """Look at the status until the condition gives something true; fail with the logs."""
        try:
            return super().wait(what, condition)
        except SiteError as error:
            raise AssertionError(f"{error}\n{self.tail(60)}") from error

    def now(self) -> dict[str, Any]:
        """Ask the daemon how it is."""
        status = self.status()
        assert status is not None, f"the {self.name} does not answer"
        return status

    def rss_bytes(self, pid: int | None = None) -> int:
        """How much memory the daemon holds, shared regions included."""
        if pid is None:
            assert self.process is not None
            pid = self.process.pid
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        assert found is not None, "a zombie has no memory"
        return int(found[1]) * 1024

    def wait_why(self, word: str) -> str:
        """Wait until the status gives a reason with this word in it; give the reason."""

        def given(status: dict[str, Any]) -> str | None:
            why = str(status["why"] or "")
            return why if word in why else None

        return self.wait(f"waiting ({word})", given)

    def new_events(self) -> list[Line]:
        """What the journal says since the last start."""
        return self.events()[self._begin_at :]

    def count(self, event: str) -> int:
        """Count these events in the whole journal."""
        return sum(line.event == event for line in self.events())

    def wait_event(self, event: str, **facts: str) -> Line:
        """Wait until the journal has this event since the last start, with these facts."""

        def found() -> Line | None:
            for line in self.new_events():
                if line.event == event and facts.items() <= line.facts.items():
                    return line
            return None

        line = wait_for(lambda: f"{self.name}: {event} {facts}\n{self.tail()}", found)
        assert line is not None
        return line

    # -- its clients

    def client(self, user: str = ADMINISTRATOR, password: str = PASSWORD) -> redis.Redis:
        """Log on; nothing is ever repeated behind the test's back."""
        return redis.Redis(
            host=self.clients.host,
            port=self.clients.port,
            username=user,
            password=password,
            socket_timeout=DEADLINE_S,
            socket_connect_timeout=DEADLINE_S,
            retry=Retry(NoBackoff(), 0),
            single_connection_client=True,
        )

    def put(self, *keys: str, value: str = "value") -> None:
        """Write keys; each is answered OK."""
        with self.client() as client:
            for key in keys:
                assert client.set(key, value) is True

    def get(self, key: str) -> str | None:
        """Read one key."""
        with self.client() as client:
            value = client.get(key)
            return None if value is None else value.decode()

    def contents(self) -> dict[bytes, bytes]:
        """Read everything."""
        with self.client() as client:
            flat = client.execute_command("RANGE", "-", "+")
            return dict(zip(flat[::2], flat[1::2], strict=True))

    def wait_key(self, key: str, value: str = "value") -> None:
        """Wait until the site has this key."""
        wait_for(f"{key} on the {self.name}", lambda: self.get(key) == value)


Sites = Callable[[str], Site]


@contextmanager
def fast_directory() -> Iterator[Path]:
    """Give a directory that is not slowed down by a disk, where there is one.

    The tests that use it are about order and loss of processes, which need no disk: what a killed
    process has written is the kernel's, in memory or not. A flush on a busy disk takes seconds.
    """
    big = SHM.is_dir() and shutil.disk_usage(SHM).free >= SHM_FREE_BYTES_MIN
    with tempfile.TemporaryDirectory(prefix="ttserver-test-", dir=SHM if big else None) as path:
        yield Path(path)


@pytest.fixture
def fast_path() -> Iterator[Path]:
    """Give a `fast_directory` for one test."""
    with fast_directory() as path:
        yield path


@contextmanager
def running_sites(directory: Path) -> Iterator[Sites]:
    """Make sites by name; their daemons do not outlive the context."""
    made: list[Site] = []
    with ExitStack() as held:

        def make(name: str) -> Site:
            made.append(Site(name, directory, held))
            return made[-1]

        try:
            yield make
        finally:
            for site in made:
                site.kill()
            for site in made:
                print(site.tail(60))


@pytest.fixture
def sites(fast_path: Path) -> Iterator[Sites]:
    """Make sites by name; pytest shows what they wrote when the test fails."""
    with running_sites(fast_path) as make:
        yield make


@pytest.fixture
def initialised(sites: Sites) -> tuple[Site, Site]:
    """Give a master and its replicant, made by `init` and not started."""
    master, replicant = sites("master"), sites("replicant")
    master.init("master", replicant)
    replicant.init("replicant", master)
    return master, replicant


@pytest.fixture
def pair(initialised: tuple[Site, Site]) -> tuple[Site, Site]:
    """Give a master and its replicant, both Running."""
    master, replicant = initialised
    master.start()
    replicant.start()
    for site in initialised:
        site.wait_running()
    return initialised


def caught_up(master: Site, replicant: Site) -> bool:
    """Tell whether the replicant has applied all that the master has."""
    ahead, behind = master.now(), replicant.now()
    same = ahead["generation"] == behind["generation"]
    return bool(same and behind["state"] == "running" and behind["applied_lsn"] >= ahead["lsn"])


def wait_caught_up(master: Site, replicant: Site) -> None:
    """Wait until the replicant has applied all that the master has."""
    wait_for(
        lambda: f"{replicant.name} as far as {master.name}: {master.now()} {replicant.now()}",
        lambda: caught_up(master, replicant),
    )


def as_root() -> bool:
    """Tell whether this process may do everything to files and mounts."""
    return os.geteuid() == 0
