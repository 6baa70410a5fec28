"""The steps of a handover that take time: standing still, catching up, stepping down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from berkeleydb import db

from replication import library
from replication.acks import AckTable
from replication.bridge import Bridge
from replication.core import Core
from replication.handover import Ended
from replication.library_work import LibraryWork
from replication.pending import Pending
from replication.phase import Phase
from replication.wire import LSN

NEAR_BYTES: Final = 256 * 1024  # a replicant applies so much in some milliseconds
NEAR_LOOK_S: Final = 0.01
# Clients wait meanwhile, for some milliseconds in all: a look must cost little of them.
HELD_LOOK_S: Final = 0.0005


class Writers(Protocol):
    """Whoever writes into the environment, as far as a handover needs it to stand still."""

    def hold_checkpoints(self) -> bool:
        """Begin no checkpoint; True once none is under way, until then ask again."""

    def hold_writes(self) -> bool:
        """Begin no write; True once none is under way, until then ask again."""

    def release(self) -> None:
        """Go on with both."""


class HandoverWork:
    """Each method ends by telling the core what came of it.

    Args:
        env: the open library handle.
        core: whom to tell.
        library_: changes of role are made by it.
        bridge: knows the last permanent LSN.
        table: what each site acknowledged.
        pending: writes whose clients wait for acknowledgements.
        writers: who must stand still.
        before_leaving: called before this site steps down, to send what others must know.
    """

    def __init__(
        self,
        env: db.DBEnv,
        core: Core,
        library_: LibraryWork,
        bridge: Bridge,
        table: AckTable,
        pending: Pending,
        writers: Writers,
        before_leaving: Callable[[], None],
    ) -> None:
        self._env = env
        self._core = core
        self._library = library_
        self._bridge = bridge
        self._table = table
        self._pending = pending
        self._writers = writers
        self._before_leaving = before_leaving
        self._loop = asyncio.get_running_loop()
        self._asked: list[asyncio.Future[Ended]] = []

    def ended(self) -> asyncio.Future[Ended]:
        """How the handover that begins now will have ended."""
        future: asyncio.Future[Ended] = self._loop.create_future()
        self._asked.append(future)
        return future

    def end(self, ended: Ended) -> None:
        """Tell whoever asked."""
        asked, self._asked = self._asked, []
        for future in asked:
            if not future.done():
                future.set_result(ended)

    def release(self) -> None:
        """Let writes and checkpoints begin again."""
        self._writers.release()

    async def prepare(self, eid: int, timeout_s: float) -> None:
        """Wait until a site is nearly in step, and keep checkpoints out; writes go on."""
        handover = self._core.handover

        def near() -> bool:
            acked, last = self._table.acked(eid), self._bridge.last_permanent
            if acked is None or acked.file != last.file:
                return acked == last
            return last.offset - acked.offset <= NEAR_BYTES

        reason = f"{handover.target} was not nearly in step in {timeout_s:g} s"
        if not await self._until(near, timeout_s, NEAR_LOOK_S):
            handover.failed(self._loop.time(), reason)
        elif not await self._until(self._writers.hold_checkpoints, timeout_s, NEAR_LOOK_S):
            handover.failed(self._loop.time(), f"a checkpoint lasts longer than {timeout_s:g} s")
        elif not await self._until(near, timeout_s, NEAR_LOOK_S):
            handover.failed(self._loop.time(), reason)
        else:
            handover.prepared(self._loop.time())

    async def hold_writes(self, eid: int, timeout_s: float) -> None:
        """Keep writes out, and wait until a site has acknowledged the last one."""
        handover = self._core.handover
        if not await self._until(self._writers.hold_writes, timeout_s, HELD_LOOK_S):
            handover.failed(self._loop.time(), f"a write lasts longer than {timeout_s:g} s")
            return
        permanent = self._bridge.last_permanent

        def in_step() -> bool:
            acked = self._table.acked(eid)
            # Those who wait for acknowledgements are answered by the site they asked.
            return acked is not None and acked >= permanent and not len(self._pending)

        self._bridge.flush()
        if await self._until(in_step, timeout_s, HELD_LOOK_S) or self._has(eid, permanent):
            handover.in_step(self._loop.time(), permanent)
        else:
            reason = f"{handover.target} did not acknowledge {permanent} in {timeout_s:g} s"
            handover.failed(self._loop.time(), reason)

    def _has(self, eid: int, lsn: LSN) -> bool:
        acked = self._table.acked(eid)
        return acked is not None and acked >= lsn

    async def step_down(self) -> None:
        """Make the library a client."""
        env, handover = self._env, self._core.handover
        self._before_leaving()
        try:
            done = await self._library.unlocked(lambda: library.step_down(env), Phase.MASTER)
        except db.DBError as error:
            handover.failed(self._loop.time(), f"this site could not step down: {error.args[-1]}")
            return
        if done is None:
            handover.failed(self._loop.time(), "this site is master no longer")
        else:
            handover.stepped_down(self._loop.time())

    async def _until(self, holds: Callable[[], bool], timeout_s: float, look_s: float) -> bool:
        """Look until it holds; False when time is up, or when it is not wanted any more."""
        deadline_s, stage = self._loop.time() + timeout_s, self._core.handover.stage
        while not holds():
            if self._loop.time() >= deadline_s or self._core.handover.stage is not stage:
                return False
            await asyncio.sleep(look_s)
        return self._core.handover.stage is stage
