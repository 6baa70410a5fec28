"""What a site remembers beside its environment, and when that must be written (no I/O)."""

from collections.abc import Collection
from dataclasses import replace

from replication.bodies import SiteAddress
from replication.effects import Outbox, SaveMemory
from replication.membership import Membership
from replication.memory import Memory
from replication.wire import LSN, LSN_ZERO


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

    def sync_tries(self, tries: int) -> None:
        """So many copies were begun since the last one that is complete."""
        self._keep(replace(self.memory, sync_tries=tries))

    def generation(self, generation: int) -> None:
        """A generation was seen; the highest is kept."""
        if generation > self.memory.generation:
            self._keep(replace(self.memory, generation=generation))

    def group(self, group_id: int) -> None:
        """The data here belongs to this group; an LSN of another one means nothing in it."""
        if group_id != self.memory.group_id:
            had = self.memory.group_id
            stable_lsn = LSN_ZERO if had else self.memory.stable_lsn
            acked = {} if had else self.memory.acked
            self._keep(replace(self.memory, group_id=group_id, stable_lsn=stable_lsn, acked=acked))

    def removed(self, removed: bool) -> None:
        """This site was removed from the group, or belongs to it again."""
        self._keep(replace(self.memory, removed=removed))

    def priority(self, address: SiteAddress, priority: int) -> None:
        """A site told its priority."""
        self._keep(self.memory.with_priority(address, priority))

    def stable(self, lsn: LSN) -> None:
        """Writes up to here were answered OK."""
        if lsn > self.memory.stable_lsn:
            # Kept at the shell's own pace, not written at each step.
            self.memory = replace(self.memory, stable_lsn=lsn)

    def acked(self, site: SiteAddress, lsn: LSN | None) -> None:
        """A site is known to have the log up to here; None: nothing is known."""
        acked = {a: known for a, known in self.memory.acked.items() if a != site}
        if lsn is not None:
            acked[site] = lsn
        # Kept at the shell's own pace, as above.
        self.memory = replace(self.memory, acked=acked)

    def witness(self, address: SiteAddress, witness: bool) -> None:
        """A site told whether it is a witness."""
        if witness != (address in self.memory.witnesses):
            self._keep(replace(self.memory, witnesses=self.memory.witnesses ^ {address}))

    def sites(self, sites: Membership) -> None:
        """The site list as it is now; only where no database holds it."""
        self._keep(replace(self.memory, sites=sites))

    def stable_at_most(self, lsn: LSN) -> None:
        """The operator gave up what lies behind `lsn`, or the copy here is being replaced."""
        if lsn < self.memory.stable_lsn:
            self._keep(replace(self.memory, stable_lsn=lsn))

    def only(self, addresses: Collection[SiteAddress]) -> None:
        """Forget sites that are members no longer."""
        priorities = {a: p for a, p in self.memory.priorities.items() if a in addresses}
        acked = {a: lsn for a, lsn in self.memory.acked.items() if a in addresses}
        witnesses = self.memory.witnesses & set(addresses)
        kept = replace(self.memory, priorities=priorities, acked=acked, witnesses=witnesses)
        self._keep(kept)

    def _keep(self, memory: Memory) -> None:
        if memory != self.memory:
            self.memory = memory
            self._out.do(SaveMemory(memory))
