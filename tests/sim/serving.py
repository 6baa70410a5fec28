"""What a simulated library answers other sites: who is master, log records, pages.

Source: the library's handling of ALL_REQ, LOG_REQ, VERIFY_REQ, UPDATE_REQ and PAGE_REQ.
"""

from __future__ import annotations

from replication.messages import RepType
from replication.wire import LSN, LSN_ZERO
from tests.sim.log import FILE_HEADER_BYTES, LOG_EMPTY, Record, RecordType
from tests.sim.protocol import (
    LOG_END,
    LOG_VERSION,
    RESEND,
    Control,
    decode_lsn,
    encode_egen,
    encode_pages,
    encode_update,
)
from tests.sim.region import Region

_VERSION = encode_egen(LOG_VERSION)  # one number, as there


class Serving:
    """See the module's text.

    Args:
        region: shared with the other parts.
    """

    def __init__(self, region: Region) -> None:
        self._region = region

    def all_request(self, eid: int, lsn: LSN) -> None:
        """Send the log from here on."""
        region, log = self._region, self._region.log
        first = log.first
        if first is None:
            return
        if lsn in (LSN_ZERO, LOG_EMPTY):
            if first.lsn.file != 1:
                region.send(RepType.VERIFY_FAIL, eid, first.lsn)
                return
            lsn = first.lsn
        index = log.index(lsn)
        if index is None:
            index = self._after_file(eid, lsn)
        if index is not None:
            self._send_from(eid, log.since(index), lsn.file, marks_end=True)

    def log_request(self, eid: int, lsn: LSN, body: bytes) -> None:
        """Send one record, or the log up to where the body says."""
        region, log = self._region, self._region.log
        index = log.index(lsn)
        if index is None:
            first = log.first
            if first is not None and first.lsn > lsn:
                region.send(RepType.VERIFY_FAIL, eid, lsn)
                return
            index = self._after_file(eid, lsn)
            if index is None:
                return
        records = log.since(index)
        if not body:
            records = records[:1]
        else:
            until = decode_lsn(body)
            records = [r for at, r in enumerate(records) if at == 0 or r.lsn < until]
        self._send_from(eid, records, lsn.file, marks_end=False)

    def _after_file(self, eid: int, lsn: LSN) -> int | None:
        """A client at the end of a file: tell it so; returns where the next one begins."""
        region, log = self._region, self._region.log
        if log.end.file <= lsn.file:
            return None
        end = log.file_end(lsn.file)
        if end is None:
            region.send(RepType.VERIFY_FAIL, eid, lsn)
            return None
        region.send(RepType.NEWFILE, eid, end, _VERSION, RESEND)
        return log.index(LSN(lsn.file + 1, FILE_HEADER_BYTES))

    def _send_from(self, eid: int, records: list[Record], file: int, *, marks_end: bool) -> None:
        region, log = self._region, self._region.log
        last = log.last
        end: LSN | None = None
        authoritative = region.is_master or region.startup_complete
        for record in records:
            if record.lsn.file != file and end is not None:
                region.send(RepType.NEWFILE, eid, end, _VERSION, RESEND)
            file, end = record.lsn.file, record.end
            flags = RESEND
            if marks_end and authoritative and last is not None and record.lsn >= last.lsn:
                flags |= LOG_END
            region.send(RepType.LOG, eid, record.lsn, record.data, flags)

    def verify_request(self, eid: int, lsn: LSN) -> None:
        """Send the record at this place, for comparison."""
        region, log = self._region, self._region.log
        record = log.get(lsn)
        if record is not None:
            region.send(RepType.VERIFY, eid, lsn, record.data)
            return
        first = log.first
        outdated = first is not None and lsn.file < first.lsn.file
        region.send(RepType.VERIFY_FAIL if outdated else RepType.VERIFY, eid, lsn)

    def update_request(self) -> None:
        """Send the list of files to everybody."""
        region, log = self._region, self._region.log
        stable = log.last_of(frozenset({RecordType.CHECKPOINT})) or log.first
        first = stable.lsn if stable is not None else LOG_EMPTY
        region.send(RepType.UPDATE, lsn=log.end, record=encode_update(first))

    def page_request(self, eid: int) -> None:
        """Send all pages."""
        region, log = self._region, self._region.log
        pages = log.databases.copy()
        pages.as_of = max(pages.as_of, log.end)
        region.send(RepType.PAGE, eid, log.end, encode_pages(pages))

    def new_client(self, eid: int, control: Control, body: bytes) -> None:
        """A client came: tell the others, and tell it what this site knows."""
        region = self._region
        region.send(RepType.NEWSITE, lsn=control.lsn, record=body)
        if region.is_client:
            region.send(RepType.ALIVE, lsn=control.lsn, record=encode_egen(region.egen))
        else:
            self.master_request(eid, control)

    def master_request(self, eid: int, control: Control) -> None:
        """A site asks who is master."""
        region = self._region
        if region.is_master:
            region.announce()
        elif control.generation < region.generation:
            region.send(RepType.ALIVE, eid, control.lsn, encode_egen(region.egen))
