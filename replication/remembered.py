"""What a site remembers beside its environment, and when that must be written (no I/O)."""

from dataclasses import replace

from replication.bodies import SiteAddress
from replication.effects import Outbox, SaveMemory
from replication.memory import Memory
from replication.wire import LSN


class Remembered:
    """The memory as it stands; every change that must not be lost is an effect.

    Args:
        memory: as it was read at the start.
        out: where SaveMemory goes.
    """

    def __init__(self, memory: Memory, out: Outbox) -> None:
        self.memory = memory
        self._out = out

    def complete(self, complete: bool) -> None:
        """The copy here became complete, or no longer is."""
        self._keep(replace(self.memory, complete=complete))

    def generation(self, generation: int) -> None:
        """A generation was seen; the highest is kept."""
        if generation > self.memory.generation:
            self._keep(replace(self.memory, generation=generation))

    def group(self, group_id: int) -> None:
        """The data here belongs to this group."""
        self._keep(replace(self.memory, group_id=group_id))

    def priority(self, address: SiteAddress, priority: int) -> None:
        """A site told its priority."""
        self._keep(self.memory.with_priority(address, priority))

    def stable(self, lsn: LSN) -> None:
        """Writes up to here were answered OK."""
        if lsn > self.memory.stable_lsn:
            # Kept at the shell's own pace, not written at each step.
            self.memory = replace(self.memory, stable_lsn=lsn)

    def _keep(self, memory: Memory) -> None:
        if memory != self.memory:
            self.memory = memory
            self._out.do(SaveMemory(memory))
