"""Acknowledgements read by the thread that waits: none lost, and anything else reaches the loop."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from replication.ack_reader import AckReader
from replication.link import Link
from replication.link_states import Role
from replication.peer import LocalSite, Peer
from replication.peer_events import Ack, Heartbeat
from replication.wire import ACK_FRAME_BYTES, LSN, encode_ack, encode_heartbeat
from tests.support.links import SITE, connection, until

OTHER = LocalSite("192.0.2.11", 5010, 1, 5)
BEAT = encode_heartbeat(1, LSN(1, 28))
EID = 2


def acceptor() -> Peer:
    """One end of a link that finished its handshake."""
    ours, theirs = Peer(Role.ACCEPTOR, SITE), Peer(Role.DIALLER, OTHER)
    theirs.start()
    ours.receive_data(theirs.data_to_send())
    theirs.receive_data(ours.data_to_send())
    ours.receive_data(theirs.data_to_send())
    ours.accept()
    assert ours.ready
    return ours


class Master:
    """A link that brings acknowledgements, a loop that knows its frames, and who waits."""

    def __init__(self, sock: socket.socket) -> None:
        self.acked = LSN(0, 0)
        self.by_thread = 0
        self.beats = 0
        self.closed: list[str] = []
        self.link = Link(
            asyncio.get_running_loop(), sock, acceptor(), 1, self._on_data, self._on_closed
        )
        self.link.eid = EID
        self.link.released = True
        self.reader = AckReader(lambda: [self.link], self._ack_read)

    def _on_data(self, link: Link, data: bytes) -> None:
        if not data:
            return
        for event in link.peer.receive_data(data):
            if isinstance(event, Ack):
                self._reached(event.lsn)
            elif isinstance(event, Heartbeat):
                self.beats += 1

    def _on_closed(self, _link: Link, reason: str) -> None:
        self.closed.append(reason)
        self.reader.ring()

    def _ack_read(self, eid: int, generation: int, lsn: LSN) -> None:
        assert (eid, generation) == (EID, 1)
        self.by_thread += 1
        self._reached(lsn)

    def _reached(self, lsn: LSN) -> None:
        self.acked = max(self.acked, lsn)
        self.reader.ring()

    def has(self, offset: int) -> bool:
        return self.acked >= LSN(1, offset)

    def has_or_closed(self, offset: int) -> bool:
        return self.has(offset) or bool(self.closed)


@contextmanager
def master() -> Iterator[tuple[Master, socket.socket]]:
    with connection() as (ours, theirs):
        end = Master(ours)
        try:
            end.link.start_reading()
            yield end, theirs
        finally:
            end.link.close("the test is over")


async def reads_until(end: Master, offset: int) -> asyncio.Task[None]:
    """Have a thread read until this is acknowledged; it has borrowed the link."""
    task = asyncio.create_task(
        asyncio.to_thread(end.reader.read_until, partial(end.has_or_closed, offset))
    )
    await until("it is borrowed", end.link.is_lent)
    return task


async def test_who_waits_reads_the_acknowledgement_and_gives_the_link_back() -> None:
    with master() as (end, theirs):
        for offset in range(1, 101):
            reading = await reads_until(end, offset)
            theirs.send(encode_ack(1, LSN(1, offset)))
            await reading
            assert end.by_thread == offset
            assert not end.link.is_lent()
        theirs.send(encode_ack(1, LSN(1, 200)))
        await until("the loop reads again", lambda: end.has(200))
        assert end.by_thread == 100


async def test_what_is_no_acknowledgement_goes_to_the_loop() -> None:
    with master() as (end, theirs):
        reading = await reads_until(end, 1)
        theirs.send(BEAT)
        await reading  # nothing is left to be read here
        await until("the loop heard it", lambda: end.beats == 1)
        assert not end.has(1)
        theirs.send(encode_ack(1, LSN(1, 1)))
        await until("the loop reads on", lambda: end.has(1))


async def test_half_an_acknowledgement_goes_to_the_loop_with_the_rest_behind_it() -> None:
    with master() as (end, theirs):
        frame = encode_ack(1, LSN(1, 1))
        reading = await reads_until(end, 1)
        theirs.send(frame[:5])
        await reading
        await asyncio.to_thread(end.reader.read_until, lambda: end.has(1))
        assert not end.link.is_lent(), "the loop holds a part of a frame"
        theirs.send(frame[5:])
        await until("it is put together", lambda: end.has(1))
        assert end.by_thread == 0


async def test_the_loop_reads_nothing_before_the_part_that_comes_back_to_it() -> None:
    with master() as (end, theirs):
        frame = encode_ack(1, LSN(1, 1))
        theirs.send(frame[:5])
        end.reader.read_until(lambda: False)  # goes to the loop, which has no time yet
        theirs.send(frame[5:])
        end.link._on_readable()  # it was told before the link was borrowed
        await until("it is put together", lambda: end.has(1))


async def test_one_that_is_done_elsewhere_stops_reading() -> None:
    with master() as (end, _theirs):
        reading = await reads_until(end, 1)
        end._reached(LSN(1, 1))
        await reading
        assert not end.link.is_lent()


async def test_a_link_that_ends_lets_go_of_who_reads_it() -> None:
    with master() as (end, _theirs):
        reading = await reads_until(end, 1)
        end.link.close("no more")
        await reading
        assert end.closed == ["no more"]
    with master() as (end, theirs):
        reading = await reads_until(end, 1)
        theirs.shutdown(socket.SHUT_RDWR)
        await reading
        await until("the loop learns of it", lambda: end.closed)


async def test_only_one_thread_reads_at_a_time() -> None:
    with master() as (end, theirs):
        reading = await reads_until(end, 1)
        await asyncio.to_thread(end.reader.read_until, lambda: False)  # returns at once
        theirs.send(encode_ack(1, LSN(1, 1)))
        await reading


@pytest.mark.parametrize("seed", range(5))
async def test_nothing_is_lost_while_the_link_changes_hands(seed: int) -> None:
    """The stream is cut anywhere, and threads come and go."""
    chance = random.Random(seed)
    last = 800
    stream = b"".join(
        encode_ack(1, LSN(1, offset)) + BEAT * (chance.random() < 0.1)
        for offset in range(1, last + 1)
    )
    beats = (len(stream) - last * ACK_FRAME_BYTES) // len(BEAT)
    with master() as (end, theirs):

        def wait_for_each() -> None:
            while not end.has(last) and not end.closed:
                wanted = min(end.acked.offset + 1, last)
                end.reader.read_until(partial(end.has_or_closed, wanted))

        threads = [threading.Thread(target=wait_for_each, daemon=True) for _ in range(2)]
        for thread in threads:
            thread.start()
        at = 0
        loop = asyncio.get_running_loop()
        while at < len(stream):
            step = chance.choice((1, ACK_FRAME_BYTES, 100, 3000))
            await loop.sock_sendall(theirs, stream[at : at + step])
            at += step
            await asyncio.sleep(chance.choice((0, 0, 0.001)))
        await until("all is acknowledged", lambda: end.has(last))
        await until("all else was heard", lambda: end.beats == beats)
        for thread in threads:
            await asyncio.to_thread(thread.join, 20)
            assert not thread.is_alive()
