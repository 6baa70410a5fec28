"""Whoever writes into the environment stands still while the master's role is handed over."""

from __future__ import annotations

from storage.commit import Committer
from storage.upkeep import Upkeep


class Standstill:
    """The manager's `Writers`. Everything runs in the event loop.

    Attributes:
        committer, upkeep: set once the environment is open.
    """

    def __init__(self) -> None:
        self.committer: Committer
        self.upkeep: Upkeep
        self._upkeep_held = False

    def hold_checkpoints(self) -> bool:
        """Begin no checkpoint; True once none is under way, until then ask again."""
        self._upkeep_held = self._upkeep_held or self.upkeep.hold()
        return self._upkeep_held

    def hold_writes(self) -> bool:
        """Begin no write; True once none is under way, until then ask again."""
        return self.committer.hold()

    def release(self) -> None:
        """Go on with both; without a hold, nothing."""
        if hasattr(self, "committer"):
            self.committer.release()
        if self._upkeep_held:
            self._upkeep_held = False
            self.upkeep.release()
