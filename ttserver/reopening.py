"""Closes an environment and opens another one in its place, until that succeeds.

Two reasons: the library needs recovery, or it has to begin anew to take writes back that its
master does not have (`ttserver.rejoin`). Clients are answered LOADING meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import structlog

from replication.errors import ReplicationError
from storage.errors import StorageError
from storage.library import LIBRARY_ERRORS, StillInLibrary
from ttserver.errors import hint_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from ttserver.engine import Engine
    from ttserver.open_site import OpenSite

CLOSE_S: Final = 5.0
PAUSE_S: Final = 0.5
PAUSE_S_MAX: Final = 5.0  # an operator who made room on the disk is watching
CANNOT_OPEN: Final = (StorageError, ReplicationError, *LIBRARY_ERRORS, OSError)

log = structlog.get_logger(__name__)


class Reopening:
    """See the module's text.

    Args:
        engine: whose environment it is.
        on_stuck: called when it cannot even be closed, because a thread does not leave the library.

    Attributes:
        count: environments that were replaced.
        why: what for, while one is; None otherwise, and after a failure.
    """

    def __init__(self, engine: Engine, on_stuck: Callable[[StillInLibrary], None]) -> None:
        self.count = 0
        self.why: str | None = None
        self._engine = engine
        self._on_stuck = on_stuck
        self._task: asyncio.Task[None] | None = None

    @property
    def under_way(self) -> bool:
        return self._task is not None

    def failed(self, site: OpenSite, error: Exception) -> None:
        """The library needs recovery."""
        engine = self._engine
        if not self._begin(site):
            return
        engine.failure = error
        log.error("environment_failed", error=str(error))
        engine.journal.write(
            "alarm_raised",
            alarm="environment failed",
            why=str(error),
            hint=hint_of(error) or "it is opened again with recovery",
        )
        self._task = asyncio.get_running_loop().create_task(self._replace(site, failed=True))

    def replace(self, site: OpenSite, why: str) -> None:
        """Open the environment again although nothing is wrong with it."""
        if self._begin(site):
            self.why = why
            log.info("environment_reopened", why=why)
            self._task = asyncio.get_running_loop().create_task(self._replace(site, failed=False))

    def _begin(self, site: OpenSite) -> bool:
        engine = self._engine
        if site is not engine.site or engine.stopping or self.under_way:
            return False
        if not site.running:
            return False  # whoever opens or closes it has the error, too
        engine.note_lsn()
        site.running = site.accepting = False
        return True

    async def _replace(self, site: OpenSite, *, failed: bool) -> None:
        engine = self._engine
        began_s, pause_s = time.monotonic(), PAUSE_S
        engine.changed()
        try:
            await engine.close_site(site, CLOSE_S)
        except StillInLibrary as stuck:
            # A second handle on the same files, with this one still in use, would destroy them.
            engine.failure = stuck
            self._on_stuck(stuck)
            return
        while True:
            try:
                await engine.open_site()
            except CANNOT_OPEN as error:
                engine.failure = error
                log.error("reopen_failed", error=str(error), again_in_s=pause_s)
                engine.changed()
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, PAUSE_S_MAX)
            else:
                break
        self.count += 1
        self.why = None
        self._task = None
        if failed:
            engine.journal.write(
                "alarm_cleared", alarm="environment failed", seconds=time.monotonic() - began_s
            )
        engine.changed()

    async def stop(self) -> None:
        """Break it off; a recovery under way goes on, and `Engine.close_site` waits for it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
