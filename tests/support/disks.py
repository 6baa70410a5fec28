"""A file system of its own for one site: small, and full or read-only when a test says so.

It is mounted in a mount namespace of a process that only keeps it, so that nothing of it outlives
the test. The site's processes enter that namespace; the test looks in from outside.

Source: mount_namespaces(7), nsenter(1), proc_pid_root(5).
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.sites import Site
from ttserver.demo.site import ROOT
from ttserver.home import Home

TIMEOUT_S = 60
_PROGRAMS = ("unshare", "nsenter", "mount")
_KEEPER = 'mount -t tmpfs -o "size=$1" tmpfs "$0" && echo mounted && exec cat'


class NoOwnDiskError(Exception):
    """This machine does not let the test mount a file system of its own."""


class Disk:
    """See the module's text.

    Args:
        at: the directory it is mounted on, in the namespace.
        keeper: the process that holds the namespace.
    """

    def __init__(self, at: Path, keeper: "subprocess.Popen[str]") -> None:
        self.at = at
        self.seen = Path(f"/proc/{keeper.pid}/root{at}")
        self.enter = ("nsenter", "--target", str(keeper.pid), "--mount", f"--wd={ROOT}")
        self._ballast = self.seen / "ballast"

    def fill(self, leave_bytes: int = 0) -> None:
        """Take all of its space but so much."""
        with self._ballast.open("ab", buffering=0) as out:
            try:
                while True:
                    out.write(bytes(2**20))
            except OSError:
                pass
            os.truncate(out.fileno(), max(0, out.tell() - leave_bytes))

    def free(self) -> None:
        """Give the space back."""
        self._ballast.unlink()

    def remount(self, how: str) -> None:
        """Make it read-only (`ro`) or not (`rw`)."""
        subprocess.run(
            [*self.enter, "mount", "-o", f"remount,{how}", str(self.at)],
            check=True,
            timeout=TIMEOUT_S,
        )


@contextmanager
def own_disk(at: Path, size: str) -> Iterator[Disk]:
    """Mount a file system in memory; it goes with the context.

    Args:
        at: an empty directory.
        size: as mount takes it: `100m`.

    Raises:
        NoOwnDiskError: neither root nor user namespaces allow it here.
    """
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        raise NoOwnDiskError(f"not installed: {', '.join(missing)}")
    if os.geteuid() != 0:
        # In a user namespace the daemon would pass for root, which is another test.
        raise NoOwnDiskError("only root may mount")
    keeper = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", _KEEPER, str(at), size],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    # It ends when its standard input does: with this process at the latest.
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    with keeper:
        try:
            said = keeper.stdout.readline()
            if said != "mounted\n":
                raise NoOwnDiskError(said.strip())
            yield Disk(at, keeper)
        finally:
            keeper.kill()


class DiskSite(Site):
    """A site whose HOME lies on a disk of its own.

    Args:
        name, held: as for `Site`.
        directory: for its log, which must go on when the disk is full.
        disk: where HOME is.
    """

    def __init__(self, name: str, directory: Path, held: ExitStack, disk: Disk) -> None:
        super().__init__(name, directory, held)
        self.disk = disk
        self.home = Home(disk.seen / name)

    def command(self, *arguments: str) -> list[str]:
        """Run in the disk's namespace, where HOME has its plain name."""
        inside = self.disk.at / self.name
        command = super().command(*arguments)
        command[command.index("--home") + 1] = str(inside)
        return [*self.disk.enter, *command]
