"""`ttserver check`: what would keep a site from working, found before it is started or after.

Every finding is one line with what was seen; what is not well carries one thing to do. Nothing is
changed on this machine, and other sites are asked one question each.
"""

import os
import resource
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from berkeleydb import db as library

from storage import dbconfig
from storage.dbconfig import ConfigWarning
from storage.errors import ConfigError
from ttserver.check_findings import Finding, Level, fail, ok, warn
from ttserver.check_network import check_network
from ttserver.config import load, load_settings
from ttserver.control_client import ControlClient, NotRunningError
from ttserver.errors import TtserverError
from ttserver.home import Home
from ttserver.summary import bytes_text

__all__ = ["Finding", "Level", "run_checks"]

LIBRARY_VERSION_MIN = (5, 3)
DAEMON_TIMEOUT_S = 5.0
# Two log files of the default size and a checkpoint must always find room.
DISK_FAIL_BYTES = 100_000_000
DISK_WARN_BYTES = 1_000_000_000
INODES_MIN = 100
# One connection a client; below this a few hundred clients meet "too many open files".
OPEN_FILES_WARN = 1024


def run_checks(home: Home) -> Iterator[Finding]:
    """Look at everything, in the order in which it has to be right; each finding at once."""
    yield _check_library()
    if not home.root.is_dir():
        yield fail("home", f"{home.root} does not exist", "make it: ttserver init --help")
        return
    found = list(_check_configuration(home))
    yield from found
    for path in (home.root, home.environment):
        yield _check_directory(path)
    yield _check_disk(home)
    yield _check_open_files()
    status = None
    try:
        status = _running(home)
    except TtserverError as error:
        yield fail("daemon", str(error), error.hint or "look at its log")
    else:
        yield ok("daemon", _daemon_text(status))
    if not any(finding.level is Level.FAIL for finding in found):
        yield from check_network(load(home), status)


# -- this machine


def _check_library() -> Finding:
    version = library.version()
    text = f"Berkeley DB {'.'.join(map(str, version))}, binding {library.__version__}"
    if version[:2] >= LIBRARY_VERSION_MIN:
        return ok("library", text)
    needed = ".".join(map(str, LIBRARY_VERSION_MIN))
    return fail(
        "library", f"{text}; {needed} is needed", "install libdb5.3, then the binding again"
    )


def _check_configuration(home: Home) -> Iterator[Finding]:
    well = True
    readers: dict[Path, Callable[[], Iterable[ConfigWarning]]] = {
        home.db_config: lambda: dbconfig.read(home.root).warnings,
        home.toml: lambda: _settings_warnings(home),
    }
    for path, read in readers.items():
        try:
            warnings = read()
        except ConfigError as error:
            well = False
            yield from (_configuration(path.name, one) for one in error.all)
            continue
        text = "no mistakes" if path.exists() else f"{path} does not exist: defaults are used"
        yield ok(path.name, text)
        for warning in warnings:
            yield warn(path.name, str(warning), "change that line, or leave it if you mean it")
    if not well:
        return
    try:
        load(home)
    except ConfigError as error:
        yield from (_configuration("configuration", one) for one in error.all)


def _settings_warnings(home: Home) -> Iterable[ConfigWarning]:
    load_settings(home)
    return ()


def _configuration(topic: str, error: ConfigError) -> Finding:
    return Finding(
        topic=topic, level=Level.FAIL, text=str(error), hint=error.hint, configuration=True
    )


def _check_directory(path: Path) -> Finding:
    try:
        status = path.stat()
    except FileNotFoundError:
        return ok("directories", f"{path} is not there yet: made at the first start")
    except OSError as error:
        return fail("directories", f"{path}: {error.strerror}", f"see ls -ld {path}")
    mode, user = stat.S_IMODE(status.st_mode), os.geteuid()
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return fail("directories", f"{path} is mounted read-only", "mount it writable")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
        return fail(
            "directories",
            f"{path} (mode {mode:04o}, owner {status.st_uid}) cannot be written by user {user}",
            f"give it to the user who runs ttserver: chown -R USER {path}",
        )
    if status.st_uid != user:
        return warn(
            "directories",
            f"{path} belongs to user {status.st_uid}, and this is user {user}",
            "run ttserver as the owner, else files of two owners mix",
        )
    if mode & 0o077 and path.name == "db":
        return warn(
            "directories",
            f"{path} (mode {mode:04o}) is open to other users, and it holds all data",
            f"chmod 700 {path}",
        )
    if mode & 0o022:
        return warn(
            "directories",
            f"{path} (mode {mode:04o}) can be changed by other users",
            f"chmod go-w {path}",
        )
    return ok("directories", f"{path} (mode {mode:04o}) is ours")


def _check_disk(home: Home) -> Finding:
    where = home.environment if home.environment.is_dir() else home.root
    try:
        found, held = os.statvfs(where), _held_bytes(home.environment)
    except OSError as error:
        return fail("disk", f"{where}: {error.strerror}", f"see df {where}")
    free = found.f_bavail * found.f_frsize
    text = f"{bytes_text(free)} free under {where}, which holds {bytes_text(held)}"
    if found.f_flag & os.ST_RDONLY:
        return fail("disk", f"{where} is mounted read-only", "mount it writable; dmesg says why")
    if free < DISK_FAIL_BYTES:
        return fail("disk", text, f"free at least {bytes_text(DISK_WARN_BYTES)} there")
    if found.f_files and found.f_favail < INODES_MIN:
        return fail("disk", f"{found.f_favail} inodes free under {where}", "remove small files")
    if free < max(DISK_WARN_BYTES, held):
        return warn("disk", text, "leave room for a second copy: logs and a new sync need it")
    return ok("disk", text)


def _held_bytes(directory: Path) -> int:
    try:
        return sum(entry.stat().st_blocks * 512 for entry in os.scandir(directory))
    except FileNotFoundError:
        return 0


def _check_open_files() -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return ok("open files", "no limit")
    if soft < OPEN_FILES_WARN:
        hint = "raise it: ulimit -n 65536, or LimitNOFILE= in the unit"
        return warn("open files", f"at most {soft}, one for each client", hint)
    return ok("open files", f"at most {soft}")


def _running(home: Home) -> dict[str, Any] | None:
    try:
        with ControlClient(home.socket, timeout_s=DAEMON_TIMEOUT_S) as daemon:
            return dict(daemon.ask("status"))
    except NotRunningError:
        return None


def _daemon_text(status: dict[str, Any] | None) -> str:
    if status is None:
        return "none runs on this home"
    return f"process {status['pid']} runs: {status['state']}"
