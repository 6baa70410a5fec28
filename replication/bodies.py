"""Site addresses, and what is inside OWN frames (sans-I/O).

    CONNECT_REJECT             version u32, generation u32
    GM_FORWARD                 host, port u16, generation u32
    JOIN_REQUEST, REMOVE_REQUEST, SITE_QUERY, INVITE    site record
    JOIN_SUCCESS, SHARING      version u32, generation u32, site records to the end
    PARM_REFRESH               ack policy u32, flags u32
    SITE_STANDING              see `Standing`
    STABLE_LSN                 generation u32, file u32, offset u32
    HANDOVER_*                 generation u32, file u32, offset u32, reason in UTF-8 to the end
    GENERATIONS                for each, to the end: generation u32, beginning: file u32,
                               offset u32, last commit before it: file u32, offset u32 (0, 0 when
                               that is not known)
    ROUND                      generation u32, number u32, lease in milliseconds u32
    ROUND_ANSWER               generation u32, number u32

    site record                host, port u16, status u32
    host                       length u32 (with NUL), text, NUL

Everything is big-endian.  A decoder raises RemoteProtocolError and nothing else, whatever the
bytes.  `replication.wire.encode_own` puts a body into its frame.

Source: the library's repmgr message formats, version 4.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

from replication.errors import LocalProtocolError, RemoteProtocolError
from replication.generations import Beginning
from replication.wire import LSN, LSN_ZERO

HOST_BYTES_MAX: Final = 255
REASON_BYTES_MAX: Final = 500
_U32: Final = struct.Struct(">I")
_TWO_U32: Final = struct.Struct(">II")
_U64: Final = struct.Struct(">Q")
_NO_ADDRESS: Final = bytes(6)
_STANDING: Final = struct.Struct(">IIIIIIIIIIQ")
_STANDING_FORMAT: Final = 1
_BEGINNING: Final = struct.Struct(">IIIII")
_APP_WANTS_ANSWER: Final = 0x02
_NEVER: Final = 0xFFFFFFFFFFFFFFFF
# Native sites send 0x02 for "electable" in PARM_REFRESH but test 0x04: read both, send both.
_REFRESH_ELECTABLE: Final = 0x06


class SiteAddress(NamedTuple):
    """A site's identity: host string and port, compared byte by byte.

    `localhost` and `127.0.0.1` are two sites; one spelling must be used everywhere.
    """

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class SiteRecord(NamedTuple):
    """A site with its status (see SiteStatus; 0 in a request)."""

    host: str
    port: int
    status: int = 0

    @property
    def address(self) -> SiteAddress:
        """The site's identity."""
        return SiteAddress(self.host, self.port)


class MembershipList(NamedTuple):
    """A site list with its age: (generation, version), generation first, says which is newer."""

    version: int
    generation: int
    sites: tuple[SiteRecord, ...]


class ConnectReject(NamedTuple):
    """The rejecting site's membership version and generation."""

    version: int
    generation: int


class Forward(NamedTuple):
    """The site to ask instead, and the generation of the group in which it is master."""

    address: SiteAddress
    generation: int


class Refresh(NamedTuple):
    """A site's changed ack policy and electability."""

    ack_policy: int
    electable: bool


class Standing(NamedTuple):
    """What a site holds, for the decision who may become master.

    Args:
        generation: the replication generation it last saw.
        last_lsn: end of its log.
        stable_lsn: the highest LSN it knows to have been answered OK.
        priority: its priority; 0 never becomes master.
        flags: see StandingFlag.
        membership_version: version of its site list, 0 without one.
        membership_generation: generation of its site list.
        last_contact_ms: age of the last sign of life from a master; None for never.
        master: whom it takes for the master, if anybody.
        group_id: random number of the group its data belongs to, 0 if unknown.
        clients: where it serves clients, if it says so.
    """

    generation: int
    last_lsn: LSN
    stable_lsn: LSN
    priority: int
    flags: int
    membership_version: int = 0
    membership_generation: int = 0
    last_contact_ms: int | None = None
    master: SiteAddress | None = None
    group_id: int = 0
    clients: SiteAddress | None = None


class HandoverWord(NamedTuple):
    """What two sites say while one hands the master's role over to the other.

    Args:
        generation: the old master's.
        lsn: its last permanent record.
        reason: why not, empty otherwise.
    """

    generation: int
    lsn: LSN
    reason: str = ""


class BodyReader:
    """Reads the fields of one body in order; every shortage is a RemoteProtocolError."""

    __slots__ = ("_at", "_data", "_what")

    def __init__(self, what: str, data: bytes) -> None:
        self._what = what
        self._data = data
        self._at = 0

    def take(self, length: int) -> bytes:
        rest = len(self._data) - self._at
        if length > rest:
            raise self.error(f"{rest} bytes left where {length} bytes are needed")
        self._at += length
        return self._data[self._at - length : self._at]

    def skip(self, expected: bytes) -> bool:
        """Go past `expected` if it comes next; tell whether it did."""
        found = self._data.startswith(expected, self._at)
        if found:
            self._at += len(expected)
        return found

    def u16(self) -> int:
        return int.from_bytes(self.take(2))

    def u32(self) -> int:
        return int.from_bytes(self.take(4))

    def host(self) -> str:
        length = self.u32()
        if not 2 <= length <= HOST_BYTES_MAX + 1:
            raise self.error(f"host of {length} bytes, allowed are 2 to {HOST_BYTES_MAX + 1}")
        return self.host_text(self.take(length)[:-1])  # the receiver puts the last NUL itself

    def host_text(self, raw: bytes) -> str:
        if not _is_host(raw):
            raise self.error(f"host {raw[:64]!r} is not printable ASCII of 1 to 255 bytes")
        return raw.decode("ascii")

    def port(self) -> int:
        port = self.u16()
        if port == 0:
            raise self.error("port 0")
        return port

    def site_record(self) -> SiteRecord:
        return SiteRecord(self.host(), self.port(), self.u32())

    def more(self) -> bool:
        return self._at < len(self._data)

    def end(self) -> None:
        if self.more():
            raise self.error(f"{len(self._data) - self._at} bytes too many")

    def error(self, problem: str) -> RemoteProtocolError:
        return RemoteProtocolError(
            f"{self._what} refused: {problem}",
            code="malformed_body",
            hint="make sure that the other side speaks repmgr protocol 4",
            what=self._what,
            where=self._at,
        )


def _is_host(raw: bytes) -> bool:
    # Names go into logs and are compared byte by byte: no blank, no control, nothing to normalise.
    return 0 < len(raw) <= HOST_BYTES_MAX and all(0x21 <= byte <= 0x7E for byte in raw)


def check_address(address: SiteAddress) -> SiteAddress:
    """Return the address if it can be sent.

    Raises:
        LocalProtocolError: host empty, too long or not printable ASCII, or port out of 1..65535.
    """
    raw = address.host.encode("utf-8", "replace")
    if not _is_host(raw) or not 0 < address.port <= 0xFFFF:
        raise LocalProtocolError(
            f"site address {address.host[:64]!r} port {address.port} can't be sent: a host of 1 to"
            f" {HOST_BYTES_MAX} printable ASCII characters and a port of 1 to 65535 are needed",
            code="bad_address",
            hint="correct the address of the site in DB_CONFIG",
            host=address.host,
            port=address.port,
        )
    return address


def encode_host_port(address: SiteAddress) -> bytes:
    """Encode a site's identity as it stands in records and as a membership key."""
    host, port = check_address(address)
    raw = host.encode("ascii") + b"\0"
    return _U32.pack(len(raw)) + raw + port.to_bytes(2)


def decode_host_port(what: str, data: bytes) -> SiteAddress:
    """Decode a site's identity that must fill `data`; `what` names it in an error."""
    body = BodyReader(what, data)
    address = SiteAddress(body.host(), body.port())
    body.end()
    return address


def encode_site_record(record: SiteRecord) -> bytes:
    """Encode one site with its status."""
    return encode_host_port(record.address) + _U32.pack(record.status)


def decode_site_record(data: bytes) -> SiteRecord:
    """Decode the body of JOIN_REQUEST, REMOVE_REQUEST and SITE_QUERY."""
    body = BodyReader("site record", data)
    record = body.site_record()
    body.end()
    return record


def encode_membership_list(sites: MembershipList) -> bytes:
    """Encode a site list; `Membership.share_for` is what decides who may be sent it."""
    head = _TWO_U32.pack(sites.version, sites.generation)
    return head + b"".join(map(encode_site_record, sites.sites))


def decode_membership_list(data: bytes) -> MembershipList:
    """Decode a site list; `Membership.from_list` is what judges it."""
    body = BodyReader("membership list", data)
    version, generation = body.u32(), body.u32()
    sites = []
    while body.more():
        sites.append(body.site_record())
    return MembershipList(version, generation, tuple(sites))


def encode_connect_reject(version: int, generation: int) -> bytes:
    """Encode the body of CONNECT_REJECT."""
    return _TWO_U32.pack(version, generation)


def decode_connect_reject(data: bytes) -> ConnectReject:
    """Decode the body of CONNECT_REJECT."""
    body = BodyReader("connect reject", data)
    reject = ConnectReject(body.u32(), body.u32())
    body.end()
    return reject


def encode_forward(address: SiteAddress, generation: int) -> bytes:
    """Encode the body of GM_FORWARD."""
    return encode_host_port(address) + _U32.pack(generation)


def decode_forward(data: bytes) -> Forward:
    """Decode the body of GM_FORWARD."""
    body = BodyReader("forward", data)
    forward = Forward(SiteAddress(body.host(), body.port()), body.u32())
    body.end()
    return forward


def encode_refresh(ack_policy: int, *, electable: bool) -> bytes:
    """Encode the body of PARM_REFRESH so that native sites read it right."""
    return _TWO_U32.pack(ack_policy, _REFRESH_ELECTABLE if electable else 0)


def decode_refresh(data: bytes) -> Refresh:
    """Decode the body of PARM_REFRESH as the sender meant it."""
    body = BodyReader("parameter refresh", data)
    ack_policy, flags = body.u32(), body.u32()
    body.end()
    return Refresh(ack_policy, bool(flags & _REFRESH_ELECTABLE))


def encode_standing(standing: Standing) -> bytes:
    """Encode the body of SITE_STANDING.

    Eleven numbers, the master (empty for none), the group's id u64, where clients are served
    (empty for none). Fields may be appended in later versions of ttserver, never moved.
    """
    age_ms = standing.last_contact_ms
    head = _STANDING.pack(
        _STANDING_FORMAT,
        standing.generation,
        *standing.last_lsn,
        *standing.stable_lsn,
        standing.priority,
        standing.flags,
        standing.membership_version,
        standing.membership_generation,
        _NEVER if age_ms is None else min(age_ms, _NEVER - 1),
    )
    return b"".join(
        (
            head,
            _encode_optional(standing.master),
            _U64.pack(standing.group_id),
            _encode_optional(standing.clients),
        )
    )


def decode_standing(data: bytes) -> Standing:
    """Decode the body of SITE_STANDING; fields of later versions at its end are skipped."""
    body = BodyReader("site standing", data)
    (format_, generation, last_file, last_offset, stable_file, stable_offset, *rest) = (
        _STANDING.unpack(body.take(_STANDING.size))
    )
    if format_ != _STANDING_FORMAT:
        raise body.error(f"format {format_} instead of {_STANDING_FORMAT}")
    priority, flags, membership_version, membership_generation, age_ms = rest
    master = _decode_optional(body)
    (group_id,) = _U64.unpack(body.take(_U64.size))
    clients = _decode_optional(body)
    return Standing(
        generation,
        LSN(last_file, last_offset),
        LSN(stable_file, stable_offset),
        priority,
        flags,
        membership_version,
        membership_generation,
        None if age_ms == _NEVER else age_ms,
        master,
        group_id,
        clients,
    )


def _encode_optional(address: SiteAddress | None) -> bytes:
    """An address, or six zero bytes: a length no host string has."""
    return _NO_ADDRESS if address is None else encode_host_port(address)


def _decode_optional(body: BodyReader) -> SiteAddress | None:
    if body.skip(_NO_ADDRESS):
        return None
    return SiteAddress(body.host(), body.port())


def encode_stable_lsn(generation: int, lsn: LSN) -> bytes:
    """Encode the body of STABLE_LSN."""
    return _U32.pack(generation) + _TWO_U32.pack(*lsn)


def decode_stable_lsn(data: bytes) -> tuple[int, LSN]:
    """Decode the body of STABLE_LSN into generation and LSN."""
    body = BodyReader("stable LSN", data)
    return body.u32(), LSN(body.u32(), body.u32())


def encode_handover(word: HandoverWord) -> bytes:
    """Encode the body of a HANDOVER message."""
    reason = word.reason.encode()[:REASON_BYTES_MAX]
    return _U32.pack(word.generation) + _TWO_U32.pack(*word.lsn) + reason


def decode_handover(data: bytes) -> HandoverWord:
    """Decode the body of a HANDOVER message."""
    body = BodyReader("handover", data[:12])
    generation, lsn = body.u32(), LSN(body.u32(), body.u32())
    return HandoverWord(generation, lsn, data[12:][:REASON_BYTES_MAX].decode(errors="replace"))


def encode_generations(beginnings: Iterable[Beginning]) -> bytes:
    """Encode the body of GENERATIONS."""
    return b"".join(
        _BEGINNING.pack(each.generation, *each.lsn, *(each.kept or LSN_ZERO)) for each in beginnings
    )


def decode_generations(data: bytes) -> tuple[Beginning, ...]:
    """Decode the body of GENERATIONS."""
    body = BodyReader("beginnings of generations", data)
    beginnings = []
    while body.more():
        generation, file, offset, *kept = _BEGINNING.unpack(body.take(_BEGINNING.size))
        beginnings.append(
            Beginning(generation, LSN(file, offset), LSN(*kept) if any(kept) else None)
        )
    return tuple(beginnings)


def decode_app_metadata(data: bytes) -> tuple[int, bool]:
    """Return tag and "wants an answer" from the end of an application message."""
    body = BodyReader("application message", data[-12:])
    tag, _, flags = body.u32(), body.u32(), body.u32()
    return tag, bool(flags & _APP_WANTS_ANSWER)


def encode_round(generation: int, number: int, lease_s: float) -> bytes:
    """Encode the body of ROUND."""
    return _U32.pack(generation) + _TWO_U32.pack(number, round(lease_s * 1000))


def decode_round(data: bytes) -> tuple[int, int, float]:
    """Decode the body of ROUND into generation, number and lease."""
    body = BodyReader("round", data)
    return body.u32(), body.u32(), body.u32() / 1000


def encode_round_answer(generation: int, number: int) -> bytes:
    """Encode the body of ROUND_ANSWER."""
    return _TWO_U32.pack(generation, number)


def decode_round_answer(data: bytes) -> tuple[int, int]:
    """Decode the body of ROUND_ANSWER into generation and number."""
    body = BodyReader("answer to a round", data)
    return body.u32(), body.u32()
