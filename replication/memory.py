"""What a site remembers beside its environment (HOME/var/replication.json).

It outlives a wiped environment on purpose: a site whose data was emptied by mistake still knows
that it was in a group, and does not make itself the master of those who hold the copy.
"""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from replication.bodies import SiteAddress
from replication.errors import ReplicationError
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
    """

    group_id: int = 0
    stable_lsn: LSN = LSN_ZERO
    complete: bool = False
    priorities: dict[SiteAddress, int] = field(default_factory=dict)
    generation: int = 0

    def with_priority(self, address: SiteAddress, priority: int) -> "Memory":
        """Remember a site's priority."""
        if self.priorities.get(address) == priority:
            return self
        return replace(self, priorities={**self.priorities, address: priority})


class _File(msgspec.Struct):
    """The file's shape; addresses are `host:port` there."""

    group_id: str = "0"
    stable_lsn: tuple[int, int] = (0, 0)
    complete: bool = False
    priorities: dict[str, int] = {}
    generation: int = 0


def load(path: Path) -> Memory:
    """Read the file; a missing one is an empty memory.

    Raises:
        ReplicationError: the file is damaged.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return Memory()
    try:
        shape = msgspec.json.decode(raw, type=_File)
        priorities = {}
        for name, priority in shape.priorities.items():
            host, _, port = name.rpartition(":")
            priorities[SiteAddress(host, int(port))] = priority
        group_id = int(shape.group_id, 16)
    except (msgspec.MsgspecError, ValueError) as error:
        raise ReplicationError(
            f"{path} is damaged: {error}",
            code="memory_damaged",
            hint=f"remove {path}; the site learns its contents again from the others.",
        ) from error
    return Memory(group_id, LSN(*shape.stable_lsn), shape.complete, priorities, shape.generation)


def save(path: Path, memory: Memory) -> None:
    """Replace the file in one step. Blocks: call it off the event loop."""
    shape = _File(
        f"{memory.group_id:016x}",
        (memory.stable_lsn.file, memory.stable_lsn.offset),
        memory.complete,
        {f"{a.host}:{a.port}": p for a, p in sorted(memory.priorities.items())},
        memory.generation,
    )
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_suffix(".new")
    with open(temporary, "wb", opener=lambda p, f: os.open(p, f, 0o600)) as file:
        file.write(msgspec.json.format(msgspec.json.encode(shape)))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
