"""What this program adds to Berkeley DB's rules for DB_CONFIG: options refused, lines added.

Source: the library's defaults are those of the API reference; ours say why they differ.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an option that Berkeley DB knows is refused here, and what to use instead."""

    reason: str
    hint: str
    when_on: bool = True  # refused when switched on; False: when switched off


_LEASE = Refusal(
    "master leases need an error from the send callback, which pipelined commits cannot give",
    "use `[replication] lease_s` in ttserver.toml, with `db_repmgr_acks_quorum`.",
)
_DURABILITY = 'remove the line and set `[storage] durability = "{}"` in ttserver.toml.'
_ON_DISK = Refusal(
    "the log would live in memory only, and every acknowledged write with it",
    'remove the line; `[storage] durability = "nosync"` in ttserver.toml is the fastest setting.',
)

_DIRECT = Refusal(
    "the library of Debian and Ubuntu is built without direct I/O and stops at it",
    "remove the line.",
)

# (directive, option) -> why not. The option switched the other way is accepted and left out.
REFUSED: dict[tuple[str, str], Refusal] = {
    ("rep_set_config", "db_rep_conf_lease"): _LEASE,
    ("rep_set_timeout", "db_rep_lease_timeout"): _LEASE,
    ("rep_set_config", "db_rep_conf_inmem"): Refusal(
        "a site that forgets its generation at every restart can become a second master",
        "remove the line: the library keeps a few small files in var/db.",
    ),
    ("set_flags", "db_txn_nosync"): Refusal(
        "OK would no longer mean that the write is on disk here", _DURABILITY.format("nosync")
    ),
    ("set_flags", "db_txn_write_nosync"): Refusal(
        "OK would no longer mean that the write is on disk here",
        _DURABILITY.format("write_nosync"),
    ),
    ("set_flags", "db_cdb_alldb"): Refusal(
        "it belongs to the Concurrent Data Store, and this environment has transactions",
        "remove the line.",
    ),
    ("set_flags", "db_nolocking"): Refusal(
        "without locks readers see half-written pages", "remove the line."
    ),
    ("set_flags", "db_nopanic"): Refusal(
        "a damaged environment would go on being written to",
        "remove the line, and use db_verify on a copy to look at damage.",
    ),
    ("set_flags", "db_txn_snapshot"): Refusal(
        "the library refuses snapshots at a replicant, so every read there would fail",
        "remove the line.",
    ),
    ("set_flags", "db_log_inmemory"): _ON_DISK,
    ("log_set_config", "db_log_in_memory"): _ON_DISK,
    ("set_flags", "db_direct_db"): _DIRECT,
    ("set_flags", "db_direct_log"): _DIRECT,
    ("log_set_config", "db_log_direct"): _DIRECT,
    ("set_open_flags", "db_private"): Refusal(
        "db_stat, db_archive and db_hotbackup could no longer join the environment",
        "remove the line.",
    ),
    ("set_open_flags", "db_register"): Refusal(
        "the server holds a lock on its home and runs recovery at every start",
        "remove the line.",
    ),
    ("set_open_flags", "db_thread"): Refusal(
        "the server uses the environment from several threads", "remove the line.", when_on=False
    ),
    ("set_open_flags", "db_init_rep"): Refusal(
        "replication is switched off another way",
        "remove the line and start with --no-replication.",
        when_on=False,
    ),
}


@dataclass(frozen=True, slots=True)
class Default:
    """A line the server writes for the library when the operator gave none."""

    name: str
    value: str
    reason: str
    unless: tuple[str, ...] = ()  # names that make the line pointless or wrong


LG_MAX_BYTES = 32 * 2**20
LG_BSIZE_BYTES = 4 * 2**20

DEFAULTS: tuple[Default, ...] = (
    Default(
        "set_cachesize",
        "0 67108864 1",
        "the library's 256 KB is made for embedded devices",
        unless=("set_cache_max", "set_memory_max"),
    ),
    Default(
        "set_lg_max",
        str(LG_MAX_BYTES),
        "four log buffers at least; fewer files to open while a replicant catches up",
    ),
    Default(
        "set_lg_bsize",
        str(LG_BSIZE_BYTES),
        "a replicant writes its log once a batch; late records are sent again from memory",
    ),
    Default("set_lk_detect", "db_lock_youngest", "the oldest transaction always gets through"),
    Default(
        "set_lk_max_lockers",
        "100000",
        "1,000 lockers end with an error under many clients",
        unless=("set_memory_max",),
    ),
    Default(
        "set_lk_max_locks",
        "100000",
        "a batch locks one page or more a write",
        unless=("set_memory_max",),
    ),
    Default(
        "set_lk_max_objects",
        "100000",
        "as set_lk_max_locks",
        unless=("set_memory_max",),
    ),
    Default("set_tx_max", "1000", "one for each connection in MULTI", unless=("set_memory_max",)),
)
