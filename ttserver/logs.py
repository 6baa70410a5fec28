"""The daemon's log on standard error: coloured for a terminal, one logfmt line each otherwise.

What a level says:

- `debug`: the course of one request or message; off unless asked for.
- `info`: something an operator may want to find later: start, stop, a role, a session's one line.
- `warning`: works on, but somebody should look: a dropped link, a refused peer, an unmet policy.
- `error`: something that was asked for was not done.
- `critical`: the process is about to end by itself.
"""

import logging
import os
import sys
from collections.abc import Mapping
from typing import IO, Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

# Syslog's numbers, which the systemd journal reads off the front of a line (sd-daemon(3)).
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}

LEVELS = tuple(_PRIORITIES)


def configure(
    *,
    level: str = "info",
    stream: IO[str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Send every log event of the process, ours and the libraries', to standard error.

    Args:
        level: lowest level that is written, one of `LEVELS`.
        stream: where to, standard error by default.
        environment: read for $JOURNAL_STREAM (lines then carry their priority) and $NO_COLOR.
    """
    out = sys.stderr if stream is None else stream
    env = os.environ if environment is None else environment
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder(), _foreign_event],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            *_renderers(terminal=out.isatty(), env=env),
        ],
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def _renderers(*, terminal: bool, env: Mapping[str, str]) -> list[Processor]:
    if terminal:
        return [structlog.dev.ConsoleRenderer(colors="NO_COLOR" not in env)]
    exceptions = structlog.processors.format_exc_info
    if "JOURNAL_STREAM" in env:
        # The journal stamps its lines itself; a second time stamp would only be in the way.
        plain = structlog.processors.LogfmtRenderer(key_order=["level", "event"])
        return [_drop_timestamp, exceptions, plain, _prefix_priority]
    return [
        exceptions,
        structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"]),
    ]


def _foreign_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    # A library's sentence becomes a fact of one event name, so that a search finds them all.
    record = event.get("_record")
    event["text"] = event.get("event")
    event["event"] = "library_message"
    event["source"] = record.name if isinstance(record, logging.LogRecord) else "unknown"
    return event


def _drop_timestamp(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    event.pop("timestamp", None)
    return event


def _prefix_priority(_logger: WrappedLogger, method: str, line: Any) -> str:
    level = str(line).partition(" ")[0].removeprefix("level=")
    return f"<{_PRIORITIES.get(level, _PRIORITIES.get(method, 6))}>{line}"
