"""The site of a vault: its HOME, its daemon, and its environment while the daemon is stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from bench.trio import HOST, PASSWORD, RespConnection
from bench.vault import fill
from storage.catalog.files import CatalogFiles
from storage.environment import Environment
from storage.users import ADMINISTRATOR, new_record
from ttserver.address import Address
from ttserver.demo.ports import reserved
from ttserver.demo.site import SiteError, SiteProcess
from ttserver.init import make_plan, write
from ttserver.sample import structure

CLOSE_TIMEOUT_S = 60.0
MIB = 2**20


@dataclass(frozen=True, slots=True)
class VaultSite:
    """A lone master.

    Args:
        daemon: its process.
        clients: where it serves clients.
    """

    daemon: SiteProcess
    clients: Address

    def connect(self) -> RespConnection:
        """Log on."""
        return RespConnection(self.clients)

    def start(self) -> None:
        """Start the daemon, and wait until it serves.

        Raises:
            SiteError: it does not.
        """
        self.daemon.start()
        self.daemon.wait_running()

    def stop(self) -> None:
        """End the daemon in order.

        Raises:
            SiteError: it did not end so.
        """
        if self.daemon.stop() != 0:
            raise SiteError(f"the daemon failed; see {self.daemon.log}")

    def fill(self, count: int, today: date, progress: Callable[[int], None]) -> float:
        """Make the structure through the client port and the volumes in bulk; daemon stopped.

        Returns:
            How long the volumes took, seconds.
        """
        self.start()
        connection = self.connect()
        for words in structure():
            answer = connection.ask(*(word.encode() for word in words))
            if isinstance(answer, Exception):
                raise SiteError(f"{words[0]} was refused: {answer}")
        connection.close()
        self.stop()
        with self.environment() as (environment, files):
            begun_s = time.monotonic()
            fill(environment, files, count, today, progress)
            return time.monotonic() - begun_s

    @contextmanager
    def environment(self) -> Iterator[tuple[Environment, CatalogFiles]]:
        """Open its environment in this process; the daemon is stopped."""
        environment = Environment(self.daemon.home.environment)
        environment.open()
        files = CatalogFiles(environment)
        try:
            yield environment, files
        finally:
            files.close()
            environment.close(CLOSE_TIMEOUT_S)

    def data_mib(self) -> float:
        """The size of the databases' files, MiB."""
        files = self.daemon.home.environment.glob("*.db")
        return sum(file.stat().st_size for file in files) / MIB

    def memory_mib(self) -> tuple[float, float]:
        """The daemon's resident memory, MiB: all of it, and what it does not share.

        The cache and the library's other regions are mapped files, so they are shared.
        """
        assert self.daemon.process is not None, "it runs"
        text = Path(f"/proc/{self.daemon.process.pid}/status").read_text(encoding="utf-8")
        kib = {
            name: int(value.split()[0])
            for name, _, value in (line.partition(":") for line in text.splitlines())
            if name in ("VmRSS", "RssAnon")
        }
        return kib["VmRSS"] / 1024, kib["RssAnon"] / 1024


@contextmanager
def vault_site(root: Path, cache_mib: int) -> Iterator[VaultSite]:
    """Make a HOME below `root`; its daemon ends with the context."""
    with reserved(HOST) as replication, reserved(HOST) as clients:
        daemon = SiteProcess("vault", root / "home", root / "vault.log")
        root.mkdir()
        plan = make_plan(daemon.home, "master", str(replication), [], 1)
        write(plan, new_record(ADMINISTRATOR, PASSWORD, "administrator"))
        with daemon.home.db_config.open("a", encoding="utf-8") as config:
            config.write(f"set_cachesize {cache_mib // 1024} {cache_mib % 1024 * MIB} 1\n")
        daemon.home.toml.write_text(f'[client]\nlisten = "{clients}"\n', encoding="utf-8")
        try:
            yield VaultSite(daemon, clients)
        finally:
            daemon.stop()
