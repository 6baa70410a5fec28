"""`failover`: how long no write is answered OK when a master is lost, or hands over.

Three sites under write load at QUORUM. Each round kills the master (its sockets close), freezes it
(nothing closes: only silence tells), or has it hand over; the time counts from the signal to the
first OK of another site. Afterwards every write that was answered OK is looked for on every site.
A run at full load with frequent checkpoints counts elections that nobody needed.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from bench.trio import Trio, trio
from bench.workload import percentile

Mode = Literal["kill", "freeze", "switchover"]
MODES: tuple[Mode, ...] = ("kill", "freeze", "switchover")
OK_TIMEOUT_S = 60.0
ACKED_BEFORE = 20
LOOK_S = 0.001
Progress = Callable[[str], None]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to run.

    Args:
        modes: in turn, round by round.
        rounds: how often each.
        calm_s: seconds of full load in which no election may be called; 0 leaves it out.
        directory: where the sites go.
    """

    modes: tuple[Mode, ...]
    rounds: int
    calm_s: float
    directory: str


class Report(msgspec.Struct, kw_only=True):
    """What came of it.

    Args:
        gaps_ms: by mode, the time without an OK of each round, milliseconds.
        acked: writes answered OK.
        lost: of these, how many are missing on some site.
        false_elections: called while nothing was wrong.
    """

    plan: Plan
    machine: dict[str, Any]
    gaps_ms: dict[str, list[float]]
    acked: int = 0
    lost: int = 0
    false_elections: int = 0

    def failures(self) -> list[str]:
        """Name what must not happen."""
        found = []
        if self.lost:
            found.append(f"{self.lost} acknowledged writes are missing")
        if self.false_elections:
            found.append(f"{self.false_elections} elections without a reason")
        return found


def run(plan: Plan, machine: dict[str, Any], progress: Progress) -> Report:
    """Run a plan.

    Raises:
        TimeoutError, SiteError: the group did not get over something.
    """
    report = Report(plan=plan, machine=machine, gaps_ms={mode: [] for mode in plan.modes})
    with trio(Path(plan.directory)) as group:
        if plan.calm_s:
            progress(f"{plan.calm_s:g} s of full load")
            report.false_elections = _calm(group, plan.calm_s)
        for number in range(plan.rounds):
            for mode in plan.modes:
                progress(f"round {number + 1} of {plan.rounds}, {mode}")
                report.gaps_ms[mode].append(1000 * _round(group, mode))
        group.end_probers()
        progress("looking for every acknowledged write on every site")
        report.acked = len(group.acked())
        report.lost = group.missing()
    return report


def _calm(group: Trio, seconds: float) -> int:
    before = _elections(group)
    time.sleep(seconds)
    return _elections(group) - before


def _elections(group: Trio) -> int:
    return sum(line.event == "election_called" for site in group.sites for line in site.events())


def _round(group: Trio, mode: Mode) -> float:
    """Lose the master once; returns the time without an OK of anybody else, seconds."""
    at = group.master()
    before = len(group.probers[at].acked)
    _wait(lambda: len(group.probers[at].acked) >= before + ACKED_BEFORE)
    master = group.sites[at]
    if mode == "switchover":
        return _hand_over(group, at)
    assert master.process is not None, "it runs"
    seen = [len(prober.acked) for prober in group.probers]
    pid = master.process.pid
    began_s = time.monotonic()
    if mode == "kill":
        master.process.kill()
    else:
        master.freeze()
    first_s: float = _wait(lambda: _first_ok(group, at, seen, began_s))
    if mode == "kill":
        master.kill()  # it is dead; this waits for its end
        master.start()
    else:
        assert master.process.pid == pid
        master.thaw()
    group.master()
    return first_s - began_s


def _first_ok(group: Trio, lost: int, seen: Sequence[int], began_s: float) -> float | None:
    times = [
        acked.at_s
        for at, prober in enumerate(group.probers)
        if at != lost
        for acked in prober.acked[seen[at] : seen[at] + 1]
        if acked.at_s >= began_s
    ]
    return min(times, default=None)


def _hand_over(group: Trio, at: int) -> float:
    """Have the master hand over; returns the longest time between two OKs around it."""
    seen = [len(prober.acked) for prober in group.probers]
    began_s = time.monotonic()
    group.sites[at].must("switchover")
    _wait(lambda: _first_ok(group, at, seen, began_s))
    group.master()
    times = sorted(
        acked.at_s
        for old, prober in zip(seen, group.probers, strict=True)
        for acked in prober.acked[old:]
    )
    return max((b - a for a, b in itertools.pairwise(times)), default=0.0)


def _wait(condition: Callable[[], Any]) -> Any:
    end_s = time.monotonic() + OK_TIMEOUT_S
    while not (found := condition()):
        if time.monotonic() > end_s:
            raise TimeoutError(f"no write was answered OK within {OK_TIMEOUT_S:g} s")
        time.sleep(LOOK_S)
    return found


def print_report(console: Console, report: Report) -> None:
    """Print a line a mode, and what went wrong."""
    table = Table(title="from the loss of the master to the next OK", box=box.SIMPLE_HEAD)
    for column in ("mode", "rounds", "p50 ms", "p99 ms", "max ms"):
        table.add_column(column, justify="left" if column == "mode" else "right")
    for mode, gaps in report.gaps_ms.items():
        if gaps:
            table.add_row(
                mode,
                str(len(gaps)),
                f"{statistics.median(gaps):,.1f}",
                f"{percentile(sorted(gaps), 0.99):,.1f}",
                f"{max(gaps):,.1f}",
            )
    console.print(table)
    if report.plan.calm_s:
        console.print(
            f"elections in {report.plan.calm_s:g} s of full load: {report.false_elections}",
            highlight=False,
        )
    console.print(
        f"writes answered OK: {report.acked:,}; missing on any site: {report.lost}",
        highlight=False,
    )
    for failure in report.failures():
        console.print(f"FAILED: {failure}", style="red", highlight=False)


def write_json(path: Path, report: Report) -> None:
    """Write everything for programs."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
