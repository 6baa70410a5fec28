"""The option names that follow some directives of DB_CONFIG, in groups, all lower case.

The library looks them up without case.

Source: API reference, the page of each method that takes them.
"""

MEMORY_KINDS = (
    "db_mem_lock",
    "db_mem_locker",
    "db_mem_lockobject",
    "db_mem_transaction",
    "db_mem_thread",
    "db_mem_logid",
)
REP_CONFIGS = (
    "db_rep_conf_autoinit",
    "db_rep_conf_autorollback",
    "db_rep_conf_bulk",
    "db_rep_conf_delayclient",
    "db_rep_conf_inmem",
    "db_rep_conf_lease",
    "db_rep_conf_nowait",
    "db_repmgr_conf_2site_strict",
    "db_repmgr_conf_elections",
)
REP_TIMEOUTS = (
    "db_rep_ack_timeout",
    "db_rep_checkpoint_delay",
    "db_rep_connection_retry",
    "db_rep_election_timeout",
    "db_rep_election_retry",
    "db_rep_full_election_timeout",
    "db_rep_heartbeat_monitor",
    "db_rep_heartbeat_send",
    "db_rep_lease_timeout",
)
# Name -> the number both the library and the wire use for it.
ACK_POLICIES = {
    "db_repmgr_acks_all": 1,
    "db_repmgr_acks_all_available": 2,
    "db_repmgr_acks_all_peers": 3,
    "db_repmgr_acks_none": 4,
    "db_repmgr_acks_one": 5,
    "db_repmgr_acks_one_peer": 6,
    "db_repmgr_acks_quorum": 7,
}
SITE_OPTIONS = (
    "db_bootstrap_helper",
    "db_group_creator",
    "db_legacy",
    "db_local_site",
    "db_repmgr_peer",
)
ENV_FLAGS = (
    "db_auto_commit",
    "db_cdb_alldb",
    "db_direct_db",
    "db_dsync_db",
    "db_multiversion",
    "db_nolocking",
    "db_nommap",
    "db_nopanic",
    "db_overwrite",
    "db_region_init",
    "db_time_notgranted",
    "db_txn_nosync",
    "db_txn_nowait",
    "db_txn_snapshot",
    "db_txn_write_nosync",
    "db_yieldcpu",
    "db_direct_log",
    "db_dsync_log",
    "db_log_autoremove",
    "db_log_inmemory",
)
LOG_FLAGS = (
    "db_log_direct",
    "db_log_dsync",
    "db_log_auto_remove",
    "db_log_in_memory",
    "db_log_zero",
)
# set_flags has names of its own for the switches of log_set_config.
SAME_FLAG = {
    "db_direct_log": "db_log_direct",
    "db_dsync_log": "db_log_dsync",
    "db_log_autoremove": "db_log_auto_remove",
    "db_log_inmemory": "db_log_in_memory",
}
LOCK_DETECTORS = (
    "db_lock_default",
    "db_lock_expire",
    "db_lock_maxlocks",
    "db_lock_maxwrite",
    "db_lock_minlocks",
    "db_lock_minwrite",
    "db_lock_oldest",
    "db_lock_random",
    "db_lock_youngest",
)
OPEN_FLAGS = ("db_init_rep", "db_private", "db_register", "db_thread")
VERBOSE = (
    "db_verb_backup",
    "db_verb_deadlock",
    "db_verb_fileops",
    "db_verb_fileops_all",
    "db_verb_recovery",
    "db_verb_register",
    "db_verb_replication",
    "db_verb_rep_elect",
    "db_verb_rep_lease",
    "db_verb_rep_misc",
    "db_verb_rep_msgs",
    "db_verb_rep_sync",
    "db_verb_rep_system",
    "db_verb_rep_test",
    "db_verb_repmgr_connfail",
    "db_verb_repmgr_misc",
    "db_verb_waitsfor",
)
