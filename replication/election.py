"""When an election is worth calling and with which numbers (no input or output).

    members   2SITE_STRICT   nsites                                   nvotes
    1         -              1                                        1
    2         on             2                                        2: one survivor never wins
    2         off            2, or 1 in the first try after a lost    1
                             master
    n > 2     -              n, or n-1 in the first try after a lost  n // 2 + 1
                             master (its vote cannot come, and waiting
                             for it would cost the whole time-out)

That first try is short, a tenth of the time-out: all who can vote are connected and answer at once,
and the library looks at the outcome only ten times a time-out, applying nothing in between. When
nobody won it, it is repeated right away with the whole time-out.

Who is invited by another site's vote waits for as many votes as that one does: else the tally of
both would wait for the longer list.

Members count whatever their status or priority: priority 0 votes too, it only never wins.

Source: Programmer's Reference, "Elections"; the library's repmgr numbers.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from replication.effects import Elect, Outbox, RoleChanged
from replication.settings import GroupSettings

DECIDED: Final = "decided"
SHORT_PART: Final = 0.1


class Ballot(NamedTuple):
    """The two numbers of an election."""

    nsites: int
    nvotes: int


def ballot(members: int, *, two_site_strict: bool, master_just_lost: bool) -> Ballot:
    """Return the numbers for an election among `members` sites.

    Args:
        members: sites of the group, this one included, at least 1.
        two_site_strict: in a group of two, both votes are needed.
        master_just_lost: this is the first try after the master's link broke.
    """
    nvotes = 1 if members == 2 and not two_site_strict else members // 2 + 1
    nsites = members - 1 if master_just_lost and members > nvotes else members
    return Ballot(nsites, nvotes)


class Elections:
    """When this site calls elections (the library holds them).

    Args:
        enabled: elections may be called at all.
        two_site_strict: in a group of two, both votes are needed.
        timeout_s: longest wait for votes.
        first_timeout_s: the same as long as there was no master since this site started.
        retry_s: the pause after one without a result.
        wait_s: how long to wait for missing sites before looking again.
        out: where effects go.
    """

    def __init__(
        self,
        *,
        enabled: bool,
        two_site_strict: bool,
        timeout_s: float,
        first_timeout_s: float,
        retry_s: float,
        wait_s: float,
        out: Outbox,
    ) -> None:
        self.under_way = False
        self._enabled = enabled
        self._strict = two_site_strict
        self._timeout_s = timeout_s
        self._first_timeout_s = first_timeout_s
        self._retry_s = retry_s
        self._wait_s = wait_s
        self._out = out
        self._due_s: float | None = None
        self._called_s = 0.0
        self._whole_s = 0.0
        self._tries_after_loss = 0  # left: a short one, a whole one
        self._invited_nsites = 0
        self._voted = False
        self._void = True
        self._counted_until_s = 0.0
        self._had_master = False
        self._voters: set[int] = set()

    @property
    def votes(self) -> int:
        """Votes for this site in the election it called last, its own included."""
        return 1 + len(self._voters)

    def vote_came(self, eid: int) -> None:
        """A site voted for this one."""
        self._voters.add(eid)

    @classmethod
    def by(cls, settings: GroupSettings, out: Outbox) -> Elections:
        """Make them as the operator wants them."""
        return cls(
            enabled=settings.elections,
            two_site_strict=settings.two_site_strict,
            timeout_s=settings.election_timeout_s,
            first_timeout_s=settings.longest_election_s,
            retry_s=min(settings.election_retry_s, 2 * settings.election_timeout_s),
            wait_s=settings.connection_retry_s,
            out=out,
        )

    def call_at(self, when_s: float | None) -> None:
        """Call one then; None: there is no need of one."""
        self._due_s = when_s

    def master_lost(self, now_s: float) -> None:
        """The master's link broke."""
        self._tries_after_loss = 2
        self._due_s = now_s

    def site_lost(self, now_s: float) -> None:
        """Another link broke while there is no master.

        That may have been the winner, about to take over: its voters need not wait for it.
        """
        if self._voted:
            self.master_lost(now_s)

    def invited(self, now_s: float, nsites: int) -> None:
        """Another site has called one, and waits for so many votes; 0 if it did not say."""
        self._invited_nsites = nsites
        self._due_s = now_s

    def master_found(self, *, again: bool = False) -> None:
        """There is one.

        Args:
            again: the one before, in its generation: a vote cast meanwhile may still be counted.
        """
        self._had_master = True
        if not again:
            self._void, self._counted_until_s = True, 0.0
        self._voted = False
        self._tries_after_loss = 0
        self._due_s = None

    def vote_out(self, now_s: float) -> bool:
        """Tell whether a vote of this site may be counted, here or elsewhere."""
        return self.under_way or now_s < self._counted_until_s

    def is_due(self, now_s: float) -> bool:
        """Tell whether it is time to call one."""
        return (
            self._enabled
            and not self.under_way
            and self._due_s is not None
            and now_s >= self._due_s
        )

    def call(self, now_s: float, members: int, connected: int) -> str | None:
        """Call an election.

        Args:
            members: sites of the group, this one included.
            connected: of these, how many votes could come, this one's included.

        Returns:
            Why it is impossible now, None when it was called.
        """
        numbers = ballot(
            members, two_site_strict=self._strict, master_just_lost=self._tries_after_loss > 0
        )
        if connected < numbers.nvotes:
            why = (
                f"no master: an election needs {numbers.nvotes} of {members} sites, this site"
                f" reaches {connected}"
            )
            self._due_s = now_s + self._wait_s
            return why
        if self._invited_nsites in range(max(members - 1, numbers.nvotes), members + 1):
            numbers = numbers._replace(nsites=self._invited_nsites)
        self._whole_s = self._timeout_s if self._had_master else self._first_timeout_s
        timeout_s = self._timeout_s * (SHORT_PART if self._tries_after_loss == 2 else 1.0)
        self._tries_after_loss = max(0, self._tries_after_loss - 1)
        self._invited_nsites = 0
        self._called_s = now_s
        self.under_way = self._voted = True
        self._void = False
        self._due_s = None
        self._voters.clear()
        self._out.note("election_called", nsites=numbers.nsites, nvotes=numbers.nvotes)
        self._out.do(Elect(*numbers, timeout_s, self._whole_s))
        self._out.do(RoleChanged())
        return None

    def over(self, now_s: float, outcome: str, *, again: bool) -> None:
        """The election call returned."""
        self.under_way = False
        self._counted_until_s = 0.0 if self._void else now_s + self._whole_s
        self._out.note("election_over", outcome=outcome)
        if again and self._due_s is None:  # else another was called for meanwhile
            # Longer than a short one takes: somebody may have won and be about to take over.
            unwon_s = 2 * SHORT_PART * self._timeout_s
            unwon = outcome != DECIDED and now_s - self._called_s < unwon_s
            self._due_s = now_s + (0 if unwon and self._tries_after_loss else self._retry_s)
        self._out.do(RoleChanged())
