"""Writes that are committed here and wait for their acknowledgements (no input or output).

Commits come in LSN order and acknowledgements are cumulative, so what waits under one policy is a
queue: an ack releases its head. A write that no connected site could release is answered at once.

Commits and acknowledgements come on any thread, everything else in the event loop: each step is
made under a lock, `release` included. It is held only for such a step, so nobody waits long.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from replication.ack_words import describe_holders, describe_shortfall
from replication.acks import AckTable, SiteAck, can_be_met, policy_after_timeout, policy_lsn
from replication.messages import AckPolicy
from replication.wire import LSN, LSN_MAX, LSN_ZERO


@dataclass(slots=True, eq=False)
class Waiting:
    """Writes of one batch that wait: their place in the log, their policy.

    Args:
        generation: in which they were committed, or an earlier one.
        token: what they are released with.
        writes: how many they are, for the counts.
    """

    generation: int
    lsn: LSN
    policy: AckPolicy
    deadline_s: float
    token: Any
    writes: int = 1


@dataclass(slots=True)
class Counts:
    """What became of writes, by number.

    Args:
        acknowledged: answered OK after others acknowledged them.
        alone: answered OK because their policy waits for nobody.
        unreachable: PERMFAILED because too few sites are connected.
        late: PERMFAILED at the time-out.
        deposed: PERMFAILED because this site is master no longer, is cut off, or stops.
    """

    acknowledged: int = 0
    alone: int = 0
    unreachable: int = 0
    late: int = 0
    deposed: int = 0


class Pending:
    """The waiting writes of a master.

    Args:
        table: what each site acknowledged in this generation.
        sites: asked for the other members as they stand now.
        release: called with (token, None) when the policy held, (token, text) when it did not, on
            the thread whose call decided it; it must not wait for another thread.

    Attributes:
        stable: the highest LSN of this generation that was answered OK.
        cut_off: says why this master may answer nothing OK now, None when it may.
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
        self.stable = LSN_ZERO
        self.cut_off: Callable[[], str | None] = lambda: None
        self.counts = Counts()
        self._sites = sites
        self._release = release
        self._strict = two_site_strict
        self._generation: int | None = None
        self._why_ended = "this site is not master"
        self._queues: dict[AckPolicy, deque[Waiting]] = {}
        self._reached: dict[AckPolicy, LSN | None] = {}
        self._possible: set[AckPolicy] = set()
        self._lock = table.lock

    def __len__(self) -> int:
        return sum(len(q) for q in self._queues.values())

    def begin(self, generation: int) -> None:
        """This site is master of that generation now: its writes can be confirmed."""
        with self._lock:
            self.end("this site is no longer master of the generation of this write")
            self.table.start_generation(generation)
            self._generation = generation
            self.stable = LSN_ZERO

    def end(self, reason: str) -> None:
        """This site is master no longer: nothing that waits, or comes, can be confirmed."""
        with self._lock:
            self._generation = None
            self._why_ended = reason
            self.refuse(reason)
            self._reached.clear()

    def refuse(self, why: str) -> None:
        """Nothing that waits can be confirmed; what comes later may be."""
        with self._lock:
            for queue in list(self._queues.values()):
                while queue:
                    self._refuse(queue.popleft(), why)

    def add(self, waiting: Waiting) -> None:
        """Take a committed batch; it may be released before this returns."""
        with self._lock:
            if waiting.generation != self._generation:
                self._refuse(waiting, self._why_ended)
                return
            if (why := self.cut_off()) is not None:
                self._refuse(waiting, why)
                return
            queue = self._queues.setdefault(waiting.policy, deque())
            if not queue and self._is_met(waiting):
                return
            if waiting.policy not in self._possible and not self._can_be_met(waiting):
                self._unreachable(waiting)
                return
            queue.append(waiting)

    def _is_met(self, waiting: Waiting) -> bool:
        """Release at once what was acknowledged already, or waits for nobody."""
        policy = waiting.policy
        if policy in self._possible and waiting.lsn > self.table.highest:
            return False  # the usual case: nobody has it yet, and somebody is needed
        if policy not in self._reached:
            self._reached[policy] = self._compute(policy)
        reached = self._reached[policy]
        if reached is None or waiting.lsn > reached:
            return False
        self._ok(waiting, alone=reached == LSN_MAX)
        return True

    def _can_be_met(self, waiting: Waiting) -> bool:
        """Whether connected sites could release it; the common answer is kept until they change."""
        policy, sites = waiting.policy, self._sites()
        if can_be_met(policy, sites, two_site_strict=self._strict):
            self._possible.add(policy)
            return True
        return can_be_met(policy, sites, waiting.lsn, two_site_strict=self._strict)

    def acked(self) -> None:
        """A site got further: release what that permits."""
        with self._lock:
            for policy, queue in list(self._queues.items()):
                if not queue:
                    self._reached.pop(policy, None)  # computed when it is needed
                    continue
                reached = self._reached[policy] = self._compute(policy)
                if reached is None or queue[0].lsn > reached:
                    continue
                if (why := self.cut_off()) is not None:
                    # It stood still: this was said before, and is read only now.
                    self.refuse(why)
                    return
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
                lost: list[Waiting] = []
                while queue and not can_be_met(
                    policy, sites, queue[-1].lsn, two_site_strict=self._strict
                ):
                    lost.append(queue.pop())
                for waiting in reversed(lost):
                    self._unreachable(waiting)

    def expire(self, now_s: float) -> None:
        """Answer what waited for too long."""
        with self._lock:
            for policy, queue in list(self._queues.items()):
                # Each has its own time: a patient one at the head must not hold up those behind it.
                expired = [waiting for waiting in queue if waiting.deadline_s <= now_s]
                if not expired:
                    continue
                self._queues[policy] = deque(w for w in queue if w.deadline_s > now_s)
                lesser = None
                if self.cut_off() is None:
                    lesser = policy_lsn(
                        policy_after_timeout(policy), self._sites(), two_site_strict=self._strict
                    )
                for waiting in expired:
                    if lesser is not None and waiting.lsn <= lesser:
                        self._ok(waiting)
                    else:
                        self.counts.late += waiting.writes
                        self._fail(waiting)

    def _compute(self, policy: AckPolicy) -> LSN | None:
        return policy_lsn(policy, self._sites(), two_site_strict=self._strict)

    def _ok(self, waiting: Waiting, *, alone: bool = False) -> None:
        self.stable = max(self.stable, waiting.lsn)
        if alone:
            self.counts.alone += waiting.writes
        else:
            self.counts.acknowledged += waiting.writes
        self._release(waiting.token, None)

    def _unreachable(self, waiting: Waiting) -> None:
        self.counts.unreachable += waiting.writes
        self._fail(waiting)

    def _refuse(self, waiting: Waiting, why: str) -> None:
        self.counts.deposed += waiting.writes
        held = describe_holders(waiting.policy, self._sites(), waiting.lsn)
        self._release(waiting.token, f"{why}; {held}")

    def _fail(self, waiting: Waiting) -> None:
        text = describe_shortfall(
            waiting.policy, self._sites(), waiting.lsn, two_site_strict=self._strict
        )
        self._release(waiting.token, text)
