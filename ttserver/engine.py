"""The database of one site: environment, group commit, reads and replication, wired together.

    client session -> submit -> Committer (thread) -> commit -> Bridge.send -> other sites
                                     |                              |
                                 deliver (batch, LSN)              acks
                                     v                              v
                   on_done <- _settle (loop) <---- Manager.confirm (policy held, or not)

Everything here runs in the event loop unless a method says otherwise. When the library panics the
engine closes everything and opens it again; clients are answered LOADING meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
import structlog
from berkeleydb import db

from replication.bodies import SiteAddress
from replication.errors import ReplicationError
from replication.hub import later
from replication.journal import Journal
from replication.manager import Hooks, Manager
from replication.messages import AckPolicy
from replication.settings import GroupSettings, RemoteSite
from replication.wire import LSN
from storage.commit import Batch, Committer, Watch, Write
from storage.database import Database
from storage.environment import Environment
from storage.errors import StorageError
from storage.keyspace import Keyspace
from storage.library import DatabaseMissing
from storage.reads import Reads, WouldBlock
from storage.upkeep import Upkeep
from storage.users import Users, discard_first_user
from ttserver.config import ServerConfig
from ttserver.engine_status import build_status
from ttserver.errors import TtserverError
from ttserver.status import Status

T = TypeVar("T")
Lsn = tuple[int, int]
log = structlog.get_logger("ttserver.engine")

REOPEN_PAUSE_S = 1.0
REOPEN_PAUSE_MAX_S = 30.0
USERS_FILE = "users.db"
ACK_FAILED_EVERY_S = 10.0  # with the replicant down every write fails: once is enough to read
ACK_FAILED_BURST = 3
GROUP_ID_BITS = 63


class Refused(TtserverError):
    """A request this site cannot serve as it stands; `code` is the reply's first word."""

    default_code = "TRYAGAIN"


class WriteOutcome(msgspec.Struct):
    """How one write ended.

    Args:
        result: what its work returned.
        error: why nothing of it was written.
        lsn: of its commit record; None when nothing was logged.
        generation: the master's generation then.
        perm_failed: committed here, but the ack policy was not met: who acknowledged, who did not.
    """

    result: Any
    error: Exception | None
    lsn: Lsn | None
    generation: int
    perm_failed: str | None


class _Ticket(msgspec.Struct):
    """What a submitted write carries through the commit."""

    on_done: Callable[[WriteOutcome], None]
    policy: AckPolicy | None
    timeout_s: float | None


class Engine:
    """See the module's text.

    Args:
        config: everything that was decided about this site.
        journal: `$DB_Msg.txt`, open.
        replication: False turns the replication subsystem off (`-X`).
    """

    def __init__(self, config: ServerConfig, journal: Journal, *, replication: bool = True) -> None:
        self.config = config
        self.journal = journal
        self.replication = replication
        self.started_at = datetime.now(UTC)
        self.keyspace = Keyspace(lambda: self._keys.handle())
        self.users = Users(lambda: self._users.handle(), lambda: self._users.create())
        self.manager: Manager | None = None
        self.on_change: list[Callable[[], None]] = []
        self.failure: StorageError | ReplicationError | None = None
        self.reopened = 0
        self.perm_failed = 0
        self._environment: Environment
        self._keys: Database
        self._users: Database
        self._committer: Committer | None = None
        self._reads: Reads | None = None
        self._upkeep: Upkeep | None = None
        self._loop: asyncio.AbstractEventLoop
        self._delivered: deque[Batch] = deque()
        self._settling = False
        self._accepting = False
        self._opening: asyncio.Task[None] | None = None
        self._reopening: asyncio.Task[None] | None = None
        self._stopping = False
        self._count: tuple[Lsn, int] | None = None
        self._ack_waiters: list[tuple[LSN, int, asyncio.Future[None]]] = []
        self._panicking = False

    # -- life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the environment and take a role.

        Raises:
            StorageError: the environment cannot be opened.
            ReplicationError: the replication port cannot.
        """
        self._loop = asyncio.get_running_loop()
        await self._build()

    async def stop(self, timeout_s: float = 5.0) -> None:
        """Close everything.

        Raises:
            StillInLibrary: a thread did not leave the library in time; end the process.
        """
        self._stopping = True
        for task in (self._opening, self._reopening):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await self._teardown(timeout_s)

    async def _build(self) -> None:
        self._accepting = False
        self._panicking = False
        config = self.config
        if self.replication:
            self.manager = self._make_manager()
        manager = self.manager
        self._environment = Environment(
            config.home.environment, self._configure if manager is not None else None
        )
        await asyncio.to_thread(self._environment.open)
        environment = self._environment
        try:
            self._keys = Database(environment, config.settings.storage.keyspace)
            self._users = Database(environment, USERS_FILE)
            self._reads = Reads(environment, self.drop_handles)
            self._committer = Committer(
                environment,
                self._deliver,
                wait_for_room=manager.bridge.wait_for_room if manager else None,
                durability=config.settings.storage.durability,
                batch_max=config.settings.storage.group_commit_max,
                on_panic=self._panicked,
            )
            self._upkeep = Upkeep(
                environment,
                is_master=lambda: self._accepting,
                interval_s=config.settings.storage.checkpoint_interval_s,
                kbytes=config.settings.storage.checkpoint_kbytes,
                removable_below=self._removable_logs,
                on_panic=self._panicked,
            )
            end = environment.log_end()
            self.journal.write("environment_opened", lsn=end, seconds=environment.recovery_seconds)
            if manager is not None:
                await manager.start(environment)
            else:
                await self._accept_writes()
        except BaseException:
            with contextlib.suppress(StorageError):
                await asyncio.to_thread(environment.close, 2.0)
            raise

    def _configure(self, env: db.DBEnv) -> None:
        assert self.manager is not None, "replication is on"
        self.manager.configure(env)
        say = self.config.db
        env.rep_set_limit(min(say.rep_limit.gbytes * 2**30 + say.rep_limit.bytes, 2**31 - 1))
        env.rep_set_request(say.rep_request.min_us, say.rep_request.max_us)
        env.rep_set_clockskew(say.clockskew.fast, say.clockskew.slow)
        env.rep_set_timeout(db.DB_REP_CHECKPOINT_DELAY, int(say.timeouts.checkpoint_delay_s * 1e6))
        if say.timeouts.full_election_s is not None:
            env.rep_set_timeout(
                db.DB_REP_FULL_ELECTION_TIMEOUT, int(say.timeouts.full_election_s * 1e6)
            )
        switches = (
            (db.DB_REP_CONF_AUTOINIT, say.rep_config.autoinit),
            (db.DB_REP_CONF_BULK, say.rep_config.bulk),
            (db.DB_REP_CONF_DELAYCLIENT, say.rep_config.delayclient),
        )
        for which, on in switches:
            env.rep_set_config(which, int(on))

    def _make_manager(self) -> Manager:
        config = self.config
        hooks = Hooks(
            role_changed=self._role_changed,
            handles_died=self.drop_handles,
            confirmed=self._confirmed,
            acked=self._acked,
            permanent=self._note_permanent,
            panicked=self._panicked,
        )
        listen, clients = config.replication_listen, config.settings.client.listen
        return Manager(
            group_settings(config),
            listen=SiteAddress(listen.host, listen.port),
            clients=SiteAddress(clients.host, clients.port) if clients.port else None,
            journal=self.journal,
            memory_path=config.home.root / "var" / "replication.json",
            hooks=hooks,
            new_group_id=secrets.randbits(GROUP_ID_BITS) | 1,
            flush_applied=config.settings.storage.durability == "sync",
        )

    async def _teardown(self, timeout_s: float) -> None:
        self._accepting = False
        if self.manager is not None and self._upkeep is not None:
            await self.manager.stop()
        if not self._environment.is_open:
            return
        environment = self._environment
        deadline = time.monotonic() + timeout_s
        databases = (self._keys, self._users)

        def close() -> None:
            environment.stop_threads(deadline - time.monotonic())
            for database in databases:
                database.close()
            environment.close(max(0.1, deadline - time.monotonic()))

        await asyncio.to_thread(close)

    # -- failure and repair --------------------------------------------------------------------

    def _panicked(self, error: Exception) -> None:
        """The library needs recovery. *Thread:* any."""
        later(self._loop, self._start_reopening, error)

    def _start_reopening(self, error: Exception) -> None:
        if self._panicking or self._stopping:
            return
        self._panicking = True
        self._accepting = False
        log.error("environment_failed", error=str(error))
        self.journal.write(
            "alarm_raised",
            alarm="environment failed",
            why=str(error),
            hint="it is opened again with recovery; see the log for the cause",
        )
        self._reopening = self._loop.create_task(self._reopen())

    async def _reopen(self) -> None:
        self._changed()
        began, pause_s = time.monotonic(), REOPEN_PAUSE_S
        with contextlib.suppress(StorageError):
            await self._teardown(5.0)
        while True:
            try:
                await self._build()
            except (StorageError, ReplicationError) as error:
                self.failure = error
                log.error("reopen_failed", error=str(error), again_in_s=pause_s)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, REOPEN_PAUSE_MAX_S)
            else:
                break
        self.failure = None
        self.reopened += 1
        self.journal.write(
            "alarm_cleared", alarm="environment failed", seconds=time.monotonic() - began
        )
        self._changed()

    # -- roles ---------------------------------------------------------------------------------

    def _role_changed(self) -> None:
        manager = self.manager
        assert manager is not None, "only a manager calls this"
        if manager.core.is_master:
            if not self._accepting and self._opening is None:
                self._opening = self._loop.create_task(self._accept_writes())
        elif self._accepting:
            self._accepting = False
            self.committer.watches.touch_all()
            manager.pending.fail_all("this site is no longer master")
        self._changed()

    async def _accept_writes(self) -> None:
        """Make what a master needs, then take writes."""
        try:
            await self._create_databases()
        except StorageError as error:
            self.failure = error
            log.error("databases_not_created", error=str(error))
            return
        finally:
            self._opening = None
        if self.manager is None or self.manager.core.is_master:
            self._accepting = True
            self._changed()

    async def _create_databases(self) -> None:
        first_user = self.config.home.first_user

        def create() -> bool:
            self._keys.create()
            if not first_user.exists():
                return False
            self._users.create()
            return True

        if await asyncio.wrap_future(self.reads.call(create)):
            done: asyncio.Future[WriteOutcome] = self._loop.create_future()
            self._submit(lambda txn: self.users.take_first_user(first_user, txn), done.set_result)
            outcome = await done
            if outcome.error is not None:
                log.error("first_user_not_taken", error=str(outcome.error))
            else:
                await asyncio.to_thread(discard_first_user, first_user)

    def _changed(self) -> None:
        if self.manager is not None:
            self.journal.set_role(self.role)
        for listener in self.on_change:
            listener()

    def drop_handles(self) -> None:
        """Have every database opened again at its next use. *Thread:* any."""
        self._keys.drop()
        self._users.drop()

    # -- what the site is ----------------------------------------------------------------------

    @property
    def committer(self) -> Committer:
        assert self._committer is not None, "the engine is started"
        return self._committer

    @property
    def reads(self) -> Reads:
        assert self._reads is not None, "the engine is started"
        return self._reads

    @property
    def environment(self) -> Environment:
        return self._environment

    @property
    def upkeep(self) -> Upkeep:
        assert self._upkeep is not None, "the engine is started"
        return self._upkeep

    @property
    def accepting(self) -> bool:
        """Writes are taken here."""
        return self._accepting

    @property
    def role(self) -> str:
        return self.manager.role if self.manager is not None else "master"

    @property
    def state(self) -> str:
        if self._stopping:
            return "stop-pending"
        if self._panicking or self.failure is not None:
            return "start-pending"
        if self.manager is None:
            return "running" if self._accepting else "start-pending"
        if self.manager.core.is_master and not self._accepting:
            return "start-pending"
        return self.manager.state

    @property
    def serving(self) -> bool:
        """Reads are answered."""
        if self._panicking or self.failure is not None or self._reads is None:
            return False
        return self.manager.serving if self.manager is not None else self._accepting

    @property
    def read_only(self) -> bool:
        return not self._accepting

    @property
    def generation(self) -> int:
        return self.manager.generation if self.manager is not None else 0

    @property
    def master(self) -> str | None:
        """The master's replication address."""
        if self.manager is None:
            return str(self.config.local)
        return str(self.manager.master) if self.manager.master else None

    @property
    def master_client_address(self) -> str | None:
        """Where the master serves clients, if it said so."""
        if self.manager is None:
            return str(self.config.settings.client.listen)
        address = self.manager.master_clients
        return str(address) if address else None

    @property
    def lsn(self) -> Lsn:
        """The last permanent LSN here."""
        return self.manager.applied if self.manager is not None else (0, 0)

    @property
    def notice(self) -> str | None:
        """One sentence for a client that should know where it is."""
        if self._accepting:
            return None
        master = self.master_client_address or self.master
        if self.role == "replicant" and master:
            return f"this site is a read-only replicant; the master is {master}"
        since = self.stale_s()
        age = f"; its data is {since:.0f} s old" if since is not None and self.serving else ""
        return f"this site is read-only and has no master now{age}"

    def stale_s(self) -> float | None:
        """Seconds since a master was heard; 0 on a master, None for never."""
        manager = self.manager
        if manager is None or manager.core.is_master:
            return 0.0
        return manager.silent_s()

    def status(self) -> Status:
        """Everything about this site."""
        return build_status(self)

    # -- writes --------------------------------------------------------------------------------

    def submit(
        self,
        work: Callable[[db.DBTxn], Any],
        on_done: Callable[[WriteOutcome], None],
        *,
        keys: Sequence[bytes] = (),
        watch: Watch | None = None,
        policy: AckPolicy | None = None,
        ack_timeout_s: float | None = None,
    ) -> None:
        """Queue one write for the group commit. *Thread:* any.

        Args:
            work: runs on the committer thread, maybe more than once: a pure function of the
                database. What it refuses, it refuses before it writes anything.
            on_done: called in the loop.
            keys: those it may change, for WATCH.
            watch: fail when one of the watched keys was changed.
            policy, ack_timeout_s: other than the group's.

        Raises:
            Refused: this site takes no writes now.
        """
        if not self._accepting:
            raise self._why_refused()
        needed = self.config.settings.replication.min_acks_to_accept
        if needed and self.manager is not None:
            connected = self.manager.connected_acking()
            if connected < needed:
                raise Refused(
                    f"write refused: {connected} sites that could acknowledge are connected,"
                    f" {needed} are needed (replication.min_acks_to_accept)",
                    code="NOREPLICAS",
                    hint="start the replicants, or lower min_acks_to_accept in ttserver.toml.",
                )
        self._submit(work, on_done, keys, watch, policy, ack_timeout_s)

    def _submit(
        self,
        work: Callable[[db.DBTxn], Any],
        on_done: Callable[[WriteOutcome], None],
        keys: Sequence[bytes] = (),
        watch: Watch | None = None,
        policy: AckPolicy | None = None,
        timeout_s: float | None = None,
    ) -> None:
        self.committer.submit(Write(work, keys, watch, _Ticket(on_done, policy, timeout_s)))

    async def write(
        self, work: Callable[[db.DBTxn], Any], *, keys: Sequence[bytes] = ()
    ) -> WriteOutcome:
        """`submit`, awaited.

        *Cancellation:* the write may still happen; only its outcome is lost.
        """
        done: asyncio.Future[WriteOutcome] = self._loop.create_future()

        def finish(outcome: WriteOutcome) -> None:
            if not done.done():
                done.set_result(outcome)

        self.submit(work, finish, keys=keys)
        return await done

    def write_from_thread(
        self, work: Callable[[db.DBTxn], Any], *, keys: Sequence[bytes] = ()
    ) -> WriteOutcome:
        """`submit`, and wait for the outcome. *Thread:* any but the loop's and the committer.

        Raises:
            Refused: this site takes no writes now.
        """
        outcomes: list[WriteOutcome] = []
        # A bare lock is the cheapest thing a thread can sleep on.
        done = threading.Lock()
        done.acquire()

        def finish(outcome: WriteOutcome) -> None:
            outcomes.append(outcome)
            done.release()

        self.submit(work, finish, keys=keys)
        done.acquire()
        return outcomes[0]

    def _why_refused(self) -> Refused:
        if self.state == "stop-pending":
            return Refused("write refused: this site is stopping", hint="use another site.")
        if not self.serving:
            return self._loading()
        if self.manager is not None and self.manager.core.is_master:
            return Refused("write refused: this site is just becoming master", hint="try again.")
        master = self.master_client_address or self.master
        if master is None:
            return Refused(
                "write refused: this site is a replicant and no master is known now",
                code="READONLY",
                hint="see `ttserver status` for what it waits for.",
            )
        return Refused(
            f"write refused: this site is a replicant (master is {master},"
            f" generation {self.generation})",
            code="READONLY",
            hint=f"connect to {master} for updates.",
        )

    def _loading(self) -> Refused:
        why = self.manager.core.why if self.manager is not None else None
        failure = str(self.failure) if self.failure is not None else None
        return Refused(
            f"this site has no complete copy of the database yet"
            f" ({failure or why or 'it is starting'})",
            code="LOADING",
            hint="see `ttserver status` for how far it is.",
        )

    def _note_permanent(self, lsn: Lsn) -> None:
        """A permanent record was written. *Thread:* the one that commits."""
        if self._committer is not None:
            self._committer.note_permanent(lsn)

    def _deliver(self, batch: Batch) -> None:
        """A batch is committed (or failed). *Thread:* committer."""
        self._delivered.append(batch)
        if not self._settling:
            self._settling = True
            later(self._loop, self._settle)

    def _settle(self) -> None:
        self._settling = False
        while self._delivered:
            batch = self._delivered.popleft()
            if batch.lsn is None or self.manager is None:
                self._finish(batch.writes, batch.lsn, None)
            else:
                self._await_acks(self.manager, batch, LSN(*batch.lsn))

    def _await_acks(self, manager: Manager, batch: Batch, lsn: LSN) -> None:
        special = [w for w in batch.writes if w.tag.policy is not None or w.tag.timeout_s]
        if not special:
            manager.confirm(lsn, (batch.writes, batch.lsn))
            return
        usual = [w for w in batch.writes if w not in special]
        if usual:
            manager.confirm(lsn, (usual, batch.lsn))
        for write in special:
            ticket = write.tag
            manager.confirm(
                lsn, ([write], batch.lsn), policy=ticket.policy, timeout_s=ticket.timeout_s
            )

    def _confirmed(self, token: tuple[list[Write], Lsn], shortfall: str | None) -> None:
        self._finish(*token, shortfall)

    def _finish(self, writes: list[Write], lsn: Lsn | None, shortfall: str | None) -> None:
        generation = self.generation
        if shortfall is not None:
            self.perm_failed += len(writes)
            self.journal.write_seldom(
                "ack_failed",
                every_s=ACK_FAILED_EVERY_S,
                burst=ACK_FAILED_BURST,
                lsn=lsn,
                writes=len(writes),
                why=shortfall,
            )
        for write in writes:
            failed = write.error is not None
            write.tag.on_done(
                WriteOutcome(
                    write.result,
                    write.error,
                    None if failed else lsn,
                    generation,
                    None if failed else shortfall,
                )
            )

    # -- reads ---------------------------------------------------------------------------------

    def read_now(self, read: Callable[[db.DBTxn], T]) -> T:
        """Read in the loop.

        Raises:
            WouldBlock: it could take long; use `read`.
            Refused: LOADING, or too stale.
            StorageError: the library failed.
        """
        if not self.serving:
            raise self._loading()
        if self.config.settings.client.max_stale_s:
            self._check_stale()
        if not self._keys.is_open:
            raise WouldBlock
        return self.reads.now(read)

    async def read(self, read: Callable[[db.DBTxn], T]) -> T:
        """Read on a reader thread, waiting for locks and the disk.

        Raises:
            Refused: LOADING, or too stale.
            StorageError: the library failed.
        """
        if not self.serving:
            raise self._loading()
        self._check_stale()
        try:
            return await self.reads.run(read)
        except DatabaseMissing as missing:
            raise Refused(str(missing), code="LOADING", hint=missing.hint) from missing

    def _check_stale(self) -> None:
        limit_s = self.config.settings.client.max_stale_s
        if not limit_s:
            return
        stale_s = self.stale_s()
        if stale_s is None or stale_s > limit_s:
            age = "never" if stale_s is None else f"{stale_s:.1f} s ago"
            raise Refused(
                f"read refused: the master was last heard {age}, the limit is {limit_s:g} s"
                " (client.max_stale_s)",
                code="MASTERDOWN",
                hint="see `ttserver status` for why there is no master.",
            )

    def watch(self, keys: Iterable[bytes]) -> Watch:
        """Watch keys until the result is closed."""
        return self.committer.watches.add(tuple(keys))

    async def key_count(self) -> int:
        """Count all keys, exactly; counted again only when something was committed since."""
        lsn = self.lsn
        if self._count is not None and self._count[0] == lsn and lsn != (0, 0):
            return self._count[1]

        def count(txn: db.DBTxn) -> int:
            return int(self._keys.handle().stat(db.DB_READ_COMMITTED, txn)["ndata"])

        number = await self.read(count)
        self._count = (lsn, number)
        return number

    # -- acknowledgements ----------------------------------------------------------------------

    def replicas_acked(self, lsn: Lsn) -> int:
        """How many other sites acknowledged this LSN."""
        return self.manager.acked_by(LSN(*lsn)) if self.manager is not None else 0

    async def wait_acked(self, lsn: Lsn, count: int, timeout_s: float) -> int:
        """Wait until `count` sites acknowledged `lsn`; returns how many did.

        Args:
            timeout_s: 0 waits for ever.
        """
        target = LSN(*lsn)
        if self.replicas_acked(target) < count:
            future: asyncio.Future[None] = self._loop.create_future()
            waiter = (target, count, future)
            self._ack_waiters.append(waiter)
            try:
                await asyncio.wait_for(future, timeout_s or None)
            except TimeoutError:
                pass
            finally:
                self._ack_waiters.remove(waiter)
        return self.replicas_acked(target)

    def _acked(self) -> None:
        for target, count, future in self._ack_waiters:
            if not future.done() and self.replicas_acked(target) >= count:
                future.set_result(None)

    def _removable_logs(self) -> int | None:
        """The first log file to keep. *Thread:* upkeep."""
        if not self.config.db.log_autoremove or self.manager is None:
            return None
        return self.manager.oldest_needed_log()


def group_settings(config: ServerConfig) -> GroupSettings:
    """Translate the configuration into the manager's terms."""
    say, extra = config.db, config.settings.replication
    priority = say.priority if say.priority_set or say.replication else 1
    return GroupSettings(
        local=SiteAddress(config.local.host, config.local.port),
        remotes=tuple(
            RemoteSite(SiteAddress(s.host, s.port), s.helper, s.peer, s.group_creator)
            for s in say.remote_sites
        ),
        priority=priority,
        creator=say.local_site is None or say.local_site.group_creator,
        ack_policy=AckPolicy(say.ack_policy_number),
        ack_timeout_s=say.timeouts.ack_s,
        election_timeout_s=say.timeouts.election_s,
        election_retry_s=say.timeouts.election_retry_s,
        connection_retry_s=say.timeouts.connection_retry_s,
        heartbeat_send_s=say.timeouts.heartbeat_send_s,
        heartbeat_monitor_s=say.timeouts.heartbeat_monitor_s,
        two_site_strict=say.rep_config.two_site_strict,
        elections=say.rep_config.elections,
        start_wait_s=extra.start_wait_s,
        link_stall_s=extra.link_stall_s,
        queue_bytes_max=extra.queue_bytes_max,
        asked_bytes_max=extra.asked_bytes_max,
        apply_bytes_max=extra.apply_bytes_max,
        verbose=say.verbose,
    )
