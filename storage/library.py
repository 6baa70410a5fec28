"""What the library's errors mean to people: the only place that maps them.

Source: Berkeley DB C API reference, "Error returns", and the return values of each method.
"""

import errno
from typing import Final

from berkeleydb import db

from storage.errors import StorageError

# What a call into the library raises: the binding has no class of its own for ENOMEM.
LIBRARY_ERRORS: Final = (db.DBError, MemoryError)


class EnvironmentFailed(StorageError):
    """The environment cannot be used: closed, not opened, or in need of recovery."""

    default_code = "ENVIRONMENT"


class StillInLibrary(EnvironmentFailed):
    """A thread did not leave the library in time, so the environment was not closed."""

    default_code = "STILL_IN_LIBRARY"


class DatabaseMissing(StorageError):
    """The file is not there: not created yet, or not copied from the master yet."""

    default_code = "MISSING"


class RoleChanging(StorageError):
    """The library locks calls out while it changes role or syncs; try again."""

    default_code = "TRYAGAIN"


class FateUnknown(EnvironmentFailed):
    """The environment failed inside a commit: recovery may find the write whole, or not."""

    default_code = "UNKNOWN"


class WatchFailed(StorageError):
    """EXEC: a watched key was changed by somebody else; nothing was written."""

    default_code = "WATCH"


# errno -> (what it means, what to do); what is not here keeps the library's own words.
_SYSTEM: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("the disk is full", "free space on that file system, then try again."),
    errno.EDQUOT: ("the disk quota is used up", "raise the quota or free space."),
    errno.EROFS: ("the file system is read-only", "mount it writable (see `dmesg` for why)."),
    errno.EACCES: ("permission is missing", "give the server's user that directory: `chown -R`."),
    errno.EPERM: ("permission is missing", "give the server's user that directory: `chown -R`."),
    errno.EMFILE: ("too many open files", "raise the limit: LimitNOFILE= or `ulimit -n`."),
    errno.ENOMEM: ("memory ran out", "lower set_cachesize in DB_CONFIG or add memory."),
}


def from_library(error: Exception, what: str) -> StorageError:
    """Turn an error of the library or the system into one of ours.

    Args:
        error: what was raised; its first argument may be an errno.
        what: the sentence's beginning, subject first: "keys.db cannot be opened".
    """
    number = error.args[0] if error.args and isinstance(error.args[0], int) else None
    if isinstance(error, MemoryError):
        number = errno.ENOMEM
    words = str(error.args[1]) if len(error.args) > 1 else str(error)
    if isinstance(error, db.DBRunRecoveryError):
        return EnvironmentFailed(
            f"{what}: the environment needs recovery ({words})",
            hint="the server reopens it; see $DB_Msg.txt for the cause.",
        )
    if isinstance(error, db.DBRepLockoutError | db.DBRepHandleDeadError):
        return RoleChanging(f"{what}: the site is changing its role or copy", hint="try again.")
    if number == errno.ENOMEM and "lock" in words.lower():
        return StorageError(
            f"{what}: too many locks at once ({words})",
            code="SYSTEM",
            hint="raise set_lk_max_locks, set_lk_max_objects and set_lk_max_lockers in DB_CONFIG.",
        )
    if number in _SYSTEM:
        meaning, hint = _SYSTEM[number]
        return StorageError(f"{what}: {meaning} ({words})", code="SYSTEM", hint=hint)
    return StorageError(
        f"{what}: {words}", code="LIBRARY", hint="see $DB_Msg.txt for the library's own words."
    )
