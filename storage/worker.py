"""Threads with a queue of calls: the only way a coroutine enters the library."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Stoppable(Protocol):
    """A thread of the environment: asked to stop, then joined."""

    def stop(self) -> None: ...
    def join(self, timeout: float | None = None) -> None: ...
    def is_alive(self) -> bool: ...


class Worker:
    """Runs calls on threads of its own, in the order they came.

    With one thread they run one after the other. After `stop`, what is queued is cancelled.

    Args:
        name: of the threads, as it appears in messages and debuggers.
        threads: how many share the queue.
    """

    def __init__(self, name: str, *, threads: int = 1) -> None:
        self.name = name
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = (
            queue.SimpleQueue()
        )
        self._stopped = False
        # Daemons: the interpreter would wait for a thread that is stuck in the library.
        self._threads = [
            threading.Thread(
                target=self._run, name=name if threads == 1 else f"{name}-{number}", daemon=True
            )
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Queue `call`; its future is cancelled when the worker stops first. *Thread:* any."""
        future: Future[T] = Future()
        self._calls.put((future, call))
        if self._stopped:
            # The threads may have taken their last look at the queue before the line above.
            self._cancel_queued()
        return future

    def stop(self) -> None:
        """End after the calls under way. *Thread:* any; more than once is once."""
        self._stopped = True
        self._cancel_queued()
        for _ in self._threads:
            self._calls.put(None)

    def join(self, timeout: float | None = None) -> None:
        """Wait for all threads, `timeout` seconds together."""
        deadline = None if timeout is None else time.monotonic() + timeout
        for thread in self._threads:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))

    def is_alive(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        while not self._stopped:
            item = self._calls.get()
            if item is None:
                break
            future, call = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001 - handed to whoever waits for it
                future.set_exception(error)
            else:
                future.set_result(result)
            # Else the frame keeps the last call's result alive until the next one comes.
            del item, future, call
        self._cancel_queued()

    def _cancel_queued(self) -> None:
        """Cancel what waits; the threads' own signals to stop stay in the queue."""
        signals = 0
        try:
            while True:
                item = self._calls.get_nowait()
                if item is None:
                    signals += 1
                else:
                    item[0].cancel()
        except queue.Empty:
            pass
        for _ in range(signals):
            self._calls.put(None)
