"""What the operator decided about replication, in the manager's own terms (no input or output).

Durations are seconds. Defaults are the library's except where a comment says why ours differs; the
table for people is in docs/CONFIGURATION.md.
"""

from dataclasses import dataclass, field

from replication.bodies import SiteAddress
from replication.messages import AckPolicy


@dataclass(frozen=True, slots=True)
class RemoteSite:
    """One `repmgr_site` line that names another site."""

    address: SiteAddress
    helper: bool = False
    peer: bool = False
    creator: bool = False


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """Everything the replication manager is told at its start.

    Args:
        local: this site's identity, exactly as the group knows it.
        remotes: the other configured sites; the membership database is the truth once it exists.
        priority: 0 never becomes master.
        creator: `db_group_creator on` stands on the local line.
        full_election_s: longest wait for votes as long as no site of the group has had a master
            since its start; None: `election_timeout_s` then, too.
        witness: this site votes and never holds data; its priority is 0.
        preferred: the site that should lead whenever it can; None for nobody in particular.
        fence_s: a master that did not hear a majority for so long takes no writes; 0: it goes on.
        fence_sites_min: so many sites a group must have for that.
        lease_s: a master reads only so long after a majority agreed that it is one; 0: always.
        clock_ratio: how slow the slowest clock of the group is, of the fastest.
        link_stall_s: how long a link may stay over its high mark before it is closed.
        queue_bytes_max: the high mark of one link's queue of live log, bytes.
        asked_bytes_max: the high mark of what one site asked for (log, pages), bytes.
        delayed_sync: wait `sync_delay_s` before this site syncs with a new master.
        sync_delay_s: 0: until it is asked for.
        sync_tries_max: after so many copies that came to nothing no more is taken; 0: any number.
        apply_bytes_max: messages received and not yet applied, bytes; above it nothing is read.
    """

    local: SiteAddress
    remotes: tuple[RemoteSite, ...] = ()
    priority: int = 1
    creator: bool = False
    witness: bool = False
    preferred: SiteAddress | None = None
    ack_policy: AckPolicy = AckPolicy.ONE
    ack_timeout_s: float = 1.0
    election_timeout_s: float = 2.0
    full_election_s: float | None = None
    election_retry_s: float = 10.0
    connection_retry_s: float = 1.0
    heartbeat_send_s: float = 0.2
    heartbeat_monitor_s: float = 1.0
    fence_s: float = 2.0
    fence_sites_min: int = 3
    lease_s: float = 0.0
    clock_ratio: float = 1.0
    two_site_strict: bool = True
    elections: bool = True
    start_wait_s: float = 10.0
    link_stall_s: float = 1.0
    queue_bytes_max: int = 16 * 1024 * 1024
    asked_bytes_max: int = 16 * 1024 * 1024
    apply_bytes_max: int = 32 * 1024 * 1024
    probe_timeout_s: float = 2.0
    delayed_sync: bool = False
    sync_delay_s: float = 60.0
    sync_tries_max: int = 0
    verbose: tuple[str, ...] = field(default=())

    @property
    def longest_election_s(self) -> float:
        """How long an election may take as long as the group has had no master."""
        return max(self.election_timeout_s, self.full_election_s or 0.0)
