"""One link's shell on real sockets: nothing lost, nothing out of order, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections import defaultdict
from collections.abc import Callable

import pytest
import uvloop

from replication import link as link_module
from tests.support.links import Recorded, connection, read_to_end, until

FRAME = struct.Struct(">BII")
SMALL = 8 * 1024


def frame(writer: int, number: int, size: int) -> bytes:
    """A frame whose body can be checked wherever it was cut."""
    return FRAME.pack(writer, number, size) + bytes([(writer + number) % 251]) * size


def parse(data: bytes) -> dict[int, list[int]]:
    """Return the numbers each writer's frames came with; every byte is looked at."""
    seen: dict[int, list[int]] = defaultdict(list)
    at = 0
    while at < len(data):
        writer, number, size = FRAME.unpack_from(data, at)
        at += FRAME.size
        assert data[at : at + size] == bytes([(writer + number) % 251]) * size
        at += size
        seen[writer].append(number)
    return seen


def fill(sock: socket.socket) -> int:
    """Send until the kernel takes no more; returns the bytes."""
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            sent += sock.send(bytes(1000))
    return sent


class TestWriting:
    async def test_several_threads_and_a_slow_reader(self) -> None:
        with connection(SMALL) as (ours, theirs):
            end = Recorded(ours)
            end.link.start_reading()

            def write(writer: int) -> None:
                for number in range(400):
                    end.link.write(frame(writer, number, (writer * 97 + number * 13) % 700))

            threads = [threading.Thread(target=write, args=(w,), daemon=True) for w in range(4)]
            for thread in threads:
                thread.start()
            reading = asyncio.create_task(read_to_end(theirs, step=3000, pause=True))
            await until("all is written", lambda: not any(t.is_alive() for t in threads))
            end.link.close_after_sending("done")
            data = await reading
            theirs.close()
            await until("the link is closed", lambda: end.closed)
        assert parse(data) == {writer: list(range(400)) for writer in range(4)}
        assert end.link.bytes_out == len(data)
        assert end.link.queued_bytes == 0

    async def test_what_a_site_asked_for_and_live_log_go_out_in_turns(self) -> None:
        with connection(SMALL) as (ours, theirs):
            end = Recorded(ours)
            for number in range(2000):
                end.link.put(frame(1, number, 2000), asked=True)
            for number in range(300):
                end.link.put(frame(0, number, 100))
            end.link.close_after_sending("done")
            data = await read_to_end(theirs)
        assert parse(data) == {0: list(range(300)), 1: list(range(2000))}
        halfway = parse(data[: data.index(frame(1, 500, 2000))])
        assert len(halfway[0]) == 300, "live log does not wait for four megabytes of pages"

    async def test_a_frame_larger_than_all_buffers(self) -> None:
        with connection(SMALL) as (ours, theirs):
            end = Recorded(ours)
            end.link.write(frame(3, 7, 3_000_000))
            end.link.close_after_sending("done")
            assert parse(await read_to_end(theirs)) == {3: [7]}

    async def test_put_waits_for_a_flush(self) -> None:
        with connection() as (ours, theirs):
            end = Recorded(ours)
            end.link.put(b"one")
            assert end.link.queued_bytes == 3
            with pytest.raises(BlockingIOError):
                theirs.recv(10)
            end.link.flush()
            assert await asyncio.get_running_loop().sock_recv(theirs, 10) == b"one"

    async def test_a_closed_link_keeps_nothing(self) -> None:
        with connection() as (ours, _theirs):
            end = Recorded(ours)
            end.link.put(b"lost")
            end.link.close("over")
            end.link.put(b"lost", asked=True)
            end.link.write(b"lost")
            assert end.link.queued_bytes == 0
            assert end.closed == ["over"]

    async def test_time_over_the_mark_is_counted_until_it_is_under(self) -> None:
        with connection(SMALL) as (ours, theirs):
            end = Recorded(ours)
            assert end.link.over_for_s(1000) is None
            for number in range(3000):
                end.link.put(frame(0, number, 1000))
            end.link.flush()
            assert end.link.over_for_s(1000) == 0.0, "seen for the first time"
            await until("time passes", lambda: end.link.over_for_s(1000))
            reading = asyncio.create_task(read_to_end(theirs))
            await until("the reader took it", lambda: end.link.over_for_s(1000) is None)
            end.link.close("over")
            await reading


class TestReading:
    async def test_what_comes_is_passed_on_and_counted(self) -> None:
        with connection() as (ours, theirs):
            end = Recorded(ours)
            end.link.start_reading()
            theirs.send(b"hello")
            await until("it came", lambda: end.received == b"hello")
            assert end.link.bytes_in == 5

    async def test_a_paused_link_holds_the_other_side_back(self) -> None:
        with connection(SMALL) as (ours, theirs):
            end = Recorded(ours)
            end.link.start_reading()
            end.link.pause_reading()
            sent = fill(theirs)
            await asyncio.sleep(0)
            assert not end.received
            assert end.link.is_paused
            end.link.resume_reading()
            await until("all came", lambda: len(end.received) == sent)

    async def test_a_link_paused_before_it_began_begins_when_resumed(self) -> None:
        with connection() as (ours, theirs):
            end = Recorded(ours)
            end.link.pause_reading()
            end.link.start_reading()
            theirs.send(b"hello")
            end.link.resume_reading()
            await until("it came", lambda: end.received == b"hello")


class TestTheEnd:
    async def test_the_other_side_closes(self) -> None:
        with connection() as (ours, theirs):
            end = Recorded(ours)
            end.link.start_reading()
            theirs.close()
            await until("closed", lambda: end.closed)
            end.link.close("again")
            assert end.closed == ["the other site closed the connection"]

    async def test_a_reset_is_named(self) -> None:
        with connection() as (ours, theirs):
            end = Recorded(ours)
            end.link.start_reading()
            theirs.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SOL_SOCKET, SO_LINGER
            theirs.close()
            await until("closed", lambda: end.closed)
            assert end.closed == ["Connection reset by peer"]

    async def test_an_abort_is_felt_at_once(self) -> None:
        with connection(SMALL) as (ours, theirs):
            end = Recorded(ours)
            for number in range(100):
                end.link.put(frame(0, number, 1000))
            end.link.flush()
            end.link.abort("its queue was full")
            with pytest.raises(ConnectionResetError):
                await read_to_end(theirs)
            assert end.closed == ["its queue was full"]

    async def test_last_words_arrive_although_something_was_left_unread(self) -> None:
        # Closing a socket with unread bytes resets the connection: the last words would be lost.
        with connection() as (ours, theirs):
            end = Recorded(ours)
            theirs.send(bytes(100_000))
            end.link.write(b"you are no member")
            end.link.close_after_sending("rejected")
            assert await read_to_end(theirs) == b"you are no member"
            assert not end.closed, "it reads to the end first"
            theirs.close()
            await until("closed", lambda: end.closed)
            assert end.closed == ["rejected"]
            assert not end.received, "nobody is told of what came too late"

    async def test_who_never_closes_is_not_waited_for(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(link_module, "LINGER_S", 0.02)
        with connection() as (ours, theirs):
            end = Recorded(ours)
            end.link.start_reading()
            end.link.close_after_sending("over")
            await until("closed", lambda: end.closed)
            assert theirs.fileno() >= 0

    async def test_closing_after_sending_waits_for_a_full_socket(self) -> None:
        with connection(SMALL) as (ours, theirs):
            end = Recorded(ours)
            end.link.start_reading()
            end.link.write(frame(0, 1, 1_000_000))
            assert end.link.queued_bytes
            end.link.close_after_sending("over")
            end.link.close_after_sending("said twice")
            assert not end.closed
            assert parse(await read_to_end(theirs)) == {0: [1]}
            theirs.close()
            await until("closed", lambda: end.closed)
            assert end.closed == ["over"]


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_reset_is_noticed_whatever_the_loop(run: Callable[..., object]) -> None:
    """A process that dies with something unread resets its connections."""

    async def reset() -> None:
        with connection() as (ours, theirs):
            end = Recorded(ours)
            end.link.start_reading()
            await asyncio.sleep(0)
            # Both come in one look: there is something to read, and the connection was reset.
            theirs.send(b"before")
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            theirs.close()
            await until("it is noticed", lambda: end.closed)
            assert end.closed == ["Connection reset by peer"]

    run(reset())
