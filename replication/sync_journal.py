"""The journal's lines about initial syncs, sent and received."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from replication.bodies import SiteAddress
from replication.journal import Journal
from replication.progress import SyncProgress, parse_list
from replication.sites import Sites

PROGRESS_EVERY_S = 1.0


class SyncJournal:
    """Counts the pages that pass by; `tick` writes what there is to say.

    Pages are counted by library threads, everything else is called in the event loop.
    """

    def __init__(self, journal: Journal) -> None:
        self.received: SyncProgress | None = None
        self._offered: SyncProgress | None = None
        self._heard: SyncProgress | None = None  # the last list, whoever takes its pages from here
        self._sent: dict[int, SyncProgress] = {}
        self._journal = journal
        self._written_s = 0.0

    # -- counted on library threads ------------------------------------------------------------

    def list_received(self, now_s: float, record: bytes) -> None:
        """A file list came; it goes to every site, whoever asked. *Thread:* apply."""
        self._offered = SyncProgress(now_s, tuple(parse_list(record)))
        self._heard = replace(self._offered)

    def begin(self) -> bool:
        """This site asks for a page; True when that is the first of a sync. *Thread:* any."""
        offered, self._offered = self._offered, None
        if offered is None or _goes_on(self.received, offered):
            return False
        self.received = offered
        return True

    def page_received(self, record_bytes: int, pages: int = 1) -> None:
        """Pages came in one message. *Thread:* apply."""
        if self.received is not None:
            self.received.page(record_bytes, pages)

    def page_sent(self, eid: int, record_bytes: int, pages: int = 1) -> None:
        """Pages were sent in one message. *Thread:* any."""
        progress = self._sent.get(eid)
        if (progress is None or progress.finished) and self._heard is not None:
            # A replicant's peer takes its pages here; the list was the master's.
            progress = self._sent[eid] = self._heard
            self._heard = None
        if progress is not None:
            progress.page(record_bytes, pages)

    # -- in the loop ---------------------------------------------------------------------------

    def sent_bytes(self, eid: int) -> int:
        """Bytes of pages sent in the last sync of a site."""
        sent = self._sent.get(eid)
        return 0 if sent is None else sent.bytes_done

    def announce_received(self, master: SiteAddress | None) -> None:
        """Pages follow."""
        received = self.received
        assert received is not None, "a sync has begun"
        self._journal.write(
            "sync_receive_started",
            master=master,
            files=len(received.files),
            pages=received.pages_total,
            bytes=received.bytes_total,
        )

    def list_sent(self, now_s: float, record: bytes, eids: Iterable[int]) -> None:
        """The file list was broadcast; who takes pages after it is the one that syncs."""
        offered = tuple(parse_list(record))
        for eid in eids:
            progress = SyncProgress(now_s, offered)
            if not _goes_on(self._sent.get(eid), progress):
                self._sent[eid] = progress

    def received_all(self, now_s: float) -> None:
        """The sync received here is over."""
        received = self.received
        if received is None or received.finished:
            return
        received.finished = True
        self._journal.write(
            "sync_receive_finished",
            files=len(received.files),
            pages=received.pages_done,
            bytes=received.bytes_done,
            seconds=now_s - received.started_s,
        )

    def tick(self, now_s: float, sites: Sites, *, syncing: bool) -> None:
        """Write progress lines, at most once in `PROGRESS_EVERY_S`."""
        if now_s - self._written_s < PROGRESS_EVERY_S:
            return
        self._written_s = now_s
        received = self.received
        if received is not None and not received.finished and syncing:
            self._journal.write(
                "sync_receive_progress",
                pages=received.pages_done,
                pages_total=received.pages_total,
                bytes=received.bytes_done,
                percent=_percent(received),
                eta_s=received.eta_s(now_s),
            )
        for eid, sent in list(self._sent.items()):
            state = sites.by_eid(eid)
            if state is not None and sent.pages_done and not sent.finished:
                self._write_sent(now_s, state.address, sent)

    def _write_sent(self, now_s: float, site: SiteAddress, sent: SyncProgress) -> None:
        if not sent.announced:
            sent.announced = True
            self._journal.write(
                "sync_send_started",
                site=site,
                files=len(sent.files),
                pages=sent.pages_total,
                bytes=sent.bytes_total,
            )
        # A file that grows or shrinks meanwhile makes the total a guess: a quiet second ends it.
        quiet = sent.pages_done == sent.pages_before
        sent.pages_before = sent.pages_done
        if sent.pages_done < sent.pages_total and not quiet:
            self._journal.write(
                "sync_send_progress",
                site=site,
                pages=sent.pages_done,
                pages_total=sent.pages_total,
                bytes=sent.bytes_done,
                percent=_percent(sent),
            )
            return
        sent.finished = True
        self._journal.write(
            "sync_send_finished",
            site=site,
            files=len(sent.files),
            pages=sent.pages_done,
            bytes=sent.bytes_done,
            seconds=now_s - sent.started_s,
        )


def _goes_on(before: SyncProgress | None, offered: SyncProgress) -> bool:
    """Tell whether this list is the one of a sync under way: the library may ask for it twice."""
    return before is not None and not before.finished and before.files == offered.files


def _percent(progress: SyncProgress) -> int:
    total = progress.pages_total
    return min(100, 100 * progress.pages_done // total) if total else 0
