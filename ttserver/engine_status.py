"""Builds `status` from the engine's parts."""

from __future__ import annotations

import math
import os
from math import isinf
from typing import TYPE_CHECKING

from msgspec.structs import replace

from replication.bodies import SiteAddress
from replication.contact import Fence
from replication.sites import SiteState
from replication.wire import LSN
from ttserver import __version__
from ttserver.opening import opening_status
from ttserver.status import FenceStatus, LeaseStatus, SiteStatus, Status, SyncStatus

if TYPE_CHECKING:
    from replication.manager import Manager
    from ttserver.engine import Engine


def lsn_distance(behind: LSN, ahead: LSN, log_file_bytes: int) -> int:
    """Bytes of log between two LSNs, 0 when the first is not behind.

    Args:
        behind: the lower one.
        ahead: the higher one.
        log_file_bytes: size of a full log file.
    """
    if behind >= ahead:
        return 0
    return (ahead.file - behind.file) * log_file_bytes + ahead.offset - behind.offset


def _pair(lsn: tuple[int, int]) -> tuple[int, int]:
    return (lsn[0], lsn[1])


def build_status(engine: Engine) -> Status:
    """Take a picture of a site, whatever state it is in."""
    waits = engine.why.look(engine)
    first = waits[0] if waits else None
    return replace(
        _picture(engine) if engine.is_open else _not_open(engine),
        why=first.why if first is not None else None,
        since=first.since if first is not None else None,
        hint=first.hint if first is not None else None,
        waits=waits,
        alarms=[wait for wait in waits if wait.alarm],
        history=engine.journal.history.rows,
        started=engine.started_at.isoformat(timespec="seconds"),
    )


def _picture(engine: Engine) -> Status:
    manager = engine.manager
    lag_bytes, lag_s = (0, 0.0) if manager is None else manager.lag()
    group = manager.core.membership if manager is not None else None
    return Status(
        state=engine.state,
        serving=engine.serving,
        role=engine.role,
        read_only=engine.read_only,
        site=str(engine.config.local),
        priority=manager.settings.priority if manager else engine.config.db.priority,
        generation=engine.generation,
        master=engine.master,
        lsn=_pair(engine.lsn),
        applied_lsn=_pair(engine.lsn),
        lag_bytes=lag_bytes,
        lag_seconds=lag_s,
        sync=_sync(manager),
        ack_policy=manager.settings.ack_policy.name if manager else "NONE",
        sites=_sites(manager, engine.environment.log_file_bytes) if manager else [],
        counters=_counters(engine),
        fence=_fence(manager),
        lease=_lease(manager),
        members=group.nsites if group is not None else 0,
        membership_version=group.version if group is not None else 0,
        logs=engine.must_have_site().log_keeping.status(),
        notice=engine.notice,
        ack_note=_ack_note(manager),
        pid=os.getpid(),
        version=__version__,
        started="",
        home=str(engine.config.home.root),
        client_listen=str(engine.config.settings.client.listen),
        recovery_seconds=round(engine.environment.recovery_seconds, 3),
    )


def _not_open(engine: Engine) -> Status:
    return replace(
        opening_status(engine.config),
        state=engine.state,
        lsn=_pair(engine.lsn),
        applied_lsn=_pair(engine.lsn),
        counters={"perm_failed": engine.perm_failed, "reopened": engine.reopened},
    )


def _ack_note(manager: Manager | None) -> str | None:
    """Where an OK of this master is worth less than it looks."""
    if manager is None or not manager.core.is_master:
        return None
    advice = manager.confirmations.advice()
    return None if advice is None else f"{advice.text}; {advice.hint}"


def _fence(manager: Manager | None) -> FenceStatus | None:
    if manager is None or not manager.core.is_master:
        return None
    contact = manager.core.rounds.contact
    if contact.fence is Fence.OFF:
        return None
    left_s = contact.writes_until_s - manager.now_s()
    reach = contact.reach(manager.now_s())
    return FenceStatus(
        contact.fence.value,
        manager.settings.fence_s,
        reach.heard,
        reach.needed,
        None if isinf(left_s) else round(max(0.0, left_s), 3),
    )


def _lease(manager: Manager | None) -> LeaseStatus | None:
    if manager is None or not manager.core.is_master or not manager.settings.lease_s:
        return None
    lease_s = manager.settings.lease_s
    left_s = manager.core.rounds.contact.fresh_until_s - manager.now_s()
    return LeaseStatus(lease_s, round(min(max(0.0, left_s), lease_s), 3))


def _sync(manager: Manager | None) -> SyncStatus | None:
    if manager is None:
        return None
    until_s = manager.core.catch_up.delayed_until_s
    if until_s is not None:
        left_s = None if math.isinf(until_s) else max(0.0, until_s - manager.now_s())
        return SyncStatus("delayed", 0, 0, 0, left_s)
    if not manager.core.syncing:
        return None
    received = manager.sync_received
    if received is None:
        return SyncStatus("asking for the file list", 0, 0, 0, None)
    phase = "receiving pages" if received.pages_done < received.pages_total else "receiving log"
    return SyncStatus(
        phase,
        received.pages_done,
        received.pages_total,
        received.bytes_done,
        received.eta_s(manager.now_s()),
    )


def _sites(manager: Manager, log_file_bytes: int) -> list[SiteStatus]:
    now_s = manager.now_s()
    members = {*manager.core.members(), *(r.address for r in manager.settings.remotes)}
    result = []
    for address in sorted(members):
        state = manager.core.site(address)
        acked = manager.table.acked(state.eid) if manager.core.is_master else None
        heard_s = state.heard_s
        result.append(
            SiteStatus(
                site=str(address),
                eid=state.eid,
                status=_link_status(manager, state),
                role=_role(manager, address),
                electable=state.electable,
                acked_lsn=_pair(acked) if acked else None,
                lag_bytes=lsn_distance(acked, manager.applied, log_file_bytes) if acked else None,
                last_contact_seconds=None if heard_s is None else round(now_s - heard_s, 3),
                native=state.native,
                tls=False,
                error=state.last_error or None,
                member=_member(manager, address),
            )
        )
    return result


def _role(manager: Manager, address: SiteAddress) -> str:
    if address in manager.core.memory.witnesses:
        return "witness"
    return "master" if address == manager.core.master else "replicant"


def _member(manager: Manager, address: SiteAddress) -> str:
    membership = manager.core.membership
    member = membership.find(address) if membership is not None else None
    return member.status.name.lower() if member is not None else "no"


def _link_status(manager: Manager, state: SiteState) -> str:
    if state.eid in manager.lagging:
        return "lagging"
    if state.link is not None:
        return "connected"
    if state.links or state.dialling:
        return "connecting"
    return "unreachable"


def _counters(engine: Engine) -> dict[str, int]:
    committer, reads, upkeep = engine.committer, engine.reads, engine.upkeep
    counters = {
        "commits": committer.commits,
        "commits_unnoted": committer.unnoted,
        "writes": committer.writes,
        "write_retries": committer.retries,
        "biggest_batch": committer.biggest_batch,
        "writes_queued": committer.queued,
        "perm_failed": engine.perm_failed,
        "reads_in_loop": reads.in_loop,
        "reads_on_thread": reads.on_thread,
        "reads_delayed_by_locks": reads.waited,
        "checkpoints": upkeep.checkpoints,
        "deadlocks": upkeep.deadlocks,
        "logs_removed": upkeep.logs_removed,
        "reopened": engine.reopened,
    }
    manager = engine.manager
    if manager is not None:
        bridge, applier, counts = manager.bridge, manager.applier, manager.pending.counts
        counters |= {
            "messages_sent": bridge.messages_sent,
            "messages_dropped": bridge.messages_dropped,
            "bytes_sent": bridge.bytes_sent,
            "peer_requests": bridge.peer_requests,
            "back_pressure_waits": bridge.waits,
            "links_stalled": bridge.stalls,
            "messages_applied": applier.messages,
            "apply_flushes": applier.flushes,
            "apply_errors": applier.broken,
            "apply_queue_bytes": applier.queued_bytes,
            "acks_received": manager.table.recorded_count,
            "acks_ignored": manager.table.ignored_count,
            "writes_acknowledged": counts.acknowledged,
            "writes_waited_for_nobody": counts.alone,
            "perm_failed_unreachable": counts.unreachable,
            "perm_failed_late": counts.late,
            "perm_failed_deposed": counts.deposed,
            "writes_refused_noreplicas": engine.too_few_acks,
            "token_waits": manager.tokens.waiting,
            "acks_waiting": len(manager.pending),
            "rollbacks": engine.rejoin.rollbacks,
            "writes_rolled_back": engine.rejoin.writes,
            "rollback_ledgers_open": engine.rejoin.open_ledgers,
        }
    return counters
