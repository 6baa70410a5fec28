"""`catalog`: how quick the tape catalog is, at a thousand volumes and at a million.

A vault is written in bulk (`bench.vault`) and asked through a daemon's client port as clients do;
then the same work is done in this process, where a commit's own time is told apart.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from bench.catalog_work import ClientSide, Timing, WorkSide
from bench.vault import HISTORY_EACH
from bench.vault_site import vault_site

SWITCH_INTERVAL_S: Final = 0.0005  # the daemon's: a thread here must not hold up another's clock
Progress = Callable[[str], None]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to run.

    Args:
        sizes: numbers of volumes; each volume has ten records of history.
        operations: how often each is timed.
        cache_mib: of the database, MiB.
        directory: where the vaults go.
    """

    sizes: tuple[int, ...]
    operations: int
    cache_mib: int
    directory: str


class Result(msgspec.Struct, kw_only=True):
    """What came of one size.

    Args:
        history: records of it.
        data_mib: of all databases, MiB.
        filled_s: how long writing them took, seconds.
        client: by operation, through the client port.
        work: by operation, what the daemon did for it; commits by themselves.
        rows: by list, how many volumes a page had, on average.
        memory_mib: the daemon's resident memory after all this, and
        own_mib: what of it is neither the cache nor another of the library's regions, MiB.
        wrong: what was not as it has to be.
    """

    volumes: int
    history: int
    data_mib: float
    filled_s: float
    client: dict[str, Timing]
    work: dict[str, Timing]
    rows: dict[str, float]
    memory_mib: float
    own_mib: float
    wrong: list[str]


class Report(msgspec.Struct, kw_only=True):
    """All sizes of a plan."""

    plan: Plan
    machine: dict[str, Any]
    results: list[Result]

    def failures(self) -> list[str]:
        """Name what must not happen; speed is no part of it."""
        return [f"{one.volumes:,} volumes: {why}" for one in self.results for why in one.wrong]


def run(plan: Plan, machine: dict[str, Any], progress: Progress) -> Report:
    """Run a plan.

    Raises:
        SiteError: the daemon did not do what it was told.
        OSError: the connection broke.
    """
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        results = [_one(plan, size, progress) for size in plan.sizes]
    finally:
        sys.setswitchinterval(before_s)
    return Report(plan=plan, machine=machine, results=results)


def _one(plan: Plan, size: int, progress: Progress) -> Result:
    today = datetime.now(UTC).date()
    title = f"{size:,} volumes"

    def filled(done: int) -> None:
        progress(f"{title}: {done:,} written")

    with vault_site(Path(plan.directory) / f"vault-{size}", plan.cache_mib) as site:
        took_s = site.fill(size, today, filled)
        data_mib = site.data_mib()
        site.start()
        progress(f"{title}: through the client port")
        client = ClientSide(site.connect, size, plan.operations)
        client.run()
        memory_mib, own_mib = site.memory_mib()
        site.stop()
        progress(f"{title}: the work by itself")
        with site.environment() as (environment, files):
            work = WorkSide(environment, files, size, today, plan.operations)
            work.run()
    return Result(
        volumes=size,
        history=size * HISTORY_EACH,
        data_mib=round(data_mib, 1),
        filled_s=round(took_s, 1),
        client=client.clock.timings(),
        work=work.clock.timings(),
        rows=client.rows,
        memory_mib=round(memory_mib, 1),
        own_mib=round(own_mib, 1),
        wrong=client.wrong,
    )


def print_report(console: Console, report: Report) -> None:
    """Print a table a size, and what went wrong."""
    for result in report.results:
        console.print(_table(result))
        console.print(
            f"{result.data_mib:,.0f} MiB of data, written in {result.filled_s:,.0f} s; memory"
            f" {result.memory_mib:,.0f} MiB with a cache of {report.plan.cache_mib} MiB, of it"
            f" {result.own_mib:,.0f} MiB the process's own",
            highlight=False,
        )
    console.print(
        "client: from the command to its reply; work: the same by itself, without the socket and"
        " without the commit, which has a line of its own; cpu: its own CPU time",
        highlight=False,
    )
    for failure in report.failures():
        console.print(f"FAILED: {failure}", style="red", highlight=False)


def _table(result: Result) -> Table:
    table = Table(
        title=f"{result.volumes:,} volumes, {result.history:,} records of history",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("operation", no_wrap=True)
    for head in (
        "rows",
        "client p50 ms",
        "p99 ms",
        "max ms",
        "work p50 ms",
        "p99 ms",
        "cpu p99 ms",
    ):
        table.add_column(head, justify="right")
    for name in {**result.client, **result.work}:
        rows = result.rows.get(name.removeprefix("page: "))
        client, work = result.client.get(name), result.work.get(name)
        table.add_row(
            name,
            f"{rows:.0f}" if rows is not None else "",
            *(_ms(client, which) for which in ("p50_us", "p99_us", "max_us")),
            *(_ms(work, which) for which in ("p50_us", "p99_us", "cpu_p99_us")),
        )
    return table


def _ms(timing: Timing | None, which: str) -> str:
    return "" if timing is None else f"{getattr(timing, which) / 1000:,.2f}"


def write_json(path: Path, report: Report) -> None:
    """Write everything for programs."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
