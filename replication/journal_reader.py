"""Read `$DB_Msg.txt` from outside the process that writes it: the last lines, and the coming ones.

Nothing is locked and nothing is asked of the writer: the reader follows file identities (inodes),
so that it finds the next file of the chain `NAME.2`, `NAME.1`, `NAME` after any number of
rotations, and says so when its own file fell off the end of the chain meanwhile.
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from replication.journal import rotated
from replication.journal_line import printable

_BLOCK_BYTES: Final = 64 * 1024
# What is read in one go; more stays for the next call, so a flood cannot fill our memory.
_READ_BYTES_MAX: Final = 1024 * 1024
# Half a line longer than this is given out as it is: no writer of ours makes one.
_LINE_BYTES_MAX: Final = 256 * 1024
# A chain is looked at again when a rotation came in between; a rotation takes far less time than
# so many looks with their pauses.
_LOOKS_MAX: Final = 100
_LOOK_PAUSE_S: Final = 0.001
SKIPPED: Final = "(lines may be missing here: the file was rotated away before the next was read)"


def tail(path: Path, lines: int) -> list[str]:
    """Return the journal's last lines, rotated files included, oldest first.

    Args:
        path: the journal, not one of its rotated files.
        lines: how many, at most.

    Raises:
        OSError: the journal cannot be read; FileNotFoundError when there is none.
    """
    follower = Follower(path, lines)
    try:
        return follower.first
    finally:
        follower.close()


def follow(
    path: Path,
    lines: int = 10,
    *,
    poll_s: float = 0.2,
    wait: Callable[[float], object] = time.sleep,
) -> Iterator[str]:
    """Give the last lines and then, for ever, each new one; waits for a journal not yet made.

    Args:
        path: the journal.
        lines: how many of those already there.
        poll_s: how often the file is looked at when it is quiet, seconds.
        wait: how to spend `poll_s`; raising ends the iteration.

    Raises:
        OSError: the journal cannot be read.
    """
    while True:
        try:
            follower = Follower(path, lines)
            break
        except FileNotFoundError:
            wait(poll_s)
    try:
        yield from follower.first
        while True:
            fresh = follower.read_new()
            yield from fresh
            if not fresh:
                wait(poll_s)
    finally:
        follower.close()


class Follower:
    """A place in the journal that moves on with it, through rotations.

    Args:
        path: the journal.
        lines: how many of the lines already there `first` holds.

    Raises:
        OSError: the journal cannot be read.
    """

    def __init__(self, path: Path, lines: int) -> None:
        self._path = path
        self._rest = b""
        self._skipped = False
        chain = _open_chain(path, lines)
        self._fd = chain.pop(0)
        try:
            end = _end_of_lines(self._fd)
            os.lseek(self._fd, end, os.SEEK_SET)
            found = _last_lines(self._fd, end, lines)
            for fd in chain:
                if len(found) >= lines:
                    break
                size = os.fstat(fd).st_size
                found = _last_lines(fd, size, lines - len(found)) + found
        except OSError:
            self.close()
            raise
        finally:
            for fd in chain:
                os.close(fd)
        self.first = [_as_text(line) for line in found]

    def read_new(self) -> list[str]:
        """Return the lines written since the last call, not waiting; empty when there is none."""
        lines = self._read_some()
        if lines:
            return lines
        following = self._next_file()
        if following is None:
            return []
        # The file is finished, but a line may have come between our read and the rotation.
        lines = self._read_some()
        if lines:
            os.close(following)
            return lines
        if self._rest:
            lines = [_as_text(self._rest)]
            self._rest = b""
        if self._skipped:
            lines.append(SKIPPED)
        os.close(self._fd)
        self._fd = following
        return lines + self._read_some()

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _read_some(self) -> list[str]:
        if os.fstat(self._fd).st_size < os.lseek(self._fd, 0, os.SEEK_CUR):
            os.lseek(self._fd, 0, os.SEEK_SET)  # emptied in place, as logrotate's copytruncate does
            self._rest = b""
        data = self._rest + os.read(self._fd, _READ_BYTES_MAX)
        *lines, self._rest = data.split(b"\n")
        if len(self._rest) > _LINE_BYTES_MAX:
            lines.append(self._rest)
            self._rest = b""
        return [_as_text(line) for line in lines]

    def _next_file(self) -> int | None:
        """Open the file written after ours; None while ours is the one written to."""
        for _ in range(_LOOKS_MAX):
            status = os.fstat(self._fd)
            ours = _identity(status)
            names = _names(self._path)
            # Newest first, the way files are shifted: one that moves meanwhile is seen twice, but
            # never missed.
            places = [_identity_of(name) for name in names]
            if places[0] == ours:
                return None
            if ours in places:
                target = places.index(ours) - 1
                self._skipped = False
            elif status.st_nlink == 0:
                # Ours fell off the end of the chain or was deleted: go on with the oldest.
                target = max((n for n, place in enumerate(places) if place), default=0)
                self._skipped = target > 0
            else:
                return None  # renamed to something else: no successor is known before it is made
            try:
                fd = os.open(names[target], os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return None  # in the middle of a rotation; the next call finds it done
            if _identity(os.fstat(fd)) == places[target]:
                return fd
            os.close(fd)
        return None


_Identity = tuple[int, int]


def _identity(status: os.stat_result) -> _Identity:
    return (status.st_dev, status.st_ino)


def _identity_of(name: Path) -> _Identity | None:
    try:
        return _identity(name.stat())
    except FileNotFoundError:
        return None


def _names(path: Path) -> list[Path]:
    """List where the chain's files can be, newest first, some of them perhaps not there."""
    try:
        beside = [entry.name for entry in path.parent.iterdir()]
    except FileNotFoundError:
        return [path]
    prefix = f"{path.name}."
    numbers = [
        int(name.removeprefix(prefix))
        for name in beside
        if name.startswith(prefix) and name.removeprefix(prefix).isdecimal()
    ]
    # One more than is there now: a rotation may just be adding it.
    return [path, *(rotated(path, number) for number in range(1, max(numbers, default=0) + 2))]


def _open_chain(path: Path, lines: int) -> list[int]:
    """Open the journal and its rotated files, newest first, as they were at one moment."""
    for _ in range(_LOOKS_MAX):
        fds: dict[_Identity, int] = {}
        try:
            newest = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            if not rotated(path, 1).exists():
                raise
            time.sleep(_LOOK_PAUSE_S)
            continue
        fds[_identity(os.fstat(newest))] = newest
        for name in _names(path)[1:] if lines > 0 else []:
            try:
                fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            if fds.setdefault(_identity(os.fstat(fd)), fd) != fd:
                os.close(fd)  # seen twice, because it moved up meanwhile
        if _identity_of(path) == _identity(os.fstat(newest)):
            return list(fds.values())
        _close_all(list(fds.values()))
    raise FileNotFoundError(f"journal {path} is renamed faster than it can be opened")


def _close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def _end_of_lines(fd: int) -> int:
    """Find the end of the last whole line; a half one belongs to what is still to come."""
    end = os.fstat(fd).st_size
    while end > 0:
        start = max(0, end - _BLOCK_BYTES)
        at = os.pread(fd, end - start, start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        end = start
    return 0


def _last_lines(fd: int, end: int, lines: int) -> list[bytes]:
    """Read the last lines before `end`, backwards by blocks."""
    if lines <= 0:
        return []
    blocks: list[bytes] = []
    start = end
    feeds = 0
    while start > 0 and feeds <= lines:
        size = min(_BLOCK_BYTES, start)
        start -= size
        block = os.pread(fd, size, start)
        feeds += block.count(b"\n")
        blocks.append(block)
    found = b"".join(reversed(blocks)).split(b"\n")
    if not found[-1]:
        found.pop()  # what follows the last line feed
    # More line feeds than asked for were read, so the first, cut, piece is not among these.
    return found[-lines:]


def _as_text(line: bytes) -> str:
    return printable(line.decode("utf-8", "replace"))
