"""What the control socket can ask about writes that are to be taken back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ttserver.control import Handler, Send
from ttserver.engine import Engine


class RollbackOperations:
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
        return {"rollback-question": self._question, "rollback-accept": self._accept}

    async def _question(self, _request: dict[str, Any], _send: Send) -> object:
        self._must_be_open("nothing can be taken back")
        return {"why": self._engine.rejoin.question()}

    async def _accept(self, _request: dict[str, Any], _send: Send) -> object:
        self._must_be_open("nothing can be taken back")
        self._engine.rejoin.accept()
        return {"accepted": True}
