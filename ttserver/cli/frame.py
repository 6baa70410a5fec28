"""What all commands share: which HOME, how errors look, how a password is read, exit statuses."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from replication.errors import ReplicationError
from storage.errors import ConfigError, StorageError
from ttserver.control_client import ControlClient
from ttserver.errors import ConfigurationError, TtserverError, hint_of
from ttserver.home import Home
from ttserver.render import console

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_ALARM = 3  # of `status` alone

EXPECTED = (TtserverError, StorageError, ReplicationError, OSError)

_SYSTEM_ADVICE = {
    errno.ENOSPC: "free some space on that file system, then try again",
    errno.EDQUOT: "free some space or raise the quota, then try again",
    errno.EROFS: "mount that file system writable (dmesg says why it is not)",
    errno.EACCES: "run this as the user who owns it",
    errno.EPERM: "run this as the user who owns it",
}

HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home",
        metavar="DIR",
        help="The site's directory; else $TTSERVER_HOME, else ./home.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
PasswordStdinOption = Annotated[
    bool,
    typer.Option("--password-stdin", help="Read the password as one line from standard input."),
]


def home_of(ctx: typer.Context, given: Path | None) -> Home:
    """Find HOME from the command's own --home, else from the one before the command."""
    return Home.find(given if given is not None else ctx.obj)


@contextmanager
def daemon_of(home: Home) -> Iterator[ControlClient]:
    """Talk to the daemon of a HOME.

    Raises:
        NotRunningError: there is none.
    """
    with ControlClient(home.socket) as client:
        yield client


def exit_status(error: BaseException) -> int:
    """Give the exit status of an expected error: 2 for usage and configuration, else 1."""
    if isinstance(error, ConfigurationError):
        return EXIT_USAGE
    # A disk that refuses to be written to is no mistake in a file: trying again may help.
    wrong = isinstance(error, ConfigError) and error.code != "UNWRITABLE"
    return EXIT_USAGE if wrong else EXIT_FAILED


def advice(error: BaseException) -> str | None:
    """Give one thing to do about an expected error; the system's own errors get theirs here."""
    if isinstance(error, OSError):
        return _SYSTEM_ADVICE.get(error.errno or 0, "look at that file, its owner and its disk")
    return hint_of(error)


def print_error(error: BaseException) -> None:
    """Print an expected error: one line, then one line of advice; a file's errors one by one."""
    for one in error.all if isinstance(error, ConfigError) else (error,):
        _print_one(sentence(one), advice(one))


def sentence(error: BaseException) -> str:
    """Say an expected error in one line."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror[:1].lower()}{error.strerror[1:]}"
    return " ".join(str(error).split()) or type(error).__name__


def print_usage_error(text: str, hint: str) -> None:
    """Print an error of the command line itself."""
    _print_one(text, hint)


def _print_one(text: str, hint: str | None) -> None:
    err = console(stderr=True)
    err.print(f"ttserver: {text}", markup=False, soft_wrap=True)
    if hint:
        err.print(f"HINT: {hint}", markup=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print one JSON value on one line, flushed: somebody may be reading line by line."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def read_password(*, from_stdin: bool, name: str) -> str:
    """Ask for a new password twice, or take one line of standard input; never from arguments.

    Raises:
        ConfigurationError: nobody is there to be asked, or the line is empty.
    """
    if from_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    elif sys.stdin.isatty():
        password = typer.prompt(
            f"Password for {name}", hide_input=True, confirmation_prompt=True, err=True
        )
    else:
        raise ConfigurationError(
            "password is missing: standard input is no terminal to ask at",
            code="NOPASSWORD",
            hint="give --password-stdin and the password as one line of standard input",
        )
    if not password:
        raise ConfigurationError(
            f"password for {name} is empty", code="NOPASSWORD", hint="choose one with 8 or more"
        )
    return password


def confirmed(question: str, *, yes: bool) -> bool:
    """Ask before something is lost.

    Raises:
        ConfigurationError: nobody is there to be asked.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise ConfigurationError(
            "confirmation is missing: standard input is no terminal to ask at",
            code="NOCONFIRMATION",
            hint="give --yes when you are sure",
        )
    return typer.confirm(question, err=True)
