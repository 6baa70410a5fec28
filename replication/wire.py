"""Frames: the codec of everything that travels between two sites (sans-I/O).

Every frame is a 9-byte header (type, word 1, word 2; big-endian, no padding) and up to two parts:

    type          word 1           word 2        parts             limit (see Limits)
    1 PERMLSN     12               0             ack               exactly 12 bytes
    2 HANDSHAKE   control length   rec length    control, rec      1 KiB each
    3 REP_MESSAGE control length   rec length    control, rec      4 KiB, 64 MiB
    4 HEARTBEAT   12 (0: old form) 0             like an ack       12 bytes
    5 APP_MESSAGE body length      segments      body              1 MiB
    6 APP_RESPONSE body length     tag           body              1 MiB
    7 RESP_ERROR  error code       tag           none              none
    8 OWN         body length      OWN code      body              1 MiB

The trap is word 2: a length for types 2 and 3 only.  A header is judged before one byte of its body
is kept, so memory is bounded by what was announced and accepted.  What is inside HANDSHAKE and OWN
is in `replication.handshake` and `replication.bodies`; who may send which frame when is in
`replication.peer`.

Source: the library's repmgr message formats, version 4.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, NamedTuple

from replication.errors import LocalProtocolError, RemoteProtocolError
from replication.messages import MessageType

HEADER_BYTES: Final = 9
ACK_BYTES: Final = 12
ACK_FRAME_BYTES: Final = HEADER_BYTES + ACK_BYTES
REP_CONTROL_BYTES: Final = 36

_HEADER: Final = struct.Struct(">BII")
_ACK_FRAME: Final = struct.Struct(">BIIIII")
_ACK_BODY: Final = struct.Struct(">III")
_REP_CONTROL: Final = struct.Struct(">IIIIIIIII")
_U32: Final = struct.Struct(">I")
_TWO_U32: Final = struct.Struct(">II")
_ACK_HEADER: Final = _HEADER.pack(MessageType.PERMLSN, ACK_BYTES, 0)

_U32_MAX: Final = 0xFFFFFFFF
_HANDSHAKE: Final = int(MessageType.HANDSHAKE)
_REP_MESSAGE: Final = int(MessageType.REP_MESSAGE)
_PERMLSN: Final = int(MessageType.PERMLSN)
_HEARTBEAT: Final = int(MessageType.HEARTBEAT)


class LSN(NamedTuple):
    """A place in the log: file number, byte offset in it.  Ordered."""

    file: int
    offset: int

    def __str__(self) -> str:
        return f"{self.file}/{self.offset}"


LSN_ZERO: Final = LSN(0, 0)


def lsn_from_library(pair: tuple[int, int]) -> LSN:
    """Take an LSN from the Berkeley DB binding.

    The binding hands two 32-bit numbers to a C function that takes 64-bit ones, so the upper half
    of each is whatever stood there: depending on how it was compiled, the offset in the file's.
    """
    return LSN(pair[0] & _U32_MAX, pair[1] & _U32_MAX)


LSN_MAX: Final = LSN(_U32_MAX, _U32_MAX)


class Header(NamedTuple):
    """The 9 bytes before every frame's body."""

    type: int
    word1: int
    word2: int

    def encode(self) -> bytes:
        """Return the 9 bytes."""
        return _HEADER.pack(*self)

    @classmethod
    def decode(cls, data: bytes | bytearray | memoryview, at: int = 0) -> Header:
        """Read a header at offset `at`; the caller has made sure that 9 bytes are there."""
        return cls(*_HEADER.unpack_from(data, at))


class Frame(NamedTuple):
    """One complete frame; for types 2 and 3 both parts, for the others the body in `control`."""

    type: int
    word1: int
    word2: int
    control: bytes
    rec: bytes


_new_tuple = (
    tuple.__new__
)  # of a Frame: three times as fast as calling it, which counts by the million


class RepControl(NamedTuple):
    """What the library writes into the control part of a REP_MESSAGE (without its clock)."""

    rep_version: int
    log_version: int
    lsn: LSN
    rectype: int
    generation: int
    flags: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What a decoder accepts: how long the parts may be and which frame types may come.

    The library's longest legitimate record is a bulk buffer (1 MiB unless set higher) or the file
    list of an environment with very many files; 64 MiB leaves room without letting one peer name a
    length that takes the machine down.
    """

    handshake_bytes_max: int = 1024
    rep_control_bytes_max: int = 4096
    rec_bytes_max: int = 64 * 1024 * 1024
    own_bytes_max: int = 1024 * 1024
    app_bytes_max: int = 1024 * 1024
    types: frozenset[int] = frozenset(MessageType)
    where: str = "on this link"


def body_sizes(header: Header, limits: Limits) -> tuple[int, int]:
    """Return the lengths of a frame's two parts, having judged its header.

    Raises:
        RemoteProtocolError: type unknown or not expected here, or a length beyond its limit.
    """
    type_, word1, word2 = header
    if type_ not in limits.types:
        raise _unexpected_type(type_, limits)
    name = MessageType(type_).name
    match type_:
        case MessageType.REP_MESSAGE:
            _check_length(name, "control part", word1, 1, limits.rep_control_bytes_max)
            _check_length(name, "rec part", word2, 0, limits.rec_bytes_max)
            return word1, word2
        case MessageType.HANDSHAKE:
            _check_length(name, "control part", word1, 1, limits.handshake_bytes_max)
            _check_length(name, "rec part", word2, 0, limits.handshake_bytes_max)
            return word1, word2
        case MessageType.PERMLSN:
            _check_length(name, "body", word1, ACK_BYTES, ACK_BYTES)
            _check_length(name, "second part", word2, 0, 0)
        case MessageType.HEARTBEAT:
            # An empty one is the form of older protocols: a sign of life without an LSN.
            _check_length(name, "body", word1, ACK_BYTES if word1 else 0, ACK_BYTES)
            _check_length(name, "second part", word2, 0, 0)
        case MessageType.RESP_ERROR:
            return 0, 0
        case MessageType.OWN:
            _check_length(name, "body", word1, 0, limits.own_bytes_max)
        case _:
            _check_length(name, "body", word1, 0, limits.app_bytes_max)
    return word1, 0


def _unexpected_type(type_: int, limits: Limits) -> RemoteProtocolError:
    if type_ in frozenset(MessageType):
        return RemoteProtocolError(
            f"frame refused {limits.where}: {MessageType(type_).name} is not expected there",
            code="unexpected_message",
            hint="make sure that the other side speaks repmgr protocol 4",
            what=MessageType(type_).name,
            where=limits.where,
        )
    return RemoteProtocolError(
        f"frame refused {limits.where}: type {type_} is none of repmgr protocol 4 (1 to 8)",
        code="unknown_type",
        hint="make sure that the other side is a replication site",
        what=type_,
        where=limits.where,
    )


def _check_length(name: str, part: str, length: int, least: int, limit: int) -> None:
    if length < least:
        raise RemoteProtocolError(
            f"frame refused: {name} announces a {part} of {length} bytes, it needs {least} bytes",
            code="frame_too_small",
            hint="make sure that the other side speaks repmgr protocol 4",
            what=name,
            where=part,
            bytes=length,
            least=least,
        )
    if length > limit:
        raise RemoteProtocolError(
            f"frame refused: {name} announces a {part} of {length} bytes, the limit is"
            f" {limit} bytes",
            code="frame_too_large",
            hint="make sure that the other side is a replication site",
            what=name,
            where=part,
            bytes=length,
            limit=limit,
        )


def decode_frame(data: bytes | bytearray, limits: Limits) -> tuple[Frame, int] | None:
    """Decode the frame at the start of `data`, if it is there as a whole.

    For the handshake, where each frame decides what the next may be; a ready link uses
    FrameDecoder.

    Returns:
        The frame and how many bytes it took; None while bytes are missing.

    Raises:
        RemoteProtocolError: from body_sizes, as soon as the header is there.
    """
    if len(data) < HEADER_BYTES:
        return None
    header = Header.decode(data)
    control_bytes, rec_bytes = body_sizes(header, limits)
    rec_at = HEADER_BYTES + control_bytes
    end = rec_at + rec_bytes
    if len(data) < end:
        return None
    return Frame(*header, bytes(data[HEADER_BYTES:rec_at]), bytes(data[rec_at:end])), end


def rep_messages(data: bytes, limits: Limits) -> tuple[list[Frame], int]:
    """Cut the whole replication messages off the start of `data`.

    Returns:
        The messages, and how many bytes they took: whatever is behind (another type, a part of a
        message, a length beyond its limit) is for a FrameDecoder.
    """
    frames: list[Frame] = []
    at, end = 0, len(data)
    control_max, rec_max = limits.rep_control_bytes_max, limits.rec_bytes_max
    while at + HEADER_BYTES <= end:
        type_, word1, word2 = _HEADER.unpack_from(data, at)
        rec_at = at + HEADER_BYTES + word1
        stop = rec_at + word2
        if type_ != _REP_MESSAGE or not 0 < word1 <= control_max or word2 > rec_max or stop > end:
            break
        parts = type_, word1, word2, data[at + HEADER_BYTES : rec_at], data[rec_at:stop]
        frames.append(_new_tuple(Frame, parts))
        at = stop
    return frames, at


class FrameDecoder:
    """Cut a byte stream into frames, a chunk at a time; the hot path of a ready link.

    The frames of a chunk are cut straight out of it; only a frame that straddles two chunks is put
    together in a buffer, which grows with the bytes that came and never with those announced.

    `feed` does not raise: what came before a bad header is still good.  It returns those frames and
    sets `error`; from then on it returns nothing.
    """

    __slots__ = ("_control_bytes", "_frame_bytes", "_header", "_limits", "_partial", "error")

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits if limits is not None else Limits()
        self._partial = bytearray()  # start of a frame that is not complete
        self._header: Header | None = None  # its header, once that is there and judged
        self._control_bytes = 0
        self._frame_bytes = HEADER_BYTES  # how long _partial must get before it is looked at
        self.error: RemoteProtocolError | None = None

    @property
    def buffered_bytes(self) -> int:
        """How many bytes of an incomplete frame are held."""
        return len(self._partial)

    @property
    def missing_bytes(self) -> int:
        """How many bytes the incomplete frame lacks, as far as is known; 0 between frames."""
        return self._frame_bytes - len(self._partial) if self._partial else 0

    def feed(self, data: bytes | bytearray | memoryview) -> list[Frame]:
        """Take the next bytes of the stream and return the frames they complete, in order."""
        frames: list[Frame] = []
        if self.error is not None:
            return frames
        chunk = data if type(data) is bytes else bytes(data)
        try:
            at = self._complete(chunk, frames) if self._partial else 0
            if at < len(chunk):
                self._cut(chunk, at, frames)
        except RemoteProtocolError as error:
            self.error = error
            self._partial = bytearray()
        return frames

    def _cut(self, data: bytes, at: int, frames: list[Frame]) -> None:
        """Cut all complete frames out of `data` from `at` on and keep the rest."""
        limits = self._limits
        accepts_rep = _REP_MESSAGE in limits.types
        control_max = limits.rep_control_bytes_max if accepts_rep else 0
        rec_max = limits.rec_bytes_max
        accepts_ack = _PERMLSN in limits.types
        unpack = _HEADER.unpack_from
        new = tuple.__new__  # skips the argument handling of Frame(...): a third of the time
        append = frames.append
        end = len(data)
        last_header_at = end - HEADER_BYTES
        rest_is_judged = False
        control_bytes = 0
        stop = at
        while at <= last_header_at:
            type_, word1, word2 = header = unpack(data, at)
            start = at + HEADER_BYTES
            # The two frames that make up the traffic are judged here; body_sizes says the same.
            if type_ == _REP_MESSAGE and 0 < word1 <= control_max and word2 <= rec_max:
                rec_at = start + word1
                stop = rec_at + word2
            elif type_ == _PERMLSN and word1 == ACK_BYTES and word2 == 0 and accepts_ack:
                rec_at = stop = start + ACK_BYTES
            else:
                control_bytes, rec_bytes = body_sizes(Header(*header), limits)
                rec_at = start + control_bytes
                stop = rec_at + rec_bytes
            if stop > end:
                rest_is_judged = True
                control_bytes = rec_at - start
                break
            append(new(Frame, (type_, word1, word2, data[start:rec_at], data[rec_at:stop])))
            at = stop
        if at < end:
            self._partial = bytearray(data[at:])
            if rest_is_judged:
                self._header = Header.decode(data, at)
                self._control_bytes = control_bytes
                self._frame_bytes = stop - at

    def _complete(self, data: bytes, frames: list[Frame]) -> int:
        """Complete the frame in the buffer; return how many bytes of `data` that took."""
        partial = self._partial
        at = 0
        while True:
            missing = self._frame_bytes - len(partial)
            partial += data[at : at + missing]
            at += missing
            if at > len(data):
                return len(data)
            if self._header is None:
                header = Header.decode(partial)
                control_bytes, rec_bytes = body_sizes(header, self._limits)
                self._header = header
                self._control_bytes = control_bytes
                self._frame_bytes = HEADER_BYTES + control_bytes + rec_bytes
                continue
            rec_at = HEADER_BYTES + self._control_bytes
            with memoryview(partial) as view:
                frames.append(
                    Frame(*self._header, bytes(view[HEADER_BYTES:rec_at]), bytes(view[rec_at:]))
                )
            self._partial = bytearray()
            self._header = None
            self._frame_bytes = HEADER_BYTES
            return at


def encode_rep_message(control: bytes, rec: bytes) -> bytes:
    """Encode what the library's send callback was given.

    Raises:
        LocalProtocolError: the control part is empty, which every receiver refuses.
    """
    if not control:
        raise LocalProtocolError(
            "replication message without a control part: a receiver closes the link on it",
            code="empty_control",
            hint="report this as a bug of ttserver",
        )
    return b"".join((_HEADER.pack(_REP_MESSAGE, len(control), len(rec)), control, rec))


def encode_ack(generation: int, lsn: LSN) -> bytes:
    """Encode PERMLSN: everything up to `lsn` of that generation is safe at this site."""
    return _ACK_FRAME.pack(_PERMLSN, ACK_BYTES, 0, generation, lsn[0], lsn[1])


def encode_heartbeat(generation: int, lsn: LSN) -> bytes:
    """Encode a master's heartbeat with its generation and last permanent LSN."""
    return _ACK_FRAME.pack(_HEARTBEAT, ACK_BYTES, 0, generation, lsn[0], lsn[1])


def encode_own(code: int, body: bytes = b"") -> bytes:
    """Encode an OWN message; for this type word 2 is the code, not a length."""
    return _HEADER.pack(MessageType.OWN, len(body), code) + body


def encode_handshake(control: bytes, rec: bytes) -> bytes:
    """Encode a HANDSHAKE frame; `replication.handshake` makes its two parts."""
    return b"".join((_HEADER.pack(_HANDSHAKE, len(control), len(rec)), control, rec))


def encode_resp_error(error: int, tag: int) -> bytes:
    """Encode the answer "refused" to an application's channel request; it has no body.

    Args:
        error: the library's error number with its sign turned to plus.
        tag: the tag of the request.
    """
    return _HEADER.pack(MessageType.RESP_ERROR, error, tag)


def last_ack(data: bytes) -> tuple[int, LSN] | None:
    """Return the last of a run of PERMLSN frames; None when `data` is anything else."""
    for at in range(0, len(data), ACK_FRAME_BYTES):
        if data[at : at + HEADER_BYTES] != _ACK_HEADER:
            return None
    generation, file, offset = _ACK_BODY.unpack_from(data, len(data) - ACK_BYTES)
    return generation, LSN(file, offset)


def decode_ack(body: bytes) -> tuple[int, LSN]:
    """Return generation and LSN of a PERMLSN or HEARTBEAT body of 12 bytes."""
    if len(body) != ACK_BYTES:
        raise RemoteProtocolError(
            f"acknowledgement of {len(body)} bytes instead of {ACK_BYTES} bytes",
            code="bad_length",
            hint="make sure that the other side speaks repmgr protocol 4",
            bytes=len(body),
        )
    generation, file, offset = _ACK_BODY.unpack(body)
    return generation, LSN(file, offset)


def peek_control(control: bytes) -> RepControl:
    """Return the fields of a REP_MESSAGE's control part.

    Raises:
        RemoteProtocolError: fewer than 36 bytes.
    """
    _check_control(control)
    fields = _REP_CONTROL.unpack_from(control)
    lsn = LSN(fields[2], fields[3])
    return RepControl(fields[0], fields[1], lsn, fields[4], fields[5], fields[8])


def peek_rectype(control: bytes) -> int:
    """Return only the record type (see RepType) of a control part."""
    _check_control(control)
    rectype: int = _U32.unpack_from(control, 16)[0]
    return rectype


def peek_generation(control: bytes) -> int:
    """Return only the generation of a control part; an ack must carry it."""
    _check_control(control)
    generation: int = _U32.unpack_from(control, 20)[0]
    return generation


def peek_lsn(control: bytes) -> LSN:
    """Return only the LSN of a control part."""
    _check_control(control)
    return LSN(*_TWO_U32.unpack_from(control, 8))


def _check_control(control: bytes) -> None:
    if len(control) < REP_CONTROL_BYTES:
        raise RemoteProtocolError(
            f"replication message refused: control part of {len(control)} bytes instead of"
            f" {REP_CONTROL_BYTES} bytes",
            code="bad_length",
            hint="make sure that the other site runs Berkeley DB 5.3",
            bytes=len(control),
        )
