"""The mapping file of `tt load`: what columns and words of another program's CSV file mean here.

customer = "US04"              # of rows that name none
media = "LTO"
delimiter = ";"                # a comma when left out
header = false                 # the first line is a row already; all columns are numbers then
exclude = ["CLN*"]             # filters of volume IDs: these rows are left out

[columns]                      # ours = theirs, by its name in the first line or its number
volume = "barcode"
repository = "location"
family = "family"
date = 7

[repositories]                 # what the file says = the repository
Library = "LIBR"

[families]                     # what its column for `family` says = the media type
tape = "LTO"
CLN = ""                       # left out
"""

from __future__ import annotations

import tomllib
from typing import Annotated, Any, Final

import msgspec

from storage.catalog.filters import compile_filter
from storage.catalog.names import CatalogError
from ttserver.errors import ConfigurationError

# Columns of a volume, and the option of VOLUME.ADD each becomes.
COLUMNS: Final = {
    "repository": "IN",
    "description": "DESCRIPTION",
    "date": "DATE",
    "container": "CONTAINER",
    "home": "HOME",
    "overdue": "OVERDUE",
    "notes": "NOTES",
    "flags": "FLAGS",
}
FAMILY: Final = "family"
NAMES: Final = ("customer", "media", "volume")
KNOWN: Final = (*NAMES, *COLUMNS, FAMILY)


class FileMap(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mapping file as it is written; see the module's text.

    Args:
        columns: empty when the first line has our names.
    """

    customer: str = ""
    media: str = ""
    delimiter: Annotated[str, msgspec.Meta(min_length=1, max_length=1)] = ","
    header: bool = True
    exclude: tuple[str, ...] = ()
    columns: dict[str, str | Annotated[int, msgspec.Meta(ge=1, le=1000)]] = {}
    repositories: dict[str, str] = {}
    families: dict[str, str] = {}

    def excludes(self, volume_id: str) -> bool:
        """Whether rows of this volume are left out."""
        return any(compile_filter(text).matches(volume_id) for text in self.exclude)


UNMAPPED: Final = FileMap()  # a file with our own names, each row with its customer and media type


def parse_map(file: str, text: str) -> FileMap:
    """Read a mapping file.

    Args:
        file: its name, for messages.
        text: what is in it.

    Raises:
        ConfigurationError: it is no TOML, or says what cannot be.
    """
    try:
        tree: dict[str, Any] = tomllib.loads(text)
        made = msgspec.convert(tree, FileMap)
        for one in made.exclude:
            compile_filter(one)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, CatalogError) as error:
        raise _wrong(file, str(error)) from error
    for name, theirs in made.columns.items():
        if name not in KNOWN:
            raise _wrong(file, f"column `{name}` is none of {', '.join(KNOWN)}")
        if isinstance(theirs, str) and not made.header:
            raise _wrong(file, f"column `{name}` needs a number: header is false")
    if "volume" not in made.columns and (made.columns or not made.header):
        raise _wrong(file, "[columns] says not where the volume is")
    if made.families and made.columns and FAMILY not in made.columns:
        raise _wrong(file, "[columns] says not where the family is")
    return made


def _wrong(file: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"mapping file {file} refused: {why}",
        code="FILE",
        hint="docs/CATALOG.md has an example that works.",
    )
