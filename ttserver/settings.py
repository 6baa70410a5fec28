"""The sections and keys of ttserver.toml, with ranges, defaults and what each is for.

One place for all of it: the loader checks against these types, the documentation and the sample
file are compared with them. Units end the names.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from ttserver.address import Address
from ttserver.byte_size import ByteSize

Durability = Literal["sync", "write_nosync", "nosync"]
KIB = 2**10
MIB = 2**20
GIB = 2**30


class ClientSettings(Struct, frozen=True, kw_only=True):
    """[client]: who is served on the client port."""

    listen: Annotated[Address, Meta(description="address of the client port (RESP)")] = Address(
        "127.0.0.1", 5000
    )
    max_clients: Annotated[
        int, Meta(ge=1, le=100_000, description="connections at once; one more is refused")
    ] = 1000
    idle_timeout_s: Annotated[
        float, Meta(ge=0, le=31_536_000, description="an idle client is closed; 0: never")
    ] = 0.0
    auth_timeout_s: Annotated[
        float, Meta(ge=0.1, le=3600, description="time to log on after connecting")
    ] = 10.0
    revoke_after: Annotated[
        int,
        Meta(
            ge=0,
            le=1000,
            description="wrong passwords in a row that revoke a user, on the master; 0: never",
        ),
    ] = 10
    max_stale_s: Annotated[
        float,
        Meta(
            ge=0,
            le=31_536_000,
            description="a replicant without news of its master for longer refuses reads; 0: never",
        ),
    ] = 0.0


class ReplicationSettings(Struct, frozen=True, kw_only=True):
    """[replication]: what Berkeley DB has no word for."""

    listen: Annotated[
        Address | None,
        Meta(description="address of the replication port; default: that of the local site"),
    ] = None
    witness: Annotated[
        bool,
        Meta(description="this site votes in elections and never holds data; its priority is 0"),
    ] = False
    preferred_master: Annotated[
        Address | None,
        Meta(
            description="site that should be master whenever it can; the one that leads in its"
            " absence hands over to it when it is back and in step"
        ),
    ] = None
    link_stall_s: Annotated[
        float,
        Meta(
            ge=0.05,
            le=600,
            description="commits wait at most this long for a full link, then it is closed",
        ),
    ] = 1.0
    start_wait_s: Annotated[
        float,
        Meta(
            ge=0,
            le=86_400,
            description="a replicant with a complete copy serves reads after this long without a"
            " master",
        ),
    ] = 10.0
    fence_s: Annotated[
        float,
        Meta(
            ge=0,
            le=3600,
            description="a master that has not heard for so long from enough sites to make, with"
            " itself, the majority an election needs refuses writes, and steps down after as much"
            " time again; 0: it goes on",
        ),
    ] = 2.0
    fence_sites_min: Annotated[
        int,
        Meta(
            ge=2,
            le=1000,
            description="fence_s holds in groups of so many sites or more; 2: in a pair, too, where"
            " the loss of either site then stops all writes",
        ),
    ] = 3
    lease_s: Annotated[
        float,
        Meta(
            ge=0,
            le=60,
            description="a master answers reads only within this time of a majority's word that it"
            " is the master, and the others elect nobody before; the same on all sites; 0: off",
        ),
    ] = 0.0
    min_acks_to_accept: Annotated[
        int,
        Meta(
            ge=0,
            le=1000,
            description="replicants that must be connected, else a write is refused with"
            " NOREPLICAS; 0: off",
        ),
    ] = 0
    sync_delay_s: Annotated[
        float,
        Meta(
            ge=0,
            le=86_400,
            description="with db_rep_conf_delayclient: a replicant syncs with a new master after"
            " this long; 0: at `ttserver sync`",
        ),
    ] = 60.0
    sync_tries_max: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="a replicant stops asking for a copy of the database after so many in a row"
            " that came to nothing, until `ttserver sync`; 0: never",
        ),
    ] = 5
    queue_bytes_max: Annotated[
        int, Meta(ge=64 * KIB, le=4 * GIB, description="log waiting to be sent, per link")
    ] = 16 * MIB
    asked_bytes_max: Annotated[
        int,
        Meta(
            ge=64 * KIB,
            le=4 * GIB,
            description="records and pages waiting that another site asked for, per link",
        ),
    ] = 16 * MIB
    apply_bytes_max: Annotated[
        int, Meta(ge=64 * KIB, le=4 * GIB, description="log received and not applied yet")
    ] = 32 * MIB
    tail_bytes_max: Annotated[
        int,
        Meta(
            ge=0,
            le=4 * GIB,
            description="what clients changed in commits that no majority holds yet, kept in"
            " var/tail for the ledger of a roll-back; 0: none",
        ),
    ] = 64 * MIB
    rollback_writes_max: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000_000,
            description="a site that would have to take back more writes than this asks the"
            " operator; 0: always",
        ),
    ] = 100_000
    rollback_keep_bytes_max: Annotated[
        int,
        Meta(
            ge=0,
            le=1024 * GIB,
            description="keys and values set aside to find out what a roll-back undid where"
            " var/tail does not tell; for more the operator is asked",
        ),
    ] = GIB


class StorageSettings(Struct, frozen=True, kw_only=True):
    """[storage]: the environment in var/db."""

    durability: Annotated[
        Durability,
        Meta(
            description="when a write is committed here: flushed to disk, handed to the system, or"
            " in memory"
        ),
    ] = "sync"
    keyspace: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=200,
            pattern=r"(?!__db)(?!log\.)[^/\0-\x1f.][^/\0-\x1f]*",
            description="file in var/db of the keys that clients see",
        ),
    ] = "keys.db"
    checkpoint_interval_s: Annotated[
        float, Meta(ge=1, le=86_400, description="time between two checkpoints")
    ] = 60.0
    checkpoint_kbytes: Annotated[
        int, Meta(ge=0, le=4 * MIB, description="a checkpoint after so much log; 0: by time only")
    ] = 16 * KIB
    log_budget: Annotated[
        ByteSize,
        Meta(
            description="log files in var/db are kept up to this; beyond it the oldest go, whoever"
            " needs them, but for those that recovery needs; 0: what a site may need is kept"
        ),
    ] = ByteSize(0)
    group_commit_max: Annotated[
        int,
        Meta(ge=1, le=65_536, description="writes in one transaction and flush; 1: one by one"),
    ] = 1024


class LimitSettings(Struct, frozen=True, kw_only=True):
    """[limits]: what one client may ask for."""

    frame_bytes_max: Annotated[
        int, Meta(ge=KIB, le=2 * GIB, description="one command with all its arguments")
    ] = 128 * MIB
    bulk_bytes_max: Annotated[
        int, Meta(ge=KIB, le=GIB, description="one argument; longest value")
    ] = 64 * MIB
    args_max: Annotated[int, Meta(ge=16, le=16 * MIB, description="arguments of one command")] = MIB
    inline_bytes_max: Annotated[
        int, Meta(ge=KIB, le=16 * MIB, description="one command typed as a line")
    ] = 64 * KIB
    key_bytes_max: Annotated[int, Meta(ge=16, le=GIB, description="one key")] = 64 * KIB
    reply_bytes_max: Annotated[
        int, Meta(ge=64 * KIB, le=2 * GIB, description="one reply; a longer one is an error")
    ] = 128 * MIB
    pending_output_bytes_max: Annotated[
        int,
        Meta(
            ge=64 * KIB,
            le=4 * GIB,
            description="replies a client has not read; more closes its connection",
        ),
    ] = 256 * MIB
    pipeline_commands_max: Annotated[
        int,
        Meta(ge=1, le=MIB, description="commands of one client under way; then reading pauses"),
    ] = 1024
    multi_commands_max: Annotated[
        int, Meta(ge=1, le=MIB, description="commands queued between MULTI and EXEC")
    ] = 10_000
    multi_bytes_max: Annotated[
        int, Meta(ge=KIB, le=2 * GIB, description="their arguments together")
    ] = 64 * MIB


class StatusSettings(Struct, frozen=True, kw_only=True):
    """[status]: what a site says of itself."""

    alarm_after_s: Annotated[
        float,
        Meta(
            ge=0,
            le=31_536_000,
            description="what a site waits for becomes an alarm after this long without progress;"
            " 0: never",
        ),
    ] = 60.0
    clock_skew_s: Annotated[
        float,
        Meta(
            ge=0,
            le=86_400,
            description="another site's clock may differ by this much before `status` speaks of it;"
            " 0: off",
        ),
    ] = 5.0


class JournalSettings(Struct, frozen=True, kw_only=True):
    """[journal]: var/db/$DB_Msg.txt."""

    bytes_max: Annotated[
        int, Meta(ge=64 * KIB, le=4 * GIB, description="size at which the journal is rotated")
    ] = 10 * MIB
    files_max: Annotated[int, Meta(ge=1, le=1000, description="rotated journals that are kept")] = 5


class Settings(Struct, frozen=True, kw_only=True):
    """All of ttserver.toml; every key may be left out."""

    client: ClientSettings = ClientSettings()
    replication: ReplicationSettings = ReplicationSettings()
    storage: StorageSettings = StorageSettings()
    limits: LimitSettings = LimitSettings()
    status: StatusSettings = StatusSettings()
    journal: JournalSettings = JournalSettings()
