"""An event loop in simulated time: asyncio for one simulated process.

Everything that a process does goes through its `ProcessTime`: a process that is killed does
nothing any more, one that is stopped (SIGSTOP) does it when it goes on.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from tests.sim.agenda import Agenda, Entry

T = TypeVar("T")


class ProcessTime:
    """The agenda as one process sees it.

    Args:
        agenda: of the whole simulation.
    """

    def __init__(self, agenda: Agenda) -> None:
        self.agenda = agenda
        self.alive = True
        self._stopped_until_s = 0.0
        self._waiting: list[Callable[[], None]] = []

    def now(self) -> float:
        return self.agenda.now()

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Entry:
        """Have this process do something after a while."""
        return self.agenda.call_later(delay_s, lambda: self._do(call))

    def _do(self, call: Callable[[], None]) -> None:
        if not self.alive:
            return
        if self.is_stopped or self._waiting:
            self._waiting.append(call)
        else:
            call()

    @property
    def is_stopped(self) -> bool:
        return self.agenda.now() < self._stopped_until_s

    def stop_for(self, seconds: float) -> None:
        """Do nothing for a while."""
        self._stopped_until_s = max(self._stopped_until_s, self.agenda.now() + seconds)
        self.agenda.call_at(self._stopped_until_s, self.go_on)

    def go_on(self, *, at_once: bool = False) -> None:
        """Do what waited, if the time has come."""
        if at_once:
            self._stopped_until_s = 0.0
        if self.is_stopped:
            return
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            self._do(call)


class _Timer(asyncio.TimerHandle):
    """A timer that takes its entry off the agenda when it is cancelled."""

    entry: Entry | None = None

    def cancel(self) -> None:
        if self.entry is not None:
            self.entry.cancel()
        super().cancel()


class SimulatedLoop:
    """See the module's text; it has those methods of an event loop that are used.

    Args:
        time: the process's.
        failed: told what an ordinary loop would log as an error.
    """

    def __init__(self, time: ProcessTime, failed: Callable[[str], None]) -> None:
        self._time = time
        self._failed = failed
        self._tasks: set[asyncio.Task[Any]] = set()
        self.readers: dict[int, Callable[[], object]] = {}
        self.writers: dict[int, Callable[[], object]] = {}
        self.watched: Callable[[int], None] = lambda _fd: None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """This loop, as asyncio takes it."""
        return cast(asyncio.AbstractEventLoop, self)

    # -- what asyncio asks -----------------------------------------------------------------------

    def time(self) -> float:
        return self._time.now()

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return not self._time.alive

    def call_soon(
        self,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self.loop, context)
        self._time.call_later(0.0, lambda: self._run(handle))
        return handle

    def call_soon_threadsafe(
        self,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = _Timer(when, callback, args, self.loop, context)
        handle.entry = self._time.call_later(when - self.time(), lambda: self._run(handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """The agenda forgot it already."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self.loop)

    def create_task(
        self,
        coro: Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[T]:
        task = asyncio.Task(coro, loop=self.loop, name=name, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self._time.alive:
            error = context.get("exception")
            self._failed(f"{context['message']}: {error!r}")

    def add_reader(self, fd: int, callback: Callable[..., object], *args: Any) -> None:
        self.readers[fd] = functools.partial(callback, *args)
        self.watched(fd)

    def remove_reader(self, fd: Any) -> bool:
        return self.readers.pop(fd, None) is not None

    def add_writer(self, fd: int, callback: Callable[..., object], *args: Any) -> None:
        self.writers[fd] = functools.partial(callback, *args)
        self.watched(fd)

    def remove_writer(self, fd: Any) -> bool:
        return self.writers.pop(fd, None) is not None

    # -- running -----------------------------------------------------------------------------------

    def _run(self, handle: asyncio.Handle) -> None:
        if not handle.cancelled():
            self.enter(handle._run)

    def enter(self, call: Callable[[], T]) -> T:
        """Call with this loop as the running one."""
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(self.loop)
        try:
            return call()
        finally:
            asyncio._set_running_loop(before)

    def kill(self) -> None:
        """The process is gone: nothing of it goes on."""
        self._time.alive = False
        tasks, self._tasks = self._tasks, set()
        for task in tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            coroutine = task.get_coro()
            if coroutine is not None:
                self.enter(coroutine.close)
        self.readers.clear()
        self.writers.clear()
