"""Compares this master's databases with its replicants' while writes go on.

The marker that names an LSN is a write like any client's that changes nothing: one of the first
records is written over with its own value. So the log gets a commit of a few bytes, and no page is
split: a split ships whole pages, and would put a replicant right before it is looked at.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from replication.compare_master import Options
from replication.compare_report import Report
from replication.messages import AckPolicy
from replication.wire import LSN
from ttserver.errors import TtserverError

if TYPE_CHECKING:
    from berkeleydb import db

    from ttserver.engine import Engine

MARKED_BYTES_MAX: Final = 256
MARKED_AMONG: Final = 64  # of so many first records one is small, or they are all large
MARKER: Final = b"\0ttserver compare "


async def compare(engine: Engine, options: Options, progress: Callable[[Report], None]) -> Report:
    """Compare all databases with those of all replicants.

    Raises:
        TtserverError: replication is off, or this site takes no writes.
        ReplicationError: this site is no master, or stopped being it.

    *Cancellation:* ends the comparison.
    """
    manager = engine.manager
    if manager is None:
        raise TtserverError(
            "the comparison was not started: replication is off",
            code="NOREPLICATION",
            hint="start the daemon without --no-replication.",
        )

    async def mark(behind: Callable[[LSN], None]) -> None:
        committer, keyspace = engine.committer, engine.keyspace

        def work(txn: db.DBTxn) -> None:
            if not keyspace.touch(txn, MARKED_BYTES_MAX, MARKED_AMONG):
                # Nothing small enough: a key that nobody has comes and goes.
                key = MARKER + secrets.token_bytes(16)
                keyspace.put(txn, key, b"")
                keyspace.delete(txn, key)
            committer.call_behind(lambda lsn: behind(LSN(*lsn)))

        outcome = await engine.write(work, policy=AckPolicy.NONE)
        if outcome.error is not None:
            raise outcome.error

    return await manager.comparisons.run(mark, options, progress)
