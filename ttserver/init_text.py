"""The two files `init` writes: comments for the administrator, replication lines active."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ttserver.init import InitPlan

_DB_CONFIG = """\
# DB_CONFIG of the ttserver site {local}, made by `ttserver init --role {role}`.
#
# Berkeley DB's own format: one directive a line, `#` begins a comment, times are microseconds.
# After a change: `ttserver check`, then start the daemon again. What Berkeley DB itself must read
# is copied to var/db/DB_CONFIG at every start; edit this file, not that one.

# ---- Replication -----------------------------------------------------------------------------

# The sites of the group. Host and port are a site's name: write it the same way on every site
# (`localhost` and `127.0.0.1` are two names).
#   db_local_site on        this site
#   db_group_creator on     this site creates the group when there is none yet
#   db_bootstrap_helper on  ask this site to be taken into the group
{sites}

# Who may become master: 0 never does; among sites with the same data the highest number does.
rep_set_priority {priority}

# Who must have a write before its client gets OK.
#   db_repmgr_acks_one            one other site            (two sites: this one)
#   db_repmgr_acks_quorum         most sites, counting those with priority above 0; with none
#                                 besides the master, or in a group of two, nobody
#   db_repmgr_acks_all_available  every site that is connected; with none connected, nobody
#   db_repmgr_acks_all            every site
#   db_repmgr_acks_none           nobody
repmgr_set_ack_policy {ack_policy}

# How long a write waits for them before its client is answered PERMFAILED.
# rep_set_timeout db_rep_ack_timeout 1000000

# How often an idle master says something, and after how much silence it is given up.
# rep_set_timeout db_rep_heartbeat_send 200000
# rep_set_timeout db_rep_heartbeat_monitor 1000000

# Two sites: `off` lets one site alone become master after the loss of the other. Then both can be
# master when only the network between them is gone.
# rep_set_config db_repmgr_conf_2site_strict off

# The library's own replication messages in var/db/$DB_Msg.txt.
# set_verbose db_verb_replication on

# ---- Berkeley DB -----------------------------------------------------------------------------

# The cache: gigabytes, bytes, number of regions.
# set_cachesize 0 268435456 1

# Remove log files that no member of the group needs, connected or not. How much is kept for members
# that are away: `[storage] log_budget` in ttserver.toml.
# log_set_config db_log_auto_remove on
"""

_TOML = """\
# ttserver.toml of the site {local}: everything Berkeley DB has no word for.
# Every key is optional; an unknown one stops the start with the nearest name that exists.

[client]
# Where clients (the Redis protocol) are served.
listen = "{client_listen}"
"""


_WITNESS = """\
# DB_CONFIG of the ttserver site {local}, made by `ttserver init --role witness`: it votes and holds
# no data.
#
# Berkeley DB's own format: one directive a line, `#` begins a comment, times are microseconds.
# After a change: `ttserver check`, then start the daemon again.

# The sites of the group. Host and port are a site's name: write it the same way on every site.
{sites}

# A witness never becomes master.
rep_set_priority 0

# After how much silence the master is given up; the same on all sites.
# rep_set_timeout db_rep_heartbeat_monitor 1000000

# It keeps nothing: a few MB of disk and memory instead of those of a site with data.
set_cachesize 0 262144 1
set_lg_bsize 65536
set_lg_max 262144
set_lk_max_lockers 500
set_lk_max_locks 500
set_lk_max_objects 500
set_tx_max 50
"""

_WITNESS_TOML = """\
# ttserver.toml of the witness {local}: everything Berkeley DB has no word for.

[client]
# Where clients are told to go elsewhere.
listen = "{client_listen}"

[replication]
# Votes in elections and never holds data.
witness = true
"""


def db_config_text(plan: "InitPlan") -> str:
    """Write DB_CONFIG for a new site."""
    creator = " db_group_creator on" if plan.role == "master" else ""
    sites = [f"repmgr_site {plan.local.host} {plan.local.port} db_local_site on{creator}"]
    sites += [f"repmgr_site {far.host} {far.port} db_bootstrap_helper on" for far in plan.remotes]
    if plan.role == "witness":
        return _WITNESS.format(local=plan.local, sites="\n".join(sites))
    return _DB_CONFIG.format(
        local=plan.local,
        role=plan.role,
        sites="\n".join(sites),
        priority=plan.priority,
        ack_policy=plan.ack_policy,
    )


def toml_text(plan: "InitPlan") -> str:
    """Write ttserver.toml for a new site."""
    text = _WITNESS_TOML if plan.role == "witness" else _TOML
    return text.format(local=plan.local, client_listen=plan.client_listen)
