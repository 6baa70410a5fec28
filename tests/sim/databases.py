"""Handles and transactions of a simulated environment, with the binding's names.

As far as the Replication Manager uses them: the membership database and the library's own history
of generations, each read as a whole and written in a transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from berkeleydb import db

if TYPE_CHECKING:
    from replication.wire import LSN
    from tests.sim.log import Databases
    from tests.sim.region import Region

LOCKED_OUT: Final = -30978
NO_SUCH_FILE: Final = 2
Put = tuple[bytes, bytes, bytes | None]


class Environment(Protocol):
    """What they need of it."""

    region: Region

    def commit(self, *puts: Put, flush: bool = False, system: bool = False) -> LSN: ...


class SimulatedTxn:
    """A transaction: what was put goes into the log with its commit."""

    def __init__(self, env: Environment) -> None:
        self._env = env
        self.puts: list[Put] = []

    def commit(self, flags: int = 0) -> None:
        self._env.commit(*self.puts, flush=flags == db.DB_TXN_SYNC)

    def abort(self) -> None:
        self.puts.clear()


class SimulatedDatabase:
    """A handle."""

    def __init__(self, env: Environment) -> None:
        self._env = env
        self._name = b""

    @property
    def _databases(self) -> Databases:
        return self._env.region.log.databases

    def open(
        self,
        filename: str,
        dbname: str | None = None,
        dbtype: int = db.DB_UNKNOWN,
        flags: int = 0,
        mode: int = 0,
        txn: Any = None,
    ) -> None:
        """Open it.

        Raises:
            DBRepLockoutError: the databases are being copied.
            DBNoSuchFileError: there is none, and none is to be made.
        """
        if self._env.region.initialising:
            raise db.DBRepLockoutError(LOCKED_OUT, "DB_REP_LOCKOUT")
        self._name = (dbname or filename).encode()
        if not flags & db.DB_CREATE and self._name not in self._databases.files:
            raise db.DBNoSuchFileError(NO_SUCH_FILE, "No such file or directory")

    def items(self, txn: Any = None) -> list[tuple[bytes, bytes]]:
        return sorted(self._databases.files.get(self._name, {}).items())

    def get(self, key: bytes, txn: Any = None) -> bytes | None:
        return self._databases.files.get(self._name, {}).get(key)

    def put(self, key: bytes, value: bytes, txn: SimulatedTxn) -> None:
        txn.puts.append((self._name, key, value))

    def delete(self, key: bytes, txn: SimulatedTxn) -> None:
        txn.puts.append((self._name, key, None))

    def close(self, flags: int = 0) -> None:
        """Nothing is kept open."""
