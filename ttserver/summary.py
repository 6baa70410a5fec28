"""A status in words: one line for the service manager and for logs, amounts a person can read.

Works on the status as a program gets it (`status --json`), so that the daemon and the operator's
program on the other side of the control socket say the same.
"""

from collections.abc import Mapping
from typing import Any

Status = Mapping[str, Any]


def one_line(status: Status) -> str:
    """Say in one line what the site is, whom it follows and what it waits for.

    Args:
        status: the members of `status --json`.
    """
    parts = [f"{status['state']}, {who(status)}"]
    sync = status.get("sync")
    if sync is not None:
        parts.append(sync_text(sync))
    elif status["role"] == "master" and status["state"] == "running":
        parts.append(_members_text(status["sites"]))
    elif status.get("why"):
        parts.append(str(status["why"]))
    elif status.get("lag_bytes"):
        parts.append(f"behind by {bytes_text(status['lag_bytes'])}")
    if status.get("alarms"):
        parts.append(alarm_text(status["alarms"][0]))
    return "; ".join(parts)


def who(status: Status) -> str:
    """Name the role and, for one that follows, the master."""
    role = str(status["role"])
    master = status.get("master")
    if role == "replicant":
        return f"replicant of {master}" if master else "replicant without a master"
    if role == "witness":
        return f"witness; the master is {master}" if master else "witness without a master"
    return {"none": "no role yet", "electing": "electing a master"}.get(role, role)


def alarm_text(alarm: Mapping[str, Any]) -> str:
    """Say that something has not moved for too long."""
    still = seconds_text(alarm["still_seconds"])
    return f"ALARM: no progress for {still}: {alarm['why']}"


def sync_text(sync: Mapping[str, Any]) -> str:
    """Say how far the receiving of a database is."""
    done, total = sync.get("pages_done") or 0, sync.get("pages_total") or 0
    text = str(sync.get("phase") or "sync")
    if total:
        text += f" {done} of {total} pages ({100 * done // total} %)"
    if sync.get("bytes_done"):
        text += f", {bytes_text(sync['bytes_done'])}"
    if sync.get("eta_seconds") is not None:
        text += f", {seconds_text(sync['eta_seconds'])} left"
    return text


def bytes_text(count: float | None) -> str:
    """Write an amount of bytes with three significant figures; `-` when it is not known."""
    if count is None:
        return "-"
    size = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}" if unit != "B" else f"{size:.0f} B"
        size /= 1000
    return f"{size:.0f} TB" if size >= 1000 else f"{size:.3g} TB"


def seconds_text(seconds: float | None) -> str:
    """Write a time span with the two largest units that matter; `-` when it is not known."""
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 2 * 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def lsn_text(lsn: Any) -> str:
    """Write an LSN the way the journal does, `file/offset`; `-` when it is not known."""
    return f"{lsn[0]}/{lsn[1]}" if lsn else "-"


def _members_text(sites: Any) -> str:
    others = len(sites)
    if not others:
        return "no other site"
    connected = sum(1 for site in sites if site.get("status") == "connected")
    return f"{connected} of {others} other site{'s' * (others > 1)} connected"
