"""What the control socket can ask about the sites being identical: `compare`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from replication.compare import PAUSE_S_MAX
from replication.compare_master import BUSY_SHARE, Options
from replication.compare_report import Report
from ttserver.comparison import compare
from ttserver.control import Handler, Send
from ttserver.control_client import ControlError
from ttserver.engine import Engine

PROGRESS_S: Final = 0.5
PAUSE_MS_MAX: Final = 10_000


class CompareOperation:
    """The handler of one daemon.

    Args:
        engine: the site it works on.
        must_be_open: raises unless the engine has opened the environment.
    """

    def __init__(self, engine: Engine, must_be_open: Callable[[str], None]) -> None:
        self._engine = engine
        self._must_be_open = must_be_open

    def handlers(self) -> Mapping[str, Handler]:
        """Give the commands by name."""
        return {"compare": self._compare}

    async def _compare(self, request: dict[str, Any], send: Send) -> object:
        self._must_be_open("sites cannot be compared")
        options = Options(
            pause_s_max=_number(request, "pause_ms", PAUSE_S_MAX * 1000, 1, PAUSE_MS_MAX) / 1000,
            share=_number(request, "share", BUSY_SHARE, 0.001, 1.0),
        )
        latest: list[Report] = []

        def keep(report: Report) -> None:
            latest[:] = [report]

        running = asyncio.create_task(compare(self._engine, options, keep))
        try:
            while not (await asyncio.wait([running], timeout=PROGRESS_S))[0]:
                # A line now and then also tells whether anybody still wants to know.
                await send({"progress": _progress(latest)})
            return running.result()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


def _progress(latest: list[Report]) -> dict[str, object]:
    if not latest:
        return {"database": None, "records": 0, "bytes": 0, "bytes_total": 0}
    (report,) = latest
    return {
        "database": report.databases[-1].database if report.databases else None,
        "records": sum(one.records for one in report.databases),
        "bytes": sum(one.bytes for one in report.databases),
        "bytes_total": report.bytes_total,
    }


def _number(
    request: Mapping[str, Any], key: str, default: float, least: float, most: float
) -> float:
    value = request.get(key, default)
    if not isinstance(value, int | float) or not least <= value <= most:
        raise ControlError(
            f"request has no number {key} from {least:g} to {most:g}",
            code="BADREQUEST",
            hint="use the ttserver program of the daemon's own version",
        )
    return float(value)
