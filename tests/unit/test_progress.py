"""Progress of an initial sync, read from what the library sends."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replication.progress import FileInfo, SyncProgress, parse_file, parse_list


def counted(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


def file_record(name: bytes, page_bytes: int, last_page: int) -> bytes:
    head = struct.pack(">7I", page_bytes, 0, last_page, 1, 0, 1, 0)
    return head + counted(b"uid-of-20-bytes.....") + counted(name) + counted(b"")


def file_list(*records: bytes, count: int | None = None) -> bytes:
    head = struct.pack(">4I", 1, 28, 19, len(records) if count is None else count)
    return head + b"".join(records)


KEYS = file_record(b"keys.db\0", 4096, 9)
USERS = file_record(b"users.db\0", 512, 0)


def test_a_list_names_files_and_their_pages() -> None:
    assert parse_list(file_list(KEYS, USERS)) == [
        FileInfo("keys.db", 4096, 10),
        FileInfo("users.db", 512, 1),
    ]


def test_a_file_record_says_where_the_next_begins() -> None:
    assert parse_file(KEYS + USERS, 0) == (FileInfo("keys.db", 4096, 10), len(KEYS))


@pytest.mark.parametrize("length", range(len(file_list(KEYS, USERS))))
def test_a_list_cut_short_is_no_list(length: int) -> None:
    assert parse_list(file_list(KEYS, USERS)[:length]) == []


def test_a_count_beyond_the_bytes_is_not_believed() -> None:
    assert parse_list(file_list(KEYS, count=0xFFFFFFFF)) == []


def test_a_name_of_any_bytes_is_shown_somehow() -> None:
    [info] = parse_list(file_list(file_record(b"\xff\xfe\0", 512, 0)))
    assert info.name == "\ufffd\ufffd"


@given(st.binary(max_size=400))
def test_arbitrary_bytes_do_no_harm(data: bytes) -> None:
    for info in parse_list(data):
        assert info.pages >= 1
        assert info.page_bytes >= 0


@given(st.lists(st.tuples(st.text(), st.integers(0, 65536), st.integers(0, 2**32 - 2)), max_size=5))
def test_what_is_written_is_read(files: list[tuple[str, int, int]]) -> None:
    records = [file_record(n.encode() + b"\0", size, last) for n, size, last in files]
    expected = [
        FileInfo(name.encode().rstrip(b"\0").decode(), size, last + 1) for name, size, last in files
    ]
    assert parse_list(file_list(*records)) == expected


class TestPace:
    def progress(self) -> SyncProgress:
        return SyncProgress(100.0, (FileInfo("keys.db", 4096, 10), FileInfo("users.db", 512, 2)))

    def test_totals(self) -> None:
        assert (self.progress().pages_total, self.progress().bytes_total) == (12, 10 * 4096 + 1024)

    def test_no_guess_before_the_first_page(self) -> None:
        assert self.progress().eta_s(200.0) is None
        assert SyncProgress(100.0).eta_s(200.0) is None

    def test_the_rest_at_the_pace_so_far(self) -> None:
        progress = self.progress()
        for _ in range(4):
            progress.page(4100)
        assert progress.bytes_done == 4 * 4100
        assert progress.eta_s(102.0) == pytest.approx(4.0)

    def test_more_pages_than_announced_end_at_zero(self) -> None:
        progress = self.progress()
        for _ in range(20):
            progress.page(1)
        assert progress.eta_s(102.0) == 0.0
