"""`ttserver archive`: which log files may go, and why others stay. `ttserver sync`: begin now."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from ttserver.cli.frame import HomeOption, JsonOption, daemon_of, home_of, print_json
from ttserver.render import console
from ttserver.summary import bytes_text


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.command("archive")(_archive)
    app.command("sync")(_sync)


def _sync(ctx: typer.Context, as_json: JsonOption = False, home: HomeOption = None) -> None:
    """Begin a sync that waits: one that is delayed, or that was given up."""
    with daemon_of(home_of(ctx, home)) as daemon:
        answer = daemon.ask("sync")
    if as_json:
        print_json(answer)
    else:
        console().print(Text(str(answer["done"])), soft_wrap=True)


def _archive(
    ctx: typer.Context,
    remove: Annotated[bool, typer.Option("--remove", help="Remove those that may go.")] = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Show which log files may go, and for whom each of the others is kept.

    A file may go when neither recovery here nor any member of the group needs it, whether that
    member is connected or not.
    """
    with daemon_of(home_of(ctx, home)) as daemon:
        found = daemon.ask("archive", remove=remove)
    if as_json:
        print_json(found)
        return
    out = console()
    for number in found["removed"]:
        out.print(Text(f"removed {_name(number)}"))
    out.print(_table(found))
    out.print(Text(_sum(found)), soft_wrap=True)
    for why in found["lost"]:
        out.print(Text(f"needs a complete copy: {why}", style="yellow"), soft_wrap=True)


def _table(found: Mapping[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 0, 0, 2), header_style="dim")
    table.add_column("file", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("why", overflow="fold")
    for file in found["files"]:
        may_go = file["may_go"]
        table.add_row(
            Text(_name(file["number"])),
            Text(bytes_text(file["size_bytes"])),
            Text("may go" if may_go else "kept", style="green" if may_go else ""),
            Text("nobody needs it" if may_go else "; ".join(file["why"])),
        )
    return table


def _name(number: int) -> str:
    return f"log.{number:010d}"


def _sum(found: Mapping[str, Any]) -> str:
    budget = found["budget_bytes"]
    limit = f" of a budget of {bytes_text(budget)}" if budget else ""
    text = f"{bytes_text(found['total_bytes'])} of log{limit}"
    if not found["may_go_bytes"]:
        return f"{text}; none of it may go"
    hint = (
        "goes by itself"
        if found["auto_remove"]
        else "remove it with `ttserver archive --remove`, or let it go by itself: "
        "`log_set_config db_log_auto_remove on` in DB_CONFIG"
    )
    return f"{text}; {bytes_text(found['may_go_bytes'])} may go ({hint})"
