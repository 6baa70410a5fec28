"""What all verbs of `tt` share: the server, names from arguments and files, what is shown how."""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ttserver.client.errors import ClientError, OutcomeUnknown
from ttserver.errors import ConfigurationError
from ttserver.render import console
from ttserver.server_string import find_servers
from ttserver.tt.session import Command, Session

EXIT_FAILED: Final = 1
PIPE_WIDTH: Final = 1000
_FIRST_WORD: Final = re.compile(r"""[\s"']*([^\s,;#"']+)""")

ServerOption = Annotated[
    str | None,
    typer.Option(
        "-S",
        "--server",
        metavar="USER:PASSWORD@SERVER:PORT",
        help="The server; parts may be left out, several servers stand between commas. Else"
        " $TT_SERVER, else localhost:5000. The password else from $TT_PASSWORD, else asked for.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
CsvOption = Annotated[bool, typer.Option("--csv", help="Print CSV, for spreadsheets.")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Change nothing; tell what would be done.")
]
FileOption = Annotated[
    str | None,
    typer.Option("-f", "--file", help="Names from a file, one a line; - is standard input."),
]
MediaOption = Annotated[
    str,
    typer.Option("-m", "--media", help="CUSTOMER.MEDIA of names that are given by ID alone."),
]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Args:
        title: its head.
        value: what of a row it shows.
        style: of Rich.
        right: numbers stand at the right.
    """

    title: str
    value: Callable[[Mapping[str, Any]], object]
    style: str = ""
    right: bool = False


def field(title: str, name: str, style: str = "", *, right: bool = False) -> Column:
    """A column that shows a field as it is; `a.b` is a field of a field."""
    return Column(title, lambda row: part(row, name), style, right)


def part(row: Mapping[str, Any], name: str) -> object:
    """A field of a row, or a field of that field; None when there is none."""
    first, _, rest = name.partition(".")
    found = row.get(first)
    return part(found, rest) if rest and isinstance(found, Mapping) else (None if rest else found)


@contextmanager
def session_of(ctx: typer.Context, server: str | None = None) -> Iterator[Session]:
    """Give a session that ends with the block.

    Raises:
        ConfigurationError: the server string cannot be taken apart.
    """
    given = server if server is not None else ctx.obj
    session = Session(find_servers(given, os.environ), _ask_password, notice)
    try:
        yield session
    finally:
        session.close()


def _ask_password(question: str) -> str:
    if not sys.stdin.isatty():
        raise ConfigurationError(
            "password is missing: standard input is no terminal to ask at",
            code="NOPASSWORD",
            hint="give it in $TT_PASSWORD, or in the server string of $TT_SERVER",
        )
    answer: str = typer.prompt(question, hide_input=True, err=True)
    return answer


def notice(text: str) -> None:
    """Show something that is no result."""
    console(stderr=True).print(Text(f"NOTE: {text}", style="yellow"), soft_wrap=True)


def complain(text: str, hint: str | None = None) -> None:
    """Show an error of one of many."""
    print(f"tt: {text}", file=sys.stderr)
    if hint:
        print(f"HINT: {hint}", file=sys.stderr)


# -- showing


def show(
    rows: Iterable[Mapping[str, Any]],
    columns: Sequence[Column],
    *,
    as_json: bool,
    as_csv: bool,
    csv_columns: Sequence[Column] | None = None,
    empty: str = "nothing found",
) -> None:
    """Print rows as a table, as JSON or as CSV.

    Raises:
        ConfigurationError: as both.
    """
    one_format(as_json=as_json, as_csv=as_csv)
    if as_json:
        print_json(list(rows))
    elif as_csv:
        print_csv(rows, csv_columns or columns)
    else:
        print_table(rows, columns, empty)


def one_format(*, as_json: bool, as_csv: bool) -> None:
    """Refuse two formats at once.

    Raises:
        ConfigurationError: both are asked for.
    """
    if as_json and as_csv:
        raise ConfigurationError(
            "--json and --csv cannot both be given", code="USAGE", hint="choose one"
        )


def print_json(value: object) -> None:
    """Print JSON with the names the server uses."""
    json.dump(value, sys.stdout, ensure_ascii=False, indent=1)
    print()


def print_csv(rows: Iterable[Mapping[str, Any]], columns: Sequence[Column]) -> None:
    """Print CSV row by row, so a long list needs no memory."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([column.title for column in columns])
    for row in rows:
        writer.writerow([plain(column.value(row)) for column in columns])


def print_table(
    rows: Iterable[Mapping[str, Any]], columns: Sequence[Column], empty: str = ""
) -> None:
    """Print a table a person reads."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for number, column in enumerate(columns):
        # On a narrow screen all but the name go on in the next line; nothing is cut off.
        table.add_column(
            column.title,
            no_wrap=number == 0,
            overflow="fold",
            justify="right" if column.right else "left",
        )
    for row in rows:
        # Never markup: descriptions come from other people.
        table.add_row(*(Text(plain(one.value(row)), style=one.style) for one in columns))
    if table.row_count:
        _out().print(table)
    elif empty:
        notice(empty)


def _out() -> Console:
    """The screen; for a pipe, one wide enough for a row to stay a line."""
    made = console()
    return made if made.is_terminal else Console(highlight=False, width=PIPE_WIDTH)


def plain(value: object) -> str:
    """A value as text: yes and no, nothing for what is not there."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(map(plain, value))
    return str(value)


def print_facts(facts: Mapping[str, Any]) -> None:
    """Print one object, a line a field; what is not there is left out."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for name, value in facts.items():
        shown = place_text(value) if isinstance(value, Mapping) else plain(value)
        if shown:
            table.add_row(name.replace("_", " "), Text(shown))
    _out().print(table)


def place_text(place: Mapping[str, Any]) -> str:
    """A place of a volume, and how it came to it."""
    if "repository" not in place:
        return " ".join(f"{name}={plain(value)}" for name, value in place.items())
    at = str(place["at"])[:16].replace("T", " ")
    return f"{place['repository']} since {at} UTC by {place['by']} ({place['via']})"


# -- names


def names_of(names: Sequence[str], file: str | None, media: str) -> list[str]:
    """Take names from the arguments and a file; IDs alone get the media type before them.

    Raises:
        ConfigurationError: there are none, or the file cannot be read.
    """
    found = list(names)
    if file is not None:
        found += lines_of(file)
    if not found:
        raise ConfigurationError(
            "volume is missing", code="USAGE", hint="name one, or a file of names: -f FILE"
        )
    return [name if "." in name or not media else f"{media}.{name}" for name in found]


def lines_of(file: str) -> list[str]:
    """Read the first word of each line, as scanners and people write lists of volumes.

    What follows behind a blank, a comma or a semicolon is the scanner's, behind a `#` a comment.

    Raises:
        ConfigurationError: the file cannot be read.
    """
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(
            f"file {file} cannot be read: {why}", code="FILE", hint="look at its name and rights"
        ) from error
    return [found[1] for line in text.splitlines() if (found := _FIRST_WORD.match(line))]


# -- one command for each of many


def for_each(
    session: Session, names: Sequence[str], command: Callable[[str], Command]
) -> tuple[list[Any], int]:
    """Send one update for each name, and complain of those that are refused.

    Returns:
        The replies of the others, and how many were refused.
    """
    done: list[Any] = []
    failed = 0
    answers = session.write_all(command(name) for name in names)
    for name, answer in zip(names, answers, strict=True):
        if isinstance(answer, ClientError):
            failed += 1
            # The server's words name it; those of a lost connection do not.
            text = f"{name}: {answer}" if isinstance(answer, OutcomeUnknown) else str(answer)
            complain(text, answer.hint if len(names) == 1 else None)
        else:
            done.append(answer)
    return done, failed


def exit_if(failed: int) -> None:
    """End with the exit status of a failed operation if any failed."""
    if failed:
        raise typer.Exit(EXIT_FAILED)


def options(**given: object) -> list[object]:
    """Turn options into words of a command; what is None is left out."""
    words: list[object] = []
    for name, value in given.items():
        if value is not None:
            text = ("yes" if value else "no") if isinstance(value, bool) else value
            words += [name.upper().rstrip("_"), text]
    return words
