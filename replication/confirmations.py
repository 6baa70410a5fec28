"""A master's writes and what the other members say of them: policies, counts, who has what."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from replication.ack_words import Advice, advise
from replication.acks import AckTable, SiteAck
from replication.core import Core
from replication.hub import later
from replication.messages import AckPolicy
from replication.pending import Pending, Waiting
from replication.roster import Roster
from replication.settings import GroupSettings
from replication.wire import LSN

EXPIRED_EVERY_S: Final = 0.05  # the manager's tick; a shorter time-out has a timer of its own


class Confirmations:
    """See the module's text.

    Args:
        settings: the group's ack policy and time-out.
        confirmed: called with (token, None) when a write's policy held, (token, text) when it did
            not. *Thread:* any.

    Attributes:
        table: what each site acknowledged.
        roster: the other members as policies see them.
        pending: the writes that wait.
    """

    def __init__(
        self, settings: GroupSettings, confirmed: Callable[[Any, str | None], None]
    ) -> None:
        # Reentrant: what is told of a released write may look at the rest.
        self.table = AckTable(0, threading.RLock())
        self.roster = Roster(self.table)
        self.pending = Pending(
            self.table, self.roster.sites, confirmed, two_site_strict=settings.two_site_strict
        )
        self._settings = settings
        self._loop = asyncio.get_running_loop()

    def confirm(
        self,
        lsn: LSN,
        token: Any,
        *,
        generation: int,
        policy: AckPolicy | None = None,
        timeout_s: float | None = None,
        writes: int = 1,
    ) -> None:
        """Call `confirmed(token, ...)` when this commit has met its policy, or has not.

        Args:
            lsn: of the commit.
            token: handed back.
            generation: in which it was committed, or an earlier one.
            policy: the group's unless given.
            timeout_s: the group's unless given.
            writes: how many writes it stands for.

        *Thread:* any; `confirmed` may be called before this returns.
        """
        settings = self._settings
        deadline_s = self._loop.time() + (timeout_s or settings.ack_timeout_s)
        chosen = policy or settings.ack_policy
        self.pending.add(Waiting(generation, lsn, chosen, deadline_s, token, writes))
        if timeout_s is not None and timeout_s < EXPIRED_EVERY_S:
            later(self._loop, self._expire_at, deadline_s)

    def acked(self, eid: int, generation: int, lsn: LSN) -> bool:
        """Take an ack and release what it permits; returns whether the site got further by it.

        *Thread:* any.
        """
        with self.table.lock:
            further = self.table.record(eid, generation, lsn)
            if further:
                self.roster.acked(eid, lsn)
                self.pending.acked()
        return further

    def begin(self, generation: int, core: Core) -> None:
        """This site is master of that generation now: its writes can be confirmed."""
        with self.table.lock:
            self.pending.begin(generation)
            self.roster.rebuild(core)
            self.pending.sites_changed()

    def _expire_at(self, deadline_s: float) -> None:
        self._loop.call_at(deadline_s, lambda: self.pending.expire(self._loop.time()))

    @property
    def generation(self) -> int:
        """The generation that this site is, or was last, master of. *Thread:* any."""
        return self.table.generation

    def holders(self, lsn: LSN) -> list[str]:
        """Name the other sites that acknowledged this LSN."""
        return self.roster.acked_by(lsn)

    def able(self) -> int:
        """How many members could acknowledge now. *Thread:* any."""
        return self.roster.acking()

    def sites(self) -> Sequence[SiteAck]:
        """The other members as the ack policies see them. *Thread:* any."""
        return self.roster.sites()

    def advice(self) -> Advice | None:
        """Say where an OK of this master is worth less than it looks."""
        return advise(
            self._settings.ack_policy,
            self.sites(),
            two_site_strict=self._settings.two_site_strict,
        )
