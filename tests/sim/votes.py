"""Elections of a simulated library: two phases, tallied by election generation (egen).

A site tells everybody what it has (VOTE1); when all have told, or the time is over and enough
have, it votes for the best (VOTE2). Best is: electable, then the newest data generation, then the
longest log, then the priority, then chance. While a site takes part it applies no log.

Source: the library's `rep_elect`; Programmer's Reference, "Elections".
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final, NamedTuple

from berkeleydb import db

from replication.messages import RepType
from replication.wire import LSN
from tests.sim.log import LOG_EMPTY
from tests.sim.protocol import EID_BROADCAST, EID_INVALID, ELECTABLE, Control, Vote, encode_egen
from tests.sim.region import Region, Sync

POLLS: Final = 10  # the library looks so often in one time-out
POLL_MAX_S: Final = 0.5

Ended = Callable[[Exception | None], None]


class Stage(Enum):
    """Where this site's own election is."""

    NONE = "none"
    PHASE1 = "waiting for what others have"
    PHASE2 = "waiting for votes"


class Best(NamedTuple):
    """The best site so far."""

    eid: int = EID_INVALID
    priority: int = 0
    lsn: LSN = LSN(0, 0)
    data_generation: int = 0
    tiebreaker: int = 0


class Votes:
    """See the module's text.

    Args:
        region: shared with the other parts.
        request_again: asks for the log that was skipped meanwhile.

    Attributes:
        won: until rep_start makes this site master.
        won_with: votes for it when it won last.
    """

    def __init__(self, region: Region, request_again: Callable[[], None]) -> None:
        self.stage = Stage.NONE
        self.won = False
        self.won_with = 0
        self._region = region
        self._request_again = request_again
        self._tallying = False
        self._spent_egen = 0
        self._told_egen = 0
        self._threads = 0
        self._nsites = self._nvotes = 0
        self._sites: dict[int, int] = {}  # who told what it has, in which egen
        self._votes: dict[int, int] = {}  # who voted for this site
        self._best = Best()

    @property
    def _in_tally(self) -> bool:
        return self._tallying or self.stage is not Stage.NONE

    @property
    def _everybody_told(self) -> bool:
        return len(self._sites) >= self._nsites and self._best.eid != EID_INVALID

    @property
    def _has_won(self) -> bool:
        own = self._region.settings.eid
        return len(self._votes) >= self._nvotes and self._best.eid == own

    def done(self) -> None:
        """End the election of this egen, if one is under way: the next has the next number."""
        if self.stage is not Stage.NONE:
            self._region.egen += 1
        self.stage, self._tallying = Stage.NONE, False
        self._sites.clear()
        self._votes.clear()

    # -- this site's own election --------------------------------------------------------------

    def hold(self, nsites: int, nvotes: int, ended: Ended) -> None:
        """Hold an election; `ended` is told None or the error, as rep_elect would answer."""
        region = self._region
        if region.is_master:
            region.announce()
            ended(None)
            return
        if self._spent_egen == region.egen:
            ended(None)  # one is under way at this egen, or was
            return
        self._spent_egen = region.egen
        if self._in_tally:
            self._nsites, self._nvotes = max(self._nsites, nsites), max(self._nvotes, nvotes)
        else:
            self._nsites, self._nvotes = nsites, nvotes
        _Call(self, region, nsites, nvotes, ended).begin()

    # -- what others say -----------------------------------------------------------------------

    def vote1(self, eid: int, control: Control, body: bytes) -> int | None:
        """A site told what it has."""
        region, vote = self._region, Vote.decode(body)
        if region.is_master:
            region.announce()
            return None
        if vote.egen < region.egen:
            region.send(RepType.ALIVE, eid, control.lsn, encode_egen(region.egen))
            return None
        if vote.egen > region.egen:
            self.done()
            region.egen = vote.egen
        if self._in_tally:
            self._nsites = max(self._nsites, vote.nsites)
            self._nvotes = max(self._nvotes, vote.nvotes)
        else:
            self._tallying = True
            self._nsites, self._nvotes = vote.nsites, vote.nvotes
        if self.stage is Stage.PHASE2 or not _count(self._sites, eid, vote.egen):
            return None
        self._compare(eid, control.lsn, vote, electable=bool(control.flags & ELECTABLE))
        if self.stage is Stage.NONE:
            return db.DB_REP_HOLDELECTION
        if self._everybody_told:
            self.stage = Stage.PHASE2
            self.vote()
            if self._has_won:
                self._win()
        return None

    def vote2(self, eid: int, body: bytes) -> int | None:
        """A site voted for this one."""
        region, vote = self._region, Vote.decode(body)
        if region.is_master:
            region.announce()
            return None
        if not self._in_tally and vote.egen >= region.egen:
            return db.DB_REP_HOLDELECTION
        if vote.egen != region.egen or not _count(self._votes, eid, vote.egen):
            return None
        if self._has_won:
            self._win()
        return None

    def alive(self, egen: int) -> int | None:
        """A site is at this egen."""
        region = self._region
        if egen <= region.egen:
            return None
        spent = self._spent_egen == region.egen
        self.done()
        region.egen = egen
        return db.DB_REP_HOLDELECTION if spent else None

    # -- parts ---------------------------------------------------------------------------------

    def begin(self, lsn: LSN, vote: Vote, *, electable: bool) -> None:
        """Count this site's own word."""
        self.stage, self._tallying = Stage.PHASE1, False
        _count(self._sites, self._region.settings.eid, vote.egen)
        self._compare(self._region.settings.eid, lsn, vote, electable=electable)

    def vote(self) -> None:
        """Vote for the best."""
        region, best = self._region, self._best
        if best.eid == region.settings.eid:
            _count(self._votes, best.eid, region.egen)
        else:
            region.send(RepType.VOTE2, best.eid, record=Vote(region.egen).encode())

    def can_vote(self) -> bool:
        """Tell whether enough sites told what they have, and one of them is electable."""
        return len(self._sites) >= self._nvotes and self._best.eid != EID_INVALID

    def is_everybody_told(self) -> bool:
        return self._everybody_told

    def has_won(self) -> bool:
        return self._has_won

    @property
    def best_is_self(self) -> bool:
        return self._best.eid == self._region.settings.eid

    def _win(self) -> None:
        self.note_votes()
        self.fire_elected(self._region.egen)

    def note_votes(self) -> None:
        """Remember with how many votes this site won."""
        self.won_with = len(self._votes)

    def fire_elected(self, egen: int) -> None:
        """Say once an egen that this site won."""
        self.won = True
        if self._told_egen < egen:
            self._told_egen = egen
            self._region.notify(db.DB_EVENT_REP_ELECTED)

    def _compare(self, eid: int, lsn: LSN, vote: Vote, *, electable: bool) -> None:
        new = Best(eid, vote.priority, lsn, vote.data_generation, vote.tiebreaker)
        if len(self._sites) == 1:
            self._best = new if electable or vote.priority else Best()
            return
        if not (electable or vote.priority):
            return
        best = self._best
        alike = bool(vote.priority) == bool(best.priority)
        tie = (new.priority, new.tiebreaker) > (best.priority, best.tiebreaker)
        if (
            (new.priority and not best.priority)
            or (alike and new.data_generation > best.data_generation)
            or (alike and new.data_generation == best.data_generation and new.lsn > best.lsn)
            or (new.lsn == best.lsn and tie)
        ):
            self._best = new

    def enter(self) -> None:
        """A call of rep_elect is under way."""
        self._threads += 1
        self._region.apply_locked = True

    def leave(self) -> None:
        """It is over; the last one lets log be applied again."""
        region = self._region
        self._threads -= 1
        if self._threads:
            return
        skipped = region.skipped_apply and not self._has_won
        region.apply_locked = region.skipped_apply = False
        if skipped:
            self._request_again()


class _Call:
    """One call of rep_elect: it polls, as the library does."""

    def __init__(
        self, votes: Votes, region: Region, nsites: int, nvotes: int, ended: Ended
    ) -> None:
        self._votes = votes
        self._region = region
        self._nsites = nsites
        self._nvotes = nvotes
        self._ended = ended
        self._egen = region.egen
        self._timeout_s = region.settings.election_timeout_s
        self._slept_s = 0.0

    def begin(self) -> None:
        votes, region = self._votes, self._region
        votes.enter()
        priority = region.settings.priority
        electable = priority > 0
        lsn, data_generation = LOG_EMPTY, 0
        if region.initialising or region.sync is Sync.UPDATE:
            priority, electable = 0, False
        else:
            lsn, data_generation = region.last_commit(), region.data_generation()
        region.disk.egen = self._egen + 1  # a crash must not let it vote twice
        tiebreaker = region.dice.getrandbits(32)
        vote = Vote(self._egen, self._nsites, self._nvotes, priority, tiebreaker, data_generation)
        votes.begin(lsn, vote, electable=electable)
        done = votes.is_everybody_told()
        flags = ELECTABLE if electable else 0
        region.send(RepType.VOTE1, EID_BROADCAST, lsn, vote.encode(), flags)
        if done:
            self._vote()
        else:
            self._sleep(self._poll1)

    def _sleep(self, then: Callable[[], None]) -> None:
        pause_s = min(self._timeout_s / POLLS, POLL_MAX_S)
        self._slept_s += pause_s
        self._region.clock.call_later(pause_s, then)

    def _is_time_over(self) -> bool:
        return self._slept_s >= self._timeout_s - 1e-9

    def _poll1(self) -> None:
        votes = self._votes
        ended_otherwise = self._region.egen != self._egen
        if not ended_otherwise and votes.stage is Stage.PHASE1 and not self._is_time_over():
            self._sleep(self._poll1)
        elif self._region.egen > self._egen:
            self._out(None)
        elif votes.stage is Stage.PHASE2:
            self._phase2()
        elif votes.can_vote():
            self._vote()
        else:
            self._fail()

    def _vote(self) -> None:
        self._votes.stage = Stage.PHASE2
        self._votes.vote()
        if not self._votes.best_is_self:
            self._timeout_s *= 2  # the winner may be behind this site in its waiting
        self._phase2()

    def _phase2(self) -> None:
        if self._votes.has_won():
            self._win()
            return
        self._slept_s = 0.0
        self._sleep(self._poll2)

    def _poll2(self) -> None:
        votes = self._votes
        over = self._region.egen != self._egen or votes.stage is not Stage.PHASE2
        if not over and not self._is_time_over():
            self._sleep(self._poll2)
        elif over:
            self._out(None)
        elif votes.has_won():
            self._win()
        else:
            self._fail()

    def _win(self) -> None:
        self._votes.note_votes()
        self._votes.done()
        self._out(None, elected=True)

    def _fail(self) -> None:
        self._votes.done()
        error = db.DBRepUnavailError(-30973, "DB_REP_UNAVAIL: too few remote sites")
        self._out(error)

    def _out(self, error: Exception | None, *, elected: bool = False) -> None:
        self._votes.leave()
        if elected:
            self._votes.fire_elected(self._egen)
        self._ended(error)


def _count(tally: dict[int, int], eid: int, egen: int) -> bool:
    """Count a site's word once an egen; False when it is no news."""
    if tally.get(eid, -1) >= egen:
        return False
    tally[eid] = egen
    return True
