"""Lines of DB_CONFIG to statements: names, arguments and ranges, each line for itself.

The syntax is the library's: blanks separate, `#` begins a comment only at the start of a line,
directory names run to the end of the line, numbers are decimal.

Source: API reference, "DB_CONFIG Parameter Reference"; Programmer's Reference, "DB_CONFIG
configuration file".
"""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from storage.dbconfig_table import (
    DIRECTIVES,
    Directive,
    Number,
    Option,
    Pairs,
    Switch,
    Text,
    Word,
)
from storage.errors import ConfigError
from storage.hosts import bare_host

# The library reads a line into 256 bytes and takes what is left over for the next line.
LINE_BYTES_MAX = 254
SHOWN_MAX = 60  # characters of a word nobody knows
SWITCH = {"on": True, "off": False}

_BLANKS = " \t\r\v\f"
_OWNERS = {option: d.name for d in reversed(DIRECTIVES.values()) for option in d.options}


@dataclass(slots=True)
class Statement:
    """One directive with its arguments, checked.

    Args:
        line: line of the file from 1.
        text: the line without the blanks around it.
        option: the option name, lower case, where the directive has one.
        word: the host or the rest of the line, where it has one.
        numbers: the numbers in order.
        on: the switch; True where none is written.
        pairs: the options of a site.
    """

    line: int
    text: str
    directive: Directive
    option: str = ""
    word: str = ""
    numbers: tuple[int, ...] = ()
    on: bool = True
    pairs: tuple[tuple[str, bool], ...] = ()


class _LineError(Exception):
    """What is wrong with the line under way, and what to do."""

    def __init__(self, message: str, hint: str | None = None, code: str = "CONFIG") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code


def read_lines(text: str, file: str) -> tuple[list[Statement], list[ConfigError]]:
    """Read every line that is neither blank nor a comment.

    Args:
        text: the whole file.
        file: its name for messages.

    Returns:
        The good lines, and an error for each bad one.
    """
    statements: list[Statement] = []
    errors: list[ConfigError] = []
    for number, raw in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        line = raw.strip(_BLANKS)
        if not line or line.startswith("#"):
            continue
        try:
            statements.append(_statement(number, line))
        except _LineError as error:
            errors.append(
                ConfigError(error.message, file=file, line=number, hint=error.hint, code=error.code)
            )
    return statements, errors


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Find the known name a misspelt one most probably means."""
    plain = word.lower().replace("-", "_")
    names = list(known)
    if plain in names:
        return plain
    return next(iter(difflib.get_close_matches(plain, names, n=1, cutoff=0.6)), None)


def _statement(number: int, line: str) -> Statement:
    bad = next((c for c in line if (c < " " and c != "\t") or c == "\x7f"), None)
    if bad is not None:
        raise _LineError(
            f"the line holds a control character (0x{ord(bad):02x})", "write the line anew."
        )
    name, _, rest = line.replace("\t", " ").partition(" ")
    directive = _directive(name, rest)
    if not directive.handled and len(line.encode("utf-8", "surrogateescape")) > LINE_BYTES_MAX:
        raise _LineError(
            f"the line has more than {LINE_BYTES_MAX} bytes, which Berkeley DB cannot read",
            "use a shorter path.",
        )
    statement = Statement(number, line, directive)
    if isinstance(directive.arguments[0], Text):
        # Not from `rest`: a tab inside a directory name belongs to it.
        _text(statement, line[len(name) :].strip(_BLANKS), directive.arguments[0])
    else:
        _arguments(statement, rest.split())
    return statement


def _directive(name: str, rest: str) -> Directive:
    directive = DIRECTIVES.get(name)
    if directive is not None:
        return directive
    directive = DIRECTIVES.get(name.lower())
    if directive is not None and directive.any_case:
        return directive
    owner = _OWNERS.get(name.lower())
    if owner is not None:
        raise _LineError(
            f"{name} is not a directive, it belongs to {owner}", f"write `{owner} {name} {rest}`."
        )
    close = nearest(name, DIRECTIVES)
    if close is None:
        raise _LineError(
            f"unknown directive {name if len(name) <= SHOWN_MAX else name[:SHOWN_MAX] + '...'}",
            "remove the line, or put a # before it; docs/CONFIGURATION.md lists every name.",
        )
    raise _LineError(
        f"unknown directive {name}, did you mean {close}?",
        f"write `{DIRECTIVES[close].usage}`.",
    )


def _text(statement: Statement, text: str, argument: Text) -> None:
    if not text:
        raise _usage_error(statement.directive, f"{argument.placeholder} is missing")
    if re.fullmatch(argument.pattern, text, re.DOTALL) is None:
        raise _usage_error(
            statement.directive, f'the {argument.name} must be {argument.form}, got "{text}"'
        )
    statement.word = text


def _usage_error(directive: Directive, what: str, hint: str | None = None) -> _LineError:
    return _LineError(f"{directive.name}: {what}", hint or f"write `{directive.usage}`.")


def _arguments(statement: Statement, words: list[str]) -> None:
    """Take the words one argument after the other; every directive says which it wants."""
    directive = statement.directive
    for argument in directive.arguments:
        if isinstance(argument, Switch):
            if words and not words[0].startswith("#"):
                statement.on = _switch(directive, words.pop(0))
            continue
        if isinstance(argument, Pairs):
            statement.pairs = tuple(_pairs(directive, argument, words))
            continue
        if not words or words[0].startswith("#"):
            raise _usage_error(directive, f"{argument.placeholder} is missing")
        word = words.pop(0)
        if isinstance(argument, Number):
            statement.numbers += (_number(directive, argument, word),)
        elif isinstance(argument, Option):
            statement.option = _option(directive, argument.among, word, argument.name)
        elif isinstance(argument, Word):
            statement.word = _word(directive, word)
    if words:
        hint = "move the comment to a line of its own." if words[0].startswith("#") else None
        raise _usage_error(directive, f'there is too much on the line: "{" ".join(words)}"', hint)


def _word(directive: Directive, word: str) -> str:
    joined = re.fullmatch(r"([^:]+|\[.+\]):([0-9]+)", word)
    if joined:
        host, port = joined.groups()
        raise _usage_error(
            directive,
            f"host and port are two words, got {word}",
            f"write `{directive.name} {bare_host(host)} {port} ...`.",
        )
    return bare_host(word)


def _switch(directive: Directive, word: str) -> bool:
    try:
        return SWITCH[word.lower()]
    except KeyError:
        raise _usage_error(directive, f'on or off is wanted, got "{word}"') from None


def _option(directive: Directive, among: tuple[str, ...], word: str, name: str) -> str:
    option = word.lower()
    if option in among:
        return option
    owner = _OWNERS.get(option)
    if owner is not None:
        raise _usage_error(directive, f"{word} belongs to {owner}", f"write `{owner} {word} ...`.")
    close = nearest(word, among)
    meant = f", did you mean {close}?" if close else ""
    raise _usage_error(
        directive, f"unknown {name} {word}{meant}", f"it is one of {', '.join(among)}."
    )


def _number(directive: Directive, argument: Number, word: str) -> int:
    """Read a decimal number as the library does; it knows no 0x and no K or M."""
    if not re.fullmatch(r"\+?[0-9]+", word) or len(word) > 20:
        raise _usage_error(
            directive,
            f'{argument.name} must be {argument.low}..{argument.high}, got "{word}"',
            "write a decimal number without a unit.",
        )
    if argument.mode and word.startswith("0") and len(word) > 1:
        octal = int(word, 8) if re.fullmatch("[0-7]+", word) else 0o600
        raise _usage_error(
            directive,
            f"{word} would be read as a decimal number, not as octal",
            f"write `{directive.name} {octal}` for the permissions {octal:04o}.",
        )
    value = int(word)
    if not argument.low <= value <= argument.high:
        hint = f"permissions are a decimal number here: {0o600} is 0600." if argument.mode else None
        raise _usage_error(
            directive,
            f"{argument.name} must be {argument.low}..{argument.high}, got {value}",
            hint or f"choose a number from {argument.low} to {argument.high}.",
        )
    if argument.power_of_two and value & (value - 1):
        raise _usage_error(
            directive,
            f"{argument.name} must be a power of two, got {value}",
            f"write {1 << value.bit_length()}.",
        )
    return value


def _pairs(directive: Directive, argument: Pairs, words: list[str]) -> Iterable[tuple[str, bool]]:
    seen: set[str] = set()
    while words:
        if words[0].startswith("#"):
            break
        option = _option(directive, argument.among, words.pop(0), "option")
        if not words:
            raise _usage_error(
                directive, f"{option} wants on or off after it", f"write `{option} on`."
            )
        if option in seen:
            raise _usage_error(directive, f"{option} is given twice", "keep one of them.")
        seen.add(option)
        word = words.pop(0)
        # The library takes a number as well, 0 for off.
        yield option, (word != "0" if word.isdecimal() else _switch(directive, word))
