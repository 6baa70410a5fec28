"""Commands about the group as a whole: `site add`, `site remove`, `switchover`."""

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
from ttserver.cli.promote import depose
from ttserver.init import site_address
from ttserver.render import console

SiteArgument = Annotated[
    str, typer.Argument(metavar="HOST:PORT", help="The site, as `ttserver sites` shows it.")
]


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    group = typer.Typer(
        name="site",
        help="Which sites belong to the group: add, remove. Any member may be asked.",
        no_args_is_help=False,
    )
    group.command("add")(_add)
    group.command("remove")(_remove)
    app.add_typer(group)
    app.command("switchover")(_switchover)


def _add(
    ctx: typer.Context,
    site: SiteArgument,
    force: Annotated[
        bool, typer.Option("--force", help="Also a site that does not answer now.")
    ] = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Take a site into the group, or take it in again after it was removed.

    A new site that names a member in its DB_CONFIG joins by itself and needs no such word.
    """
    site_address(site, "site")
    with daemon_of(home_of(ctx, home)) as daemon:
        answer = daemon.ask("site-add", site=site, force=force)
    _tell(answer, "is a member", as_json=as_json)
    if not as_json and answer["connected"]:
        console().print(Text("it is connected"))


def _remove(
    ctx: typer.Context,
    site: SiteArgument,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="On the master: do not wait until the other sites know it; for when they are"
            " gone for good.",
        ),
    ] = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> int:
    """Take a site out of the group; it keeps its copy, follows nobody and votes for nobody."""
    site_address(site, "site")
    if not confirmed(f"Remove {site} from the group?", yes=yes):
        console(stderr=True).print("nothing was changed")
        return EXIT_FAILED
    with daemon_of(home_of(ctx, home)) as daemon:
        answer = daemon.ask("site-remove", site=site, force=force)
    _tell(answer, "is no member now", as_json=as_json)
    return 0


def _tell(answer: dict[str, Any], what: str, *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    members = answer["members"]
    text = f"{answer['site']} {what}; the group has {members} site{'s'[: members != 1]}"
    console().print(Text(text), soft_wrap=True)
    if answer["note"]:
        console().print(Text(f"note: {answer['note']}"), soft_wrap=True)


def _switchover(
    ctx: typer.Context,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="HOST:PORT", help="The next master; else the best one."),
    ] = None,
    timeout_s: Annotated[
        float,
        typer.Option("--timeout", min=0.1, help="Seconds until it must be nearly in step."),
    ] = 30.0,
    force: Annotated[
        bool,
        typer.Option("--force", help="Depose a native master that lives; says what is lost."),
    ] = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> int:
    """Hand the master's role over to another site; no write is lost.

    Run it on the master. Writes wait for a moment; those of this site's clients are then refused
    and belong to the new master. When anything fails, this site goes on as master.

    A native master cannot hand over: stop it, then run this on the site that is to be master.
    """
    if to is not None:
        site_address(to, "--to")
    if force:
        return depose(home_of(ctx, home), yes=yes, as_json=as_json)

    def begins(line: dict[str, Any]) -> None:
        if "progress" in line:
            console(stderr=True).print(Text(str(line["progress"])))
        elif not as_json:
            before = line["before"]
            console().print(
                Text(f"before: {before['master']} is master, generation {before['generation']}")
            )
            console().print(Text(f"handing over to {line['target']}"))

    with daemon_of(home_of(ctx, home)) as daemon:
        answer = daemon.ask("switchover", on_line=begins, site=to, timeout_s=timeout_s)
    if as_json:
        print_json(answer)
        return 0
    after, held_ms = answer["after"], answer["held_ms"]
    text = f"after: {after['master']} is master, generation {after['generation']}"
    if held_ms is not None:
        text += f"; writes waited for {held_ms:g} ms"
    console().print(Text(text), soft_wrap=True)
    return 0
