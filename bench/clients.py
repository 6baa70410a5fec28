"""`clients`: port 5000 against Redis and PostgreSQL, each a master and one replicant.

Durability is the same for all: what is answered OK was flushed at the master, and for `set-acked`
by the replicant as well. Writes go to the master, reads to the replicant. All pairs are started
and filled once; then they take turns, round by round, so ratios are of runs close to each other.
"""

from __future__ import annotations

import resource
import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from bench.pairs import NAMES, SUBJECT, make_pair
from bench.pairs.base import (
    PIPELINE,
    VALUE_BYTES,
    Load,
    Measured,
    Pair,
    PairMissingError,
    Setting,
    Work,
    children_cpu_s,
    cpu_s,
)
from bench.pairs.resp import compile_load

SPARE_CLIENTS = 50
DESCRIPTORS = 65_536  # idle connections need one each, in the servers and here
DASH = "-"
WORDS: dict[Work, str] = {
    "set-acked": "SET, flushed on both sides and acknowledged by the replicant",
    "set": "SET, flushed at the master",
    "get": "GET on the replicant",
    "get-pipelined": f"GET on the replicant, {PIPELINE} at once",
}
Progress = Callable[[str], None]


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of load.

    Args:
        connections: at work.
        idle: connections beside them that do nothing.
    """

    work: Work
    connections: int
    idle: int = 0

    @property
    def title(self) -> str:
        """One line for people."""
        beside = f" beside {self.idle:,} idle ones" if self.idle else ""
        many = "s" if self.connections > 1 else ""
        return f"{WORDS[self.work]}; {self.connections} connection{many}{beside}"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to run.

    Args:
        pairs: names in `bench.pairs`.
        cases: one after the other.
        rounds: how often each pair runs a case.
        seconds: that count, of one run, after `warmup_s` that do not.
        keys: how many there are; each has a value of 200 bytes.
        cache_mib: of each database's cache, MiB; Redis keeps all in memory.
        directory: where the files go.
    """

    pairs: tuple[str, ...]
    cases: tuple[Case, ...]
    rounds: int
    seconds: float
    warmup_s: float
    keys: int
    cache_mib: int
    directory: str


class Result(msgspec.Struct, kw_only=True):
    """One run of one pair.

    Args:
        lost: acknowledged writes that the replicant did not show later on.
        master_cpu_us, replicant_cpu_us, load_cpu_us: CPU time an operation, of the two servers
            and of what put the load on them.
        idle_kib: the server's memory for each idle connection, KiB.
    """

    pair: str
    round: int
    case: Case
    measured: Measured
    seconds: float
    lost: int
    master_cpu_us: float
    replicant_cpu_us: float
    load_cpu_us: float
    idle_kib: float | None

    @property
    def rate(self) -> float:
        """Operations a second."""
        return self.measured.operations / self.seconds


class Report(msgspec.Struct, kw_only=True):
    """What came of a plan.

    Args:
        versions: of the pairs that ran.
        skipped: the others, and why.
    """

    plan: Plan
    machine: dict[str, Any]
    versions: dict[str, str]
    skipped: dict[str, str]
    results: list[Result]

    def failures(self) -> list[str]:
        """Name what must not happen; speed is no part of it."""
        found = []
        for one in self.results:
            where = f"{one.pair}, round {one.round}, {one.case.title}"
            if one.measured.errors:
                found.append(f"{where}: {one.measured.errors} errors: {one.measured.error}")
            if one.lost:
                found.append(f"{where}: {one.lost} acknowledged writes are not on the replicant")
            if not one.measured.operations:
                found.append(f"{where}: nothing was answered in time")
        return found


def make_cases(
    works: Sequence[Work], connections: Sequence[int], busy: int, idle: int
) -> tuple[Case, ...]:
    """List the cases: each work at each number of connections, then the crowd.

    Args:
        busy, idle: connections of the crowd; without idle ones it is left out.
    """
    cases = [Case(work=work, connections=number) for work in works for number in connections]
    if idle:
        crowd = [work for work in works if work in ("set-acked", "get")]
        cases += [Case(work=work, connections=busy, idle=idle) for work in crowd]
    return tuple(cases)


def run(plan: Plan, machine: dict[str, Any], progress: Progress) -> Report:
    """Run a plan.

    Raises:
        PairError, SiteError, OSError: a server did not do what it was told.
    """
    _raise_descriptors()
    root = Path(plan.directory)
    report = Report(plan=plan, machine=machine, versions={}, skipped={}, results=[])
    most = max(case.connections + case.idle for case in plan.cases)
    load = compile_load(root)
    with ExitStack() as held:
        pairs: list[Pair] = []
        for name in plan.pairs:
            progress(f"starting {name}, with {plan.keys:,} keys")
            setting = Setting(
                directory=root / name,
                keys=plan.keys,
                cache_mib=plan.cache_mib,
                clients_max=most + SPARE_CLIENTS,
                load=load,
            )
            try:
                pair = make_pair(name, setting)
                held.callback(pair.close)
                pair.open()
            except PairMissingError as missing:
                report.skipped[name] = str(missing)
                continue
            report.versions[name] = pair.version
            pairs.append(pair)
        for case in plan.cases:
            able = [pair for pair in pairs if pair.can(case.work)]
            for number in range(plan.rounds):
                first = number % len(able)
                for pair in able[first:] + able[:first]:
                    progress(f"{case.title}: round {number + 1} of {plan.rounds}, {pair.name}")
                    report.results.append(_run_one(plan, case, number, pair))
    return report


def _run_one(plan: Plan, case: Case, number: int, pair: Pair) -> Result:
    load = Load(
        work=case.work,
        connections=case.connections,
        seconds=plan.seconds,
        warmup_s=plan.warmup_s,
        seed=number + 1,
    )
    with pair.crowd(case.work, case.idle) if case.idle else nullcontext() as idle_kib:
        before = [*map(cpu_s, pair.pids()), children_cpu_s()]
        measured = pair.run(load)
        after = [*map(cpu_s, pair.pids()), children_cpu_s()]
    each = [1e6 * (b - a) / max(1, measured.sent) for a, b in zip(before, after, strict=True)]
    return Result(
        pair=pair.name,
        round=number,
        case=case,
        measured=measured,
        seconds=plan.seconds,
        lost=pair.lost(measured),
        master_cpu_us=each[0],
        replicant_cpu_us=each[1],
        load_cpu_us=each[2],
        idle_kib=idle_kib,
    )


def _raise_descriptors() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if most == resource.RLIM_INFINITY else min(DESCRIPTORS, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def ratios(results: Sequence[Result], case: Case, other: str) -> list[float]:
    """How many times as fast ttserver was in a case, round by round."""
    rates = {(one.pair, one.round): one.rate for one in results if one.case == case}
    return [
        rate / rates[other, number]
        for (pair, number), rate in rates.items()
        if pair == SUBJECT and rates.get((other, number))
    ]


def summary(report: Report) -> list[dict[str, Any]]:
    """Return the medians of all rounds and the ratios, one entry a case and pair."""
    rows = []
    for case in report.plan.cases:
        for name in report.versions:
            own = [one for one in report.results if (one.case, one.pair) == (case, name)]
            if own:
                rows.append({"case": case, "pair": name, **_row(report, case, name, own)})
    return rows


def _row(report: Report, case: Case, name: str, own: list[Result]) -> dict[str, float | None]:
    def median(value: Callable[[Result], float | None]) -> float | None:
        values = [found for one in own if (found := value(one)) is not None]
        return statistics.median(values) if values else None

    found = ratios(report.results, case, name) if name != SUBJECT else []
    return {
        "rate": median(lambda one: one.rate),
        "p50_us": median(lambda one: one.measured.p50_us),
        "p99_us": median(lambda one: one.measured.p99_us),
        "max_us": max(one.measured.max_us for one in own),
        "master_cpu_us": median(lambda one: one.master_cpu_us),
        "replicant_cpu_us": median(lambda one: one.replicant_cpu_us),
        "load_cpu_us": median(lambda one: one.load_cpu_us),
        "idle_kib": median(lambda one: one.idle_kib),
        "ratio": statistics.median(found) if found else None,
        "ratio_min": min(found, default=None),
        "ratio_max": max(found, default=None),
    }


HEADS = {
    "pair": "",
    "rate": "op/s",
    "p50_us": "p50 us",
    "p99_us": "p99 us",
    "max_us": "max us",
    "master_cpu_us": "cpu us/op: master",
    "replicant_cpu_us": "replicant",
    "load_cpu_us": "load",
    "idle_kib": "KiB/idle",
    "ratio": "x",
    "ratio_min": "x min",
    "ratio_max": "x max",
}


def print_report(console: Console, report: Report) -> None:
    """Print a table a case, and what went wrong."""
    plan = report.plan
    told = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    console.print(
        f"{told}; {plan.keys:,} keys with {VALUE_BYTES} bytes each, a cache of"
        f" {plan.cache_mib} MiB; medians of {plan.rounds} rounds of {plan.seconds:g} s",
        highlight=False,
    )
    for name, why in report.skipped.items():
        console.print(f"skipped: {name} ({why})", style="yellow", highlight=False)
    rows = summary(report)
    for case in plan.cases:
        console.print(_table(case.title, [row for row in rows if row["case"] == case]))
    console.print(
        "x: how many times as fast ttserver is, median of the rounds; cpu: CPU time an operation",
        highlight=False,
    )
    for failure in report.failures():
        console.print(f"FAILED: {failure}", style="red", highlight=False)


def _table(title: str, rows: list[dict[str, Any]]) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for field, head in HEADS.items():
        table.add_column(head, justify="left" if field == "pair" else "right", no_wrap=True)
    for row in rows:
        table.add_row(row["pair"], *(_cell(row, field) for field in list(HEADS)[1:]))
    return table


def _cell(row: dict[str, Any], field: str) -> str:
    value = row[field]
    if value is None:
        return DASH
    return f"{value:.2f}" if field.startswith("ratio") else f"{value:,.0f}"


def write_json(path: Path, report: Report) -> None:
    """Write everything, the single runs included."""
    whole = {**msgspec.to_builtins(report), "summary": summary(report)}
    whole["failures"] = report.failures()
    path.write_bytes(msgspec.json.format(msgspec.json.encode(whole), indent=2) + b"\n")


__all__ = ["NAMES", "Case", "Plan", "Report", "make_cases", "print_report", "run", "write_json"]
