"""A witness: what its core makes of masters and lists, and what it keeps from the library."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from berkeleydb import db

from replication import effects
from replication.acks import AckTable, can_be_met, policy_lsn
from replication.coldstart import Answer
from replication.core import Core
from replication.heartbeats import GAP_SILENCE_S
from replication.held_log import HeldLog
from replication.holdings import Holdings
from replication.messages import AckPolicy, RepType, StandingFlag
from replication.phase import Phase
from replication.roster import Roster
from replication.settings import GroupSettings, RemoteSite
from replication.standing import describe
from replication.wire import LSN, LSN_ZERO
from replication.witness import HEEDED, WitnessApplier
from tests.support.links import control
from tests.support.replicated import Observed, Told, environment, frame, wait_for
from tests.support.scripted_core import COMPLETE, NEW, A, B, C, Script, group_of, master, says


def witness(*, known: bool = True) -> Script:
    """B, a witness of A and C."""
    sites = group_of(A, B, C)
    script = Script(replace(NEW, priority=0, has_membership=known), others=(A, C))
    memory = replace(COMPLETE, complete=False, sites=sites) if known else None
    settings = GroupSettings(
        B, (RemoteSite(A), RemoteSite(C)), priority=0, witness=True, start_wait_s=1.0
    )
    own = script.core.own
    script.core = Core(settings, own, sites if known else None, memory or script.core.memory, 9)
    return script


def following(script: Script) -> Script:
    script.start(Answer(A, says(master=True, priority=1)), Answer(C, says(priority=1)))
    for site in (A, C):
        script.link(site, priority=1, standing=says(master=site == A, priority=1))
    script.core.client_ready()
    script.core.master_again(script.now_s, script.core.site(A).eid, 4)
    script.do()
    assert script.core.master == A
    return script


class TestItsCore:
    def test_it_joins_and_remembers_the_list_that_no_database_holds(self) -> None:
        script = witness(known=False)
        script.start(Answer(A, says(master=True, priority=1)), Answer(C, says(priority=1)))
        assert script.done(effects.Join) == [effects.Join(A)]
        script.core.belonging.joined(script.now_s, group_of(A, B, C))
        script.do()
        assert script.done(effects.SaveMemory)[-1].memory.sites == group_of(A, B, C)
        newer = group_of(A, B, version=9, generation=4)
        script.core.membership_shared(newer)
        script.do()
        assert script.core.memory.sites == newer

    def test_without_a_master_it_follows_whoever_is_elected(self) -> None:
        script = witness()
        script.start(Answer(A, reason="refused"), Answer(C, says(priority=1)))
        assert script.core.phase is Phase.FOLLOWING
        script.link(C, priority=1, standing=says(priority=1))
        script.core.client_ready()
        script.core.election_wanted(script.now_s)
        script.do()
        assert script.done(effects.Elect), "it votes from what it remembers of the group"

    def test_a_new_master_is_noticed_while_the_old_one_is_still_connected(self) -> None:
        script = following(witness())
        script.core.master_again(script.now_s, script.core.site(C).eid, 5)
        script.do()
        assert (script.core.master, script.core.generation) == (C, 5)
        script.core.master_again(script.now_s, script.core.site(C).eid, 5)
        assert "new_master" not in [n.event for n in script.do() if isinstance(n, effects.Note)]

    def test_that_it_cannot_take_a_copy_is_as_it_should_be(self) -> None:
        script = following(witness())
        script.core.join_failure(script.now_s)
        assert not script.do()
        assert script.core.phase is Phase.FOLLOWING

    def test_it_misses_no_log(self) -> None:
        script = following(witness())
        for _ in range(5):
            script.now_s += GAP_SILENCE_S
            script.core.heartbeat(script.now_s, 1, 4, LSN(9, 9), LSN_ZERO)
            script.tick(2.0, applied=LSN_ZERO)
            assert "gap_suspected" not in script.notes()
            assert not script.done(effects.AskAgain)

    def test_it_says_what_it_is(self) -> None:
        said = describe(following(witness()).core, LSN_ZERO, LSN_ZERO, None)
        assert said.flags & StandingFlag.WITNESS
        assert said.flags & StandingFlag.EMPTY, "nobody takes it for one who holds data"


class TestOthers:
    def group(self) -> Script:
        script = master(B, C)
        said = says()
        flags = StandingFlag.WITNESS | StandingFlag.EMPTY | StandingFlag.HAS_MEMBERSHIP
        script.core.standing(script.now_s, 2, said._replace(flags=int(flags)))
        script.do()
        return script

    def test_it_is_known_also_after_a_restart_of_the_master(self) -> None:
        core = self.group().core
        assert core.memory.witnesses == {C}
        core.standing(100.0, 2, says())
        assert core.memory.witnesses == set(), "a site that was set up anew"

    @pytest.mark.parametrize("policy", AckPolicy)
    def test_no_policy_waits_for_it(self, policy: AckPolicy) -> None:
        core = self.group().core
        core.site(B).electable = True
        roster = Roster(AckTable(4))
        roster.rebuild(core)
        assert roster.acking() == 1
        assert can_be_met(policy, roster.sites())
        core_sites = [replace(s, acked=LSN(1, 9)) if not s.witness else s for s in roster.sites()]
        reached = policy_lsn(policy, core_sites)
        assert reached is not None
        assert reached >= LSN(1, 9)

    def test_no_log_is_kept_for_it(self) -> None:
        core = self.group().core
        holdings = Holdings(core._remembered, core.sites)
        assert {need.site for need in holdings.needs([B, C])} == {B}


@pytest.fixture
def applier(tmp_path: Path) -> Iterator[tuple[WitnessApplier, Observed]]:
    with environment(tmp_path / "w", 1) as env:
        env.rep_start(db.DB_REP_CLIENT)
        seen = Observed(env)
        made = WitnessApplier(
            seen,  # type: ignore[arg-type]  # a handle that is looked at
            Told(),
            is_choked=lambda _eid: False,
            flush_links=lambda: None,
            bytes_max=2**20,
            held=HeldLog(2**20),
        )
        made.start()
        try:
            yield made, seen
        finally:
            made.stop()
            made.join(20)


def test_the_library_sees_only_what_elections_are_made_of(
    applier: tuple[WitnessApplier, Observed],
) -> None:
    made, seen = applier
    kinds = [kind for kind in RepType if kind not in (RepType.VOTE1, RepType.VOTE2)]
    for kind in kinds:
        # The generation that ALIVE is about; short of it, the library leaves a count behind.
        made.put(2, [frame(control(kind), (2).to_bytes(4))], 10)
    wait_for("all are taken", lambda: made.queued_bytes == 0)
    assert made.dropped == len([kind for kind in kinds if kind not in HEEDED])
    passed = {int(call.split()[1]) for call in seen.calls if call.startswith("message")}
    assert passed == {int(kind) for kind in kinds if kind in HEEDED}
