"""The directory a site lives in: its files by name, and the lock that keeps it for one daemon."""

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ttserver.errors import ConfigurationError, TtserverError

HOME_VARIABLE = "TTSERVER_HOME"
HOME_DEFAULT = Path("home")
JOURNAL_NAME = "$DB_Msg.txt"


class AlreadyRunningError(TtserverError):
    """Another process holds the HOME."""

    default_code = "LOCKED"


@dataclass(frozen=True, slots=True)
class Home:
    """The files of one site.

    Args:
        root: the directory itself, absolute, so that messages name it whole.
    """

    root: Path

    @classmethod
    def find(cls, given: Path | None, environment: Mapping[str, str] | None = None) -> "Home":
        """Take --home, else $TTSERVER_HOME, else ./home; the directory need not exist."""
        env = os.environ if environment is None else environment
        root = given if given is not None else Path(env.get(HOME_VARIABLE) or HOME_DEFAULT)
        return cls(root.absolute())

    @property
    def db_config(self) -> Path:
        """What the administrator edits."""
        return self.root / "DB_CONFIG"

    @property
    def toml(self) -> Path:
        """Everything Berkeley DB has no word for."""
        return self.root / "ttserver.toml"

    @property
    def environment(self) -> Path:
        """The Berkeley DB environment."""
        return self.root / "var" / "db"

    @property
    def journal(self) -> Path:
        """The replication journal."""
        return self.environment / JOURNAL_NAME

    @property
    def first_user(self) -> Path:
        """The administrator's record until the site is master for the first time."""
        return self.root / "var" / "first-user.json"

    @property
    def tail(self) -> Path:
        """What clients changed in commits that no majority is known to hold."""
        return self.root / "var" / "tail"

    @property
    def rollbacks(self) -> Path:
        """The ledgers of writes that were taken back."""
        return self.root / "var" / "rollbacks"

    @property
    def lock_file(self) -> Path:
        """What a daemon locks; holds its process id."""
        return self.root / "ttserver.lock"

    @property
    def socket(self) -> Path:
        """The control socket."""
        return self.root / "ttserver.sock"

    def must_exist(self) -> None:
        """Complain about a HOME that is not there.

        Raises:
            ConfigurationError: no directory of this name.
        """
        if not self.root.is_dir():
            raise ConfigurationError(
                f"home {self.root} does not exist",
                code="NOHOME",
                hint=f"name it with --home DIR or in ${HOME_VARIABLE}, or make it: ttserver init",
            )

    def must_have_room(self, bytes_min: int) -> None:
        """Complain about a disk on which the environment cannot be opened; var/db must exist.

        The library maps its region files into memory and writes to them as to memory: where the
        disk has no block left for a page, the process dies of SIGBUS instead of getting an error.

        Args:
            bytes_min: what has to be free, counting the old region files, which are made anew.

        Raises:
            TtserverError: less is free.
        """
        found = os.statvfs(self.environment)
        regions = sum(path.stat().st_blocks * 512 for path in self.environment.glob("__db.*"))
        free = found.f_bavail * found.f_frsize + regions
        if free < bytes_min:
            raise TtserverError(
                f"disk is full: {free // 1_000_000} MB are free under {self.environment}, "
                f"{bytes_min // 1_000_000} MB are needed to open it",
                code="DISKFULL",
                hint="free space on that file system; `ttserver check` shows how much there is",
            )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the HOME against every other daemon, wipe or restore of it.

        The kernel lets go of the lock when the process ends, however it ends, so a lock file left
        behind means nothing.

        Raises:
            AlreadyRunningError: another process holds it; names its id.
            TtserverError: the file cannot be made.
            ConfigurationError: there is no such directory.
        """
        self.must_exist()
        try:
            fd = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise TtserverError(
                f"home {self.root} cannot be written: {error.strerror}",
                code="UNWRITABLE",
                hint=f"let the user who runs ttserver own {self.root}, on a file system "
                "that is mounted for writing",
            ) from error
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise self._held(fd) from None
            _note_pid(fd)
            yield
        finally:
            os.close(fd)

    def _held(self, fd: int) -> AlreadyRunningError:
        pid = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "not known"
        return AlreadyRunningError(
            f"home {self.root} is in use by process {pid}",
            hint=f"see what it does: ttserver --home {self.root} status",
        )


def _note_pid(fd: int) -> None:
    # On a full disk the lock still holds; only the next one's message is poorer.
    with contextlib.suppress(OSError):
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
