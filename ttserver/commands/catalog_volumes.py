"""VOLUME: added, changed, moved, listed, and what happened to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from storage.catalog.history import Span
from storage.catalog.moves import Moved
from storage.catalog.names import check_volume, customer_of, media_of, repository_in
from storage.catalog.queries import Query
from storage.catalog.records import Volume, flags_of
from storage.rights import Right
from ttserver.commands.catalog_request import (
    PAGE,
    Option,
    Options,
    Request,
    always,
    day,
    day_or_none,
    listing,
    moment,
    must,
    named,
    number,
    options,
    page_size,
    place_of,
    plain,
    read,
    request,
    rows_of,
    rows_reply,
    word,
    write,
)
from ttserver.commands.catalog_views import history_map, volume_map
from ttserver.commands.context import Client, Store
from ttserver.commands.table import Command
from ttserver.replies import OK, CommandError, Value

if TYPE_CHECKING:
    from berkeleydb.db import DBTxn

_FIELDS: Final[Options] = {
    "DESCRIPTION": Option("description", plain),
    "DATE": Option("date", day_or_none),
    "OVERDUE": Option("overdue_days", number),
    "CONTAINER": Option("container", plain),
    "HOME": Option("home", plain),
    "NOTES": Option("notes", plain),
}
_ADD: Final[Options] = {
    "IN": Option("repository", plain),
    "FLAGS": Option("flags", plain),
    **_FIELDS,
}
_AT: Final[Options] = {"AT": Option("repository", plain)}
_ASKED: Final[Options] = {
    "MATCH": Option("filter", plain),
    "IN": Option("place", plain),
    "TO": Option("target", plain),
    "HOME": Option("home", plain),
    "FLAGS": Option("flags", plain),
    "WITHOUT": Option("without", plain),
    "DUE": Option("due", day),
    "CONTAINER": Option("container", plain),
}
_PAGED: Final[Options] = {**_ASKED, "COUNT": Option("count", page_size)}
_SPAN: Final[Options] = {
    "FROM": Option("start", moment),
    "TO": Option("end", partial(moment, end=True)),
    "COUNT": Option("count", page_size),
    "CURSOR": Option("cursor", plain),
}
_FIELDS_USAGE: Final = (
    "[DESCRIPTION text] [DATE date] [OVERDUE days] [CONTAINER volume] [HOME repository]"
    " [NOTES text]"
)
_ASKED_USAGE: Final = (
    "[MATCH filter] [IN repository] [TO repository] [HOME repository] [FLAGS letters]"
    " [WITHOUT letters] [DUE date] [CONTAINER volume]"
)


def _allow(store: Store, txn: DBTxn, asked: Request, right: Right) -> None:
    must(store, txn, asked, right, customer_of(check_volume(asked.name)))


def _view(store: Store, txn: DBTxn, asked: Request, volume: Volume) -> dict[str, Any]:
    place = f"{media_of(asked.name)}.{volume.current.repository}"
    repository = store.catalog.store.repository(txn, place)
    offsite = repository is not None and repository.offsite
    flags = flags_of(volume, today=asked.today, offsite=offsite)
    return volume_map(asked.name, volume, flags)


def add(store: Store, txn: DBTxn, asked: Request) -> Value:
    """VOLUME.ADD name [IN repository] [OPTION value ...]."""
    _allow(store, txn, asked, Right.ALTER)
    given = dict(asked.given)
    repository = given.pop("repository", "")
    volume = store.catalog.volumes.add(txn, asked.actor, asked.name, repository, given)
    return _view(store, txn, asked, volume)


def check(store: Store, txn: DBTxn, asked: Request) -> Value:
    """VOLUME.CHECK: VOLUME.ADD with the same words, but nothing is written."""
    _allow(store, txn, asked, Right.ALTER)
    given = dict(asked.given)
    repository = given.pop("repository", "")
    plan = store.catalog.volumes.plan_add
    return _view(store, txn, asked, plan(txn, asked.actor, asked.name, repository, given)[0])


def change(store: Store, txn: DBTxn, asked: Request) -> Value:
    """VOLUME.SET name [OPTION value ...], VOLUME.SETDATE name date."""
    _allow(store, txn, asked, Right.WRITE)
    volume = store.catalog.volumes.change(txn, asked.actor, asked.name, asked.given)
    return _view(store, txn, asked, volume)


def delete(store: Store, txn: DBTxn, asked: Request) -> Value:
    """VOLUME.DEL name."""
    _allow(store, txn, asked, Right.ALTER)
    store.catalog.volumes.delete(txn, asked.actor, asked.name)
    return OK


def flag(store: Store, txn: DBTxn, asked: Request) -> Value:
    """VOLUME.FLAG name +E -l ..."""
    _allow(store, txn, asked, Right.WRITE)
    given = asked.given
    volume = store.catalog.volumes.set_flags(
        txn, asked.actor, asked.name, given["add"], given["remove"]
    )
    return _view(store, txn, asked, volume)


def get(store: Store, txn: DBTxn, asked: Request) -> Value:
    """VOLUME.GET name."""
    _allow(store, txn, asked, Right.READ)
    return _view(store, txn, asked, store.catalog.store.the_volume(txn, asked.name))


def _moved(store: Store, txn: DBTxn, asked: Request, moved: Moved) -> Value:
    view = _view(store, txn, asked, moved.volume)
    return {**view, "carried": moved.carried, "warnings": list(moved.warnings)}


def move(store: Store, txn: DBTxn, asked: Request) -> Value:
    """VOLUME.MOVE name repository."""
    _allow(store, txn, asked, Right.WRITE)
    moves, where = store.catalog.moves, asked.given["repository"]
    return _moved(store, txn, asked, moves.move(txn, asked.actor, asked.name, where))


def confirm(store: Store, txn: DBTxn, asked: Request) -> Value:
    """VOLUME.CONFIRM name [AT repository]."""
    _allow(store, txn, asked, Right.WRITE)
    moves, where = store.catalog.moves, asked.given.get("repository", "")
    return _moved(store, txn, asked, moves.confirm(txn, asked.actor, asked.name, where))


def scan_out(store: Store, txn: DBTxn, asked: Request) -> Value:
    """VOLUME.SCANOUT name."""
    _allow(store, txn, asked, Right.WRITE)
    return _moved(store, txn, asked, store.catalog.moves.scan_out(txn, asked.actor, asked.name))


def pick_up(store: Store, txn: DBTxn, asked: Request) -> Value:
    """VOLUME.PICKUP name."""
    _allow(store, txn, asked, Right.WRITE)
    return _moved(store, txn, asked, store.catalog.moves.pick_up(txn, asked.actor, asked.name))


def cancel(store: Store, txn: DBTxn, asked: Request) -> Value:
    """VOLUME.CANCEL name."""
    _allow(store, txn, asked, Right.WRITE)
    return _moved(store, txn, asked, store.catalog.moves.cancel(txn, asked.actor, asked.name))


# -- lists


def _query(asked: Request) -> Query:
    given = {name: value for name, value in asked.given.items() if name != "count"}
    for field in ("place", "target", "home"):
        if "." in given.get(field, ""):
            # A whole name says which media type, too.
            media = media_of(given[field])
            given[field] = repository_in(media, given[field])
            given.setdefault("filter", f"{media}.*")
    return Query(today=asked.today, **given)


def list_(store: Store, txn: DBTxn, asked: Request) -> Value:
    """VOLUME.LIST cursor [OPTION value ...]."""
    limit = asked.given.get("count", PAGE)
    sees = store.access.sees(txn, asked.actor.user)
    page = store.catalog.queries.page(txn, _query(asked), asked.after, limit, sees)
    rows: list[Value] = [volume_map(one.name, one.volume, one.flags) for one in page.volumes]
    return rows_of(asked, rows, page.after)


def count(store: Store, txn: DBTxn, asked: Request) -> Value:
    """VOLUME.COUNT [OPTION value ...]."""
    sees = store.access.sees(txn, asked.actor.user)
    return store.catalog.queries.count(txn, _query(asked), sees)


def history(store: Store, txn: DBTxn, asked: Request) -> Value:
    """VOLUME.HISTORY name|filter [FROM time] [TO time] [COUNT count] [CURSOR cursor]."""
    given = asked.given
    span = Span(filter=asked.name, start=given.get("start"), end=given.get("end"))
    sees = store.access.sees(txn, asked.actor.user)
    page = store.catalog.history.page(txn, span, asked.after, given.get("count", PAGE), sees)
    return rows_of(asked, [history_map(one) for one in page.records], page.after)


# -- arguments of their own kind


def _prepare_move(client: Client, args: Sequence[bytes]) -> Request:
    return request(client, name=word(args[1]), given={"repository": word(args[2])})


def _prepare_date(client: Client, args: Sequence[bytes]) -> Request:
    today: date = request(client).today
    return request(client, name=word(args[1]), given={"date": day_or_none(word(args[2]), today)})


def _prepare_flags(client: Client, args: Sequence[bytes]) -> Request:
    add, remove = "", ""
    for argument in args[2:]:
        change = word(argument)
        if change[:1] not in ("+", "-") or len(change) < 2:
            raise CommandError(f"INVALID flags {change[:40]!r} refused: write +E, -l or +EQ")
        if change[0] == "+":
            add += change[1:]
        else:
            remove += change[1:]
    if both := set(add) & set(remove):
        raise CommandError(f"INVALID flag {min(both)} refused: it is set and cleared at once")
    return request(client, name=word(args[1]), given={"add": add, "remove": remove})


def _prepare_count(client: Client, args: Sequence[bytes]) -> Request:
    return request(client, given=options(args[1:], _ASKED, request(client).today))


def _prepare_history(client: Client, args: Sequence[bytes]) -> Request:
    asked = named(_SPAN)(client, args)
    cursor = asked.given.get("cursor", "0")
    after = place_of(client, cursor.encode())
    return request(client, name=asked.name, given=asked.given, after=after)


def _move_command(
    name: str, run: Callable[..., Value], summary: str, more: str = "", **how: Any
) -> Command:
    return write(
        f"volume.{name}",
        how.pop("arity", 2),
        run=run,
        usage=f"name {more}".strip(),
        summary=summary,
        prepare=how.pop("prepare", named({})),
    )


COMMANDS: Final = (
    write(
        "volume.add",
        -2,
        run=add,
        usage=f"name [IN repository] [FLAGS letters] {_FIELDS_USAGE}",
        summary="Adds a volume to a repository, or to the default one of its media type.",
        prepare=named(_ADD),
    ),
    read(
        "volume.check",
        -2,
        run=check,
        usage=f"name [IN repository] [FLAGS letters] {_FIELDS_USAGE}",
        summary="Answers what VOLUME.ADD would, and adds nothing.",
        prepare=named(_ADD),
    ),
    write(
        "volume.set",
        -2,
        run=change,
        usage=f"name {_FIELDS_USAGE}",
        summary="Changes what is known of a volume.",
        prepare=named(_FIELDS),
    ),
    write(
        "volume.del",
        2,
        run=delete,
        usage="name",
        summary="Deletes a volume; its history stays.",
        prepare=named({}),
    ),
    write(
        "volume.flag",
        -3,
        run=flag,
        usage="name change [change ...]",
        summary="Sets and clears flags of a volume: +E -l.",
        prepare=_prepare_flags,
    ),
    write(
        "volume.setdate",
        3,
        run=change,
        usage="name date",
        summary="Sets the day a volume moves on: YYYY-MM-DD, *+7, none.",
        prepare=_prepare_date,
    ),
    _move_command(
        "move",
        move,
        "Asks for a volume to be brought to a repository.",
        "repository",
        arity=3,
        prepare=_prepare_move,
    ),
    _move_command("scanout", scan_out, "Notes that a moving volume was scanned out."),
    _move_command("pickup", pick_up, "Notes that a moving volume was picked up."),
    _move_command(
        "confirm",
        confirm,
        "Notes that a volume was scanned in: at its target, or where it is said.",
        "[AT repository]",
        arity=-2,
        prepare=named(_AT),
    ),
    _move_command("cancel", cancel, "Calls a moving volume back to where it is."),
    read(
        "volume.get",
        2,
        run=get,
        usage="name",
        summary="Returns a volume.",
        prepare=named({}),
    ),
    read(
        "volume.list",
        -2,
        run=list_,
        usage=f"cursor {_ASKED_USAGE} [COUNT count]",
        summary="Returns a page of volumes.",
        prepare=listing(_PAGED),
        finish=rows_reply,
        heavy=always,
        complexity="O(N)",
    ),
    read(
        "volume.count",
        -1,
        run=count,
        usage=_ASKED_USAGE,
        summary="Counts volumes.",
        prepare=_prepare_count,
        heavy=always,
        complexity="O(N)",
    ),
    read(
        "volume.history",
        -2,
        run=history,
        usage="filter [FROM time] [TO time] [COUNT count] [CURSOR cursor]",
        summary="Returns what happened to a volume, or to all that match a filter.",
        prepare=_prepare_history,
        finish=rows_reply,
        heavy=always,
        complexity="O(N)",
    ),
)
