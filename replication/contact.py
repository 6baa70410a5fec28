"""Whether a master still hears the majority that could elect another one (no input or output).

A master that is cut off from the others does not notice that they elect another. So it counts from
whom it heard, and when it has not heard within `fence_s` from enough sites to make, with itself,
the majority that an election needs, it refuses writes, and steps down when that lasts for as long
again.

    OFF                nobody else could be elected, or the operator wants it so
    UNARMED            made master without a vote; the majority was not heard in this term so far
    OPEN  ------------ nothing heard for fence_s ----> FENCED ---- for fence_s more ----> steps down
          <----------- the majority is heard ---------

Heard is a site of which anything came, or which answered a round. A round is a message of the
master with a number: its answer says that the site followed this master when it read it, and so
not before the round was sent. A process that was stopped for a while finds old bytes in its
sockets, but no answers to rounds it sends afterwards.

Rounds carry the lease as well: whoever answers one calls no election for `lease_s`. As long as a
majority of all members has given such a word nobody else can be elected, and what is read here is
the newest there is. The master counts from when it sent the round, the others from when they read
it, so the master's time ends first.
"""

from collections import deque
from collections.abc import Collection, Sequence
from enum import Enum
from math import inf
from typing import NamedTuple

from replication import effects
from replication.bodies import SiteAddress
from replication.effects import Outbox
from replication.election import ballot
from replication.settings import GroupSettings
from replication.sites import Sites, SiteState

ROUNDS_PER_LIMIT = 5  # so often within the shorter of both times
ROUND_S_MAX = 0.2
ROUNDS_KEPT = 100  # a later answer is too old for any time allowed


class Fence(Enum):
    """Where the fence stands."""

    OFF = "off"
    UNARMED = "unarmed"
    OPEN = "open"
    FENCED = "fenced"


class Reach(NamedTuple):
    """From how many others a master heard within `fence_s`, and how many it needs."""

    heard: int
    needed: int
    others: int


def others_needed(members: int, *, two_site_strict: bool) -> int:
    """Return how many others make, with this site, the majority that an election needs."""
    return ballot(members, two_site_strict=two_site_strict, master_just_lost=False).nvotes - 1


def common_s(heard_s: Sequence[float], count: int) -> float:
    """Return the latest time after which `count` sites were heard: never is -inf.

    Args:
        heard_s: when each of the other sites was heard last.
        count: how many have to agree.
    """
    if count <= 0:
        return inf
    return sorted(heard_s, reverse=True)[count - 1] if count <= len(heard_s) else -inf


class Contact:
    """A master's side; see the module's text.

    Args:
        settings: the operator's.
        sites: the other sites, with when each was heard.
        out: where effects go.

    Attributes:
        fence: where it stands.
        writes_until_s: writes may be taken and answered OK until then. Read by any thread.
        fresh_until_s: what is read here until then is the newest there is. Read by any thread.
    """

    def __init__(self, settings: GroupSettings, sites: Sites, out: Outbox) -> None:
        self.fence = Fence.OFF
        self._heard_s: tuple[float, ...] = ()  # replaced as a whole: any thread reads it
        self._needed = 0
        self._states: Sequence[SiteState] | None = None  # unknown before the first tick
        self.writes_until_s = inf
        self.fresh_until_s = -inf
        self._settings = settings
        self._sites = sites
        self._out = out
        self._elected = False
        self._begun_s = self._fenced_s = 0.0
        self._round = 0
        self._sent_s: deque[tuple[int, float]] = deque(maxlen=ROUNDS_KEPT)
        shortest_s = min(settings.fence_s or inf, settings.lease_s or inf)
        self._every_s = min(shortest_s / ROUNDS_PER_LIMIT, ROUND_S_MAX)
        self._next_round_s = 0.0

    def begin(self, now_s: float, *, elected: bool) -> None:
        """This site is master from now on.

        Args:
            elected: by a majority, which was heard just now; else by its operator, or because
                nobody else can be.
        """
        self._begun_s = now_s
        self._elected = elected
        self.fence = Fence.OPEN if elected else Fence.UNARMED
        self.writes_until_s = inf
        self.fresh_until_s = -inf
        self._sent_s.clear()
        self._states = None
        self._next_round_s = now_s
        for site in self._sites.values():
            site.answered_s = -inf

    def refusal(self, now_s: float) -> str | None:
        """Say why writes are refused, None when they are not. *Thread:* any."""
        if now_s <= self.writes_until_s:
            return None
        heard, needed, others = self.reach(now_s)
        return (
            f"this master is cut off: for {self._settings.fence_s:g} s it heard from {heard} of"
            f" {others} other sites, {needed} are needed to rule out another master"
            " (replication.fence_s)"
        )

    def reach(self, now_s: float) -> Reach:
        """Count of whom was heard. *Thread:* any."""
        heard_s, limit_s = self._heard_s, self._settings.fence_s
        heard = sum(1 for at_s in heard_s if now_s - at_s <= limit_s)
        return Reach(heard, self._needed, len(heard_s))

    def answered(self, site: SiteState, number: int) -> None:
        """A site answered a round of this term."""
        for round_, sent_s in self._sent_s:
            if round_ == number:
                site.answered_s = max(site.answered_s, sent_s)
        self._renew()

    def tick(self, now_s: float, members: Collection[SiteAddress], *, rivals: bool) -> bool:
        """The clock.

        Args:
            members: the other members whatever their status.
            rivals: one of them may become master.

        Returns:
            Whether this master must step down.
        """
        states = [self._sites.site(address) for address in members]
        needed = self._fence_needed(states, rivals=rivals)
        if (needed or self._settings.lease_s) and states and now_s >= self._next_round_s:
            self._next_round_s = now_s + self._every_s
            self._round += 1
            self._sent_s.append((self._round, now_s))
            self._out.do(effects.SendRound(self._round, self._settings.lease_s))
        self._states = states
        self._renew()
        return self._check(now_s, states, needed)

    def _renew(self) -> None:
        """Compute the lease: a majority of all members, whatever an election would need."""
        states = self._states
        if self._settings.lease_s and states is not None:
            agreed_s = common_s([site.answered_s for site in states], (len(states) + 1) // 2)
            self.fresh_until_s = agreed_s + self._settings.lease_s * self._settings.clock_ratio

    def _fence_needed(self, states: Sequence[SiteState], *, rivals: bool) -> int:
        """Return how many others must be heard, 0 when the fence is off."""
        settings = self._settings
        if not settings.fence_s or not settings.elections or not rivals:
            return 0
        if len(states) + 1 < settings.fence_sites_min:
            return 0
        return others_needed(len(states) + 1, two_site_strict=settings.two_site_strict)

    def _check(self, now_s: float, states: Sequence[SiteState], needed: int) -> bool:
        limit_s = self._settings.fence_s
        self._heard_s = tuple(max(site.contact_s, site.answered_s) for site in states)
        self._needed = needed
        if not needed:
            self._reopen()
            self.fence, self.writes_until_s = Fence.OFF, inf
            return False
        since_s = common_s(self._heard_s, needed)
        if self._elected:
            since_s = max(since_s, self._begun_s)
        if self.fence in (Fence.UNARMED, Fence.OFF):
            if since_s < self._begun_s:
                return False
            self.fence = Fence.OPEN
        self.writes_until_s = since_s + limit_s
        if now_s <= self.writes_until_s:
            self._reopen()
            return False
        if self.fence is not Fence.FENCED:
            self.fence, self._fenced_s = Fence.FENCED, now_s
            heard = self.reach(now_s).heard
            self._out.note("fenced", heard=heard, needed=needed, limit_s=limit_s)
            self._out.do(effects.RoleChanged())
        # Counted from when it was noticed: a process that stood still may hear the others again.
        return now_s - self._fenced_s > limit_s

    def _reopen(self) -> None:
        if self.fence is Fence.FENCED:
            self.fence = Fence.OPEN
            self._out.note("unfenced", needed=self._needed)
            self._out.do(effects.RoleChanged())
