"""Real environments for tests of `storage`: small, on a fast disk, gone afterwards.

Use `environments` as a fixture: it makes and opens them, and closes what the test left open.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from berkeleydb import db

from storage.commit import Batch, Committer, Write
from storage.database import Database
from storage.environment import Environment
from storage.keyspace import Keyspace

T = TypeVar("T")

DEADLINE_S = 30.0
LOOK_S = 0.002
SHM = Path("/dev/shm")
SHM_FREE_BYTES_MIN = 2**30
# Small regions: an environment of these sets 8 MB aside, one of the server's defaults 190 MB.
LINES = (
    "set_cachesize 0 2097152 1",
    "set_lg_bsize 262144",
    "set_lg_max 1048576",
    "set_lk_max_locks 5000",
    "set_lk_max_objects 5000",
    "set_lk_max_lockers 5000",
)


def wait_for(what: str, condition: Callable[[], T | None], *, deadline_s: float = DEADLINE_S) -> T:
    """Look until the condition gives something true, and give that; fail after the deadline."""
    end_s = time.monotonic() + deadline_s
    while not (found := condition()):
        assert time.monotonic() < end_s, f"not within {deadline_s:g} s: {what}"
        time.sleep(LOOK_S)
    return found


async def soon(
    what: str, condition: Callable[[], T | None], *, deadline_s: float = DEADLINE_S
) -> T:
    """`wait_for` in an event loop."""
    end_s = time.monotonic() + deadline_s
    while not (found := condition()):
        assert time.monotonic() < end_s, f"not within {deadline_s:g} s: {what}"
        await asyncio.sleep(LOOK_S)
    return found


@contextmanager
def fast_directory(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory where there is such a file system, else below `tmp_path`."""
    if SHM.is_dir() and shutil.disk_usage(SHM).free >= SHM_FREE_BYTES_MIN:
        path = Path(tempfile.mkdtemp(prefix="ttserver-test-", dir=SHM))
    else:
        path = tmp_path / "fast"
        path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class Stuck:
    """A thread of an environment that does not come out when it is told to stop."""

    def __init__(self, work: Callable[[], object], name: str = "stuck") -> None:
        self.name = name
        self._thread = threading.Thread(target=work, name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Too bad."""

    def join(self, timeout: float | None = None) -> None:
        self._thread.join(timeout)

    def is_alive(self) -> bool:
        return self._thread.is_alive()


class Opened:
    """One open environment with a keyspace and what a test may want of it.

    Attributes:
        batches: what its committers delivered.
    """

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.database = Database(environment, "keys.db")
        self.keyspace = Keyspace(self.database.handle)
        self.batches: list[Batch] = []

    @property
    def env(self) -> db.DBEnv:
        return self.environment.env

    @contextmanager
    def txn(self, flags: int = 0) -> Iterator[db.DBTxn]:
        txn = self.env.txn_begin(None, flags)
        try:
            yield txn
        except BaseException:
            txn.abort()
            raise
        txn.commit()

    def put(self, *keys: bytes, value: bytes = b"value") -> None:
        with self.txn() as txn:
            for key in keys:
                self.keyspace.put(txn, key, value)

    def get(self, key: bytes) -> bytes | None:
        with self.txn() as txn:
            return self.keyspace.get(txn, key)

    def all(self) -> list[tuple[bytes, bytes]]:
        with self.txn() as txn:
            return self.keyspace.range(txn, None, None, limit=10**9)

    def committer(self, **options: object) -> Committer:
        return Committer(self.environment, self.batches.append, **options)  # type: ignore[arg-type]

    def done(self, writes: Sequence[Write]) -> list[Write]:
        """Wait until all of `writes` came back; give them in the order they came."""

        def back() -> list[Write] | None:
            there = [write for batch in list(self.batches) for write in batch.writes]
            return there if all(write in there for write in writes) else None

        return wait_for("all writes come back", back)

    def commit(self, committer: Committer, *writes: Write) -> list[Batch]:
        """Submit and wait; give the batches that came of it."""
        before = len(self.batches)
        for write in writes:
            committer.submit(write)
        self.done(writes)
        return self.batches[before:]

    def lock(self, key: bytes) -> db.DBTxn:
        """Write-lock the page of `key` until the result is ended."""
        txn = self.env.txn_begin()
        self.keyspace.put(txn, key, b"locked")
        return txn

    def close(self) -> None:
        if self.environment.is_open:
            self.environment.stop_threads(DEADLINE_S)
            self.database.close()
            self.environment.close(DEADLINE_S)


Open = Callable[..., Opened]


def configured(home: Path, lines: Sequence[str] = LINES) -> Path:
    """Make the directory of an environment with its DB_CONFIG."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "DB_CONFIG").write_text("".join(f"{line}\n" for line in lines))
    return home


@pytest.fixture
def fast(tmp_path: Path) -> Iterator[Path]:
    with fast_directory(tmp_path) as path:
        yield path


@pytest.fixture
def environments(fast: Path) -> Iterator[Open]:
    opened: list[Opened] = []

    def make(
        name: str = "env",
        *,
        lines: Sequence[str] = LINES,
        configure: Callable[[db.DBEnv], None] | None = None,
        on_panic: Callable[[Exception], None] | None = None,
        create: bool = True,
    ) -> Opened:
        home = configured(fast / name, lines)
        made = Opened(Environment(home, configure, on_panic))
        made.environment.open()
        opened.append(made)
        if create:
            made.database.create()
        return made

    yield make
    for each in opened:
        each.close()
