"""The program itself: global options, the list of commands, what becomes of every error."""

import os
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from ttserver import __version__
from ttserver.cli import adopt, archive, comparing, group, live, promote, rollback, service, users
from ttserver.cli.frame import (
    EXIT_FAILED,
    EXIT_USAGE,
    EXPECTED,
    HomeOption,
    exit_status,
    print_error,
    print_usage_error,
)

_INTERRUPTED = 130  # what a shell reports for a program ended by Ctrl-C

app = typer.Typer(
    name="ttserver",
    help="A highly available Berkeley DB server: the operator's program.",
    epilog="Exit status: 0 success, 1 the operation failed, 2 usage or configuration.",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
service.register(app)
live.register(app)
group.register(app)
promote.register(app)
adopt.register(app)
archive.register(app)
comparing.register(app)
rollback.register(app)
users.register(app)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"ttserver {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    ctx: typer.Context,
    home: HomeOption = None,
    version: Annotated[  # noqa: ARG001 - its callback has done all there is to do
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    ctx.obj = home
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())
        raise typer.Exit(EXIT_USAGE)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and end the process with its exit status."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run one command line.

    Returns:
        The exit status: 0 success, 1 the operation failed, 2 usage or configuration.
    """
    try:
        status = app(list(arguments), standalone_mode=False, prog_name="ttserver")
    except typer.Abort:
        print_usage_error("stopped: nothing was changed", "")
        return EXIT_FAILED
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        _forget_stdout()
        return EXIT_FAILED
    except typer.TyperException as error:
        return _usage(error)
    except EXPECTED as error:
        print_error(error)
        return exit_status(error)
    return status if isinstance(status, int) else 0


def _usage(error: typer.TyperException) -> int:
    text = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "ttserver"
    print_usage_error(text[:1].lower() + text[1:], f"see `{command} --help`")
    return EXIT_USAGE


def _forget_stdout() -> None:
    # `ttserver events | head`: the interpreter would complain again when it flushes at its end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
