"""Between the library's send callback and the links: routes, back-pressure, bounds."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from berkeleydb import db

from replication.bridge import UNSENT_BYTES_MAX, Bridge
from replication.link import SEND_BYTES_MAX, Link
from replication.messages import RepType
from replication.wire import LSN, FrameDecoder, Limits
from tests.support.links import Recorded, connection, control, read_to_end, until

SMALL = 8 * 1024
MARK = 200_000
STALL_S = 0.15
EVERYBODY = -1
ENV: Any = None  # the callback never looks at it


class Told:
    """A bridge and what it told."""

    def __init__(self, *, stall_s: float = STALL_S) -> None:
        self.permanent: list[tuple[int, int]] = []
        self.stalled: list[Link] = []
        self.syncs: list[tuple[int, int]] = []
        self.votes: list[int] = []
        self.bridge = Bridge(
            queue_bytes_max=MARK,
            asked_bytes_max=MARK,
            link_stall_s=stall_s,
            on_permanent=self.permanent.append,
            on_stalled=lambda link, _over_s: self.stalled.append(link),
            on_sync_message=lambda eid, kind, _record: self.syncs.append((eid, kind)),
            on_vote=self.votes.append,
        )

    def send(
        self,
        kind: RepType,
        record: bytes = b"",
        *,
        eid: int = EVERYBODY,
        lsn: tuple[int, int] = (0, 0),
        flags: int = 0,
    ) -> None:
        flags |= db.DB_REP_PERMANENT if lsn != (0, 0) else 0
        self.bridge.send(ENV, control(kind), record, lsn, eid, flags)


def records(data: bytes) -> list[bytes]:
    """The records of all frames in `data`."""
    frames, error = FrameDecoder(Limits()).feed(data), None
    assert error is None
    return [f.rec for f in frames]


class TestRoutes:
    async def test_a_broadcast_goes_to_all_and_a_message_to_one(self) -> None:
        told = Told()
        with connection() as (ours, theirs), connection() as (ours2, theirs2):
            one, two = Recorded(ours), Recorded(ours2)
            told.bridge.set_link(2, one.link)
            told.bridge.set_link(3, two.link)
            told.send(RepType.NEWMASTER, b"all")
            told.send(RepType.VERIFY, b"two only", eid=3)
            told.send(RepType.VERIFY, b"nobody", eid=9)
            one.link.close_after_sending("over")
            two.link.close_after_sending("over")
            assert records(await read_to_end(theirs)) == [b"all"]
            assert records(await read_to_end(theirs2)) == [b"all", b"two only"]
        assert told.bridge.messages_sent == 3
        assert told.bridge.messages_dropped == 1

    async def test_a_witness_hears_of_elections_and_gets_no_log(self) -> None:
        told = Told()
        with connection() as (ours, theirs), connection() as (ours2, theirs2):
            site, witness = Recorded(ours), Recorded(ours2)
            told.bridge.set_link(2, site.link)
            told.bridge.set_link(3, witness.link, witness=True)
            told.send(RepType.LOG, b"put")
            told.send(RepType.LOG, b"commit", lsn=(1, 300))
            for kind in (RepType.BULK_LOG, RepType.NEWFILE, RepType.START_SYNC):
                told.send(kind, b"log")
            told.send(RepType.VOTE1, b"vote")
            told.send(RepType.ALIVE, b"its own", eid=3)
            told.bridge.set_link(2, None)
            told.send(RepType.NEWMASTER, b"only the witness is left")
            told.bridge.set_link(3, witness.link)
            told.send(RepType.LOG, b"no witness any more", lsn=(1, 400))
            for end in (site, witness):
                end.link.close_after_sending("over")
            assert records(await read_to_end(theirs)) == [b"put", b"commit", *[b"log"] * 3, b"vote"]
            assert records(await read_to_end(theirs2)) == [
                b"vote",
                b"its own",
                b"only the witness is left",
                b"no witness any more",
            ]

    async def test_a_transactions_records_go_out_with_its_commit(self) -> None:
        told = Told()
        with connection() as (ours, theirs):
            end = Recorded(ours)
            told.bridge.set_link(2, end.link)
            told.send(RepType.LOG, b"put")
            assert end.link.queued_bytes
            told.send(RepType.LOG, b"commit", lsn=(1, 300))
            assert end.link.queued_bytes == 0
            assert told.permanent == [(1, 300)]
            assert told.bridge.last_permanent == LSN(1, 300)
            end.link.close_after_sending("over")
            assert records(await read_to_end(theirs)) == [b"put", b"commit"]

    async def test_a_request_that_any_site_may_answer_goes_to_the_peer_once(self) -> None:
        told = Told()
        with connection() as (ours, theirs), connection() as (ours2, theirs2):
            master, peer = Recorded(ours), Recorded(ours2)
            told.bridge.set_link(2, master.link)
            told.bridge.set_link(3, peer.link)
            told.send(RepType.PAGE_REQ, b"no peer", eid=2, flags=db.DB_REP_ANYWHERE)
            told.bridge.set_peer(3, peer.link)
            told.send(RepType.PAGE_REQ, b"any", eid=2, flags=db.DB_REP_ANYWHERE)
            told.send(RepType.UPDATE_REQ, b"the master's alone", eid=2)
            again = db.DB_REP_ANYWHERE | db.DB_REP_REREQUEST
            told.send(RepType.LOG_REQ, b"again", eid=2, flags=again)
            told.send(RepType.PAGE_REQ, b"its master", eid=9, flags=db.DB_REP_ANYWHERE)
            told.send(RepType.NEWCLIENT, b"all", flags=db.DB_REP_ANYWHERE)
            told.bridge.set_peer(0, None)
            told.send(RepType.VERIFY_REQ, b"it is gone", eid=2, flags=db.DB_REP_ANYWHERE)
            master.link.close_after_sending("over")
            peer.link.close_after_sending("over")
            assert records(await read_to_end(theirs)) == [
                b"no peer",
                b"the master's alone",
                b"again",
                b"all",
                b"it is gone",
            ]
            assert records(await read_to_end(theirs2)) == [b"any", b"its master", b"all"]
        assert told.bridge.peer_requests == 2
        asked = [eid for eid, kind in told.syncs if kind == RepType.PAGE_REQ]
        assert asked == [2, 3, 3], "the journal names who was asked"

    async def test_a_long_transaction_goes_out_in_steps(self) -> None:
        told = Told()
        with connection() as (ours, theirs):
            end = Recorded(ours)
            told.bridge.set_link(2, end.link)
            reading = asyncio.create_task(read_to_end(theirs))
            for _ in range(100):
                told.send(RepType.LOG, bytes(1000))
                assert end.link.queued_bytes <= UNSENT_BYTES_MAX
            told.bridge.flush()
            end.link.close_after_sending("over")
            assert len(records(await reading)) == 100

    async def test_what_a_sync_needs_is_told(self) -> None:
        told = Told()
        with connection() as (ours, _theirs):
            told.bridge.set_link(2, Recorded(ours).link)
            told.send(RepType.UPDATE, b"files")
            told.send(RepType.PAGE, bytes(4096), eid=2)
            told.send(RepType.LOG, b"log", eid=2)
        assert told.syncs == [(EVERYBODY, RepType.UPDATE), (2, RepType.PAGE)]

    def test_a_vote_is_told_with_its_generation(self) -> None:
        told = Told()
        told.send(RepType.VOTE1, bytes.fromhex("00000007 00000003 00000002"))
        assert told.votes == [7]

    async def test_no_frame_is_lost_while_routes_change(self) -> None:
        told = Told()
        with connection() as (ours, theirs), connection() as (ours2, _theirs2):
            steady, other = Recorded(ours), Recorded(ours2)
            told.bridge.set_link(2, steady.link)
            done = threading.Event()

            def commit() -> None:
                for number in range(3000):
                    told.send(RepType.LOG, b"%d" % number, lsn=(1, number + 1))
                done.set()

            reading = asyncio.create_task(read_to_end(theirs))
            thread = threading.Thread(target=commit, daemon=True)
            thread.start()
            while not done.is_set():
                told.bridge.set_link(3, other.link)
                # Not 0: a loop that never rests can keep the interpreter from the thread, which
                # gives it up at each of its sends, for 5 ms a time.
                await asyncio.sleep(0.001)
                told.bridge.set_link(3, None)
            thread.join(10)
            steady.link.close_after_sending("over")
            assert records(await reading) == [b"%d" % number for number in range(3000)]


class TestBackPressure:
    def fill(self, told: Told, eid: int = EVERYBODY) -> None:
        """Send more than the mark and the kernel's buffers take."""
        for _ in range(80):
            told.send(RepType.LOG, bytes(10_000), eid=eid)
        told.bridge.flush()

    async def test_nobody_waits_for_a_link_with_room(self) -> None:
        told = Told()
        with connection() as (ours, _theirs):
            told.bridge.set_link(2, Recorded(ours).link)
            told.bridge.wait_for_room()
        assert told.bridge.waits == 0

    async def test_a_committer_waits_until_the_reader_took_it(self) -> None:
        told = Told(stall_s=20.0)
        with connection(SMALL) as (ours, theirs):
            end = Recorded(ours)
            told.bridge.set_link(2, end.link)
            self.fill(told)
            assert end.link.live_bytes > MARK
            waiting = asyncio.create_task(asyncio.to_thread(told.bridge.wait_for_room))
            await until("it waits", lambda: end.link.over_since_s is not None)
            reading = asyncio.create_task(read_to_end(theirs))
            await asyncio.wait_for(waiting, 20)
            assert end.link.live_bytes <= MARK
            assert told.bridge.waits == 1
            assert not told.stalled
            end.link.close_after_sending("over")
            assert len(records(await reading)) == 80

    async def test_a_site_that_takes_nothing_is_given_up(self) -> None:
        told = Told()
        with connection(SMALL) as (ours, _theirs), connection() as (ours2, theirs2):
            stuck, other = Recorded(ours), Recorded(ours2)
            told.bridge.set_link(2, stuck.link)
            told.bridge.set_link(3, other.link)
            reading = asyncio.create_task(read_to_end(theirs2))
            self.fill(told)
            began_s = time.monotonic()
            await asyncio.to_thread(told.bridge.wait_for_room)
            assert STALL_S <= time.monotonic() - began_s < 20 * STALL_S
            assert told.stalled == [stuck.link]
            assert told.bridge.stalls == 1
            before = stuck.link.queued_bytes
            told.send(RepType.LOG, b"after", lsn=(1, 300))
            assert stuck.link.queued_bytes <= before, "it gets nothing more"
            other.link.close_after_sending("over")
            assert records(await reading)[-1] == b"after"

    async def test_a_closed_link_ends_the_wait(self) -> None:
        told = Told(stall_s=20.0)
        with connection(SMALL) as (ours, _theirs):
            end = Recorded(ours)
            told.bridge.set_link(2, end.link)
            self.fill(told)
            waiting = asyncio.create_task(asyncio.to_thread(told.bridge.wait_for_room))
            await until("it waits", lambda: end.link.over_since_s is not None)
            end.link.close("gone")
            await asyncio.wait_for(waiting, 10)
            assert not told.stalled

    async def test_a_committer_that_asks_before_each_transaction_bounds_the_queue(self) -> None:
        told = Told(stall_s=0.05)
        with connection(SMALL) as (ours, _theirs):
            end = Recorded(ours)
            told.bridge.set_link(2, end.link)
            highest = 0

            def commit() -> None:
                nonlocal highest
                for number in range(200):
                    told.bridge.wait_for_room()
                    told.send(RepType.LOG, bytes(10_000), lsn=(1, number + 1))
                    highest = max(highest, end.link.queued_bytes)

            await asyncio.to_thread(commit)
        assert len(told.permanent) == 200, "no commit was refused"
        assert highest <= MARK + SEND_BYTES_MAX + 2 * 10_100, "the mark, a send call, a write"

    async def test_a_site_whose_wishes_fill_its_queue_waits_with_the_next(self) -> None:
        told = Told()
        with connection(SMALL) as (ours, theirs):
            end = Recorded(ours)
            told.bridge.set_link(2, end.link)
            assert not told.bridge.is_choked(2)
            self.fill(told, eid=2)
            assert told.bridge.is_choked(2)
            assert end.link.live_bytes == 0
            told.bridge.wait_for_room()
            assert told.bridge.waits == 0, "no commit waits for a site that syncs"
            reading = asyncio.create_task(read_to_end(theirs))
            await until("there is room", lambda: not told.bridge.is_choked(2))
            end.link.close("over")
            await reading

    @pytest.mark.parametrize("eid", [2, 9])
    def test_a_site_without_a_link_is_not_choked(self, eid: int) -> None:
        assert not Told().bridge.is_choked(eid)


async def test_a_heartbeat_goes_to_everybody_and_counts_as_a_broadcast() -> None:
    told = Told()
    with connection() as (ours, theirs):
        end = Recorded(ours)
        told.bridge.set_link(2, end.link)
        assert told.bridge.last_broadcast_s == 0.0
        told.bridge.broadcast(b"beat")
        assert await asyncio.get_running_loop().sock_recv(theirs, 10) == b"beat"
        assert told.bridge.last_broadcast_s > 0.0
