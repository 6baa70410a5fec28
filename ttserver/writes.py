"""What becomes of a client's write: group commit, acknowledgements, its outcome.

    submit -> Committer (thread) -> deliver -> [loop] -> Manager.confirm -> confirmed -> on_done

A write that failed is answered as soon as its batch is known; the others when their ack policy
held, or could not.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import structlog
from berkeleydb import db

from replication.hub import later
from replication.journal import Journal
from replication.manager import Manager
from replication.messages import AckPolicy
from replication.wire import LSN
from storage.commit import Batch, Committer, Watch, Write

Lsn = tuple[int, int]
Token = tuple[list[Write], Lsn | None, int]  # writes of one commit, its LSN and generation

ACK_FAILED_EVERY_S = 10.0  # with the replicant down every write fails: once is enough to read
ACK_FAILED_BURST = 3

log = structlog.get_logger(__name__)


class WriteOutcome(msgspec.Struct):
    """How one write ended.

    Args:
        result: what its work returned.
        error: why nothing of it was written.
        lsn: of its commit record; None when nothing was logged.
        generation: the master's generation then.
        perm_failed: committed here, but the ack policy was not met: who acknowledged, who did not.
    """

    result: Any
    error: Exception | None
    lsn: Lsn | None
    generation: int
    perm_failed: str | None


class Ticket(msgspec.Struct, frozen=True):
    """What a submitted write carries through the commit."""

    on_done: Callable[[WriteOutcome], None]
    policy: AckPolicy | None
    timeout_s: float | None


class Writes:
    """The writes of one open environment.

    Args:
        loop: outcomes are handed out there.
        journal: told of policies that were not met.
        manager: asked for acknowledgements; None without replication.

    Attributes:
        committer: set once the environment is open.
        last: the LSN of the last commit that was delivered.
        perm_failed: writes whose policy was not met.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, journal: Journal, manager: Manager | None
    ) -> None:
        self.committer: Committer
        self.last: Lsn = (0, 0)
        self.perm_failed = 0
        self._failing = 0  # since the policy was met last
        self._loop = loop
        self._journal = journal
        self._manager = manager
        self._delivered: deque[tuple[Batch, int]] = deque()
        self._settling = False

    def submit(
        self,
        work: Callable[[db.DBTxn], Any],
        on_done: Callable[[WriteOutcome], None],
        *,
        keys: Sequence[bytes] = (),
        watch: Watch | None = None,
        policy: AckPolicy | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """Queue one write. *Thread:* any."""
        self.committer.submit(Write(work, keys, watch, Ticket(on_done, policy, timeout_s)))

    def deliver(self, batch: Batch) -> None:
        """Take a batch that was committed, or failed. *Thread:* committer, or one that submits."""
        generation = self._manager.generation if self._manager is not None else 0
        self._delivered.append((batch, generation))
        # Appended before the flag is read here, and the flag is cleared before the queue is
        # emptied there: either this batch is seen by the call that is due, or a new one is made.
        if not self._settling:
            self._settling = True
            later(self._loop, self.settle)

    def settle(self) -> None:
        """Go on with what was delivered; in the loop."""
        self._settling = False
        while self._delivered:
            batch, generation = self._delivered.popleft()
            failed = [write for write in batch.writes if write.error is not None]
            if failed:
                self._answer(failed, None, generation, None)
            if batch.lsn is not None:
                self.last = batch.lsn
            if self._manager is None or batch.lsn is None:
                good = [write for write in batch.writes if write.error is None]
                self._answer(good, batch.lsn, generation, None)
            else:
                self._await_acks(self._manager, batch, batch.lsn, generation)

    def _await_acks(self, manager: Manager, batch: Batch, lsn: Lsn, generation: int) -> None:
        groups: dict[tuple[AckPolicy | None, float | None], list[Write]] = {}
        for write in batch.writes:
            if write.error is None:
                ticket: Ticket = write.tag
                groups.setdefault((ticket.policy, ticket.timeout_s), []).append(write)
        for (policy, timeout_s), writes in groups.items():
            token: Token = (writes, lsn, generation)
            manager.confirm(LSN(*lsn), token, policy=policy, timeout_s=timeout_s)

    def confirmed(self, token: Token, shortfall: str | None) -> None:
        """Take the manager's word on a commit: its policy held, or why not."""
        writes, lsn, generation = token
        if shortfall is not None:
            self.perm_failed += len(writes)
            self._failing += len(writes)
            self._journal.write_seldom(
                "ack_failed",
                every_s=ACK_FAILED_EVERY_S,
                burst=ACK_FAILED_BURST,
                lsn=lsn,
                writes=len(writes),
                why=shortfall,
            )
        elif self._failing:
            self._journal.write("ack_recovered", failed=self._failing)
            self._failing = 0
        self._answer(writes, lsn, generation, shortfall)

    def end(self, why: str) -> None:
        """Answer what is left, once nothing can be committed or acknowledged any more."""
        self.settle()
        if self._manager is not None:
            self._manager.pending.fail_all(why)

    def _answer(
        self, writes: list[Write], lsn: Lsn | None, generation: int, shortfall: str | None
    ) -> None:
        for write in writes:
            outcome = WriteOutcome(write.result, write.error, lsn, generation, shortfall)
            try:
                write.tag.on_done(outcome)
            except Exception as error:  # one client's mistake; the others wait, too
                log.error("outcome_not_taken", error=repr(error), exc_info=error)


def set_outcome(done: asyncio.Future[WriteOutcome]) -> Callable[[WriteOutcome], None]:
    """Make an `on_done` that sets a future, unless nobody waits for it any more."""

    def finish(outcome: WriteOutcome) -> None:
        if not done.done():
            done.set_result(outcome)

    return finish
