"""`tt volume ...` and `tt history`: where tapes are, where they have to be, what happened."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Annotated, Any, Final

import typer

from ttserver.errors import ConfigurationError
from ttserver.tt.frame import (
    Column,
    CsvOption,
    FileOption,
    JsonOption,
    MediaOption,
    ServerOption,
    exit_if,
    field,
    for_each,
    names_of,
    notice,
    options,
    part,
    plain,
    print_facts,
    print_json,
    session_of,
    show,
)

Names = Annotated[
    list[str] | None, typer.Argument(metavar="[VOLUME...]", help="CUSTOMER.MEDIA.VOLUME.")
]
Filter = Annotated[str, typer.Argument(metavar="[FILTER]", help="Of names: 'US04.LTO.*'.")]
In = Annotated[str | None, typer.Option("--in", help="In this repository.")]
To = Annotated[str | None, typer.Option("--to", help="On their way to this repository.")]
Home = Annotated[str | None, typer.Option("--home", help="Belonging to this repository.")]
Flag = Annotated[str | None, typer.Option("--flag", help="Letters of flags they have.")]
NotFlag = Annotated[str | None, typer.Option("--not-flag", help="Letters of flags they lack.")]
Due = Annotated[
    str | None, typer.Option("--due", help="With a move date until this: 2025-12-31, '*+7'.")
]
Container = Annotated[str | None, typer.Option("--container", help="In this volume.")]
Description = Annotated[str | None, typer.Option("-d", "--description", help="In words.")]
Date = Annotated[
    str | None, typer.Option("--date", help="When it moves on: 2025-12-31, '*+7', none.")
]
Notes = Annotated[str | None, typer.Option("--notes", help="In more words.")]
Overdue = Annotated[
    int | None, typer.Option("--overdue", min=0, help="Days a move may take; 0 for any time.")
]

PAGE: Final = 500


def facts_text(facts: Mapping[str, Any]) -> str:
    """What history says of a volume before or after."""
    return " ".join(f"{name}={plain(value)}" for name, value in facts.items())


def _elsewhere(row: Mapping[str, Any]) -> object:
    target = part(row, "target.repository")
    return None if target == part(row, "current.repository") else target


COLUMNS: Final = (
    field("volume", "name", "bold"),
    field("repository", "current.repository"),
    Column("target", _elsewhere, "yellow"),
    field("flags", "flags"),
    field("date", "date"),
    field("description", "description"),
    field("container", "container"),
)
CSV: Final = (
    field("customer", "customer"),
    field("media", "media"),
    field("volume", "volume"),
    field("repository", "current.repository"),
    field("target", "target.repository"),
    field("description", "description"),
    field("date", "date"),
    field("flags", "flags"),
    field("container", "container"),
    field("home", "home"),
    field("overdue_days", "overdue_days"),
    field("encrypted", "encrypted"),
    field("since", "current.at"),
    field("by", "current.by"),
    field("scanned", "scanned.repository"),
    field("scanned_at", "scanned.at"),
    field("notes", "notes"),
)
HISTORY: Final = (
    Column("time (UTC)", lambda row: str(row["at"])[:19].replace("T", " ")),
    field("volume", "name", "bold"),
    field("what", "what"),
    field("user", "by"),
    field("program", "via"),
    Column("before", lambda row: facts_text(row["before"])),
    Column("after", lambda row: facts_text(row["after"])),
)


def register(app: typer.Typer) -> None:
    """Add these verbs to the program."""
    group = typer.Typer(name="volume", help="Where tapes are, and where they have to go.")
    group.command("list")(_list)
    group.command("count")(_count)
    group.command("get")(_get)
    group.command("add")(_add)
    group.command("set")(_set)
    group.command("del")(_del)
    group.command("move")(_move)
    group.command("scanout", help="Note that moving volumes were scanned out.")(_step("SCANOUT"))
    group.command("pickup", help="Note that moving volumes were picked up.")(_step("PICKUP"))
    group.command("confirm")(_confirm)
    group.command("cancel", help="Call moving volumes back to where they are.")(_step("CANCEL"))
    group.command("setdate")(_setdate)
    group.command("flag", context_settings={"ignore_unknown_options": True})(_flag)
    app.add_typer(group)
    app.command("history")(_history)


def _asked(**given: str | None) -> list[object]:
    words = {"in": "IN", "to": "TO", "flag": "FLAGS", "not_flag": "WITHOUT"}
    found: list[object] = []
    for name, value in given.items():
        if value is not None:
            found += [words.get(name.rstrip("_"), name.upper()), value]
    return found


def _list(
    ctx: typer.Context,
    filter_: Filter = "*",
    in_: In = None,
    to: To = None,
    home: Home = None,
    flag: Flag = None,
    not_flag: NotFlag = None,
    due: Due = None,
    container: Container = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="No more than so many.")
    ] = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    server: ServerOption = None,
) -> None:
    """List volumes; everything that is asked has to hold."""
    asked = _asked(
        match=filter_, in_=in_, to=to, home=home, flag=flag, not_flag=not_flag, due=due,
        container=container,
    )  # fmt: skip
    page = PAGE if limit is None else min(PAGE, limit)
    with session_of(ctx, server) as session:
        rows: Iterator[dict[str, Any]] = session.pages("VOLUME.LIST", *asked, "COUNT", page)
        show(islice(rows, limit), COLUMNS, as_json=as_json, as_csv=as_csv, csv_columns=CSV)


def _count(
    ctx: typer.Context,
    filter_: Filter = "*",
    in_: In = None,
    to: To = None,
    home: Home = None,
    flag: Flag = None,
    not_flag: NotFlag = None,
    due: Due = None,
    container: Container = None,
    server: ServerOption = None,
) -> None:
    """Count volumes; everything that is asked has to hold."""
    asked = _asked(
        match=filter_, in_=in_, to=to, home=home, flag=flag, not_flag=not_flag, due=due,
        container=container,
    )  # fmt: skip
    with session_of(ctx, server) as session:
        print(session.read("VOLUME.COUNT", *asked))


def _get(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="VOLUME", help="CUSTOMER.MEDIA.VOLUME.")],
    as_json: JsonOption = False,
    server: ServerOption = None,
) -> None:
    """Show one volume."""
    with session_of(ctx, server) as session:
        found = session.read("VOLUME.GET", name)
    if as_json:
        print_json(found)
    else:
        print_facts(found)


def _update(
    ctx: typer.Context,
    server: str | None,
    names: Sequence[str],
    command: Callable[[str], Sequence[object]],
    *,
    as_json: bool,
) -> None:
    """Send one update for each volume, and show how they are now."""
    with session_of(ctx, server) as session:
        done, failed = for_each(session, names, command)
    for answer in done:
        if isinstance(answer, dict):
            for warning in answer.get("warnings", ()):
                notice(warning)
    rows = [answer for answer in done if isinstance(answer, dict)]
    if as_json:
        print_json(rows)
    elif rows:
        show(rows, COLUMNS, as_json=False, as_csv=False)
    exit_if(failed)


def _add(
    ctx: typer.Context,
    names: Names = None,
    in_: Annotated[
        str | None, typer.Option("--in", help="The repository; else that of the media type.")
    ] = None,
    description: Description = None,
    date: Date = None,
    overdue: Overdue = None,
    container: Container = None,
    home: Home = None,
    notes: Notes = None,
    flags: Annotated[str | None, typer.Option("--flags", help="Letters to set.")] = None,
    file: FileOption = None,
    media: MediaOption = "",
    as_json: JsonOption = False,
    server: ServerOption = None,
) -> None:
    """Add volumes."""
    given = options(
        in_=in_, description=description, date=date, overdue=overdue, container=container,
        home=home, notes=notes, flags=flags,
    )  # fmt: skip
    wanted = names_of(names or [], file, media)
    _update(ctx, server, wanted, lambda name: ("VOLUME.ADD", name, *given), as_json=as_json)


def _set(
    ctx: typer.Context,
    names: Names = None,
    description: Description = None,
    date: Date = None,
    overdue: Overdue = None,
    container: Container = None,
    home: Home = None,
    notes: Notes = None,
    file: FileOption = None,
    media: MediaOption = "",
    as_json: JsonOption = False,
    server: ServerOption = None,
) -> None:
    """Change what is known of volumes; an empty text takes away."""
    given = options(
        description=description, date=date, overdue=overdue, container=container, home=home,
        notes=notes,
    )  # fmt: skip
    wanted = names_of(names or [], file, media)
    _update(ctx, server, wanted, lambda name: ("VOLUME.SET", name, *given), as_json=as_json)


def _del(
    ctx: typer.Context,
    names: Names = None,
    file: FileOption = None,
    media: MediaOption = "",
    server: ServerOption = None,
) -> None:
    """Delete volumes; their history stays."""
    wanted = names_of(names or [], file, media)
    with session_of(ctx, server) as session:
        done, failed = for_each(session, wanted, lambda name: ("VOLUME.DEL", name))
    if done:
        print(f"{len(done)} deleted")
    exit_if(failed)


def _move(
    ctx: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(metavar="[VOLUME...] REPOSITORY", help="The repository stands last."),
    ],
    file: FileOption = None,
    media: MediaOption = "",
    as_json: JsonOption = False,
    server: ServerOption = None,
) -> None:
    """Ask for volumes to be brought to a repository."""
    *names, repository = words
    wanted = names_of(names, file, media)
    _update(ctx, server, wanted, lambda name: ("VOLUME.MOVE", name, repository), as_json=as_json)


def _step(verb: str) -> Callable[..., None]:
    def run(
        ctx: typer.Context,
        names: Names = None,
        file: FileOption = None,
        media: MediaOption = "",
        as_json: JsonOption = False,
        server: ServerOption = None,
    ) -> None:
        wanted = names_of(names or [], file, media)
        _update(ctx, server, wanted, lambda name: (f"VOLUME.{verb}", name), as_json=as_json)

    return run


def _confirm(
    ctx: typer.Context,
    names: Names = None,
    at: Annotated[
        str | None, typer.Option("--at", help="Where they were scanned; else at their target.")
    ] = None,
    file: FileOption = None,
    media: MediaOption = "",
    as_json: JsonOption = False,
    server: ServerOption = None,
) -> None:
    """Note that volumes were scanned in."""
    given = options(at=at)
    wanted = names_of(names or [], file, media)
    _update(ctx, server, wanted, lambda name: ("VOLUME.CONFIRM", name, *given), as_json=as_json)


def _setdate(
    ctx: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(metavar="[VOLUME...] DATE", help="The date stands last: '*+7', none."),
    ],
    file: FileOption = None,
    media: MediaOption = "",
    as_json: JsonOption = False,
    server: ServerOption = None,
) -> None:
    """Say when volumes move on."""
    *names, date = words
    wanted = names_of(names, file, media)
    _update(ctx, server, wanted, lambda name: ("VOLUME.SETDATE", name, date), as_json=as_json)


def _flag(
    ctx: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(metavar="[VOLUME...] FLAG...", help="+E sets, -l clears."),
    ],
    file: FileOption = None,
    media: MediaOption = "",
    as_json: JsonOption = False,
    server: ServerOption = None,
) -> None:
    """Set and clear flags of volumes: E L l p U K a r Q h."""
    flags = [word for word in words if word[:1] in ("+", "-")]
    if not flags:
        raise ConfigurationError(
            "flags are missing", code="USAGE", hint="write +E to set, -l to clear"
        )
    names = [word for word in words if word[:1] not in ("+", "-")]
    wanted = names_of(names, file, media)
    _update(ctx, server, wanted, lambda name: ("VOLUME.FLAG", name, *flags), as_json=as_json)


def _history(
    ctx: typer.Context,
    filter_: Annotated[str, typer.Argument(metavar="VOLUME|FILTER")],
    start: Annotated[
        str | None, typer.Option("--from", help="From then on: 2025-12-01, '*-7', a time.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="Up to then.")] = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    server: ServerOption = None,
) -> None:
    """Show what happened to a volume, or to all that match a filter."""
    given = options(from_=start, to=end)
    with session_of(ctx, server) as session:
        rows = session.pages("VOLUME.HISTORY", filter_, *given, "COUNT", PAGE, cursor_at=-1)
        show(rows, HISTORY, as_json=as_json, as_csv=as_csv)
