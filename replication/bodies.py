"""What is inside HANDSHAKE and OWN frames (sans-I/O).

Handshake (who dials speaks first):

    1 dialler   control: legacy struct       rec: host NUL, min u32, max u32, NUL     Hello
    2 acceptor  control: parameters          rec: host NUL, version u32, NUL          Confirmation
    3 dialler   control: parameters          rec: host NUL                            Introduction

    parameters  version 4: port u16, alignment u16 (8), ack policy u32, flags u32
                version 3: port u16, priority u32, flags u32;  version 2: port u16, priority u32
    legacy      a dumped C struct in the *sender's* byte order: 1 u32, port u16, 2 bytes of padding;
                then the priority u32 in network order

The receiver overwrites the last byte of rec with NUL before it parses: hence the NUL at its end,
and hence "rec is exactly the host string" means a peer of version 1, which knows no versions.

OWN bodies:

    CONNECT_REJECT             version u32, generation u32
    GM_FORWARD                 host, port u16, generation u32
    JOIN_REQUEST, REMOVE_REQUEST, SITE_QUERY    site record
    JOIN_SUCCESS, SHARING      version u32, generation u32, site records to the end
    PARM_REFRESH               ack policy u32, flags u32
    SITE_STANDING              see `Standing`;  STABLE_LSN   generation u32, file u32, offset u32

    site record                host, port u16, status u32;  host = length u32 (with NUL), text, NUL

Everything is big-endian except the legacy struct.  A decoder raises RemoteProtocolError and nothing
else, whatever the bytes.

Source: the library's repmgr message formats, version 4.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from replication.errors import LocalProtocolError, RemoteProtocolError
from replication.messages import PROTOCOL_VERSION, ParamFlag
from replication.wire import LSN, encode_handshake

HOST_BYTES_MAX: Final = 255
PRIORITY_MAX: Final = 0xFFFFFFFF
_ALIGNMENT: Final = 8  # sizeof(double), which native sites of every kind announce
_LEGACY: Final = struct.Struct("<IHH")
_PARAMETERS: Final = struct.Struct(">HHII")
_PARAMETERS_3: Final = struct.Struct(">HII")
_PARAMETERS_2: Final = struct.Struct(">HI")
_U32: Final = struct.Struct(">I")
_TWO_U32: Final = struct.Struct(">II")
_STANDING: Final = struct.Struct(">IIIIIIIIIIQ")
_STANDING_FORMAT: Final = 1
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


class Parameters(NamedTuple):
    """What a site says of itself in a handshake.

    `priority` is known from version 2 and 3 parameters only; version 4 says no more than whether it
    is above 0, which is in `flags`.
    """

    port: int
    ack_policy: int
    flags: int
    priority: int | None = None


class Hello(NamedTuple):
    """Step 1: who dials, and which versions it proposes (None: version 1, it can't propose)."""

    address: SiteAddress
    priority: int
    versions: tuple[int, int] | None


class Confirmation(NamedTuple):
    """Step 2: who was dialled and which version it chose (1: it knows no other)."""

    host: str
    version: int
    parameters: Parameters

    @property
    def address(self) -> SiteAddress:
        """The site's identity as it names itself."""
        return SiteAddress(self.host, self.parameters.port)


class Introduction(NamedTuple):
    """Step 3 of a replication connection: the dialler's parameters."""

    host: str
    parameters: Parameters

    @property
    def address(self) -> SiteAddress:
        """The site's identity as it names itself."""
        return SiteAddress(self.host, self.parameters.port)


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


class _Body:
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
    body = _Body(what, data)
    address = SiteAddress(body.host(), body.port())
    body.end()
    return address


# --- handshake: whole frames -------------------------------------------------------------------


def encode_hello(
    address: SiteAddress,
    priority: int,
    versions: tuple[int, int] = (PROTOCOL_VERSION, PROTOCOL_VERSION),
) -> bytes:
    """Encode step 1.

    The struct goes out in the byte order of x86, whatever this machine is: with protocol 4 nobody
    reads its port, and a fixed order keeps the bytes the same everywhere.
    """
    host, port = check_address(address)
    control = _LEGACY.pack(1, port, 0) + _U32.pack(priority)
    rec = host.encode("ascii") + b"\0" + _TWO_U32.pack(*versions) + b"\0"
    return encode_handshake(control, rec)


def decode_hello(control: bytes, rec: bytes) -> Hello:
    """Decode step 1, of version 1 peers too."""
    body = _Body("hello", control)
    legacy = body.take(8)
    priority = body.u32()
    body.end()
    # The leading 1 tells the sender's byte order.
    if legacy.startswith(b"\1\0\0\0"):
        port = int.from_bytes(legacy[4:6], "little")
    elif legacy.startswith(b"\0\0\0\1"):
        port = int.from_bytes(legacy[4:6], "big")
    else:
        raise body.error(f"legacy struct starts with {legacy[:4].hex()} instead of 1")
    host, versions = _split_rec("hello", rec)
    address = SiteAddress(host, port)
    if versions is None:
        return Hello(address, priority, None)
    lowest, highest = versions.u32(), versions.u32()
    if lowest > highest:
        raise versions.error(f"versions {lowest} to {highest}")
    return Hello(address, priority, (lowest, highest))


def encode_confirmation(
    host: str, parameters: Parameters, version: int = PROTOCOL_VERSION
) -> bytes:
    """Encode step 2."""
    check_address(SiteAddress(host, parameters.port))
    rec = host.encode("ascii") + b"\0" + _U32.pack(version) + b"\0"
    return encode_handshake(encode_parameters(parameters), rec)


def decode_confirmation(control: bytes, rec: bytes) -> Confirmation:
    """Decode step 2 of any version."""
    host, chosen = _split_rec("confirmation", rec)
    if chosen is None:
        hello = decode_hello(control, rec)  # a version 1 site answers with what it would dial with
        flags = ParamFlag.ELECTABLE if hello.priority else 0
        parameters = Parameters(hello.address.port, 0, flags, hello.priority)
        return Confirmation(host, 1, parameters)
    version = chosen.u32()
    return Confirmation(host, version, decode_parameters(control, version))


def encode_introduction(host: str, parameters: Parameters) -> bytes:
    """Encode step 3 of a replication connection."""
    check_address(SiteAddress(host, parameters.port))
    return encode_handshake(encode_parameters(parameters), host.encode("ascii") + b"\0")


def decode_introduction(control: bytes, rec: bytes) -> Introduction:
    """Decode step 3 of a replication connection."""
    host, _ = _split_rec("parameters", rec)
    return Introduction(host, decode_parameters(control, PROTOCOL_VERSION))


def encode_parameters(parameters: Parameters) -> bytes:
    """Encode version 4 parameters."""
    port, ack_policy, flags, _ = parameters
    return _PARAMETERS.pack(port, _ALIGNMENT, ack_policy, flags)


def decode_parameters(control: bytes, version: int) -> Parameters:
    """Decode the parameters of version 2, 3 or 4; for the older ones flags are made up."""
    body = _Body(f"parameters of protocol version {version}", control)
    priority: int | None = None
    match version:
        case 4:
            port, _, ack_policy, flags = _PARAMETERS.unpack(body.take(_PARAMETERS.size))
        case 3:
            port, priority, flags = _PARAMETERS_3.unpack(body.take(_PARAMETERS_3.size))
            ack_policy = 0
        case 2:
            port, priority = _PARAMETERS_2.unpack(body.take(_PARAMETERS_2.size))
            ack_policy = flags = 0
        case _:
            raise body.error("no such version is known")
    body.end()
    if port == 0:
        raise body.error("port 0")
    if priority:
        flags |= ParamFlag.ELECTABLE
    return Parameters(port, ack_policy, int(flags), priority)


def _split_rec(what: str, rec: bytes) -> tuple[str, _Body | None]:
    """Return the host string and what follows it without the pad byte; None if nothing does."""
    body = _Body(what, rec)
    if not rec:
        raise body.error("rec part is empty")
    raw = rec[:-1].split(b"\0", 1)[0]
    host = body.host_text(raw)
    if len(raw) + 1 == len(rec):
        return host, None
    return host, _Body(what, rec[len(raw) + 1 : -1])


# --- OWN: bodies, for wire.encode_own ----------------------------------------------------------


def encode_site_record(record: SiteRecord) -> bytes:
    """Encode one site with its status."""
    return encode_host_port(record.address) + _U32.pack(record.status)


def decode_site_record(data: bytes) -> SiteRecord:
    """Decode the body of JOIN_REQUEST, REMOVE_REQUEST and SITE_QUERY."""
    body = _Body("site record", data)
    record = body.site_record()
    body.end()
    return record


def encode_membership_list(sites: MembershipList) -> bytes:
    """Encode a site list; `Membership.share_for` is what decides who may be sent it."""
    head = _TWO_U32.pack(sites.version, sites.generation)
    return head + b"".join(map(encode_site_record, sites.sites))


def decode_membership_list(data: bytes) -> MembershipList:
    """Decode a site list; `Membership.from_list` is what judges it."""
    body = _Body("membership list", data)
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
    body = _Body("connect reject", data)
    reject = ConnectReject(body.u32(), body.u32())
    body.end()
    return reject


def encode_forward(address: SiteAddress, generation: int) -> bytes:
    """Encode the body of GM_FORWARD."""
    return encode_host_port(address) + _U32.pack(generation)


def decode_forward(data: bytes) -> Forward:
    """Decode the body of GM_FORWARD."""
    body = _Body("forward", data)
    forward = Forward(SiteAddress(body.host(), body.port()), body.u32())
    body.end()
    return forward


def encode_refresh(ack_policy: int, *, electable: bool) -> bytes:
    """Encode the body of PARM_REFRESH so that native sites read it right."""
    return _TWO_U32.pack(ack_policy, _REFRESH_ELECTABLE if electable else 0)


def decode_refresh(data: bytes) -> Refresh:
    """Decode the body of PARM_REFRESH as the sender meant it."""
    body = _Body("parameter refresh", data)
    ack_policy, flags = body.u32(), body.u32()
    body.end()
    return Refresh(ack_policy, bool(flags & _REFRESH_ELECTABLE))


def encode_standing(standing: Standing) -> bytes:
    """Encode the body of SITE_STANDING: eleven numbers, then the master (empty for none).

    Fields may be appended in later versions of ttserver, never moved.
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
    master = standing.master
    return head + (bytes(6) if master is None else encode_host_port(master))


def decode_standing(data: bytes) -> Standing:
    """Decode the body of SITE_STANDING; fields of later versions at its end are skipped."""
    body = _Body("site standing", data)
    (format_, generation, last_file, last_offset, stable_file, stable_offset, *rest) = (
        _STANDING.unpack(body.take(_STANDING.size))
    )
    if format_ != _STANDING_FORMAT:
        raise body.error(f"format {format_} instead of {_STANDING_FORMAT}")
    priority, flags, membership_version, membership_generation, age_ms = rest
    master: SiteAddress | None = None
    if data[_STANDING.size :].startswith(bytes(6)):
        body.take(6)
    else:
        master = SiteAddress(body.host(), body.port())
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
    )


def encode_stable_lsn(generation: int, lsn: LSN) -> bytes:
    """Encode the body of STABLE_LSN."""
    return _U32.pack(generation) + _TWO_U32.pack(*lsn)


def decode_stable_lsn(data: bytes) -> tuple[int, LSN]:
    """Decode the body of STABLE_LSN into generation and LSN."""
    body = _Body("stable LSN", data)
    return body.u32(), LSN(body.u32(), body.u32())
