"""What the control socket can ask about the log files, and about the sync of a replicant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from replication.sync_control import begin_sync
from ttserver.control import Handler, Send
from ttserver.control_client import ControlError
from ttserver.engine import Engine


class LogOperations:
    """The handlers of one daemon.

    Args:
        engine: the site they work on.
        must_be_open: raises unless the engine has opened the environment.
    """

    def __init__(self, engine: Engine, must_be_open: Callable[[str], None]) -> None:
        self._engine = engine
        self._must_be_open = must_be_open

    def handlers(self) -> Mapping[str, Handler]:
        """Give the commands by name."""
        return {"archive": self._archive, "sync": self._sync}

    async def _sync(self, _request: dict[str, Any], _send: Send) -> object:
        self._must_be_open("no sync can begin")
        manager = self._engine.manager
        if manager is None:
            raise ControlError(
                "no sync can begin: replication is off",
                hint="start the daemon without --no-replication",
            )
        return {"done": begin_sync(manager.core, manager.now_s())}

    async def _archive(self, request: dict[str, Any], _send: Send) -> object:
        self._must_be_open("log files cannot be listed")
        keeping, environment = self._engine.must_have_site().log_keeping, self._engine.environment
        remove = bool(request.get("remove"))
        return await self._engine.call(lambda: keeping.archive(environment, remove=remove))
