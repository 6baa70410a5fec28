"""What a pair of servers is to the bench: a master and one replicant, on ports of loopback."""

from __future__ import annotations

import os
import resource
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

T = TypeVar("T")
Work = Literal["set-acked", "set", "get", "get-pipelined"]
WORKS: tuple[Work, ...] = ("set-acked", "set", "get", "get-pipelined")
PIPELINE = 16  # commands that "get-pipelined" sends at once
VALUE_BYTES = 200
READY_TIMEOUT_S = 120.0
LOOK_S = 0.05
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


class PairError(Exception):
    """A server, or what puts the load on it, did not do what it was told."""


class PairMissingError(Exception):
    """This machine does not have what a pair is made of."""


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """What a pair is made for.

    Args:
        directory: where its files go; empty.
        keys: how many there are; each has a value of `VALUE_BYTES`.
        cache_mib: of the database's cache, MiB, where a server has one.
        clients_max: so many connections at once.
        load: the compiled `resp_load`.
    """

    directory: Path
    keys: int
    cache_mib: int
    clients_max: int
    load: Path


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """One measured stretch of work.

    Args:
        work: writes go to the master, reads to the replicant.
        connections: that work, each with one command under way, or one pipeline.
        seconds: that count, after `warmup_s` seconds that do not.
        seed: of the keys chosen.
    """

    work: Work
    connections: int
    seconds: float
    warmup_s: float
    seed: int


class Measured(msgspec.Struct, kw_only=True):
    """What came of a load.

    Args:
        operations: answered within the counted time, and
        sent: at any time.
        p50_us, p99_us, max_us: from sending a command, or a pipeline, to its last reply.
        errors: replies that were not what they had to be, with the text of the first.
        last: some of the keys written last, with the beginning of the value each must have.
    """

    operations: int
    sent: int
    p50_us: float
    p99_us: float
    max_us: float
    errors: int = 0
    error: str = ""
    last: list[tuple[str, str]] = []


class Pair(ABC):
    """A master and its replicant, two processes or families of them.

    Args:
        setting: what it is made for.

    Raises:
        PairMissingError: it cannot be made on this machine.
    """

    name: str

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.held = ExitStack()  # what ends with it

    @property
    @abstractmethod
    def version(self) -> str:
        """Of the server."""

    @abstractmethod
    def open(self) -> None:
        """Start both, with all keys on both; whatever `held` has then ends in `close`."""

    @abstractmethod
    def can(self, work: Work) -> bool:
        """Tell whether there is a way to do this work here."""

    @abstractmethod
    def run(self, load: Load) -> Measured:
        """Put a load on it."""

    @abstractmethod
    def lost(self, measured: Measured) -> int:
        """Count what of `measured.last` the replicant does not show, though it had time to."""

    @abstractmethod
    def pids(self) -> tuple[int, int]:
        """The master's and the replicant's process."""

    @abstractmethod
    def idle(self, work: Work) -> Callable[[], None]:
        """Open a connection, logged on, to where a work's commands go; returns what closes it."""

    def close(self) -> None:
        """End both."""
        self.held.close()

    @contextmanager
    def crowd(self, work: Work, count: int) -> Iterator[float]:
        """Hold idle connections; gives what each costs the server in memory, KiB."""
        pid = self.pids()[0 if work.startswith("set") else 1]
        with ExitStack() as connections:
            before = memory_kib(pid)
            for _ in range(count):
                connections.callback(self.idle(work))
            yield (memory_kib(pid) - before) / count


def wait_for(what: str, condition: Callable[[], T | None]) -> T:
    """Look until the condition gives something true, and give that.

    Raises:
        PairError: not in time.
    """
    end_s = time.monotonic() + READY_TIMEOUT_S
    while not (found := condition()):
        if time.monotonic() > end_s:
            raise PairError(f"not within {READY_TIMEOUT_S:g} s: {what}")
        time.sleep(LOOK_S)
    return found


def children_cpu_s() -> float:
    """CPU time of the children of this process that have ended and were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def cpu_s(pid: int) -> float:
    """CPU time of a process and its children, seconds; those that have ended included."""
    return sum(_cpu_s(one) for one in _family(pid))


def memory_kib(pid: int) -> int:
    """Memory of a process and its children; what several share is divided among them."""
    total = 0
    for one in _family(pid):
        text = _read(one, "smaps_rollup")
        total += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total


def _cpu_s(pid: int) -> float:
    # The name may hold spaces; behind its bracket come utime, stime, cutime and cstime as the
    # 12th to the 15th field: proc(5).
    fields = _read(pid, "stat").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / CLOCK_TICKS


def _family(pid: int) -> list[int]:
    threads = Path(f"/proc/{pid}/task").glob("*/children")
    family = [pid]
    for path in threads:
        family += map(int, path.read_text(encoding="ascii").split())
    return family


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        return ""
