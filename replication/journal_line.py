r"""One line of the replication journal, and the words it is written in (sans-I/O).

A line is `TIME ROLE SITE EVENT name=value ...`:

    2026-11-23 07:01:02.123Z master db1:5010 connection_accepted from=db2:5010

A value stands bare when it is made of plain characters, else in double quotes with `\n`, `\"`,
`\x1b` and the like escaped: whatever a remote site or a client sends, it can neither begin a line
nor pass for another fact. The library's own messages, between these lines, have no such form, and
`parse_line` answers None for them.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import Final, NamedTuple

# Enough for a path or a list of sites; a remote text of megabytes must not become a line of them.
VALUE_CHARS_MAX: Final = 1000


class Event(NamedTuple):
    """What one event name means."""

    group: str
    meaning: str
    facts: str


def _group(group: str, *rows: tuple[str, str, str]) -> dict[str, Event]:
    return {name: Event(group, meaning, facts) for name, meaning, facts in rows}


# The vocabulary. docs/JOURNAL.md shows this table to operators; a test compares the two.
EVENTS: Final[Mapping[str, Event]] = {
    **_group(
        "service",
        ("server_started", "the daemon runs", "version pid home"),
        ("server_stopping", "a stop was asked for", "why"),
        ("server_stopped", "the daemon has closed its environment", "seconds"),
        ("state_changed", "start-pending, running or stop-pending", "from to why"),
        ("environment_opened", "the environment is open, recovery ran if needed", "lsn seconds"),
        ("journal_continued", "first line of a new file after a rotation", "previous"),
        ("journal_lines_lost", "lines could not be written, mostly a full disk", "lines since why"),
    ),
    **_group(
        "connection",
        ("connection_accepted", "the other site reached this one", "from"),
        ("connection_established", "a link to a site is ready", "site direction native electable"),
        ("connection_failed", "a site could not be reached; it is tried again", "site reason"),
        ("connection_refused", "this site turned a caller away", "from reason"),
        (
            "connection_rejected",
            "a site does not take this one for a member",
            "site version generation",
        ),
        ("connection_lost", "a link to a site was dropped", "site reason"),
        ("link_stalled", "a site takes no data, the master waits for it", "site queued_bytes"),
        ("site_lagging", "a site was left behind and must catch up from the log", "site reason"),
        ("site_caught_up", "a site that lagged has everything again", "site seconds"),
        (
            "channel_refused",
            "an application at a native site used a channel; no site of ours serves one",
            "site answered",
        ),
        ("wrong_port", "a program spoke another port's protocol", "from spoke"),
    ),
    **_group(
        "validation",
        ("version_agreed", "both sites speak this protocol version", "site version"),
        ("version_refused", "the two sites have no protocol version in common", "from why"),
        ("member_confirmed", "the other site is a member of the group", "site members version"),
        ("member_refused", "the other site is not a member of the group", "from why"),
        ("generation_confirmed", "the other site's generation fits", "site generation lsn"),
        ("generation_raised", "before becoming master, above every member's", "from to"),
        ("master_refused", "following this master would lose data here", "site why"),
        ("gap_suspected", "log records seem to be missing; asked for", "master_lsn applied"),
    ),
    **_group(
        "sync sent",
        ("sync_send_started", "database information goes to a replicant", "site files pages bytes"),
        ("sync_send_progress", "how far it is", "site pages pages_total bytes percent"),
        ("sync_send_finished", "all of it was sent", "site files pages bytes seconds"),
    ),
    **_group(
        "sync received",
        ("sync_receive_started", "database information is expected", "master files pages bytes"),
        ("sync_receive_progress", "how far it is", "pages pages_total bytes percent eta_s"),
        ("sync_delayed", "before it syncs with a new master this site waits", "seconds"),
        ("sync_begun", "a sync that was delayed begins", ""),
        ("sync_failed", "what came of it is worth nothing; it begins again", "tries reason"),
        ("sync_given_up", "too often; this site takes no copy before `ttserver sync`", "tries why"),
        ("sync_asked_again", "nothing more came of it, so the rest is asked for again", "reason"),
        ("sync_receive_finished", "all of it is here", "files pages bytes seconds"),
        ("startup_done", "this site is in step and follows live", "master generation"),
    ),
    **_group(
        "membership",
        ("group_created", "this site created the group", "members version"),
        ("join_requested", "this site asks to be taken into the group", "to"),
        ("join_received", "a site asks to be taken into the group", "site"),
        ("removal_received", "a site is to be taken out of the group", "site"),
        ("joined_group", "the group has taken this site in", "members version"),
        ("removed_from_group", "this site is no member any more and stops trying", "version"),
        ("rejoin_asked", "the operator wants this site in the group again", ""),
        ("invited", "a member's operator wants this site in the group", "by"),
        ("membership_changed", "the list of sites is another one now", "members version"),
        ("membership_change_failed", "the list of sites stays as it was", "reason"),
    ),
    **_group(
        "election",
        ("election_called", "a master is to be elected", "nsites nvotes priority lsn"),
        ("election_won", "this site was elected", "priority votes lsn"),
        ("election_over", "what came of it", "outcome"),
        ("log_released", "log passes again after a vote; so much had waited", "messages dropped"),
        ("election_impossible", "too few sites can be reached to elect a master", "why"),
    ),
    **_group(
        "role",
        ("start_decided", "what this site does at its start", "decision why"),
        ("waiting", "what keeps this site from being master or running", "why hint"),
        ("became_master", "this site is the master", "generation priority lsn"),
        ("promoted", "the operator made this site the master", "generation_above"),
        ("new_master", "this site follows another one", "master generation lsn"),
        ("master_lost", "this site has lost its master", "master reason generation lsn"),
        ("failback_due", "the preferred master is back and shall lead again", "to"),
        ("switchover_started", "the master's role is to be handed over", "to generation"),
        ("switchover_asked", "the master asks this site to take over", "by lsn refused"),
        (
            "switchover_stepped_down",
            "this site stepped down, the other takes over",
            "to lsn",
        ),
        ("switchover_done", "the other site is master", "to generation held_s"),
        ("switchover_failed", "the other site did not become master", "to reason held_s"),
        ("fenced", "cut off from the majority: it refuses writes", "heard needed limit_s"),
        ("unfenced", "the majority is heard again: it takes writes", "needed"),
        ("stepped_down", "this master is none any more and elects", "why"),
        ("duplicate_master", "two sites are master: both step down and elect", ""),
    ),
    **_group(
        "roll-back",
        ("rollback_found", "the master does not have the end of this site's log", "master to"),
        (
            "rollback_listed",
            "the writes that will be taken back are written down",
            "ledger writes commits unexplained",
        ),
        ("rollback_refused", "the operator has to decide", "to why"),
        (
            "rollback_done",
            "writes were taken back; the ledger names them",
            "ledger to commits writes differences",
        ),
        ("rollback_averted", "nothing had to be taken back after all", ""),
        (
            "rollback_reapplied",
            "writes of a ledger were written again",
            "ledger applied same conflicts skipped",
        ),
    ),
    **_group(
        "acknowledgement",
        ("ack_failed", "writes did not meet their policy", "lsn writes why"),
        ("ack_recovered", "writes meet the policy again", "failed"),
    ),
    **_group(
        "comparison",
        ("compare_started", "this master compares its databases with others'", "sites"),
        ("compare_left_out", "a site was not compared, or not to the end", "site why"),
        ("compare_difference", "a site differs from this master", "site database key what lsn"),
        (
            "compare_finished",
            "what came of it",
            "identical lsn records seconds longest_pause_ms",
        ),
    ),
    **_group(
        "alarm",
        ("alarm_raised", "something needs the operator", "alarm why hint"),
        ("alarm_cleared", "it is over", "alarm seconds"),
    ),
    **_group(
        "user",
        ("user_added", "a user was created", "user role"),
        ("user_removed", "a user was deleted", "user"),
        ("user_revoked", "a user may not log on after wrong passwords", "user wrong"),
        ("password_changed", "a user has a new password", "user"),
        ("logon_refused", "a logon failed", "user from reason"),
        ("logon_throttled", "logons are delayed after wrong passwords", "user from wait_s"),
    ),
}


class Line(NamedTuple):
    """One parsed line: the time as written, role, site, event and the facts as text."""

    time: str
    role: str
    site: str
    event: str
    facts: dict[str, str]


def format_line(
    now_s: float, role: str, site: str, event: str, facts: Mapping[str, object]
) -> bytes:
    """Write one line, with its line feed.

    Args:
        now_s: seconds since 1970, UTC.
        role: `master`, `replicant`, `electing` or `none`.
        site: host:port this site is known by in the group.
        event: a snake_case name, one of `EVENTS`.
        facts: written in their order; a name may end in `_` (`from_`), which is dropped. A tuple
            of numbers is an LSN (`file/offset`), None is `-`.
    """
    assert event.isidentifier(), "an event is a snake_case name"
    words = [stamp(now_s), _quoted(role), _quoted(site), event]
    words += [f"{name.rstrip('_')}={_value(value)}" for name, value in facts.items()]
    return (" ".join(words) + "\n").encode()


def stamp(now_s: float) -> str:
    """Write a time the way the journal does: UTC, milliseconds."""
    return datetime.fromtimestamp(now_s, UTC).isoformat(" ", "milliseconds")[:23] + "Z"


def parse_line(text: str) -> Line | None:
    """Take one line apart; None for a line of the library or of anybody else."""
    head = _HEAD.match(text)
    if head is None:
        return None
    time, role, site, event = head.groups()
    facts: dict[str, str] = {}
    at = head.end()
    while at < len(text):
        fact = _FACT.match(text, at)
        if fact is None:
            return None
        facts[fact[1]] = _unquoted(fact[2])
        at = fact.end()
    return Line(time, _unquoted(role), _unquoted(site), event, facts)


def printable(text: str) -> str:
    """Escape what a terminal would act on: control characters, separators, reversed text."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def _value(value: object) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case Enum():
            return _quoted(value.value if isinstance(value.value, str) else value.name.lower())
        case float():
            return f"{value:.3f}"
        case tuple() if value and all(isinstance(part, int) for part in value):
            return "/".join(str(part) for part in value)
        case _:
            return _quoted(_text(value))


def _text(value: object) -> str:
    match value:
        case str():
            return value
        case bytes() | bytearray():
            return value[:VALUE_CHARS_MAX].decode("utf-8", "backslashreplace")
        case _ if type(value).__str__ is not object.__str__:
            return str(value)  # it knows best how it reads: the address of a site
        case Mapping():
            return ",".join(f"{_text(name)}:{_text(part)}" for name, part in value.items())
        case Iterable():
            return ",".join(_text(part) for part in value)
        case _:
            return str(value)


_BARE: Final = re.compile(r"[A-Za-z0-9_.:/,@+*%()\[\]<>-]+")
_QUOTED: Final = r'"(?:[^"\\]|\\.)*"'
_HEAD: Final = re.compile(
    rf'(\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{{3}}Z) ({_QUOTED}|[^\s"]+) ({_QUOTED}|[^\s"]+)'
    r" ([a-z][a-z0-9_]*)(?= |$)"
)
_FACT: Final = re.compile(rf' ([A-Za-z_][A-Za-z0-9_]*)=({_QUOTED}|[^\s"]+)')
_SHORT: Final = {"\n": r"\n", "\r": r"\r", "\t": r"\t", '"': r"\"", "\\": r"\\"}
_LONG: Final = {text[1]: char for char, text in _SHORT.items()}
_ESCAPED: Final = re.compile(
    r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|(.))", flags=re.DOTALL
)


def _quoted(text: str) -> str:
    # A lone dash is None's sign, so the text "-" goes in quotes.
    if text != "-" and len(text) <= VALUE_CHARS_MAX and _BARE.fullmatch(text):
        return text
    if len(text) > VALUE_CHARS_MAX:
        text = text[:VALUE_CHARS_MAX] + "…"
    inner = "".join(
        _escape(char) if char in '"\\' or not char.isprintable() else char for char in text
    )
    return f'"{inner}"'


def _escape(char: str) -> str:
    code = ord(char)
    if char in _SHORT:
        return _SHORT[char]
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _unquoted(text: str) -> str:
    if not text.startswith('"'):
        return text
    return _ESCAPED.sub(_unescape, text[1:-1])


def _unescape(found: re.Match[str]) -> str:
    number = found[1] or found[2] or found[3]
    if number is not None:
        return chr(int(number, 16))
    return _LONG.get(found[4], found[4])
