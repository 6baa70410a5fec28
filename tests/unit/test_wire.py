"""Frames: real bytes both ways, every limit judged before its body, mixed-up speakers named."""

from __future__ import annotations

import struct

import pytest

from replication import bodies, handshake, wire
from replication.bodies import SiteAddress, SiteRecord
from replication.errors import LocalProtocolError, RemoteProtocolError
from replication.generations import Beginning
from replication.handshake import Parameters
from replication.messages import AckPolicy, MessageType, OwnCode, ParamFlag, RepType
from replication.mixup import check_first_bytes
from replication.wire import LSN, Frame, FrameDecoder, Limits

# Recorded between an unmodified native site (port 17202, priority 100) and one on port 17201.
NATIVE = SiteAddress("127.0.0.1", 17202)
PROPOSAL = bytes.fromhex(
    "02 0000000c 00000013  01000000 3243 0000 00000064  3132372e302e302e3100 00000001 00000004 00"
)
CONFIRMATION = bytes.fromhex(
    "02 0000000c 0000000f  4331 0008 00000005 00000004  3132372e302e302e3100 00000004 00"
)
PARAMETERS = bytes.fromhex(
    "02 0000000c 0000000a  4332 0008 00000005 00000004  3132372e302e302e3100"
)
ACK = bytes.fromhex("01 0000000c 00000000  00000001 00000001 0003c381")
JOIN_REQUEST = bytes.fromhex("0000000a 3132372e302e302e3100 4332 00000000")
JOIN_SUCCESS = bytes.fromhex(
    "00000003 00000001"
    "0000000a 3132372e302e302e3100 4331 00000004"
    "0000000a 3132372e302e302e3100 4332 00000004"
)
NATIVE_REFRESH = bytes.fromhex("00000007 00000002")


def one_frame(data: bytes) -> Frame:
    (frame,) = FrameDecoder().feed(data)
    return frame


def refusal(data: bytes, limits: Limits | None = None) -> RemoteProtocolError:
    decoder = FrameDecoder(limits)
    assert decoder.feed(data) == []
    assert decoder.error is not None
    assert decoder.buffered_bytes == 0
    assert decoder.feed(ACK) == []
    return decoder.error


class TestRealBytes:
    def test_proposal(self) -> None:
        assert handshake.encode_hello(NATIVE, 100, (1, 4)) == PROPOSAL
        frame = one_frame(PROPOSAL)
        assert handshake.decode_hello(frame.control, frame.rec) == (NATIVE, 100, (1, 4))

    def test_confirmation(self) -> None:
        parameters = Parameters(17201, AckPolicy.ONE, ParamFlag.ELECTABLE)
        assert handshake.encode_confirmation("127.0.0.1", parameters) == CONFIRMATION
        frame = one_frame(CONFIRMATION)
        confirmation = handshake.decode_confirmation(frame.control, frame.rec)
        assert confirmation == ("127.0.0.1", 4, parameters)
        assert confirmation.address == SiteAddress("127.0.0.1", 17201)

    def test_parameters(self) -> None:
        parameters = Parameters(17202, AckPolicy.ONE, ParamFlag.ELECTABLE)
        assert handshake.encode_introduction("127.0.0.1", parameters) == PARAMETERS
        frame = one_frame(PARAMETERS)
        introduction = handshake.decode_introduction(frame.control, frame.rec)
        assert introduction == ("127.0.0.1", parameters)
        assert introduction.address == NATIVE

    def test_ack(self) -> None:
        assert wire.encode_ack(1, LSN(1, 0x3C381)) == ACK
        assert wire.decode_ack(one_frame(ACK).control) == (1, LSN(1, 0x3C381))

    def test_join_request(self) -> None:
        record = SiteRecord("127.0.0.1", 17202)
        assert bodies.encode_site_record(record) == JOIN_REQUEST
        assert bodies.decode_site_record(JOIN_REQUEST) == record

    def test_join_success(self) -> None:
        sites = bodies.MembershipList(
            3, 1, (SiteRecord("127.0.0.1", 17201, 4), SiteRecord("127.0.0.1", 17202, 4))
        )
        assert bodies.encode_membership_list(sites) == JOIN_SUCCESS
        assert bodies.decode_membership_list(JOIN_SUCCESS) == sites

    def test_refresh_of_a_native_site_says_electable_by_the_flag_it_does_not_test(self) -> None:
        assert bodies.decode_refresh(NATIVE_REFRESH) == (AckPolicy.QUORUM, True)
        assert bodies.encode_refresh(7, electable=True) == bytes.fromhex("00000007 00000006")
        assert bodies.decode_refresh(bodies.encode_refresh(7, electable=False)) == (7, False)


class TestHandshakesOfOtherVersions:
    def test_hello_of_version_1_has_no_versions(self) -> None:
        control = bytes.fromhex("01000000 3243 0000 00000064")
        hello = handshake.decode_hello(control, b"127.0.0.1\0")
        assert hello == (NATIVE, 100, None)

    def test_last_byte_of_rec_is_taken_for_nul(self) -> None:
        control = bytes.fromhex("01000000 3243 0000 00000064")
        assert handshake.decode_hello(control, b"127.0.0.1X").versions is None

    def test_hello_of_a_big_endian_machine(self) -> None:
        control = bytes.fromhex("00000001 4332 0000 00000064")
        assert handshake.decode_hello(control, b"127.0.0.1\0").address == NATIVE

    @pytest.mark.parametrize(
        ("version", "control", "flags"),
        [
            (3, "4332 00000064 00000001", ParamFlag.ELECTABLE | ParamFlag.SUBORDINATE),
            (2, "4332 00000064", ParamFlag.ELECTABLE),
        ],
    )
    def test_older_parameters(self, version: int, control: str, flags: int) -> None:
        parameters = handshake.decode_parameters(bytes.fromhex(control), version)
        assert parameters == Parameters(17202, 0, int(flags), 100)

    def test_confirmation_of_version_1(self) -> None:
        control = bytes.fromhex("01000000 3243 0000 00000000")
        confirmation = handshake.decode_confirmation(control, b"127.0.0.1\0")
        assert (confirmation.version, confirmation.parameters) == (1, Parameters(17202, 0, 0, 0))

    @pytest.mark.parametrize(
        ("control", "rec"),
        [
            ("01000000 3243 0000 00000064", b""),
            ("01000000 3243 0000 00000064", b"\0"),
            ("01000000 3243 0000 00000064", b"127.0.0.1\0\0\0\0\1\0"),
            ("01000000 3243 0000 00000064", b"127.0.0.1\0\0\0\0\5\0\0\0\4\0"),
            ("01000000 3243 0000 00000064", b"a\nb\0\0\0\0\1\0\0\0\4\0"),
            ("02000000 3243 0000 00000064", b"127.0.0.1\0"),
            ("01000000 3243 0000 000064", b"127.0.0.1\0"),
        ],
        ids=["empty", "no host", "half versions", "min > max", "newline", "struct", "short"],
    )
    def test_malformed_hello(self, control: str, rec: bytes) -> None:
        with pytest.raises(RemoteProtocolError) as caught:
            handshake.decode_hello(bytes.fromhex(control), rec)
        assert caught.value.code == "malformed_body"


class TestOwnBodies:
    def test_own_frame_has_the_code_in_word_2(self) -> None:
        frame = one_frame(wire.encode_own(OwnCode.CONNECT_REJECT, b"\0\0\0\2\0\0\0\1"))
        assert (frame.type, frame.word1, frame.word2) == (MessageType.OWN, 8, 1)
        assert bodies.decode_connect_reject(frame.control) == (2, 1)
        assert bodies.encode_connect_reject(2, 1) == frame.control

    def test_forward(self) -> None:
        body = bodies.encode_forward(NATIVE, 9)
        assert body == bytes.fromhex("0000000a 3132372e302e302e3100 4332 00000009")
        assert bodies.decode_forward(body) == (NATIVE, 9)

    @pytest.mark.parametrize("master", [None, SiteAddress("db1.example.net", 5010)])
    @pytest.mark.parametrize("age_ms", [None, 0, 12345])
    def test_standing(self, master: SiteAddress | None, age_ms: int | None) -> None:
        standing = bodies.Standing(7, LSN(3, 28), LSN(2, 9), 100, 3, 5, 6, age_ms, master)
        body = bodies.encode_standing(standing)
        assert bodies.decode_standing(body) == standing
        assert bodies.decode_standing(body + b"field of a later version") == standing

    def test_standing_of_another_format(self) -> None:
        standing = bodies.Standing(7, LSN(3, 28), LSN(2, 9), 100, 3)
        body = b"\0\0\0\2" + bodies.encode_standing(standing)[4:]
        with pytest.raises(RemoteProtocolError, match="format 2 instead of 1"):
            bodies.decode_standing(body)

    def test_generations(self) -> None:
        beginnings = (Beginning(1, LSN(1, 28)), Beginning(4, LSN(2, 400), LSN(2, 300)))
        body = bodies.encode_generations(beginnings)
        assert body.hex() == (
            "00000001 00000001 0000001c 00000000 00000000"
            "00000004 00000002 00000190 00000002 0000012c"
        ).replace(" ", "")
        assert bodies.decode_generations(body) == beginnings
        assert bodies.decode_generations(b"") == ()

    def test_stable_lsn(self) -> None:
        body = bodies.encode_stable_lsn(4, LSN(1, 2))
        assert bodies.decode_stable_lsn(body) == (4, LSN(1, 2))

    @pytest.mark.parametrize(
        "body",
        [
            b"\xff\xff\xff\xffabc",
            b"\0\0\0\0\x43\x32\0\0\0\0",
            b"\0\0\0\1\0\x43\x32\0\0\0\0",
            b"\0\0\0\3a\0",
            b"\0\0\0\2a\0\0\0\0\0\0\0",
            JOIN_REQUEST + b"x",
        ],
        ids=["host too long", "host 0", "host of a NUL", "half", "port 0", "too many bytes"],
    )
    def test_malformed_site_record(self, body: bytes) -> None:
        with pytest.raises(RemoteProtocolError) as caught:
            bodies.decode_site_record(body)
        assert caught.value.code == "malformed_body"

    @pytest.mark.parametrize(
        "address", [("", 1), ("a b", 1), ("h" * 256, 1), ("ü", 1), ("a", 0), ("a", 65536)]
    )
    def test_address_that_cannot_be_sent(self, address: tuple[str, int]) -> None:
        with pytest.raises(LocalProtocolError):
            bodies.encode_site_record(SiteRecord(*address))

    def test_app_metadata_stands_at_the_end(self) -> None:
        request = b"segments" + struct.pack(">III", 77, 0, 2)
        assert bodies.decode_app_metadata(request) == (77, True)
        assert bodies.decode_app_metadata(request[:-1] + b"\0") == (77, False)


class TestLimits:
    @pytest.mark.parametrize(
        ("header", "code"),
        [
            ((0, 0, 0), "unknown_type"),
            ((9, 1, 1), "unknown_type"),
            ((255, 1, 1), "unknown_type"),
            ((1, 11, 0), "frame_too_small"),
            ((1, 13, 0), "frame_too_large"),
            ((1, 12, 1), "frame_too_large"),
            ((4, 1, 0), "frame_too_small"),
            ((4, 0, 1), "frame_too_large"),
            ((2, 1025, 0), "frame_too_large"),
            ((2, 12, 1025), "frame_too_large"),
            ((2, 0, 12), "frame_too_small"),
            ((3, 0, 12), "frame_too_small"),
            ((3, 4097, 0), "frame_too_large"),
            ((3, 36, 64 * 1024 * 1024 + 1), "frame_too_large"),
            ((3, 36, 0xFFFFFFFF), "frame_too_large"),
            ((5, 1024 * 1024 + 1, 1), "frame_too_large"),
            ((6, 0xFFFFFFFF, 1), "frame_too_large"),
            ((8, 1024 * 1024 + 1, 1), "frame_too_large"),
        ],
    )
    def test_header_refused_without_its_body(self, header: tuple[int, int, int], code: str) -> None:
        error = refusal(wire.Header(*header).encode())
        assert error.code == code
        assert error.hint

    @pytest.mark.parametrize(
        "header", [(1, 12, 0), (2, 1024, 1024), (3, 4096, 1 << 26), (4, 12, 0), (8, 1 << 20, 99)]
    )
    def test_the_limit_itself_is_allowed(self, header: tuple[int, int, int]) -> None:
        decoder = FrameDecoder()
        assert decoder.feed(wire.Header(*header).encode()) == []
        assert decoder.error is None
        body_bytes = header[1] + (header[2] if header[0] in (2, 3) else 0)
        assert decoder.missing_bytes == body_bytes

    def test_the_text_has_the_facts(self) -> None:
        error = refusal(wire.Header(3, 36, 70_000_000).encode())
        assert str(error) == (
            "frame refused: REP_MESSAGE announces a rec part of 70000000 bytes, the limit is"
            " 67108864 bytes"
        )
        assert error.facts["limit"] == 64 * 1024 * 1024

    @pytest.mark.parametrize("type_", [MessageType.REP_MESSAGE, MessageType.PERMLSN])
    def test_a_type_not_expected_here(self, type_: MessageType) -> None:
        limits = Limits(types=frozenset({2}), where="before the handshake")
        error = refusal(wire.Header(type_, 12, 0).encode() + bytes(12), limits)
        assert error.code == "unexpected_message"
        assert "before the handshake" in str(error)

    def test_frames_before_a_bad_header_are_kept(self) -> None:
        decoder = FrameDecoder()
        assert len(decoder.feed(ACK + ACK + b"\xff" * 9)) == 2
        assert decoder.error is not None


class TestFrameDecoder:
    def test_frames_without_body(self) -> None:
        decoder = FrameDecoder()
        refused = wire.encode_resp_error(30989, 5)
        old_heartbeat = wire.Header(4, 0, 0).encode()
        empty_answer = wire.encode_own(OwnCode.REMOVE_SUCCESS)
        frames = decoder.feed(refused + old_heartbeat + empty_answer)
        assert [(f.type, f.word1, f.word2, f.control) for f in frames] == [
            (7, 30989, 5, b""),
            (4, 0, 0, b""),
            (8, 0, 9, b""),
        ]
        for byte in refused:
            frames = decoder.feed(bytes([byte]))
        assert frames[0].word1 == 30989

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_any_buffer_gives_bytes(self, kind: type[bytes]) -> None:
        stream = wire.encode_rep_message(b"c" * 36, b"r")
        frame = FrameDecoder().feed(kind(stream))[0]
        assert type(frame.control) is bytes
        assert type(frame.rec) is bytes

    def test_a_frame_over_many_chunks_is_put_together_once(self) -> None:
        rec = bytes(range(256)) * 4096
        stream = wire.encode_rep_message(b"c" * 36, rec) + ACK[:5]
        decoder = FrameDecoder()
        frames = []
        for at in range(0, len(stream), 1000):
            frames += decoder.feed(stream[at : at + 1000])
            assert decoder.buffered_bytes <= at + 1000
        assert [frame.rec for frame in frames] == [rec]
        assert (decoder.buffered_bytes, decoder.missing_bytes) == (5, 4)

    def test_decode_frame_tells_how_far_it_went(self) -> None:
        assert wire.decode_frame(PROPOSAL[:30], Limits()) is None
        got = wire.decode_frame(PROPOSAL + ACK, Limits())
        assert got is not None
        assert got[0] == one_frame(PROPOSAL)
        assert got[1] == len(PROPOSAL)

    def test_a_message_without_control_part_is_our_bug(self) -> None:
        with pytest.raises(LocalProtocolError):
            wire.encode_rep_message(b"", b"rec")


class TestPeeking:
    CONTROL = struct.pack(">9I", 7, 19, 3, 400, RepType.LOG, 12, 1, 2, 0x20)

    def test_all_fields(self) -> None:
        assert wire.peek_control(self.CONTROL) == (7, 19, LSN(3, 400), RepType.LOG, 12, 0x20)
        assert wire.peek_rectype(self.CONTROL) == RepType.LOG
        assert wire.peek_generation(self.CONTROL) == 12
        assert wire.peek_lsn(self.CONTROL) == LSN(3, 400)

    @pytest.mark.parametrize(
        "peek", [wire.peek_control, wire.peek_rectype, wire.peek_generation, wire.peek_lsn]
    )
    def test_too_short(self, peek: object) -> None:
        assert callable(peek)
        with pytest.raises(RemoteProtocolError):
            peek(self.CONTROL[:35])


class TestMixup:
    @pytest.mark.parametrize(
        ("first_bytes", "code"),
        [
            (b"*1\r\n$4\r\nPING\r\n", "mixup_resp"),
            (b"PING\r\n", "mixup_resp"),
            (b"ping\n", "mixup_resp"),
            (b"GET key\r\n", "mixup_resp"),
            (b"-ERR Protocol error\r\n", "mixup_resp"),
            (b"GET / HTTP/1.1\r\n", "mixup_http"),
            (b"POST / HTTP/1.1\r\n", "mixup_http"),
            (b"HTTP/1.1 400 Bad Request\r\n", "mixup_http"),
            (b"PRI * HTTP/2.0\r\n", "mixup_http"),
            (b"\x16\x03\x01\x02\x00", "mixup_tls"),
            (b"\x15\x03\x01", "mixup_tls"),
            (b"\x16\x02", "not_replication"),
            (b"SSH-2.0-OpenSSH", "not_replication"),
            (b"\0", "not_replication"),
            (b"\3\0\0\0\x24", "not_replication"),
            (b"abcdefghijk", "not_replication"),
        ],
    )
    def test_verdict(self, first_bytes: bytes, code: str) -> None:
        with pytest.raises(RemoteProtocolError) as caught:
            check_first_bytes(first_bytes)
        assert caught.value.code == code
        assert caught.value.hint

    def test_undecided(self) -> None:
        assert not check_first_bytes(b"")
        assert not check_first_bytes(b"PIN")
        assert not check_first_bytes(b"GET ")
        assert not check_first_bytes(b"\x16")

    def test_a_password_is_not_quoted(self) -> None:
        with pytest.raises(RemoteProtocolError) as caught:
            check_first_bytes(b"AUTH secret\r\n")
        assert str(caught.value).endswith("(first bytes b'AUTH ')")

    def test_a_handshake(self) -> None:
        assert check_first_bytes(PROPOSAL[:1])


@pytest.mark.parametrize(
    "pair", [(1, 27800), (1 | 27800 << 32, 27800), (1, 27800 | 5 << 32), (-1 << 32 | 1, 27800)]
)
def test_an_lsn_of_the_binding_counts_by_its_lower_halves(pair: tuple[int, int]) -> None:
    assert wire.lsn_from_library(pair) == LSN(1, 27800)
