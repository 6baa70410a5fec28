"""What DB_CONFIG says, typed: the result of parsing it.

Times are seconds here, microseconds in the file. The defaults are Berkeley DB's except where a
comment says why not.
"""

import msgspec

from storage.dbconfig_options import ACK_POLICIES


class ConfigWarning(msgspec.Struct, frozen=True):
    """Something legal that is probably not what the operator meant.

    Args:
        line: line of the file from 1; 0 when the whole file is meant.
        text: one sentence.
        file: the file's name as the operator knows it.
    """

    line: int
    text: str
    file: str = "DB_CONFIG"

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.text}"


class SiteLine(msgspec.Struct, frozen=True, kw_only=True):
    """One `repmgr_site` line: the identity of a site is the pair (host, port), byte by byte."""

    host: str
    port: int
    local: bool = False
    group_creator: bool = False
    helper: bool = False
    peer: bool = False
    legacy: bool = False
    line: int = 0

    @property
    def address(self) -> str:
        """Show the site as `host:port`, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class ReplicationTimeouts(msgspec.Struct, frozen=True, kw_only=True):
    """The values of `rep_set_timeout`, in seconds.

    Args:
        ack_s: wait for acknowledgements before PERMFAILED.
        checkpoint_delay_s: pause of a master between flushing its cache and logging the
            checkpoint. The library's 30 s also passes without any replicant, inside a call that
            cannot be interrupted; a stop has 5 s. A replicant here flushes apart from its acks.
        connection_retry_s: longest pause between two dials of a lost site; the back-off grows up
            to it. The library waits 30 s each time, so a site is back half a minute after its
            restart.
        election_s: longest wait for votes.
        election_retry_s: pause after an election without a result. The library's 10 s is longer
            than everything else in a take-over together.
        full_election_s: wait for all sites in the group's first election; None: as any other.
        heartbeat_send_s: an idle master says something this often; 0: never. Off in the library,
            which then never notices a frozen master or a cut cable.
        heartbeat_monitor_s: silence of the master after which its link is given up; 0: never.
            With 0.2 and 1.0 a silent death is seen within 1 s, and four heartbeats in a row may
            be late before a healthy master is suspected.
    """

    ack_s: float = 1.0
    checkpoint_delay_s: float = 1.0
    connection_retry_s: float = 2.0
    election_s: float = 2.0
    election_retry_s: float = 1.0
    full_election_s: float | None = None
    heartbeat_send_s: float = 0.2
    heartbeat_monitor_s: float = 1.0


class RepConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The switches of `rep_set_config`, with Berkeley DB's defaults.

    `autorollback` is None where nobody set it: then what is undone is listed before.
    """

    autoinit: bool = True
    autorollback: bool | None = None
    bulk: bool = False
    delayclient: bool = False
    nowait: bool = False
    two_site_strict: bool = True
    elections: bool = True


class RepLimit(msgspec.Struct, frozen=True):
    """`rep_set_limit`: most sent in answer to one request; both 0: no limit."""

    gbytes: int = 0
    bytes: int = 10 * 2**20


class RepRequest(msgspec.Struct, frozen=True):
    """`rep_set_request`: wait before a missing record is asked for again, in microseconds."""

    min_us: int = 40_000
    max_us: int = 1_280_000


class ClockSkew(msgspec.Struct, frozen=True):
    """`rep_set_clockskew`: fastest and slowest clock of the group, as a ratio."""

    fast: int = 1
    slow: int = 1


class DbConfig(msgspec.Struct, frozen=True, kw_only=True):
    """All that HOME/DB_CONFIG says.

    Args:
        sites: the `repmgr_site` lines in the order of the file.
        priority: 0: never master.
        priority_set: the file says it; else 100 is the library's default.
        ack_policy: ALL, ALL_AVAILABLE, ALL_PEERS, NONE, ONE, ONE_PEER or QUORUM.
        ack_policy_set: the file says it.
        nsites: sites of the group for elections; None: count the members.
        log_autoremove: remove log files that no member needs any more.
        replication: the file has at least one `rep_*` or `repmgr_*` line.
        passthrough: (line, text) of what the library reads itself, in the order of the file.
        verbose: the `db_verb_*` names switched on; their lines are passed through as well.
        directories: (line, directive, path) of every directory named; relative to var/db.
        warnings: to be logged once at start.
    """

    sites: tuple[SiteLine, ...] = ()
    priority: int = 100
    priority_set: bool = False
    ack_policy: str = "QUORUM"
    ack_policy_set: bool = False
    timeouts: ReplicationTimeouts = ReplicationTimeouts()
    rep_config: RepConfig = RepConfig()
    rep_limit: RepLimit = RepLimit()
    rep_request: RepRequest = RepRequest()
    clockskew: ClockSkew = ClockSkew()
    nsites: int | None = None
    log_autoremove: bool = False
    replication: bool = False
    passthrough: tuple[tuple[int, str], ...] = ()
    verbose: tuple[str, ...] = ()
    directories: tuple[tuple[int, str, str], ...] = ()
    warnings: tuple[ConfigWarning, ...] = ()

    @property
    def local_site(self) -> SiteLine | None:
        """This site, or None when no site is configured."""
        return next((site for site in self.sites if site.local), None)

    @property
    def remote_sites(self) -> tuple[SiteLine, ...]:
        """Every configured site but this one."""
        return tuple(site for site in self.sites if not site.local)

    @property
    def ack_policy_number(self) -> int:
        """Give the policy as the wire and the library number it."""
        return ACK_POLICIES[f"db_repmgr_acks_{self.ack_policy.lower()}"]
