"""What a person sees of the demo: a line for each step, what to try, the two sites as they are."""

import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

from rich.console import Group as Lines
from rich.console import RenderableType
from rich.live import Live
from rich.text import Text

from storage.users import ADMINISTRATOR
from ttserver.cli.frame import EXPECTED, sentence
from ttserver.demo.group import Group
from ttserver.demo.site import SiteError, SiteProcess
from ttserver.demo.walk import FIRST, LIVE_KEY, Step
from ttserver.errors import hint_of
from ttserver.render import console, status_view
from ttserver.summary import one_line

LOOK_S = 1.0
# What a step may fail with and still be no bug of the demo.
FAILURES = (*EXPECTED, ValueError)

out = console()


def say(label: str, style: str, text: str) -> None:
    """Print one line that begins with a coloured label."""
    out.print(Text.assemble((label, style), text), soft_wrap=True)


def run(group: Group, steps: Callable[[Callable[[str], None]], Iterable[Step]]) -> bool:
    """Do step after step; tell why and show the logs when one fails.

    Args:
        group: the sites.
        steps: gives them; gets what to call with how far the step under way is.
    """
    with out.status("") as shown:
        for step in steps(lambda text: shown.update(Text(text))):
            shown.update(Text(step.title))
            try:
                fact = step.act()
            except FAILURES as error:
                _fail(group, step, error)
                return False
            say("ok    ", "green", f"{step.title}: {fact}")
    return True


def _fail(group: Group, step: Step, error: Exception) -> None:
    say("FAIL  ", "bold red", f"{step.title}: {sentence(error)}")
    if hint := hint_of(error):
        say("HINT: ", "dim", hint)
    for site in group.sites:
        out.print(Text(site.tail()), soft_wrap=True)


def invite(group: Group) -> None:
    """Print commands that a reader can paste into another terminal."""
    master, replicant = (f"{_program('tt')} -S {_server(group, site)}" for site in group.sites)
    keys_on_master, keys_on_replicant = (group.redis_cli(site) for site in group.sites)
    password = shlex.quote(group.password)
    blocks = (
        (
            "The replicant has the whole catalog:",
            f"export TT_PASSWORD={password}   # tapemaster's",
            f"{replicant} volume get {FIRST}",
            f"{replicant} volume list 'US04.LTO.*' --in LIBR --limit 5",
            f"{replicant} report library US04.LTO.LIBR",
        ),
        (
            "Move a tape on the master, see it arrive on the replicant:",
            f"{master} volume move {FIRST} SCRT",
            f"{replicant} volume list --flag M",
            f"{master} volume confirm {FIRST}",
            f"{replicant} history {FIRST}",
            f"{master} expire 'US01.*' --dry-run",
        ),
        (
            "The replicant takes no updates, and says who does:",
            f"{replicant} volume move {FIRST} LIBR",
        ),
        (
            "Plain keys work the same way, from any Redis client:",
            f"export REDISCLI_AUTH={password}",
            f"{keys_on_replicant} GET {LIVE_KEY}",
            f"{keys_on_replicant} RANGE - +",
            f"{keys_on_replicant} SET {LIVE_KEY} mine",
            f"{keys_on_master} SET {LIVE_KEY} 'hello from the master'",
            f"{keys_on_replicant} GET {LIVE_KEY}",
        ),
        (
            "How the two are, and what they noted:",
            *(
                f"{_program('ttserver')} --home {_short(site.home.root)} status"
                for site in group.sites
            ),
            f"{_program('ttserver')} --home {_short(group.replicant.home.root)} events",
        ),
    )
    out.print(Text("\nBoth sites run. Paste into another terminal:", style="bold"))
    for title, *commands in blocks:
        out.print(Text(f"\n  {title}"))
        for command in commands:
            out.print(Text(f"    {command}", style="cyan"), soft_wrap=True)
    if shutil.which("redis-cli") is None:
        out.print(Text("\n  redis-cli is not installed: apt-get install redis-tools"))
    out.print(Text("\nCtrl-C stops both.\n", style="bold"))


def _server(group: Group, site: SiteProcess) -> str:
    return f"{ADMINISTRATOR}@{group.clients(site)}"


def _program(name: str) -> str:
    """One of ours as it is called from here."""
    program = Path(sys.executable).with_name(name)
    module = {"tt": "ttserver.tt", "ttserver": "ttserver"}[name]
    return _short(program) if program.exists() else f"{_short(Path(sys.executable))} -m {module}"


def _short(path: Path) -> str:
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


def follow(group: Group) -> NoReturn:
    """Show both sites until Ctrl-C; a terminal gets tables, anything else a line a change.

    Raises:
        SiteError: one of the daemons ended.
    """
    if out.is_terminal:
        with Live(console=out, auto_refresh=False) as live:
            while True:
                live.update(Lines(*(_view(site) for site in group.sites)), refresh=True)
                _sleep_while_alive(group)
    last: dict[str, str] = {}
    while True:
        for site in group.sites:
            line = _line(site)
            if last.get(site.name) != line:
                out.print(Text(f"{time.strftime('%H:%M:%S')} {line}"), soft_wrap=True)
                last[site.name] = line
        _sleep_while_alive(group)


def _sleep_while_alive(group: Group) -> None:
    for site in group.sites:
        if not site.alive:
            raise SiteError(f"the {site.name} has ended", hint=f"see {site.log}")
    time.sleep(LOOK_S)


def _view(site: SiteProcess) -> RenderableType:
    status = site.status()
    return status_view(status) if status else Text(f"  the {site.name} does not answer")


def _line(site: SiteProcess) -> str:
    status = site.status()
    return f"{site.name:<9} {one_line(status) if status else 'does not answer'}"
