"""What the control socket can ask about writes that are to be taken back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from ttserver.control import Handler, Send
from ttserver.engine import Engine
from ttserver.reapply import Report

PROGRESS_S: Final = 0.5


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
        return {
            "rollback-question": self._question,
            "rollback-accept": self._accept,
            "rollback-reapply": self._reapply,
        }

    async def _question(self, _request: dict[str, Any], _send: Send) -> object:
        self._must_be_open("nothing can be taken back")
        return {"why": self._engine.rejoin.question()}

    async def _accept(self, _request: dict[str, Any], _send: Send) -> object:
        self._must_be_open("nothing can be taken back")
        self._engine.rejoin.accept()
        return {"accepted": True}

    async def _reapply(self, request: dict[str, Any], send: Send) -> object:
        self._must_be_open("nothing can be written again")
        rejoin = self._engine.rejoin
        head = await asyncio.to_thread(rejoin.ledgers.head, str(request.get("ledger")))
        latest: list[Report] = []
        running = asyncio.create_task(self._engine.reapply.run(head, latest.append))
        try:
            while not (await asyncio.wait([running], timeout=PROGRESS_S))[0]:
                done = latest[-1].applied + latest[-1].same if latest else 0
                await send({"progress": f"{done} written"})
            report = running.result()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            rejoin.open_ledgers = await asyncio.to_thread(rejoin.ledgers.open_count)
        rejoin.reapplied(report)
        return report
