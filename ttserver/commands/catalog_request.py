"""What all commands of the catalog share: who asks, their options, rights, refusals and cursors.

A command is prepared in the loop (who asks, when, with what) and run in a transaction, where the
right for it is asked first. So a right that was taken away is gone with the next command.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from storage.catalog.names import CatalogError, shown
from storage.catalog.records import Actor, actor_at
from storage.rights import Right
from storage.users import UserError
from ttserver.commands.arguments import positive, text, unsigned
from ttserver.commands.context import Client, Store
from ttserver.commands.table import Command, Kind
from ttserver.replies import CommandError, Encoded, Value, encode

if TYPE_CHECKING:
    from berkeleydb.db import DBTxn

T = TypeVar("T")

PAGE: Final = 100
PAGE_MAX: Final = 1000
PROGRAM_CHARS_MAX: Final = 32
DAYS_AHEAD_MAX: Final = 36_500

_AHEAD: Final = re.compile(r"\*(?:([+-])([0-9]{1,5}))?")
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


@dataclass(frozen=True, slots=True)
class Request:
    """One command, its arguments read.

    Args:
        actor: who asks, with what program, when.
        protocol: 2 or 3, for rows that are encoded where they are read.
        name: what it is about.
        given: its options.
        after: where a list goes on; None from the start.
    """

    actor: Actor
    protocol: int
    name: str = ""
    given: Mapping[str, Any] = field(default_factory=dict)
    after: bytes | None = None

    @property
    def today(self) -> date:
        return self.actor.at.date()


@dataclass(frozen=True, slots=True)
class Option:
    """A word and its value.

    Args:
        field: what it is called in `Request.given`.
        read: takes the value and the day it is read on.
    """

    field: str
    read: Callable[[str, date], Any]


Options: TypeAlias = Mapping[str, Option]


# -- values


def plain(value: str, _today: date) -> str:
    """A text as it is."""
    return value


def yes_no(value: str, _today: date) -> bool:
    """`yes` or `no`.

    Raises:
        CommandError: neither.
    """
    if value.lower() not in ("yes", "no"):
        raise CommandError(f"INVALID {shown(value)} refused: it is neither yes nor no")
    return value.lower() == "yes"


def number(value: str, _today: date) -> int:
    """A number from 0.

    Raises:
        CommandError: it is none.
    """
    if not (value.isascii() and value.isdigit()) or len(value) > 10:
        raise CommandError(f"INVALID {shown(value)} refused: it is no number from 0 up")
    return int(value)


def day(value: str, today: date) -> date:
    """`YYYY-MM-DD`, `*` for today, `*+7`, `*-1`.

    Raises:
        CommandError: it is none of these.
    """
    if (found := _AHEAD.fullmatch(value)) is not None:
        days = int(found[2] or 0)
        if days <= DAYS_AHEAD_MAX:
            return today + timedelta(days=-days if found[1] == "-" else days)
    elif _DATE.fullmatch(value) is not None:
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass
    raise CommandError(
        f"INVALID date {shown(value)} refused: not YYYY-MM-DD, nor * for today, *+7, *-1"
    )


def day_or_none(value: str, today: date) -> date | None:
    """A `day`, or `none`.

    Raises:
        CommandError: it is neither.
    """
    return None if value.lower() in ("none", "") else day(value, today)


def moment(value: str, today: date, *, end: bool = False) -> datetime:
    """A time in UTC as RFC 3339 writes it, or a `day`: its beginning, or its end.

    Raises:
        CommandError: it is neither.
    """
    if "T" in value or " " in value:
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            raise CommandError(
                f"INVALID time {shown(value)} refused: not as 2025-12-01T08:00:00Z"
            ) from None
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    first = datetime.combine(day(value, today), datetime.min.time(), UTC)
    return first + timedelta(days=1, milliseconds=-1) if end else first


# -- arguments


def word(argument: bytes) -> str:
    """An argument as text.

    Raises:
        CommandError: it is no UTF-8.
    """
    try:
        return argument.decode()
    except UnicodeDecodeError:
        raise CommandError(f"INVALID {text(argument)[:60]} refused: it is not UTF-8") from None


def options(args: Sequence[bytes], known: Options, today: date) -> dict[str, Any]:
    """Read words and their values.

    Raises:
        CommandError: a word is unknown, given twice or lacks its value, or the value cannot be.
    """
    given: dict[str, Any] = {}
    for at in range(0, len(args), 2):
        name = word(args[at]).upper()
        option = known.get(name)
        if option is None:
            raise CommandError(f"ERR option {shown(word(args[at]))} is none of {', '.join(known)}")
        if at + 1 == len(args):
            raise CommandError(f"ERR option {name} lacks its value")
        if option.field in given:
            raise CommandError(f"ERR option {name} is given twice")
        given[option.field] = option.read(word(args[at + 1]), today)
    return given


def request(client: Client, **parts: Any) -> Request:
    """Make a request of a client, now."""
    program = text(client.name or client.library or b"client")[:PROGRAM_CHARS_MAX]
    return Request(actor_at(client.user, program, client.server.wall()), client.protocol, **parts)


def named(known: Options) -> Callable[[Client, Sequence[bytes]], Request]:
    """Make a `prepare` for NAME name [OPTION value ...]."""

    def prepare(client: Client, args: Sequence[bytes]) -> Request:
        made = request(client, name=word(args[1]))
        return request(client, name=made.name, given=options(args[2:], known, made.today))

    return prepare


# -- running


def checked(run: Callable[[Store, DBTxn, Request], Value]) -> Callable[..., Value]:
    """Turn what the catalog refuses into an error reply, with its code as the first word."""

    def checked_run(store: Store, txn: DBTxn, asked: Request) -> Value:
        try:
            return run(store, txn, asked)
        except (CatalogError, UserError) as error:
            raise refusal(error) from error

    return checked_run


# What the catalog's words are for refusals about users and groups.
_WORDS: Final = {
    "USER_NAME": "INVALID",
    "USER_GROUP": "INVALID",
    "GROUP_NAME": "INVALID",
    "GROUP_GRANTS": "INVALID",
    "USER_EXISTS": "EXISTS",
    "GROUP_EXISTS": "EXISTS",
    "USER_UNKNOWN": "NOTFOUND",
    "GROUP_UNKNOWN": "NOTFOUND",
    "USER_LAST": "INUSE",
    "GROUP_USED": "INUSE",
    "USER_BUILTIN": "REFUSED",
}


def refusal(error: CatalogError | UserError) -> CommandError:
    """The error reply of a refusal."""
    return CommandError(f"{_WORDS.get(error.code, error.code)} {error}")


def must(store: Store, txn: DBTxn, asked: Request, right: Right, customer: str | None) -> None:
    """Refuse what the user may not do.

    Raises:
        CatalogError: NOPERM.
    """
    store.catalog.store.files(txn)  # in the loop, only with all files open
    store.access.must(txn, asked.actor.user, right, customer)


# -- lists


@dataclass(frozen=True, slots=True)
class Rows:
    """A page of a list, encoded, and where the next one goes on."""

    rows: Encoded
    after: bytes | None


def rows_of(asked: Request, rows: list[Value], after: bytes | None) -> Rows:
    """Encode a page, on the thread that read it."""
    return Rows(Encoded(encode(rows, asked.protocol)), after)


def rows_reply(client: Client, page: Rows) -> Value:
    """Make the reply, and the cursor that goes on from there."""
    if page.after is None:
        return [b"0", page.rows]
    cursor = client.server.cursors.add(client.id, client.user, page.after)
    return [b"%d" % cursor, page.rows]


def place_of(client: Client, argument: bytes) -> bytes | None:
    """Find where a cursor goes on; None for the start.

    Raises:
        CommandError: it is unknown, or was given up.
    """
    cursor = unsigned(argument, "ERR invalid cursor")
    if cursor == 0:
        return None
    after = client.server.cursors.place(cursor, client.user)
    if after is None:
        raise CommandError("ERR this cursor has expired or is not yours: start again with 0")
    return after


def page_size(value: str, _today: date) -> int:
    """COUNT of a list.

    Raises:
        CommandError: it is no number above 0.
    """
    return min(positive(value.encode()), PAGE_MAX)


def listing(known: Options) -> Callable[[Client, Sequence[bytes]], Request]:
    """Make a `prepare` for LIST cursor [OPTION value ...]."""

    def prepare(client: Client, args: Sequence[bytes]) -> Request:
        after = place_of(client, args[1])
        today = request(client).today
        return request(client, given=options(args[2:], known, today), after=after)

    return prepare


# -- the table


def always(_args: Sequence[bytes]) -> bool:
    """Lists are read on a thread: a page of them takes longer than the loop may stand still."""
    return True


def command(
    name: str,
    arity: int,
    kind: Kind,
    run: Callable[[Store, DBTxn, Request], Value],
    usage: str,
    summary: str,
    prepare: Callable[[Client, Sequence[bytes]], Request],
    **more: Any,
) -> Command:
    """One command of the catalog."""
    return Command(
        name,
        arity,
        kind,
        checked(run),
        summary,
        usage,
        group=more.pop("group", "catalog"),
        complexity=more.pop("complexity", "O(log(N))"),
        prepare=prepare,
        **more,
    )


read = partial(command, kind=Kind.READ)
write = partial(command, kind=Kind.WRITE)
