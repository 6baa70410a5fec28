"""When the log must wait because this site's vote is out (no input or output).

A vote says up to where this site's log goes. Whatever it applies and acknowledges afterwards would
not be in the winner's log, although it was counted. So from before a vote is cast until its
election can have no other winner, no log is applied and nothing is acknowledged:

    OPEN --begin--> DRAINING --drained--> VOTING --over--> WAITING --expired--> OPEN
                                            |  ^              |
                                    master  v  | voted        | master
                                         FOLLOWED --over----> OPEN

- DRAINING: what was received before goes to the library, so that the vote counts it.
- A master ends it only if its generation is that of the vote or above: one that was elected in an
  earlier election may yet lose to the one this site has voted in.
- An election without a result can still be won elsewhere while its votes are counted there: one
  more election time-out has to pass.
- The library writes down that it votes. A site that died meanwhile begins in WAITING.

Source: Programmer's Reference, "Elections"; the library's `rep_elect` refuses log only as long as
the call lasts.
"""

from enum import Enum
from types import MappingProxyType
from typing import Final


class State(Enum):
    """Whether log passes; the value says it in words."""

    OPEN = "no vote is out"
    DRAINING = "before an election, while earlier log is applied"
    VOTING = "in an election"
    FOLLOWED = "in an election whose master is known"
    WAITING = "after an election without a result"


class Input(Enum):
    """What may happen."""

    BEGIN = "an election is to be held"
    DRAINED = "the log received so far is applied"
    VOTED = "a vote was cast"
    MASTER = "a master of the vote's generation or above is known"
    OVER = "the election call returned"
    VOID = "the election call returned without a vote"
    EXPIRED = "nobody counts the vote any more"


STATES: Final = MappingProxyType(
    {
        (State.OPEN, Input.BEGIN): State.DRAINING,
        (State.OPEN, Input.MASTER): State.OPEN,
        (State.DRAINING, Input.DRAINED): State.VOTING,
        (State.DRAINING, Input.MASTER): State.DRAINING,
        (State.DRAINING, Input.VOID): State.OPEN,
        (State.VOTING, Input.VOTED): State.VOTING,
        (State.VOTING, Input.MASTER): State.FOLLOWED,
        (State.VOTING, Input.OVER): State.WAITING,
        (State.VOTING, Input.VOID): State.OPEN,
        (State.FOLLOWED, Input.VOTED): State.VOTING,
        (State.FOLLOWED, Input.MASTER): State.FOLLOWED,
        (State.FOLLOWED, Input.OVER): State.OPEN,
        (State.FOLLOWED, Input.VOID): State.OPEN,
        (State.WAITING, Input.BEGIN): State.VOTING,  # nothing was applied meanwhile
        (State.WAITING, Input.MASTER): State.OPEN,
        (State.WAITING, Input.EXPIRED): State.OPEN,
    }
)
# With a master known it ends when the call returns: as long as that lasts, the library drops log.
HOLDING: Final = frozenset({State.VOTING, State.FOLLOWED, State.WAITING})


class HoldError(Exception):
    """An input that cannot come in this state: a bug of ours."""


class Hold:
    """See the module's text.

    Attributes:
        state: where it stands.
    """

    def __init__(self) -> None:
        self.state = State.OPEN
        self._vote: int | None = None
        self._master = 0
        self._until_s = 0.0

    @property
    def holding(self) -> bool:
        """Log must wait and nothing may be acknowledged."""
        return self.state in HOLDING

    def remember(self, vote: int, until_s: float) -> None:
        """At the start: this site's last vote may still be counted until then."""
        assert self.state is State.OPEN, "nothing has happened yet"
        self.state, self._vote, self._until_s = State.WAITING, vote, until_s

    def begin(self) -> None:
        """An election is to be held; when this site is DRAINING now, `drained` has to follow."""
        self._go(Input.BEGIN)

    def drained(self) -> None:
        """What was received before `begin` is applied and acknowledged."""
        self._go(Input.DRAINED)

    def voted(self, generation: int) -> None:
        """A vote in the election of this generation leaves this site."""
        if generation <= self._master:
            return  # its master was quicker than the news of the vote
        self._vote = generation if self._vote is None else max(self._vote, generation)
        self._go(Input.VOTED)

    def master(self, generation: int) -> None:
        """A master of this generation is followed, or this site leads it."""
        self._master = max(self._master, generation)
        if self._vote is None or generation >= self._vote:
            self._vote = None
            self._go(Input.MASTER)

    def over(self, now_s: float, counted_s: float) -> None:
        """The election call returned.

        Args:
            counted_s: how long a vote may still be counted elsewhere, an election time-out.
        """
        self._until_s = now_s + counted_s
        self._go(Input.VOID if self._vote is None else Input.OVER)

    def expire(self, now_s: float) -> None:
        """The clock."""
        if self.state is State.WAITING and now_s >= self._until_s:
            self._vote = None
            self._go(Input.EXPIRED)

    def _go(self, input_: Input) -> None:
        try:
            self.state = STATES[self.state, input_]
        except KeyError:
            raise HoldError(f"{input_.value}: cannot be {self.state.value}") from None
