"""Runs the demo: `script/server`, or `python -m ttserver.demo` where everything is installed."""

import argparse
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.text import Text

from ttserver.cli.frame import print_error
from ttserver.demo import screen
from ttserver.demo.group import Group
from ttserver.demo.site import SiteError
from ttserver.demo.walk import Step, Walk

DIRECTORY = Path("var-demo")


def main(arguments: Sequence[str]) -> int:
    """Run the demo until Ctrl-C, or the walk-through to its end.

    Returns:
        The exit status: 0 everything went well, 1 a step failed.
    """
    parser = argparse.ArgumentParser(
        prog="script/server",
        description="Run a master and a replicant with sample data on this machine.",
    )
    parser.add_argument(
        "directory",
        nargs="?",
        type=Path,
        help=f"where the two sites are kept; {DIRECTORY}, or a temporary one with --smoke",
    )
    parser.add_argument(
        "--smoke", action="store_true", help="do the whole walk-through unattended, then end"
    )
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    if options.smoke:
        return smoke(options.directory)
    return serve(options.directory or DIRECTORY)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def smoke(given: Path | None) -> int:
    """Do every step with ports of the kernel's choice, stop both sites, and clean up.

    Args:
        given: where the sites are kept; None for a directory that goes when all went well.
    """
    directory = given or Path(tempfile.mkdtemp(prefix="ttserver-smoke-"))
    group = Group(directory, kernel_ports=True)
    done = False
    try:
        done = (
            screen.run(group, lambda tell: Walk(group, tell).steps())
            and screen.run(group, lambda tell: Walk(group, tell).journal_steps())
            and screen.run(group, lambda _: [Step("stop both", lambda: _stop(group))])
        )
    except KeyboardInterrupt:
        screen.say("FAIL  ", "bold red", "the walk-through was interrupted")
    finally:
        group.stop()
    if not done:
        screen.say("kept  ", "bold", str(group.directory))
        return 1
    if given is None:
        shutil.rmtree(directory)
    return 0


def _stop(group: Group) -> str:
    statuses = group.stop()
    if statuses != [0, 0]:
        raise SiteError(f"replicant and master ended with exit statuses {statuses}")
    return "exit status 0"


def serve(directory: Path) -> int:
    """Bring both sites up, say what to try, show how they are until Ctrl-C."""
    group = Group(directory)
    try:
        if not screen.run(group, lambda tell: Walk(group, tell).steps()):
            return 1
        screen.invite(group)
        screen.follow(group)
    except KeyboardInterrupt:
        return 0
    except SiteError as error:
        print_error(error)
        return 1
    finally:
        group.stop()
        screen.out.print(Text(f"\nboth are stopped; {group.directory} keeps them"), soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
