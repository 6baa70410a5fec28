"""Writes that are committed here and wait for their acknowledgements (no input or output).

Commits come in LSN order and acknowledgements are cumulative, so what waits under one policy is a
queue: an ack releases its head. A write that no connected site could release is answered at once.

Commits come on the thread that commits, everything else in the event loop: each step is made under
a lock, `release` included. It may be held by a thread only for such a step, so nobody waits long.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from replication.acks import (
    AckTable,
    SiteAck,
    can_be_met,
    describe_shortfall,
    policy_after_timeout,
    policy_lsn,
)
from replication.messages import AckPolicy
from replication.wire import LSN


@dataclass(slots=True, eq=False)
class Waiting:
    """One batch that waits: its place in the log, its policy, what it is released with."""

    lsn: LSN
    policy: AckPolicy
    deadline_s: float
    token: Any


class Pending:
    """The waiting writes of a master.

    Args:
        table: what each site acknowledged in this generation.
        sites: asked for the other members as they stand now.
        release: called with (token, None) when the policy held, (token, text) when it did not, on
            the thread whose call decided it; it must not wait for another thread.
    """

    def __init__(
        self,
        table: AckTable,
        sites: Callable[[], Sequence[SiteAck]],
        release: Callable[[Any, str | None], None],
        *,
        two_site_strict: bool,
    ) -> None:
        self.table = table
        self.stable = LSN(0, 0)
        self.perm_failed = 0
        self._sites = sites
        self._release = release
        self._strict = two_site_strict
        self._queues: dict[AckPolicy, deque[Waiting]] = {}
        self._reached: dict[AckPolicy, LSN | None] = {}
        self._possible: set[AckPolicy] = set()
        # Reentrant: what is told of a release may look at the rest.
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return sum(len(q) for q in self._queues.values())

    def add(self, waiting: Waiting) -> None:
        """Take a committed batch; it may be released before this returns."""
        with self._lock:
            queue = self._queues.setdefault(waiting.policy, deque())
            if waiting.policy not in self._reached:
                self._reached[waiting.policy] = self._compute(waiting.policy)
            reached = self._reached[waiting.policy]
            if not queue and reached is not None and waiting.lsn <= reached:
                self._ok(waiting)
                return
            if waiting.policy not in self._possible:
                reason = self._impossible(waiting)
                if reason is not None:
                    self._fail(waiting, reason)
                    return
            queue.append(waiting)

    def _impossible(self, waiting: Waiting) -> str | None:
        """Why no connected site could release it; the common answer is kept until sites change."""
        policy, sites = waiting.policy, self._sites()
        if can_be_met(policy, sites, two_site_strict=self._strict) is None:
            self._possible.add(policy)
            return None
        return can_be_met(policy, sites, waiting.lsn, two_site_strict=self._strict)

    def acked(self) -> None:
        """A site got further: release what that permits."""
        with self._lock:
            for policy, queue in list(self._queues.items()):
                if not queue:
                    self._reached.pop(policy, None)  # computed when it is needed
                    continue
                reached = self._reached[policy] = self._compute(policy)
                if reached is None:
                    continue
                while queue and queue[0].lsn <= reached:
                    self._ok(queue.popleft())

    def sites_changed(self) -> None:
        """A link came or went, or the membership changed."""
        with self._lock:
            self._reached.clear()
            self._possible.clear()
            self.acked()
            sites = self._sites()
            for policy, queue in list(self._queues.items()):
                # From the end: what holds for a write holds for all before it.
                lost: list[tuple[Waiting, str]] = []
                while queue:
                    reason = can_be_met(policy, sites, queue[-1].lsn, two_site_strict=self._strict)
                    if reason is None:
                        break
                    lost.append((queue.pop(), reason))
                for waiting, reason in reversed(lost):
                    self._fail(waiting, reason)

    def expire(self, now_s: float) -> None:
        """Answer what waited for too long."""
        with self._lock:
            for policy, queue in list(self._queues.items()):
                # Each has its own time: a patient one at the head must not hold up those behind it.
                expired = [waiting for waiting in queue if waiting.deadline_s <= now_s]
                if not expired:
                    continue
                self._queues[policy] = deque(w for w in queue if w.deadline_s > now_s)
                sites = self._sites()
                lesser = policy_lsn(
                    policy_after_timeout(policy), sites, two_site_strict=self._strict
                )
                for waiting in expired:
                    if lesser is not None and waiting.lsn <= lesser:
                        self._ok(waiting)
                    else:
                        text = describe_shortfall(
                            policy, sites, waiting.lsn, two_site_strict=self._strict
                        )
                        self._fail(waiting, text)

    def fail_all(self, reason: str) -> None:
        """This site is master no longer: nothing that waits can be confirmed."""
        with self._lock:
            for queue in list(self._queues.values()):
                while queue:
                    self._fail(queue.popleft(), reason)
            self._reached.clear()

    def _compute(self, policy: AckPolicy) -> LSN | None:
        return policy_lsn(policy, self._sites(), two_site_strict=self._strict)

    def _ok(self, waiting: Waiting) -> None:
        self.stable = max(self.stable, waiting.lsn)
        self._release(waiting.token, None)

    def _fail(self, waiting: Waiting, reason: str) -> None:
        self.perm_failed += 1
        self._release(waiting.token, reason)
