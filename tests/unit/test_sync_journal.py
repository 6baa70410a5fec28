"""The journal's lines about initial syncs, from messages that pass by."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from replication.bodies import SiteAddress
from replication.journal import Journal
from replication.journal_line import Line, parse_line
from replication.sites import Sites
from replication.sync_journal import PROGRESS_EVERY_S, SyncJournal

SITE = SiteAddress("192.0.2.20", 5010)
PAGE_BYTES = 4096


def file_list(**files: int) -> bytes:
    """What the library sends before the pages, from names and pages."""
    record = struct.pack(">4I", 1, 28, 19, len(files))
    for name, pages in files.items():
        record += struct.pack(">7I", PAGE_BYTES, 0, pages - 1, 1, 0, 1, 0)
        for text in (b"a unique id of a file", name.encode() + b"\0", b""):
            record += struct.pack(">I", len(text)) + text
    return record


LIST = file_list(keys=10, users=2)


class Lines:
    """A sync journal on a real file, and what it wrote there."""

    def __init__(self, path: Path) -> None:
        self.journal = Journal(path, 2**20, 2, "192.0.2.10:5010", capture_stdout=False)
        self.syncs = SyncJournal(self.journal)
        self.sites = Sites()
        self.eid = self.sites.site(SITE).eid
        self._path = path

    def read(self) -> list[Line]:
        return [
            parsed for text in self._path.read_text().splitlines() if (parsed := parse_line(text))
        ]

    def receive(self, pages: int) -> None:
        for _ in range(pages):
            if self.syncs.begin():
                self.syncs.announce_received(SITE)
            self.syncs.page_received(PAGE_BYTES)


@pytest.fixture
def lines(tmp_path: Path) -> Iterator[Lines]:
    made = Lines(tmp_path / "journal")
    yield made
    made.journal.close()


def test_a_sync_that_is_received_is_told_from_its_first_page_on(lines: Lines) -> None:
    lines.syncs.list_received(100.0, LIST)
    assert lines.read() == []
    lines.receive(12)
    lines.syncs.received_all(103.5)
    started, finished = lines.read()
    assert (started.event, started.facts["pages"]) == ("sync_receive_started", "12")
    assert (finished.event, finished.facts["pages"]) == ("sync_receive_finished", "12")
    assert finished.facts["seconds"] == "3.500"


def test_a_list_that_comes_twice_begins_no_second_sync(lines: Lines) -> None:
    lines.syncs.list_received(100.0, LIST)
    lines.receive(4)
    lines.syncs.list_received(100.1, LIST)
    lines.receive(8)
    lines.syncs.received_all(101.0)
    assert [(line.event, line.facts["pages"]) for line in lines.read()] == [
        ("sync_receive_started", "12"),
        ("sync_receive_finished", "12"),
    ]


def test_the_same_list_later_is_another_sync(lines: Lines) -> None:
    for _ in range(2):
        lines.syncs.list_received(100.0, LIST)
        lines.receive(12)
        lines.syncs.received_all(101.0)
    assert [line.event for line in lines.read()] == [
        "sync_receive_started",
        "sync_receive_finished",
    ] * 2


def test_another_list_begins_anew(lines: Lines) -> None:
    lines.syncs.list_received(100.0, LIST)
    lines.receive(4)
    lines.syncs.list_received(100.1, file_list(keys=20))
    lines.receive(20)
    lines.syncs.received_all(101.0)
    assert [(line.event, line.facts["pages"]) for line in lines.read()] == [
        ("sync_receive_started", "12"),
        ("sync_receive_started", "20"),
        ("sync_receive_finished", "20"),
    ]


def test_what_is_sent_is_counted_over_a_repeated_list(lines: Lines) -> None:
    lines.syncs.list_sent(100.0, LIST, [lines.eid])
    for _ in range(5):
        lines.syncs.page_sent(lines.eid, PAGE_BYTES)
    lines.syncs.list_sent(100.1, LIST, [lines.eid])
    for _ in range(7):
        lines.syncs.page_sent(lines.eid, PAGE_BYTES)
    lines.syncs.tick(100.0 + PROGRESS_EVERY_S, lines.sites, syncing=False)
    assert [(line.event, line.facts["pages"]) for line in lines.read()] == [
        ("sync_send_started", "12"),
        ("sync_send_finished", "12"),
    ]


def test_pages_that_come_in_bulk_are_counted_each(lines: Lines) -> None:
    lines.syncs.list_received(100.0, LIST)
    assert lines.syncs.begin()
    lines.syncs.announce_received(SITE)
    for _ in range(3):
        lines.syncs.page_received(4 * PAGE_BYTES, 4)
    lines.syncs.received_all(101.0)
    assert lines.read()[-1].facts["pages"] == "12"


def test_a_peer_that_sends_the_masters_pages_says_so(lines: Lines) -> None:
    for now_s in (100.0, 200.0):
        lines.syncs.list_received(now_s, LIST)
        for _ in range(12):
            lines.syncs.page_sent(lines.eid, PAGE_BYTES)
        lines.syncs.tick(now_s + PROGRESS_EVERY_S, lines.sites, syncing=False)
    assert [(line.event, line.facts["pages"]) for line in lines.read()] == [
        ("sync_send_started", "12"),
        ("sync_send_finished", "12"),
    ] * 2
