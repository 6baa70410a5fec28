"""`log-shipping`: writes on a master until the last of them is applied on its replicant.

Every round starts every engine afresh in an empty directory, lets it warm up and runs each number
of writers once. The order of the engines turns by one from round to round, so that none always
runs first; what is compared is the median of the ratios within a round.
"""

from __future__ import annotations

import contextlib
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from bench.cases import Case, Load, Result, Role, SiteSpec, Written
from bench.child import REPLY_TIMEOUT_S, MissingError
from bench.engines import ALONE, CEILING, PAIRS
from bench.process import SiteProcess, free_ports

WARM_UP_S = 0.3
APPLIED_TIMEOUT_S = 60.0
PAUSE_S = 0.5
# A paused run is this much longer than its pause, half of it before.
PAUSED_RUN_EXTRA_S = 1.0
KEY_BYTES = 16
MANY_WRITES = 10**8
Progress = Callable[[str], None]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to run.

    Args:
        engines: by name, see `bench.engines`.
        cases: the settings to go through.
        threads: numbers of writers to go through.
        rounds: how often.
        seconds, count: of one run; the first limit that is reached ends it. Without a count
            only the time counts.
        pause: add one run in which the replicant is frozen for half a second.
        directory: where the environments go; one directory a site, removed afterwards.
    """

    engines: tuple[str, ...]
    cases: tuple[Case, ...]
    threads: tuple[int, ...]
    rounds: int
    seconds: float
    count: int
    pause: bool
    directory: str


class Report(msgspec.Struct, kw_only=True):
    """All that came of a plan.

    Args:
        results: by case, in the order of their runs.
        skipped: engines that this machine does not have, and why.
    """

    plan: Plan
    machine: dict[str, Any]
    results: list[list[Result]]
    skipped: dict[str, str]

    def failures(self) -> list[str]:
        """Name what must not happen in any run of ttserver, and losses of anybody."""
        found = []
        for result in (result for of_case in self.results for result in of_case):
            where = f"{result.engine}, round {result.round}, {result.threads} writers"
            where += ", replicant paused" if result.paused else ""
            if result.lost:
                found.append(f"{where}: {result.lost} writes missing or out of order")
            if result.engine.startswith("ttserver"):
                if result.dropped or result.requested:
                    counts = f"{result.dropped} dropped, {result.requested} requested again"
                    found.append(f"{where}: messages {counts}")
                if result.perm_failed:
                    found.append(f"{where}: {result.perm_failed} writes not acknowledged in time")
                if result.end_to_end_s is None and result.engine in PAIRS:
                    found.append(f"{where}: the last write was not applied")
        return found


def run(plan: Plan, machine: dict[str, Any], progress: Progress) -> Report:
    """Run a plan.

    Raises:
        ChildFailedError: a site's process failed.
    """
    report = Report(plan=plan, machine=machine, results=[], skipped={})
    for case in plan.cases:
        results: list[Result] = []
        report.results.append(results)
        for number in range(plan.rounds):
            shapes: dict[int, Written] = {}
            for engine in _turned(plan.engines, number):
                if engine in report.skipped:
                    continue
                progress(f"{case.title}: round {number + 1} of {plan.rounds}, {engine}")
                try:
                    results += _run_engine(plan, case, engine, number, shapes)
                except MissingError as missing:
                    report.skipped[engine] = str(missing)
            if CEILING in plan.engines:
                progress(f"{case.title}: round {number + 1} of {plan.rounds}, {CEILING}")
                results += _run_ceiling(plan, case, number, shapes)
    return report


def _turned(engines: Sequence[str], number: int) -> list[str]:
    others = [engine for engine in engines if engine != CEILING]
    at = number % len(others) if others else 0
    return others[at:] + others[:at]


@contextlib.contextmanager
def _sites(
    plan: Plan, case: Case, engine: str, roles: Sequence[Role]
) -> Iterator[list[SiteProcess]]:
    """Start an engine's processes in directories of their own; end and remove them at last."""
    ports = free_ports(2)
    root = Path(plan.directory) / engine
    try:
        with contextlib.ExitStack() as stack:
            yield [
                stack.enter_context(
                    SiteProcess(
                        SiteSpec(
                            engine=engine,
                            role=role,
                            home=str(root / role),
                            ports=(ports[0], ports[1]),
                            case=case,
                        )
                    )
                )
                for role in roles
            ]
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _run_engine(
    plan: Plan, case: Case, engine: str, number: int, shapes: dict[int, Written]
) -> list[Result]:
    roles: tuple[Role, ...] = ("master",) if engine in ALONE else ("master", "replicant")
    results = []
    with _sites(plan, case, engine, roles) as sites:
        for site in sites:
            site.ask("open")
        warm_up = Load(
            run=0, threads=max(plan.threads), seconds=WARM_UP_S, value_size=case.value_size
        )
        _run_once(sites, warm_up, engine, pause=False)
        runs = [(threads, False) for threads in plan.threads]
        if plan.pause and number == 0 and len(sites) == 2:
            runs += [(threads, True) for threads in plan.threads]
        for at, (threads, paused) in enumerate(runs, start=1):
            load = Load(
                run=at,
                threads=threads,
                seconds=PAUSE_S + PAUSED_RUN_EXTRA_S if paused else plan.seconds,
                count=0 if paused else plan.count,
                value_size=case.value_size,
            )
            written, result = _run_once(sites, load, engine, pause=paused)
            result.round = number
            results.append(result)
            if engine == "ttserver" and not paused:
                shapes[threads] = written
        for site in reversed(sites):
            site.ask("close")
    return results


def _run_once(
    sites: Sequence[SiteProcess], load: Load, engine: str, *, pause: bool
) -> tuple[Written, Result]:
    master, replicant = sites[0], sites[1] if len(sites) > 1 else None
    for site in sites:
        site.ask("prepare")
    before = [site.ask("counters") for site in sites]
    master.tell("load", load=load)
    overtaken = 0
    if pause and replicant is not None:
        time.sleep(PAUSED_RUN_EXTRA_S / 2)
        with replicant.stopped():
            time.sleep(PAUSE_S)
        overtaken = _overtaken(replicant, load)
    written = msgspec.convert(master.answer(load.seconds + REPLY_TIMEOUT_S), Written)
    applied_s: float | None = written.ended_s
    if replicant is not None:
        applied_s = replicant.ask(
            "applied",
            lsn=written.lsn,
            timeout_s=APPLIED_TIMEOUT_S,
            reply_timeout_s=APPLIED_TIMEOUT_S + REPLY_TIMEOUT_S,
        )
    counted = [
        {name: now - then[name] for name, now in site.ask("counters").items()}
        for site, then in zip(sites, before, strict=True)
    ]
    held = sites[-1].ask("check", load=load, by_writer=written.by_writer)
    lost = overtaken + sum(
        (count - there) + strays
        for (there, strays), count in zip(held, written.by_writer, strict=True)
    )
    result = Result(
        engine=engine,
        round=0,
        paused=pause,
        threads=load.threads,
        writes=written.writes,
        bytes=written.writes * (KEY_BYTES + load.value_size),
        master_s=written.ended_s - written.started_s,
        end_to_end_s=None if applied_s is None else applied_s - written.started_s,
        latency_p50_us=written.latency_p50_us,
        latency_p99_us=written.latency_p99_us,
        perm_failed=written.perm_failed,
        lost=lost,
        facts={
            "transactions": len(written.batches) or written.writes,
            "cpu_us_a_write": sum(counts["cpu_us"] for counts in counted) / max(1, written.writes),
        },
    )
    if replicant is not None:
        result.dropped = sum(counts["dropped"] for counts in counted)
        result.requested = sum(counts["requested"] for counts in counted)
        result.facts |= {"master": counted[0], "replicant": counted[1]}
    return written, result


def _overtaken(replicant: SiteProcess, load: Load) -> int:
    """Look at the copy while it is written: how many writes are there before an earlier one."""
    every = [MANY_WRITES] * load.threads
    return sum(strays for _, strays in replicant.ask("check", load=load, by_writer=every))


def _run_ceiling(
    plan: Plan, case: Case, number: int, shapes: dict[int, Written]
) -> Iterator[Result]:
    for threads, written in sorted(shapes.items()):
        load = Load(run=1, threads=threads, seconds=plan.seconds, value_size=case.value_size)
        with _sites(plan, case, CEILING, ("replicant",)) as (site,):
            fed = site.ask("repeat", load=load, order=written.order, batches=written.batches)
            site.ask("close")
        seconds = min(fed["records_s"], fed["bulk_s"])
        yield Result(
            engine=CEILING,
            round=number,
            paused=False,
            threads=threads,
            writes=written.writes,
            bytes=written.writes * (KEY_BYTES + case.value_size),
            master_s=seconds,
            end_to_end_s=seconds,
            lost=fed["lost"],
            facts={**fed, "transactions": len(written.batches)},
        )


def median_of(results: Sequence[Result], rate: Callable[[Result], float | None]) -> float | None:
    """Return the median of a rate over runs, None when one of them has none."""
    rates = [rate(result) for result in results]
    if not rates or any(value is None for value in rates):
        return None
    return statistics.median(value for value in rates if value is not None)


def ratios(
    results: Sequence[Result],
    threads: int,
    one: str,
    other: str,
    rate: Callable[[Result], float | None],
) -> list[float]:
    """Divide one engine's rate by another's, round by round."""
    by_round: dict[tuple[str, int], float | None] = {
        (result.engine, result.round): rate(result)
        for result in results
        if result.threads == threads and not result.paused
    }
    found = []
    for (engine, number), upper in by_round.items():
        lower = by_round.get((other, number))
        if engine == one and upper is not None and lower:
            found.append(upper / lower)
    return found
