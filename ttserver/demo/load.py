"""Puts the sample data into a running master, through its client port like any other client."""

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ttserver.address import Address
from ttserver.demo.volumes import Volume
from ttserver.errors import TtserverError

BATCH = 500
# One flush of a laptop's or a small virtual machine's disk may take seconds when it is busy.
REPLY_TIMEOUT_S = 120.0
# The acks of a busy replicant come too late for a while; writing the same again harms nothing.
RETRY_S = 120.0
RETRY_PAUSE_S = 0.5


class LoadError(TtserverError):
    """The master did not take the data."""

    default_code = "LOAD"


def connect(clients: Address, user: str, password: str) -> redis.Redis:
    """Make a client that waits as long as a slow disk needs and never repeats a command itself."""
    return redis.Redis(
        host=clients.host,
        port=clients.port,
        username=user,
        password=password,
        socket_timeout=REPLY_TIMEOUT_S,
        socket_connect_timeout=REPLY_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
        single_connection_client=True,
    )


def store(client: redis.Redis, pairs: Iterable[tuple[str, bytes]]) -> None:
    """Set keys in one pipeline, again as long as the other site's ack comes too late.

    Raises:
        LoadError: the server answered one of them with an error, or no ack came in time.
        redis.RedisError: the connection broke.
    """
    end_s = time.monotonic() + RETRY_S
    left = list(pairs)
    while left:
        with client.pipeline(transaction=False) as pipeline:
            for key, value in left:
                pipeline.set(key, value)
            answers: list[Any] = pipeline.execute(raise_on_error=False)
        failed = [
            (pair, answer)
            for pair, answer in zip(left, answers, strict=True)
            if isinstance(answer, Exception)
        ]
        for (key, _), answer in failed:
            if not _passes(answer) or time.monotonic() > end_s:
                raise LoadError(
                    f"key {key} was not stored: {answer}",
                    hint="see `ttserver status` of the master",
                )
        left = [pair for pair, _ in failed]
        if left:
            time.sleep(RETRY_PAUSE_S)


def _passes(answer: Exception) -> bool:
    late = isinstance(answer, redis.ResponseError) and str(answer).startswith("PERMFAILED")
    return late or isinstance(answer, redis.exceptions.TryAgainError)


def load(client: redis.Redis, volumes: Iterable[Volume], on_batch: Callable[[int], None]) -> int:
    """Set one key for each volume.

    Args:
        client: logged on at the master.
        volumes: what to store.
        on_batch: told after each batch how many are stored by now.

    Returns:
        How many keys were set.

    Raises:
        LoadError: the server answered one of them with an error.
        redis.RedisError: the connection broke.
    """
    stored = 0
    for batch in _batches(volumes):
        store(client, [(volume.name, volume.value()) for volume in batch])
        stored += len(batch)
        on_batch(stored)
    return stored


def _batches(volumes: Iterable[Volume]) -> Iterator[list[Volume]]:
    rest = iter(volumes)
    while batch := list(islice(rest, BATCH)):
        yield batch
