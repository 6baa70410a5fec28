"""Reading arguments, with Redis's rules and Redis's words."""

import re
from typing import Final

from ttserver.replies import CommandError

INT64_MAX: Final = 2**63 - 1
INT64_MIN: Final = -(2**63)
UINT64_MAX: Final = 2**64 - 1
NOT_AN_INTEGER: Final = "ERR value is not an integer or out of range"

# No sign "+", no leading zeros, no spaces: only what prints back as the same bytes.
_INTEGER: Final = re.compile(rb"(?:0|-?[1-9][0-9]{0,18})\Z")
_UNSIGNED: Final = re.compile(rb"(?:0|[1-9][0-9]{0,19})\Z")


def integer(text: bytes, message: str = NOT_AN_INTEGER) -> int:
    """Read a signed 64-bit integer.

    Raises:
        CommandError: with `message`.
    """
    if _INTEGER.match(text) is None:
        raise CommandError(message)
    number = int(text)
    if not INT64_MIN <= number <= INT64_MAX:
        raise CommandError(message)
    return number


def unsigned(text: bytes, message: str) -> int:
    """Read an unsigned 64-bit integer.

    Raises:
        CommandError: with `message`.
    """
    if _UNSIGNED.match(text) is None or int(text) > UINT64_MAX:
        raise CommandError(message)
    return int(text)


def positive(text: bytes, message: str = NOT_AN_INTEGER) -> int:
    """Read a signed 64-bit integer above 0.

    Raises:
        CommandError: it is no integer, or `ERR syntax error` for 0 and less, as Redis says.
    """
    number = integer(text, message)
    if number < 1:
        raise syntax_error()
    return number


def syntax_error() -> CommandError:
    """The error for words that make no sense where they stand."""
    return CommandError("ERR syntax error")


def text(argument: bytes) -> str:
    """Show an argument in an error or a log."""
    return argument.decode("utf-8", "backslashreplace")
