"""The manager's tasks: each is owned here, and a failure of one is said loudly."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

log = logging.getLogger(__name__)


class Tasks:
    """Starts tasks and ends them.

    Args:
        loop: the event loop.
        on_failed: told the exception of a task that failed (a bug of ours).
        on_done: called after each task, unless `stop` was called.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_failed: Callable[[BaseException], None],
        on_done: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._on_failed = on_failed
        self._on_done = on_done
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Start a task; none after `stop`."""
        if self._stopping:
            work.close()
            return
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def stop(self) -> None:
        """Cancel all tasks and wait for their end."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def report(self, error: BaseException) -> None:
        """Say loudly that something failed that never should: a bug of ours."""
        log.error("replication_task_failed", exc_info=error)
        self._on_failed(error)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.report(error)
        if not self._stopping:
            self._on_done()
