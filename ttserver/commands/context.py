"""What commands see of the world: the engine, the logon, the server and the client they serve.

The engine and the logon are protocols here, so that this package needs neither replication nor
an environment, and its tests bring their own small ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from ttserver.commands.cursors import Cursors

if TYPE_CHECKING:
    from berkeleydb.db import DBTxn

    from replication.generations import CommitToken
    from replication.messages import AckPolicy
    from storage.access import Access
    from storage.accounts import Accounts
    from storage.catalog.catalog import Catalog
    from storage.groups import Groups
    from storage.keyspace import Keyspace
    from storage.users import Users
    from ttserver.auth import JournalLike
    from ttserver.commands.table import Command
    from ttserver.settings import LimitSettings, Settings

T = TypeVar("T")
Lsn = tuple[int, int]


class Outcome(Protocol):
    """How one write ended."""

    result: Any  # what work(txn) returned
    error: Exception | None  # why nothing of it was written
    lsn: Lsn | None
    generation: int
    perm_failed: str | None  # the ack policy was not met: who acknowledged and who did not


class WatchLike(Protocol):
    """The keys a client watches."""

    @property
    def dirty(self) -> bool: ...

    def mark(self) -> None:
        """Make it dirty."""

    def close(self) -> None: ...


class SiteStatus(Protocol):
    """One other site as this one sees it."""

    site: str
    status: str
    role: str
    acked_lsn: Sequence[int] | None
    last_contact_seconds: float | None


class Status(Protocol):
    """How this site is."""

    state: str
    serving: bool
    role: str
    read_only: bool
    site: str
    generation: int
    master: str | None
    lsn: Sequence[int]
    applied_lsn: Sequence[int]
    lag_bytes: int | None
    lag_seconds: float | None

    ack_note: str | None

    @property
    def sync(self) -> object: ...

    @property
    def sites(self) -> Sequence[SiteStatus]: ...


class ConfigLike(Protocol):
    """The configuration; see `ttserver.config.ServerConfig`."""

    @property
    def settings(self) -> Settings: ...

    def in_force(self) -> Mapping[str, str]: ...


class WaitsLike(Protocol):
    """Waiting for writes; see `ttserver.write_waits.WriteWaits`. Each refuses a lost write."""

    def acked_by(self, token: CommitToken) -> Sequence[str]: ...

    async def acked(self, token: CommitToken, count: int, timeout_s: float) -> int: ...

    async def applied(self, token: CommitToken, timeout_s: float) -> bool: ...


class EngineLike(Protocol):
    """The database as the client side uses it; everything on the event loop's thread."""

    @property
    def config(self) -> ConfigLike: ...

    @property
    def keyspace(self) -> Keyspace: ...

    @property
    def users(self) -> Users: ...

    @property
    def groups(self) -> Groups: ...

    @property
    def access(self) -> Access: ...

    @property
    def accounts(self) -> Accounts: ...

    @property
    def catalog(self) -> Catalog: ...

    @property
    def journal(self) -> JournalLike: ...

    @property
    def role(self) -> str: ...

    @property
    def read_only(self) -> bool: ...

    @property
    def master(self) -> str | None: ...

    @property
    def master_client_address(self) -> str | None: ...

    @property
    def notice(self) -> str | None: ...

    def submit(
        self,
        work: Callable[[DBTxn], Any],
        on_done: Callable[[Any], None],
        *,
        keys: Sequence[bytes] = (),
        watch: Any = None,
        user: str = "",
        policy: AckPolicy | None = None,
        ack_timeout_s: float | None = None,
    ) -> None:
        """Queue one write for the group commit; raises an error with a `code` to refuse it."""

    def read_now(self, read: Callable[[DBTxn], T]) -> T:
        """Read in the loop; raises `storage.reads.WouldBlock` when that could take long."""

    async def read(self, read: Callable[[DBTxn], T], *, limited: bool = True) -> T:
        """Read on a thread; `limited`: as the operator limits what clients may read."""

    def watch(self, keys: Iterable[bytes]) -> WatchLike: ...

    async def key_count(self) -> int: ...

    def status(self) -> Any: ...

    async def switchover(self, to: tuple[str, int] | None, timeout_s: float) -> None:
        """Hand the master's role over; raises an error with a `code` when it stays here."""

    @property
    def ack_policy(self) -> str:
        """The group's, by its name."""

    @property
    def ack_timeout_s(self) -> float: ...

    @property
    def waits(self) -> WaitsLike: ...


class Login(Protocol):
    """Who a client proved to be."""

    @property
    def user(self) -> str: ...

    @property
    def role(self) -> str: ...

    @property
    def rights(self) -> frozenset[str] | None: ...


# What a role may do: `read` and `write` keys, `system` is the server and others' sessions.
_RIGHTS: Final[Mapping[str, frozenset[str]]] = {
    "administrator": frozenset({"read", "write", "system"}),
    "user": frozenset({"read", "write"}),
}


def rights_of(login: Login | None) -> frozenset[str]:
    """The rights of who is logged on; none before."""
    if login is None:
        return frozenset()
    return _RIGHTS.get(login.role, frozenset()) if login.rights is None else login.rights


class Authenticator(Protocol):
    """Checks passwords; refuses with a `TtserverError`."""

    async def login(self, user: str, password: str, peer: str) -> Login: ...


@dataclass(frozen=True, slots=True)
class Store:
    """What a command that touches data gets: the databases and the sizes it must keep."""

    keyspace: Keyspace
    limits: LimitSettings
    catalog: Catalog
    users: Users
    groups: Groups
    access: Access


@dataclass(slots=True)
class Totals:
    """Sums over all clients since the start."""

    connections: int = 0
    refused: int = 0
    commands: int = 0
    writes: int = 0
    errors: int = 0
    logons_refused: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


@dataclass(slots=True)
class Queued:
    """A MULTI under way.

    Args:
        broken: a command could not be queued, so EXEC is refused.
    """

    commands: list[tuple[Command, list[bytes]]] = field(default_factory=list)
    size_bytes: int = 0
    broken: bool = False


@dataclass(slots=True, eq=False)
class Client:
    """One connection, as commands see and change it.

    Args:
        peer, local: the two ends, `host:port`.
        since: when it connected, on the loop's clock, seconds.
        unknown_since: since when nobody is logged on, while nobody is.
        end: closes this connection once the replies before are sent; takes the reason.
        ack_policy, ack_timeout_s: what its writes wait for and how long; None as the group's do.
    """

    id: int
    server: Server
    peer: str
    local: str
    since: float
    end: Callable[[str], None]
    fd: int = -1
    protocol: int = 2
    name: bytes = b""
    library: bytes = b""
    library_version: bytes = b""
    login: Login | None = None
    queued: Queued | None = None
    watch: WatchLike | None = None
    watched: set[bytes] = field(default_factory=set)
    last_write: tuple[int, Lsn] | None = None  # generation and LSN
    ack_policy: AckPolicy | None = None
    ack_timeout_s: float | None = None
    last_command: str = ""
    last_active: float = 0.0
    unknown_since: float = 0.0
    commands: int = 0
    writes: int = 0
    errors: int = 0
    bytes_in: int = 0
    bytes_out: int = 0

    @property
    def user(self) -> str:
        """Who is logged on; empty before."""
        return "" if self.login is None else self.login.user

    def note_write(self, outcome: Outcome) -> None:
        """Remember a write for LASTWRITE and WAIT.

        Outcomes come as their policies are met; the last write is the one furthest on in the log.
        """
        if outcome.lsn is not None:
            done = (outcome.generation, outcome.lsn)
            if self.last_write is None or self.last_write < done:
                self.last_write = done

    def unwatch(self) -> None:
        """Forget all watched keys."""
        if self.watch is not None:
            self.watch.close()
            self.watch = None
        self.watched.clear()


@dataclass(slots=True, eq=False)
class Server:
    """What all clients share.

    Args:
        settings: the configuration in force, name to text, for CONFIG GET.
        limits: what one client may ask for.
        now: the loop's clock, seconds.
        wall: the time of day, seconds since 1970.
        started: when the server started, on the loop's clock.
    """

    engine: EngineLike
    auth: Authenticator
    settings: Callable[[], Mapping[str, str]]
    limits: LimitSettings
    now: Callable[[], float]
    wall: Callable[[], float]
    started: float
    version: str
    clients_max: int
    port: int = 0
    clients: dict[int, Client] = field(default_factory=dict)
    totals: Totals = field(default_factory=Totals)
    cursors: Cursors = field(default_factory=Cursors)
