"""`apply`: how fast a replicant can be at best, whatever the transport.

A master in this process makes the transactions of a run again: the same keys and values, in the
same order, grouped into the same transactions. What it sends is recorded, then fed back to back by
one thread to a client environment, without sockets: record by record and in bulk, the better of
the two counts. The log is flushed by the rule of ttserver's apply thread.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from berkeleydb import db

from bench.cases import Load, Role, SiteSpec
from bench.environments import NativeStore, write_config
from bench.workload import key_of, present, value_of
from replication.apply import FLUSH_EVERY_S
from storage.keyspace import Keyspace

MASTER_EID, CLIENT_EID = 1, 2
WARM_UP_RUN = 0
STARTUP_STEPS_MAX = 100_000


class Message(NamedTuple):
    """What the library hands to a transport."""

    control: bytes
    record: bytes


class Pair:
    """A master and a client in one process; what they send waits until it is carried over.

    Args:
        spec: names the directory and the case.
        bulk: the master sends its records in bulk.
    """

    def __init__(self, spec: SiteSpec, *, bulk: bool) -> None:
        home = Path(spec.home) / ("bulk" if bulk else "records")
        self.to_client: deque[Message] = deque()
        self.to_master: deque[Message] = deque()
        self.master = self._open(spec, home / "master", MASTER_EID, self.to_client, bulk=bulk)
        self.client = self._open(spec, home / "client", CLIENT_EID, self.to_master, bulk=bulk)
        self.started = False

    def _open(
        self, spec: SiteSpec, home: Path, eid: int, sent: deque[Message], *, bulk: bool
    ) -> NativeStore:
        role: Role = "master" if eid == MASTER_EID else "replicant"
        own = SiteSpec(
            engine=spec.engine, role=role, home=str(home), ports=spec.ports, case=spec.case
        )
        store = NativeStore(write_config(own), spec.case)

        def send(_env: db.DBEnv, control: bytes, record: bytes, *_: object) -> None:
            sent.append(Message(control, record))

        def event(_env: db.DBEnv, what: int, *_: object) -> None:
            if what == db.DB_EVENT_REP_STARTUPDONE:
                self.started = True

        def configure(env: db.DBEnv) -> None:
            env.rep_set_transport(eid, send)
            env.set_event_notify(event)
            env.rep_set_config(db.DB_REP_CONF_BULK, int(bulk))
            env.set_flags(db.DB_TXN_NOSYNC, 1)

        store.open(configure)
        return store

    def start(self) -> None:
        """Bring the client in step.

        Raises:
            TimeoutError: it did not get there.
        """
        self.master.env.rep_start(db.DB_REP_MASTER)
        self.master.open_keys(create=True)
        self.client.env.rep_start(db.DB_REP_CLIENT)
        for step in range(STARTUP_STEPS_MAX):
            if not self._carry():
                if self.started:
                    return
                # The client counts as started with the first live record.
                self.master.write(key_of(WARM_UP_RUN, 0, step), b"")
        raise TimeoutError("the client environment did not get in step")

    def _carry(self) -> bool:
        if self.to_client:
            self.client.env.rep_process_message(*self.to_client.popleft(), MASTER_EID)
        elif self.to_master:
            self.master.env.rep_process_message(*self.to_master.popleft(), CLIENT_EID)
        else:
            return False
        return True

    def record(self, load: Load, order: Sequence[int], batches: Sequence[int]) -> list[Message]:
        """Make the transactions and return what the master sent for them."""
        self.to_client.clear()
        env, keys = self.master.env, self.master.handle()
        numbers = [0] * load.threads
        writers = iter(order)
        for size in batches:
            txn = env.txn_begin()
            for _ in range(size):
                writer = next(writers)
                number = numbers[writer]
                numbers[writer] += 1
                key, value = key_of(load.run, writer, number), value_of(number, load.value_size)
                keys.put(key, value, txn)
            txn.commit(db.DB_TXN_NOSYNC)
        return list(self.to_client)

    def feed(self, messages: Sequence[Message], *, flush: bool) -> float:
        """Apply them; returns the seconds it took."""
        env = self.client.env
        process, now = env.rep_process_message, time.monotonic
        # What start and recording left to be written is not part of it.
        self.master.env.log_flush()
        env.log_flush()
        started = flushed = now()
        for control, record in messages:
            process(control, record, MASTER_EID)
            if flush and now() - flushed >= FLUSH_EVERY_S:
                env.log_flush()
                flushed = now()
        if flush:
            env.log_flush()
        return now() - started

    def lost(self, load: Load, order: Sequence[int]) -> int:
        """Count the writes that the client does not hold."""
        self.client.open_keys(create=False)
        keyspace = Keyspace(self.client.handle)
        begin = self.client.env.txn_begin
        held = sum(
            present(keyspace, begin, load, writer, len(order))[0] for writer in range(load.threads)
        )
        return len(order) - held

    def close(self) -> None:
        """Close both."""
        self.client.close()
        self.master.close()


def repeat(
    spec: SiteSpec, load: Load, order: Sequence[int], batches: Sequence[int]
) -> dict[str, Any]:
    """Repeat a run's transactions and time the client on them.

    Returns:
        Seconds for each way of sending, how many messages they were, and what was lost.
    """
    answer: dict[str, Any] = {"lost": 0}
    for bulk in (False, True):
        way = "bulk" if bulk else "records"
        pair = Pair(spec, bulk=bulk)
        try:
            pair.start()
            messages = pair.record(load, order, batches)
            answer[f"{way}_s"] = pair.feed(messages, flush=spec.case.durability == "sync")
            answer[f"{way}_messages"] = len(messages)
            answer["lost"] += pair.lost(load, order)
        finally:
            pair.close()
    return answer
