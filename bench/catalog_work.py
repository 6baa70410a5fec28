"""What is asked of a vault, and how long it takes: at the client port, and the work by itself.

Both sides do the same with volumes chosen by the same seed: look at one, read its history, move it
and confirm it, and turn the pages of some lists.
"""

from __future__ import annotations

import gc
import itertools
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

import msgspec
from berkeleydb import db

from bench.trio import RespConnection
from bench.vault import HISTORY_EACH, MOVING_ONE_IN
from bench.workload import percentile
from storage.catalog.catalog import Catalog
from storage.catalog.files import CatalogFiles
from storage.catalog.history import Span
from storage.catalog.queries import Query
from storage.catalog.records import actor_at
from storage.environment import Environment
from ttserver.commands.catalog_views import history_map, volume_map
from ttserver.replies import encode
from ttserver.sample import SampleVolume, volumes

SEED: Final = 7
CHOSEN: Final = 2000
WARM_UP: Final = 50
PAGE: Final = 100
PROTOCOL: Final = 2  # what `RespConnection` speaks


@dataclass(frozen=True, slots=True)
class Listing:
    """A list of volumes.

    Args:
        words: as VOLUME.LIST takes them.
        asked: the same, as fields of `Query`; days from today for `due`.
    """

    words: Sequence[str]
    asked: Mapping[str, Any]


LISTS: Final[Mapping[str, Listing]] = {
    "a media type": Listing(("MATCH", "US04.LTO.*"), {"filter": "US04.LTO.*"}),
    "in a repository": Listing(("IN", "OFFS"), {"place": "OFFS"}),
    "in one, not moving": Listing(
        ("MATCH", "US04.LTO.*", "IN", "LIBR", "WITHOUT", "M"),
        {"filter": "US04.LTO.*", "place": "LIBR", "without": "M"},
    ),
    "on their way": Listing(("FLAGS", "M"), {"flags": "M"}),
    "due in a week": Listing(("DUE", "*+7"), {"due": 7}),
    "due, in one": Listing(("DUE", "*+7", "IN", "LIBR"), {"due": 7, "place": "LIBR"}),
    "one name in ten": Listing(("MATCH", "*5L[67]"), {"filter": "*5L[67]"}),
}


class Timing(msgspec.Struct, frozen=True):
    """How long something took, microseconds.

    Args:
        cpu_p99_us: what of it was this thread's own CPU time, which a busy machine does not change;
            None where another process did the work.
    """

    count: int
    p50_us: float
    p99_us: float
    max_us: float
    cpu_p99_us: float | None = None


class Clock:
    """Collects times by the name of what is timed.

    Args:
        cpu: the CPU time as well.
    """

    def __init__(self, *, cpu: bool = False) -> None:
        self._ns: dict[str, list[int]] = defaultdict(list)
        self._cpu_ns: dict[str, list[int]] | None = defaultdict(list) if cpu else None

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Time the block."""
        begun_cpu_ns = time.thread_time_ns()
        begun_ns = time.perf_counter_ns()
        yield
        self._ns[name].append(time.perf_counter_ns() - begun_ns)
        if self._cpu_ns is not None:
            self._cpu_ns[name].append(time.thread_time_ns() - begun_cpu_ns)

    def timings(self) -> dict[str, Timing]:
        """Sum up."""
        return {
            name: Timing(
                len(every_ns),
                _percentile_us(every_ns, 0.5),
                _percentile_us(every_ns, 0.99),
                _percentile_us(every_ns, 1.0),
                None if self._cpu_ns is None else _percentile_us(self._cpu_ns[name], 0.99),
            )
            for name, every_ns in self._ns.items()
        }


def _percentile_us(every_ns: Sequence[int], share: float) -> float:
    return round(percentile(sorted(every_ns), share) / 1000, 1)


class Choice:
    """Volumes to work with, in an order that the seed gives.

    Args:
        size: how many volumes the vault has.
    """

    def __init__(self, size: int) -> None:
        chance = random.Random(SEED)
        numbers = set(chance.sample(range(size), min(size, CHOSEN)))
        picked = [(at, one) for at, one in enumerate(volumes(size)) if at in numbers]
        chance.shuffle(picked)
        self.names = [one.name for _, one in picked]
        self.movable = [one.name for at, one in picked if _is_movable(at, one)]


def _away(place: str) -> str:
    """Another repository to move a volume to."""
    return "LIBR" if place == "RACK" else "RACK"


def _is_movable(number: int, one: SampleVolume) -> bool:
    return one.media != "CONT" and not one.container and number % MOVING_ONE_IN != 0


@contextmanager
def no_collector() -> Iterator[None]:
    """Keep the garbage collector of this process out of the times."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class ClientSide:
    """Asks through the client port, as clients do.

    Args:
        connect: logs on.
        size: how many volumes the vault has.
        operations: how often each is timed.

    Attributes:
        rows: by list, how many volumes its pages had, on average.
        wrong: what was not as it has to be.
    """

    def __init__(self, connect: Callable[[], RespConnection], size: int, operations: int) -> None:
        self._connect = connect
        self._size = size
        self._operations = operations
        self._choice = Choice(size)
        self._connection = connect()
        self.clock = Clock()
        self.rows: dict[str, float] = {}
        self.wrong: list[str] = []

    def run(self) -> None:
        """Do everything."""
        if (count := self._ask("VOLUME.COUNT")) != self._size:
            self.wrong.append(f"VOLUME.COUNT is {count}")
        for name in self._choice.names[:WARM_UP]:
            self._ask("VOLUME.GET", name)
        with no_collector():
            self._look()
            self._move()
            for title, listing in LISTS.items():
                self._turn_pages(title, listing)
            self._ping_meanwhile()
        self._connection.close()

    def _ask(self, *words: str) -> Any:
        answer = self._connection.ask(*(word.encode() for word in words))
        if isinstance(answer, Exception):
            self.wrong.append(f"{' '.join(words)} was refused: {answer}")
        return answer

    def _look(self) -> None:
        for name in itertools.islice(itertools.cycle(self._choice.names), self._operations):
            with self.clock.timed("get"):
                found = self._ask("VOLUME.GET", name)
            if found[1] != name.encode():
                self.wrong.append(f"VOLUME.GET {name} gave {found[1]!r}")
            with self.clock.timed("history"):
                _, records = self._ask("VOLUME.HISTORY", name)
            if len(records) != HISTORY_EACH:
                self.wrong.append(f"{name} has {len(records)} records of history")

    def _move(self) -> None:
        """Moves, and between them plain keys, whose commit is the same and whose work is least."""
        names = itertools.islice(itertools.cycle(self._choice.movable), self._operations)
        for number, name in enumerate(names):
            place = _away(_target(self._ask("VOLUME.GET", name)))
            with self.clock.timed("set"):
                self._ask("SET", f"bench:{number}", "x" * 100)
            with self.clock.timed("move"):
                moved = self._ask("VOLUME.MOVE", name, place)
            if _target(moved) != place:
                self.wrong.append(f"VOLUME.MOVE {name} {place} went to {_target(moved)}")
            with self.clock.timed("confirm"):
                self._ask("VOLUME.CONFIRM", name)

    def _turn_pages(self, title: str, listing: Listing) -> None:
        cursor, rows = "0", 0
        for _ in range(self._operations):
            with self.clock.timed(f"page: {title}"):
                after, found = self._ask("VOLUME.LIST", cursor, *listing.words)
            rows += len(found)
            cursor = after.decode()
        self.rows[title] = rows / self._operations

    def _ping_meanwhile(self) -> None:
        """PING of one client while another turns pages: what a page costs the event loop."""
        ended = threading.Event()
        other = self._connect()

        def turn() -> None:
            cursor = b"0"
            while not ended.is_set():
                answer: Any = other.ask(b"VOLUME.LIST", cursor, b"MATCH", b"US04.LTO.*")
                cursor = answer[0]

        for title in ("ping", "ping beside pages"):
            thread = threading.Thread(target=turn, name="pages", daemon=True)
            if title != "ping":
                thread.start()
            for _ in range(self._operations):
                with self.clock.timed(title):
                    self._ask("PING")
        ended.set()
        thread.join()
        other.close()


def _target(volume: Sequence[Any]) -> str:
    """The target of a volume as RESP2 shows it: names and values in turn."""
    at = volume.index(b"target") + 1
    place: bytes = volume[at][1]
    return place.decode()


class WorkSide:
    """Does the same in this process: what the daemon does for a command, but for the socket.

    A commit is timed by itself, and a page includes its reply.

    Args:
        environment, files: open, used by nobody else.
        size: how many volumes the vault has.
        today: the day it was filled.
        operations: how often each is timed.
    """

    def __init__(
        self,
        environment: Environment,
        files: CatalogFiles,
        size: int,
        today: date,
        operations: int,
    ) -> None:
        self._env = environment.env
        self._catalog = Catalog(lambda: files, lambda _: False)
        self._today = today
        self._operations = operations
        self._choice = Choice(size)
        self.clock = Clock(cpu=True)

    def run(self) -> None:
        """Do everything."""
        with no_collector():
            self._look()
            self._move()
            for title, listing in LISTS.items():
                self._turn_pages(title, listing)

    @contextmanager
    def _reading(self, name: str) -> Iterator[db.DBTxn]:
        with self.clock.timed(name):
            txn = self._env.txn_begin()
            try:
                yield txn
            finally:
                txn.abort()

    def _look(self) -> None:
        store, history = self._catalog.store, self._catalog.history
        for name in itertools.islice(itertools.cycle(self._choice.names), self._operations):
            with self._reading("get") as txn:
                store.the_volume(txn, name)
            with self._reading("history") as txn:
                page = history.page(txn, Span(filter=name), None, PAGE, _everyone)
                encode([history_map(one) for one in page.records], PROTOCOL)

    def _move(self) -> None:
        moves, store = self._catalog.moves, self._catalog.store
        for name in itertools.islice(itertools.cycle(self._choice.movable), self._operations):
            txn = self._env.txn_begin()
            place = _away(store.the_volume(txn, name).target.repository)
            txn.abort()
            actor = actor_at("tapemaster", "bench", time.time())
            for what in ("move", "confirm"):
                with self.clock.timed(what):
                    txn = self._env.txn_begin()
                    if what == "move":
                        moves.move(txn, actor, name, place)
                    else:
                        moves.confirm(txn, actor, name)
                with self.clock.timed("commit"):
                    txn.commit(db.DB_TXN_SYNC)

    def _turn_pages(self, title: str, listing: Listing) -> None:
        asked = dict(listing.asked)
        if "due" in asked:
            asked["due"] = self._today + timedelta(days=asked["due"])
        query = Query(today=self._today, **asked)
        after: bytes | None = None
        for _ in range(self._operations):
            with self._reading(f"page: {title}") as txn:
                page = self._catalog.queries.page(txn, query, after, PAGE, _everyone)
                rows = [volume_map(one.name, one.volume, one.flags) for one in page.volumes]
                encode(rows, PROTOCOL)
            after = page.after


def _everyone(_customer: str) -> bool:
    return True
