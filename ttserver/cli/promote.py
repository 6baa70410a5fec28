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
        # The answer above may have taken minutes, and the daemon closes silent connections.
    with daemon_of(site) as daemon:
        answer = daemon.ask("promote", on_line=lambda line: err.print(Text(str(line["progress"]))))
    if as_json:
        print_json({**plan, "status": answer})
    else:
        console().print(Text(one_line(answer)))
    return 0


def _tell(plan: dict[str, Any]) -> None:
    err = console(stderr=True)

    def show(text: str, style: str = "") -> None:
        err.print(Text(text, style=style), soft_wrap=True)

    show(_MEANT_FOR)
    for fact in plan["facts"]:
        show(f"  {fact}")
    if plan["losses"]:
        show("What can be lost:", "bold red")
        for loss in plan["losses"]:
            show(f"  - {loss}", "red")
    else:
        show("Nothing is known that would be lost.")
    show(_STOP_IT)
