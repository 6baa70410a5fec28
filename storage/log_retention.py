"""Which log files may go: by what recovery here and other sites may need, under a budget.

`look` asks the library and the directory, `decide` is pure:

- a file may go when recovery here does not need it and no site may need it;
- `tidy`: those that may go are removed;
- a budget: beyond it the oldest go, whoever needs them, but never one that recovery needs.

A site whose first needed file is gone already needs a complete copy, so nothing is kept for it.

Source: Programmer's Reference, "Log file removal"; DB_ENV->log_archive.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from berkeleydb import db

from storage.environment import Environment

# A site is warned of when less than this share of the budget is left until its first file goes.
WARN_SHARE: Final = 0.2
_HELD: Final = "the library keeps all log while it syncs, and 30 s after a site asked it for log"


@dataclass(frozen=True, slots=True)
class LogFile:
    """One log file."""

    number: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Need:
    """What another site may still need.

    Args:
        site: its name.
        file: the first log file; None: none of them.
        why: in words.
    """

    site: str
    file: int | None
    why: str


@dataclass(frozen=True, slots=True)
class Logs:
    """The log as it lies in the directory.

    Args:
        files: oldest first.
        recovery_from: the first file that recovery here needs.
        held: the library gives none away now.
    """

    files: Sequence[LogFile]
    recovery_from: int
    held: bool = False

    @property
    def total_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


@dataclass(frozen=True, slots=True)
class Shortage:
    """A site that needs, or soon will need, log that does not fit into the budget.

    Args:
        need: what it needs.
        room_bytes: how much more can be logged until its first file goes.
    """

    need: Need
    room_bytes: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of the log files.

    Args:
        kept: each file with the reasons to keep it; without one it may go.
        remove: the numbers of those to be removed now.
        short: sites whose log is about to go.
        lost: sites whose log is gone, or goes now; each needs a complete copy.
        over_bytes: how much the files that must stay are over the budget.
    """

    kept: Sequence[tuple[LogFile, tuple[str, ...]]] = ()
    remove: frozenset[int] = frozenset()
    short: Sequence[Shortage] = ()
    lost: Sequence[Need] = ()
    over_bytes: int = 0
    may_go: Sequence[LogFile] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "may_go", [file for file, why in self.kept if not why])


def decide(logs: Logs, needs: Iterable[Need], *, tidy: bool, budget_bytes: int) -> Verdict:
    """Decide on every log file.

    Args:
        logs: what there is.
        needs: one for each other site.
        tidy: remove what may go.
        budget_bytes: how much log is kept at most; 0: any amount.
    """
    if not logs.files:
        return Verdict()
    oldest, newest = logs.files[0].number, logs.files[-1].number
    wanted = [need for need in needs if need.file is not None]
    standing = [need for need in wanted if _first(need, oldest) >= oldest]
    kept = [(file, _reasons(file, logs, standing, newest)) for file in logs.files]
    remove = {file.number for file, why in kept if tidy and not why}
    left = [file for file in logs.files if file.number not in remove]
    total = sum(file.size_bytes for file in left)
    if budget_bytes:
        for file in left:
            if total <= budget_bytes or file.number >= logs.recovery_from:
                break
            remove.add(file.number)
            total -= file.size_bytes
    first = min(file.number for file in logs.files if file.number not in remove)
    return Verdict(
        kept,
        frozenset(remove),
        _short(logs, standing, first, budget_bytes),
        [need for need in wanted if _first(need, oldest) < first],
        max(0, total - budget_bytes) if budget_bytes and not logs.held else 0,
    )


def _first(need: Need, oldest: int) -> int:
    """The first file a site may need: 0 stands for all that there are."""
    assert need.file is not None, "it was asked for"
    return need.file or oldest


def _reasons(file: LogFile, logs: Logs, standing: Sequence[Need], newest: int) -> tuple[str, ...]:
    why = [need.why for need in standing if _first(need, file.number) <= file.number]
    if file.number == newest:
        why.insert(0, "the log is written to it")
    elif file.number >= logs.recovery_from:
        why.insert(0, _HELD if logs.held else "recovery here needs it")
    return tuple(why)


def _short(logs: Logs, standing: Sequence[Need], first: int, budget_bytes: int) -> list[Shortage]:
    """Find the sites that are next to lose their log."""
    if not budget_bytes:
        return []
    found = []
    for need in standing:
        needed = _first(need, first)
        if not first <= needed < logs.recovery_from:
            continue  # recovery needs it as well: the budget cannot take it
        held = sum(file.size_bytes for file in logs.files if file.number >= needed)
        room_bytes = budget_bytes - held
        if room_bytes < budget_bytes * WARN_SHARE:
            found.append(Shortage(need, max(0, room_bytes)))
    return found


def look(environment: Environment) -> Logs:
    """Look at the log files. *Thread:* any of the environment's."""
    env = environment.env
    files = []
    for path in sorted(_paths(env, db.DB_ARCH_LOG)):
        try:
            files.append(LogFile(int(path.suffix[1:]), path.stat().st_size))
        except FileNotFoundError:
            continue  # removed by hand meanwhile
    # The library leaves out what a recovery here would need, and everything while it syncs.
    unused = [int(path.suffix[1:]) for path in _paths(env, 0)]
    first = files[0].number if files else 0
    # The two newest checkpoints: recovery may begin with the older one.
    last_checkpoint = env.txn_stat()["last_ckp"][0] & 0xFFFFFFFF
    held = not unused and last_checkpoint > first + 1
    return Logs(files, max(unused, default=first - 1) + 1, held)


def _paths(env: db.DBEnv, which: int) -> list[Path]:
    """Log files that the library names; a site that has no data yet has no record in any."""
    try:
        return [Path(os.fsdecode(name)) for name in env.log_archive(which | db.DB_ARCH_ABS)]
    except db.DBNotFoundError:
        return []


def remove(environment: Environment, numbers: Iterable[int]) -> list[int]:
    """Remove log files, oldest first, so that what stays has no gap. *Thread:* any.

    Returns:
        The numbers of those that were there.

    Raises:
        OSError: one cannot be removed; those before it are gone.
    """
    paths = {int(path.suffix[1:]): path for path in _paths(environment.env, db.DB_ARCH_LOG)}
    gone = []
    for number in sorted(numbers):
        path = paths.get(number)
        if path is None:
            continue
        try:
            path.unlink()
        except FileNotFoundError:
            continue
        gone.append(number)
    return gone
