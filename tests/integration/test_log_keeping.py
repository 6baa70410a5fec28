"""Log files are kept for members that are away, up to a budget; real sites, small log files."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from replication.journal_line import Line, parse_line
from tests.support.engines import EngineSite, EngineSites, fast, sites
from tests.support.environments import soon
from ttserver.log_keeping import Archive
from ttserver.waits import WaitStatus

__all__ = ["fast", "sites"]

# A checkpoint of a master waits for its replicants, and the look at the log files after it.
LINES = (
    "repmgr_set_ack_policy db_repmgr_acks_none",
    "rep_set_timeout db_rep_checkpoint_delay 0",
)
AUTO_REMOVE = "log_set_config db_log_auto_remove on"
OFTEN: Mapping[str, object] = {
    "storage.checkpoint_interval_s": 1.0,
    "storage.checkpoint_kbytes": 256,
}
DEADLINE_S = 60.0
LOG_BYTES = 2**20  # set_lg_max of these sites


def events(site: EngineSite, event: str) -> list[Line]:
    lines = [parse_line(text) for text in site.events.splitlines()]
    return [line for line in lines if line is not None and line.event == event]


async def fill(master: EngineSite, files: int) -> None:
    """Write so many log files full."""
    start = master.engine.lsn[0]
    while master.engine.lsn[0] < start + files:
        await master.write(b"key", value=b"x" * 200_000)


async def writing(master: EngineSite, what: str, condition: Callable[[], object]) -> None:
    """Wait while the master writes: a checkpoint counts from the next record on."""
    end_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end_s, f"not within {DEADLINE_S:g} s: {what}"
        await master.write(b"key")
        await asyncio.sleep(0.02)


def first_log(site: EngineSite) -> int:
    return min(int(path.suffix[1:]) for path in site.home.environment.glob("log.*"))


def log_bytes(site: EngineSite) -> int:
    return sum(path.stat().st_size for path in site.home.environment.glob("log.*"))


async def archive(site: EngineSite, *, remove: bool = False) -> Archive:
    engine, keeping = site.engine, site.engine.must_have_site().log_keeping
    return await engine.call(lambda: keeping.archive(engine.environment, remove=remove))


def alarms(site: EngineSite, about: EngineSite) -> list[WaitStatus]:
    status = site.engine.status()
    return [a for a in status.alarms if a.kind == "log" and a.subject == str(about.address)]


async def in_step(master: EngineSite, replicant: EngineSite) -> None:
    await soon("in step", lambda: replicant.engine.lsn >= master.engine.lsn, deadline_s=60)


async def away(master: EngineSite, replicant: EngineSite) -> int:
    """Stop the replicant, and start the master again; returns what log file it will need.

    For 30 s after a site asked a master for anything the library gives no log file away. A master
    that was started again has not been asked yet.
    """
    await in_step(master, replicant)
    await replicant.stop()
    needed = replicant.engine.lsn[0]
    await master.stop()
    await master.start()
    await soon("it takes writes", lambda: master.engine.accepting)
    return needed


async def test_log_is_kept_for_a_replicant_that_is_away(sites: EngineSites) -> None:
    master, replicant = sites.group(2, lines=(*LINES, AUTO_REMOVE), overrides=OFTEN)
    await master.start()
    await replicant.start()
    await fill(master, 3)
    needed = await away(master, replicant)
    assert needed >= 3
    await fill(master, 3)
    await writing(master, "what both have goes", lambda: first_log(master) >= needed)
    upkeep = master.engine.upkeep
    seen = upkeep.passes, upkeep.checkpoints
    await writing(master, "looks", lambda: (upkeep.passes, upkeep.checkpoints) > seen)
    found = await archive(master)
    assert found.files[0].number == first_log(master) == needed
    assert not any(file.may_go for file in found.files)
    lsn = "/".join(map(str, replicant.engine.lsn))
    assert found.files[0].why == (f"{replicant.address} has the log up to {lsn}, not connected",)
    syncs = len(events(replicant, "sync_receive_started"))
    await replicant.start()
    await in_step(master, replicant)
    assert len(events(replicant, "sync_receive_started")) == syncs, "the log was enough"


async def test_beyond_the_budget_the_oldest_go_and_the_site_is_named_before(
    sites: EngineSites,
) -> None:
    budget = 8 * LOG_BYTES
    master, replicant = sites.group(
        2, lines=LINES, overrides={**OFTEN, "storage.log_budget": budget}
    )
    await master.start()
    await replicant.start()
    await fill(master, 1)
    needed = await away(master, replicant)
    await fill(master, 5)
    while not alarms(master, replicant):
        looked = master.engine.upkeep.passes
        await fill(master, 1)
        await writing(master, "a look", lambda seen=looked: master.engine.upkeep.passes > seen)  # type: ignore[misc]
        assert master.engine.lsn[0] < needed + 12
    assert first_log(master) <= needed, "it can still come back with what there is"
    (alarm,) = alarms(master, replicant)
    assert "will need a complete copy after another" in alarm.why
    assert "log_budget" in alarm.hint
    await soon("the journal says so", lambda: events(master, "alarm_raised"))
    await fill(master, 4)
    await writing(master, "the oldest go", lambda: first_log(master) > needed)
    await writing(master, "within the budget", lambda: log_bytes(master) <= budget + LOG_BYTES)
    await soon("it is said", lambda: "complete copy:" in alarms(master, replicant)[0].why)
    found = await archive(master)
    assert found.lost
    assert found.budget_bytes == budget
    syncs = len(events(replicant, "sync_receive_started"))
    await replicant.start()
    await in_step(master, replicant)
    assert len(events(replicant, "sync_receive_started")) == syncs + 1
    await writing(master, "the alarm is over", lambda: not alarms(master, replicant))


async def test_what_may_go_is_told_and_removed_on_request(sites: EngineSites) -> None:
    (alone,) = sites.group(1, lines=LINES, overrides=OFTEN)
    await alone.start()
    await fill(alone, 4)
    await soon("a checkpoint", lambda: alone.engine.upkeep.checkpoints)

    async def may_go() -> Archive | None:
        found = await archive(alone)
        return found if sum(file.may_go for file in found.files) >= 3 else None

    found = None
    while found is None:
        await alone.write(b"more")
        found = await may_go()
    assert not found.auto_remove
    assert found.removed == []
    assert found.files[-1].why == ("the log is written to it",)
    gone = [file.number for file in found.files if file.may_go]
    done = await archive(alone, remove=True)
    assert done.removed == gone
    assert first_log(alone) == gone[-1] + 1
    assert not any(file.may_go for file in done.files)
    await soon("the status follows", lambda: _files(alone) == len(done.files))
    assert await alone.read(b"key") == b"x" * 200_000


def _files(site: EngineSite) -> int | None:
    found = site.engine.status().logs
    return None if found is None else found.files


async def test_a_new_master_has_the_log_of_a_site_that_was_away(sites: EngineSites) -> None:
    master, second, third = sites.group(3, lines=(*LINES, AUTO_REMOVE), overrides=OFTEN)
    for site in (master, second, third):
        await site.start()
    await fill(master, 2)
    await in_step(master, second)
    await in_step(master, third)
    await writing(master, "what all have goes", lambda: first_log(second) >= 2)
    await in_step(master, third)
    await third.stop()
    kept_from = master.engine.lsn[0]
    await fill(master, 4)
    await in_step(master, second)
    await master.stop()
    manager = second.engine.manager
    assert manager is not None
    await soon("the master is missed", lambda: second.engine.role != "replicant")
    manager.promote()
    await soon("it takes writes", lambda: second.engine.accepting, deadline_s=60)
    assert first_log(second) <= kept_from
    syncs = len(events(third, "sync_receive_started"))
    await third.start()
    await in_step(second, third)
    assert len(events(third, "sync_receive_started")) == syncs
    # And the old master comes back with its own log.
    await master.start()
    await in_step(second, master)
    assert events(master, "sync_receive_started") == []
