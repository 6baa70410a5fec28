"""What people and programs see of a benchmark: tables, a JSON file, a picture."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from bench.cases import Result
from bench.engines import CEILING, PAIRS
from bench.log_shipping import Report, median_of, ratios

SUBJECT = "ttserver"
DASH = "-"


def print_machine(console: Console, machine: dict[str, Any]) -> None:
    """Print where and with what a benchmark ran."""
    console.print(
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB,"
        f" load {machine['load_average']:.2f}; {machine['system']}; Python {machine['python']},"
        f" libdb {machine['libdb']}, berkeleydb {machine['berkeleydb']}; commit"
        f" {machine['commit']}, {machine['when']}",
        highlight=False,
    )
    console.print(
        f"{machine['directory']}: {machine['file_system']}, fdatasync p50"
        f" {machine['flush_p50_us']:.0f} us, p99 {machine['flush_p99_us']:.0f} us",
        highlight=False,
    )


def print_report(console: Console, report: Report) -> None:
    """Print the machine, a table a case and number of writers, and what went wrong."""
    print_machine(console, report.machine)
    for engine, why in report.skipped.items():
        console.print(f"skipped: {engine} ({why})", style="yellow", highlight=False)
    for case, results in zip(report.plan.cases, report.results, strict=True):
        for threads in report.plan.threads:
            title = f"{case.title}; {threads} writer{'s' if threads > 1 else ''}"
            console.print(_table(title, results, threads, report.plan.engines))
        _print_paused(console, results)
    console.print(
        "master/s: writes a second as their writers see them; applied/s: until the last of them is"
        " applied on the replicant; x: how many times as fast ttserver is, median of the rounds",
        highlight=False,
    )
    failures = report.failures()
    for failure in failures:
        console.print(f"FAILED: {failure}", style="red", highlight=False)
    if not failures:
        console.print("order and loss: every write is on the replicant, in order")


def summary(report: Report) -> list[dict[str, Any]]:
    """Return the medians and the ratios, one entry a case, number of writers and engine."""
    return [
        {"case": case, "threads": threads, "engine": engine, **_row(results, threads, engine)}
        for case, results in zip(report.plan.cases, report.results, strict=True)
        for threads in report.plan.threads
        for engine in report.plan.engines
        if _of(results, threads, engine)
    ]


def write_json(path: Path, report: Report) -> None:
    """Write everything, the single runs included."""
    whole = {**msgspec.to_builtins(report), "summary": summary(report)}
    whole["failures"] = report.failures()
    path.write_bytes(msgspec.json.format(msgspec.json.encode(whole)) + b"\n")


def write_plot(path: Path, report: Report) -> None:
    """Draw the rates end to end: a bar for each median, a dot for each run.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    panels = [
        (case, results, threads)
        for case, results in zip(report.plan.cases, report.results, strict=True)
        for threads in report.plan.threads
    ]
    height = 0.7 + 0.35 * len(report.plan.engines)
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(9, height * len(panels) + 0.6), squeeze=False
    )
    for (case, results, threads), axis in zip(panels, axes[:, 0], strict=True):
        engines = [name for name in report.plan.engines if _of(results, threads, name)]
        for at, engine in enumerate(engines):
            rates = [r.end_to_end_rate or 0.0 for r in _of(results, threads, engine)]
            axis.barh(at, statistics.median(rates), color="C0" if engine == SUBJECT else "C7")
            axis.plot(rates, [at] * len(rates), "k.", markersize=3)
        axis.set_yticks(range(len(engines)), engines)
        axis.invert_yaxis()
        axis.set_title(f"{case.title}; writers: {threads}", fontsize=9, loc="left")
    axes[-1, 0].set_xlabel("transactions a second, until the last is applied on the replicant")
    machine = report.machine
    figure.suptitle(
        f"{machine['cpu']}, {machine['cores']} cores; {machine['file_system']}, fdatasync p50"
        f" {machine['flush_p50_us']:.0f} us; commit {machine['commit']}",
        fontsize=8,
    )
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _of(results: list[Result], threads: int, engine: str) -> list[Result]:
    return [r for r in results if r.engine == engine and r.threads == threads and not r.paused]


def _row(results: list[Result], threads: int, engine: str) -> dict[str, Any]:
    own = _of(results, threads, engine)

    def ratio(rate: Any) -> float | None:
        found = ratios(results, threads, SUBJECT, engine, rate)
        return statistics.median(found) if found and engine != SUBJECT else None

    return {
        "master_rate": median_of(own, lambda r: r.master_rate),
        "end_to_end_rate": median_of(own, lambda r: r.end_to_end_rate),
        "mb_per_s": median_of(
            own, lambda r: r.bytes / r.end_to_end_s / 1e6 if r.end_to_end_s else None
        ),
        # How long after the last reply the replicant had everything.
        "behind_ms": median_of(
            own, lambda r: (r.end_to_end_s - r.master_s) * 1000 if r.end_to_end_s else None
        ),
        "latency_p50_us": median_of(own, lambda r: r.latency_p50_us),
        "latency_p99_us": median_of(own, lambda r: r.latency_p99_us),
        "writes_a_transaction": median_of(own, lambda r: r.writes / r.facts["transactions"]),
        # Of all processes: with as many cores as threads it would matter less than the waiting.
        "cpu_us_a_write": median_of(own, lambda r: r.facts.get("cpu_us_a_write")),
        "dropped": _sum(own, "dropped"),
        "requested": _sum(own, "requested"),
        "perm_failed": _sum(own, "perm_failed"),
        # How many times as fast ttserver is: as the writers see it, and end to end.
        "ratio_master": ratio(lambda r: r.master_rate) if engine != CEILING else None,
        "ratio_end_to_end": ratio(lambda r: r.end_to_end_rate),
    }


def _sum(results: list[Result], field: str) -> int | None:
    counts = [getattr(result, field) for result in results]
    return None if None in counts else sum(counts)


def _table(title: str, results: list[Result], threads: int, engines: tuple[str, ...]) -> Table:
    table = _new_table(
        title,
        *(
            "master/s",
            "applied/s",
            "behind ms",
            "MB/s",
            "p50 us",
            "p99 us",
            "writes/txn",
            "cpu us/write",
        ),
        *("dropped", "asked again", "x master", "x applied"),
    )
    for engine in engines:
        if not _of(results, threads, engine):
            continue
        row = _row(results, threads, engine)
        table.add_row(
            engine,
            _number(row["master_rate"] if engine != CEILING else None),
            _number(row["end_to_end_rate"], none="never"),
            _number(row["behind_ms"] if engine in PAIRS else None, digits=1),
            _number(row["mb_per_s"], digits=2),
            _number(row["latency_p50_us"]),
            _number(row["latency_p99_us"]),
            _number(row["writes_a_transaction"], digits=1),
            _number(row["cpu_us_a_write"]),
            _number(row["dropped"]),
            _number(row["requested"]),
            _times(row["ratio_master"]),
            _times(row["ratio_end_to_end"]),
        )
    return table


def _new_table(title: str, *heads: str) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("engine", no_wrap=True)
    for head in heads:
        table.add_column(head, justify="right")
    return table


def _number(value: float | None, *, digits: int = 0, none: str = DASH) -> str:
    return none if value is None else f"{value:,.{digits}f}"


def _times(value: float | None) -> str:
    return DASH if value is None else f"{value:.2f}"


def _print_paused(console: Console, results: list[Result]) -> None:
    paused = [result for result in results if result.paused]
    if not paused:
        return
    heads = ("writers", "writes", "applied/s", "dropped", "asked again", "not acked", "lost")
    table = _new_table("the replicant frozen for 0.5 s", *heads)
    for result in paused:
        table.add_row(
            result.engine,
            _number(result.threads),
            _number(result.writes),
            _number(result.end_to_end_rate, none="never"),
            _number(result.dropped),
            _number(result.requested),
            _number(result.perm_failed),
            _number(result.lost),
        )
    console.print(table)
