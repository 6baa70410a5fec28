"""The three handshake messages (sans-I/O); who dials speaks first.

    1 dialler   control: legacy struct   rec: host NUL, min u32, max u32, NUL     Hello
    2 acceptor  control: parameters      rec: host NUL, version u32, NUL          Confirmation
    3 dialler   control: parameters      rec: host NUL                            Introduction

    parameters  version 4: port u16, alignment u16 (8), ack policy u32, flags u32
                version 3: port u16, priority u32, flags u32;  version 2: port u16, priority u32
    legacy      a dumped C struct in the *sender's* byte order: 1 u32, port u16, 2 bytes of padding;
                then the priority u32 in network order

The receiver overwrites the last byte of rec with NUL before it parses: hence the NUL at its end,
and hence "rec is exactly the host string" means a peer of version 1, which knows no versions.
The encoders give whole frames; the decoders take the two parts of one and raise
RemoteProtocolError and nothing else, whatever the bytes.

Source: the library's repmgr message formats, version 4.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from replication.bodies import BodyReader, SiteAddress, check_address
from replication.messages import PROTOCOL_VERSION, ParamFlag
from replication.wire import encode_handshake

_ALIGNMENT: Final = 8  # sizeof(double), which native sites of every kind announce
_LEGACY: Final = struct.Struct("<IHH")
_PARAMETERS: Final = struct.Struct(">HHII")
_PARAMETERS_3: Final = struct.Struct(">HII")
_PARAMETERS_2: Final = struct.Struct(">HI")
_U32: Final = struct.Struct(">I")
_TWO_U32: Final = struct.Struct(">II")


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
    body = BodyReader("hello", control)
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
    body = BodyReader(f"parameters of protocol version {version}", control)
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


def _split_rec(what: str, rec: bytes) -> tuple[str, BodyReader | None]:
    """Return the host string and what follows it without the pad byte; None if nothing does."""
    body = BodyReader(what, rec)
    if not rec:
        raise body.error("rec part is empty")
    raw = rec[:-1].split(b"\0", 1)[0]
    host = body.host_text(raw)
    if len(raw) + 1 == len(rec):
        return host, None
    return host, BodyReader(what, rec[len(raw) + 1 : -1])
