"""How often a copy was begun and came to nothing, and when a site stops trying (no I/O).

A sync that is broken off begins again from nothing: another master came, the log that belongs to
its pages was removed where they came from, this site stopped in the middle. Where the reason stays,
it would copy the whole database for ever, and cost those who serve. So the tries are counted, in
the file beside the environment since a crash may be the reason, and after so many in a row the
site asks for no more until the operator says so (`ttserver sync`).
"""

from typing import Final

from replication.effects import Outbox, RoleChanged
from replication.remembered import Remembered

STOPPED: Final = "this site stopped, or its database was opened again, in the middle of it"
HINT: Final = "remove the reason (the journal names each: `sync_failed`), then run `ttserver sync`."


class SyncTries:
    """See the module's text.

    Args:
        tries_max: how many may fail in a row; 0: any number.
        remembered: where they are counted.
        out: where effects go.

    Attributes:
        given_up: why this site takes no copy any more; None while it does.
    """

    def __init__(self, tries_max: int, remembered: Remembered, out: Outbox) -> None:
        self.given_up: str | None = None
        self._tries_max = tries_max
        self._remembered = remembered
        self._out = out
        self._under_way = False
        self._generation = 0
        if remembered.memory.sync_tries:
            self._failed(STOPPED)

    def begun(self, generation: int) -> None:
        """Pages are asked for, of a master in this generation: one more try, or more of one."""
        if not self._under_way:
            self._under_way, self._generation = True, generation
            self._remembered.sync_tries(self._remembered.memory.sync_tries + 1)

    def new_master(self, generation: int) -> None:
        """The library begins anew, unless its news is older than the copy under way."""
        if generation > self._generation:
            self.broken(f"a master in generation {generation} came meanwhile")

    def broken(self, reason: str) -> None:
        """What came of the copy so far is worth nothing: it begins again."""
        if self._under_way:
            self._under_way = False
            self._failed(reason)

    def over(self) -> None:
        """The copy is complete, or the operator wants to see it tried again."""
        self._under_way = False
        self.given_up = None
        self._remembered.sync_tries(0)

    def _failed(self, reason: str) -> None:
        tries = self._remembered.memory.sync_tries
        self._out.note("sync_failed", tries=tries, reason=reason)
        if self.given_up is None and self._tries_max and tries >= self._tries_max:
            self.given_up = f"{tries} syncs in a row came to nothing, the last because {reason}"
            self._out.note("sync_given_up", tries=tries, why=self.given_up)
            self._out.do(RoleChanged())
