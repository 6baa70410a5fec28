"""Waiting writes against a dumb model that looks at every write after every step."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from replication.acks import (
    AckTable,
    SiteAck,
    can_be_met,
    policy_after_timeout,
    policy_lsn,
)
from replication.messages import AckPolicy
from replication.pending import Pending, Waiting
from replication.wire import LSN

SITES = 3
FOR_EVER_S = 1e9


@dataclass
class Model:
    """Every write is judged by itself: no queues, no memory of what was reached."""

    waiting: list[Waiting] = field(default_factory=list)
    released: dict[int, bool] = field(default_factory=dict)

    def look(self, sites: list[SiteAck], *, lost: bool) -> None:
        for write in list(self.waiting):
            reached = policy_lsn(write.policy, sites)
            if reached is not None and write.lsn <= reached:
                self._release(write, ok=True)
            elif lost and not can_be_met(write.policy, sites, write.lsn):
                self._release(write, ok=False)

    def expire(self, sites: list[SiteAck], now_s: float) -> None:
        for write in list(self.waiting):
            if write.deadline_s <= now_s:
                reached = policy_lsn(policy_after_timeout(write.policy), sites)
                self._release(write, ok=reached is not None and write.lsn <= reached)

    def _release(self, write: Waiting, *, ok: bool) -> None:
        self.waiting.remove(write)
        assert write.token not in self.released
        self.released[write.token] = ok


STEPS = st.one_of(
    st.tuples(st.just("write"), st.sampled_from(AckPolicy), st.integers(1, 5)),
    st.tuples(st.just("ack"), st.integers(0, SITES - 1), st.integers(0, 12)),
    st.tuples(st.just("link"), st.integers(0, SITES - 1), st.booleans()),
    st.tuples(st.just("time"), st.just(0), st.integers(1, 3)),
)


@settings(max_examples=150)
@given(
    st.lists(st.sampled_from([True, False, None]), min_size=1, max_size=SITES),
    st.lists(STEPS, max_size=40),
)
def test_nothing_is_released_too_early_too_late_or_twice(
    electable: list[bool | None], steps: list[tuple[str, int, int]]
) -> None:
    table = AckTable(1)
    connected = [True] * len(electable)
    released: dict[int, bool] = {}
    now_s = 0.0
    count = 0

    def sites() -> list[SiteAck]:
        return [
            SiteAck(eid, peer, connected[eid], table.acked(eid))
            for eid, peer in enumerate(electable)
        ]

    def release(token: int, shortfall: str | None) -> None:
        assert token not in released, "released twice"
        released[token] = shortfall is None

    pending = Pending(table, sites, release, two_site_strict=True)
    pending.begin(1)
    model = Model()
    for what, one, two in steps:
        if what == "write":
            count += 1
            policy = AckPolicy(one)
            for side in ("model", "real"):
                write = Waiting(1, LSN(1, count), policy, now_s + two, count)
                if side == "real":
                    pending.add(write)
                    continue
                model.waiting.append(write)
                # A write that nobody could confirm is answered at once; older ones were before.
                model.look(sites(), lost=True)
        elif what == "ack" and one < len(electable) and connected[one]:
            if table.record(one, 1, LSN(1, min(two, count))):
                pending.acked()
                model.look(sites(), lost=False)
        elif what == "link" and one < len(electable):
            connected[one] = bool(two)
            pending.sites_changed()
            model.look(sites(), lost=True)
        elif what == "time":
            now_s += two
            pending.expire(now_s)
            model.expire(sites(), now_s)
        assert released == model.released
        assert len(pending) == len(model.waiting)
        confirmed = [token for token, ok in released.items() if ok]
        assert pending.stable == LSN(1, max(confirmed)) if confirmed else not pending.stable[0]
    pending.expire(FOR_EVER_S)
    assert len(pending) == 0, "everything is answered in the end"
