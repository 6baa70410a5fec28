"""Rounds of a master: who asks, who answers, and the word that goes with an answer (no I/O).

master                                  site that follows it
Contact: is a majority in reach?
    ROUND(number, lease) ------------>  follows it, and no vote is out:
                         <------------  ROUND_ANSWER, and no election for so long
too few answers for too long: refuse writes, then step down
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from replication import bodies, effects
from replication.contact import Contact
from replication.effects import Outbox
from replication.messages import OwnCode
from replication.phase import Phase

if TYPE_CHECKING:
    from replication.bodies import SiteAddress
    from replication.core import Core

LEASE_S_MAX: Final = 60.0  # no word is given for longer, whatever another site asks


class Rounds:
    """See the module's text.

    Args:
        core: what this site is, and whom it follows.
        out: where effects go.

    Attributes:
        contact: the master's side.
        promised_until_s: this site calls no election before.
        elected: it is about to be master by a vote, or in the place of one that was.
    """

    def __init__(self, core: Core, out: Outbox) -> None:
        self._core = core
        self._out = out
        self.contact = Contact(core.settings, core.sites, out)
        self.promised_until_s = -inf
        self.elected = False

    def started(self, now_s: float) -> None:
        """This site was started just now: a word it gave before is forgotten, but may hold."""
        if self._core.settings.lease_s:
            self.promised_until_s = now_s + self._core.settings.lease_s

    def asked(
        self, now_s: float, number: int, generation: int, round_: int, lease_s: float
    ) -> None:
        """A master asks whether it is followed, and not to be voted out for `lease_s`.

        Args:
            number: of the link.
        """
        core = self._core
        link = core.sites.links.get(number)
        if link is None or core.phase is not Phase.FOLLOWING:
            return
        if link.site.address != core.master or generation != core.generation:
            return
        if core.elections.vote_out(now_s):
            return
        if lease_s:
            self.promised_until_s = max(self.promised_until_s, now_s + min(lease_s, LEASE_S_MAX))
        body = bodies.encode_round_answer(generation, round_)
        self._out.do(effects.SendOwn(number, OwnCode.ROUND_ANSWER, body))

    def began(self, now_s: float) -> None:
        """This site is master from now on."""
        self.contact.begin(now_s, elected=self.elected)

    def step_down(self, now_s: float) -> None:
        """Be master no longer, and let a vote decide."""
        core = self._core
        core.master = None
        core.group.stepped_down()
        core.follow(now_s)
        core.elections.call_at(now_s)

    def answered(self, number: int, generation: int, round_: int) -> None:
        """A site follows this master, and gave its word."""
        core = self._core
        link = core.sites.links.get(number)
        if link is not None and core.is_master and generation == core.generation:
            self.contact.answered(link.site, round_)

    def tick(self, now_s: float) -> None:
        """The clock, on a master."""
        members = self._core.members()
        if self.contact.tick(now_s, members, rivals=any(map(self._may_lead, members))):
            self._out.note("stepped_down", why=self.contact.refusal(now_s))
            self.step_down(now_s)

    def _may_lead(self, address: SiteAddress) -> bool:
        """Whether a site may become master, as far as is known."""
        core = self._core
        return core.site(address).electable or core.memory.priorities.get(address) != 0
