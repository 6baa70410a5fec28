"""The codec for any bytes: chunks never matter, garbage raises one kind of error only."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING

from hypothesis import example, given, settings
from hypothesis import strategies as st

from replication import bodies, handshake, wire
from replication.bodies import SiteAddress, SiteRecord
from replication.errors import RemoteProtocolError
from replication.mixup import check_first_bytes
from replication.wire import LSN, Frame, FrameDecoder, Header, Limits

if TYPE_CHECKING:
    from collections.abc import Callable

u16 = st.integers(1, 0xFFFF)
u32 = st.integers(0, 0xFFFFFFFF)
lsns = st.builds(LSN, u32, u32)
hosts = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=255)
addresses = st.builds(SiteAddress, hosts, u16)
records = st.builds(SiteRecord, hosts, u16, u32)

good_frames = st.one_of(
    st.builds(wire.encode_rep_message, st.binary(min_size=1, max_size=50), st.binary(max_size=90)),
    st.builds(wire.encode_ack, u32, lsns),
    st.builds(wire.encode_heartbeat, u32, lsns),
    st.builds(wire.encode_own, u32, st.binary(max_size=40)),
    st.builds(wire.encode_resp_error, u32, u32),
    st.builds(wire.encode_handshake, st.binary(min_size=1, max_size=20), st.binary(max_size=20)),
)
# Small limits make both sides of each of them likely.
SMALL = Limits(
    handshake_bytes_max=20,
    rep_control_bytes_max=50,
    rec_bytes_max=90,
    own_bytes_max=40,
    app_bytes_max=10,
)
small_headers = st.builds(
    lambda *words: Header(*words).encode(),
    st.integers(0, 10),
    st.integers(0, 100),
    st.integers(0, 100),
)
streams = st.lists(st.one_of(good_frames, small_headers, st.binary(max_size=30)), max_size=12).map(
    b"".join
)


def feed_all(chunks: list[bytes]) -> tuple[list[Frame], str | None, int]:
    decoder = FrameDecoder(SMALL)
    frames: list[Frame] = []
    for chunk in chunks:
        frames += decoder.feed(chunk)
        assert decoder.buffered_bytes <= 9 + 50 + 90
    return frames, str(decoder.error) if decoder.error else None, decoder.buffered_bytes


@settings(deadline=None, max_examples=300)
@given(streams, st.lists(st.integers(0, 400), max_size=8))
@example(b"\x03\0\0\0\x24\0\0\0\0" + bytes(36) + b"\xff", [])
def test_chunks_never_change_the_frames(stream: bytes, cuts: list[int]) -> None:
    whole = feed_all([stream])
    assert feed_all([bytes([byte]) for byte in stream]) == whole
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    assert feed_all([stream[a:b] for a, b in itertools.pairwise(edges)]) == whole


@settings(deadline=None, max_examples=200)
@given(st.lists(good_frames, max_size=10))
def test_what_is_encoded_comes_out(encoded: list[bytes]) -> None:
    frames, error, rest = feed_all([b"".join(encoded)])
    assert error is None
    assert rest == 0
    again = [Header(*frame[:3]).encode() + frame.control + frame.rec for frame in frames]
    assert again == encoded


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=64))
def test_one_frame_at_a_time_agrees_with_the_decoder(data: bytes) -> None:
    frames, error, _ = feed_all([data])
    at = 0
    found: list[Frame] = []
    failed: str | None = None
    try:
        while (got := wire.decode_frame(data[at:], SMALL)) is not None:
            found.append(got[0])
            at += got[1]
    except RemoteProtocolError as refused:
        failed = str(refused)
    assert (found, failed) == (frames, error)


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=80), st.binary(max_size=80), st.integers(0, 6))
def test_decoders_raise_one_kind_of_error(control: bytes, rec: bytes, version: int) -> None:
    decoders: list[Callable[[], object]] = [
        lambda: handshake.decode_hello(control, rec),
        lambda: handshake.decode_confirmation(control, rec),
        lambda: handshake.decode_introduction(control, rec),
        lambda: handshake.decode_parameters(control, version),
        lambda: bodies.decode_site_record(control),
        lambda: bodies.decode_membership_list(control),
        lambda: bodies.decode_connect_reject(control),
        lambda: bodies.decode_forward(control),
        lambda: bodies.decode_refresh(control),
        lambda: bodies.decode_standing(control),
        lambda: bodies.decode_stable_lsn(control),
        lambda: bodies.decode_app_metadata(control),
        lambda: wire.decode_ack(control),
        lambda: wire.peek_control(control),
        lambda: check_first_bytes(control),
    ]
    for decode in decoders:
        with contextlib.suppress(RemoteProtocolError):
            decode()


@settings(deadline=None, max_examples=100)
@given(addresses, u32, st.tuples(u32, u32).map(sorted), u32, u32)
def test_handshakes_come_back(
    address: SiteAddress, priority: int, versions: list[int], ack_policy: int, flags: int
) -> None:
    lowest, highest = versions
    parameters = handshake.Parameters(address.port, ack_policy, flags)
    hello, confirmation, introduction = FrameDecoder().feed(
        handshake.encode_hello(address, priority, (lowest, highest))
        + handshake.encode_confirmation(address.host, parameters)
        + handshake.encode_introduction(address.host, parameters)
    )
    assert handshake.decode_hello(hello.control, hello.rec) == (
        address,
        priority,
        (lowest, highest),
    )
    assert handshake.decode_confirmation(confirmation.control, confirmation.rec) == (
        address.host,
        4,
        parameters,
    )
    assert handshake.decode_introduction(introduction.control, introduction.rec) == (
        address.host,
        parameters,
    )


@settings(deadline=None, max_examples=100)
@given(u32, u32, st.lists(records, max_size=6), addresses)
def test_site_lists_and_forwards_come_back(
    version: int, generation: int, sites: list[SiteRecord], address: SiteAddress
) -> None:
    members = bodies.MembershipList(version, generation, tuple(sites))
    assert bodies.decode_membership_list(bodies.encode_membership_list(members)) == members
    for record in sites:
        assert bodies.decode_site_record(bodies.encode_site_record(record)) == record
    forward = bodies.encode_forward(address, generation)
    assert bodies.decode_forward(forward) == (address, generation)


# A tuple, not builds(): that would guess values of fields not named here, by their bare types.
standings = st.tuples(
    u32, lsns, lsns, u32, u32, u32, u32, st.none() | st.integers(0, 2**60), st.none() | addresses
).map(lambda fields: bodies.Standing(*fields))


@settings(deadline=None, max_examples=100)
@given(standings)
def test_standings_come_back(standing: bodies.Standing) -> None:
    assert bodies.decode_standing(bodies.encode_standing(standing)) == standing


@settings(deadline=None, max_examples=200)
@given(st.one_of(st.binary(max_size=12), st.text("GETPINHO /\r\n", max_size=12).map(str.encode)))
def test_the_verdict_on_first_bytes_depends_on_no_more_bytes(data: bytes) -> None:
    def verdict(first: bytes) -> str:
        try:
            return str(check_first_bytes(first))
        except RemoteProtocolError as error:
            return str(error)

    decided = [v for v in (verdict(data[:n]) for n in range(1, len(data) + 1)) if v != "False"]
    assert len(set(decided)) <= 1, "a longer prefix must not change the verdict"
    if len(data) >= wire.HEADER_BYTES:
        assert decided, "nine bytes are enough to tell"
