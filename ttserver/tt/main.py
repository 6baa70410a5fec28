"""The program itself: global options, the list of verbs, what becomes of every error."""

import os
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from ttserver import __version__
from ttserver.errors import ConfigurationError, TtserverError, hint_of
from ttserver.ping import run as run_ping
from ttserver.server_string import find_servers
from ttserver.tt import accounts, jobs, load, objects, sample, volumes
from ttserver.tt.frame import ServerOption

_EXIT_FAILED = 1
_EXIT_USAGE = 2
_INTERRUPTED = 130  # what a shell reports for a program ended by Ctrl-C

app = typer.Typer(
    name="tt",
    help="Work with a ttserver: the users' program.",
    epilog="Exit status: 0 success, 1 the operation failed, 2 usage.",
    invoke_without_command=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"tt {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    ctx: typer.Context,
    server: ServerOption = None,
    version: Annotated[  # noqa: ARG001 - its callback has done all there is to do
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    ctx.obj = server
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())
        raise typer.Exit(_EXIT_USAGE)


@app.command()
def ping(
    ctx: typer.Context,
    server: ServerOption = None,
    count: Annotated[
        int | None,
        typer.Option("-c", "--count", min=1, help="Stop after so many; else at Ctrl-C."),
    ] = None,
    interval_s: Annotated[
        float,
        typer.Option("-i", "--interval", min=0.0, max=86400.0, help="Seconds between two."),
    ] = 1.0,
    timeout_s: Annotated[
        float,
        typer.Option("-W", "--timeout", min=0.001, max=3600.0, help="Seconds to wait for each."),
    ] = 5.0,
) -> None:
    """See whether a server answers, and how quickly. Needs no logon."""
    target = find_servers(server if server is not None else ctx.obj, os.environ)[0]
    status = run_ping(
        target,
        count=count,
        interval_s=interval_s,
        timeout_s=timeout_s,
        # Line by line also into a pipe: somebody is watching.
        out=lambda line: print(line, flush=True),
        advise=lambda hint: print(f"HINT: {hint}", file=sys.stderr, flush=True),
    )
    raise typer.Exit(status)


for family in (objects, volumes, load, sample, jobs, accounts):
    family.register(app)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and end the process with its exit status."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run one command line.

    Returns:
        The exit status: 0 success, 1 the operation failed, 2 usage.
    """
    try:
        status = app(list(arguments), standalone_mode=False, prog_name="tt")
    except (typer.Abort, KeyboardInterrupt):
        return _INTERRUPTED
    except BrokenPipeError:
        # `tt ping | head`: the interpreter would complain again when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _EXIT_FAILED
    except typer.TyperException as error:
        return _usage(error)
    except TtserverError as error:
        _print_error(str(error), hint_of(error))
        return _EXIT_USAGE if isinstance(error, ConfigurationError) else _EXIT_FAILED
    return status if isinstance(status, int) else 0


def _usage(error: typer.TyperException) -> int:
    text = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "tt"
    _print_error(text[:1].lower() + text[1:], f"see `{command} --help`")
    return _EXIT_USAGE


def _print_error(text: str, hint: str | None) -> None:
    print(f"tt: {text}", file=sys.stderr)
    if hint:
        print(f"HINT: {hint}", file=sys.stderr)
