"""`tt customer|media|repository add|set|get|list|del`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from ttserver.client.errors import ClientError
from ttserver.tt.frame import (
    Column,
    CsvOption,
    JsonOption,
    ServerOption,
    complain,
    exit_if,
    field,
    options,
    print_facts,
    print_json,
    session_of,
    show,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="CUSTOMER[.MEDIA[.REPOSITORY]].")]
Filter = Annotated[str, typer.Argument(metavar="[FILTER]", help="Of names: 'US*', 'US04.LTO.*'.")]
Description = Annotated[str | None, typer.Option("-d", "--description", help="In words.")]
IdFilter = Annotated[str | None, typer.Option("--filter", help="IDs of volumes: '??????L[4-8]'.")]
Lock = Annotated[
    bool | None, typer.Option("--lock/--no-lock", help="Keep its volumes as they are.")
]

CUSTOMERS = (
    field("customer", "name", "bold"),
    field("description", "description"),
    field("contact", "contact"),
    field("unique", "unique"),
    field("locked", "locked"),
    field("media max", "media_max", right=True),
)
MEDIA = (
    field("media", "name", "bold"),
    field("description", "description"),
    field("volumes", "volumes", right=True),
    field("default", "default"),
    field("filter", "filter"),
    field("volumes max", "volumes_max", right=True),
    field("repositories max", "repositories_max", right=True),
    field("locked", "locked"),
    field("warn back", "warn_back"),
)
REPOSITORIES = (
    field("repository", "name", "bold"),
    field("description", "description"),
    field("type", "type"),
    field("next", "next"),
    field("offsite", "offsite"),
    field("scratch", "scratch"),
    field("volumes", "volumes", right=True),
    field("incoming", "incoming", right=True),
    field("outgoing", "outgoing", right=True),
    field("filter", "filter"),
    field("deletes", "deletes"),
)


def register(app: typer.Typer) -> None:
    """Add these verbs to the program."""
    for word, columns, add, change in (
        ("customer", CUSTOMERS, _customer("add"), _customer("set")),
        ("media", MEDIA, _media("add"), _media("set")),
        ("repository", REPOSITORIES, _repository("add"), _repository("set")),
    ):
        group = typer.Typer(name=word, help=f"Add, change, show, list and delete: {word}.")
        group.command("add", help="Add one.")(add)
        group.command("set", help="Change one; what is not named stays.")(change)
        group.command("get", help="Show one.")(_get(word))
        group.command("list", help="List those that match a filter.")(_list(word, columns))
        group.command("del", help="Delete those that nothing belongs to.")(_delete(word))
        app.add_typer(group)


def _tell(ctx: typer.Context, server: str | None, as_json: bool, *command: object) -> None:
    with session_of(ctx, server) as session:
        answer = session.write(*command)
    if as_json:
        print_json(answer)
    else:
        print_facts(answer)


def _customer(verb: str) -> Callable[..., None]:
    def run(
        ctx: typer.Context,
        name: Name,
        description: Description = None,
        contact: Annotated[str | None, typer.Option(help="Whom to ask.")] = None,
        unique: Annotated[
            str | None, typer.Option(help="IDs of volumes only once: none, customer, server.")
        ] = None,
        max_media: Annotated[int | None, typer.Option(min=0, help="0 for any number.")] = None,
        lock: Lock = None,
        as_json: JsonOption = False,
        server: ServerOption = None,
    ) -> None:
        given = options(
            description=description, contact=contact, unique=unique, maxmedia=max_media, lock=lock
        )
        _tell(ctx, server, as_json, f"CUSTOMER.{verb}", name, *given)

    return run


def _media(verb: str) -> Callable[..., None]:
    def run(
        ctx: typer.Context,
        name: Name,
        description: Description = None,
        filter_: IdFilter = None,
        max_volumes: Annotated[int | None, typer.Option(min=0, help="0 for any number.")] = None,
        max_repositories: Annotated[
            int | None, typer.Option(min=0, help="0 for any number.")
        ] = None,
        default: Annotated[
            str | None, typer.Option(help="The repository new volumes are put into.")
        ] = None,
        lock: Lock = None,
        warn_back: Annotated[
            bool | None,
            typer.Option("--warn-back/--no-warn-back", help="Warn of moves called back."),
        ] = None,
        as_json: JsonOption = False,
        server: ServerOption = None,
    ) -> None:
        given = options(
            description=description,
            filter=filter_,
            maxvolumes=max_volumes,
            maxrepositories=max_repositories,
            default=default,
            lock=lock,
            warnback=warn_back,
        )
        _tell(ctx, server, as_json, f"MEDIA.{verb}", name, *given)

    return run


def _repository(verb: str) -> Callable[..., None]:
    def run(
        ctx: typer.Context,
        name: Name,
        description: Description = None,
        kind: Annotated[
            str | None,
            typer.Option(
                "--type",
                help="library, vault, scratch, rack, transport, destruction, disaster-recovery,"
                " legal-hold.",
            ),
        ] = None,
        next_: Annotated[
            str | None, typer.Option("--next", help="Where volumes go when their date has come.")
        ] = None,
        offsite: Annotated[bool | None, typer.Option("--offsite/--onsite")] = None,
        scratch: Annotated[
            bool | None, typer.Option("--scratch/--no-scratch", help="Its volumes are blank.")
        ] = None,
        priority: Annotated[
            int | None, typer.Option(min=0, max=9, help="Of blank volumes: 0 is used first.")
        ] = None,
        filter_: IdFilter = None,
        deletes: Annotated[
            bool | None, typer.Option("--deletes/--no-deletes", help="Volumes may be deleted.")
        ] = None,
        as_json: JsonOption = False,
        server: ServerOption = None,
    ) -> None:
        given = options(
            description=description,
            type=kind,
            next=next_,
            offsite=offsite,
            scratch=scratch,
            priority=priority,
            filter=filter_,
            deletes=deletes,
        )
        _tell(ctx, server, as_json, f"REPOSITORY.{verb}", name, *given)

    return run


def _get(word: str) -> Callable[..., None]:
    def run(
        ctx: typer.Context, name: Name, as_json: JsonOption = False, server: ServerOption = None
    ) -> None:
        with session_of(ctx, server) as session:
            found: dict[str, Any] = session.read(f"{word}.GET", name)
        if as_json:
            print_json(found)
        else:
            print_facts(found)

    return run


def _list(word: str, columns: Sequence[Column]) -> Callable[..., None]:
    def run(
        ctx: typer.Context,
        filter_: Filter = "*",
        as_json: JsonOption = False,
        as_csv: CsvOption = False,
        server: ServerOption = None,
    ) -> None:
        with session_of(ctx, server) as session:
            rows = session.pages(f"{word}.LIST", "MATCH", filter_, "COUNT", 1000)
            show(rows, columns, as_json=as_json, as_csv=as_csv)

    return run


def _delete(word: str) -> Callable[..., None]:
    def run(
        ctx: typer.Context,
        names: Annotated[list[str], typer.Argument(metavar="NAME...")],
        server: ServerOption = None,
    ) -> None:
        failed = 0
        with session_of(ctx, server) as session:
            for name, answer in zip(
                names, session.write_all((f"{word}.DEL", name) for name in names), strict=True
            ):
                if isinstance(answer, ClientError):
                    failed += 1
                    complain(str(answer), answer.hint)
                else:
                    print(f"{word} {name} deleted")
        exit_if(failed)

    return run
