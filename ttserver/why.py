"""Looks at a site and says what it waits for, in one sentence for each thing."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from replication.ack_words import describe_unreachable
from replication.acks import can_be_met, policy_lsn
from replication.comparisons import HINT as DIFFERS_HINT
from replication.phase import Phase
from replication.sites import SiteState
from replication.sync_tries import HINT as GIVEN_UP_HINT
from replication.wire import LSN
from ttserver.errors import hint_of
from ttserver.summary import bytes_text, seconds_text, sync_text
from ttserver.waits import Wait, WaitStatus, WaitTracker
from ttserver.why_log import log_waits

if TYPE_CHECKING:
    from replication.manager import Manager
    from ttserver.engine import Engine

LAG_S: Final = 5.0  # a replicant is always a little behind; this long is worth a word
ACKS_STILL_S: Final = 2.0  # a connected site acknowledges within this, or is stuck
# `run` refuses to open an environment below half of it (`ttserver.daemon.ROOM_BYTES_MIN`).
DISK_LOW_BYTES: Final = 64_000_000
DISK_LOOK_S: Final = 5.0
OPENING: Final = "its database is being opened"


class Why:
    """What one site waits for; to be asked now and then, or no alarm is noticed.

    Args:
        alarm_after_s: without progress for so long is an alarm; 0: never.
    """

    def __init__(self, alarm_after_s: float) -> None:
        self._tracker = WaitTracker(alarm_after_s)
        self._free: int | None = None
        self._disk_looked_s = -DISK_LOOK_S

    def look(self, engine: Engine) -> list[WaitStatus]:
        """Say what stands now, and write the alarms that changed into the journal."""
        now_s = time.monotonic()
        waits = () if engine.stopping else (*self._disk(engine, now_s), *_waits(engine))
        found = self._tracker.look(now_s, time.time(), waits)
        for alarm in found.raised:
            engine.journal.write("alarm_raised", alarm=alarm.name, why=alarm.why, hint=alarm.hint)
        for alarm in found.cleared:
            engine.journal.write("alarm_cleared", alarm=alarm.name, seconds=alarm.seconds)
        return found.waits

    def _disk(self, engine: Engine, now_s: float) -> Iterator[Wait]:
        path = engine.config.home.environment
        if now_s - self._disk_looked_s >= DISK_LOOK_S:
            self._disk_looked_s = now_s
            try:
                found = os.statvfs(path)
                self._free = found.f_bavail * found.f_frsize
            except OSError:
                self._free = None
        if self._free is not None and self._free < DISK_LOW_BYTES:
            yield Wait(
                "disk",
                f"only {bytes_text(self._free)} are free under {path}; nothing is written on a"
                " full disk",
                "free space on that file system.",
            )


def _waits(engine: Engine) -> Iterator[Wait]:
    if engine.failure is not None:
        hint = hint_of(engine.failure) or "see $DB_Msg.txt and the server's log."
        yield Wait("failed", str(engine.failure), hint, alarm_at_once=True, told=True)
    elif not engine.is_open:
        yield Wait(
            "opening",
            engine.reopening.why or OPENING,
            "wait: after an unclean end the log is replayed; the disk is what it takes.",
        )
    manager = engine.manager
    if manager is None:
        return
    yield from _role(engine, manager)
    yield from _copy(manager)
    if manager.core.is_master:
        yield from _acks(engine, manager)
        yield from log_waits(engine.must_have_site().log_keeping)
        yield from _differing(manager)
    yield from _sites(manager)
    yield from _clocks(engine, manager)


def _role(engine: Engine, manager: Manager) -> Iterator[Wait]:
    core = manager.core
    if core.question is not None and core.phase is not Phase.TAKING_OVER:
        why, hint = core.question.why, core.question.hint or _PATIENCE
        yield Wait("rollback", why, hint, alarm_at_once=True, told=True)
        return
    match core.phase:
        case Phase.PROBING | Phase.WAITING | Phase.JOINING:
            why = core.why or f"{core.phase.value} ({_names(manager)})"
            yield Wait("start", why, core.hint or "start the other sites; `ttserver check` here.")
        case Phase.REMOVED:
            yield Wait("removed", core.why or core.phase.value, core.hint or _PATIENCE)
        case Phase.TAKING_OVER:
            yield Wait("start", "becoming master: the library changes its role", _PATIENCE)
        case Phase.HANDING_OVER:
            yield Wait("start", f"handing over to {core.handover.target}", _PATIENCE)
        case Phase.MASTER:
            if (cut_off := manager.cut_off()) is not None:
                yield Wait("fenced", f"writes are refused: {cut_off}", _MEND)
            elif not engine.accepting and engine.failure is None:
                yield Wait("start", "becoming master: its databases are being opened", _PATIENCE)
        case Phase.FOLLOWING:
            if core.misses_master:
                yield _no_master(manager)


_MEND: Final = "start the other sites, or mend the network between them and this one."
_PATIENCE: Final = "wait; if it lasts see $DB_Msg.txt and the server's log."


def _no_master(manager: Manager) -> Wait:
    core = manager.core
    if core.electing:
        return Wait("master", "no master: an election is under way", "wait for its outcome.")
    if core.why is not None:
        return Wait("master", core.why, core.hint or _PATIENCE)
    silent = [f"{s.address}: {s.last_error}" for s in core.sites.values() if s.last_error]
    return Wait(
        "master",
        f"no master: {'; '.join(silent) or 'none of the connected sites is one'}",
        "start the master, or check the network with `ttserver check`.",
    )


def _names(manager: Manager) -> str:
    names = [str(address) for address in manager.core.members()]
    return ", ".join(names) or "none is configured"


def _copy(manager: Manager) -> Iterator[Wait]:
    """What a replicant waits for that has a master."""
    core = manager.core
    received = manager.sync_received
    if (given_up := core.catch_up.tries.given_up) is not None:
        why = f"no copy of the database is taken any more: {given_up}"
        yield Wait("sync", why, GIVEN_UP_HINT, alarm_at_once=True)
    elif core.syncing:
        done = None if received is None else received.bytes_done
        text = "asking for the file list"
        if received is not None and received.pages_total:
            facts = {"pages_done": received.pages_done, "pages_total": received.pages_total}
            text = sync_text({"phase": "receiving pages", **facts})
        # The log that comes after the pages moves the LSN.
        yield Wait(
            "sync",
            f"receiving a copy of the database from {core.master or 'the master'}: {text}",
            "wait; the disk and the network between the two sites are what it takes.",
            progress=(done, manager.applier.messages),
        )
    elif manager.settings.witness:
        return
    elif core.phase is Phase.FOLLOWING and core.master_link is not None:
        lag_bytes, lag_s = manager.lag()
        until_s = core.catch_up.delayed_until_s
        if until_s is not None:
            yield _delayed(core.master, until_s - manager.now_s())
        elif not core.startup_done:
            yield Wait(
                "catch-up",
                f"catching up with the log of {core.master} ({_behind(lag_bytes)})",
                "wait; see the journal here and on the master if it does not move.",
                progress=manager.applier.messages,
            )
        elif lag_bytes:
            yield Wait(
                "lag",
                f"{_behind(lag_bytes)} its master {core.master} for {seconds_text(lag_s)}",
                "look at this machine's disk and CPU; `[storage] durability`; fewer writes.",
                progress=manager.applied,
                quiet_s=LAG_S,
            )


def _delayed(master: object, left_s: float) -> Wait:
    """A sync that waits on purpose: an alarm only when nothing would ever end it."""
    ends = (
        "until it is asked for" if math.isinf(left_s) else f"{seconds_text(max(0.0, left_s))} more"
    )
    return Wait(
        "catch-up",
        f"the sync with {master} waits {ends} (db_rep_conf_delayclient)",
        "have it begin now: `ttserver sync`.",
        progress=None if math.isinf(left_s) else round(left_s, 1),
    )


def _behind(lag_bytes: int | None) -> str:
    if lag_bytes is None:
        return "how far behind is not known yet"
    return f"{bytes_text(lag_bytes)} behind"


def _acks(engine: Engine, manager: Manager) -> Iterator[Wait]:
    """What the master's writes wait for."""
    settings = manager.settings
    policy, strict = settings.ack_policy, settings.two_site_strict
    sites = manager.confirmations.sites()
    if not can_be_met(policy, sites, two_site_strict=strict):
        impossible = describe_unreachable(policy, sites, two_site_strict=strict)
        yield Wait(
            "acks",
            f"writes are answered PERMFAILED: {impossible}",
            "start those sites, or check the network between them and this one.",
        )
        return
    failed = engine.ack_failed
    if failed is None:
        return
    lsn, shortfall = failed
    reached = policy_lsn(policy, sites, two_site_strict=strict)
    if reached is None or reached < LSN(*lsn):
        yield Wait(
            "acks",
            f"writes were not acknowledged in time: {shortfall}",
            "look at the disk and the CPU of the sites that are missing.",
            progress=reached,
        )


def _differing(manager: Manager) -> Iterator[Wait]:
    """What `ttserver compare` found and nobody has put right yet."""
    for site, what in manager.comparisons.differing.items():
        yield Wait(
            "differs",
            f"{site} differs from this master: {what}",
            DIFFERS_HINT,
            subject=site,
            alarm_at_once=True,
            told=True,
        )


def _sites(manager: Manager) -> Iterator[Wait]:
    """The other members: not connected, or connected and stuck."""
    core = manager.core
    if core.phase not in (Phase.FOLLOWING, Phase.MASTER):
        return
    for address in sorted(core.members()):
        state = core.site(address)
        if state.link is None:
            if address != core.master:
                yield _not_connected(state)
        elif core.is_master:
            yield from _not_acknowledging(manager, state)


def _clocks(engine: Engine, manager: Manager) -> Iterator[Wait]:
    """The members whose clock differs."""
    limit_s = engine.config.settings.status.clock_skew_s
    if not limit_s:
        return
    for address in sorted(manager.core.members()):
        ahead_s = manager.clocks.skews.ahead_s(address)
        if ahead_s is not None and abs(ahead_s) > limit_s:
            where = "ahead of" if ahead_s > 0 else "behind"
            yield Wait(
                "clock",
                f"the clock of {address} is {seconds_text(abs(ahead_s))} {where} this site's",
                "keep the clocks of all sites together with NTP (chrony, systemd-timesyncd).",
                subject=str(address),
            )


def _not_connected(state: SiteState) -> Wait:
    reason = f": {state.last_error}" if state.last_error else ""
    return Wait(
        "site",
        f"{state.address} is not connected{reason}",
        "start it, or check the network with `ttserver check`.",
        subject=str(state.address),
        quiet_s=1.0,  # a link that is dialled again at once needs no words
    )


def _not_acknowledging(manager: Manager, state: SiteState) -> Iterator[Wait]:
    if state.address in manager.core.memory.witnesses:
        return
    acked, end = manager.table.acked(state.eid), manager.applied
    if acked is not None and acked >= end:
        return
    if acked is None and state.native:
        return  # it may be told not to acknowledge
    at = "nothing yet in this generation" if acked is None else f"{acked} of {end}"
    yield Wait(
        "lag",
        f"{state.address} is connected and has acknowledged {at}",
        "look at that site: `ttserver status` there, its disk, its CPU.",
        subject=str(state.address),
        progress=(acked, manager.sync_sent_bytes(state.eid)),
        quiet_s=ACKS_STILL_S,
        only_still=True,
    )
