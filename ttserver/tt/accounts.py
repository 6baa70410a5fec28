"""`tt whoami`, `tt passwd`, `tt user ...`, `tt group ...`: who may log on, and do what."""

from __future__ import annotations

import sys
from typing import Annotated, Final

import typer

from ttserver.errors import ConfigurationError
from ttserver.tt.frame import (
    CsvOption,
    JsonOption,
    ServerOption,
    field,
    options,
    print_facts,
    print_json,
    session_of,
    show,
)

Name = Annotated[str, typer.Argument(metavar="NAME")]
Grant = Annotated[
    list[str] | None,
    typer.Option("--grant", help="RIGHT:FILTER of customers, as READ:* or WRITE:US*."),
]
Role = Annotated[str | None, typer.Option("--role", help="What its users do, in words.")]
Stdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read passwords as lines of standard input.")
]

USERS: Final = (
    field("user", "name", "bold"),
    field("role", "role"),
    field("group", "group"),
    field("created", "created"),
    field("disabled", "disabled"),
    field("revoked", "revoked"),
)
GROUPS: Final = (
    field("group", "name", "bold"),
    field("role", "role"),
    field("grants", "grants"),
)


def register(app: typer.Typer) -> None:
    """Add these verbs to the program."""
    app.command("whoami")(_whoami)
    app.command("passwd")(_passwd)
    users = typer.Typer(name="user", help="Who may log on.")
    users.command("add")(_user_add)
    users.command("set")(_user_set)
    users.command("passwd")(_user_passwd)
    users.command("list")(_user_list)
    users.command("del")(_user_del)
    app.add_typer(users)
    groups = typer.Typer(name="group", help="What users may do.")
    groups.command("add")(_group_add)
    groups.command("set")(_group_set)
    groups.command("list")(_group_list)
    groups.command("del")(_group_del)
    app.add_typer(groups)


def _password(question: str, *, from_stdin: bool, twice: bool) -> str:
    """Take a password; never from the arguments, which others can see."""
    if from_stdin:
        found = sys.stdin.readline().rstrip("\r\n")
    elif sys.stdin.isatty():
        found = typer.prompt(question, hide_input=True, confirmation_prompt=twice, err=True)
    else:
        raise ConfigurationError(
            "password is missing: standard input is no terminal to ask at",
            code="NOPASSWORD",
            hint="give --password-stdin and the password as one line of standard input",
        )
    if not found:
        raise ConfigurationError("password is empty", code="NOPASSWORD", hint="choose a longer one")
    return found


def _whoami(ctx: typer.Context, as_json: JsonOption = False, server: ServerOption = None) -> None:
    """Show who you are to the server, and what you may do."""
    with session_of(ctx, server) as session:
        answer = session.read("WHOAMI")
    if as_json:
        print_json(answer)
    else:
        print_facts(answer)


def _passwd(ctx: typer.Context, password_stdin: Stdin = False, server: ServerOption = None) -> None:
    """Change your own password; with --password-stdin the old one and the new one, a line each."""
    with session_of(ctx, server) as session:
        user = session.write("WHOAMI")["name"]
        old = _password(f"Old password of {user}", from_stdin=password_stdin, twice=False)
        new = _password(f"New password of {user}", from_stdin=password_stdin, twice=True)
        session.write("PASSWD", old, new)
    print(f"password of {user} changed")


def _user_add(
    ctx: typer.Context,
    name: Name,
    group: Annotated[str, typer.Option("--group", "-g", help="The group to be in.")],
    password_stdin: Stdin = False,
    server: ServerOption = None,
) -> None:
    """Add a user."""
    with session_of(ctx, server) as session:
        password = _password(f"Password for {name}", from_stdin=password_stdin, twice=True)
        session.write("USER.ADD", name, password, "GROUP", group)
    print(f"user {name} added to group {group}")


def _user_set(
    ctx: typer.Context,
    name: Name,
    group: Annotated[str | None, typer.Option("--group", "-g", help="The group to be in.")] = None,
    disabled: Annotated[
        bool | None, typer.Option("--disable/--enable", help="Close or open the account.")
    ] = None,
    unrevoke: Annotated[
        bool, typer.Option("--unrevoke", help="Take a revocation for wrong passwords back.")
    ] = False,
    server: ServerOption = None,
) -> None:
    """Change a user."""
    given = options(group=group, disabled=disabled, revoked=False if unrevoke else None)
    with session_of(ctx, server) as session:
        print_facts(session.write("USER.SET", name, *given))


def _user_passwd(
    ctx: typer.Context, name: Name, password_stdin: Stdin = False, server: ServerOption = None
) -> None:
    """Give another user a new password."""
    with session_of(ctx, server) as session:
        password = _password(f"Password for {name}", from_stdin=password_stdin, twice=True)
        session.write("USER.PASSWD", name, password)
    print(f"password of {name} changed")


def _user_list(
    ctx: typer.Context,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    server: ServerOption = None,
) -> None:
    """List the users."""
    with session_of(ctx, server) as session:
        show(session.read("USER.LIST"), USERS, as_json=as_json, as_csv=as_csv)


def _user_del(ctx: typer.Context, name: Name, server: ServerOption = None) -> None:
    """Delete a user."""
    with session_of(ctx, server) as session:
        session.write("USER.DEL", name)
    print(f"user {name} deleted")


def _group(ctx: typer.Context, server: str | None, verb: str, name: str, **given: object) -> None:
    with session_of(ctx, server) as session:
        print_facts(session.write(f"GROUP.{verb}", name, *options(**given)))


def _group_add(
    ctx: typer.Context,
    name: Name,
    grant: Grant = None,
    role: Role = None,
    server: ServerOption = None,
) -> None:
    """Add a group."""
    _group(ctx, server, "ADD", name, role=role, grants=None if grant is None else " ".join(grant))


def _group_set(
    ctx: typer.Context,
    name: Name,
    grant: Grant = None,
    role: Role = None,
    server: ServerOption = None,
) -> None:
    """Change a group; --grant replaces all it granted before."""
    _group(ctx, server, "SET", name, role=role, grants=None if grant is None else " ".join(grant))


def _group_list(
    ctx: typer.Context,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    server: ServerOption = None,
) -> None:
    """List the groups."""
    with session_of(ctx, server) as session:
        show(session.read("GROUP.LIST"), GROUPS, as_json=as_json, as_csv=as_csv)


def _group_del(ctx: typer.Context, name: Name, server: ServerOption = None) -> None:
    """Delete a group that nobody is in."""
    with session_of(ctx, server) as session:
        session.write("GROUP.DEL", name)
    print(f"group {name} deleted")
