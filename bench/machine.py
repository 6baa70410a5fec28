"""Where and with what a benchmark ran; part of every report."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from berkeleydb import db

from bench.workload import percentile

FLUSHES = 200
FLUSH_BYTES = 500  # about what one commit adds to the log
DISTRIBUTIONS = ("berkeleydb", "uvloop", "msgspec")


def describe(directory: Path) -> dict[str, Any]:
    """Name the machine, the versions and the commit, and measure the disk.

    Args:
        directory: where the environments will be.
    """
    flushes_us = flush_times_us(directory)
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(_memory_bytes() / 2**30, 1),
        "load_average": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "libdb": ".".join(map(str, db.version())),
        **{name: version(name) for name in DISTRIBUTIONS},
        "commit": commit(),
        "directory": str(directory),
        "file_system": file_system(directory),
        "flush_p50_us": round(percentile(flushes_us, 0.5), 1),
        "flush_p99_us": round(percentile(flushes_us, 0.99), 1),
    }


def flush_times_us(directory: Path) -> list[float]:
    """Time appending and flushing a little, as a log does; ascending, microseconds."""
    times = []
    with tempfile.TemporaryFile(dir=directory) as file:
        for _ in range(FLUSHES):
            os.write(file.fileno(), bytes(FLUSH_BYTES))
            before = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - before) * 1e6)
    return sorted(times)


def file_system(directory: Path) -> str:
    """Name the type and device of the file system that holds `directory`."""
    best, found = "", "unknown"
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
            device, mount, kind = line.split()[:3]
            inside = directory == Path(mount) or Path(mount) in directory.parents
            if inside and len(mount) >= len(best):
                best, found = mount, f"{kind} on {device}"
    return found


def commit() -> str:
    """Name the commit of this tree, with a plus sign when files differ from it."""
    git = shutil.which("git")
    root = Path(__file__).parents[1]
    if git is None or not (root / ".git").exists():
        return "unknown"
    words = [git, "-C", str(root)]
    try:
        head = subprocess.check_output([*words, "rev-parse", "--short", "HEAD"], text=True)
        changed = subprocess.check_output([*words, "status", "--porcelain", "-uno"], text=True)
    except subprocess.CalledProcessError:
        return "unknown"
    return head.strip() + ("+" if changed.strip() else "")


def _cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
