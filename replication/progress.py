"""How far an initial sync is, read from the messages that pass by (no input or output).

The library copies a database file by file, page by page. Its file list (UPDATE) tells each file's
page size and last page; each page message names its file and page. Both are made by the library
and only looked at here.

    file list   first LSN 8, log version 4, number of files 4, then that many file records
    file record page size, page, last page, file number, flags, type, database flags (u32 each),
                then three counted strings: unique id, info (the name, or the page), directory

Source: the library's replication message formats, version 7.
"""

import struct
from dataclasses import dataclass

_LIST = struct.Struct(">IIII")
_FILE = struct.Struct(">7I")
_U32 = struct.Struct(">I")
FILES_MAX = 100_000  # a list that announces more is not believed


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One file of the list."""

    name: str
    page_bytes: int
    pages: int


def parse_file(record: bytes, at: int) -> tuple[FileInfo, int]:
    """Read one file record; returns it and where the next begins.

    Raises:
        ValueError: it is not one.
    """
    try:
        page_bytes, _page, last_page, *_ = _FILE.unpack_from(record, at)
        at += _FILE.size
        parts = []
        for _ in range(3):
            (length,) = _U32.unpack_from(record, at)
            at += 4
            if at + length > len(record):
                raise ValueError("a string runs over the end")
            parts.append(record[at : at + length])
            at += length
    except struct.error as error:
        raise ValueError(str(error)) from error
    name = parts[1].rstrip(b"\0").decode("utf-8", "replace")
    return FileInfo(name, page_bytes, last_page + 1), at


def parse_list(record: bytes) -> list[FileInfo]:
    """Read the file list of an UPDATE message; an unreadable one is an empty list."""
    files = []
    try:
        *_, count = _LIST.unpack_from(record)
        at = _LIST.size
        for _ in range(min(count, FILES_MAX)):
            info, at = parse_file(record, at)
            files.append(info)
    except (ValueError, struct.error):
        return []
    return files


def first_log_file(record: bytes) -> int | None:
    """The log file in which the log that belongs to the pages begins; None: unreadable."""
    return _U32.unpack_from(record)[0] or None if len(record) >= _LIST.size else None


@dataclass(slots=True)
class SyncProgress:
    """Counts one initial sync, sent or received.

    Args:
        started_s: when the file list passed.
        pages_before: pages_done at the last look.
        announced: the start stands in the journal.
        finished: so does the end.
    """

    started_s: float
    files: tuple[FileInfo, ...] = ()
    pages_done: int = 0
    bytes_done: int = 0
    pages_before: int = 0
    announced: bool = False
    finished: bool = False

    @property
    def pages_total(self) -> int:
        return sum(f.pages for f in self.files)

    @property
    def bytes_total(self) -> int:
        return sum(f.pages * f.page_bytes for f in self.files)

    def page(self, record_bytes: int, pages: int = 1) -> None:
        """A message with pages passed."""
        self.pages_done += pages
        self.bytes_done += record_bytes

    def eta_s(self, now_s: float) -> float | None:
        """Seconds until all pages are there at the pace so far; None while unknown."""
        if not self.pages_done or not self.pages_total:
            return None
        pace = (now_s - self.started_s) / self.pages_done
        return max(0.0, pace * (self.pages_total - self.pages_done))
