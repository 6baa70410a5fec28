"""`python -m bench`: the benchmarks by name."""

from __future__ import annotations

import importlib.util
import itertools
import tempfile
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from bench import catalog, clients, failover, log_shipping, machine
from bench.cases import Case
from bench.child import ChildFailedError
from bench.engines import NAMES
from bench.log_shipping import Plan
from bench.pairs import NAMES as PAIR_NAMES
from bench.pairs.base import WORKS, PairError, Work
from bench.report import print_machine, print_report, write_json, write_plot
from ttserver.demo.site import SiteError

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Benchmarks; see docs/BENCHMARKS.md."
)
REPORT_COLUMNS = 144  # in a file or a pipe
SMOKE_ENGINES = ("ttserver", "ttserver-single", "repmgr-nodelay", "local", "apply")


@app.command("log-shipping")
def log_shipping_command(
    engines: Annotated[str, typer.Option(help="names, separated by commas")] = ",".join(NAMES),
    acks: Annotated[str, typer.Option(help="none, one or both: none,one")] = "one",
    durability: Annotated[
        str, typer.Option(help="sync, write_nosync, nosync, on both sides; several by commas")
    ] = "sync",
    threads: Annotated[str, typer.Option(help="numbers of writers")] = "1,8",
    value_size: Annotated[str, typer.Option(help="bytes of a value; several by commas")] = "200",
    batch: Annotated[
        str, typer.Option(help="most writes of one group commit; several by commas")
    ] = "1024",
    bulk: Annotated[bool, typer.Option(help="the library sends records in bulk")] = False,
    rounds: Annotated[int, typer.Option(min=1, help="how often each engine runs")] = 5,
    seconds: Annotated[float, typer.Option(min=0.05, help="longest time of one run")] = 2.0,
    count: Annotated[int, typer.Option(min=0, help="most writes of one run; 0: by time")] = 0,
    pause: Annotated[
        bool, typer.Option(help="one more run with the replicant frozen for 0.5 s")
    ] = True,
    directory: Annotated[
        Path | None, typer.Option("--dir", help="where the environments go", file_okay=False)
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="write all results")] = None,
    plot: Annotated[Path | None, typer.Option(help="draw the rates (PNG)")] = None,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="a small size: checks order and loss, not speed")
    ] = False,
) -> None:
    """Time transactions on a master until the last is applied on its replicant."""
    chosen = SMOKE_ENGINES if smoke else _words(engines, NAMES, "--engines")
    if plot is not None and importlib.util.find_spec("matplotlib") is None:
        raise typer.BadParameter("matplotlib is not installed: pip install 'ttserver[bench]'")
    cases = [
        {
            "acks": case[0],
            "durability": case[1],
            "value_size": case[2],
            "batch_max": case[3],
            "bulk": bulk,
        }
        for case in itertools.product(
            acks.split(","),
            durability.split(","),
            _numbers(value_size, "--value-size"),
            _numbers(batch, "--batch"),
        )
    ]
    console = Console(width=None if Console().is_terminal else REPORT_COLUMNS)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=directory) as place:
        try:
            plan = Plan(
                engines=chosen,
                cases=msgspec.convert(cases, tuple[Case, ...]),
                threads=(1, 4) if smoke else _numbers(threads, "--threads"),
                rounds=1 if smoke else rounds,
                seconds=30.0 if smoke else seconds,
                count=400 if smoke else count,
                pause=pause,
                directory=place,
            )
        except msgspec.ValidationError as error:
            raise typer.BadParameter(str(error)) from error
        try:
            with console.status("measuring the disk") as status:
                about = machine.describe(Path(place))
                report = log_shipping.run(plan, about, status.update)
        except ChildFailedError as error:
            console.print(f"failed: {error}", style="red", markup=False)
            raise typer.Exit(1) from error
    print_report(console, report)
    if json_file is not None:
        write_json(json_file, report)
    if plot is not None:
        write_plot(plot, report)
    if report.failures():
        raise typer.Exit(1)


@app.command("failover")
def failover_command(
    modes: Annotated[str, typer.Option(help="kill, freeze, switchover")] = ",".join(failover.MODES),
    rounds: Annotated[int, typer.Option(min=1, help="how often each")] = 20,
    calm: Annotated[
        float, typer.Option(min=0, help="seconds of full load that must see no election")
    ] = 60.0,
    directory: Annotated[
        Path | None, typer.Option("--dir", help="where the sites go", file_okay=False)
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="write all results")] = None,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="one round each: checks loss, not speed")
    ] = False,
) -> None:
    """Time how long no write is answered OK when the master of three sites is lost."""
    chosen = _words(modes, failover.MODES, "--modes")
    console = Console(width=None if Console().is_terminal else REPORT_COLUMNS)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=directory) as place:
        plan = failover.Plan(
            modes=msgspec.convert(chosen, tuple[failover.Mode, ...]),
            rounds=1 if smoke else rounds,
            calm_s=2.0 if smoke else calm,
            directory=place,
        )
        try:
            with console.status("measuring the disk") as status:
                report = failover.run(plan, machine.describe(Path(place)), status.update)
        except (TimeoutError, SiteError) as error:
            console.print(f"failed: {error}", style="red", markup=False)
            raise typer.Exit(1) from error
    print_machine(console, report.machine)
    failover.print_report(console, report)
    if json_file is not None:
        failover.write_json(json_file, report)
    if report.failures():
        raise typer.Exit(1)


@app.command("catalog")
def catalog_command(
    sizes: Annotated[
        str, typer.Option(help="numbers of volumes, each with ten records of history")
    ] = "1000,100000",
    operations: Annotated[int, typer.Option(min=10, help="how often each is timed")] = 1000,
    cache: Annotated[int, typer.Option(min=8, help="of the database, MiB")] = 256,
    directory: Annotated[
        Path | None, typer.Option("--dir", help="where the vaults go", file_okay=False)
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="write all results")] = None,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="a small size: checks answers, not speed")
    ] = False,
) -> None:
    """Time the tape catalog: volumes looked at, moved, listed, and their history."""
    console = Console(width=None if Console().is_terminal else REPORT_COLUMNS)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=directory) as place:
        plan = catalog.Plan(
            sizes=(300,) if smoke else _numbers(sizes, "--sizes"),
            operations=20 if smoke else operations,
            cache_mib=cache,
            directory=place,
        )
        try:
            with console.status("measuring the disk") as status:
                report = catalog.run(plan, machine.describe(Path(place)), status.update)
        except (SiteError, OSError) as error:
            console.print(f"failed: {error}", style="red", markup=False)
            raise typer.Exit(1) from error
    print_machine(console, report.machine)
    catalog.print_report(console, report)
    if json_file is not None:
        catalog.write_json(json_file, report)
    if report.failures():
        raise typer.Exit(1)


@app.command("clients")
def clients_command(
    pairs: Annotated[str, typer.Option(help="names, separated by commas")] = ",".join(PAIR_NAMES),
    work: Annotated[str, typer.Option(help="what is done, by commas")] = ",".join(WORKS),
    connections: Annotated[
        str, typer.Option(help="how many at work; several by commas")
    ] = "1,8,50",
    busy: Annotated[int, typer.Option(min=1, help="connections at work in the crowd")] = 200,
    idle: Annotated[
        int, typer.Option(min=0, help="idle connections beside them; 0: no crowd")
    ] = 1000,
    keys: Annotated[int, typer.Option(min=200, help="how many there are")] = 100_000,
    cache: Annotated[int, typer.Option(min=8, help="of each database, MiB")] = 256,
    rounds: Annotated[int, typer.Option(min=1, help="how often each pair runs")] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="that count, of one run")] = 2.0,
    warmup: Annotated[float, typer.Option(min=0.0, help="seconds before them")] = 0.5,
    directory: Annotated[
        Path | None, typer.Option("--dir", help="where the files go", file_okay=False)
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="write all results")] = None,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="a small size: checks answers, not speed")
    ] = False,
) -> None:
    """Time the client port beside Redis and PostgreSQL, where these are installed."""
    works = msgspec.convert(_words(work, WORKS, "--work"), tuple[Work, ...])
    numbers = (1, 4) if smoke else _numbers(connections, "--connections")
    console = Console(width=None if Console().is_terminal else REPORT_COLUMNS)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=directory) as place:
        Path(place).chmod(0o711)  # PostgreSQL's user has to come by
        plan = clients.Plan(
            pairs=_words(pairs, PAIR_NAMES, "--pairs"),
            cases=clients.make_cases(works, numbers, *((8, 20) if smoke else (busy, idle))),
            rounds=1 if smoke else rounds,
            seconds=0.4 if smoke else seconds,
            warmup_s=0.1 if smoke else warmup,
            keys=1000 if smoke else keys,
            cache_mib=cache,
            directory=place,
        )
        try:
            with console.status("measuring the disk") as status:
                report = clients.run(plan, machine.describe(Path(place)), status.update)
        except (PairError, SiteError, OSError) as error:
            console.print(f"failed: {error}", style="red", markup=False)
            raise typer.Exit(1) from error
    print_machine(console, report.machine)
    clients.print_report(console, report)
    if json_file is not None:
        clients.write_json(json_file, report)
    if report.failures():
        raise typer.Exit(1)


def _words(text: str, known: tuple[str, ...], option: str) -> tuple[str, ...]:
    words = tuple(dict.fromkeys(text.split(",")))
    if unknown := [word for word in words if word not in known]:
        names = ", ".join(known)
        raise typer.BadParameter(f"{unknown[0]!r} is none of {names}", param_hint=option)
    return words


def _numbers(text: str, option: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(word) for word in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error
    if min(numbers) < 1:
        raise typer.BadParameter("numbers above 0, please", param_hint=option)
    return numbers


if __name__ == "__main__":
    app()
