"""Names of the catalog's objects, and the errors of the catalog.

    US04                customer: 1 to 4 of A-Z and 0-9
    US04.LTO            media type, the same
    US04.LTO.OFFS       repository, the same
    US04.LTO.123456L6   volume: 1 to 10 of A-Z, 0-9 and dash, no dash at the beginning

A name is its own key: `.` comes before every character of an ID that another one may follow, so
the byte order of whole names is the order of their parts, and an object stands right before what
belongs to it.
"""

import re
from typing import Final

from storage.errors import StorageError

SHORT_ID: Final = re.compile(r"[A-Z0-9]{1,4}")
VOLUME_ID: Final = re.compile(r"[A-Z0-9][A-Z0-9-]{0,9}")
_SHOWN_CHARS: Final = 40


class CatalogError(StorageError):
    """What the catalog refuses; raised before anything is written.

    Codes, the first word of the reply: `INVALID` (a value that cannot be), `NOTFOUND`, `EXISTS`,
    `INUSE` (others depend on it), `LOCKED`, `LIMIT`, `REFUSED` (not in this state), `NOPERM`.
    """

    default_code = "INVALID"


def shown(text: str) -> str:
    """Quote what somebody sent, but not all of it."""
    return repr(text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}...")


def check_customer(text: str) -> str:
    """Check a customer ID.

    Raises:
        CatalogError: INVALID.
    """
    return _checked(text, ("customer",))


def check_media(text: str) -> str:
    """Check the name of a media type, `CUSTOMER.MEDIA`.

    Raises:
        CatalogError: INVALID.
    """
    return _checked(text, ("customer", "media type"))


def check_repository(text: str) -> str:
    """Check the name of a repository, `CUSTOMER.MEDIA.REPOSITORY`.

    Raises:
        CatalogError: INVALID.
    """
    return _checked(text, ("customer", "media type", "repository"))


def check_volume(text: str) -> str:
    """Check the name of a volume, `CUSTOMER.MEDIA.VOLUME`.

    Raises:
        CatalogError: INVALID.
    """
    return _checked(text, ("customer", "media type", "volume"))


def _checked(text: str, kinds: tuple[str, ...]) -> str:
    parts = text.split(".")
    if len(parts) != len(kinds):
        form = ".".join(kind.split()[0].upper() for kind in kinds)
        raise CatalogError(
            f"{kinds[-1]} name {shown(text)} refused: it has not the form {form}",
            hint="write the IDs with a dot between them, as in US04.LTO.123456L6.",
        )
    for kind, part in zip(kinds, parts, strict=True):
        _check_id(kind, part)
    return text


def _check_id(kind: str, part: str) -> None:
    if kind == "volume":
        if VOLUME_ID.fullmatch(part) is None:
            raise CatalogError(
                f"volume ID {shown(part)} refused: not 1 to 10 of A-Z, 0-9 and dash",
                hint="write it in capital letters, without a dash at the beginning.",
            )
    elif SHORT_ID.fullmatch(part) is None:
        raise CatalogError(
            f"{kind} ID {shown(part)} refused: not 1 to 4 of A-Z and 0-9",
            hint="write it in capital letters.",
        )


def repository_in(media: str, text: str) -> str:
    """Take a repository of this media type by its ID or its whole name; gives the ID.

    Raises:
        CatalogError: INVALID, also when it is one of another media type.
    """
    if "." not in text:
        _check_id("repository", text)
        return text
    name = check_repository(text)
    if media_of(name) != media:
        raise CatalogError(
            f"repository {name} refused: the volume is of media type {media}",
            hint=f"name a repository of {media}.",
        )
    return id_of(name)


def customer_of(name: str) -> str:
    """Give the customer's ID of any name."""
    return name.partition(".")[0]


def media_of(name: str) -> str:
    """Give the media type's name of a repository's or a volume's."""
    return name.rpartition(".")[0]


def id_of(name: str) -> str:
    """Give the last part of a name."""
    return name.rpartition(".")[2]
