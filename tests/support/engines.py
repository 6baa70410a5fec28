"""The server's engine in the test's own event loop: one site, or a group on loopback.

Use `sites` as a fixture. Every engine is stopped when the test ends, however it ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from berkeleydb import db

from replication.generations import CommitToken
from replication.journal import Journal
from replication.wire import LSN
from storage.library import StillInLibrary
from tests.support.environments import LINES, fast, soon
from ttserver.address import Address
from ttserver.config import load
from ttserver.demo.ports import reserved
from ttserver.engine import Engine, WriteOutcome
from ttserver.home import Home

__all__ = ["EngineSite", "EngineSites", "fast", "sites"]

JOURNAL_BYTES = 2**20
Work = Callable[["db.DBTxn"], Any]


@dataclass
class EngineSite:
    """One site.

    Attributes:
        engine: of the last `start`.
        changes: how often the engine said that something changed.
    """

    name: str
    home: Home
    address: Address
    overrides: Mapping[str, object]
    replication: bool
    engine: Engine = field(init=False)
    journal: Journal = field(init=False)
    changes: int = 0
    stuck: list[StillInLibrary] = field(default_factory=list)

    def make(self) -> Engine:
        """Make the engine, not started yet."""
        config = load(self.home, {"client.listen": "127.0.0.1:0", **self.overrides}, install=True)
        self.journal = Journal(self.home.journal, JOURNAL_BYTES, 2, str(config.local), False)
        self.engine = Engine(
            config, self.journal, replication=self.replication, on_stuck=self.stuck.append
        )
        self.engine.on_change.append(self._changed)
        return self.engine

    def _changed(self) -> None:
        self.changes += 1
        self.engine.status()  # whoever is told looks at once

    async def start(self, *, wait: bool = True) -> Engine:
        """Start, and wait until it is running."""
        engine = self.make()
        await engine.start()
        if wait:
            await soon(f"{self.name} is running", lambda: engine.state == "running", deadline_s=60)
        return engine

    async def stop(self) -> None:
        """Stop as the daemon does."""
        try:
            await self.engine.stop(10.0)
        finally:
            self.journal.close()

    @property
    def events(self) -> str:
        """What the journal says."""
        return self.home.journal.read_text()

    # -- the keyspace

    def put(self, key: bytes, value: bytes = b"value") -> Work:
        """A work that sets a key."""
        keyspace = self.engine.keyspace
        return lambda txn: keyspace.put(txn, key, value)

    def get(self, key: bytes) -> Work:
        """A read of a key."""
        keyspace = self.engine.keyspace
        return lambda txn: keyspace.get(txn, key)

    async def write(self, *keys: bytes, value: bytes = b"value", **how: Any) -> WriteOutcome:
        """Write keys in one transaction."""
        keyspace = self.engine.keyspace

        def work(txn: db.DBTxn) -> str:
            for key in keys:
                keyspace.put(txn, key, value)
            return "written"

        return await self.engine.write(work, keys=keys, **how)

    @staticmethod
    def token(outcome: WriteOutcome) -> CommitToken:
        """Name a write."""
        assert outcome.lsn is not None
        return CommitToken(outcome.generation, LSN(*outcome.lsn))

    async def read(self, key: bytes) -> Any:
        """Read a key on a thread."""
        return await self.engine.read(self.get(key))


class EngineSites:
    """Makes sites below a directory; see `make` and `group`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ports = ExitStack()
        self.all: list[EngineSite] = []

    def make(
        self,
        name: str = "site",
        *,
        lines: Sequence[str] = (),
        overrides: Mapping[str, object] | None = None,
        replication: bool = True,
        local: bool = True,
    ) -> EngineSite:
        """Make a HOME with small regions; `lines` go to its DB_CONFIG."""
        address = self._ports.enter_context(reserved("127.0.0.1"))
        home = Home(self._directory / name)
        home.root.mkdir(parents=True)
        own = [f"repmgr_site {address.host} {address.port} db_local_site on"] if local else []
        listen = {} if local else {"replication.listen": str(address)}
        site = EngineSite(name, home, address, {**listen, **(overrides or {})}, replication)
        self.configure(site, *own, *lines)
        self.all.append(site)
        return site

    def configure(self, site: EngineSite, *lines: str) -> None:
        """Write the site's DB_CONFIG."""
        site.home.db_config.write_text("".join(f"{line}\n" for line in (*LINES, *lines)))

    def group(
        self,
        count: int = 2,
        *,
        lines: Sequence[str] = (),
        overrides: Mapping[str, object] | None = None,
        priorities: Sequence[int] = (),
    ) -> list[EngineSite]:
        """Make a master (priority 1) and replicants (priority 0) that know each other.

        Args:
            priorities: others than these; the first site still creates the group.
        """
        made = [
            self.make(f"site{number}", local=False, overrides=overrides) for number in range(count)
        ]
        for site, priority in zip(made, priorities or (1, *[0] * (count - 1)), strict=True):
            self._introduce(site, made, (f"rep_set_priority {priority}", *lines))
        return made

    def _introduce(self, site: EngineSite, members: list[EngineSite], lines: Sequence[str]) -> None:
        master = members[0]
        site.overrides = {
            name: value for name, value in site.overrides.items() if name != "replication.listen"
        }
        said = []
        for other in members:
            line = f"repmgr_site {other.address.host} {other.address.port}"
            if other is site:
                line += " db_local_site on" + (" db_group_creator on" if site is master else "")
            elif other is master:
                line += " db_bootstrap_helper on"
            said.append(line)
        self.configure(site, *said, *lines)

    async def close(self) -> None:
        """Stop what runs."""
        for site in self.all:
            if hasattr(site, "engine"):
                try:
                    await asyncio.wait_for(site.engine.stop(10.0), 30)
                finally:
                    site.journal.close()
        self._ports.close()


@pytest.fixture
async def sites(fast: Path) -> AsyncIterator[EngineSites]:
    made = EngineSites(fast)
    yield made
    await made.close()
