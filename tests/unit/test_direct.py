"""Links that the apply thread reads itself: nothing lost, nothing out of order, whoever reads."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from replication.direct import DirectReader
from replication.link import Link
from replication.link_states import Role
from replication.messages import RepType
from replication.peer import Peer
from replication.wire import LSN, Frame, FrameDecoder, encode_heartbeat, encode_rep_message
from tests.support.links import SITE, connection, control, until

CONTROL = control(RepType.LOG)
BEAT = encode_heartbeat(1, LSN(1, 28))


class Reading:
    """A link, a loop that knows its frames, and a thread that takes messages in their order.

    Args:
        sock: our end.
        lends: the loop lends the link whenever it is between two frames.
    """

    def __init__(self, sock: socket.socket, *, lends: bool = True) -> None:
        self.lends = lends
        self.applied: list[bytes] = []  # by the thread, whoever read it
        self.read_directly = 0
        self.others: list[int] = []  # types of the frames that the loop saw and the thread did not
        self.closed: list[str] = []
        self.go_on = threading.Event()
        self.go_on.set()
        self._queue: deque[list[Frame] | Link | None] = deque()
        self._decoder = FrameDecoder()
        self.reader = DirectReader(lambda: bool(self._queue))
        loop = asyncio.get_running_loop()
        self.link = Link(loop, sock, Peer(Role.ACCEPTOR, SITE), 1, self._on_data, self._on_closed)
        self.link.eid = 2
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _on_data(self, link: Link, data: bytes) -> None:
        frames = self._decoder.feed(data)
        self.others += [frame.type for frame in frames if frame.type != 3]
        self._put([frame for frame in frames if frame.type == 3])
        if self.lends and not self._decoder.buffered_bytes:
            self.lend()

    def _on_closed(self, _link: Link, reason: str) -> None:
        self.closed.append(reason)

    def _put(self, item: list[Frame] | Link | None) -> None:
        self._queue.append(item)
        self.reader.ring()

    def lend(self) -> None:
        if self.link.lend(self.reader):
            self._put(self.link)

    async def has_applied(self, count: int) -> None:
        await until(f"{count} are there", lambda: len(self.applied) == count)

    def stop(self) -> None:
        self._put(None)
        self._thread.join(20)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            if self._queue:
                item = self._queue.popleft()
                if item is None:
                    self.reader.close()
                    return
                if isinstance(item, Link):
                    self.reader.add(item)
                else:
                    self.applied += [frame.rec for frame in item]
            elif self.reader.any_lent:
                read = self.reader.wait(None)
                if read is not None:
                    assert read[0] == 2
                    self.read_directly += len(read[1])
                    self.go_on.wait(20)
                    self.applied += [frame.rec for frame in read[1]]
            else:
                threading.Event().wait(0.001)


@contextmanager
def reading(*, lends: bool = True) -> Iterator[tuple[Reading, socket.socket]]:
    with connection() as (ours, theirs):
        end = Reading(ours, lends=lends)
        try:
            end.link.start_reading()
            yield end, theirs
        finally:
            end.link.close("the test is over")
            end.stop()


def message(number: int, size: int = 20) -> bytes:
    return encode_rep_message(CONTROL, b"%d" % number + b"." * size)


def numbers(end: Reading) -> list[int]:
    return [int(record.rstrip(b".")) for record in end.applied]


async def test_messages_of_a_lent_link_are_read_by_the_thread() -> None:
    with reading() as (end, theirs):
        end.lend()
        for number in range(100):
            theirs.send(message(number))
            await end.has_applied(number + 1)
        assert numbers(end) == list(range(100))
        assert end.read_directly == 100


async def test_what_is_no_message_goes_to_the_loop_and_the_link_is_lent_again() -> None:
    with reading() as (end, theirs):
        end.lend()
        for number in range(20):
            theirs.send(message(2 * number) + BEAT + message(2 * number + 1))
            await end.has_applied(2 * number + 2)
        assert numbers(end) == list(range(40))
        assert end.others == [4] * 20
        await until("it is lent again", end.link.is_lent)


async def test_the_end_of_the_stream_is_found_by_the_loop() -> None:
    with reading() as (end, theirs):
        end.lend()
        theirs.send(message(0))
        theirs.shutdown(socket.SHUT_WR)
        await until("it is closed", lambda: end.closed)
        assert numbers(end) == [0]


async def test_the_loop_takes_back_what_a_busy_thread_does_not_read() -> None:
    with reading(lends=False) as (end, theirs):
        end.lend()
        end.go_on.clear()
        theirs.send(message(0))
        await until("the thread is busy", lambda: end.read_directly)
        assert end.link.take_back()
        theirs.send(BEAT + message(1))
        await until("the loop hears the master", lambda: end.others == [4])
        assert end.applied == []
        end.go_on.set()
        await until("both are there", lambda: len(end.applied) == 2)
        assert numbers(end) == [0, 1]


async def test_a_lent_link_can_be_closed() -> None:
    with reading() as (end, theirs):
        end.lend()
        theirs.send(message(0))
        await end.has_applied(1)
        end.link.close("no more")
        assert end.closed == ["no more"]
        assert not end.link.is_lent()
        await until("the other side learns it", lambda: _at_end(theirs))


def _at_end(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False


async def test_an_orderly_end_reads_in_the_loop() -> None:
    with reading() as (end, theirs):
        end.lend()
        end.link.close_after_sending("over")
        assert not end.link.is_lent()
        await until("our end of the stream", lambda: _at_end(theirs))
        theirs.send(message(0))
        theirs.shutdown(socket.SHUT_WR)
        await until("it is closed", lambda: end.closed)
        assert end.applied == [], "nobody wants it any more"


@pytest.mark.parametrize("seed", range(5))
async def test_nothing_is_lost_or_overtaken_while_the_link_changes_hands(seed: int) -> None:
    """The stream is cut anywhere, and the loop takes the link back at any time."""
    chance = random.Random(seed)
    with reading() as (end, theirs):
        stream = b"".join(
            message(number, chance.choice((0, 20, 3000))) + BEAT * (chance.random() < 0.1)
            for number in range(600)
        )
        beats = stream.count(BEAT)
        loop = asyncio.get_running_loop()
        at = 0
        while at < len(stream):
            step = chance.choice((1, 50, 700, 20_000))
            await loop.sock_sendall(theirs, stream[at : at + step])
            at += step
            if chance.random() < 0.3:
                end.link.take_back()
                end.reader.ring()
            await asyncio.sleep(0)
        await until("all is there", lambda: len(end.applied) == 600)
        assert numbers(end) == list(range(600))
        await until("all signs of life were heard", lambda: len(end.others) == beats)
