"""Bugs planted into a simulated group, each to be caught by an invariant: the tests of the test.

Each is a mistake that somebody could make, in one part of the real code, put in its place for as
long as a run lasts. `python -m tests.sim --plants` looks for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final
from unittest.mock import patch

from berkeleydb import db

from replication import acks, election, wire
from replication.acknowledge import Acknowledger
from replication.apply import Applier
from replication.contact import Contact
from replication.core import Core
from replication.election import Ballot
from replication.held_log import HeldLog
from replication.manager import Manager
from replication.pending import Pending
from replication.roster import Roster
from replication.wire import LSN, LSN_ZERO, Frame
from tests.sim.group import Group, Result
from tests.sim.plan import plan
from tests.sim.transcript import Transcript

SEEDS_MAX: Final = 10  # one of so many must catch each

Replaced = tuple[object, str, Any]


@dataclass(frozen=True)
class Plant:
    """A planted bug.

    Args:
        name: for the command line.
        bug: what is wrong with it in place.
        caught: what the failure says; one of these.
        replaced: (owner, attribute, what stands there instead).
    """

    name: str
    bug: str
    caught: tuple[str, ...]
    replaced: Callable[[], tuple[Replaced, ...]]

    @contextmanager
    def planted(self) -> Iterator[None]:
        """Have the bug for as long as this lasts."""
        with ExitStack() as stack:
            for owner, name, instead in self.replaced():
                stack.enter_context(patch.object(owner, name, instead))
            yield

    def catches(self, failure: str) -> bool:
        """Tell whether a failure is this bug's."""
        return any(words in failure for words in self.caught)


# -- acknowledging -------------------------------------------------------------------------------


def _ack_before_flush() -> tuple[Replaced, ...]:
    def flush_log(applier: Applier, eid: int) -> bool:
        return True

    return ((Applier, "_flush_log", flush_log),)


def _ack_before_apply() -> tuple[Replaced, ...]:
    answered = Applier._answered

    def too_soon(applier: Applier, code: int, frame: Frame) -> None:
        if code == db.DB_REP_NOTPERM:  # it came too early, and waits in the library
            lsn = LSN(*(int.from_bytes(frame.control[at : at + 4]) for at in (8, 12)))
            applier._permanent(int.from_bytes(frame.control[20:24]), lsn)
        else:
            answered(applier, code, frame)

    return ((Applier, "_answered", too_soon),)


def _ack_of_an_earlier_generation() -> tuple[Replaced, ...]:
    route = Manager._route

    def unchecked(manager: Manager) -> None:
        before = manager._acks._links
        route(manager)
        if manager._acks._links not in ((), before) and manager.applier.applied > LSN_ZERO:
            manager._acks.send(manager.core.generation, manager.applier.applied)

    return ((Manager, "_route", unchecked),)


def _ack_while_voting() -> tuple[Replaced, ...]:
    acknowledge = Applier._acknowledge

    def send(acknowledger: Acknowledger, generation: int, lsn: LSN) -> None:
        for link in acknowledger._links:
            link.write(wire.encode_ack(generation, lsn))

    def not_held(applier: Applier) -> None:
        holding, applier._held.holding = applier._held.holding, False
        acknowledge(applier)
        applier._held.holding = holding

    return (Acknowledger, "send", send), (Applier, "_acknowledge", not_held)


def _vote_forgotten() -> tuple[Replaced, ...]:
    def remember(held: HeldLog, vote: int, until_s: float) -> None:
        """It is held by the process, which is new."""

    return ((HeldLog, "remember", remember),)


def _log_while_voting() -> tuple[Replaced, ...]:
    def kept(applier: Applier, eid: int, frame: Frame) -> bool:
        return applier.refuses_copy

    return ((Applier, "_kept", kept),)


# -- counting acknowledgements -------------------------------------------------------------------


def _quorum_one_too_few() -> tuple[Replaced, ...]:
    def quorum_size(n: int, *, two_site_strict: bool = True) -> int:
        return max(0, (n - 2) // 2)

    return ((acks, "quorum_size", quorum_size),)


def _ack_counted_twice() -> tuple[Replaced, ...]:
    record = Roster.acked

    def acked(roster: Roster, eid: int, lsn: LSN) -> None:
        record(roster, eid, lsn)
        of_it = [site for site in roster._sites if site.eid == eid]
        if len(of_it) == 1:  # once for each link between the two
            roster._sites.append(of_it[0])

    return ((Roster, "acked", acked),)


def _answered_twice() -> tuple[Replaced, ...]:
    expire = Pending.expire

    def kept(pending: Pending, now_s: float) -> None:
        queues = {policy: queue.copy() for policy, queue in pending._queues.items()}
        expire(pending, now_s)
        pending._queues.update(queues)

    return ((Pending, "expire", kept),)


def _fence_ignored() -> tuple[Replaced, ...]:
    def refusal(contact: Contact, now_s: float) -> None:
        return None

    return ((Contact, "refusal", refusal),)


# -- electing ------------------------------------------------------------------------------------


def _minority_elects() -> tuple[Replaced, ...]:
    right = election.ballot

    def ballot(members: int, *, two_site_strict: bool, master_just_lost: bool) -> Ballot:
        numbers = right(members, two_site_strict=two_site_strict, master_just_lost=master_just_lost)
        return numbers._replace(nvotes=members // 2)

    return ((election, "ballot", ballot),)


def _duplicate_ignored() -> tuple[Replaced, ...]:
    def duplicate_master(core: Core, now_s: float) -> None:
        """The other one will notice."""

    return ((Core, "duplicate_master", duplicate_master),)


PLANTS: Final = (
    Plant(
        "ack-before-flush",
        "a replicant acknowledges what is not on its disk",
        ("before it is on disk",),
        _ack_before_flush,
    ),
    Plant(
        "ack-before-apply",
        "a replicant acknowledges a record that came before those it needs",
        ("and does not have it",),
        _ack_before_apply,
    ),
    Plant(
        "ack-of-an-earlier-generation",
        "a replicant tells a new master what it has of the one before",
        ("which is not what", "and does not have it", "sites must hold it"),
        _ack_of_an_earlier_generation,
    ),
    Plant(
        "ack-while-voting",
        "a replicant acknowledges while its vote may be counted",
        ("while its vote is out",),
        _ack_while_voting,
    ),
    Plant(
        "log-while-voting",
        "a replicant applies log while its vote may be counted",
        ("applies log while its vote is out",),
        _log_while_voting,
    ),
    Plant(
        "vote-forgotten",
        "a site that is started again has forgotten that it voted just now",
        ("while its vote is out",),
        _vote_forgotten,
    ),
    Plant(
        "quorum-one-too-few",
        "QUORUM asks one site too few in groups of an odd number",
        ("sites must hold it",),
        _quorum_one_too_few,
    ),
    Plant(
        "ack-counted-twice",
        "an acknowledgement counts for two sites",
        ("sites must hold it",),
        _ack_counted_twice,
    ),
    Plant(
        "answered-twice",
        "a write that waited too long stays in its queue",
        ("was answered twice",),
        _answered_twice,
    ),
    Plant(
        "fence-ignored",
        "a master that is cut off goes on answering",
        ("after it was cut off",),
        _fence_ignored,
    ),
    Plant(
        "minority-elects",
        "half of a group is enough to elect a master",
        ("is elected with", "are both master", "answered OK"),
        _minority_elects,
    ),
    Plant(
        "duplicate-ignored",
        "a master that hears of a newer one does not step down",
        ("masters",),
        _duplicate_ignored,
    ),
)
BY_NAME: Final = {plant.name: plant for plant in PLANTS}


def seek(planted: Plant, seeds: Iterable[int], *, everything: bool = False) -> Result | None:
    """Return the first run that fails with a bug planted, None if none does.

    Args:
        everything: its transcript is to tell everything.
    """
    for seed in seeds:
        with planted.planted():
            result = Group(plan(seed), Transcript(everything=everything)).run()
        if result.failure is not None:
            return result
    return None
