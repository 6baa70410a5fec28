"""`ttserver promote`: make this site master by force, after saying what that costs."""

from typing import Annotated, Any

import typer
from rich.text import Text

from ttserver.cli.frame import (
    EXIT_FAILED,
    HomeOption,
    JsonOption,
    YesOption,
    confirmed,
    daemon_of,
    home_of,
    print_json,
)
from ttserver.home import Home
from ttserver.render import console
from ttserver.summary import one_line

_MEANT_FOR = """\
promote makes this site master by force. It is meant for a master that is dead for good; while it
lives, `ttserver switchover` there loses nothing."""
_STOP_IT = """\
If the old master still runs and is only cut off, there are two masters until the sites meet; then
what one of them took meanwhile is undone. First see that it is stopped, or pull its plug."""


def register(app: typer.Typer) -> None:
    """Add this command to the program."""
    app.command("promote")(_promote)


def _promote(
    ctx: typer.Context,
    home: HomeOption = None,
    yes: YesOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be lost; change nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Make this site master by force, when the old master is dead for good.

    First every other site is asked what it holds, and what can be lost is said.
    """
    site = home_of(ctx, home)
    err = console(stderr=True)
    with daemon_of(site) as daemon:
        status = daemon.ask("status")
        if status["role"] == "master":
            console().print("this site is the master already; nothing was changed")
            return 0
        plan = daemon.ask("promote-plan")
        if as_json and dry_run:
            print_json(plan)
        else:
            _tell(plan)
        if dry_run:
            return 0
        if not confirmed("Make this site master?", yes=yes):
            err.print("nothing was changed")
            return EXIT_FAILED
    return _take_over(site, plan, over_native=False, as_json=as_json)


def depose(home: Home, *, yes: bool, as_json: bool) -> int:
    """Make this site master in place of a native one that lives, after saying what that costs."""
    with daemon_of(home) as daemon:
        plan = daemon.ask("promote-plan", over_native=True)
    _tell_losses(plan)
    if not confirmed("Make this site master all the same?", yes=yes):
        console(stderr=True).print("nothing was changed")
        return EXIT_FAILED
    return _take_over(home, plan, over_native=True, as_json=as_json)


def _take_over(home: Home, plan: dict[str, Any], *, over_native: bool, as_json: bool) -> int:
    err = console(stderr=True)
    # Whoever was asked may have thought for minutes, and the daemon closes silent connections.
    with daemon_of(home) as daemon:
        answer = daemon.ask(
            "promote",
            on_line=lambda line: err.print(Text(str(line["progress"]))),
            over_native=over_native,
        )
    if as_json:
        print_json({**plan, "status": answer})
    else:
        console().print(Text(one_line(answer)))
    return 0


def _tell(plan: dict[str, Any]) -> None:
    err = console(stderr=True)
    err.print(Text(_MEANT_FOR), soft_wrap=True)
    _tell_losses(plan)
    err.print(Text(_STOP_IT), soft_wrap=True)


def _tell_losses(plan: dict[str, Any]) -> None:
    err = console(stderr=True)

    def show(text: str, style: str = "") -> None:
        err.print(Text(text, style=style), soft_wrap=True)

    for fact in plan["facts"]:
        show(f"  {fact}")
    if plan["losses"]:
        show("What can be lost:", "bold red")
        for loss in plan["losses"]:
            show(f"  - {loss}", "red")
    else:
        show("Nothing is known that would be lost.")
