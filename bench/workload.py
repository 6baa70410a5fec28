"""The writers: threads that call one function again and again, each with keys of its own.

Every engine gets the same keys and values in the same order for each writer, so whatever one
replicant holds afterwards can be checked without a list.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Sequence

from berkeleydb import db

from bench.cases import Load, Lsn, Written
from storage.keyspace import Keyspace

# What an engine gives the writers: (writer, key, value) -> whether the ack policy was met.
WriteOne = Callable[[int, bytes, bytes], bool]
START_TIMEOUT_S = 10.0
# Keys read in one transaction while checking: short ones disturb a replicant that applies less.
CHECK_STEP = 2000


def key_of(run: int, writer: int, number: int) -> bytes:
    """Return a writer's n-th key; in byte order they go by run, writer and number."""
    return b"%03d:%02d:%09d" % (run, writer, number)


def value_of(number: int, size: int) -> bytes:
    """Return the value that goes with it."""
    return (b"%d " % number).ljust(size, b".")[:size]


def drive(load: Load, write: WriteOne, log_end: Callable[[], Lsn]) -> Written:
    """Let the writers write until the load is done."""
    barrier = threading.Barrier(load.threads + 1)
    quota = -(-load.count // load.threads) if load.count else 0
    latencies: list[list[int]] = [[] for _ in range(load.threads)]
    unmet = [0] * load.threads
    failures: list[BaseException] = []
    begun = [0.0]

    def writer(index: int) -> None:
        took = latencies[index].append
        number, run, size = 0, load.run, load.value_size
        now_ns = time.monotonic_ns
        barrier.wait(START_TIMEOUT_S)
        before = now_ns()
        end_ns = before + int(load.seconds * 1e9)
        try:
            while before < end_ns and not (quota and number >= quota):
                if not write(index, key_of(run, index, number), value_of(number, size)):
                    unmet[index] += 1
                after = now_ns()
                took(after - before)
                before = after
                number += 1
        except BaseException as error:  # noqa: BLE001 - told by the thread that waits
            failures.append(error)

    threads = [
        threading.Thread(target=writer, args=(index,), name=f"writer-{index}", daemon=True)
        for index in range(load.threads)
    ]
    for thread in threads:
        thread.start()
    gc.collect()
    gc.disable()  # a collection in the middle would be somebody's p99
    try:
        begun[0] = time.monotonic()
        barrier.wait(START_TIMEOUT_S)
        for thread in threads:
            thread.join()
        ended_s = time.monotonic()
    finally:
        gc.enable()
    if failures:
        raise failures[0]
    every = sorted(ns for of_one in latencies for ns in of_one)
    return Written(
        started_s=begun[0],
        ended_s=ended_s,
        by_writer=[len(of_one) for of_one in latencies],
        latency_p50_us=percentile(every, 0.50) / 1000,
        latency_p99_us=percentile(every, 0.99) / 1000,
        perm_failed=sum(unmet),
        lsn=log_end(),
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which `share` of an ascending sequence lies; 0.0 of nothing."""
    if not ordered:
        return 0.0
    return float(ordered[min(len(ordered) - 1, int(share * len(ordered)))])


def present(
    keyspace: Keyspace, txn: Callable[[], db.DBTxn], load: Load, writer: int, most: int
) -> tuple[int, int]:
    """Count a writer's writes that are there, in order and whole.

    Args:
        keyspace: of the copy to look at.
        txn: begins a transaction; it is ended here.
        most: how many there can be.

    Returns:
        How many there are from the first on without a gap or a wrong value, and how many come
        after that: 0 unless a write overtook another.
    """
    number, strays = 0, 0
    start, end = key_of(load.run, writer, 0), key_of(load.run, writer, most)
    after: bytes | None = None
    while True:
        reading = txn()
        try:
            found = keyspace.range(reading, start, end, limit=CHECK_STEP, after=after)
        except db.DBLockDeadlockError:  # the replicant was just applying
            continue
        finally:
            reading.abort()
        for key, value in found:
            expected = key_of(load.run, writer, number)
            if not strays and key == expected and value == value_of(number, load.value_size):
                number += 1
            else:
                strays += 1
        if len(found) < CHECK_STEP:
            return number, strays
        after = found[-1][0]
