"""What an engine is to the bench: a site in a process of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

from berkeleydb import db

from bench.cases import Lsn, SiteSpec, Written
from bench.environments import NativeStore, Upkeep, log_end, write_config
from storage.keyspace import Keyspace

T = TypeVar("T")
READY_TIMEOUT_S = 30.0


class Site(ABC):
    """One site of an engine, in the process that has it.

    Args:
        spec: what to be.
    """

    def __init__(self, spec: SiteSpec) -> None:
        self.spec = spec

    @property
    def is_master(self) -> bool:
        return self.spec.role == "master"

    @property
    @abstractmethod
    def env(self) -> db.DBEnv:
        """The open environment."""

    @property
    @abstractmethod
    def keyspace(self) -> Keyspace:
        """The btree that was written."""

    @abstractmethod
    def open(self) -> None:
        """Start; return when writes are taken, or when the replicant is in step.

        Raises:
            TimeoutError: that did not happen.
        """

    @abstractmethod
    def write(self, writer: int, key: bytes, value: bytes) -> bool:
        """Write, and return when it may be told to a client; False: the ack policy was not met."""

    @abstractmethod
    def close(self) -> None:
        """Stop."""

    def prepare(self) -> None:  # noqa: B027 - most engines have nothing to prepare
        """Get ready for a load."""

    def open_for_reading(self) -> None:  # noqa: B027 - most engines have it open
        """Make the keyspace readable on a replicant."""

    def finish(self, written: Written) -> Written:
        """Add to what the writers saw."""
        return written

    def log_end(self) -> Lsn:
        """Return the last log record's LSN."""
        return log_end(self.env)

    def counters(self) -> dict[str, int]:
        """Count messages since the start: `dropped`, `requested` and whatever else there is.

        Raises:
            RuntimeError: the engine is not what its name says.
        """
        stat = self.env.rep_stat()
        return {
            "dropped": stat["msgs_send_failures"],
            "requested": stat["log_requested"] + stat["pg_requested"],
            "duplicated": stat["log_duplicated"],
        }


class NativeSite(Site):
    """A site that calls the library directly, one transaction a write.

    Args:
        spec: what to be.
    """

    def __init__(self, spec: SiteSpec) -> None:
        super().__init__(spec)
        self.store = NativeStore(write_config(spec), spec.case)
        self._keyspace = Keyspace(self.store.handle)
        self._upkeep: Upkeep | None = None

    @property
    def env(self) -> db.DBEnv:
        return self.store.env

    @property
    def keyspace(self) -> Keyspace:
        return self._keyspace

    def open(self) -> None:
        self.open_store(None)
        self.store.open_keys(create=True)

    def open_store(self, configure: Callable[[db.DBEnv], None] | None) -> None:
        """Open the environment and look after it."""
        self.store.open(configure)
        self._upkeep = Upkeep(self.env, checkpoints=self.is_master)

    def write(self, writer: int, key: bytes, value: bytes) -> bool:  # noqa: ARG002
        self.store.write(key, value)
        return True

    def close(self) -> None:
        if self._upkeep is not None:
            self._upkeep.stop()
        self.store.close()
