"""Empty a site's database so that it starts over; what an operator used to do by hand with rm."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from ttserver.errors import TtserverError

# The library's own configuration stays, as it does when operators wipe by hand.
KEPT = "DB_CONFIG"


class WipeError(TtserverError):
    """The database was not, or not completely, removed."""

    default_code = "WIPE"


@dataclass(frozen=True, slots=True)
class WipePlan:
    """What a wipe will remove.

    Args:
        directory: the environment, var/db.
        names: its entries, sorted; directories are removed with what is in them.
        size_bytes: what all of them hold.
    """

    directory: Path
    names: tuple[str, ...]
    size_bytes: int

    def kinds(self) -> dict[str, int]:
        """Count the entries by what an operator calls one of them."""
        counted: dict[str, int] = {}
        for name in self.names:
            counted[_kind(name)] = counted.get(_kind(name), 0) + 1
        return counted


def plan(directory: Path) -> WipePlan:
    """List what would go.

    Args:
        directory: the environment, var/db; a missing one is an empty one.

    Raises:
        WipeError: it cannot be read.
    """
    try:
        entries = [entry for entry in os.scandir(directory) if entry.name != KEPT]
        size_bytes = sum(_size(entry) for entry in entries)
    except FileNotFoundError:
        return WipePlan(directory, (), 0)
    except OSError as error:
        raise _failed(error) from error
    return WipePlan(directory, tuple(sorted(entry.name for entry in entries)), size_bytes)


def remove(planned: WipePlan) -> None:
    """Remove what was planned; the HOME lock must be held.

    The log files go first, the newest before the older: a wipe cut short then leaves an environment
    whose databases are ahead of its log, which the library refuses, or one without a log, which
    counts as empty. The other way round, logs without their databases would pass for a full copy.

    Raises:
        WipeError: an entry could not be removed; a second try goes on where this one stopped.
    """
    logs = sorted((name for name in planned.names if name.startswith("log.")), reverse=True)
    for name in [*logs, *(name for name in planned.names if name not in logs)]:
        path = planned.directory / name
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise _failed(error) from error


def _size(entry: os.DirEntry[str]) -> int:
    if not entry.is_dir(follow_symlinks=False):
        return entry.stat(follow_symlinks=False).st_size
    return sum(path.lstat().st_size for path in Path(entry.path).rglob("*") if not path.is_dir())


def _kind(name: str) -> str:
    if name.startswith("log."):
        return "log file"
    if name.startswith("__db"):
        return "region file"
    if name.startswith("$DB_Msg.txt"):
        return "journal file"
    return "database" if name.endswith(".db") else "other file"


def _failed(error: OSError) -> WipeError:
    return WipeError(
        f"database was not removed: {error.filename}: {error.strerror}",
        hint="run this as the user that owns the directory, then run it again",
    )
