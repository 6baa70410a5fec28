"""The daemon: one site in the foreground, from its lock to its orderly end.

Order of the start: the lock of HOME, the configuration, the ports, then the environment. So a
mistake is told before recovery runs, and `status` and the service manager are answered while it
does. The stop goes the other way round and takes at most `STOP_TIMEOUT_S`.
"""

import asyncio
import faulthandler
import os
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec
import structlog
import uvloop

from replication.journal import Journal
from storage.library import StillInLibrary
from ttserver import __version__, logs, probe
from ttserver.address import Address
from ttserver.config import ServerConfig, load
from ttserver.control import ControlServer
from ttserver.engine import Engine
from ttserver.errors import TtserverError
from ttserver.home import Home
from ttserver.listener import Listener
from ttserver.notify import Notifier
from ttserver.operations import Operations
from ttserver.signals import StopSignals, give_up
from ttserver.status import Status
from ttserver.summary import one_line

# From the first signal to the end of the process at the latest.
STOP_TIMEOUT_S = 5.0
# Of these: for clients to get their last replies, and for the threads to leave the library. What
# is left over is for closing the environment.
DRAIN_TIMEOUT_S = 1.0
ENGINE_TIMEOUT_S = 3.5
# A thread that holds the interpreter delays the event loop by this much; Python's own 5 ms would
# be all the time a read may take.
SWITCH_INTERVAL_S = 0.0005
# Region files of the default configuration take 25 MB, the first records of a log another 4 MB.
ROOM_BYTES_MIN = 32_000_000
# The engine tells of every change of role and state; progress and lag are looked at this often.
LOOK_S = 0.5

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the command line says.

    Args:
        home: the site's directory.
        client_listen: HOST:PORT instead of the file's; None leaves that.
        replication: False serves this site alone.
        log_level: lowest level on standard error.
    """

    home: Home
    client_listen: str | None = None
    replication: bool = True
    log_level: str = "info"


def run(options: RunOptions) -> int:
    """Run a site until it is told to stop.

    Returns:
        The exit status.

    Raises:
        TtserverError, StorageError, ReplicationError: it could not start, or failed.
    """
    logs.configure(level=options.log_level)
    with held(options) as (config, journal):
        _prepare_process()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(Daemon(config, journal, replication=options.replication).serve())
    return 0


@contextmanager
def held(options: RunOptions) -> Iterator[tuple[ServerConfig, Journal]]:
    """Hold a HOME for as long as its site is open: the lock, the configuration, the journal.

    Raises:
        TtserverError, StorageError: another process holds it, or it cannot be opened.
    """
    with options.home.locked():
        overrides: Mapping[str, object] = (
            {"client.listen": options.client_listen} if options.client_listen else {}
        )
        config = load(options.home, overrides, install=True)
        options.home.must_have_room(ROOM_BYTES_MIN)
        if options.replication:
            _must_be_free(config.replication_listen)
        for warning in config.warnings:
            log.warning("configuration_warning", text=str(warning))
        journal = Journal(
            config.home.journal,
            config.settings.journal.bytes_max,
            config.settings.journal.files_max,
            str(config.local),
            capture_stdout=True,  # the library prints its messages there
        )
        try:
            yield config, journal
        finally:
            journal.close()


def _must_be_free(port: Address) -> None:
    """Try the replication port, which is opened only after recovery and that may take long."""
    problem = probe.cannot_listen(port.host, port.port)
    if problem is not None:
        words = (problem.strerror or str(problem)).lower()
        raise TtserverError(
            f"replication port {port} cannot be opened: {words}",
            code="LISTEN",
            hint=probe.listen_hint(problem, port.port),
        )


def _prepare_process() -> None:
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    faulthandler.enable()  # a crash inside the library says in which call
    # A connection a client, a file a database: whoever set the hard limit decides, not a default
    # that was made for select().
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    StopSignals.block()


class Daemon:
    """One site and all that serves it.

    Args:
        config: everything that was decided about it.
        journal: `$DB_Msg.txt`, open.
        replication: False serves it alone.
        notifier: the service manager; the one of the environment when left out.
    """

    def __init__(
        self,
        config: ServerConfig,
        journal: Journal,
        *,
        replication: bool,
        notifier: Notifier | None = None,
    ) -> None:
        self._config = config
        self._journal = journal
        self._notifier = Notifier.from_environment() if notifier is None else notifier
        self._engine = Engine(config, journal, replication=replication)
        self._listener = Listener(self._engine)
        operations = Operations(self._engine, self.status, self.is_open)
        self._control = ControlServer(config.home.socket, operations.handlers())
        self._stop_asked = asyncio.Event()
        self._stopping_since_s = 0.0
        self._ready = False
        self._told_state = "none"
        self._changed = asyncio.Event()
        self._engine.on_change.append(self._changed.set)
        self._opening: asyncio.Task[None] | None = None

    def status(self) -> Status:
        """Say how the site is, from its first moment on."""
        status = self._engine.status()
        if not (listening := self._listener.addresses):
            return status
        # The file or the command line may leave the choice of the port to the kernel.
        return msgspec.structs.replace(status, client_listen=str(listening[0]))

    def is_open(self) -> bool:
        """Tell whether the engine was started and has opened the environment."""
        opening = self._opening
        if opening is None or not opening.done() or opening.cancelled():
            return False
        return opening.exception() is None

    async def serve(self) -> None:
        """Start, serve until a stop is asked for, stop.

        Raises:
            TtserverError, StorageError, ReplicationError: the site could not start, or failed.
        """
        loop = asyncio.get_running_loop()

        def hand_on(name: str) -> None:
            loop.call_soon_threadsafe(self._ask_stop, name)

        StopSignals(hand_on, timeout_s=STOP_TIMEOUT_S).start()
        facts = {"version": __version__, "pid": os.getpid(), "home": str(self._config.home.root)}
        log.info("server_started", **facts)
        self._journal.write("server_started", **facts)
        try:
            await self._serve_until_asked()
        finally:
            await self._stop()

    def _ask_stop(self, why: str) -> None:
        log.info("server_stopping", why=why)
        self._journal.write("server_stopping", why=why)
        self._notifier.stopping()
        self._notifier.status("stop-pending")
        self._stopping_since_s = time.monotonic()
        self._stop_asked.set()

    async def _serve_until_asked(self) -> None:
        await self._control.start()
        await self._listener.start()
        try:
            async with asyncio.TaskGroup() as tasks:
                self._opening = tasks.create_task(self._engine.start(), name="open")
                self._opening.add_done_callback(lambda _: self._changed.set())
                background = [
                    self._opening,
                    tasks.create_task(self._follow_status(), name="status"),
                    tasks.create_task(self._serve_watchdog(), name="watchdog"),
                ]
                await self._stop_asked.wait()
                for task in background:
                    task.cancel()
        except BaseExceptionGroup as failed:
            # The first cause is enough for the operator; whatever came after it follows from it.
            raise _first(failed) from None

    async def _stop(self) -> None:
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                await self._listener.stop()
        except TimeoutError:
            log.warning("clients_dropped", why=f"not drained in {DRAIN_TIMEOUT_S:g} s")
        await self._control.stop()
        await self._close_engine()
        self._journal.write("server_stopped", seconds=self._stopping_s())
        log.info("server_stopped")

    async def _close_engine(self) -> None:
        opening = self._opening
        if opening is None or (opening.done() and not opening.cancelled() and opening.exception()):
            return  # a start that failed has closed what it had opened
        try:
            await self._engine.stop(ENGINE_TIMEOUT_S)
        except StillInLibrary as error:
            # The log is flushed, and closing under a thread inside the library would crash.
            self._journal.write("server_stopped", seconds=self._stopping_s())
            give_up(str(error), status=0)

    def _stopping_s(self) -> float:
        return time.monotonic() - self._stopping_since_s if self._stopping_since_s else 0.0

    # -- background

    async def _follow_status(self) -> None:
        """Tell the service manager, the log and the journal how the site is."""
        told = ""
        while True:
            self._changed.clear()
            try:
                self._tell(self.status())
            except Exception as error:
                # A mistake in what we say about the site must not end the site, nor fill the log.
                if repr(error) != told:
                    log.exception("status_failed")
                told = repr(error)
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _tell(self, status: Status) -> None:
        self._notifier.status(one_line(msgspec.to_builtins(status)))
        if status.state == "running" and not self._ready:
            self._ready = True
            self._notifier.ready()
        before, self._told_state = self._told_state, status.state
        if status.state == before:
            return
        log.info(
            "state_changed",
            before=before,
            now=status.state,
            role=status.role,
            master=status.master,
            generation=status.generation,
        )
        why = status.role if status.state == "running" else status.why or status.role
        self._journal.write("state_changed", from_=before, to=status.state, why=why)

    async def _serve_watchdog(self) -> None:
        interval_s = self._notifier.watchdog_interval_s
        if interval_s is None:
            return
        while True:
            self._notifier.watchdog()
            await asyncio.sleep(interval_s)


def _first(failed: BaseExceptionGroup[BaseException]) -> BaseException:
    cause: BaseException = failed
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return cause
