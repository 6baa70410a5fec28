"""The link machine: every entry of its table, every way a link ends, bytes of a native site."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import ClassVar

import pytest

from replication import bodies, handshake, wire
from replication.bodies import MembershipList, SiteAddress, SiteRecord, Standing
from replication.errors import LocalProtocolError
from replication.handshake import Parameters
from replication.link_states import ANSWERS, END_REASONS, STATES, Input, Role, State
from replication.messages import AckPolicy, MessageType, OwnCode, ParamFlag
from replication.peer import HELD_BYTES_MAX, LocalSite, Peer
from replication.peer_events import (
    Ack,
    AppRequest,
    Event,
    Forwarded,
    Heartbeat,
    Joined,
    LinkEnded,
    LinkFailed,
    MembershipShared,
    OwnMessage,
    ParametersChanged,
    Rejected,
    Removed,
    RequestFailed,
    RequestReceived,
    RequestUnsupported,
    RoundAnswered,
    RoundAsked,
    SiteIdentified,
    StableLsn,
    StandingAsked,
    StandingReceived,
)
from replication.wire import LSN, Frame

MASTER = LocalSite("127.0.0.1", 17201, 100, AckPolicy.ONE)
REPLICANT = LocalSite("127.0.0.1", 17202, 0, AckPolicy.ONE)
NATIVE = LocalSite("127.0.0.1", 17202, 100, AckPolicy.ONE, flags=0)
LISTED = MembershipList(3, 1, (SiteRecord("127.0.0.1", 17201, 4),))
REP = wire.encode_rep_message(struct.pack(">9I", 7, 19, 1, 28, 11, 1, 0, 0, 0), b"log record")


def link(
    dialler: LocalSite = MASTER, acceptor: LocalSite = REPLICANT, **purpose: object
) -> tuple[Peer, Peer]:
    """Return both ends of a link, the dialler's proposal not yet made."""
    return Peer(Role.DIALLER, dialler, **purpose), Peer(Role.ACCEPTOR, acceptor)  # type: ignore[arg-type]


def ready(dialler: LocalSite = MASTER, acceptor: LocalSite = REPLICANT) -> tuple[Peer, Peer]:
    """Return both ends of a ready link."""
    one, other = link(dialler, acceptor)
    one.start()
    other.receive_data(one.data_to_send())
    one.receive_data(other.data_to_send())
    other.receive_data(one.data_to_send())
    assert other.accept() == []
    assert one.ready
    assert other.ready
    return one, other


def asked(request: OwnCode, acceptor: LocalSite = REPLICANT) -> tuple[Peer, Peer, list[Event]]:
    """Return both ends of a one-shot link and what the acceptor saw."""
    asker, server = link(MASTER, acceptor, request=request)
    asker.start()
    server.receive_data(asker.data_to_send())
    asker.receive_data(server.data_to_send())
    return asker, server, server.receive_data(asker.data_to_send())


def failure(events: list[Event]) -> str:
    """Return the code of the failure that must be the last event."""
    last = events[-1]
    assert isinstance(last, LinkFailed)
    return last.error.code


class TestHandshake:
    def test_both_sides_learn_who_the_other_is(self) -> None:
        dialler, acceptor = link(expected=REPLICANT.address)
        dialler.start()
        assert acceptor.receive_data(dialler.data_to_send()) == []
        flags = int(ParamFlag.TTSERVER_SITE)
        replicant = SiteIdentified(REPLICANT.address, AckPolicy.ONE, flags)
        assert dialler.receive_data(acceptor.data_to_send()) == [replicant]
        assert dialler.ready
        assert (replicant.electable, replicant.native) == (False, False)
        master = SiteIdentified(MASTER.address, AckPolicy.ONE, flags | 4, priority=100)
        assert acceptor.receive_data(dialler.data_to_send()) == [master]
        assert (master.electable, master.native) == (True, False)
        assert (acceptor.ready, acceptor.wants_data) == (False, False)
        assert acceptor.accept() == []
        assert (acceptor.ready, acceptor.wants_data) == (True, True)
        assert acceptor.remote == master

    def test_a_native_site_dials(self) -> None:
        """Real bytes, recorded; our answers are checked byte by byte."""
        acceptor = Peer(Role.ACCEPTOR, LocalSite("127.0.0.1", 17201, 1, AckPolicy.ONE, flags=0))
        proposal = "020000000c00000013010000003243000000000064"
        acceptor.receive_data(
            bytes.fromhex(proposal) + b"127.0.0.1\0" + bytes.fromhex("000000010000000400")
        )
        assert acceptor.data_to_send() == bytes.fromhex(
            "020000000c0000000f433100080000000500000004"
        ) + b"127.0.0.1\0" + bytes.fromhex("0000000400")
        parameters = bytes.fromhex("020000000c0000000a433200080000000500000004")
        (event,) = acceptor.receive_data(parameters + b"127.0.0.1\0")
        assert event == SiteIdentified(SiteAddress("127.0.0.1", 17202), 5, 4, priority=100)
        assert isinstance(event, SiteIdentified)
        assert event.native

    def test_what_came_before_accept_is_returned_by_it(self) -> None:
        dialler, acceptor = link()
        dialler.start()
        acceptor.receive_data(dialler.data_to_send())
        dialler.receive_data(acceptor.data_to_send())
        parameters = dialler.data_to_send()
        (event,) = acceptor.receive_data(parameters + REP + wire.encode_ack(1, LSN(1, 2))[:10])
        assert isinstance(event, SiteIdentified)
        assert acceptor.receive_data(wire.encode_ack(1, LSN(1, 2))[10:]) == []
        frame, ack = acceptor.accept()
        assert isinstance(frame, Frame)
        assert frame.rec == b"log record"
        assert ack == Ack(1, LSN(1, 2))

    def test_reject_tells_the_version_and_ends_the_link(self) -> None:
        dialler, acceptor = link()
        dialler.start()
        acceptor.receive_data(dialler.data_to_send())
        dialler.receive_data(acceptor.data_to_send())
        acceptor.receive_data(dialler.data_to_send())
        acceptor.reject(version=5, generation=2)
        assert acceptor.closed
        assert dialler.receive_data(acceptor.data_to_send()) == [Rejected(5, 2)]
        assert dialler.closed

    def test_flags_of_extra_links(self) -> None:
        for flag in (ParamFlag.SUBORDINATE, ParamFlag.APP_CHANNEL):
            dialler, acceptor = link(LocalSite("127.0.0.1", 17203, 0, 5, flags=int(flag)))
            dialler.start()
            acceptor.receive_data(dialler.data_to_send())
            dialler.receive_data(acceptor.data_to_send())
            (site,) = acceptor.receive_data(dialler.data_to_send())
            assert isinstance(site, SiteIdentified)
            assert site.subordinate is (flag is ParamFlag.SUBORDINATE)
            assert site.app_channel is (flag is ParamFlag.APP_CHANNEL)

    @pytest.mark.parametrize(
        ("versions", "code"),
        [((1, 3), "version_unsupported"), ((5, 6), "version_unsupported"), ((4, 9), None)],
    )
    def test_only_version_4_is_spoken(self, versions: tuple[int, int], code: str | None) -> None:
        acceptor = Peer(Role.ACCEPTOR, MASTER)
        hello = handshake.encode_hello(SiteAddress("old", 5010), 1, versions)
        events = acceptor.receive_data(hello)
        if code is None:
            assert events == []
            assert acceptor.data_to_send()
        else:
            assert failure(events) == code
            assert acceptor.data_to_send() == b"", "a stranger of another version gets no word"

    def test_a_version_1_hello_is_named(self) -> None:
        control = bytes.fromhex("01000000 3243 0000 00000064")
        (event,) = Peer(Role.ACCEPTOR, MASTER).receive_data(
            wire.encode_handshake(control, b"127.0.0.1\0")
        )
        assert isinstance(event, LinkFailed)
        assert str(event.error) == (
            "link refused: 127.0.0.1:17202 speaks repmgr protocol 1, this site speaks 4"
        )

    @pytest.mark.parametrize("version", [1, 3, 5])
    def test_a_dialler_refuses_a_version_it_did_not_propose(self, version: int) -> None:
        dialler = Peer(Role.DIALLER, MASTER)
        dialler.start()
        control = {
            1: bytes.fromhex("01000000 3243 0000 00000064"),
            3: bytes.fromhex("4332 00000064 00000000"),
            5: bytes.fromhex("4332 0008 00000005 00000004"),
        }[version]
        suffix = b"" if version == 1 else struct.pack(">IB", version, 0)
        events = dialler.receive_data(wire.encode_handshake(control, b"127.0.0.1\0" + suffix))
        assert failure(events) == ("malformed_body" if version == 5 else "version_unsupported")
        assert dialler.closed

    def test_another_site_answers_than_was_dialled(self) -> None:
        dialler, acceptor = link(expected=SiteAddress("localhost", 17202))
        dialler.start()
        acceptor.receive_data(dialler.data_to_send())
        events = dialler.receive_data(acceptor.data_to_send())
        assert failure(events) == "wrong_site"
        assert dialler.data_to_send() == b"", "it must not learn our parameters as a link's"

    @pytest.mark.parametrize("role", list(Role))
    def test_a_site_of_our_own_address(self, role: Role) -> None:
        peer = Peer(role, MASTER)
        parameters = Parameters(17201, 5, 0)
        if role is Role.DIALLER:
            peer.start()
            events = peer.receive_data(handshake.encode_confirmation("127.0.0.1", parameters))
        else:
            hello = handshake.encode_hello(MASTER.address, 1)
            events = peer.receive_data(
                hello + handshake.encode_introduction("127.0.0.1", parameters)
            )
        assert failure(events) == "own_address"

    @pytest.mark.parametrize("role", list(Role))
    @pytest.mark.parametrize(
        ("data", "code"),
        [
            (b"*1\r\n$4\r\nPING\r\n", "mixup_resp"),
            (b"PING\r\n", "mixup_resp"),
            (b"GET / HTTP/1.1\r\n", "mixup_http"),
            (b"HTTP/1.1 400 Bad Request\r\n", "mixup_http"),
            (b"\x16\x03\x01\x02\x00\x01", "mixup_tls"),
            (b"\x02\xff\xff\xff\xff\0\0\0\0", "frame_too_large"),
            (REP, "not_replication"),
            (b"\x00", "not_replication"),
        ],
    )
    def test_strangers(self, role: Role, data: bytes, code: str) -> None:
        peer = Peer(role, MASTER)
        if role is Role.DIALLER:
            peer.start()
        assert failure(peer.receive_data(data)) == code
        assert peer.closed
        assert peer.receive_data(data) == []
        assert peer.receive_eof() == []

    def test_a_stranger_may_not_announce_a_long_request(self) -> None:
        acceptor = Peer(Role.ACCEPTOR, MASTER)
        acceptor.receive_data(handshake.encode_hello(REPLICANT.address, 1))
        header = wire.Header(MessageType.OWN, 1025, OwnCode.JOIN_REQUEST).encode()
        assert failure(acceptor.receive_data(header)) == "frame_too_large"

    def test_what_comes_while_the_shell_decides_is_bounded(self) -> None:
        dialler, acceptor = link()
        dialler.start()
        acceptor.receive_data(dialler.data_to_send())
        dialler.receive_data(acceptor.data_to_send())
        acceptor.receive_data(dialler.data_to_send())
        assert acceptor.receive_data(bytes(HELD_BYTES_MAX)) == []
        assert failure(acceptor.receive_data(b"x")) == "held_too_much"


class TestOneShot:
    def test_join(self) -> None:
        asker, server, events = asked(OwnCode.JOIN_REQUEST)
        assert events == [RequestReceived(OwnCode.JOIN_REQUEST, SiteRecord("127.0.0.1", 17201))]
        assert not server.wants_data
        server.answer(OwnCode.JOIN_SUCCESS, bodies.encode_membership_list(LISTED))
        assert server.closed
        assert asker.receive_data(server.data_to_send()) == [Joined(LISTED)]
        assert asker.closed

    def test_the_request_of_a_native_site_byte_by_byte(self) -> None:
        server = Peer(Role.ACCEPTOR, MASTER)
        server.receive_data(handshake.encode_hello(NATIVE.address, 100, (1, 4)))
        request = bytes.fromhex("08 00000014 00000004 0000000a 3132372e302e302e3100 4332 00000000")
        events = [event for byte in request for event in server.receive_data(bytes([byte]))]
        assert events == [RequestReceived(OwnCode.JOIN_REQUEST, SiteRecord("127.0.0.1", 17202))]

    def test_remove_names_its_victim(self) -> None:
        victim = SiteAddress("127.0.0.1", 17209)
        asker, server = link(request=OwnCode.REMOVE_REQUEST, subject=victim)
        asker.start()
        server.receive_data(asker.data_to_send())
        asker.receive_data(server.data_to_send())
        (event,) = server.receive_data(asker.data_to_send())
        assert event == RequestReceived(OwnCode.REMOVE_REQUEST, SiteRecord(*victim))
        server.answer(OwnCode.REMOVE_SUCCESS)
        assert asker.receive_data(server.data_to_send()) == [Removed()]

    @pytest.mark.parametrize("request_code", [OwnCode.JOIN_REQUEST, OwnCode.REMOVE_REQUEST])
    def test_forward_and_failure(self, request_code: OwnCode) -> None:
        asker, server, _ = asked(request_code)
        server.answer(OwnCode.GM_FORWARD, bodies.encode_forward(NATIVE.address, 7))
        assert asker.receive_data(server.data_to_send()) == [Forwarded(NATIVE.address, 7)]
        asker, server, _ = asked(request_code)
        server.answer(OwnCode.GM_FAILURE)
        assert asker.receive_data(server.data_to_send()) == [RequestFailed()]

    def test_site_query(self) -> None:
        asker, server, events = asked(OwnCode.SITE_QUERY)
        assert events == [RequestReceived(OwnCode.SITE_QUERY, SiteRecord("127.0.0.1", 17201))]
        standing = Standing(4, LSN(2, 100), LSN(2, 50), 0, 1, 3, 1, 20, MASTER.address)
        server.answer(OwnCode.SITE_STANDING, bodies.encode_standing(standing))
        assert asker.receive_data(server.data_to_send()) == [StandingReceived(standing)]

    def test_a_native_site_is_never_sent_a_query(self) -> None:
        asker, server = link(MASTER, NATIVE, request=OwnCode.SITE_QUERY)
        asker.start()
        server.receive_data(asker.data_to_send())
        events = asker.receive_data(server.data_to_send())
        assert events[1:] == [RequestUnsupported(OwnCode.SITE_QUERY)]
        assert asker.closed
        assert asker.data_to_send() == b""

    def test_wrong_answers(self) -> None:
        asker, server, _ = asked(OwnCode.JOIN_REQUEST)
        with pytest.raises(LocalProtocolError) as caught:
            server.answer(OwnCode.REMOVE_SUCCESS)
        assert caught.value.code == "wrong_answer"
        assert server.state is State.SERVING
        assert failure(asker.receive_data(wire.encode_own(OwnCode.SHARING))) == "unexpected_message"

    def test_an_answer_that_makes_no_sense(self) -> None:
        asker, _, _ = asked(OwnCode.JOIN_REQUEST)
        bad = wire.encode_own(OwnCode.JOIN_SUCCESS, b"\0\0\0")
        assert failure(asker.receive_data(bad)) == "malformed_body"

    @pytest.mark.parametrize("code", [1, 2, 3, 5, 6, 7, 9, 10, 11, 12, 0x101, 0x102, 0x200])
    def test_other_codes_are_no_requests(self, code: int) -> None:
        server = Peer(Role.ACCEPTOR, MASTER)
        server.receive_data(handshake.encode_hello(NATIVE.address, 100))
        record = bodies.encode_site_record(SiteRecord(*NATIVE.address))
        assert failure(server.receive_data(wire.encode_own(code, record))) == "unexpected_message"


class TestReadyLink:
    def test_replication_messages_pass_as_frames(self) -> None:
        dialler, acceptor = ready()
        dialler.send_rep_message(REP[9:45], b"log record")
        dialler.send_rep_message(b"c", b"")
        first, second = acceptor.receive_data(dialler.data_to_send())
        assert isinstance(first, Frame)
        assert isinstance(second, Frame)
        assert (first.control, first.rec) == (REP[9:45], b"log record")
        assert (second.control, second.rec) == (b"c", b"")

    def test_acks_and_heartbeats(self) -> None:
        dialler, acceptor = ready()
        acceptor.send_ack(2, LSN(1, 300))
        assert dialler.receive_data(acceptor.data_to_send()) == [Ack(2, LSN(1, 300))]
        dialler.send_heartbeat(2, LSN(1, 400))
        assert acceptor.receive_data(dialler.data_to_send()) == [Heartbeat(2, LSN(1, 400))]

    def test_a_heartbeat_of_the_old_form_is_only_a_sign_of_life(self) -> None:
        _, acceptor = ready()
        assert acceptor.receive_data(wire.Header(4, 0, 0).encode()) == []
        assert acceptor.ready

    def test_an_ack_is_no_heartbeat(self) -> None:
        ack: Event = Ack(1, LSN(1, 1))
        assert [ack] != [Heartbeat(1, LSN(1, 1))]

    def test_a_broadcast_is_encoded_once(self) -> None:
        links = [ready() for _ in range(3)]
        for dialler, _ in links:
            dialler.send_encoded(REP)
        assert {dialler.data_to_send() for dialler, _ in links} == {REP}

    def test_parameters_change(self) -> None:
        dialler, acceptor = ready()
        acceptor.send_parameters(LocalSite("127.0.0.1", 17202, 50, AckPolicy.QUORUM))
        assert dialler.receive_data(acceptor.data_to_send()) == [
            ParametersChanged(AckPolicy.QUORUM, electable=True)
        ]
        assert dialler.remote is not None
        assert dialler.remote.electable
        assert dialler.remote.ack_policy == AckPolicy.QUORUM
        assert not dialler.remote.native
        acceptor.send_parameters(REPLICANT)
        dialler.receive_data(acceptor.data_to_send())
        assert not dialler.remote.electable

    def test_sharing(self) -> None:
        dialler, acceptor = ready()
        dialler.send_own(OwnCode.SHARING, bodies.encode_membership_list(LISTED))
        assert acceptor.receive_data(dialler.data_to_send()) == [MembershipShared(LISTED)]

    def test_what_ttserver_sites_tell_each_other(self) -> None:
        dialler, acceptor = ready()
        record = SiteRecord("127.0.0.1", 17201)
        standing = Standing(1, LSN(1, 1), LSN(1, 1), 1, 0)
        dialler.send_own(OwnCode.SITE_QUERY, bodies.encode_site_record(record))
        dialler.send_own(OwnCode.SITE_STANDING, bodies.encode_standing(standing))
        dialler.send_own(OwnCode.STABLE_LSN, bodies.encode_stable_lsn(3, LSN(1, 9)))
        dialler.send_own(OwnCode.ROUND, bodies.encode_round(3, 17, 0.25))
        dialler.send_own(OwnCode.ROUND_ANSWER, bodies.encode_round_answer(3, 17))
        dialler.send_own(0x1FF, b"of a later version")
        assert acceptor.receive_data(dialler.data_to_send()) == [
            StandingAsked(record),
            StandingReceived(standing),
            StableLsn(3, LSN(1, 9)),
            RoundAsked(3, 17, 0.25),
            RoundAnswered(3, 17),
            OwnMessage(0x1FF, b"of a later version"),
        ]

    def test_a_native_site_is_spared_them(self) -> None:
        dialler, _ = ready(MASTER, NATIVE)
        with pytest.raises(LocalProtocolError) as caught:
            dialler.send_own(OwnCode.STABLE_LSN, bodies.encode_stable_lsn(3, LSN(1, 9)))
        assert caught.value.code == "native_site"
        assert dialler.data_to_send() == b""
        stable = wire.encode_own(OwnCode.STABLE_LSN, bodies.encode_stable_lsn(3, LSN(1, 9)))
        assert failure(dialler.receive_data(stable)) == "unexpected_message"

    @pytest.mark.parametrize("code", [0, 2, 3, 4, 5, 7, 8, 9, 10, 12, 0xFF])
    def test_codes_that_have_no_place_on_a_ready_link(self, code: int) -> None:
        dialler, _ = ready()
        assert failure(dialler.receive_data(wire.encode_own(code, b"x"))) == "unexpected_message"

    def test_a_removed_member_is_told_on_its_living_link(self) -> None:
        dialler, acceptor = ready()
        acceptor.reject(9, 4)
        events = dialler.receive_data(acceptor.data_to_send() + REP)
        assert events == [Rejected(9, 4)], "nothing is taken from a link that is over"

    def test_channel_requests_get_an_answer_not_a_closed_link(self) -> None:
        dialler, acceptor = ready()
        request = b"payload" + struct.pack(">III", 42, 0, 2)
        message = b"payload" + struct.pack(">III", 43, 0, 0)
        header = wire.Header(MessageType.APP_MESSAGE, len(request), 1).encode()
        events = dialler.receive_data(header + request + header + message + REP)
        assert events[:2] == [AppRequest(42, refused=True), AppRequest(43, refused=False)]
        assert isinstance(events[2], Frame)
        assert dialler.data_to_send() == wire.Header(7, 30989, 42).encode()
        assert dialler.ready
        assert failure(acceptor.receive_data(header[:1] + b"\0\0\0\4" + header[5:] + b"abcd")) == (
            "malformed_body"
        )

    @pytest.mark.parametrize(
        ("data", "code"),
        [
            (handshake.encode_introduction("127.0.0.1", MASTER.parameters), "unexpected_message"),
            (wire.encode_resp_error(1, 1), "unexpected_message"),
            (wire.Header(6, 4, 1).encode(), "unexpected_message"),
            (wire.Header(3, 36, 0xFFFFFFFF).encode(), "frame_too_large"),
            (wire.Header(1, 11, 0).encode(), "frame_too_small"),
            (wire.encode_own(OwnCode.SHARING, b"\0"), "malformed_body"),
            (b"\xff" * 9, "unknown_type"),
        ],
    )
    def test_what_ends_a_ready_link(self, data: bytes, code: str) -> None:
        _, acceptor = ready()
        events = acceptor.receive_data(REP + data + REP)
        assert isinstance(events[0], Frame)
        assert failure(events) == code
        assert len(events) == 2

    def test_statistics(self) -> None:
        dialler, acceptor = ready()
        before = acceptor.statistics()
        dialler.send_encoded(REP)
        acceptor.receive_data(dialler.data_to_send())
        after = acceptor.statistics()
        assert after.bytes_received - before.bytes_received == len(REP)
        assert (before.frames_received, after.frames_received) == (2, 3)
        assert dialler.statistics().bytes_sent == after.bytes_received


class TestEnds:
    def test_every_state_has_a_reason(self) -> None:
        waiting = {at for at, what in STATES if isinstance(what.value, MessageType)}
        assert set(END_REASONS) == waiting | {State.IDENTIFIED, State.SERVING}

    def test_between_frames(self) -> None:
        dialler, _ = ready()
        assert dialler.receive_eof() == [
            LinkEnded("on a ready link", 0, "it stopped, or replaced this link by another")
        ]
        assert dialler.closed
        assert dialler.receive_eof() == []

    def test_in_the_middle_of_a_frame(self) -> None:
        dialler, _ = ready()
        dialler.receive_data(REP[:20])
        (event,) = dialler.receive_eof()
        assert isinstance(event, LinkEnded)
        assert event.partial_bytes == 20
        assert "middle" in event.reason

    def test_before_a_word_was_said(self) -> None:
        (event,) = Peer(Role.ACCEPTOR, MASTER).receive_eof()
        assert event == LinkEnded(State.LISTEN.value, 0, "the port was only probed")

    def test_by_ourselves(self) -> None:
        dialler, _ = ready()
        dialler.close()
        assert dialler.closed
        assert dialler.receive_data(REP) == []


class TestOurOwnMistakes:
    CALLS: ClassVar[dict[Input, Callable[[Peer], object]]] = {
        Input.START: Peer.start,
        Input.ACCEPT: Peer.accept,
        Input.REJECT: lambda peer: peer.reject(1, 1),
        Input.ANSWER: lambda peer: peer.answer(OwnCode.GM_FAILURE),
        Input.SEND: lambda peer: peer.send_encoded(REP),
    }

    @staticmethod
    def peers() -> dict[State, Peer]:
        """Return a link in every state."""
        identified = link()
        identified[0].start()
        identified[1].receive_data(identified[0].data_to_send())
        identified[0].receive_data(identified[1].data_to_send())
        identified[1].receive_data(identified[0].data_to_send())
        confirmed = Peer(Role.ACCEPTOR, MASTER)
        confirmed.receive_data(handshake.encode_hello(REPLICANT.address, 0))
        proposed, ask_proposed = link()[0], link(request=OwnCode.JOIN_REQUEST)[0]
        proposed.start()
        ask_proposed.start()
        closed = ready()[0]
        closed.close()
        asker, server, _ = asked(OwnCode.JOIN_REQUEST)
        peers = [
            *(link()[0], link()[1], link(request=OwnCode.JOIN_REQUEST)[0]),
            *(proposed, ask_proposed, confirmed, identified[1], asker, server),
            *(ready()[0], closed),
        ]
        return {peer.state: peer for peer in peers}

    def test_every_call_in_every_state(self) -> None:
        assert set(self.peers()) == set(State)
        for state in State:
            for what, call in self.CALLS.items():
                peer = self.peers()[state]
                if (state, what) in STATES:
                    call(peer)
                    assert peer.state is STATES[state, what]
                    continue
                with pytest.raises(LocalProtocolError) as caught:
                    call(peer)
                assert caught.value.code == "wrong_state"
                assert what.value in str(caught.value)
                assert state.value in str(caught.value)
                assert caught.value.facts == {"state": state.name, "input": what.name}
                assert peer.state is state, "a refused call changes nothing"

    def test_every_frame_type_in_every_state_that_reads(self) -> None:
        for state in State:
            for type_ in MessageType:
                peer = self.peers()[state]
                if not peer.wants_data or state in (State.DIAL, State.ASK):
                    continue
                # Lengths no state accepts, so that only the type decides between the two codes.
                word2 = 0xFFFFFFFF if type_ in (2, 3) else 1
                header = wire.Header(type_, 0xFFFFFFFF, word2).encode()
                events = peer.receive_data(header)
                allowed = (state, Input(type_)) in STATES
                first_frame = state in (State.LISTEN, State.DIAL_PROPOSED, State.ASK_PROPOSED)
                if allowed:
                    expected = "frame_too_large"
                else:
                    expected = "not_replication" if first_frame else "unexpected_message"
                assert failure(events) == expected, (state, type_)

    @pytest.mark.parametrize(
        ("role", "purpose"),
        [
            (Role.ACCEPTOR, {"expected": MASTER.address}),
            (Role.ACCEPTOR, {"request": OwnCode.JOIN_REQUEST}),
            (Role.DIALLER, {"request": OwnCode.SHARING}),
        ],
    )
    def test_purposes_that_make_no_sense(self, role: Role, purpose: dict[str, object]) -> None:
        with pytest.raises(LocalProtocolError):
            Peer(role, MASTER, **purpose)  # type: ignore[arg-type]

    def test_every_request_has_answers(self) -> None:
        assert all(answers for answers in ANSWERS.values())
