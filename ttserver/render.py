"""The tables of `status` and `sites`: one screen that a tired person can read.

Every text is a `Text`, never markup: names of sites come from other machines.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ttserver.summary import Status, alarm_text, bytes_text, lsn_text, seconds_text, sync_text, who

# Not a terminal: wide enough that no cell of ours is cut, since nothing will be scrolled sideways.
PLAIN_WIDTH = 160

_GOOD, _LATE, _BAD, _DIM = "green", "yellow", "bold red", "dim"
_STATES = {"running": _GOOD, "start-pending": _LATE, "stop-pending": _LATE}
_SITE_STATUS = {"connected": _GOOD, "connecting": _LATE, "lagging": _LATE}
# Older contact than this with a site deserves a colour; heartbeats come far more often.
_CONTACT_LATE_S = 10.0


def console(*, stderr: bool = False) -> Console:
    """Make the console that all commands print on."""
    made = Console(stderr=stderr, highlight=False)
    return made if made.is_terminal else Console(stderr=stderr, highlight=False, width=PLAIN_WIDTH)


def status_view(status: Status) -> RenderableType:
    """Lay out a whole status.

    Args:
        status: the members of `status --json`.
    """
    parts: list[RenderableType] = [_headline(status), *_reasons(status), Text(), _facts(status)]
    if status.get("sync") is not None:
        parts += [Text(), _sync(status["sync"])]
    parts += [Text(), sites_table(status["sites"])]
    return Group(*parts)


def _reasons(status: Status) -> list[Text]:
    """What it waits for, since when and with what remedy; the notice its clients get."""
    parts = [Text(f"  {alarm_text(alarm)}", style=_BAD) for alarm in status.get("alarms", ())]
    if status.get("why"):
        parts.append(Text(f"  {status['why']}", style=_LATE))
    waits = status.get("waits", ())
    if waits:
        parts.append(Text(f"  {_since(waits[0])}", style=_DIM))
    if status.get("notice"):
        parts.append(Text(f"  {status['notice']}", style=_LATE))
    if status.get("ack_note"):
        parts.append(Text(f"  {status['ack_note']}", style=_LATE))
    if status.get("hint"):
        parts.append(Text(f"  HINT: {status['hint']}", style=_DIM))
    also = [f"  also: {wait['why']} ({_since(wait)})" for wait in waits[1:]]
    return [*parts, *(Text(text, style=_LATE) for text in also)]


def _since(wait: Mapping[str, Any]) -> str:
    began = str(wait["since"]).replace("T", " ").replace("+00:00", "Z")
    return f"since {began} ({seconds_text(wait['seconds'])})"


def history_table(rows: Iterable[Mapping[str, Any]]) -> RenderableType:
    """Lay out the last changes of role and elections, one a line, oldest first."""
    rows = list(rows)
    if not rows:
        return Text("  the journal tells of no change of role", style=_DIM)
    table = Table(box=None, padding=(0, 0, 0, 2), header_style=_DIM)
    for name in ("time", "event", "gen", "master", "log end", "priority", "votes"):
        right = name in {"gen", "log end", "priority", "votes"}
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    table.add_column("why", overflow="fold")
    for row in rows:
        table.add_row(
            Text(str(row["time"])),
            Text(str(row["event"]), style="bold"),
            Text(_or_dash(row["generation"])),
            Text(_or_dash(row["master"])),
            Text(lsn_text(row["lsn"])),
            Text(_or_dash(row["priority"])),
            Text(_votes(row)),
            Text(str(row["why"] or "")),
        )
    return table


def _or_dash(value: object) -> str:
    return "-" if value is None else str(value)


def _votes(row: Mapping[str, Any]) -> str:
    """Votes that came, of those needed, of all that were asked: `2/2 of 3`."""
    if row["nvotes"] is None:
        return _or_dash(row["votes"])
    came = "" if row["votes"] is None else f"{row['votes']}/"
    return f"{came}{row['nvotes']} of {_or_dash(row['nsites'])}"


def sites_table(sites: Iterable[Mapping[str, Any]]) -> RenderableType:
    """Lay out the other members of the group, one a line."""
    rows = list(sites)
    if not rows:
        return Text("  no other site is known", style=_DIM)
    errors = any(site.get("error") for site in rows)
    table = Table(box=None, padding=(0, 0, 0, 2), header_style=_DIM)
    for name in ("site", "status", "role", "acked lsn", "behind", "last contact", "kind"):
        right = name in {"acked lsn", "behind", "last contact"}
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    if errors:
        table.add_column("last error", overflow="fold")
    for site in rows:
        last = [Text(str(site.get("error") or ""), style=_LATE)] if errors else []
        table.add_row(*_site_row(site), *last)
    return table


def _headline(status: Status) -> Text:
    line = Text("  ")
    line.append(str(status["site"] or "no address"), style="bold")
    line.append("  ")
    line.append(str(status["state"]).upper(), style=_STATES.get(str(status["state"]), _BAD))
    line.append(f"  {who(status)}")
    if not status["serving"]:
        line.append("  (no reads)", style=_BAD)
    elif status["read_only"]:
        line.append("  (read-only)", style=_LATE)
    return line


_FENCES: Final = {"open": "open", "fenced": "no writes", "unarmed": "not armed"}


def _facts(status: Status) -> Table:
    grid = Table.grid(padding=(0, 3))
    for _ in range(2):
        grid.add_column(style=_DIM)
        grid.add_column()
    left = [
        ("role", f"{status['role']} (priority {status['priority']})"),
        ("generation", str(status["generation"])),
        ("behind", _lag_text(status)),
        ("ack policy", _policy(str(status["ack_policy"]))),
    ]
    right = [
        ("master", str(status["master"] or "none known")),
        ("log end", lsn_text(status["lsn"])),
        ("applied", lsn_text(status["applied_lsn"])),
        ("clients", str(status.get("client_listen") or "-")),
    ]
    if status.get("members"):
        left.append(("group", f"{status['members']} sites"))
        right.append(("site list", f"version {status['membership_version']}"))
    if fence := status.get("fence"):
        left.append(("heard from", f"{fence['heard']} sites, {fence['needed']} needed"))
        right.append(("fence", f"{fence['limit_s']:g} s, {_FENCES[fence['state']]}"))
    if lease := status.get("lease"):
        left.append(("lease", f"{seconds_text(lease['left_s'])} of {lease['lease_s']:g} s left"))
        right.append(("reads", "the newest" if lease["left_s"] else "refused"))
    for (name, text), (name2, text2) in zip(left, right, strict=True):
        grid.add_row(Text(f"  {name}"), Text(text), Text(name2), Text(text2))
    return grid


def _policy(policy: str) -> str:
    return policy.removeprefix("db_repmgr_acks_")


def _lag_text(status: Status) -> str:
    if status["role"] == "master":
        return "nothing: this is the master"
    if status.get("lag_bytes") is None and status.get("lag_seconds") is None:
        return "not known"
    return f"{bytes_text(status['lag_bytes'])}, {seconds_text(status['lag_seconds'])}"


def _sync(sync: Mapping[str, Any]) -> RenderableType:
    total = sync.get("pages_total") or 0
    bar = ProgressBar(
        total=total or 100, completed=sync.get("pages_done") or 0, width=40, pulse=not total
    )
    row = Table.grid(padding=(0, 2))
    row.add_row(Text(""), bar, Text(sync_text(sync)))
    return row


def _site_row(site: Mapping[str, Any]) -> list[Text]:
    status, contact = str(site["status"]), site["last_contact_seconds"]
    behind = site["lag_bytes"]
    return [
        Text(str(site["site"]), style="bold"),
        Text(status, style=_SITE_STATUS.get(status, _BAD)),
        Text(str(site["role"] or "-")),
        Text(lsn_text(site["acked_lsn"])),
        Text(bytes_text(behind), style=_LATE if behind else ""),
        Text(
            "never" if contact is None else f"{seconds_text(contact)} ago",
            style=_LATE if contact is None or contact > _CONTACT_LATE_S else "",
        ),
        Text(_kind(site), style=_DIM),
    ]


def _kind(site: Mapping[str, Any]) -> str:
    words = ["native" if site["native"] else "ttserver"]
    if site["tls"]:
        words.append("TLS")
    if site["role"] == "witness":
        words.append("only votes")
    elif site["electable"] is False:
        words.append("never master")
    member = site.get("member", "present")
    if member != "present":
        words.append("no member" if member == "no" else member)
    return ", ".join(words)
