"""What one client has under way in the group commit, and how much of that there may be."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ttserver.commands.context import Outcome, Store, WatchLike
from ttserver.replies import Slot, Value

if TYPE_CHECKING:
    from berkeleydb.db import DBTxn

    from ttserver.commands.transactions import Plan

OUTSTANDING_BYTES_MAX: Final = 64 * 1024 * 1024
RETURNED_BYTES: Final = OUTSTANDING_BYTES_MAX // 16  # set aside for a stored value to come back


class Pending(Slot):
    """A write, or a read behind writes, on its way through the group commit.

    Args:
        store: the database as commands see it.
        settle: called with this and its outcome, in the loop.
        run, args: what is run in the transaction.
        size_bytes: what it carries, or may bring back.
        is_write: False for a read.
        transaction: the EXEC it is.
        watch: to be closed at its end.
    """

    __slots__ = (
        "_settle",
        "_store",
        "args",
        "is_write",
        "run",
        "size_bytes",
        "transaction",
        "watch",
    )

    def __init__(
        self,
        store: Store,
        settle: Callable[[Pending, Outcome], None],
        run: Callable[[Store, DBTxn, Any], Value],
        args: Any,
        size_bytes: int,
        *,
        is_write: bool = True,
        transaction: Plan | None = None,
        watch: WatchLike | None = None,
    ) -> None:
        self.data: bytes | None = None
        self._store = store
        self._settle = settle
        self.run = run
        self.args = args
        self.size_bytes = size_bytes
        self.is_write = is_write
        self.transaction = transaction
        self.watch = watch

    def work(self, txn: DBTxn) -> Value:
        """Run in the committer's transaction. *Thread:* the committer's."""
        return self.run(self._store, txn, self.args)

    def done(self, outcome: Outcome) -> None:
        """Take the outcome, in the loop."""
        self._settle(self, outcome)


class Outstanding:
    """How much of one client is in the group commit.

    Args:
        count_max: writes under way; with that many no further command is started.
    """

    __slots__ = ("_count_max", "count", "size_bytes")

    def __init__(self, count_max: int) -> None:
        self._count_max = count_max
        self.count = 0
        self.size_bytes = 0

    def add(self, pending: Pending) -> bool:
        """Count one more; True when that is enough."""
        self.count += 1
        self.size_bytes += pending.size_bytes
        return self.count >= self._count_max or self.size_bytes > OUTSTANDING_BYTES_MAX

    def remove(self, pending: Pending) -> None:
        """Count one less."""
        self.count -= 1
        self.size_bytes -= pending.size_bytes

    @property
    def has_room(self) -> bool:
        """True once half of what there may be is done."""
        return self.count <= self._count_max // 2 and self.size_bytes <= OUTSTANDING_BYTES_MAX // 2
