"""Commands about a site as it is: `status`, `sites`, `events`."""

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.live import Live
from rich.text import Text

from replication.journal_line import Line, parse_line
from replication.journal_reader import follow, tail
from ttserver.cli.frame import (
    EXIT_ALARM,
    EXIT_FAILED,
    HomeOption,
    JsonOption,
    daemon_of,
    home_of,
    print_json,
    sentence,
)
from ttserver.control_client import ControlError
from ttserver.errors import TtserverError
from ttserver.home import Home
from ttserver.render import console, history_table, sites_table, status_view
from ttserver.summary import one_line

_EVENT_STYLES = {
    "alarm": "bold red",
    "failed": "red",
    "lost": "yellow",
    "refused": "yellow",
    "rejected": "yellow",
    "stalled": "yellow",
    "lagging": "yellow",
}


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.command("status")(_status)
    app.command("sites")(_sites)
    app.command("events")(_events)


def _status(
    ctx: typer.Context,
    home: HomeOption = None,
    as_json: JsonOption = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Refresh until Ctrl-C.")] = False,
    interval_s: Annotated[
        float, typer.Option("--interval", min=0.1, help="With --watch: seconds between two looks.")
    ] = 1.0,
    history: Annotated[
        bool, typer.Option("--history", help="Show the last changes of role and elections.")
    ] = False,
) -> int:
    """Show what the site is, whom it follows, how far behind it is, and why it waits.

    Exit status 0 when the site is running, 1 when it is not (start-pending, stopping, no daemon),
    3 when there is an alarm: something it waits for made no progress for `[status] alarm_after_s`.
    """
    site = home_of(ctx, home)
    if watch:
        _watch(site, as_json=as_json, interval_s=interval_s)
        return 0
    status = _fetch(site)
    if as_json:
        print_json(status["history"] if history else status)
    else:
        console().print(history_table(status["history"]) if history else status_view(status))
    if status["alarms"]:
        return EXIT_ALARM
    return 0 if status["state"] == "running" else EXIT_FAILED


def _fetch(site: Home) -> dict[str, Any]:
    with daemon_of(site) as daemon:
        return dict(daemon.ask("status"))


def _looks(site: Home, interval_s: float) -> Iterator[dict[str, Any] | ControlError]:
    """Ask again and again; a daemon that is down is a look too, since it may come back."""
    while True:
        try:
            yield _fetch(site)
        except ControlError as error:
            yield error
        time.sleep(interval_s)


def _watch(site: Home, *, as_json: bool, interval_s: float) -> None:
    out = console()
    with contextlib.suppress(KeyboardInterrupt):
        if as_json:
            for look in _looks(site, interval_s):
                print_json(_error_json(look) if isinstance(look, ControlError) else look)
        elif out.is_terminal:
            with Live(console=out, auto_refresh=False, vertical_overflow="visible") as live:
                for look in _looks(site, interval_s):
                    live.update(_screen(look), refresh=True)
        else:
            _watch_lines(_looks(site, interval_s), lambda line: out.print(Text(line)))


def _watch_lines(
    looks: Iterator[dict[str, Any] | ControlError], write: Callable[[str], None]
) -> None:
    """Write a line whenever something changed: what goes to a file should not fill it."""
    last = None
    for look in looks:
        line = sentence(look) if isinstance(look, ControlError) else one_line(look)
        if line != last:
            write(f"{datetime.now().astimezone():%H:%M:%S} {line}")
            last = line


def _screen(look: dict[str, Any] | ControlError) -> RenderableType:
    if isinstance(look, ControlError):
        return Text(f"  {sentence(look)}", style="bold red")
    return status_view(look)


def _error_json(error: ControlError) -> dict[str, Any]:
    return {"error": {"code": error.code, "message": sentence(error), "hint": error.hint}}


def _sites(ctx: typer.Context, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the other sites of the group."""
    with daemon_of(home_of(ctx, home)) as daemon:
        sites = daemon.ask("sites")
    if as_json:
        print_json(sites)
    else:
        console().print(sites_table(sites))


def _events(
    ctx: typer.Context,
    home: HomeOption = None,
    lines: Annotated[
        int, typer.Option("-n", "--lines", min=0, help="How many of the last lines.")
    ] = 20,
    keep_on: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with each new line until Ctrl-C.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the replication journal ($DB_Msg.txt), whether or not the daemon runs."""
    site = home_of(ctx, home)
    site.must_exist()
    try:
        found = follow(site.journal, lines) if keep_on else tail(site.journal, lines)
        out = console()
        with contextlib.suppress(KeyboardInterrupt):
            for text in found:
                if as_json:
                    print_json(_event_json(text))
                else:
                    out.print(_event_text(text), soft_wrap=True)
    except FileNotFoundError:
        raise TtserverError(
            f"journal {site.journal} does not exist: no daemon ran on this home yet",
            code="NOJOURNAL",
            hint=f"start it: ttserver --home {site.root} run",
        ) from None


def _event_json(text: str) -> dict[str, Any]:
    line = parse_line(text)
    if line is None:
        return {"event": None, "text": text}
    return {
        "time": line.time,
        "role": line.role,
        "site": line.site,
        "event": line.event,
        "facts": line.facts,
    }


def _event_text(text: str) -> Text:
    """Colour a line of ours so that the eye finds its event; the library's stay as they are."""
    line = parse_line(text)
    if line is None:
        return Text(text, style="dim")
    shown = Text(text)
    start = text.index(f" {line.event}") + 1
    shown.stylize("dim", 0, start)
    shown.stylize(_event_style(line), start, start + len(line.event))
    return shown


def _event_style(line: Line) -> str:
    return next(
        (style for word, style in _EVENT_STYLES.items() if word in line.event.split("_")), "bold"
    )
