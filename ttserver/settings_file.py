"""ttserver.toml: reading it, with the line of every error.

Source: TOML 1.0; the keys are in `ttserver.settings`.
"""

import difflib
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
from msgspec import inspect, structs

from storage.errors import ConfigError
from ttserver.address import parse_address
from ttserver.byte_size import ByteSize, parse_byte_size
from ttserver.settings import Settings

FILE = "ttserver.toml"
BYTES_MAX = 2**20  # a real one has a hundred lines

_KEY = r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'"""
_PATH = rf"(?:{_KEY})(?:\s*\.\s*(?:{_KEY}))*"
_HEADER = re.compile(rf"\s*\[{{1,2}}\s*({_PATH})\s*\]")
_ASSIGNMENT = re.compile(rf"\s*({_PATH})\s*=")


class _WrongValueError(ValueError):
    """The end of a sentence about a value: "must be 1..10, got 0"."""


def parse_settings(data: bytes) -> Settings:
    """Read the bytes of a ttserver.toml.

    Raises:
        ConfigError: the first wrong line; its `all` holds every one.
    """
    if len(data) > BYTES_MAX:
        raise ConfigError(
            f"the file has {len(data)} bytes, the most is {BYTES_MAX}",
            file=FILE,
            hint="check that this is a ttserver.toml.",
        )
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
        tree = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"byte {error.start} is not UTF-8",
            file=FILE,
            line=data.count(b"\n", 0, error.start) + 1,
            hint="save the file as UTF-8.",
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(error, text) from error
    return checked_settings(Settings(), tree, FILE, _lines(text))


# -- checking ---------------------------------------------------------------------------------


def checked_settings(
    base: Settings, tree: Mapping[str, Any], file: str, lines: Mapping[tuple[str, ...], int]
) -> Settings:
    """Lay the values of a tree over a base, each checked against its type.

    Args:
        base: what holds where the tree says nothing.
        tree: sections with their keys, as a TOML parser gives them.
        file: what to call the source in an error.
        lines: the line of each section and key, where the source has lines.

    Raises:
        ConfigError: the first that is wrong; its `all` holds every one.
    """
    errors: list[ConfigError] = []

    def wrong(path: tuple[str, ...], message: str, hint: str) -> None:
        line = lines.get(path) or lines.get(path[:1]) or 0
        errors.append(ConfigError(message, file=file, line=line, hint=hint))

    sections: dict[str, Any] = {}
    known = Settings.__struct_fields__
    for section, values in tree.items():
        if section not in known:
            wrong((section,), *_unknown("section", section, known, _owners(section)))
        elif not isinstance(values, dict):
            wrong((section,), f"{section} must be a section", f"write [{section}] above its keys.")
        else:
            sections[section] = _section(section, getattr(base, section), values, wrong)
    if errors:
        first, *rest = sorted(errors, key=lambda error: error.line)
        first.also = tuple(rest)
        raise first
    return structs.replace(base, **sections)


def _section(
    section: str,
    base: msgspec.Struct,
    values: Mapping[str, object],
    wrong: Callable[[tuple[str, ...], str, str], None],
) -> msgspec.Struct:
    wanted = key_types(type(base))
    good: dict[str, Any] = {}
    for key, value in values.items():
        path, name = (section, key), f"{section}.{key}"
        if key not in wanted:
            wrong(path, *_unknown("key", name, tuple(wanted), _owners(key)))
            continue
        try:
            good[key] = _value(wanted[key][0], value)
        except ValueError as error:
            wrong(path, f"{name} {error}", _default_hint(section, key))
    return structs.replace(base, **good)


def key_types(section: type[msgspec.Struct]) -> dict[str, tuple[inspect.Type, str]]:
    """Give the type of every key of a section, and what the key is for."""
    info = inspect.type_info(section)
    assert isinstance(info, inspect.StructType)
    found = {}
    for field in info.fields:
        wanted, about = field.type, ""
        if isinstance(wanted, inspect.Metadata):
            about = str((wanted.extra_json_schema or {}).get("description", ""))
            wanted = wanted.type
        found[field.name] = wanted, about
    return found


def _value(wanted: inspect.Type, value: object) -> object:
    """Check one value.

    Raises:
        ValueError: with the end of a sentence.
    """
    match wanted:
        case inspect.IntType():
            if not isinstance(value, int) or isinstance(value, bool):
                raise _WrongValueError(f"must be a whole number, got {shown(value)}")
            return _in_range(wanted, value)
        case inspect.FloatType():
            if not isinstance(value, int | float) or isinstance(value, bool):
                raise _WrongValueError(f"must be a number, got {shown(value)}")
            return float(_in_range(wanted, value))
        case inspect.BoolType():
            if not isinstance(value, bool):
                raise _WrongValueError(f"must be true or false, got {shown(value)}")
            return value
        case inspect.LiteralType(values=values):
            if value not in values:
                raise _WrongValueError(
                    f"must be one of {', '.join(map(str, values))}, got {shown(value)}"
                )
            return value
        case inspect.StrType():
            return _string(wanted, value)
        case inspect.CustomType(cls=cls) if cls is ByteSize:
            return parse_byte_size(value)
        case _:  # Address, or one that may be left out
            if not isinstance(value, str):
                raise _WrongValueError(f'must be "HOST:PORT", got {shown(value)}')
            return parse_address(value, port_min=0)


def _in_range(wanted: inspect.IntType | inspect.FloatType, value: float) -> float:
    low, high = wanted.ge, wanted.le
    assert low is not None
    assert high is not None
    if not low <= value <= high:  # nan is neither
        raise _WrongValueError(f"must be {low:.10g}..{high:.10g}, got {value}")
    return value


def _string(wanted: inspect.StrType, value: object) -> str:
    if not isinstance(value, str):
        raise _WrongValueError(f"must be a string, got {shown(value)}")
    if wanted.pattern is not None and re.fullmatch(wanted.pattern, value) is None:
        raise _WrongValueError(
            f'must be a plain file name that the library does not use, got "{value}"'
        )
    if wanted.max_length is not None and len(value) > wanted.max_length:
        raise _WrongValueError(
            f"must have at most {wanted.max_length} characters, got {len(value)}"
        )
    return value


def _unknown(
    what: str, name: str, known: tuple[str, ...], elsewhere: tuple[str, ...]
) -> tuple[str, str]:
    """Word the error and the hint for a name that does not exist."""
    section, _, key = name.rpartition(".")
    close = difflib.get_close_matches(key.lower().replace("-", "_"), known, n=1, cutoff=0.6)
    # A key above all sections is surely a key, however much a section looks like it.
    if close and not (elsewhere and not section):
        meant = f"{section}.{close[0]}" if section else close[0]
        return f"unknown {what} {name}, did you mean {meant}?", f"write {close[0]}."
    if elsewhere:
        return f"unknown {what} {name}", f"{key} belongs to [{elsewhere[0]}]."
    return f"unknown {what} {name}", f"known here: {', '.join(known)}."


def _owners(key: str) -> tuple[str, ...]:
    """Name the sections that have this key."""
    return tuple(
        section
        for section in Settings.__struct_fields__
        if key in getattr(Settings(), section).__struct_fields__
    )


def _default_hint(section: str, key: str) -> str:
    default = getattr(getattr(Settings(), section), key)
    if default is None:
        return "leave it out for the default."
    return f"the default is {shown(default)}."


def shown(value: object) -> str:
    """Show a value as ttserver.toml would write it, without quotes; nothing for None."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value is None else str(value)


# -- lines ------------------------------------------------------------------------------------


def _lines(text: str) -> dict[tuple[str, ...], int]:
    """Find the line of every section and key; the parser of the standard library keeps none.

    Good enough for values of one line, and every value of ours is one: a key inside a string of
    many lines can only be found too often, never missed.
    """
    return dict(_found(text))


def _found(text: str) -> Iterator[tuple[tuple[str, ...], int]]:
    section: tuple[str, ...] = ()
    for number, line in enumerate(text.split("\n"), start=1):
        header = _HEADER.match(line)
        if header:
            section = _split(header[1])
            yield section, number
            continue
        assignment = _ASSIGNMENT.match(line)
        if assignment:
            yield (*section, *_split(assignment[1])), number


def _split(path: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in re.findall(_KEY, path))


def _syntax_error(error: tomllib.TOMLDecodeError, text: str) -> ConfigError:
    """Take the line out of the parser's sentence, which is the only place it has it."""
    words = str(error)
    place = re.search(r" \(at line (\d+), column (\d+)\)$", words)
    if place:
        line = int(place[1])
        words = f"{words[: place.start()]} in column {place[2]}"
    else:
        line = text.rstrip("\n").count("\n") + 1
        words = words.replace(" (at end of document)", " at the end of the file")
    return ConfigError(
        words[:1].lower() + words[1:],
        file=FILE,
        line=line,
        code="SYNTAX",
        hint='a line is `key = value`; text stands in quotes: listen = "127.0.0.1:5000".',
    )
