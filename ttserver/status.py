"""What `status --json`, the console and INFO say about a site (CONTRACT of the keys: they stay)."""

import msgspec

from replication.history import HistoryRow
from ttserver.waits import WaitStatus

Lsn = tuple[int, int]


class SyncStatus(msgspec.Struct, frozen=True):
    """How far an initial sync is."""

    phase: str
    pages_done: int
    pages_total: int
    bytes_done: int
    eta_seconds: float | None


class SiteStatus(msgspec.Struct, frozen=True):
    """Another site as this one sees it.

    Args:
        status: connected, connecting, lagging or unreachable.
        member: present, adding or deleting; no for a site that is only configured.
        acked_lsn: what it acknowledged in this generation, on a master.
    """

    site: str
    eid: int
    status: str
    role: str
    electable: bool
    acked_lsn: Lsn | None
    lag_bytes: int | None
    last_contact_seconds: float | None
    native: bool
    tls: bool
    error: str | None = None
    member: str = "no"


class LogsStatus(msgspec.Struct, frozen=True):
    """The log files of this site.

    Args:
        may_go_bytes: of those that neither recovery nor another site needs.
        budget_bytes: `[storage] log_budget`; None without one.
    """

    files: int
    bytes: int
    may_go_bytes: int
    budget_bytes: int | None


class FenceStatus(msgspec.Struct, frozen=True):
    """Whether this master hears enough sites to be sure that nobody else is one.

    Args:
        state: open, fenced (writes are refused) or unarmed (not heard yet in this term).
        limit_s: `[replication] fence_s`.
        heard: other sites heard within that time.
        needed: how many have to be.
        left_s: without a word from anybody, writes are refused after so long.
    """

    state: str
    limit_s: float
    heard: int
    needed: int
    left_s: float | None


class LeaseStatus(msgspec.Struct, frozen=True):
    """Whether reads on this master are certainly the newest.

    Args:
        lease_s: `[replication] lease_s`.
        left_s: how long a majority's word still holds; 0 when it does not.
    """

    lease_s: float
    left_s: float


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """One site, whole.

    Args:
        fence: on a master with others that could replace it; else None.
        lease: on a master with `[replication] lease_s`; else None.
        members: sites of the group, this one included; 0 while that is not known.
        membership_version: of the site list.
        why: what it waits for, the worst of `waits`; `since` and `hint` go with it.
        waits: all that it waits for, the worst first.
        alarms: of these, what has not moved for `[status] alarm_after_s`.
        logs: how many log files there are, their bytes, how many of them may go, the budget.
        history: the last changes of role and elections, oldest first.
    """

    state: str
    serving: bool
    role: str
    read_only: bool
    site: str
    priority: int
    generation: int
    master: str | None
    lsn: Lsn
    applied_lsn: Lsn
    lag_bytes: int | None
    lag_seconds: float | None
    sync: SyncStatus | None
    ack_policy: str
    sites: list[SiteStatus]
    counters: dict[str, int]
    notice: str | None
    ack_note: str | None
    pid: int
    version: str
    started: str
    home: str
    client_listen: str
    recovery_seconds: float
    fence: FenceStatus | None = None
    lease: LeaseStatus | None = None
    members: int = 0
    membership_version: int = 0
    why: str | None = None
    since: str | None = None
    hint: str | None = None
    waits: list[WaitStatus] = []
    alarms: list[WaitStatus] = []
    logs: LogsStatus | None = None
    history: list[HistoryRow] = []
