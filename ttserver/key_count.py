"""How many keys there are: counted off the loop, once for all who ask, again only when it must."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from storage.count import count_if_quiet
from storage.keyspace import Keyspace

if TYPE_CHECKING:
    from ttserver.engine import Engine

STEP_KEYS: Final = 2_000  # a few milliseconds

Lsn = tuple[int, int]


class KeyCount:
    """The count of one engine's keys.

    Args:
        engine: counts are reads like any other.
        keyspace: what is counted.
        lsn: the last permanent LSN now; the same one means the same keys.
    """

    def __init__(self, engine: Engine, keyspace: Keyspace, lsn: Callable[[], Lsn]) -> None:
        self._engine = engine
        self._keyspace = keyspace
        self._lsn = lsn
        self._known: tuple[Lsn, int] | None = None
        self._task: asyncio.Task[int] | None = None

    def forget(self) -> None:
        """Count anew: what was rolled back may have had the LSN of what comes now."""
        self._known = None

    async def get(self) -> int:
        """Count all keys, exactly.

        What is committed while a large database is counted may be in the number or not.
        """
        while True:
            lsn = self._lsn()
            if self._known is not None and self._known[0] == lsn:
                return self._known[1]
            if (task := self._task) is None:
                task = self._task = asyncio.get_running_loop().create_task(self._count(lsn))
                task.add_done_callback(self._done)
                return await asyncio.shield(task)
            # It began before what was written last: whoever wrote that wants to see it.
            await asyncio.wait([task])

    async def stop(self) -> None:
        """End a count under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _count(self, lsn: Lsn) -> int:
        number = await self._count_at_once()
        if number is None:
            number = await self._count_in_steps()
        self._known = (lsn, number)
        return number

    async def _count_at_once(self) -> int | None:
        engine = self._engine
        if not engine.accepting:
            return None
        environment, keyspace = engine.environment, self._keyspace
        return await engine.call(lambda: count_if_quiet(environment, keyspace))

    async def _count_in_steps(self) -> int:
        count = partial(self._keyspace.count, limit=STEP_KEYS)
        number, last = await self._engine.read(partial(count, after=None))
        while last is not None:
            step, last = await self._engine.read(partial(count, after=last))
            number += step
        return number

    def _done(self, task: asyncio.Task[int]) -> None:
        self._task = None
        if not task.cancelled():
            task.exception()  # whoever waits has it
