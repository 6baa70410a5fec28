"""Between the library's send callback and the links.

The library's law: the callback runs on whichever thread commits (or processes a message), holds
parts of the library, and must not call the library. So it encodes, queues, sends what the sockets
take without waiting, and returns. It never reports failure: a failed send would only make the
library flush, and every commit is flushed as the operator asked anyway.

Back-pressure instead of drops. Live log goes to every link's queue whatever its length; the
committer asks `wait_for_room` before it begins a transaction and waits while a link is over the
high mark, for `link_stall_s` at most; then that link is closed and its site catches up from the
log later. What one site asked for (log, pages) is bounded by `rep_set_limit` per request, and its
further requests wait while its queue is over the mark (`is_choked`).

What this site asks for goes to its peer, if it has one: the library marks requests that any site
may answer, as long as it has not asked in vain (`set_peer`).
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable
from typing import Final

from berkeleydb import db

from replication.link import Link
from replication.messages import RepType
from replication.wire import LSN, lsn_from_library

_HEADER: Final = struct.Struct(">BII")
_REP_MESSAGE: Final = 3
_PERMANENT: Final = db.DB_REP_PERMANENT
_ANYWHERE: Final = db.DB_REP_ANYWHERE
_ASKED_AGAIN: Final = db.DB_REP_REREQUEST
_LOG: Final = int(RepType.LOG)
# What a site without data has no use for, of what goes to every site.
LOG_KINDS: Final = frozenset(
    {RepType.LOG, RepType.BULK_LOG, RepType.NEWFILE, RepType.START_SYNC, RepType.LOG_MORE}
)
_VOTE1: Final = int(RepType.VOTE1)
_TOLD: Final = frozenset({RepType.UPDATE, RepType.VOTE1})
_SYNC: Final = frozenset({RepType.PAGE, RepType.BULK_PAGE, RepType.PAGE_REQ})
_ASKED: Final = frozenset(
    {RepType.LOG, RepType.PAGE, RepType.BULK_LOG, RepType.BULK_PAGE, RepType.LOG_MORE}
)
UNSENT_BYTES_MAX: Final = 32 * 1024  # records of a long transaction go out in steps of this
ROOM_POLL_S: Final = 0.005


class Bridge:
    """Routes what the library sends.

    Args:
        queue_bytes_max: high mark of a link's queue of live log, bytes.
        asked_bytes_max: high mark of its queue of what the site asked for, bytes.
        link_stall_s: how long a link may stay over it before it is closed.
        on_permanent: told the LSN of each permanent record on the thread that sends it.
        on_stalled: told a link that was over for too long (any thread).
        on_sync_message: told (eid, record type, bytes, record) of pages and file lists sent.
        on_vote: told the generation of an election that this site votes in.
    """

    def __init__(
        self,
        *,
        queue_bytes_max: int,
        asked_bytes_max: int,
        link_stall_s: float,
        on_permanent: Callable[[tuple[int, int]], None],
        on_stalled: Callable[[Link, float], None],
        on_sync_message: Callable[[int, int, bytes], None],
        on_vote: Callable[[int], None],
    ) -> None:
        self._mark = queue_bytes_max
        self._asked_mark = asked_bytes_max
        self._stall_s = link_stall_s
        self._on_permanent = on_permanent
        self._on_stalled = on_stalled
        self._on_sync_message = on_sync_message
        self._on_vote = on_vote
        self._lock = threading.Lock()
        # Replaced as a whole, never changed: the callback reads them without a lock.
        self._by_eid: dict[int, Link] = {}
        self._links: tuple[Link, ...] = ()  # of those who take the log
        self._all: tuple[Link, ...] = ()  # with the witnesses, who only hear of elections
        self._witnesses: frozenset[int] = frozenset()
        self._peer: tuple[int, Link] | None = None
        self._unsent = 0
        self.last_broadcast_s = 0.0
        self.last_permanent: LSN = LSN(0, 0)
        self.messages_sent = 0
        self.messages_dropped = 0
        self.peer_requests = 0
        self.bytes_sent = 0
        self.stalls = 0
        self.waits = 0

    def set_link(self, eid: int, link: Link | None, *, witness: bool = False) -> None:
        """Send a site's messages on this link from now on; None: it has none.

        Args:
            witness: it takes no log.
        """
        with self._lock:
            by_eid = dict(self._by_eid)
            if link is None:
                by_eid.pop(eid, None)
            else:
                by_eid[eid] = link
            self._witnesses = self._witnesses - {eid} | ({eid} if witness else set())
            self._set(by_eid)

    def _set(self, by_eid: dict[int, Link]) -> None:
        self._by_eid = by_eid
        self._all = tuple(by_eid.values())
        self._links = tuple(other for eid, other in by_eid.items() if eid not in self._witnesses)

    def links(self) -> tuple[Link, ...]:
        """The links that carry the log. *Thread:* any."""
        return self._links

    def set_peer(self, eid: int, link: Link | None) -> None:
        """Ask this site for what any site may answer, from now on; None: the master.

        Source: DB_ENV->repmgr_site, DB_REPMGR_PEER: "client-to-client synchronization".
        """
        self._peer = None if link is None else (eid, link)

    def send(
        self,
        _env: db.DBEnv,
        control: bytes,
        record: bytes,
        lsn: tuple[int, int],
        eid: int,
        flags: int,
    ) -> None:
        """The library's send callback. *Thread:* any; the library is on the stack."""
        kind = control[19]
        frame = _HEADER.pack(_REP_MESSAGE, len(control), len(record)) + control + record
        if eid < 0:
            links = self._links if kind in LOG_KINDS else self._all
            for link in links:
                link.put(frame)
            self.messages_sent += len(links)
            self.bytes_sent += len(frame) * len(links)
            if flags & _PERMANENT:
                self.last_permanent = permanent = lsn_from_library(lsn)
                self._on_permanent(permanent)
            elif kind == _LOG:
                # Goes out with its transaction's commit record, in one send call.
                self._unsent += len(frame)
                if self._unsent < UNSENT_BYTES_MAX:
                    return
            elif kind in _TOLD:
                self._tell(eid, kind, record)
            self._unsent = 0
            self.last_broadcast_s = time.monotonic()
            for link in links:
                link.flush()
            return
        eid, direct = self._addressee(eid, flags)
        if direct is None:
            # No link: the site asks again when it is back.
            self.messages_dropped += 1
            return
        self.messages_sent += 1
        self.bytes_sent += len(frame)
        if kind in _SYNC:
            self._on_sync_message(eid, kind, record)
        if kind not in _ASKED:
            direct.write(frame)
            return
        direct.put(frame, asked=True)
        if direct.asked_bytes > UNSENT_BYTES_MAX:
            direct.flush()

    def _tell(self, eid: int, kind: int, record: bytes) -> None:
        if kind == _VOTE1:
            self._on_vote(int.from_bytes(record[:4]))
        else:
            self._on_sync_message(eid, kind, record)

    def _addressee(self, eid: int, flags: int) -> tuple[int, Link | None]:
        peer = self._peer
        # Asked again means that the peer had no answer, or that it was lost.
        if peer is not None and flags & (_ANYWHERE | _ASKED_AGAIN) == _ANYWHERE:
            self.peer_requests += 1
            return peer
        return eid, self._by_eid.get(eid)

    def flush(self) -> None:
        """Send what waits on all links. *Thread:* any."""
        self._unsent = 0
        for link in self._all:
            link.flush()

    def is_choked(self, eid: int) -> bool:
        """Whether what a site asked for still fills its queue, so its next request must wait."""
        link = self._by_eid.get(eid)
        return link is not None and link.asked_bytes > self._asked_mark

    def wait_for_room(self) -> None:
        """Wait until every link is under its high mark; called before a transaction begins.

        *Thread:* the committer. At most `link_stall_s` for each link, then that link is given up.
        """
        waited = False
        for link in self._links:
            while not link.is_closed:
                over_s = link.over_for_s(self._mark)
                if over_s is None:
                    break
                if over_s >= self._stall_s:
                    self._give_up(link, over_s)
                    break
                waited = True
                time.sleep(ROOM_POLL_S)
        if waited:
            self.waits += 1

    def _give_up(self, link: Link, over_s: float) -> None:
        self.stalls += 1
        with self._lock:
            self._set({eid: other for eid, other in self._by_eid.items() if other is not link})
        self._on_stalled(link, over_s)

    def broadcast(self, frame: bytes) -> None:
        """Send a frame of ours (a heartbeat) to every site. *Thread:* any."""
        self.last_broadcast_s = time.monotonic()
        for link in self._all:
            link.write(frame)
