"""Rows of a CSV file as volumes to add: what a row says, and why it cannot be one (no server)."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from ttserver.errors import ConfigurationError
from ttserver.tt.frame import notice
from ttserver.tt.mapping import COLUMNS, FAMILY, KNOWN, UNMAPPED, FileMap

NO_DATE: Final = "1970-01-01"  # what other programs write when there is none
_BLANK: Final = re.compile(r"\s+")


class Row(NamedTuple):
    """One row of the file.

    Args:
        line: where it begins, from 1.
        name: the volume.
        options: of VOLUME.ADD.
        bad: why it cannot be sent; None when it can.
        left_out: the mapping file says to leave it out.
    """

    line: int
    name: str
    options: tuple[str, ...]
    bad: str | None = None
    left_out: bool = False


class _Layout(NamedTuple):
    """Where the columns of a file are.

    Args:
        places: of our columns, from 0.
        width: how many fields a row has.
    """

    places: Mapping[str, int]
    width: int


def read_rows(file: str, lines: Iterable[str], mapped: FileMap = UNMAPPED) -> Iterator[Row]:
    """Read a CSV file row by row.

    Args:
        file: its name, for messages.
        lines: its lines.
        mapped: what its columns and words mean.

    Raises:
        ConfigurationError: its first line lacks a column, or has one twice.
    """
    reader = csv.reader(lines, delimiter=mapped.delimiter)
    names = [name.strip() for name in next(reader, [])] if mapped.header else []
    layout = _mapped(file, names, mapped) if mapped.columns else _own(file, names)
    if mapped.families and FAMILY not in layout.places:
        raise _lacks(file, FAMILY)
    return _rows(reader, layout, mapped)


def _own(file: str, names: Sequence[str]) -> _Layout:
    """The layout of a file whose first line has our names."""
    names = [name.lower() for name in names]
    if "volume" not in names:
        raise _lacks(file, "volume")
    for name in names:
        _must_be_single(file, names, name)
    if unknown := [name for name in names if name not in KNOWN]:
        notice(f"columns that are not used: {', '.join(unknown)}")
    places = {name: at for at, name in enumerate(names) if name in KNOWN}
    return _Layout(places, len(names))


def _mapped(file: str, names: Sequence[str], mapped: FileMap) -> _Layout:
    """The layout of a file whose columns a mapping file names."""
    places: dict[str, int] = {}
    for name, theirs in mapped.columns.items():
        if isinstance(theirs, int):
            places[name] = theirs - 1
        elif theirs in names:
            _must_be_single(file, names, theirs)
            places[name] = names.index(theirs)
        else:
            raise _lacks(file, theirs)
    # Some programs name fewer columns than they write.
    return _Layout(places, max(len(names), max(places.values()) + 1))


def _must_be_single(file: str, names: Sequence[str], name: str) -> None:
    if names.count(name) > 1:
        raise ConfigurationError(
            f"file {file} has the column `{name}` twice", code="FILE", hint="take one out"
        )


def _lacks(file: str, name: str) -> ConfigurationError:
    return ConfigurationError(
        f"file {file} has no column `{name}` in its first line",
        code="FILE",
        hint="begin it with volume,repository,description,date, or say by --map what it has",
    )


def _rows(reader: Iterator[list[str]], layout: _Layout, mapped: FileMap) -> Iterator[Row]:
    before: int = reader.line_num  # type: ignore[attr-defined]
    seen: dict[str, int] = {}
    while True:
        line = before + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            before = reader.line_num  # type: ignore[attr-defined]
            yield Row(before, "", (), f"it is no CSV: {error}")
            continue
        if fields is None:
            return
        before = reader.line_num  # type: ignore[attr-defined]
        if not fields:
            continue  # an empty line
        row = _row(line, fields, layout, mapped)
        if row.bad is None and not row.left_out:
            if row.name in seen:
                row = row._replace(bad=f"volume {row.name}: it is in line {seen[row.name]}, too")
            seen.setdefault(row.name, line)
        yield row


def _row(line: int, fields: Sequence[str], layout: _Layout, mapped: FileMap) -> Row:
    at = layout.places["volume"]
    if at < len(fields) and mapped.excludes(fields[at].strip().rpartition(".")[2]):
        return Row(line, fields[at].strip(), (), left_out=True)
    if len(fields) != layout.width:
        than = "more" if len(fields) > layout.width else "fewer"
        whose = (
            "than the mapping file says" if mapped.columns else "than the first line has columns"
        )
        return Row(line, "", (), f"it has {than} fields {whose}")
    values = {name: fields[place].strip() for name, place in layout.places.items()}
    volume = values["volume"]
    if not volume:
        return Row(line, "", (), "its volume is empty")
    owner = values.get("customer") or mapped.customer
    kind = values.get("media") or mapped.media
    if mapped.families:
        family = values[FAMILY]
        if family not in mapped.families:
            why = f"volume {volume}: family {family!r} is not in the mapping file"
            return Row(line, volume, (), why)
        kind = mapped.families[family]
        if not kind:
            return Row(line, volume, (), left_out=True)
    if "." not in volume:
        if not owner or not kind:
            why = f"volume {volume}: no customer or media type: give --customer and --media"
            return Row(line, volume, (), why)
        volume = f"{owner}.{kind}.{volume}"
    return Row(line, volume, tuple(_options(values, mapped)))


def _options(values: Mapping[str, str], mapped: FileMap) -> Iterator[str]:
    for name, word in COLUMNS.items():
        value = _BLANK.sub(" ", values.get(name, ""))
        if name in ("repository", "home"):
            value = mapped.repositories.get(value, value)
        if value and not (name == "date" and value == NO_DATE):
            yield word
            yield value
