"""What is measured, and what came of it: the words that both sides of a benchmark share."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Acks = Literal["none", "one"]
Durability = Literal["sync", "write_nosync", "nosync"]
Role = Literal["master", "replicant"]
Lsn = tuple[int, int]


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that are the same for every engine.

    Args:
        acks: how many replicants a write waits for.
        durability: of a commit on the master; the replicant flushes before it acknowledges with
            "sync" and not otherwise.
        value_size: bytes.
        batch_max: most writes of one group commit, where an engine has one.
        bulk: the library sends its records in bulk.
    """

    acks: Acks = "one"
    durability: Durability = "sync"
    value_size: int = 200
    batch_max: int = 1024
    bulk: bool = False

    @property
    def title(self) -> str:
        """One line for people."""
        words = [f"acks {self.acks}", self.durability, f"{self.value_size} bytes"]
        words.append(f"batch {self.batch_max}")
        if self.bulk:
            words.append("bulk")
        return ", ".join(words)


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """One measured stretch of writing.

    Args:
        run: a number that keeps its keys apart from those of other runs.
        threads: writers.
        seconds: how long, at most.
        count: how many writes, at most; 0 for no limit.
        value_size: bytes.
    """

    run: int
    threads: int
    seconds: float
    count: int = 0
    value_size: int = 200


class Written(msgspec.Struct, kw_only=True):
    """What the master's process saw of a load.

    Args:
        started_s, ended_s: of the system's monotonic clock, the same in every process.
        by_writer: how many writes each writer did.
        latency_p50_us, latency_p99_us: from the call to its reply.
        perm_failed: writes whose ack policy was not met in time.
        lsn: the end of the log then.
        order: the writer of each write in the order of the commits, and
        batches: how many of them each transaction held; empty where nobody can tell.
    """

    started_s: float
    ended_s: float
    by_writer: list[int]
    latency_p50_us: float
    latency_p99_us: float
    perm_failed: int
    lsn: Lsn
    order: list[int] = []
    batches: list[int] = []

    @property
    def writes(self) -> int:
        return sum(self.by_writer)


class SiteSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a site's process is told at its start.

    Args:
        engine: its name in `bench.engines`.
        home: its directory, empty.
        ports: of the master and the replicant, both on loopback.
    """

    engine: str
    role: Role
    home: str
    ports: tuple[int, int]
    case: Case


class Result(msgspec.Struct, kw_only=True):
    """One engine's run.

    Args:
        paused: the replicant was stopped for a while; the run is not part of the medians.
        end_to_end_s: from the first write to the last one applied on the replicant; None when
            that did not happen in time.
        dropped, requested: messages that were not sent, and those asked for again.
        lost: writes that the other copy does not hold afterwards.
        facts: what else the engine counts.
    """

    engine: str
    round: int
    paused: bool
    threads: int
    writes: int
    bytes: int
    master_s: float
    end_to_end_s: float | None
    latency_p50_us: float | None = None
    latency_p99_us: float | None = None
    perm_failed: int = 0
    dropped: int | None = None
    requested: int | None = None
    lost: int = 0
    facts: dict[str, Any] = {}

    @property
    def master_rate(self) -> float:
        """Writes a second, as their writers saw them."""
        return self.writes / self.master_s

    @property
    def end_to_end_rate(self) -> float | None:
        """Writes a second until the last is applied; None when it never was."""
        return self.writes / self.end_to_end_s if self.end_to_end_s else None
