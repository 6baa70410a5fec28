"""Commands about writes that were taken back: `rollback list|show|reapply|accept`."""

import contextlib
from base64 import b64decode
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from replication.journal_line import printable
from storage.errors import StorageError
from storage.ledger import Entry, Head, Ledgers, Outcome
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
from ttserver.render import console
from ttserver.summary import lsn_text

VALUE_CHARS_MAX = 60  # of a value on a screen; `--json` has all of it

LedgerArgument = Annotated[
    str | None,
    typer.Argument(metavar="LEDGER", help="As `rollback list` names it; the last one if left out."),
]


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    group = typer.Typer(
        name="rollback",
        help="Writes of this site that were taken back, because a new master did not have them.",
        no_args_is_help=False,
    )
    group.command("list")(_list)
    group.command("show")(_show)
    group.command("reapply")(_reapply)
    group.command("accept")(_accept)
    app.add_typer(group)


def _list(ctx: typer.Context, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the ledgers of this site, the oldest first, whether or not the daemon runs."""
    ledgers = _ledgers(ctx, home)
    heads = ledgers.heads()
    if as_json:
        print_json([{"ledger": head, "outcome": ledgers.outcome(head.id)} for head in heads])
        return
    if not heads:
        console().print("nothing was taken back on this site")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("ledger", "found", "master", "back to", "writes", "differences", "written again"):
        right = name in {"writes", "differences"}
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    for head in heads:
        table.add_row(
            Text(head.id, style="bold"),
            Text(head.found.replace("T", " ").replace("+00:00", "Z")),
            Text(head.master or "-"),
            Text(lsn_text(head.sync_point)),
            Text(str(head.writes)),
            Text(str(head.differences)),
            Text(_outcome(ledgers.outcome(head.id))),
        )
    console().print(table)


def _outcome(outcome: Outcome | None) -> str:
    if outcome is None:
        return "no"
    done = outcome.applied + outcome.same
    return "yes" if outcome.settled else f"{done} of {done + len(outcome.left)}"


def _show(
    ctx: typer.Context,
    ledger: LedgerArgument = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a ledger holds: each key with its value of before and after the write.

    With --json one object a line, the ledger first; keys and values are base64 there.
    """
    ledgers = _ledgers(ctx, home)
    head = chosen(ledgers, ledger)
    if as_json:
        print_json(head)
        for entry in ledgers.entries(head.id):
            print_json(entry)
        return
    out = console()
    for line in _headlines(head):
        out.print(Text(line), soft_wrap=True)
    last = 0
    for entry in ledgers.entries(head.id):
        if entry.write != last:
            last = entry.write
            out.print(Text(_write_line(entry), style="dim"), soft_wrap=True)
        out.print(Text(f"  {_change(entry)}"), soft_wrap=True)


def _headlines(head: Head) -> list[str]:
    master = head.master or "its master"
    lines = [
        f"{head.site} took back what {master} (generation {head.generation}) did not have",
        f"{head.commits} commits, from {lsn_text(head.sync_point)} to {lsn_text(head.log_end)}",
    ]
    if head.unexplained:
        lines.append(
            f"{head.unexplained} of the commits were not this site's own writes, or are not known"
            " any more; what they changed was found by comparing the databases"
        )
    if not head.exact:
        lines.append("`before` may be of a later time than the roll-back")
    return lines


def _write_line(entry: Entry) -> str:
    if entry.lsn is None or entry.time_s is None:
        return f"{entry.write}  difference"
    time = datetime.fromtimestamp(entry.time_s, UTC).isoformat(" ", "milliseconds")[:23]
    return f"{entry.write}  {time}Z  lsn {lsn_text(entry.lsn)}  by {printable(entry.user or '-')}"


def _change(entry: Entry) -> str:
    name = f"{entry.file} {shown(entry.key)}"
    if entry.hidden:
        return f"{name}: {'removed' if entry.after is None else 'changed'} (value not kept)"
    return f"{name}: {shown(entry.before)} -> {shown(entry.after)}"


def shown(value: bytes | None) -> str:
    """Write a key or value for a screen."""
    if value is None:
        return "(none)"
    text = value[: VALUE_CHARS_MAX + 1].decode("utf-8", "backslashreplace")
    text = printable(text[:VALUE_CHARS_MAX])
    more = f"... ({len(value)} bytes)" if len(value) > VALUE_CHARS_MAX else ""
    return f'"{text}"{more}'


def _reapply(
    ctx: typer.Context,
    ledger: LedgerArgument = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Write a ledger's writes again on the master of today, where nothing else was written since.

    Each client's write as a whole, in their order. One is left alone when a key of it has another
    value today than before it; those are named, and exit status is 1. What is there already is not
    written twice, so this may be repeated.
    """
    head = chosen(_ledgers(ctx, home), ledger)
    err = console(stderr=True)
    with daemon_of(home_of(ctx, home)) as daemon:
        report = daemon.ask(
            "rollback-reapply",
            on_line=lambda line: err.print(Text(str(line["progress"]))),
            ledger=head.id,
        )
    if as_json:
        print_json(report)
    else:
        for line in _report(report):
            console().print(Text(line), soft_wrap=True)
    return EXIT_FAILED if report["left"] else 0


def _report(report: dict[str, Any]) -> Iterator[str]:
    counts = f"{report['applied']} written again, {report['same']} there already"
    left = len(report["left"])
    yield f"{report['ledger']}: {counts}, {left} left"
    if report["perm_failed"]:
        yield f"written, but not acknowledged: {report['perm_failed']}"
    for each in report["conflicts"]:
        key, now = (None if each[x] is None else b64decode(each[x]) for x in ("key", "now"))
        yield f"write {each['write']}: {shown(key)} is {shown(now)} today; left as it is"
    more = report["conflict"] - len(report["conflicts"])
    if more:
        yield f"and {more} more whose keys have other values today"
    for why in report["why_skipped"]:
        yield f"left out: {why}"


def _accept(
    ctx: typer.Context, home: HomeOption = None, yes: YesOption = False, as_json: JsonOption = False
) -> int:
    """Let this site take its writes back, when it asks whether it may; they are listed first."""
    with daemon_of(home_of(ctx, home)) as daemon:
        why = daemon.ask("rollback-question")["why"]
    err = console(stderr=True)
    err.print(Text(why), soft_wrap=True)
    if not confirmed("Take these writes back?", yes=yes):
        err.print("nothing was changed")
        return EXIT_FAILED
    with daemon_of(home_of(ctx, home)) as daemon:
        answer = daemon.ask("rollback-accept")
    if as_json:
        print_json(answer)
    else:
        console().print("accepted; `ttserver status` shows how far it is")
    return 0


def _ledgers(ctx: typer.Context, home: Any) -> Ledgers:
    site = home_of(ctx, home)
    site.must_exist()
    return Ledgers(site.rollbacks)


def chosen(ledgers: Ledgers, name: str | None) -> Head:
    """Find a ledger by its name; without one the last.

    Raises:
        StorageError: there is none.
    """
    if name is not None:
        return ledgers.head(name)
    with contextlib.suppress(IndexError):
        return ledgers.heads()[-1]
    raise StorageError(
        "nothing was taken back on this site: there is no ledger",
        code="LEDGER_UNKNOWN",
        hint="ledgers lie on the site whose writes were taken back; see its journal.",
    )
