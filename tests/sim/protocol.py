"""The library's replication messages, as far as a simulated library speaks them.

The control part is the real one, so that everything above the library reads it as it reads the
library's own; so are the bodies of votes and of file lists. Pages are copied as a whole.

Source: the library's replication message formats, version 7.
"""

from __future__ import annotations

import json
import struct
from typing import Final, NamedTuple

from replication.messages import RepType
from replication.wire import LSN, LSN_ZERO
from tests.sim.log import Databases

REP_VERSION: Final = 7
LOG_VERSION: Final = 19
EID_BROADCAST: Final = -1
EID_INVALID: Final = -2

ELECTABLE: Final = 0x01
FLUSH: Final = 0x02
GROUP_ESTABLISHED: Final = 0x04
INIT: Final = 0x08
PERM: Final = 0x20
RESEND: Final = 0x40
LOG_END: Final = 0x80

_CONTROL: Final = struct.Struct(">9I")
_EGEN: Final = struct.Struct(">I")
_LSN: Final = struct.Struct(">II")
_VOTE: Final = struct.Struct(">7I")
_UPDATE: Final = struct.Struct(">IIII")
_FILE: Final = struct.Struct(">7I")
_PAGE_BYTES: Final = 4096


class Control(NamedTuple):
    """The control part of a message."""

    kind: RepType
    generation: int
    lsn: LSN = LSN_ZERO
    flags: int = 0

    def encode(self) -> bytes:
        """Return its 36 bytes."""
        return _CONTROL.pack(
            REP_VERSION,
            LOG_VERSION,
            self.lsn.file,
            self.lsn.offset,
            self.kind,
            self.generation,
            0,
            0,
            self.flags,
        )

    @classmethod
    def decode(cls, data: bytes) -> Control:
        """Read the bytes that `encode` or the library made."""
        _version, _log, file, offset, kind, generation, _s, _ns, flags = _CONTROL.unpack(data)
        return cls(RepType(kind), generation, LSN(file, offset), flags)


class Vote(NamedTuple):
    """What VOTE1 carries; VOTE2 only has the first number.

    Args:
        egen: the election's number.
        tiebreaker: random.
        data_generation: the last generation that this site has data of.
    """

    egen: int
    nsites: int = 0
    nvotes: int = 0
    priority: int = 0
    tiebreaker: int = 0
    data_generation: int = 0

    def encode(self) -> bytes:
        egen, nsites, nvotes, priority, tiebreaker, data_generation = self
        return _VOTE.pack(egen, nsites, nvotes, priority, 0, tiebreaker, data_generation)

    @classmethod
    def decode(cls, data: bytes) -> Vote:
        egen, nsites, nvotes, priority, _spare, tiebreaker, data_generation = _VOTE.unpack(data)
        return cls(egen, nsites, nvotes, priority, tiebreaker, data_generation)


def encode_egen(egen: int) -> bytes:
    """Return the body of ALIVE."""
    return _EGEN.pack(egen)


def decode_egen(data: bytes) -> int:
    """Read the body of ALIVE."""
    return int(_EGEN.unpack(data)[0])


def encode_lsn(lsn: LSN) -> bytes:
    """Return the body of LOG_REQ: up to where records are wanted."""
    return _LSN.pack(*lsn)


def decode_lsn(data: bytes) -> LSN:
    """Read the body of LOG_REQ."""
    return LSN(*_LSN.unpack(data))


def _counted(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


def encode_update(first: LSN) -> bytes:
    """Return the body of UPDATE: where the log that is needed begins, and a list of one file."""
    head = _UPDATE.pack(first.file, first.offset, LOG_VERSION, 1)
    file = _FILE.pack(_PAGE_BYTES, 0, 0, 0, 0, 1, 0)
    return head + file + _counted(b"\0" * 20) + _counted(b"keys.db\0") + _counted(b"")


def decode_update(data: bytes) -> LSN:
    """Read from UPDATE where the log begins."""
    file, offset, _version, _count = _UPDATE.unpack_from(data)
    return LSN(file, offset)


def encode_pages(databases: Databases) -> bytes:
    """Return the body of PAGE: all databases."""
    files = {
        name.hex(): {key.hex(): value.hex() for key, value in items.items()}
        for name, items in databases.files.items()
    }
    return json.dumps({"as_of": databases.as_of, "files": files}).encode()


def decode_pages(data: bytes) -> Databases:
    """Read the body of PAGE."""
    raw = json.loads(data)
    files = {
        bytes.fromhex(name): {bytes.fromhex(k): bytes.fromhex(v) for k, v in items.items()}
        for name, items in raw["files"].items()
    }
    return Databases(files, as_of=LSN(*raw["as_of"]))
