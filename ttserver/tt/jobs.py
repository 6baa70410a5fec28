"""`tt expire`, `tt reconcile`, `tt report library`: work over many volumes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer

from ttserver.client.calls import JOB_TIMEOUT_S
from ttserver.tt.frame import (
    Column,
    CsvOption,
    DryRunOption,
    JsonOption,
    ServerOption,
    field,
    lines_of,
    notice,
    one_format,
    options,
    print_csv,
    print_facts,
    print_json,
    print_table,
    session_of,
)

OUTCOMES: Final = (
    field("volume", "name", "bold"),
    field("verdict", "verdict"),
    field("repository", "repository"),
    field("target", "target"),
    field("why", "why"),
)

BALANCE: Final = (
    *(
        field(name, name)
        for name in ("repository", "volumes", "incoming", "outgoing", "deficit", "surplus")
    ),
    Column("scratch", lambda row: sum(one["volumes"] for one in row["scratch"])),
)


def register(app: typer.Typer) -> None:
    """Add these verbs to the program."""
    app.command("expire")(_expire)
    app.command("reconcile")(_reconcile)
    report = typer.Typer(name="report", help="What an operator wants to know each day.")
    report.command("library")(_library)
    # With a single verb in it Typer would take that one's word away.
    report.callback()(lambda: None)
    app.add_typer(report)


def _report(answer: Mapping[str, Any], *, as_json: bool, as_csv: bool, done: str) -> None:
    one_format(as_json=as_json, as_csv=as_csv)
    if as_json:
        print_json(answer)
        return
    if as_csv:
        print_csv(answer["volumes"], OUTCOMES)
        return
    print_table(answer["volumes"], OUTCOMES)
    counts = ", ".join(f"{count} {verdict}" for verdict, count in answer["counts"].items())
    print(f"{done}: {counts or 'nothing to do'}")
    if answer["dry"]:
        notice("nothing was changed (--dry-run)")


def _expire(
    ctx: typer.Context,
    filter_: Annotated[str, typer.Argument(metavar="[FILTER]", help="Of names.")] = "*",
    on: Annotated[
        str | None, typer.Option("--on", help="The day, instead of today: 2025-12-31, '*+1'.")
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    server: ServerOption = None,
) -> None:
    """Send volumes whose move date has come where their repository sends them; once a day."""
    words = [*options(on=on, match=filter_), *(["DRYRUN"] if dry_run else [])]
    with session_of(ctx, server) as session:
        ask = session.read if dry_run else session.write
        answer = ask("EXPIRE", *words, timeout_s=JOB_TIMEOUT_S)
    _report(answer, as_json=as_json, as_csv=as_csv, done=f"expired on {answer['on']}")


def _reconcile(
    ctx: typer.Context,
    repository: Annotated[
        str, typer.Argument(metavar="REPOSITORY", help="CUSTOMER.MEDIA.REPOSITORY.")
    ],
    file: Annotated[
        str, typer.Argument(metavar="[FILE]", help="The scanned IDs; - is standard input.")
    ] = "-",
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    server: ServerOption = None,
) -> None:
    """Compare a repository with what was scanned there; what is missing is marked."""
    scanned = lines_of(file)
    words = [*(["DRYRUN"] if dry_run else []), "IDS", *scanned]
    with session_of(ctx, server) as session:
        ask = session.read if dry_run else session.write
        answer = ask("RECONCILE", repository, *words, timeout_s=JOB_TIMEOUT_S)
    done = f"{repository} compared with {answer['scanned']} scanned"
    _report(answer, as_json=as_json, as_csv=as_csv, done=done)


def _library(
    ctx: typer.Context,
    repository: Annotated[
        str, typer.Argument(metavar="REPOSITORY", help="CUSTOMER.MEDIA.REPOSITORY.")
    ],
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    server: ServerOption = None,
) -> None:
    """Show what is in a library, what comes and goes, and the blank volumes there are."""
    one_format(as_json=as_json, as_csv=as_csv)
    with session_of(ctx, server) as session:
        answer = session.read("LIBRARY.BALANCE", repository)
    if as_json:
        print_json(answer)
        return
    if as_csv:
        print_csv([answer], BALANCE)
        return
    blank = ", ".join(f"{one['repository']} {one['volumes']}" for one in answer.pop("scratch"))
    print_facts({**answer, "blank volumes in": blank})
