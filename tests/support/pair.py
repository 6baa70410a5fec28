"""Two environments in one process that replicate to each other by direct calls: a loopback.

What the library sends goes into the other site's queue, a thread processes it there. No links, no
acknowledgements, no manager: for tests of how `storage` behaves on a replicant.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from berkeleydb import db

from storage.environment import Environment
from tests.support.environments import Opened, configured, fast, wait_for

__all__ = ["Pair", "fast", "pair"]

Message = tuple[bytes, bytes, int]


class ReplicatedSite:
    """One of the two.

    Attributes:
        opened: its environment.
        events: what the library reported.
        cut: while set, what comes is lost.
    """

    def __init__(self, home: Path, eid: int, peers: dict[int, ReplicatedSite]) -> None:
        self.eid = eid
        self.peers = peers
        self.events: list[int] = []
        self.cut = threading.Event()
        self.errors: list[Exception] = []
        self._inbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self.opened = Opened(Environment(configured(home), self._configure))
        self.opened.environment.open()
        peers[eid] = self
        self._thread = threading.Thread(target=self._process, daemon=True)

    @property
    def env(self) -> db.DBEnv:
        return self.opened.env

    def start(self, role: int) -> None:
        self.env.rep_start(role)
        if not self._thread.is_alive():
            self._thread.start()

    def become(self, role: int) -> None:
        self.env.rep_start(role)

    def close(self) -> None:
        self._inbox.put(None)
        if self._thread.is_alive():
            self._thread.join(30)
        self.peers.pop(self.eid, None)
        self.opened.close()

    def _configure(self, env: db.DBEnv) -> None:
        env.set_event_notify(self._event)
        env.rep_set_transport(self.eid, self._send)
        env.rep_set_config(db.DB_REP_CONF_NOWAIT, 1)
        env.rep_set_timeout(db.DB_REP_CHECKPOINT_DELAY, 0)

    def _event(self, _env: db.DBEnv, what: int, _argument: object = None) -> None:
        self.events.append(what)

    def _send(
        self,
        _env: db.DBEnv,
        control: bytes,
        record: bytes,
        _lsn: tuple[int, int],
        eid: int,
        _flags: int,
    ) -> None:
        for other, site in list(self.peers.items()):
            if other != self.eid and eid in (db.DB_EID_BROADCAST, other):
                site._inbox.put((control, record, self.eid))

    def _process(self) -> None:
        while (message := self._inbox.get()) is not None:
            if self.cut.is_set():
                continue
            try:
                self.env.rep_process_message(*message)
            except db.DBError as error:
                self.errors.append(error)


class Pair:
    """A master and its replicant, in step."""

    def __init__(self, directory: Path) -> None:
        peers: dict[int, ReplicatedSite] = {}
        self.master = ReplicatedSite(directory / "master", 1, peers)
        self.replicant = ReplicatedSite(directory / "replicant", 2, peers)

    def start(self, before: Callable[[Opened], None] = lambda opened: None) -> None:
        """Start the master, then the replicant, and wait until that is in step."""
        self.master.start(db.DB_REP_MASTER)
        self.master.opened.database.create()
        before(self.master.opened)
        self.replicant.start(db.DB_REP_CLIENT)
        wait_for(
            "startup done", lambda: db.DB_EVENT_REP_STARTUPDONE in self.replicant.events or None
        )

    def wait_in_step(self) -> None:
        """Wait until the replicant has all of the master's log."""

        def in_step() -> bool:
            try:
                reached = self.replicant.opened.environment.log_end()
            except db.DBRepLockoutError:
                return False
            return reached == self.master.opened.environment.log_end()

        wait_for("the replicant is in step", in_step)

    def close(self) -> None:
        self.replicant.close()
        self.master.close()


@pytest.fixture
def pair(fast: Path) -> Iterator[Pair]:
    made = Pair(fast)
    yield made
    made.close()
