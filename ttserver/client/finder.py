"""Which site is asked, and what follows from its answer (sans-I/O).

A command goes through `ask`, a generator: it yields what is to be done (an `Exchange` with one
site, or a `Pause`), is sent what came of it, and returns the outcomes. So both clients, and the
tests, decide alike.

    site         answers                          then
    writing      READONLY, LOADING, TRYAGAIN ...  nothing was written: the next site
    reading      LOADING, NODATA, MASTERDOWN ...  the next site
    any          no connection                    nothing was sent: the next site
    any          broke before the reply           a read, or what may be repeated: the next site
                                                  any other write: OutcomeUnknown
    reading      has not got the last own write   the next site
    any          any other error, or a value      that is the outcome

When all sites were tried there is a pause, and another round, until the deadline. The first
contact is not waited for: when no site can be reached at all, that is said after one round.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from replication.generations import CommitToken
from ttserver.client.call import Call, Words, plain
from ttserver.client.errors import (
    ClientError,
    LogonRefused,
    NotNow,
    OutcomeUnknown,
    ServerError,
    Unreachable,
    WriteLost,
)

PAUSE_FIRST_S: Final = 0.05
PAUSE_MOST_S: Final = 1.0
# A replicant that follows has a write within milliseconds; one that does not, is passed by.
WAIT_MS: Final = 1000
PASSING: Final = frozenset(
    {"READONLY", "LOADING", "TRYAGAIN", "MASTERDOWN", "NODATA", "NOREPLICAS"}
)


@dataclass(frozen=True, slots=True)
class Exchange:
    """Send commands to a site, on one connection, and take their replies.

    Args:
        site: its number in the list.
        commands: each with whether its reply is text.
        timeout_s: how long one reply may take; None for the client's own limit.
    """

    site: int
    commands: Sequence[tuple[Words, bool]]
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class Pause:
    """Let some time pass."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Exchanged:
    """What came of an exchange.

    Args:
        replies: those that came, in order; the server's errors among them.
        error: why the others did not come; None when all came.
        sent: whether anything was sent.
    """

    replies: Sequence[Any] = ()
    error: ClientError | None = None
    sent: bool = True


Steps: TypeAlias = Generator[Exchange | Pause, Exchanged | None, tuple[int, list[Any]]]


@dataclass(slots=True)
class _Search:
    """How far the search for a site that answers has come."""

    site: int
    end_s: float
    tried: int = 0
    pause_s: float = PAUSE_FIRST_S
    reached: bool = False
    errors: dict[int, ClientError] = field(default_factory=dict)

    def why(self) -> ClientError:
        """The error that says most: the server's words before those of the network."""
        said = [error for error in self.errors.values() if not isinstance(error, Unreachable)]
        if said:
            return said[-1]
        found = list(self.errors.values())
        if len(found) == 1:
            return found[0]
        return Unreachable("; ".join(map(str, found)), hint=found[0].hint)


class Finder:
    """Keeps in mind which site takes writes, which one answers reads, and the last own write.

    Args:
        names: the sites, in the order they are tried.
        deadline_s: how long to look for one that answers.
        now: a clock in seconds.
        read_your_writes: reads wait for this client's last write.

    Attributes:
        token: of the last write that is known; kept only with `read_your_writes`.

    *Thread:* any; each `ask` is one caller's own.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        deadline_s: float,
        now: Callable[[], float],
        read_your_writes: bool = False,
    ) -> None:
        self.token: CommitToken | None = None
        self._names = names
        self._deadline_s = deadline_s
        self._now = now
        self._own_writes = read_your_writes
        self._writing: int | None = None
        self._reading: int | None = None
        self._reached = False

    def ask(self, calls: Sequence[Call[Any]], only: int | None = None) -> Steps:
        """Have calls answered, in their order, by one site; see the module's text.

        What was written stays written: only those at the end that no site has done go on to the
        next site.

        Args:
            calls: at least one.
            only: the site that has to answer, and no other.

        Returns:
            The site that answered last, and for each call its outcome: a reply or a ClientError.
        """
        left = list(calls)
        settled: list[Any] = []
        search = self._search(left, only)
        while True:
            done = yield self._exchange(search.site, left)
            assert done is not None, "an exchange was asked for"
            self._reached = self._reached or done.sent or isinstance(done.error, ServerError)
            outcomes, why = self._judge(search.site, left, done)
            settled += outcomes
            left = left[len(outcomes) :]
            if not left:
                self._keep(search.site, calls)
                return search.site, settled
            if outcomes:
                search = self._search(left, only, search.site)
            search.errors[search.site] = why or _all_refused(done)
            if self._gives_up(search, only):
                return search.site, settled + [search.why()] * len(left)
            yield from self._pause(search)

    # -- the search

    def _search(
        self, calls: Sequence[Call[Any]], only: int | None, site: int | None = None
    ) -> _Search:
        if site is None:
            first = self._writing if any(call.write for call in calls) else self._reading
            others = (first, self._writing, self._reading, 0)
            site = next(one for one in (only, *others) if one is not None)
        return _Search(site, self._now() + self._deadline_s)

    def _gives_up(self, search: _Search, only: int | None) -> bool:
        if only is not None:
            return True
        search.tried += 1
        search.site = (search.site + 1) % len(self._names)
        round_over = search.tried % len(self._names) == 0
        if round_over and not self._reached:
            return True
        return search.tried >= len(self._names) and self._now() >= search.end_s

    def _pause(self, search: _Search) -> Generator[Pause, Exchanged | None, None]:
        if search.tried % len(self._names) == 0:
            yield Pause(search.pause_s)
            search.pause_s = min(2 * search.pause_s, PAUSE_MOST_S)

    def _keep(self, site: int, calls: Sequence[Call[Any]]) -> None:
        if any(call.write for call in calls):
            self._writing = site
            if self._reading is None:
                self._reading = site
        else:
            self._reading = site

    # -- one exchange

    def _exchange(self, site: int, calls: Sequence[Call[Any]]) -> Exchange:
        commands = [(words, call.text) for call in calls for words in call.commands]
        token = self._awaited(calls)
        if token is not None:
            wait = (b"WAITFOR", str(token).encode(), b"%d" % WAIT_MS)
            commands.insert(0, (wait, True))
        if self._notes_write(calls):
            commands.append(((b"LASTWRITE",), True))
        limits = [call.timeout_s for call in calls if call.timeout_s is not None]
        return Exchange(site, commands, max(limits, default=None))

    def _awaited(self, calls: Sequence[Call[Any]]) -> CommitToken | None:
        return None if any(call.write for call in calls) else self.token

    def _notes_write(self, calls: Sequence[Call[Any]]) -> bool:
        return self._own_writes and any(call.write for call in calls)

    def _judge(
        self, site: int, calls: list[Call[Any]], done: Exchanged
    ) -> tuple[list[Any], ClientError | None]:
        """Find the outcomes, and why the calls behind them have none."""
        replies = list(done.replies)
        if self._awaited(calls) is not None and replies:
            waited = replies.pop(0)
            if isinstance(waited, WriteLost):
                self.token = None  # told once
                return [waited] * len(calls), None
            if isinstance(waited, ServerError):
                return ([], waited) if waited.code in PASSING else ([waited] * len(calls), None)
            if not waited:
                return [], NotNow(
                    f"server {self._names[site]} has not got the last write {self.token} yet",
                    code="BEHIND",
                )
        if self._notes_write(calls) and done.error is None:
            self._note(replies.pop())
        if not done.sent:
            final = isinstance(done.error, LogonRefused)
            return ([done.error] * len(calls) if final else []), done.error
        outcomes = _outcomes(calls, replies)
        settled = self._settled(calls, outcomes)
        unanswered = calls[len(outcomes) :]
        if not unanswered or all(call.repeatable for call in unanswered):
            return outcomes[:settled], done.error
        lost = [self._lost(site, call, done.error) for call in unanswered]
        return outcomes + lost, None

    def _settled(self, calls: Sequence[Call[Any]], outcomes: Sequence[Any]) -> int:
        """Count the calls that are not to be asked again.

        Those from the first refusal on are, reads among them, unless a write behind it was done:
        writes keep their order.
        """
        settled = len(outcomes)
        for at in range(len(outcomes) - 1, -1, -1):
            if self._passing(outcomes[at]):
                settled = at
            elif calls[at].write:
                break
        return settled

    def _passing(self, outcome: Any) -> bool:
        if not isinstance(outcome, ServerError) or outcome.code not in PASSING:
            return False
        # The only server there is will not be another one's replicant a moment later.
        return outcome.code != "READONLY" or len(self._names) > 1

    def _lost(self, site: int, call: Call[Any], why: ClientError | None) -> OutcomeUnknown:
        return OutcomeUnknown(
            f"outcome of {call.name} is not known: server {self._names[site]} was lost before it"
            f" answered ({why})",
            hint="look whether it was done before you do it again.",
        )

    def _note(self, reply: Any) -> None:
        if isinstance(reply, list):
            written = CommitToken.parse(plain(reply[0]))
            if self.token is None or written > self.token:
                self.token = written


def _outcomes(calls: Sequence[Call[Any]], replies: Sequence[Any]) -> list[Any]:
    """Give each call what it came to, as far as the replies go."""
    found: list[Any] = []
    at = 0
    for call in calls:
        size = len(call.commands)
        if at + size > len(replies):
            break
        found.append(call.outcome(replies[at : at + size]))
        at += size
    return found


def _all_refused(done: Exchanged) -> ClientError:
    """The last refusal, where all replies came and none did anything."""
    errors = [reply for reply in done.replies if isinstance(reply, ClientError)]
    assert errors, "nothing is left without an error"
    return errors[-1]
