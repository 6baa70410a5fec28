"""The configuration in the terms of replication and of the library's replication calls."""

from __future__ import annotations

from berkeleydb import db

from replication.bodies import SiteAddress
from replication.messages import AckPolicy
from replication.rollback import AUTOROLLBACK
from replication.settings import GroupSettings, RemoteSite
from ttserver.config import ServerConfig

INT32_MAX = 2**31 - 1


def group_settings(config: ServerConfig) -> GroupSettings:
    """Translate the configuration into the manager's terms."""
    say, extra = config.db, config.settings.replication
    priority = say.priority if say.priority_set or say.replication else 1
    if extra.witness:
        priority = 0
    prefer = extra.preferred_master
    return GroupSettings(
        local=SiteAddress(config.local.host, config.local.port),
        remotes=tuple(
            RemoteSite(SiteAddress(s.host, s.port), s.helper, s.peer, s.group_creator)
            for s in say.remote_sites
        ),
        priority=priority,
        creator=say.local_site is None or say.local_site.group_creator,
        witness=extra.witness,
        preferred=SiteAddress(prefer.host, prefer.port) if prefer is not None else None,
        ack_policy=AckPolicy(say.ack_policy_number),
        ack_timeout_s=say.timeouts.ack_s,
        election_timeout_s=say.timeouts.election_s,
        full_election_s=say.timeouts.full_election_s,
        election_retry_s=say.timeouts.election_retry_s,
        connection_retry_s=say.timeouts.connection_retry_s,
        heartbeat_send_s=say.timeouts.heartbeat_send_s,
        heartbeat_monitor_s=say.timeouts.heartbeat_monitor_s,
        fence_s=extra.fence_s,
        fence_sites_min=extra.fence_sites_min,
        lease_s=extra.lease_s,
        clock_ratio=say.clockskew.slow / say.clockskew.fast,
        two_site_strict=say.rep_config.two_site_strict,
        elections=say.rep_config.elections,
        start_wait_s=extra.start_wait_s,
        link_stall_s=extra.link_stall_s,
        queue_bytes_max=extra.queue_bytes_max,
        asked_bytes_max=extra.asked_bytes_max,
        apply_bytes_max=extra.apply_bytes_max,
        delayed_sync=say.rep_config.delayclient,
        sync_delay_s=extra.sync_delay_s,
        sync_tries_max=extra.sync_tries_max,
        verbose=say.verbose,
    )


def configure_replication(env: db.DBEnv, config: ServerConfig) -> None:
    """Set what DB_CONFIG says about replication, in an environment that is not open yet."""
    say = config.db
    env.rep_set_limit(min(say.rep_limit.gbytes * 2**30 + say.rep_limit.bytes, INT32_MAX))
    env.rep_set_request(say.rep_request.min_us, say.rep_request.max_us)
    env.rep_set_clockskew(say.clockskew.fast, say.clockskew.slow)
    env.rep_set_timeout(db.DB_REP_CHECKPOINT_DELAY, int(say.timeouts.checkpoint_delay_s * 1e6))
    if say.timeouts.full_election_s is not None:
        env.rep_set_timeout(
            db.DB_REP_FULL_ELECTION_TIMEOUT, int(say.timeouts.full_election_s * 1e6)
        )
    witness = config.settings.replication.witness
    switches = (
        (db.DB_REP_CONF_AUTOINIT, say.rep_config.autoinit and not witness),
        (db.DB_REP_CONF_BULK, say.rep_config.bulk),
        (db.DB_REP_CONF_DELAYCLIENT, say.rep_config.delayclient),
        # Off unless the operator said on: what is undone is listed before (`ttserver.rejoin`).
        (AUTOROLLBACK, say.rep_config.autorollback is True),
    )
    for which, on in switches:
        env.rep_set_config(which, int(on))
