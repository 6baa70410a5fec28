"""The replication port on loopback: who gets in, who is turned away, and that nobody fills it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from replication import hub as hub_module
from replication import network, wire
from replication.bodies import SiteAddress, Standing, encode_standing
from replication.errors import ReplicationError
from replication.handshake import encode_hello
from replication.hub import STRANGERS_MAX, Hub
from replication.link import Link
from replication.link_states import Role
from replication.messages import MessageType, OwnCode, RepType
from replication.peer import LocalSite, Peer
from replication.peer_events import (
    Ack,
    Event,
    Rejected,
    RequestReceived,
    SiteIdentified,
    StandingReceived,
)
from replication.wire import LSN, Frame
from tests.support.links import DEADLINE_S, control, read_to_end, until

HOST = "127.0.0.1"
ANY = SiteAddress(HOST, 0)


@dataclass
class Site:
    """A hub and what it told; it admits whom it is told to."""

    name: str
    members: set[str] = field(default_factory=set)
    links: list[Link] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    batches: list[tuple[list[Frame], int]] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    turned_away: list[tuple[str, str]] = field(default_factory=list)
    trouble: Exception | None = None
    hub: Hub = field(init=False)

    def admits(self, site: SiteIdentified) -> bool:
        return site.address.host in self.members

    def rejection(self) -> tuple[int, int]:
        return (7, 3)

    def ready(self, link: Link, site: SiteIdentified, *, outgoing: bool) -> None:
        link.eid = 2
        self.links.append(link)

    def event(self, link: Link, event: Event) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.events.append(event)

    def acked(self, link: Link, generation: int, lsn: LSN) -> None:
        self.events.append(Ack(generation, lsn))

    def frames(self, link: Link, frames: Sequence[Frame], size: int) -> None:
        self.batches.append((list(frames), size))

    def idle(self, link: Link) -> None:
        assert link.peer.between_frames

    def request(self, link: Link, request: RequestReceived) -> None:
        body = encode_standing(Standing(3, LSN(1, 28), LSN(0, 0), 1, 0))
        link.peer.answer(OwnCode.SITE_STANDING, body)

    def closed(self, link: Link, reason: str) -> None:
        self.gone.append(reason)

    def refused(self, where: str, reason: str, code: str) -> None:
        self.turned_away.append((code, reason))

    @property
    def address(self) -> SiteAddress:
        return SiteAddress(HOST, self.hub.port)


@asynccontextmanager
async def site(
    name: str = HOST, *members: str, handshake_timeout_s: float = DEADLINE_S
) -> AsyncIterator[Site]:
    """Run a hub on a port of the kernel's choice."""
    made = Site(name, set(members))
    loop = asyncio.get_running_loop()
    # Its own port is not known yet, and nobody in these tests calls back by it.
    local = LocalSite(name, 5010, 1, 5)
    made.hub = Hub(loop, local, ANY, made, handshake_timeout_s=handshake_timeout_s)
    await made.hub.start()
    try:
        yield made
    finally:
        made.hub.stop()


@asynccontextmanager
async def caller(to: Site) -> AsyncIterator[socket.socket]:
    """Connect a bare socket."""
    with socket.create_connection((HOST, to.hub.port)) as sock:
        sock.setblocking(False)
        yield sock


async def dial(sender: Site, to: Site) -> None:
    """Dial a site by the name it calls itself, wherever it listens."""
    with pytest.MonkeyPatch.context() as patch:
        real = network.connect

        async def connect(loop: asyncio.AbstractEventLoop, address: SiteAddress) -> socket.socket:
            return await real(loop, to.address)

        patch.setattr(network, "connect", connect)
        await sender.hub.dial(SiteAddress(to.name, 5010))


class TestMembers:
    async def test_two_members_talk(self) -> None:
        async with site("a.test", "b.test") as one, site("b.test", "a.test") as two:
            await dial(one, two)
            await until("both are ready", lambda: one.links and two.links)
            assert one.hub.links() == tuple(one.links)
            one.links[0].write(wire.encode_ack(4, LSN(1, 300)))
            await until("the ack came", lambda: two.events)
            assert two.events == [Ack(4, LSN(1, 300))]
            two.hub.stop()
            await until("its end is noticed", lambda: one.gone)
            assert one.hub.links() == ()

    async def test_messages_wait_until_the_link_is_released(self) -> None:
        async with site("a.test", "b.test") as one, site("b.test", "a.test") as two:
            await dial(one, two)
            await until("ready", lambda: two.links)
            messages = [wire.encode_rep_message(control(RepType.LOG), b"%d" % n) for n in range(3)]
            one.links[0].write(b"".join(messages))
            one.links[0].write(wire.encode_ack(4, LSN(1, 300)))
            await until("the ack came", lambda: two.events)
            assert not two.batches
            two.hub.release(two.links[0])
            [(frames, size)] = two.batches
            assert [frame.rec for frame in frames] == [b"0", b"1", b"2"]
            assert size == 3 * (36 + 1)
            one.links[0].write(messages[0])
            await until("more came", lambda: len(two.batches) == 2)

    async def test_messages_and_acks_in_one_chunk_keep_order_and_count(self) -> None:
        async with site("a.test", "b.test") as one, site("b.test", "a.test") as two:
            await dial(one, two)
            await until("ready", lambda: two.links)
            two.hub.release(two.links[0])
            message = wire.encode_rep_message(control(RepType.LOG), bytes(500))
            one.links[0].write((message + wire.encode_ack(4, LSN(1, 300))) * 20)
            await until("all came", lambda: sum(len(f) for f, _ in two.batches) == 20)
            counted = sum(size for _, size in two.batches)
            assert counted >= 20 * 536, "what waits to be applied is counted"

    @pytest.mark.parametrize("limit", ["HELD_FRAMES_MAX", "HELD_BYTES_MAX"])
    async def test_a_site_that_says_too_much_too_early_is_closed(
        self, limit: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(hub_module, limit, 100)
        async with site("a.test", "b.test") as one, site("b.test", "a.test") as two:
            await dial(one, two)
            for _ in range(200):
                one.links[0].put(wire.encode_rep_message(control(RepType.LOG), b"x"))
            one.links[0].flush()
            await until("closed", lambda: two.gone)
            assert "before it said what it holds" in two.gone[0]

    async def test_a_bug_here_closes_the_link_and_no_other(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with site("a.test", "b.test") as one, site("b.test", "a.test") as two:
            await dial(one, two)
            await dial(one, two)
            await until("ready", lambda: len(two.links) == 2)
            two.trouble = RuntimeError("a bug")
            one.links[0].write(wire.encode_ack(4, LSN(1, 300)))
            await until("closed", lambda: two.gone)
            assert "a bug" in caplog.text
            assert len(two.hub.links()) == 1

    async def test_another_site_than_expected_is_no_link(self) -> None:
        async with site("a.test", "c.test") as one, site("c.test", "a.test") as two:
            two.name = "b.test"
            with pytest.raises(ReplicationError):
                await dial(one, two)
            assert not one.links


class TestStrangers:
    async def test_a_site_that_is_no_member_hears_so(self) -> None:
        async with site("a.test", "b.test") as one, site("b.test") as two:
            await dial(one, two)
            await until("rejected", lambda: one.gone)
            assert one.events == [Rejected(7, 3)]
            assert two.turned_away == [("not_a_member", "a.test:5010 is no member")]
            assert not two.links

    async def test_even_if_it_sent_a_lot_meanwhile(self) -> None:
        async with site("b.test") as two, caller(two) as sock:
            one = Peer(Role.DIALLER, LocalSite("a.test", 5010, 1, 5))
            loop = asyncio.get_running_loop()
            one.start()
            await loop.sock_sendall(sock, one.data_to_send())
            one.receive_data(await loop.sock_recv(sock, 65536))
            message = wire.encode_rep_message(control(RepType.LOG), bytes(5000))
            await loop.sock_sendall(sock, one.data_to_send() + message * 40)
            assert one.receive_data(await read_to_end(sock)) == [Rejected(7, 3)]

    @pytest.mark.parametrize(
        ("first", "code", "named"),
        [
            (b"*1\r\n$4\r\nPING\r\n", "mixup_resp", "Redis"),
            (b"PING\r\n", "mixup_resp", "Redis"),
            (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "mixup_http", "HTTP"),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", "mixup_tls", "TLS"),
            (b"\x00" * 64, "not_replication", "no replication site"),
            (bytes(range(128, 256)), "not_replication", "no replication site"),
        ],
    )
    async def test_who_knocks_at_the_wrong_door_is_named(
        self, first: bytes, code: str, named: str
    ) -> None:
        async with site() as here, caller(here) as sock:
            await asyncio.get_running_loop().sock_sendall(sock, first)
            with contextlib.suppress(ConnectionResetError):
                assert await read_to_end(sock) == b""
            await until("it was turned away", lambda: here.turned_away)
            assert here.turned_away[0][0] == code
            assert named in here.turned_away[0][1]

    async def test_huge_lengths_take_no_memory(self) -> None:
        async with site() as here, caller(here) as sock:
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(sock, bytes([MessageType.HANDSHAKE]) + b"\xff" * 8)
            with contextlib.suppress(ConnectionResetError):
                await read_to_end(sock)
            await until("it was turned away", lambda: here.turned_away)
            assert "4294967295" in here.turned_away[0][1]

    async def test_half_a_handshake_is_not_waited_for(self) -> None:
        async with site(handshake_timeout_s=0.05) as here, caller(here) as sock:
            hello = encode_hello(SiteAddress("a.test", 5010), 1)
            await asyncio.get_running_loop().sock_sendall(sock, hello[:-3])
            assert await read_to_end(sock) == b""

    async def test_nor_is_a_whole_one_without_a_word_after_it(self) -> None:
        async with site(handshake_timeout_s=0.05) as here, caller(here) as sock:
            hello = encode_hello(SiteAddress("a.test", 5010), 1)
            await asyncio.get_running_loop().sock_sendall(sock, hello)
            assert await read_to_end(sock), "the confirmation, then the end"
            assert not here.links

    async def test_a_ready_link_has_no_such_limit(self) -> None:
        async with (
            site("a.test", "b.test") as one,
            site("b.test", "a.test", handshake_timeout_s=0.05) as two,
        ):
            await dial(one, two)
            await until("ready", lambda: two.links)
            async with caller(two) as stranger:
                await read_to_end(stranger)  # whose time is over later than the link's would be
            assert not two.gone

    async def test_endless_connections_leave_room_for_members(self) -> None:
        async with site("b.test", "a.test") as here, site("a.test", "b.test") as member:
            with contextlib.ExitStack() as stack:
                callers = [
                    stack.enter_context(socket.create_connection((HOST, here.hub.port)))
                    for _ in range(STRANGERS_MAX + 20)
                ]
                for sock in callers:
                    sock.setblocking(False)
                loop = asyncio.get_running_loop()
                with contextlib.suppress(ConnectionResetError):
                    async with asyncio.timeout(DEADLINE_S):
                        assert await loop.sock_recv(callers[-1], 1) == b"", "one too many"
                with pytest.raises(BlockingIOError):
                    callers[0].recv(1)
            await until("they are forgotten", lambda: here.hub.strangers == 0)
            await dial(member, here)
            await until("the member is in", lambda: here.links)


class TestAsking:
    async def test_a_question_is_answered_and_the_connection_ends(self) -> None:
        async with site("a.test") as one, site("b.test") as two:
            event = await one.hub.ask(two.address, OwnCode.SITE_QUERY, DEADLINE_S)
            assert isinstance(event, StandingReceived)
            assert event.standing.generation == 3
            await until("over", lambda: two.hub.strangers == 0)
            assert not one.links
            assert not one.gone, "nobody is told of the end of a request"

    async def test_nobody_listens(self) -> None:
        async with site("a.test") as one:
            with socket.socket() as sock:
                sock.bind((HOST, 0))  # taken, and not listened on
                nobody = SiteAddress(HOST, sock.getsockname()[1])
                with pytest.raises(ReplicationError, match="cannot be reached") as caught:
                    await one.hub.ask(nobody, OwnCode.SITE_QUERY, DEADLINE_S)
            assert caught.value.code == "unreachable"

    async def test_a_site_that_accepts_and_says_nothing(self) -> None:
        async with site("a.test") as one:
            with socket.create_server((HOST, 0)) as mute:
                address = SiteAddress(HOST, mute.getsockname()[1])
                with pytest.raises(ReplicationError, match=r"did not answer in 0\.1 s"):
                    await one.hub.ask(address, OwnCode.SITE_QUERY, 0.1)

    async def test_a_name_that_no_resolver_takes(self) -> None:
        async with site("a.test") as one:
            strange = SiteAddress("a" * 70 + "..test", 5010)
            with pytest.raises(ReplicationError, match="cannot be reached"):
                await one.hub.dial(strange)

    async def test_a_dial_to_a_mute_site_ends(self) -> None:
        async with site("a.test", handshake_timeout_s=0.05) as one:
            with (
                socket.create_server((HOST, 0)) as mute,
                pytest.raises(ReplicationError, match="no handshake"),
            ):
                await one.hub.dial(SiteAddress(HOST, mute.getsockname()[1]))


class TestStopping:
    async def test_a_dial_under_way_ends(self) -> None:
        async with site("a.test") as one:
            with socket.create_server((HOST, 0)) as mute:
                address = SiteAddress(HOST, mute.getsockname()[1])
                dialling = asyncio.create_task(one.hub.dial(address))
                theirs, _ = await asyncio.to_thread(mute.accept)
                one.hub.stop()
                with theirs, pytest.raises(ReplicationError):
                    await asyncio.wait_for(dialling, DEADLINE_S)

    async def test_no_dial_begins_afterwards(self) -> None:
        async with site("a.test") as one, site("b.test") as two:
            address = two.address
            one.hub.stop()
            with pytest.raises(ReplicationError, match="stopping"):
                await one.hub.dial(address)
