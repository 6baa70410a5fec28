"""What a site remembers beside its environment (HOME/var/replication.json).

It outlives a wiped environment on purpose: a site whose data was emptied by mistake still knows
that it was in a group, and does not make itself the master of those who hold the copy.
"""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import msgspec

from replication.bodies import SiteAddress, check_address
from replication.errors import ReplicationError
from replication.membership import Member, Membership
from replication.messages import SiteStatus
from replication.wire import LSN, LSN_ZERO


@dataclass(frozen=True, slots=True)
class Memory:
    """Facts that no database holds.

    Args:
        group_id: random number of the group this site's data belongs to, 0 for none.
        stable_lsn: the highest LSN known to have been answered OK.
        complete: the environment held a complete copy when this was written.
        priorities: last priority heard of each other site.
        generation: highest generation seen.
        acked: up to where each other site is known to have the log.
        removed: this site was removed from the group and has not been asked to join again.
        witnesses: the other sites that vote and hold no data.
        sites: the site list, on a witness, which has no database for it.
        sync_tries: copies that were begun since the last complete one.
    """

    group_id: int = 0
    stable_lsn: LSN = LSN_ZERO
    complete: bool = False
    priorities: dict[SiteAddress, int] = field(default_factory=dict)
    generation: int = 0
    removed: bool = False
    acked: dict[SiteAddress, LSN] = field(default_factory=dict)
    witnesses: frozenset[SiteAddress] = frozenset()
    sites: Membership | None = None
    sync_tries: int = 0

    def with_priority(self, address: SiteAddress, priority: int) -> "Memory":
        """Remember a site's priority."""
        if self.priorities.get(address) == priority:
            return self
        return replace(self, priorities={**self.priorities, address: priority})


_U32 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]


class _List(msgspec.Struct, forbid_unknown_fields=True):
    """A site list."""

    version: _U32
    generation: _U32
    members: dict[str, _U32]


class _File(msgspec.Struct, forbid_unknown_fields=True):
    """The file's shape; addresses are `host:port` there, the group's number is hexadecimal."""

    group_id: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{1,16}$")] = "0"
    stable_lsn: tuple[_U32, _U32] = (0, 0)
    complete: bool = False
    priorities: dict[str, _U32] = {}
    generation: _U32 = 0
    removed: bool = False
    acked: dict[str, tuple[_U32, _U32]] = {}
    witnesses: list[str] = []
    sites: _List | None = None
    sync_tries: _U32 = 0


def load(path: Path) -> Memory:
    """Read the file; a missing one is an empty memory.

    Raises:
        ReplicationError: the file is damaged.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return Memory()
    except OSError as error:
        raise ReplicationError(
            f"{path} cannot be read: {error.strerror}",
            code="memory_unreadable",
            hint=f"make {path} readable for the user that runs ttserver.",
        ) from error
    try:
        shape = msgspec.json.decode(raw, type=_File)
        priorities = {_address(name): priority for name, priority in shape.priorities.items()}
        acked = {_address(name): LSN(*lsn) for name, lsn in shape.acked.items()}
        witnesses = frozenset(map(_address, shape.witnesses))
        sites = _membership(shape.sites)
        group_id = int(shape.group_id, 16)
    except (msgspec.MsgspecError, ValueError, ReplicationError) as error:
        raise ReplicationError(
            f"{path} is damaged: {error}",
            code="memory_damaged",
            hint=f"remove {path}; the site learns its contents again from the others.",
        ) from error
    return Memory(
        group_id,
        LSN(*shape.stable_lsn),
        shape.complete,
        priorities,
        shape.generation,
        shape.removed,
        acked,
        witnesses,
        sites,
        shape.sync_tries,
    )


def _membership(shape: _List | None) -> Membership | None:
    if shape is None:
        return None
    members = [Member(*_address(name), SiteStatus(s)) for name, s in shape.members.items()]
    return Membership(shape.version, shape.generation, tuple(members))


def _list(sites: Membership | None) -> _List | None:
    if sites is None:
        return None
    members = {f"{m.host}:{m.port}": int(m.status) for m in sites.members}
    return _List(sites.version, sites.generation, members)


def _address(name: str) -> SiteAddress:
    host, _, port = name.rpartition(":")
    return check_address(SiteAddress(host, int(port)))


def save(path: Path, memory: Memory) -> None:
    """Replace the file in one step. Blocks: call it off the event loop."""
    shape = _File(
        f"{memory.group_id:016x}",
        (memory.stable_lsn.file, memory.stable_lsn.offset),
        memory.complete,
        {f"{a.host}:{a.port}": p for a, p in sorted(memory.priorities.items())},
        memory.generation,
        memory.removed,
        {f"{a.host}:{a.port}": (n.file, n.offset) for a, n in sorted(memory.acked.items())},
        [f"{a.host}:{a.port}" for a in sorted(memory.witnesses)],
        _list(memory.sites),
        memory.sync_tries,
    )
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_suffix(".new")
    with open(temporary, "wb", opener=lambda p, f: os.open(p, f, 0o600)) as file:
        file.write(msgspec.json.format(msgspec.json.encode(shape)))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # the name too must outlive a loss of power
    finally:
        os.close(directory)
