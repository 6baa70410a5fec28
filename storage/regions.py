"""Disk blocks for the environment's shared memory.

The library maps its region files (`__db.001` and on) into memory at their largest size and lets
the files grow as it uses them. Where the disk has no block left for a page it writes to, there is
no call that could fail: the process gets SIGBUS and is gone. With the blocks set aside when the
environment is opened, a full disk is an error of a log write, which the library reports.

Source: `DB_ENV->set_flags` (`DB_REGION_INIT`), fallocate(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
from pathlib import Path

_KEEP_SIZE = 0x01  # FALLOC_FL_KEEP_SIZE: the library finds the files as it made them
_MAPS = Path("/proc/self/maps")

_CACHE_LINE = re.compile(r"^\s*set_cachesize\s+(\d+)\s+(\d+)", re.MULTILINE)
_LIBRARY_CACHE_BYTES = 256 * 1024
# What the regions of locks, mutexes and log buffers have grown to when a recovery is over.
_OTHER_BYTES = 32 * 2**20

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_libc.fallocate.restype = ctypes.c_int


def must_have_room(home: Path) -> None:
    """Refuse an open whose recovery could use up the disk, before anything can be set aside.

    Raises:
        OSError: ENOSPC, less is free than the recovery's cache may come to.
    """
    try:
        text = (home / "DB_CONFIG").read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        text = ""
    lines = _CACHE_LINE.findall(text)
    cache_bytes = int(lines[-1][0]) * 2**30 + int(lines[-1][1]) if lines else _LIBRARY_CACHE_BYTES
    # The library adds a quarter for its own use.
    needed_bytes = cache_bytes * 5 // 4 + _OTHER_BYTES
    found = os.statvfs(home)
    # The old files are removed first.
    old_bytes = sum(path.stat().st_blocks * 512 for path in home.glob("__db.0*"))
    free_bytes = found.f_bavail * found.f_frsize + old_bytes
    if free_bytes < needed_bytes:
        raise OSError(
            errno.ENOSPC,
            f"{free_bytes / 1e6:.0f} MB are free, its cache may take {needed_bytes / 1e6:.0f} MB",
        )


def mapped(home: Path) -> dict[Path, int]:
    """Find the region files of an open environment: how many bytes of each are mapped."""
    prefix = os.fspath(home.resolve() / "__db.")
    found: dict[Path, int] = {}
    for line in _MAPS.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        where = line.find(prefix)
        if where < 0 or line.endswith(" (deleted)"):
            continue
        start, _, end = line.split(maxsplit=1)[0].partition("-")
        path = Path(line[where:])
        found[path] = found.get(path, 0) + int(end, 16) - int(start, 16)
    return found


def reserve(home: Path) -> int:
    """Set blocks aside for all that is mapped; to be called right after the environment's open.

    Returns:
        The bytes of all regions.

    Raises:
        OSError: ENOSPC or EDQUOT, there is not so much.
    """
    total = 0
    for path, size in mapped(home).items():
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if _libc.fallocate(fd, _KEEP_SIZE, 0, size) != 0:
                number = ctypes.get_errno()
                if number in (errno.ENOSPC, errno.EDQUOT):
                    raise OSError(number, os.strerror(number), str(path))
                # A file system that cannot: then it is as the library made it.
        finally:
            os.close(fd)
        total += size
    return total


def release(paths: list[Path]) -> None:
    """Give back what was set aside and never used, after the environment was closed."""
    for path in paths:
        try:
            # Cutting a file to the size it has drops the blocks behind its end.
            os.truncate(path, path.stat().st_size)
        except OSError:
            continue  # the next open makes the files anew anyway
