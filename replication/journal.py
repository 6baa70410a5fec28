"""`$DB_Msg.txt`, the replication journal: one line an event, written at once, readable by a person.

What is promised:

- A line is in the kernel's hands when `write` returns: it outlives a kill of this process. It is
  not flushed to the disk, because a journal must never slow a commit down.
- Lines of several threads never mix, and none is lost when the file is rotated.
- `write` never raises because of the disk. Lines that could not be written are counted, and the
  first one that can be is preceded by `journal_lines_lost` with their number.
- With `capture_stdout` the process's standard output is the journal, through every rotation: the
  library prints its verbose messages there and offers no other way. It grows the file behind our
  back, so the size is read from the file system before every line.
- Someone may rename or delete the file under us (logrotate, a wiped directory): it is made again.

`journal_line` says what a line looks like and lists the events, `journal_reader` reads them.
"""

import fcntl
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from replication.errors import ReplicationError
from replication.history import HISTORY_EVENTS, History
from replication.journal_line import format_line, stamp

_STDOUT: Final = 1
_STDERR: Final = 2
_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
_MODE: Final = 0o640  # names of sites and users: for the owner and a group of operators


class JournalStatistics(NamedTuple):
    """What a journal did since it was opened."""

    lines: int
    lines_lost: int
    rotations: int


@dataclass(slots=True)
class _Allowance:
    lines: float
    counted_at_s: float
    left_out: int = 0


class Journal:
    """The writing side of `$DB_Msg.txt`; one per process.

    Args:
        path: the file; rotated ones are beside it as `NAME.1` (newest) to `NAME.<files_max>`.
        bytes_max: size at which the file is rotated.
        files_max: rotated files that are kept, at least 1.
        site: host:port of this site, written in every line.
        capture_stdout: make the file the process's standard output until `close`.
        role: the role written until `set_role` is called.
        now: the wall clock, seconds since 1970.
        clock: seconds that only go forward.

    Attributes:
        history: the last changes of role, those of earlier runs included.

    Raises:
        ReplicationError: the file cannot be opened (`journal_unwritable`).
    """

    def __init__(
        self,
        path: Path,
        bytes_max: int,
        files_max: int,
        site: str,
        capture_stdout: bool,
        *,
        role: str = "none",
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        assert bytes_max > 0, "a journal needs a size to rotate at"
        assert files_max >= 1, "a journal keeps at least one rotated file"
        self.path = path
        self._bytes_max = bytes_max
        self._files_max = files_max
        self._site = site
        self._role = role
        self._now = now
        self._clock = clock
        self.history = History()
        self._seldom: dict[str, _Allowance] = {}  # at most as many as there are events
        self._lock = threading.Lock()
        self._torn = False  # the file ends in the middle of a line
        self._lost = 0
        self._lost_since_s = 0.0
        self._lost_why = ""
        self._lines = self._lost_ever = self._rotations = 0
        self._stdout_saved: int | None = None
        self._capturing = False
        try:
            self._fd = self._open()
        except OSError as error:
            raise ReplicationError(
                f"journal {path} cannot be written: {error.strerror}",
                code="journal_unwritable",
                hint=f"let the user this server runs as write to {path.parent}, and free some disk",
                path=str(path),
            ) from error
        numbers = range(1, files_max + 1)
        self.history.read_back([path, *(rotated(path, number) for number in numbers)])
        if capture_stdout:
            self._capture()

    def write(self, event: str, /, **facts: object) -> None:
        """Write one line; after `close`, do nothing.

        Args:
            event: a name of `journal_line.EVENTS`.
            **facts: in the order given; `from_=` is written `from=`.

        *Thread:* any, the library's too: it waits for the disk cache only, never for a peer.
        """
        with self._lock:
            if self._fd < 0:
                return
            # Under the lock, so that the lines' times never run backwards.
            line = format_line(self._now(), self._role, self._site, event, facts)
            self._settle(len(line))
            self._append(line)
        if event in HISTORY_EVENTS:
            self.history.add(line.decode())

    def write_seldom(self, event: str, /, *, every_s: float, burst: int, **facts: object) -> None:
        """Write a line, or count it only: for what may happen thousands of times a second.

        A flood of one event would push the story of everything else out of the rotated files. The
        first `burst` lines are written, then one in `every_s`; the next one that is written tells
        in `left_out` how many were not.

        Args:
            event: a name of `journal_line.EVENTS`; each has an allowance of its own.
            every_s: how often a line is written in the long run, seconds.
            burst: how many may come at once after a quiet time.
            **facts: as in `write`.
        """
        with self._lock:
            now_s = self._clock()
            seldom = self._seldom.setdefault(event, _Allowance(burst, now_s))
            # Time gives the allowance back, a line each `every_s`.
            seldom.lines = min(burst, seldom.lines + (now_s - seldom.counted_at_s) / every_s)
            seldom.counted_at_s = now_s
            if seldom.lines < 1:
                seldom.left_out += 1
                return
            seldom.lines -= 1
            left_out, seldom.left_out = seldom.left_out, 0
        self.write(event, **facts, **({"left_out": left_out} if left_out else {}))

    def set_role(self, role: str) -> None:
        """Write `role` in the lines from now on."""
        with self._lock:
            self._role = role

    def rotate_if_due(self) -> None:
        """Rotate a file that the library alone made too large; to be called now and then."""
        with self._lock:
            if self._fd >= 0:
                self._settle(0)

    def statistics(self) -> JournalStatistics:
        """Tell what was written and what was lost."""
        with self._lock:
            return JournalStatistics(self._lines, self._lost_ever, self._rotations)

    def close(self) -> None:
        """Give standard output back and close the file; a second call does nothing."""
        with self._lock:
            if self._fd < 0:
                return
            if self._capturing:
                self._release()
            os.close(self._fd)
            self._fd = -1

    # -- the file

    def _open(self) -> int:
        fd = os.open(self.path, _FLAGS, _MODE)
        if fd <= _STDERR:
            # The process was started without one of the standard files, and we got its number.
            low, fd = fd, fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _STDERR + 1)
            os.close(low)
        size = os.fstat(fd).st_size
        # A process that was killed in the middle of a line left its half: ours begins a new one.
        self._torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
        return fd

    def _settle(self, coming_bytes: int) -> None:
        """See that the next line goes to the right file; a failure leaves us with the old one."""
        try:
            ours = os.fstat(self._fd)
            try:
                there = os.stat(self.path)  # noqa: PTH116 - twice the speed of Path.stat
                moved = (there.st_ino, there.st_dev) != (ours.st_ino, ours.st_dev)
            except FileNotFoundError:
                moved = True
            if moved:
                self._switch()
            elif ours.st_size and ours.st_size + coming_bytes > self._bytes_max:
                self._rotate()
        except OSError:
            # Too large, or under a wrong name, is better than not written: tried again next time.
            return

    def _rotate(self) -> None:
        # Shift up to the first gap only: nothing falls off the end before all places are taken.
        names = [self.path, *(rotated(self.path, n) for n in range(1, self._files_max + 1))]
        gap = next((n for n, name in enumerate(names) if not name.exists()), self._files_max)
        for n in range(gap, 0, -1):
            names[n - 1].replace(names[n])
        self._switch()
        self._rotations += 1
        facts = {"previous": names[1].name}
        self._append(format_line(self._now(), self._role, self._site, "journal_continued", facts))

    def _switch(self) -> None:
        fresh = self._open()
        if self._capturing:
            # In one step: a library thread that prints now finds one file or the other.
            os.dup2(fresh, _STDOUT)
        os.close(self._fd)
        self._fd = fresh

    def _append(self, line: bytes) -> None:
        """Write one line at the end of the file, after a word about lost ones, or count it lost."""
        try:
            if self._lost:
                self._write_all(self._loss())
                self._lost = 0
            self._write_all(line)
            self._lines += 1
        except OSError as error:
            if not self._lost:
                self._lost_since_s = self._now()
            self._lost += 1
            self._lost_ever += 1
            self._lost_why = error.strerror or type(error).__name__

    def _loss(self) -> bytes:
        facts = {
            "lines": self._lost,
            "since": stamp(self._lost_since_s),
            "why": self._lost_why,
        }
        return format_line(self._now(), self._role, self._site, "journal_lines_lost", facts)

    def _write_all(self, data: bytes) -> None:
        rest = memoryview(b"\n" + data if self._torn else data)
        while rest:
            # A full disk may take a part and refuse the rest; the half line is ended by the next.
            written = os.write(self._fd, rest)
            rest = rest[written:]
            self._torn = bool(rest)

    # -- standard output

    def _capture(self) -> None:
        _flush_stdout()
        try:
            self._stdout_saved = os.dup(_STDOUT)
        except OSError:
            self._stdout_saved = None  # started without a standard output, as some supervisors do
        os.dup2(self._fd, _STDOUT)
        self._capturing = True

    def _release(self) -> None:
        _flush_stdout()
        if self._stdout_saved is not None:
            os.dup2(self._stdout_saved, _STDOUT)
            os.close(self._stdout_saved)
            self._stdout_saved = None
        else:
            # Not closed: the next file this process opens would become its standard output.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, _STDOUT)
            if nowhere != _STDOUT:
                os.close(nowhere)
        self._capturing = False


def rotated(path: Path, number: int) -> Path:
    """Name the journal's rotated file `number` (1 is the newest)."""
    return path.with_name(f"{path.name}.{number}")


def _flush_stdout() -> None:
    try:
        sys.stdout.flush()
    except (AttributeError, OSError, ValueError):
        return  # None, closed or a full disk: there is nothing of ours in it to lose
