"""Clients that write all the time and note what they are told."""

import random
import threading
from collections.abc import Callable, Mapping, Sequence

import redis

from tests.faults.ledger import Ledger, Value

KEYS = 2000
PAIRS = 50
RETRY_S = 0.02
# Nothing was written when the answer is one of these.
REFUSALS = (redis.ReadOnlyError, redis.exceptions.TryAgainError, redis.exceptions.ExecAbortError)


class Writer(threading.Thread):
    """One connection.

    Args:
        number: its keys begin with it.
        connect: logs on at the master, whoever that is now.
        seed: of what it writes.
        value_bytes: values are at most so long.
        moves: look for the master again when a write was not acknowledged; it may be cut off.
    """

    def __init__(
        self,
        number: int,
        connect: Callable[[], redis.Redis],
        seed: int,
        value_bytes: int,
        *,
        moves: bool,
    ) -> None:
        super().__init__(name=f"writer-{number}", daemon=True)
        self.ledger = Ledger(f"w{number}:")
        self.unexpected: list[str] = []
        self._connect = connect
        self._random = random.Random(seed)
        self._value_bytes = value_bytes
        self._moves = moves
        self._ended = threading.Event()
        self._serial = 0

    def end(self) -> None:
        """Have it stop after the write under way."""
        self._ended.set()

    def run(self) -> None:
        """Write until told to end; come back after every loss of the connection."""
        while not self._ended.is_set():
            try:
                with self._connect() as client:
                    while not self._ended.is_set():
                        self._write(client, self._choose())
            except (redis.ConnectionError, redis.TimeoutError, OSError):
                self._ended.wait(RETRY_S)
            except Exception as error:  # noqa: BLE001 - shown by the test's own thread
                self.unexpected.append(f"{type(error).__name__}: {error}")
                self._ended.wait(RETRY_S)

    def _choose(self) -> Mapping[bytes, Value]:
        self._serial += 1
        name = self.ledger.name
        size = self._random.randrange(self._value_bytes)
        value = f"{self._serial}:".encode() + self._random.randbytes(size)
        choice = self._random.random()
        if choice < 0.15:
            pair = self._random.randrange(PAIRS)
            return {f"{name}a{pair}".encode(): value, f"{name}b{pair}".encode(): value}
        key = f"{name}{self._random.randrange(KEYS)}".encode()
        return {key: None if choice < 0.25 else value}

    def _write(self, client: redis.Redis, changes: Mapping[bytes, Value]) -> None:
        self.ledger.attempt(changes)
        try:
            _send(client, changes)
        except redis.ResponseError as error:
            self._judge(error, changes)
        except redis.BusyLoadingError:
            self.ledger.refused(changes)
            raise
        except (redis.ConnectionError, redis.TimeoutError, OSError):
            self.ledger.unknown()
            raise
        else:
            self.ledger.ok(changes)

    def _judge(self, answer: redis.ResponseError, changes: Mapping[bytes, Value]) -> None:
        if isinstance(answer, REFUSALS) or "NOREPLICAS" in str(answer):
            self.ledger.refused(changes)
            # Another site may be master by now.
            raise redis.ConnectionError(str(answer))
        self.ledger.unknown()
        if "PERMFAILED" not in str(answer):
            self.unexpected.append(str(answer))
        elif self._moves:
            raise redis.ConnectionError(str(answer))


def _send(client: redis.Redis, changes: Mapping[bytes, Value]) -> None:
    if len(changes) > 1:
        with client.pipeline(transaction=True) as pipeline:
            for key, value in changes.items():
                pipeline.set(key, value or b"")
            pipeline.execute()
        return
    for key, value in changes.items():
        if value is None:
            client.delete(key)
        else:
            client.set(key, value)


class Load:
    """Several writers; ends with the context.

    Args:
        count: how many.
        connect: logs on at the master.
        seed: of what they write.
        value_bytes: values are at most so long.
        moves: look for the master again when a write was not acknowledged.
    """

    def __init__(
        self,
        count: int,
        connect: Callable[[], redis.Redis],
        seed: int,
        *,
        value_bytes: int = 400,
        moves: bool = False,
    ) -> None:
        self.writers: Sequence[Writer] = [
            Writer(number, connect, seed + number, value_bytes, moves=moves)
            for number in range(count)
        ]

    def __enter__(self) -> "Load":
        for writer in self.writers:
            writer.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        for writer in self.writers:
            writer.end()
        for writer in self.writers:
            writer.join(120)

    @property
    def acknowledged(self) -> int:
        """Writes answered OK until now."""
        return sum(writer.ledger.acknowledged for writer in self.writers)

    @property
    def uncertain(self) -> int:
        """Writes without an answer that says what became of them."""
        return sum(writer.ledger.uncertain for writer in self.writers)

    def complaints(self) -> list[str]:
        """Answers that no writer should ever get."""
        return [text for writer in self.writers for text in writer.unexpected]

    def disagreements(self, contents: Mapping[bytes, bytes]) -> list[str]:
        """Say where a database is not what the writers were told."""
        return [text for w in self.writers for text in w.ledger.disagreements(contents)]
