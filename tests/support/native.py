"""Native sites for tests: Berkeley DB's own Replication Manager, each in a child process.

A site outlives its process as its directory and port: it is killed, or closed in order, and started
again. Every process ends with its test; when the test process is killed its input ends, and so does
it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
from berkeleydb import db

from bench.child import Child, ChildFailedError
from tests.support.native_site import Request, Spec
from tests.support.sites import Remote, wait_for
from ttserver.address import Address
from ttserver.demo.ports import reserved

# Nothing waits long for what is lost, and no test is decided by how fast this machine is.
TIMEOUTS_US = {
    "ACK_TIMEOUT": 2_000_000,
    "CONNECTION_RETRY": 300_000,
    "ELECTION_RETRY": 300_000,
    "ELECTION_TIMEOUT": 1_000_000,
}


class Stat(msgspec.Struct, kw_only=True):
    """How a native site is.

    Args:
        role: master, client or none.
        master: whom it follows, or itself; None when it knows none.
        events: how often the library told each of its events since the process began.
        connected: the other sites with a connection, as HOST:PORT.
        perm_failed: its writes whose ack policy was not met.
    """

    role: str
    master: tuple[str, int] | None
    startup_done: bool
    generation: int
    events: dict[str, int]
    connected: list[str]
    perm_failed: int
    dropped_connections: int


class Native:
    """A native site; see `native_site.Spec` for what it may be told to be.

    Args:
        name: of its directory, and for messages.
        home: its environment.
        address: its own, kept for it; `replication` as that of our sites is called.
        options: of its spec.
    """

    def __init__(self, name: str, home: Path, address: Address, **options: Any) -> None:
        self.name = name
        self.home = home
        self.replication = address
        self.options = {"timeouts_us": TIMEOUTS_US, **options}
        self._child: Child | None = None
        self._printed = home.with_suffix(".log")

    # -- its process

    def start(self, role: str = "client", **options: Any) -> None:
        """Begin; a client that joins does so before this returns.

        Raises:
            ChildFailedError: the library refused; a site that cannot join says DBRepUnavailError.
        """
        self.spawn(**options)
        self.ask("start", role=role)

    def spawn(self, **options: Any) -> None:
        """Start the process, which does nothing yet."""
        assert self._child is None, f"{self.name} runs"
        helpers = options.pop("helpers", self.options.get("helpers", ()))
        peers = options.pop("peers", self.options.get("peers", ()))
        spec = Spec(
            **{
                **self.options,
                **options,
                "home": str(self.home),
                "host": self.replication.host,
                "port": self.replication.port,
                "helpers": [(to.replication.host, to.replication.port) for to in helpers],
                "peers": [(to.replication.host, to.replication.port) for to in peers],
            }
        )
        self._child = Child(
            self.name, "tests.support.native_site", msgspec.json.encode(spec), self._printed
        )

    def start_patiently(self, role: str = "client", **options: Any) -> None:
        """`start`, and again as long as nobody takes it in."""

        def started() -> bool:
            try:
                self.start(role, **options)
            except ChildFailedError as error:
                self.kill()
                if "DBRepUnavailError" not in str(error):
                    raise
                return False
            return True

        wait_for(f"{self.name} joins", started)

    def ask(self, do: str, **arguments: Any) -> Any:
        """Have it do something; see `native_site.NativeSite`."""
        assert self._child is not None, f"{self.name} was started"
        return self._child.ask(Request(do=do, arguments=arguments))

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._child is not None and self._child.process.poll() is None

    @property
    def pid(self) -> int:
        """Of its process."""
        assert self._child is not None, f"{self.name} was started"
        return self._child.process.pid

    def kill(self) -> None:
        """End its process on the spot."""
        if self._child is not None:
            self._child.process.kill()
            self._child.end()
            self._child = None

    def stop(self) -> None:
        """End it in order."""
        assert self._child is not None, f"{self.name} was started"
        self.ask("close")
        assert self._child.end() == 0
        self._child = None

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop its process where it is, meanwhile."""
        assert self._child is not None, f"{self.name} was started"
        with self._child.stopped():
            yield

    # -- how it is

    def stat(self) -> Stat:
        """Ask it."""
        return msgspec.convert(self.ask("stat"), Stat)

    def wait(self, what: str, condition: Callable[[Stat], object]) -> Stat:
        """Look until the condition holds."""
        seen: list[Stat] = []

        def found() -> Stat | None:
            seen[:] = [self.stat()]
            return seen[0] if condition(seen[0]) else None

        stat = wait_for(lambda: f"{self.name}: {what}: {seen}\n{self.tail()}", found)
        assert stat is not None
        return stat

    def wait_following(self, master: Remote) -> Stat:
        """Wait until it follows this master, and is in step with it."""
        address = (master.replication.host, master.replication.port)
        return self.wait(
            f"follows {master.replication}",
            lambda s: s.role == "client" and s.master == address and s.startup_done,
        )

    def wait_master(self) -> Stat:
        """Wait until it is master."""
        return self.wait("is master", lambda s: s.role == "master")

    def wait_event(self, event: str, count: int = 1) -> Stat:
        """Wait until the library told this event so often."""
        return self.wait(f"event {event}", lambda s: s.events.get(event, 0) >= count)

    def put(self, *keys: str, value: str = "value") -> int:
        """Write keys; give how many the ack policy was not met for."""
        return int(self.ask("put", items=dict.fromkeys(keys, value)))

    def items(self) -> dict[str, str]:
        """Read everything."""
        return dict(self.ask("items"))

    def wait_key(self, key: str, value: str = "value") -> None:
        """Wait until it has this key."""
        wait_for(
            lambda: f"{key} on {self.name}\n{self.tail()}",
            lambda: self.items().get(key) == value,
        )

    def tail(self, lines: int = 40) -> str:
        """The end of what its process printed."""
        try:
            printed = self._printed.read_text(errors="replace").splitlines()[-lines:]
        except FileNotFoundError:
            printed = ["(nothing)"]
        return "\n".join([f"---- {self.name}", *printed])


def read_beside(environment: Path, file: str = "keys.db") -> dict[str, str]:
    """Read a database of an environment that another process has open.

    Where the group has no user yet, nobody can ask the daemon.
    """
    env = db.DBEnv()
    env.open(str(environment), db.DB_JOINENV)
    try:
        keys = db.DB(env)
        try:
            keys.open(file, flags=db.DB_RDONLY)
            return {key.decode(): value.decode() for key, value in keys.items()}
        finally:
            keys.close()
    finally:
        env.close()


Natives = Callable[..., Native]


@contextlib.contextmanager
def native_sites(directory: Path) -> Iterator[Natives]:
    """Make native sites by name; their processes do not outlive the context."""
    made: list[Native] = []
    with ExitStack() as held:

        def make(name: str, *, home: Path | None = None, **options: Any) -> Native:
            address = options.pop("address", None) or held.enter_context(reserved("127.0.0.1"))
            made.append(Native(name, home or directory / name, address, **options))
            return made[-1]

        try:
            yield make
        finally:
            for site in made:
                site.kill()
                print(site.tail())
