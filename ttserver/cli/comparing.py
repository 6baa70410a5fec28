"""`ttserver compare`: are the databases of all sites identical."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from replication.comparisons import HINT
from ttserver.cli.frame import (
    EXIT_FAILED,
    HomeOption,
    JsonOption,
    daemon_of,
    home_of,
    print_json,
)
from ttserver.compare_operation import PAUSE_MS_MAX
from ttserver.render import console
from ttserver.summary import bytes_text, lsn_text, seconds_text

_LINE_EVERY_S = 5.0


def register(app: typer.Typer) -> None:
    """Add this command to the program."""
    app.command("compare")(_compare)


def _compare(
    ctx: typer.Context,
    home: HomeOption = None,
    as_json: JsonOption = False,
    pause_ms: Annotated[
        int,
        typer.Option(
            "--pause", min=1, max=PAUSE_MS_MAX, help="Longest stop of a site, milliseconds."
        ),
    ] = 20,
    percent: Annotated[
        int, typer.Option("--share", min=1, max=100, help="Percent of the time sites may stop.")
    ] = 10,
) -> int:
    """Prove on the master that the databases of all sites are identical, while writes go on.

    Range by range, every site stops at the same place of the log, for some milliseconds.

    Exit status 0 when some site was compared and none differs, else 1.
    """
    with daemon_of(home_of(ctx, home)) as daemon, _shown(quiet=as_json) as show:
        report = daemon.ask("compare", pause_ms=pause_ms, share=percent / 100, on_line=show)
    if as_json:
        print_json(report)
    else:
        for line in lines_of(report):
            console().print(line)
    return 0 if report["identical"] else EXIT_FAILED


def lines_of(report: dict[str, Any]) -> list[Text]:
    """Say what a comparison found.

    Args:
        report: the members of `compare --json`.
    """
    lines = []
    for site in report["sites"]:
        difference, why = site["difference"], site["why"]
        if difference is not None:
            lines.append(Text(f"{site['site']} DIFFERS: {_difference(difference)}", "bold red"))
        elif site["compared"] and report["lsn"] is not None:
            where = f"{lsn_text(report['lsn'])} at {_time(report['time'])}"
            lines.append(Text(f"{site['site']} is identical up to {where}", "green"))
        else:
            lines.append(Text(f"{site['site']} was not compared: {why or '-'}", "yellow"))
    if not report["sites"]:
        lines.append(Text("there is no other site to compare with", "yellow"))
    if any(site["difference"] is not None for site in report["sites"]):
        lines.append(Text(f"HINT: {HINT}", "dim"))
    for one in report["databases"]:
        amount = f"{one['records']} records, {bytes_text(one['bytes'])}, {one['ranges']} ranges"
        lines.append(Text(f"  {one['database']}: {amount}"))
    lines += [Text(f"  {name} was left out: {why}", "yellow") for name, why in report["left_out"]]
    if report["stops"]:
        late = f", {report['late_stops']} too long" if report["late_stops"] else ""
        lines.append(
            Text(
                f"  {report['stops']} stops{late}, the longest {report['longest_pause_ms']:.1f} ms,"
                f" on average {report['mean_pause_ms']:.1f} ms; {seconds_text(report['seconds'])}",
                "dim",
            )
        )
    return lines


def _difference(found: dict[str, Any]) -> str:
    seen = f" (seen at {lsn_text(found['lsn'])})" if any(found["lsn"]) else ""
    if found["key"] is not None:
        return f"{found['database']}: key {found['key']} {found['what']}{seen}"
    if found["start"] or found["end"] is not None:
        end = "the end" if found["end"] is None else found["end"]
        start = found["start"] or "the beginning"
        return f"{found['database']}: from {start} to {end}: {found['what']}{seen}"
    return f"{found['database']} {found['what']}{seen}"


def _time(text: str) -> str:
    return text.replace("T", " ").replace("+00:00", "Z")


@contextmanager
def _shown(*, quiet: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Show how far it is: a bar on a terminal, a line now and then elsewhere."""
    err = console(stderr=True)
    if quiet:
        yield lambda _line: None
    elif err.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=err, transient=True) as bar:
            task = bar.add_task("comparing", total=None)

            def show(line: dict[str, Any]) -> None:
                now = line["progress"]
                total = max(now["bytes_total"], now["bytes"]) or None
                bar.update(task, description=_text(now), total=total, completed=now["bytes"])

            yield show
    else:
        last_s = time.monotonic()

        def write(line: dict[str, Any]) -> None:
            nonlocal last_s
            if time.monotonic() - last_s >= _LINE_EVERY_S:
                last_s = time.monotonic()
                err.print(_text(line["progress"]), markup=False)

        yield write


def _text(now: dict[str, Any]) -> str:
    if now["database"] is None:
        return "asking the other sites"
    done = f"{now['records']} records, {bytes_text(now['bytes'])}"
    return f"comparing {now['database']}: {done}"
