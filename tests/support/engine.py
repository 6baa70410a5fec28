"""A small engine for tests of the client port: real Berkeley DB, no replication.

Environment, group commit, reads and keyspace are the server's own. What replication would decide
is set by the test: refusals, unmet policies, reads that would block, what the status says.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from berkeleydb import db

from replication.generations import CommitToken
from replication.messages import AckPolicy
from storage.access import Access
from storage.accounts import Accounts
from storage.catalog.catalog import Catalog
from storage.catalog.files import CatalogFiles
from storage.catalog.names import CatalogError
from storage.commit import Batch, Committer, Watch, Write
from storage.database import Database
from storage.environment import Environment
from storage.groups import Groups
from storage.keyspace import Keyspace
from storage.reads import Reads, WouldBlock
from storage.users import UserError, Users
from ttserver.address import Address
from ttserver.auth import Login, LoginRefused
from ttserver.errors import TtserverError
from ttserver.replies import CommandError
from ttserver.settings import ClientSettings, LimitSettings, Settings
from ttserver.status import SiteStatus, Status, SyncStatus

T = TypeVar("T")
Lsn = tuple[int, int]
CLOSE_TIMEOUT_S = 10.0


class Refusal(TtserverError):
    """What an engine that takes no writes, or answers no reads, raises."""


@dataclass
class Outcome:
    """How one write ended; see `ttserver.engine.WriteOutcome`."""

    result: Any
    error: Exception | None
    lsn: Lsn | None
    generation: int
    perm_failed: str | None


@dataclass
class Config:
    """The part of the configuration that the client port reads."""

    settings: Settings

    def in_force(self) -> dict[str, str]:
        return {
            "client.max_clients": str(self.settings.client.max_clients),
            "storage.durability": self.settings.storage.durability,
        }


@dataclass
class Journal:
    """Remembers what was written."""

    lines: list[tuple[str, dict[str, object]]] = field(default_factory=list)

    def write(self, event: str, /, **facts: object) -> None:
        self.lines.append((event, facts))

    def write_seldom(self, event: str, /, *, every_s: float, burst: int, **facts: object) -> None:
        self.lines.append((event, facts))


def settings_for(
    limits: LimitSettings | None = None, client: ClientSettings | None = None
) -> Settings:
    """Settings with a port that the kernel chooses."""
    chosen = client or ClientSettings(listen=Address("127.0.0.1", 0))
    return Settings(client=chosen, limits=limits or LimitSettings())


@dataclass
class SmallWaits:
    """Answers what it was told.

    Attributes:
        holders: who acknowledged whatever is asked about.
        is_applied: whether it is here.
        lost: raised for every token.
        asked: the tokens that were asked about.
    """

    holders: list[str] = field(default_factory=list)
    is_applied: bool = True
    lost: Exception | None = None
    asked: list[CommitToken] = field(default_factory=list)

    def acked_by(self, token: CommitToken) -> list[str]:
        self.asked.append(token)
        if self.lost is not None:
            raise self.lost
        return self.holders

    async def acked(self, token: CommitToken, count: int, timeout_s: float) -> int:
        if len(self.acked_by(token)) < count:
            await asyncio.sleep(timeout_s or 3600)
        return len(self.holders)

    async def applied(self, token: CommitToken, timeout_s: float) -> bool:
        self.acked_by(token)
        if not self.is_applied:
            await asyncio.sleep(timeout_s)
        return self.is_applied


class SmallEngine:
    """See the module's text.

    Args:
        home: an empty directory for the environment.
        settings: limits and the like.

    Attributes:
        refuse_writes, refuse_reads: raised instead.
        would_block: no read is answered in the loop.
        perm_failed: what every write's outcome says about the acks.
        held: outcomes are kept back until `release`, for tests about order.
        lsns: of writes by their result's repr, where it is not 1/28.
        waits: what it says about acknowledgements and about other sites' writes.
        asked_acks: the policy and time-out that the last write was submitted with.
    """

    def __init__(self, home: Path, settings: Settings | None = None) -> None:
        self.config = Config(settings or settings_for())
        self.journal = Journal()
        self.environment = Environment(home)
        self._keys = Database(self.environment, "keys.db")
        self._users = Database(self.environment, "users.db")
        self.keyspace = Keyspace(self._keys.handle)
        self.users = Users(self._users.handle, self._users.create)
        files = self._files = CatalogFiles(self.environment, self._users)
        self.groups = Groups(files.groups.handle, files.groups.create)
        self.access = Access(self.users, self.groups)
        self.accounts = Accounts(self.users, self.groups)
        self.catalog = Catalog(lambda: files, self._pace)
        self.role = "master"
        self.master: str | None = "192.0.2.1:5010"
        self.master_client_address: str | None = None
        self.notice: str | None = None
        self.sites: list[SiteStatus] = []
        self.sync: SyncStatus | None = None
        self.refuse_writes: Exception | None = None
        self.refuse_reads: Exception | None = None
        self.would_block = False
        self.perm_failed: str | None = None
        self.switchovers: list[tuple[tuple[str, int] | None, float]] = []
        self.refuse_switchover: Exception | None = None
        self.waits = SmallWaits()
        self.ack_policy, self.ack_timeout_s = "QUORUM", 1.0
        self.asked_acks: tuple[AckPolicy | None, float | None] = (None, None)
        self.held: list[Batch] | None = None
        self.lsns: dict[str, Lsn] = {}
        self.reads_on_thread = 0
        self._delivered: deque[Batch] = deque()

    @property
    def read_only(self) -> bool:
        return self.role != "master"

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.environment.open()
        self._keys.create()
        self._users.create()
        self._files.create()
        self._reads = Reads(self.environment, self._keys.drop)
        self._committer = Committer(
            self.environment,
            self._deliver,
            refusals=(CommandError, UserError, CatalogError),
            durability="nosync",
        )

    async def stop(self) -> None:
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self.environment.stop_threads(CLOSE_TIMEOUT_S)
        self._keys.close()
        self._users.close()
        self._files.close()
        self.environment.close(CLOSE_TIMEOUT_S)

    # -- writes

    def submit(
        self,
        work: Callable[[db.DBTxn], Any],
        on_done: Callable[[Outcome], None],
        *,
        keys: Sequence[bytes] = (),
        watch: Watch | None = None,
        user: str = "",
        policy: AckPolicy | None = None,
        ack_timeout_s: float | None = None,
    ) -> None:
        if self.refuse_writes is not None:
            raise self.refuse_writes
        self.asked_acks = (policy, ack_timeout_s)
        self._committer.submit(Write(work, keys, watch, on_done, user))

    def _deliver(self, batch: Batch) -> None:
        self._delivered.append(batch)
        self._loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        while self._delivered:
            batch = self._delivered.popleft()
            if self.held is not None:
                self.held.append(batch)
            else:
                self._finish(batch)

    def _finish(self, batch: Batch) -> None:
        for write in batch.writes:
            failed = write.error is not None
            perm_failed = None if failed else self.perm_failed
            lsn = self.lsns.get(repr(write.result), (1, 28))
            write.tag(Outcome(write.result, write.error, lsn, 1, perm_failed))

    def release(self) -> None:
        """Give out what was held back, the last first: acks come in any order."""
        assert self.held is not None
        batches, self.held = self.held, None
        for batch in reversed(batches):
            self._finish(batch)

    # -- reads

    def _pace(self, txn: db.DBTxn) -> bool:
        return self._reads.pace(txn)

    def read_now(self, read: Callable[[db.DBTxn], T]) -> T:
        if self.refuse_reads is not None:
            raise self.refuse_reads
        if self.would_block:
            raise WouldBlock
        return self._reads.now(read)

    async def read(self, read: Callable[[db.DBTxn], T], *, limited: bool = True) -> T:
        if self.refuse_reads is not None:
            raise self.refuse_reads
        self.reads_on_thread += 1
        return await self._reads.run(read)

    def watch(self, keys: Iterable[bytes]) -> Watch:
        return self._committer.watches.add(tuple(keys))

    async def key_count(self) -> int:
        return await self.read(lambda txn: len(self.keyspace.keys(txn, None, 10**9)))

    async def switchover(self, to: tuple[str, int] | None, timeout_s: float) -> None:
        if self.refuse_switchover is not None:
            raise self.refuse_switchover
        self.switchovers.append((to, timeout_s))

    def status(self) -> Status:
        return Status(
            state="running",
            serving=self.refuse_reads is None,
            role=self.role,
            read_only=self.read_only,
            site="192.0.2.7:5010",
            priority=1,
            generation=3,
            master=self.master,
            lsn=(1, 28),
            applied_lsn=(1, 28),
            lag_bytes=0,
            lag_seconds=0.0,
            sync=self.sync,
            ack_policy="QUORUM",
            sites=self.sites,
            counters={},
            why=None,
            hint=None,
            notice=self.notice,
            ack_note=None,
            pid=1,
            version="0",
            started="",
            home="",
            client_listen="",
            recovery_seconds=0.0,
        )


class SmallAuth:
    """Knows two users, `fred` and the administrator `tapemaster`; all passwords are `secret`.

    Attributes:
        roles: of the users; a test may add some.
    """

    def __init__(self) -> None:
        self.busy = False
        self.roles = {"fred": "user", "tapemaster": "administrator"}

    async def login(self, user: str, password: str, peer: str) -> Login:
        await asyncio.sleep(0)
        if self.busy:
            raise LoginRefused("busy", "too many passwords are being checked", code="TRYAGAIN")
        if user not in self.roles or password != "secret":
            raise LoginRefused("wrong_password")
        return Login(user, self.roles[user])
