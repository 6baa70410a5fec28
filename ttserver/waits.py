"""What a site waits for, since when, with what remedy; and when that is worth an alarm (no I/O).

A look at the site gives `Wait`s (`ttserver.why`). The tracker remembers since when each stands and
when it last moved: a wait that has not moved for the operator's time raises an alarm, and the alarm
is cleared when it moves again or is over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import msgspec

# What `kind` may be, the worst first: `status` shows the first of them as the reason.
KINDS: Final = (
    "opening",
    "failed",
    "differs",
    "fenced",
    "removed",
    "rollback",
    "start",
    "master",
    "sync",
    "catch-up",
    "disk",
    "log",
    "acks",
    "site",
    "lag",
    "clock",
)


@dataclass(frozen=True, slots=True)
class Wait:
    """One thing that a site waits for now.

    Args:
        kind: one of `KINDS`.
        why: what is waited for, one sentence.
        hint: one thing to do.
        subject: which of several of this kind, mostly another site.
        progress: whatever is another value while it gets on; None when nothing shows that.
        quiet_s: not spoken of before it has stood for so long.
        only_still: not spoken of while it moves.
        alarm_at_once: it is an alarm from its first moment.
        told: whoever found it has written the alarm into the journal.
    """

    kind: str
    why: str
    hint: str
    subject: str = ""
    progress: object = None
    quiet_s: float = 0.0
    only_still: bool = False
    alarm_at_once: bool = False
    told: bool = False


class WaitStatus(msgspec.Struct, frozen=True):
    """A wait as `status` shows it.

    Args:
        since: when it began, UTC.
        seconds: how long it stands.
        still_seconds: how long it has not moved.
        alarm: it has not moved for the operator's time (`[status] alarm_after_s`).
    """

    kind: str
    subject: str
    why: str
    hint: str
    since: str
    seconds: float
    still_seconds: float
    alarm: bool


class Alarm(msgspec.Struct, frozen=True):
    """An alarm that was raised, or cleared after `seconds`."""

    name: str
    why: str
    hint: str
    seconds: float


@dataclass(slots=True)
class Look:
    """What one look gave: what stands, and the alarms that changed."""

    waits: list[WaitStatus]
    raised: list[Alarm]
    cleared: list[Alarm]


@dataclass(slots=True)
class _Standing:
    wait: Wait
    since_s: float
    since: str
    moved_s: float
    alarm_s: float | None = None


class WaitTracker:
    """See the module's text.

    Args:
        alarm_after_s: without progress for so long is an alarm; 0: never.
    """

    def __init__(self, alarm_after_s: float) -> None:
        self._alarm_after_s = alarm_after_s
        self._standing: dict[tuple[str, str], _Standing] = {}

    def look(self, now_s: float, wall_s: float, waits: Sequence[Wait]) -> Look:
        """Take what is waited for now.

        Args:
            now_s: a clock that only goes forward.
            wall_s: seconds since 1970.
            waits: at most one of each kind and subject.
        """
        before, self._standing = self._standing, {}
        look = Look([], [], [])
        for wait in sorted(waits, key=lambda wait: KINDS.index(wait.kind)):
            key = (wait.kind, wait.subject)
            standing = before.pop(key, None)
            if standing is None:
                standing = _Standing(wait, now_s, _utc(wall_s), now_s)
            elif wait.progress != standing.wait.progress:
                standing.moved_s = now_s
            standing.wait = wait
            self._standing[key] = standing
            self._judge(now_s, standing, look)
        for standing in before.values():
            self._clear(now_s, standing, look)
        return look

    def _judge(self, now_s: float, standing: _Standing, look: Look) -> None:
        wait, still_s = standing.wait, now_s - standing.moved_s
        lasting_s = still_s if wait.only_still else now_s - standing.since_s
        late = bool(self._alarm_after_s) and still_s >= self._alarm_after_s
        if (late or wait.alarm_at_once) and lasting_s >= wait.quiet_s:
            if standing.alarm_s is None:
                standing.alarm_s = now_s
                if not wait.told:
                    look.raised.append(_alarm(standing, still_s))
        elif standing.alarm_s is not None:
            self._clear(now_s, standing, look)
        if lasting_s >= wait.quiet_s:
            look.waits.append(
                WaitStatus(
                    wait.kind,
                    wait.subject,
                    wait.why,
                    wait.hint,
                    standing.since,
                    round(now_s - standing.since_s, 3),
                    round(still_s, 3),
                    standing.alarm_s is not None,
                )
            )

    def _clear(self, now_s: float, standing: _Standing, look: Look) -> None:
        if standing.alarm_s is not None and not standing.wait.told:
            look.cleared.append(_alarm(standing, now_s - standing.alarm_s))
        standing.alarm_s = None


def _alarm(standing: _Standing, seconds: float) -> Alarm:
    wait = standing.wait
    name = f"no progress: {wait.kind}{' ' * bool(wait.subject)}{wait.subject}"
    return Alarm(name, wait.why, wait.hint, seconds)


def _utc(wall_s: float) -> str:
    return datetime.fromtimestamp(wall_s, UTC).isoformat(timespec="seconds")
