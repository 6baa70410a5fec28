"""Who becomes master when a site starts: every row of the table, and what operators do to sites."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replication.bodies import SiteAddress, Standing
from replication.coldstart import Answer, Decision, OwnStanding, Start, decide, refusal
from replication.messages import StandingFlag
from replication.wire import LSN, LSN_ZERO

A, B, C = (SiteAddress("192.0.2.10", port) for port in (5010, 5011, 5012))
OWN = OwnStanding(
    B,
    priority=1,
    generation=3,
    last_lsn=LSN(1, 5000),
    empty=False,
    has_membership=True,
    creator=False,
    remembers_group=True,
    group_id=7,
    stable_lsn=LSN(1, 4000),
)
EMPTY = replace(
    OWN, last_lsn=LSN_ZERO, empty=True, has_membership=False, generation=0, stable_lsn=LSN_ZERO
)
NEW = replace(EMPTY, remembers_group=False, group_id=0)
END = LSN(1, 5000)
FLAGS = StandingFlag.COMPLETE_COPY | StandingFlag.HAS_MEMBERSHIP
SILENT = Answer(A, reason="connection refused")


def says(
    site: SiteAddress = A,
    *,
    flags: StandingFlag = FLAGS,
    priority: int = 0,
    last: LSN = END,
    stable: LSN = LSN_ZERO,
    generation: int = 3,
    group_id: int = 7,
) -> Answer:
    """Return what another site answers: a replicant in step with OWN unless told otherwise."""
    return Answer(site, Standing(generation, last, stable, priority, int(flags), group_id=group_id))


MASTER = says(flags=FLAGS | StandingFlag.MASTER, priority=1)
NATIVE = Answer(A, native=True, reason="a native site")
FOLLOWS_C = Answer(A, Standing(3, END, LSN_ZERO, 0, int(FLAGS), master=C, group_id=7))
NOTHING = says(flags=StandingFlag.EMPTY, last=LSN_ZERO, group_id=0, generation=0)


@dataclass(frozen=True)
class Row:
    """One case: what is held, what is answered, what follows."""

    name: str
    own: OwnStanding
    answers: tuple[Answer, ...]
    start: Start
    why: str
    master: SiteAddress | None = None
    priorities: tuple[tuple[SiteAddress, int], ...] = ()
    members: tuple[SiteAddress, ...] = (A,)
    creator_elsewhere: bool = False
    generation_above: int = 0


ROWS = [
    Row("a master is followed", OWN, (MASTER,), Start.FOLLOW, "is master", master=A),
    Row("an empty site follows", NEW, (MASTER,), Start.FOLLOW, "is master", master=A),
    Row("a native group is joined", NEW, (NATIVE,), Start.FOLLOW, "native site"),
    Row("a native site votes", OWN, (NATIVE,), Start.ELECT, "votes with it"),
    Row("not for priority 0", replace(OWN, priority=0), (NATIVE,), Start.FOLLOW, "whoever leads"),
    Row("not for an emptied site", EMPTY, (NATIVE,), Start.FOLLOW, "native site"),
    Row(
        "not for one that lacks what is acknowledged",
        OWN,
        (NATIVE, says(C, stable=LSN(1, 5001))),
        Start.FOLLOW,
        "whoever leads",
        members=(A, C),
    ),
    Row(
        "a member passes the wish to join on to its master",
        replace(NEW, priority=0),
        (FOLLOWS_C,),
        Start.FOLLOW,
        "follows 192.0.2.10:5012",
        master=A,
    ),
    Row(
        "so for one that was removed",
        replace(OWN, has_membership=False, removed=True),
        (FOLLOWS_C,),
        Start.FOLLOW,
        "follows 192.0.2.10:5012",
        master=A,
    ),
    Row(
        "not into another group",
        replace(OWN, has_membership=False, removed=True, group_id=8),
        (FOLLOWS_C,),
        Start.WAIT,
        "no master answers",
    ),
    Row(
        "who was removed founds no group",
        replace(OWN, has_membership=False, removed=True, creator=True),
        (SILENT,),
        Start.WAIT,
        "was removed",
    ),
    Row("priority 0, member", replace(OWN, priority=0), (SILENT,), Start.FOLLOW, "priority 0"),
    Row(
        "priority 0, not a member",
        replace(NEW, priority=0),
        (SILENT,),
        Start.WAIT,
        "connection refused",
    ),
    Row("priority 0, alone", replace(NEW, priority=0), (), Start.WAIT, "no other site", members=()),
    Row("emptied, others hold data", EMPTY, (says(),), Start.WAIT, "holds data up to 1/5000"),
    Row(
        "emptied, a creator too",
        replace(EMPTY, creator=True),
        (says(),),
        Start.WAIT,
        "would take that copy with it",
    ),
    Row("emptied, nobody answers", EMPTY, (SILENT,), Start.WAIT, "was in a group that had data"),
    Row("new, creator", replace(NEW, creator=True), (SILENT,), Start.CREATE, "creator on"),
    Row(
        "new, the creator is elsewhere",
        NEW,
        (SILENT,),
        Start.WAIT,
        "the site that creates the group",
        creator_elsewhere=True,
    ),
    Row(
        "new, a lower address may create",
        NEW,
        (says(flags=StandingFlag.EMPTY, last=LSN_ZERO, group_id=0, generation=0, priority=1),),
        Start.WAIT,
        "waits for 192.0.2.10:5010",
    ),
    Row("new, the lowest", NEW, (NOTHING,), Start.CREATE, "no other site has one"),
    Row("new, alone", NEW, (), Start.CREATE, "no other site has one", members=()),
    Row(
        "behind what was acknowledged",
        OWN,
        (says(stable=LSN(1, 5001), last=LSN(1, 9000)),),
        Start.WAIT,
        "becoming master would lose them",
    ),
    Row(
        "behind, and who is not can be elected",
        OWN,
        (says(stable=LSN(1, 5001), last=LSN(1, 5001), priority=1),),
        Start.FOLLOW,
        "this site only votes",
    ),
    Row(
        "behind, and who can be elected is, too",
        OWN,
        (says(stable=LSN(1, 5001), last=LSN(1, 5000), priority=1),),
        Start.WAIT,
        "becoming master would lose them",
    ),
    Row(
        "behind what it knows itself",
        replace(OWN, stable_lsn=LSN(2, 28)),
        (SILENT,),
        Start.WAIT,
        "192.0.2.10:5011 knows",
    ),
    Row(
        "only priority 0 elsewhere",
        OWN,
        (says(generation=9),),
        Start.MASTER,
        "every other member has priority 0",
        generation_above=9,
    ),
    Row(
        "priority 0 known from before",
        OWN,
        (SILENT,),
        Start.MASTER,
        "priority 0",
        priorities=((A, 0),),
        generation_above=3,
    ),
    Row("only member", OWN, (), Start.MASTER, "only member", members=(), generation_above=3),
    Row("another may win", OWN, (says(priority=2),), Start.ELECT, "more than one member"),
    Row("another might win", OWN, (SILENT,), Start.ELECT, "more than one member"),
    Row(
        "one of two is unknown",
        OWN,
        (says(), Answer(C, reason="timeout")),
        Start.ELECT,
        "more than one member",
        members=(A, C),
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_the_table(row: Row) -> None:
    decision = decide(
        row.own, row.answers, dict(row.priorities), row.members, row.creator_elsewhere
    )
    assert decision.start is row.start, decision
    assert row.why in decision.why
    assert decision.generation_above == row.generation_above
    if row.master is not None:
        assert decision.master == row.master
    if row.start is Start.WAIT:
        assert decision.hint, "whoever has to wait is told what to do"


class TestWhatOperatorsDo:
    """The three cases in which a careless start would destroy the copy that is left."""

    def test_the_rep_files_of_a_master_were_removed(self) -> None:
        # Generation and membership are gone with __db.rep.*, the data and its log are not.
        own = replace(OWN, generation=0, has_membership=False, creator=True)
        decision = decide(own, [says(generation=12)], {}, [A], False)
        assert decision.start is Start.MASTER
        assert decision.generation_above == 12, "else the replicant would ignore it for ever"

    def test_a_master_was_emptied_and_the_replicant_answers(self) -> None:
        decision = decide(replace(EMPTY, creator=True), [says()], {}, [A], False)
        assert decision.start is Start.WAIT
        assert decision.hint is not None
        assert "ttserver promote` on 192.0.2.10:5010" in decision.hint

    def test_a_master_was_emptied_and_nobody_answers(self) -> None:
        decision = decide(replace(EMPTY, creator=True), [SILENT], {A: 0}, [A], False)
        assert decision.start is Start.WAIT

    def test_a_master_was_emptied_with_the_file_beside_it_and_nobody_answers(self) -> None:
        # Nothing is left that could know of the data: it is a new site, and the replicant that
        # comes back later refuses to follow it (another group).
        decision = decide(replace(NEW, creator=True), [SILENT], {}, [A], False)
        assert decision.start is Start.CREATE
        returning = replace(OWN, priority=0)
        other = says(B, flags=FLAGS | StandingFlag.MASTER, group_id=99).standing
        assert other is not None
        refused = refusal(returning, B, other)
        assert refused is not None
        assert refused.start is Start.WAIT
        assert "another group" in refused.why

    def test_a_master_was_emptied_with_the_file_beside_it_and_the_replicant_answers(self) -> None:
        decision = decide(replace(NEW, creator=True), [says()], {}, [A], False)
        assert decision.start is Start.WAIT

    def test_a_replicant_is_ahead_by_records_nobody_was_promised(self) -> None:
        ahead = says(last=LSN(1, 9000), stable=LSN(1, 4000))
        assert decide(OWN, [ahead], {}, [A], False).start is Start.MASTER


class TestRefusal:
    def master(self, **facts: object) -> Standing:
        standing = says(**facts).standing  # type: ignore[arg-type]
        assert standing is not None
        return standing

    def test_a_master_of_the_same_group_is_followed(self) -> None:
        assert refusal(OWN, A, self.master()) is None

    def test_a_master_that_lacks_acknowledged_writes_is_refused(self) -> None:
        refused = refusal(OWN, A, self.master(last=LSN(1, 3999)))
        assert refused is not None
        assert "1/3999" in refused.why
        assert "1/4000" in refused.why
        assert refused.hint is not None
        assert "promote" in refused.hint
        assert "wipe" in refused.hint

    def test_an_empty_site_has_nothing_to_lose(self) -> None:
        assert refusal(EMPTY, A, self.master(last=LSN_ZERO, group_id=99)) is None

    @pytest.mark.parametrize(("own", "other"), [(0, 7), (7, 0)])
    def test_an_unknown_group_is_no_other_group(self, own: int, other: int) -> None:
        assert refusal(replace(OWN, group_id=own), A, self.master(group_id=other)) is None

    def test_of_two_masters_the_newer_one_counts(self) -> None:
        master = FLAGS | StandingFlag.MASTER
        old = says(A, flags=master, generation=8, last=LSN(1, 3999))
        new = says(C, flags=master, generation=9)
        for answers in ([old, new], [new, old]):
            decision = decide(OWN, answers, {}, [A, C], False)
            assert (decision.start, decision.master) == (Start.FOLLOW, C)

    def test_deciding_refuses_it_too(self) -> None:
        wrong = says(flags=FLAGS | StandingFlag.MASTER, group_id=99)
        assert decide(OWN, [wrong], {}, [A], False).start is Start.WAIT


LSNS = st.builds(LSN, st.integers(1, 2), st.integers(28, 60))


@st.composite
def answered(draw: st.DrawFn, site: SiteAddress) -> Answer:
    kind = draw(st.sampled_from(["silent", "native", "standing"]))
    if kind == "silent":
        return Answer(site, reason="timeout")
    if kind == "native":
        return Answer(site, native=True)
    empty = draw(st.booleans())
    flags = StandingFlag.EMPTY if empty else StandingFlag(0)
    for flag in (StandingFlag.HAS_MEMBERSHIP, StandingFlag.GROUP_CREATOR, StandingFlag.MASTER):
        if draw(st.booleans()):
            flags |= flag
    return Answer(
        site,
        Standing(
            draw(st.integers(0, 9)),
            LSN_ZERO if empty else draw(LSNS),
            LSN_ZERO if empty else draw(LSNS),
            draw(st.integers(0, 2)),
            int(flags),
            group_id=draw(st.integers(0, 2)),
        ),
    )


@st.composite
def situations(draw: st.DrawFn) -> tuple[OwnStanding, list[Answer], dict[SiteAddress, int]]:
    empty = draw(st.booleans())
    own = OwnStanding(
        draw(st.sampled_from([A, B])),
        draw(st.integers(0, 2)),
        draw(st.integers(0, 9)),
        LSN_ZERO if empty else draw(LSNS),
        empty,
        draw(st.booleans()),
        draw(st.booleans()),
        draw(st.booleans()),
        draw(st.integers(0, 2)),
        draw(st.one_of(st.just(LSN_ZERO), LSNS)),
    )
    others = [site for site in (A, B, C) if site != own.address]
    answers = [draw(answered(site)) for site in others]
    priorities = draw(st.dictionaries(st.sampled_from(others), st.integers(0, 2)))
    return own, answers, priorities


def judge(
    situation: tuple[OwnStanding, list[Answer], dict[SiteAddress, int]], elsewhere: bool
) -> tuple[Decision, OwnStanding, list[Standing]]:
    own, answers, priorities = situation
    members = [answer.address for answer in answers]
    standings = [answer.standing for answer in answers if answer.standing is not None]
    return decide(own, answers, priorities, members, elsewhere), own, standings


ALONE = (Start.MASTER, Start.CREATE, Start.ELECT)


@given(situations(), st.booleans())
def test_an_empty_site_never_leads_those_who_hold_data(
    situation: tuple[OwnStanding, list[Answer], dict[SiteAddress, int]], elsewhere: bool
) -> None:
    decision, own, standings = judge(situation, elsewhere)
    if own.empty and any(not s.flags & StandingFlag.EMPTY for s in standings):
        assert decision.start not in ALONE


@given(situations(), st.booleans())
def test_nobody_leads_without_what_was_acknowledged(
    situation: tuple[OwnStanding, list[Answer], dict[SiteAddress, int]], elsewhere: bool
) -> None:
    decision, own, standings = judge(situation, elsewhere)
    if decision.start in ALONE:
        assert own.last_lsn >= max([own.stable_lsn, *(s.stable_lsn for s in standings)])


@given(situations(), st.booleans())
def test_priority_0_never_leads_and_a_leader_is_above_all_generations(
    situation: tuple[OwnStanding, list[Answer], dict[SiteAddress, int]], elsewhere: bool
) -> None:
    decision, own, standings = judge(situation, elsewhere)
    if own.priority == 0:
        assert decision.start not in ALONE
    if decision.start is Start.MASTER:
        assert decision.generation_above >= max(
            [own.generation, *(s.generation for s in standings)]
        )
    if decision.start is Start.WAIT:
        assert decision.hint
