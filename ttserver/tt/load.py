"""`tt load`: volumes from a CSV file. Bad rows are reported by their line, good rows are added.

A row whose volume is there already is left alone, so a file can be loaded again after it was
interrupted, or corrected. Rows are sent without waiting for each; the server commits them together.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from ttserver.client.base import BATCH
from ttserver.client.errors import ClientError, NotNow, OutcomeUnknown
from ttserver.errors import ConfigurationError
from ttserver.render import console
from ttserver.tt.frame import (
    DryRunOption,
    JsonOption,
    ServerOption,
    exit_if,
    notice,
    print_json,
    session_of,
)
from ttserver.tt.session import Session

# Columns, and the option of VOLUME.ADD each becomes.
COLUMNS: Final[Mapping[str, str]] = {
    "repository": "IN",
    "description": "DESCRIPTION",
    "date": "DATE",
    "container": "CONTAINER",
    "home": "HOME",
    "overdue": "OVERDUE",
    "notes": "NOTES",
    "flags": "FLAGS",
}
NAMES: Final = ("customer", "media", "volume")
NO_DATE: Final = "1970-01-01"  # what other programs write when there is none
# While the master changes some rows of a batch are left behind, or it is not known whether they
# were added: sent again they are, or are there already. More than these, and no master comes.
AGAIN_MAX: Final = 10
AGAIN_ROWS_MAX: Final = 2 * BATCH
_BLANK: Final = re.compile(r"\s+")


class Row(NamedTuple):
    """One row of the file.

    Args:
        line: where it begins, from 1.
        name: the volume.
        options: of VOLUME.ADD.
        bad: why it cannot be sent; None when it can.
    """

    line: int
    name: str
    options: tuple[str, ...]
    bad: str | None = None


class Loaded:
    """What became of the rows."""

    def __init__(self) -> None:
        self.added = 0
        self.there = 0
        self.unconfirmed = 0
        self.bad: list[tuple[int, str]] = []

    def reject(self, line: int, why: str) -> None:
        """Report a bad row at once: the file may be long."""
        self.bad.append((line, why))
        print(f"line {line}: {why}", file=sys.stderr)


def register(app: typer.Typer) -> None:
    """Add this verb to the program."""
    app.command("load")(_load)


def _load(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="CSV; - is standard input.")],
    customer: Annotated[str, typer.Option("--customer", help="Of rows that name none.")] = "",
    media: Annotated[str, typer.Option("--media", help="Of rows that name none.")] = "",
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    server: ServerOption = None,
) -> None:
    """Add the volumes of a CSV file: volume,repository,description,date and more.

    Further columns: customer, media, container, home, overdue, notes, flags. The date 1970-01-01 is
    none. Volumes that are there already are left alone.
    """
    text = _text_of(file)
    rows = read_rows(file, io.StringIO(text, newline=""), customer, media)
    loaded = Loaded()
    with session_of(ctx, server) as session, progress(text.count("\n")) as advance:
        send_rows(session, rows, loaded, advance, dry_run=dry_run)
    tell(loaded, dry_run=dry_run, as_json=as_json)
    exit_if(len(loaded.bad) + loaded.unconfirmed)


def read_rows(
    file: str, lines: Iterable[str], customer: str = "", media: str = ""
) -> Iterator[Row]:
    """Read a CSV file row by row.

    Args:
        file: its name, for messages.
        lines: its lines.
        customer, media: of rows that name none.

    Raises:
        ConfigurationError: its first line lacks a column, or has one twice.
    """
    reader = csv.DictReader(lines)
    columns = [name.strip().lower() for name in reader.fieldnames or ()]
    _check_columns(file, columns)
    reader.fieldnames = columns
    return _rows(reader, customer, media)


def send_rows(
    session: Session,
    rows: Iterable[Row],
    loaded: Loaded,
    advance: Callable[[], None],
    *,
    dry_run: bool = False,
) -> None:
    """Add a volume for each row, and go on with those to come when the master changes.

    Args:
        session: logged on.
        rows: those that cannot be sent are reported, too.
        loaded: gets what becomes of them.
        advance: called after each.
        dry_run: ask only what would become of them.

    Raises:
        TtserverError: no server takes them, or the connection broke.
    """
    verb = "VOLUME.CHECK" if dry_run else "VOLUME.ADD"
    ask = session.read_all if dry_run else session.write_all
    for _ in range(AGAIN_MAX):
        rows = again = _send(rows, verb, ask, loaded, advance)
        if not again:
            return
    for row in again:
        loaded.reject(row.line, f"volume {row.name}: the server takes no updates now")


def _text_of(file: str) -> str:
    try:
        if file == "-":
            return sys.stdin.read()
        return Path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(
            f"file {file} cannot be read: {why}", code="FILE", hint="look at its name and rights"
        ) from error


def _check_columns(file: str, columns: Sequence[str]) -> None:
    if "volume" not in columns:
        raise ConfigurationError(
            f"file {file} has no column `volume` in its first line",
            code="FILE",
            hint="begin it with volume,repository,description,date",
        )
    for name in columns:
        if columns.count(name) > 1:
            raise ConfigurationError(
                f"file {file} has the column `{name}` twice", code="FILE", hint="take one out"
            )
    unknown = [name for name in columns if name not in COLUMNS and name not in NAMES]
    if unknown:
        notice(f"columns that are not used: {', '.join(unknown)}")


def _rows(reader: csv.DictReader[str], customer: str, media: str) -> Iterator[Row]:
    before = 1
    seen: dict[str, int] = {}
    while True:
        line = before + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            yield Row(reader.line_num, "", (), f"it is no CSV: {error}")
            before = reader.line_num
            continue
        if fields is None:
            return
        before = reader.line_num
        row = _row(line, fields, customer, media)
        if row.bad is None and row.name in seen:
            row = row._replace(bad=f"volume {row.name}: it is in line {seen[row.name]}, too")
        seen.setdefault(row.name, line)
        yield row


def _row(line: int, fields: Mapping[Any, Any], customer: str, media: str) -> Row:
    if None in fields:
        return Row(line, "", (), "it has more fields than the first line has columns")
    if None in fields.values():
        return Row(line, "", (), "it has fewer fields than the first line has columns")
    values = {name: value.strip() for name, value in fields.items()}
    volume = values["volume"]
    if not volume:
        return Row(line, "", (), "its volume is empty")
    owner, kind = values.get("customer") or customer, values.get("media") or media
    if "." not in volume:
        if not owner or not kind:
            why = f"volume {volume}: no customer or media type: give --customer and --media"
            return Row(line, volume, (), why)
        volume = f"{owner}.{kind}.{volume}"
    options: list[str] = []
    for name, word in COLUMNS.items():
        value = _BLANK.sub(" ", values.get(name, ""))
        if value and not (name == "date" and value == NO_DATE):
            options += [word, value]
    return Row(line, volume, tuple(options))


def _send(
    rows: Iterable[Row],
    verb: str,
    ask: Callable[..., Iterator[Any]],
    loaded: Loaded,
    advance: Callable[[], None],
) -> list[Row]:
    """Send rows and note what becomes of them; gives those that have to be sent again."""
    again: list[Row] = []
    sent: list[Row] = []

    def commands() -> Iterator[Sequence[object]]:
        for row in rows:
            if row.bad is not None:
                loaded.reject(row.line, row.bad)
                advance()
            else:
                sent.append(row)
                yield (verb, row.name, *row.options)

    for number, answer in enumerate(ask(commands())):
        row = sent[number]
        if isinstance(answer, NotNow | OutcomeUnknown):
            again.append(row)
            if len(again) > AGAIN_ROWS_MAX:
                raise answer
            continue
        advance()
        if not isinstance(answer, ClientError):
            loaded.added += 1
        elif answer.code == "EXISTS":
            loaded.there += 1
        elif answer.code == "PERMFAILED":
            loaded.unconfirmed += 1
        else:
            loaded.reject(row.line, f"volume {row.name}: {answer}")
            if answer.code in ("READONLY", "NOPERM") and answer.hint:
                raise answer  # the others would be refused for the same reason
    return again


def tell(loaded: Loaded, *, dry_run: bool, as_json: bool) -> None:
    """Say what became of the rows."""
    if as_json:
        print_json(
            {
                "added": loaded.added,
                "there": loaded.there,
                "unconfirmed": loaded.unconfirmed,
                "bad": [{"line": line, "why": why} for line, why in loaded.bad],
                "dry": dry_run,
            }
        )
        return
    verb = "would be added" if dry_run else "added"
    print(f"{loaded.added} {verb}, {loaded.there} there already, {len(loaded.bad)} bad")
    if loaded.unconfirmed:
        notice(
            f"{loaded.unconfirmed} were added on the master alone: no other site has confirmed"
            " them in time"
        )


@contextmanager
def progress(total: int) -> Iterator[Callable[[], None]]:
    """Show a bar where somebody watches."""
    screen = console(stderr=True)
    if not screen.is_terminal:
        yield lambda: None
        return
    columns = (TextColumn("loading"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True) as progress:
        task = progress.add_task("load", total=total)
        yield lambda: progress.advance(task)
