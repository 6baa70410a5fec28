"""`ttserver adopt`: join a living group of Berkeley DB's own Replication Manager."""

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
import uvloop
from rich.text import Text

from ttserver.cli.frame import (
    HomeOption,
    JsonOption,
    PasswordStdinOption,
    home_of,
    print_json,
    read_password,
)
from ttserver.home import Home
from ttserver.render import console

if TYPE_CHECKING:
    from ttserver.adopt import Adopted


def register(app: typer.Typer) -> None:
    """Add this command to the program."""
    app.command("adopt")(_adopt)


def _adopt(
    ctx: typer.Context,
    site: Annotated[
        str, typer.Argument(metavar="HOST:PORT", help="A site of that group, as it names itself.")
    ],
    local: Annotated[
        str, typer.Option("--local", metavar="HOST:PORT", help="This site, as the others reach it.")
    ],
    priority: Annotated[
        int, typer.Option("--priority", min=0, max=2**31 - 1, help="0 never becomes master.")
    ] = 0,
    keyspace: Annotated[
        str | None,
        typer.Option(
            "--keyspace",
            metavar="FILE",
            help="The application's btree to serve to clients; else the only one there is.",
            show_default=False,
        ),
    ] = None,
    password_stdin: PasswordStdinOption = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Join a living native group: make this site, sync with the master, stop again.

    The group counts this site as a member from then on: start it with `run` soon. When it was
    broken off, the same command goes on.
    """
    from ttserver import adopt, logs
    from ttserver.daemon import RunOptions, held
    from ttserver.init import site_address

    directory = home_of(ctx, home)
    here, there = site_address(local, "--local"), site_address(site, "site")
    password = None
    if not directory.db_config.exists():
        adopt.must_be_native(here, there)
        password = _make(directory, local, site, priority, from_stdin=password_stdin)
    logs.configure(level="warning")
    err = console(stderr=True)
    with held(RunOptions(directory)) as (config, journal):
        adopt.must_be_of(config, here, there)
        joining = adopt.join(config, journal, lambda text: err.print(Text(text), soft_wrap=True))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found = runner.run(joining)
    chosen = found.keyspace(keyspace)
    written = chosen is not None and adopt.serve_keyspace(directory, chosen)
    if as_json:
        print_json(
            {
                "master": found.master,
                "members": found.members,
                "databases": {each.file: each.obstacle or None for each in found.databases},
                "keyspace": chosen if written else None,
            }
        )
        return
    out = console()
    for text in _told(directory, found, chosen, password, written=written):
        out.print(text, soft_wrap=True)


def _make(home: Home, local: str, site: str, priority: int, *, from_stdin: bool) -> str | None:
    """Make the HOME; returns the administrator's password when it has to be shown."""
    from storage.users import ADMINISTRATOR, new_record
    from ttserver.init import make_plan, new_password, write

    plan = make_plan(home, "replicant", local, [site], priority)
    password = read_password(from_stdin=True, name=ADMINISTRATOR) if from_stdin else new_password()
    write(plan, new_record(ADMINISTRATOR, password, "administrator"))
    return None if from_stdin else password


def _told(
    home: Home, found: "Adopted", chosen: str | None, password: str | None, *, written: bool
) -> Iterator[Text]:
    from storage.users import ADMINISTRATOR

    text = f"in step with {found.master}, whose group has {found.members} sites now"
    yield Text(text, style="bold")
    for each in found.databases:
        yield Text(f"  {each.file}: {each.obstacle or 'can be served to clients'}")
    if written:
        yield Text(f"clients will be served {chosen} ({home.toml})")
    elif chosen is not None:
        yield Text(f'to serve {chosen}, write keyspace = "{chosen}" under [storage] in {home.toml}')
    else:
        yield Text(f'choose what to serve: keyspace = "FILE" under [storage] in {home.toml}')
    if password is not None:
        yield Text.assemble(
            f"administrator {ADMINISTRATOR} once this site is master, password ",
            (password, "bold"),
            "  (shown this once, kept nowhere)",
        )
    yield Text("next:", style="bold")
    yield Text(f"  ttserver --home {home.root} run")
