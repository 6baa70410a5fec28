"""`ttserver`: this server's engine as its client port uses it, writers being threads.

`ttserver-single` is the same with group commit off, `local-group` the same without replication.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import uvloop
from berkeleydb import db

from bench.cases import SiteSpec, Written
from bench.engines.base import READY_TIMEOUT_S, Site
from bench.environments import POLL_S, write_config
from replication.journal import Journal
from storage.keyspace import Keyspace
from ttserver.config import load
from ttserver.daemon import SWITCH_INTERVAL_S
from ttserver.engine import Engine
from ttserver.home import Home

T = TypeVar("T")
STOP_TIMEOUT_S = 5.0


class TtserverSite(Site):
    """An engine with its event loop on a thread.

    Args:
        spec: what to be.
        batch_max: most writes of a group commit; None: as the case says.
        replication: False leaves it out.
    """

    def __init__(
        self, spec: SiteSpec, *, batch_max: int | None = None, replication: bool = True
    ) -> None:
        super().__init__(spec)
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        write_config(spec)
        overrides = {
            "client.listen": "127.0.0.1:0",
            "storage.durability": spec.case.durability,
            "storage.group_commit_max": batch_max or spec.case.batch_max,
        }
        config = load(Home(Path(spec.home)), overrides, install=True)
        limits = config.settings.journal
        self._journal = Journal(
            config.home.journal,
            limits.bytes_max,
            limits.files_max,
            str(config.local),
            capture_stdout=False,
        )
        self._replication = replication
        self._engine = Engine(config, self._journal, replication=replication)
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run_loop, name="loop", daemon=True)
        self._transaction: db.DBTxn | None = None
        self._order: list[int] = []
        self._batches: list[int] = []

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _call(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    @property
    def env(self) -> db.DBEnv:
        return self._engine.environment.env

    @property
    def keyspace(self) -> Keyspace:
        return self._engine.keyspace

    def open(self) -> None:
        self._thread.start()
        self._call(self._engine.start()).result(READY_TIMEOUT_S)
        ready: Callable[[], bool] = (
            (lambda: self._engine.accepting)
            if self.is_master
            else (lambda: self._engine.state == "running" and self._engine.role == "replicant")
        )
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not ready():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.spec.role}: {self._engine.status().why}")
            time.sleep(POLL_S)

    def write(self, writer: int, key: bytes, value: bytes) -> bool:
        put = self._engine.keyspace.put

        def work(txn: db.DBTxn) -> None:
            # Which writes share a transaction, for the engine that repeats them. Holding the
            # transaction keeps another one from getting its address.
            if txn is not self._transaction:
                self._transaction = txn
                self._batches.append(0)
            self._batches[-1] += 1
            self._order.append(writer)
            put(txn, key, value)

        outcome = self._engine.write_from_thread(work)
        if outcome.error is not None:
            raise outcome.error
        return outcome.perm_failed is None

    def prepare(self) -> None:
        self._order, self._batches = [], []

    def finish(self, written: Written) -> Written:
        self._transaction = None
        written.order, written.batches = self._order, self._batches
        return written

    def counters(self) -> dict[str, int]:
        if not self._replication:
            return {}
        counters = super().counters()
        own = self._engine.status().counters
        counters["dropped"] += own["messages_dropped"] + own["links_stalled"]
        kept = ("messages_sent", "messages_applied", "apply_flushes", "back_pressure_waits")
        return counters | {name: own[name] for name in kept}

    def close(self) -> None:
        self._call(self._engine.stop(STOP_TIMEOUT_S)).result(2 * STOP_TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STOP_TIMEOUT_S)
        self._loop.close()
        self._journal.close()
