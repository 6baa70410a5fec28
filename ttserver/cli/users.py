"""`ttserver user add|passwd|list|remove`: who may log on at port 5000."""

from datetime import datetime
from typing import Annotated, Any, Literal

import typer
from rich.table import Table
from rich.text import Text

from ttserver.cli.frame import (
    EXIT_FAILED,
    HomeOption,
    JsonOption,
    PasswordStdinOption,
    YesOption,
    confirmed,
    daemon_of,
    home_of,
    print_json,
    read_password,
)
from ttserver.render import console

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The user ID.")]


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    group = typer.Typer(
        name="user",
        help="Who may log on: add, passwd, list, remove. Changes are made on the master.",
        no_args_is_help=False,
    )
    group.command("add")(_add)
    group.command("passwd")(_passwd)
    group.command("list")(_list)
    group.command("remove")(_remove)
    app.add_typer(group)


def _add(
    ctx: typer.Context,
    name: NameArgument,
    role: Annotated[
        Literal["administrator", "user"], typer.Option("--role", help="What the user may do.")
    ] = "user",
    group: Annotated[
        str,
        typer.Option("--group", help="The group it is in; in none it has plain keys alone."),
    ] = "",
    password_stdin: PasswordStdinOption = False,
    home: HomeOption = None,
) -> None:
    """Add a user; asks for the password, or reads one line with --password-stdin."""
    with daemon_of(home_of(ctx, home)) as daemon:
        # Before anything is typed: a replicant refuses, and names the master.
        daemon.ask("user-check", name=name, new=True)
    password = read_password(from_stdin=password_stdin, name=name)
    with daemon_of(home_of(ctx, home)) as daemon:
        answer = daemon.ask("user-add", name=name, password=password, role=role, group=group)
    _tell(f"user {name} added ({role})", answer)


def _passwd(
    ctx: typer.Context,
    name: NameArgument,
    password_stdin: PasswordStdinOption = False,
    home: HomeOption = None,
) -> None:
    """Give a user a new password."""
    with daemon_of(home_of(ctx, home)) as daemon:
        daemon.ask("user-check", name=name, new=False)
    password = read_password(from_stdin=password_stdin, name=name)
    with daemon_of(home_of(ctx, home)) as daemon:
        answer = daemon.ask("user-passwd", name=name, password=password)
    _tell(f"password of {name} changed", answer)


def _list(ctx: typer.Context, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the users."""
    with daemon_of(home_of(ctx, home)) as daemon:
        users: list[dict[str, Any]] = daemon.ask("user-list")
    if as_json:
        print_json(users)
        return
    table = Table(box=None, padding=(0, 0, 0, 2), header_style="dim")
    for column in ("user", "role", "group", "created", "state"):
        table.add_column(column, no_wrap=True)
    for user in users:
        table.add_row(
            Text(user["name"], style="bold"),
            Text(user["role"]),
            Text(user["group"] or "-"),
            Text(f"{datetime.fromisoformat(user['created']).astimezone():%Y-%m-%d %H:%M}"),
            _state(user),
        )
    console().print(table if users else Text("  no users: nobody can log on", style="yellow"))


def _state(user: dict[str, Any]) -> Text:
    if user["disabled"]:
        return Text("disabled", style="yellow")
    if user["revoked"]:
        return Text("revoked after wrong passwords", style="yellow")
    return Text("may log on", style="green")


def _remove(
    ctx: typer.Context, name: NameArgument, yes: YesOption = False, home: HomeOption = None
) -> int:
    """Remove a user."""
    with daemon_of(home_of(ctx, home)) as daemon:
        daemon.ask("user-check", name=name, new=False)
    if not confirmed(f"Remove user {name}?", yes=yes):
        console().print("nothing was changed")
        return EXIT_FAILED
    with daemon_of(home_of(ctx, home)) as daemon:
        answer = daemon.ask("user-remove", name=name)
    _tell(f"user {name} removed", answer)
    return 0


def _tell(done: str, answer: dict[str, Any]) -> None:
    console().print(Text(done))
    if answer["warning"]:
        console(stderr=True).print(
            Text(f"WARNING: stored on this site only so far: {answer['warning']}", style="yellow"),
            soft_wrap=True,
        )
