"""The reference of all settings, made from the tables the server itself reads.

`python -m ttserver.reference` in a checkout brings docs/CONFIGURATION.md and conf/ttserver.toml up
to date; a test fails when they are not. Text between two markers is replaced, the rest is kept.
"""

import re
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

from msgspec import inspect

from storage.dbconfig_rules import DEFAULTS, REFUSED
from storage.dbconfig_table import DIRECTIVES
from ttserver.byte_size import ByteSize
from ttserver.settings import Settings
from ttserver.settings_file import key_types, shown

PAGE = Path("docs", "CONFIGURATION.md")
SAMPLE = Path("conf", "ttserver.toml")

_SAMPLE_HEAD = """\
# ttserver.toml: everything Berkeley DB has no word for. Copy it to HOME/ttserver.toml.
#
# Every key is shown with its default and may be left out; remove the # to change one. A name that
# does not exist stops the start. The unit is the end of the name. DB_CONFIG holds the rest:
# see docs/CONFIGURATION.md.
"""
# No default can be shown for a key that follows another setting.
_EXAMPLES = {
    "replication.listen": "192.0.2.10:5010",
    "replication.preferred_master": "192.0.2.10:5010",
}


def directives() -> str:
    """Make the table of all directives of DB_CONFIG."""
    return _table(
        ("Line", "Meaning", "Default", "By", "Again"),
        (
            (f"`{d.usage}`", d.summary, d.default, "us" if d.handled else "library", d.repeat)
            for d in sorted(DIRECTIVES.values(), key=lambda d: d.name)
        ),
    )


def options() -> str:
    """Make the table of the options that follow some directives."""
    return _table(
        ("Directive", "Options"),
        (
            (f"`{d.name}`", ", ".join(f"`{option}`" for option in d.options))
            for d in sorted(DIRECTIVES.values(), key=lambda d: d.name)
            if d.options
        ),
    )


def refused() -> str:
    """Make the table of the options that are refused."""
    return _table(
        ("Refused", "Why", "Instead"),
        (
            (f"`{name} {option}{'' if r.when_on else ' off'}`", r.reason, r.hint)
            for (name, option), r in REFUSED.items()
        ),
    )


def defaults() -> str:
    """Make the table of the lines that are added for the library."""
    return _table(
        ("Line", "Why", "Not when"),
        (
            (f"`{d.name} {d.value}`", d.reason, ", ".join(f"`{u}`" for u in d.unless) or "-")
            for d in DEFAULTS
        ),
    )


def keys() -> str:
    """Make the table of all keys of ttserver.toml."""
    return _table(
        ("Key", "Meaning", "Values", "Default"),
        (
            (f"`{section}.{key}`", about, values, f"`{default}`" if default else "-")
            for section, key, about, values, default in _keys()
        ),
    )


def sample() -> str:
    """Make conf/ttserver.toml: every key in a comment with its default."""
    lines = [_SAMPLE_HEAD]
    last = ""
    for section, key, about, values, default in _keys():
        if section != last:
            lines.append(f"[{section}]\n")
            last = section
        lines += [f"# {line}" for line in textwrap.wrap(f"{about} ({values})", 96)]
        value = default or _EXAMPLES[f"{section}.{key}"]
        number = re.fullmatch(r"[0-9.]+|true|false", value)
        lines.append(f"#{key} = {value}\n" if number else f'#{key} = "{value}"\n')
    return "\n".join(lines)


PARTS = {
    "directives": directives,
    "options": options,
    "refused": refused,
    "defaults": defaults,
    "keys": keys,
}


def filled(page: str) -> str:
    """Fill the marked parts of the page anew.

    Raises:
        ValueError: a part has no markers.
    """
    for name, make in PARTS.items():
        begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
        before, found, rest = page.partition(begin)
        _, found_end, after = rest.partition(end)
        if not found or not found_end:
            raise ValueError(f"{PAGE} has no markers for {name}")
        page = f"{before}{begin}{make()}{end}{after}"
    return page


def main() -> None:
    """Bring both files of this checkout up to date."""
    root = Path(__file__).parents[1]
    page = root / PAGE
    page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
    (root / SAMPLE).write_text(sample(), encoding="utf-8")


def _keys() -> Iterator[tuple[str, str, str, str, str]]:
    """Yield section, key, meaning, values and default of every key."""
    for section in Settings.__struct_fields__:
        base = getattr(Settings(), section)
        for key, (wanted, about) in key_types(type(base)).items():
            yield section, key, about, _values(wanted), shown(getattr(base, key))


def _values(wanted: inspect.Type) -> str:
    match wanted:
        case inspect.IntType(ge=low, le=high):
            return f"{low}..{high}"
        case inspect.FloatType(ge=low, le=high):
            return f"{low:g}..{high:.10g}"
        case inspect.BoolType():
            return "true, false"
        case inspect.LiteralType(values=values):
            return ", ".join(str(value) for value in values)
        case inspect.StrType():
            return "a file name"
        case inspect.CustomType(cls=cls) if cls is ByteSize:
            return "bytes, or with KB, MB, GB, TB, KiB, MiB, GiB, TiB"
        case _:
            return "HOST:PORT"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = []
    for row in (head, tuple("---" for _ in head), *rows):
        cells = " | ".join(cell.replace("|", r"\|") for cell in row)
        lines.append(f"| {cells} |\n")
    return "".join(lines)


if __name__ == "__main__":
    main()
