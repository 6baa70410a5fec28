"""What sites say they wait for, and the alarms that come and go with it."""

from __future__ import annotations

import time
from functools import partial

import pytest

from replication import clocks
from replication.bodies import SiteAddress
from replication.journal_line import Line, parse_line
from tests.support.engines import EngineSite, EngineSites, fast, sites
from tests.support.environments import soon
from ttserver.status import Status
from ttserver.waits import WaitStatus

__all__ = ["fast", "sites"]

ONE = "repmgr_set_ack_policy db_repmgr_acks_one"
AT_ONCE = {"status.alarm_after_s": 0.2}


def lines(site: EngineSite, event: str) -> list[Line]:
    found = (parse_line(text) for text in site.events.splitlines())
    return [line for line in found if line is not None and line.event == event]


def waits(status: Status, kind: str) -> list[WaitStatus]:
    return [wait for wait in status.waits if wait.kind == kind]


async def alarmed(site: EngineSite, kind: str) -> WaitStatus:
    """Wait until this is an alarm."""

    def found() -> WaitStatus | None:
        return next((a for a in site.engine.status().alarms if a.kind == kind), None)

    alarm = await soon(f"{site.name}: {kind}", found, deadline_s=60)
    assert alarm is not None
    return alarm


async def quiet(site: EngineSite, kind: str) -> None:
    await soon(
        f"{site.name} no longer waits ({kind})",
        lambda: not waits(site.engine.status(), kind),
        deadline_s=60,
    )


async def test_a_lone_site_waits_for_nothing(sites: EngineSites) -> None:
    site = sites.make()
    engine = site.make()
    assert [wait.kind for wait in engine.status().waits] == ["opening"]
    await engine.start()
    await soon("it is running", lambda: engine.state == "running")
    status = engine.status()
    assert (status.why, status.since, status.hint) == (None, None, None)
    assert (status.waits, status.alarms) == ([], [])
    assert [row.event for row in status.history][:1] == ["start_decided"]
    assert status.history[-1].event == "became_master"
    assert status.history[-1].generation == status.generation


async def test_a_replicant_says_that_no_master_answers_and_a_master_who_is_missing(
    sites: EngineSites,
) -> None:
    master, replicant = sites.group(2, lines=(ONE,), overrides=AT_ONCE)
    await replicant.start(wait=False)
    alarm = await alarmed(replicant, "start")
    status = replicant.engine.status()
    assert (status.why, status.since, status.hint) == (alarm.why, alarm.since, alarm.hint)
    assert f"no master answers ({master.address}: " in alarm.why
    assert "start the master" in alarm.hint
    assert lines(replicant, "alarm_raised")[0].facts["alarm"] == "no progress: start"

    await master.start()
    await soon("in step", lambda: replicant.engine.state == "running", deadline_s=60)
    await quiet(replicant, "start")
    assert replicant.engine.status().alarms == []
    (cleared,) = lines(replicant, "alarm_cleared")
    assert cleared.facts["alarm"] == "no progress: start"
    await quiet(master, "acks")

    await replicant.stop()
    missing = await alarmed(master, "site")
    assert (missing.subject, missing.kind) == (str(replicant.address), "site")
    assert missing.why.startswith(f"{replicant.address} is not connected: ")
    status = master.engine.status()
    assert status.state == "running"
    assert status.why == (
        f"writes are answered PERMFAILED: ONE needs one site; not connected: {replicant.address}"
    )

    # The story so far is still known after a restart.
    before = replicant.engine.journal.history.rows
    await replicant.start()
    assert replicant.engine.status().history[: len(before)] == before
    await quiet(master, "site")
    await quiet(master, "acks")


async def test_a_replicant_that_lost_its_master_says_so_until_it_is_back(
    sites: EngineSites,
) -> None:
    master, replicant = sites.group(2, lines=(ONE,), overrides=AT_ONCE)
    for site in (master, replicant):
        await site.start()
    await master.stop()
    alarm = await alarmed(replicant, "master")
    status = replicant.engine.status()
    # Reads are still answered: the alarm does not depend on the state.
    assert (status.state, status.serving, status.why) == ("running", True, alarm.why)
    assert alarm.why.startswith("no master: ")
    lost = [row for row in status.history if row.event == "master_lost"]
    assert [row.master for row in lost] == [str(master.address)]
    await master.start()
    await quiet(replicant, "master")
    assert status.history == replicant.engine.status().history[: len(status.history)]
    # While the old one was gone, an election may have been found impossible.
    await soon(
        "the new one is in the history",
        lambda: replicant.engine.status().history[-1].event == "new_master",
    )


async def test_a_frozen_replicant_is_named(
    sites: EngineSites, monkeypatch: pytest.MonkeyPatch
) -> None:
    master, replicant = sites.group(2, lines=(ONE,), overrides=AT_ONCE)
    for site in (master, replicant):
        await site.start()
    manager = replicant.engine.manager
    assert manager is not None
    # Its links live, and it acknowledges nothing: as with a disk that hangs.
    monkeypatch.setattr(manager._acks, "send", lambda _generation, _lsn: None)
    outcome = await master.write(b"key", ack_timeout_s=0.1)
    assert outcome.perm_failed is not None
    stuck = await alarmed(master, "lag")
    assert stuck.subject == str(replicant.address)
    assert stuck.why.startswith(f"{replicant.address} is connected and has acknowledged ")
    (acks,) = waits(master.engine.status(), "acks")
    assert acks.why == f"writes were not acknowledged in time: {outcome.perm_failed}"
    monkeypatch.undo()
    assert (await master.write(b"key")).perm_failed is None
    await quiet(master, "acks")
    await quiet(master, "lag")


def clock_waits(site: EngineSite) -> list[WaitStatus]:
    return waits(site.engine.status(), "clock")


async def test_clocks_that_differ_are_named_on_both_sides(
    sites: EngineSites, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clocks, "TELL_EVERY_S", 0.01)
    master, replicant = sites.group(2, lines=(ONE,))
    for site in (master, replicant):
        await site.start()
    there = replicant.engine.manager
    assert there is not None
    here = master.engine.manager
    assert here is not None
    other = SiteAddress(replicant.address.host, replicant.address.port)
    await soon("their clocks are known", lambda: here.clocks.skews.ahead_s(other) is not None)
    assert waits(master.engine.status(), "clock") == []

    monkeypatch.setattr(there.clocks, "_wall", lambda: time.time() + 3600)
    for site, subject, said in ((master, replicant, "ahead of"), (replicant, master, "behind")):
        await soon("it is seen", partial(clock_waits, site))
        (wait,) = waits(site.engine.status(), "clock")
        assert wait.subject == str(subject.address)
        assert wait.why.startswith(f"the clock of {subject.address} is ")
        assert wait.why.endswith(f" {said} this site's")
        assert "NTP" in wait.hint
    monkeypatch.undo()
    monkeypatch.setattr(clocks, "TELL_EVERY_S", 0.01)
    for site in (master, replicant):
        await quiet(site, "clock")
