"""What becomes of a client's write: group commit, acknowledgements, its outcome.

    submit -> Committer (thread) -> deliver -> Manager.confirm -> confirmed -> [loop] -> on_done

A write that failed is answered as soon as its batch is known; the others when their ack policy
held, or could not.
"""

from __future__ import annotations

import asyncio
import threading
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
        generation: the master's generation when its transaction began.
        perm_failed: committed here, but the ack policy was not met: who acknowledged, who did not.
    """

    result: Any
    error: Exception | None
    lsn: Lsn | None
    generation: int
    perm_failed: str | None


class Ticket(msgspec.Struct, frozen=True):
    """What a submitted write carries through the commit.

    Args:
        on_done: takes the outcome; called in the loop.
        anywhere: `on_done` may be called on any thread, and sooner for it.
    """

    on_done: Callable[[WriteOutcome], None]
    policy: AckPolicy | None
    timeout_s: float | None
    anywhere: bool


class Writes:
    """The writes of one open environment. Made in the event loop.

    A batch goes from the committer straight to the manager's waiting list: mostly its
    acknowledgement is heard in the loop later, and the loop need not be woken for the commit.

    Args:
        loop: outcomes are handed out there.
        journal: told of policies that were not met.
        manager: asked for acknowledgements; None without replication.

    Attributes:
        committer: set once the environment is open.
        last: the LSN of the last commit that was delivered.
        perm_failed: writes whose policy was not met.
        ack_failed: the last of them and who was missing; None since a policy was met.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, journal: Journal, manager: Manager | None
    ) -> None:
        self.committer: Committer
        self.last: Lsn = (0, 0)
        self.perm_failed = 0
        self.ack_failed: tuple[Lsn, str] | None = None
        self._failing = 0  # since the policy was met last
        self._loop = loop
        self._loop_thread = threading.get_ident()
        self._journal = journal
        self._manager = manager
        self._answers: deque[tuple[Token, str | None]] = deque()
        self._answering = False

    def submit(
        self,
        work: Callable[[db.DBTxn], Any],
        on_done: Callable[[WriteOutcome], None],
        *,
        keys: Sequence[bytes] = (),
        watch: Watch | None = None,
        policy: AckPolicy | None = None,
        timeout_s: float | None = None,
        user: str = "",
    ) -> None:
        """Queue one write; `on_done` is called in the loop. *Thread:* any."""
        ticket = Ticket(on_done, policy, timeout_s, False)
        self.committer.submit(Write(work, keys, watch, ticket, user))

    def write_here(
        self, work: Callable[[db.DBTxn], Any], *, keys: Sequence[bytes] = ()
    ) -> WriteOutcome:
        """Commit one write, on this thread if nobody else has one, and wait for its outcome.

        *Thread:* any but the loop's and the committer.
        """
        outcomes: list[WriteOutcome] = []
        # A bare lock is the cheapest thing a thread can sleep on.
        waiting = threading.Lock()
        waiting.acquire()
        reader = self._manager.ack_reader if self._manager is not None else None

        def finish(outcome: WriteOutcome) -> None:
            outcomes.append(outcome)
            waiting.release()
            if reader is not None:
                reader.ring()

        self.committer.commit_here(Write(work, keys, None, Ticket(finish, None, None, True)))
        if reader is not None and not outcomes:
            reader.read_until(lambda: bool(outcomes))
        waiting.acquire()
        return outcomes[0]

    def deliver(self, batch: Batch) -> None:
        """Take a batch that was committed, or failed. *Thread:* the one that committed it."""
        manager, generation = self._manager, batch.stamp
        good = batch.writes
        if any(write.error is not None for write in good):
            failed = [write for write in good if write.error is not None]
            good = [write for write in good if write.error is None]
            self._hand_out((failed, None, generation), None)
        if batch.lsn is not None:
            self.last = batch.lsn
        if not good:
            return
        if manager is None or batch.lsn is None:
            self._hand_out((good, batch.lsn, generation), None)
            return
        lsn = LSN(*batch.lsn)
        for (policy, timeout_s), writes in _by_policy(good).items():
            token: Token = (writes, batch.lsn, generation)
            manager.confirmations.confirm(
                lsn,
                token,
                generation=generation,
                policy=policy,
                timeout_s=timeout_s,
                writes=len(writes),
            )

    def confirmed(self, token: Token, shortfall: str | None) -> None:
        """Take the manager's word on a commit: its policy held, or why not. *Thread:* any."""
        self._hand_out(token, shortfall)

    def _hand_out(self, token: Token, shortfall: str | None) -> None:
        """Answer here what may be answered here, the rest in the loop."""
        if threading.get_ident() == self._loop_thread:
            self.settle()  # what another thread left is older
            self._answer(token, shortfall)
            return
        writes, lsn, generation = token
        if shortfall is None and not self._failing:
            elsewhere = [write for write in writes if write.tag.anywhere]
            if elsewhere:
                self._finish((elsewhere, lsn, generation), None)
                if len(elsewhere) == len(writes):
                    return
                token = ([w for w in writes if not w.tag.anywhere], lsn, generation)
        self._answers.append((token, shortfall))
        # Appended before the flag is read here, and the flag is cleared before the queue is
        # emptied there: either this is seen by the call that is due, or a new one is made.
        if not self._answering:
            self._answering = True
            later(self._loop, self.settle)

    def settle(self) -> None:
        """Hand out what other threads left; in the loop."""
        self._answering = False
        while self._answers:
            self._answer(*self._answers.popleft())

    def end(self, why: str) -> None:
        """Answer what is left, once nothing can be committed or acknowledged any more."""
        if self._manager is not None:
            self._manager.pending.end(why)
        self.settle()

    def _answer(self, token: Token, shortfall: str | None) -> None:
        """Count how the ack policy fares, and answer; in the loop."""
        writes, lsn, _ = token
        if shortfall is not None:
            self.perm_failed += len(writes)
            self._failing += len(writes)
            self.ack_failed = (lsn or (0, 0), shortfall)
            self._journal.write_seldom(
                "ack_failed",
                every_s=ACK_FAILED_EVERY_S,
                burst=ACK_FAILED_BURST,
                lsn=lsn,
                writes=len(writes),
                why=shortfall,
            )
        elif self._failing and self._manager is not None and lsn is not None:
            self._journal.write("ack_recovered", failed=self._failing)
            self._failing = 0
            self.ack_failed = None
        self._finish(token, shortfall)

    def _finish(self, token: Token, shortfall: str | None) -> None:
        writes, lsn, generation = token
        for write in writes:
            outcome = WriteOutcome(write.result, write.error, lsn, generation, shortfall)
            try:
                write.tag.on_done(outcome)
            except Exception as error:  # one client's mistake; the others wait, too
                log.error("outcome_not_taken", error=repr(error), exc_info=error)


def _by_policy(
    writes: list[Write],
) -> dict[tuple[AckPolicy | None, float | None], list[Write]]:
    groups: dict[tuple[AckPolicy | None, float | None], list[Write]] = {}
    for write in writes:
        ticket: Ticket = write.tag
        groups.setdefault((ticket.policy, ticket.timeout_s), []).append(write)
    return groups


def set_outcome(done: asyncio.Future[WriteOutcome]) -> Callable[[WriteOutcome], None]:
    """Make an `on_done` that sets a future, unless nobody waits for it any more."""

    def finish(outcome: WriteOutcome) -> None:
        if not done.done():
            done.set_result(outcome)

    return finish
