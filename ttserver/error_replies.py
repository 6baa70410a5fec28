"""Errors of the engine as replies whose first word client libraries understand."""

from typing import Final

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
    "MISSING": "LOADING",  # the database file is not here yet
}

log = structlog.get_logger(__name__)


def error_reply(error: Exception) -> CommandError:
    """Turn an error into a reply; one that nobody expects is logged with its traceback."""
    if isinstance(error, CommandError):
        return error
    if isinstance(error, EXPECTED):
        return CommandError(f"{_CODES.get(error.code, 'ERR')} {error}")
    log.error("command_failed", error=repr(error), exc_info=error)
    return CommandError("ERR internal error: the server's log says more")
