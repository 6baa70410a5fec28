"""`tt load`: volumes from a CSV file. Bad rows are reported by their line, good rows are added.

A row whose volume is there already is left alone, so a file can be loaded again after it was
interrupted, or corrected. Rows are sent without waiting for each; the server commits them together.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
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
from ttserver.tt.mapping import UNMAPPED, parse_map
from ttserver.tt.rows import Row, read_rows
from ttserver.tt.session import Session

# While the master changes some rows of a batch are left behind, or it is not known whether they
# were added: sent again they are, or are there already. More than these, and no master comes.
AGAIN_MAX: Final = 10
AGAIN_ROWS_MAX: Final = 2 * BATCH


class Loaded:
    """What became of the rows."""

    def __init__(self) -> None:
        self.added = 0
        self.there = 0
        self.unconfirmed = 0
        self.left_out = 0
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
    map_file: Annotated[
        str | None,
        typer.Option("--map", metavar="FILE", help="What its columns and words mean; TOML."),
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    server: ServerOption = None,
) -> None:
    """Add the volumes of a CSV file: volume,repository,description,date and more.

    Further columns: customer, media, container, home, overdue, notes, flags. The date 1970-01-01 is
    none. Volumes that are there already are left alone. For a file of another program --map names a
    mapping file.
    """
    mapped = UNMAPPED if map_file is None else parse_map(map_file, _text_of(map_file))
    given = {"customer": customer or mapped.customer, "media": media or mapped.media}
    text = _text_of(file)
    lines = io.StringIO(text, newline="")
    rows = read_rows(file, lines, msgspec.structs.replace(mapped, **given))
    loaded = Loaded()
    with session_of(ctx, server) as session, progress(text.count("\n")) as advance:
        send_rows(session, rows, loaded, advance, dry_run=dry_run)
    tell(loaded, dry_run=dry_run, as_json=as_json)
    exit_if(len(loaded.bad) + loaded.unconfirmed)


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
            if row.left_out:
                loaded.left_out += 1
                advance()
            elif row.bad is not None:
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
                "left_out": loaded.left_out,
                "bad": [{"line": line, "why": why} for line, why in loaded.bad],
                "dry": dry_run,
            }
        )
        return
    verb = "would be added" if dry_run else "added"
    left_out = f", {loaded.left_out} left out" if loaded.left_out else ""
    print(f"{loaded.added} {verb}, {loaded.there} there already, {len(loaded.bad)} bad{left_out}")
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
