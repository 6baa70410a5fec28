"""Errors of the engine as replies whose first word client libraries understand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from storage.errors import StorageError
from ttserver.errors import TtserverError
from ttserver.replies import CommandError

EXPECTED: Final = (TtserverError, StorageError)

# The codes that client libraries know; anything else is an ERR.
_CODES: Final = {
    "READONLY": "READONLY",
    "LOADING": "LOADING",
    "TRYAGAIN": "TRYAGAIN",
    "NOREPLICAS": "NOREPLICAS",
    "MASTERDOWN": "MASTERDOWN",
    "TOKENLOST": "TOKENLOST",
    "NODATA": "NODATA",
    "MISSING": "LOADING",  # the database file is not here yet
}

if TYPE_CHECKING:
    from ttserver.commands.context import Outcome

log = structlog.get_logger(__name__)


def perm_failed_reply(outcome: Outcome) -> CommandError:
    """Say that a write is committed here, as what, and who does not have it."""
    file, offset = outcome.lsn or (0, 0)
    return CommandError(
        f"PERMFAILED committed here as {outcome.generation}:{file}:{offset}, but"
        f" {outcome.perm_failed}"
    )


def error_reply(error: Exception) -> CommandError:
    """Turn an error into a reply; one that nobody expects is logged with its traceback."""
    if isinstance(error, CommandError):
        return error
    if isinstance(error, EXPECTED):
        return CommandError(f"{_CODES.get(error.code, 'ERR')} {error}")
    log.error("command_failed", error=repr(error), exc_info=error)
    return CommandError("ERR internal error: the server's log says more")
