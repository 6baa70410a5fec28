"""Sample data: the catalog of a tape vault, made up; the same seed gives the same, byte by byte.

Five customers with their media types, four repositories each, and any number of volumes, some of
them in containers. Move dates are written as days from the day they are loaded, as `*+7`; some
have passed already, so that there is something to expire.
"""

import csv
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Final

SEED: Final = 20
VOLUMES_MAX: Final = 2_000_000  # names of six digits: the largest media type has 40 in 100

Words = tuple[str, ...]

_CUSTOMERS: Final = ("1009", "ACME", "US01", "US02", "US04")
# Customer, media type, share of all volumes, what a volume is called. Containers come first: they
# have to be there when others are put into them.
_LIBRARIES: Final = (
    ("US04", "CONT", 1, "CT{:06d}"),
    ("US04", "LTO", 40, "{:06d}L6"),
    ("US01", "LTO", 20, "{:06d}L6"),
    ("US02", "LTO", 15, "{:06d}L7"),
    ("ACME", "LTO", 10, "{:06d}L8"),
    ("ACME", "DL", 8, "{:06d}S4"),
    ("1009", "DL", 6, "{:06d}S4"),
)
_MEDIA: Final = {"LTO": "LTO tapes", "DL": "DLT tapes", "CONT": "containers"}
# Repository, type, where volumes go next, further words of REPOSITORY.ADD.
_REPOSITORIES: Final = (
    ("LIBR", "library", "OFFS", ()),
    ("OFFS", "vault", "SCRT", ("OFFSITE", "yes")),
    ("RACK", "rack", "", ()),
    ("SCRT", "scratch", "LIBR", ("SCRATCH", "yes", "PRIORITY", "1")),
)
_CONTAINERS_FROM: Final = 100_100
_IN_CONTAINER: Final = 10
# Description, days until the tape has to move on, how many of ten tapes are such.
_BACKUPS: Final = (("weekly_full", 7, 6), ("monthly", 30, 3), ("yearly_full", 365, 1))
_PLACES: Final = (("LIBR", 3), ("OFFS", 5), ("RACK", 1))
_SCRATCH_ONE_IN: Final = 10
_CONTAINER_KEPT_DAYS: Final = 30


@dataclass(frozen=True, slots=True)
class SampleVolume:
    """One tape; every field is text, as a CSV file of `tt load` holds it.

    Args:
        customer, media, volume: the parts of its name.
        repository: where it is.
        description: which backup is on it; empty for a scratch tape and a container.
        date: when it moves on, `*+7`, `*-1`; empty for never.
        container: the whole name of the one it is in; empty for none.
    """

    customer: str
    media: str
    volume: str
    repository: str
    description: str
    date: str
    container: str

    @property
    def name(self) -> str:
        """The qualified name."""
        return f"{self.customer}.{self.media}.{self.volume}"


COLUMNS: Final = tuple(field.name for field in fields(SampleVolume))


def description_of(customer: str) -> str:
    """What a customer of the sample data is described as; by it they are known again."""
    return f"sample customer {customer}"


def structure() -> Iterator[Words]:
    """Give the commands that make the customers, media types and repositories."""
    for customer in _CUSTOMERS:
        yield ("CUSTOMER.ADD", customer, "DESCRIPTION", description_of(customer))
    for customer, media, _, _ in _LIBRARIES:
        name = f"{customer}.{media}"
        yield ("MEDIA.ADD", name, "DESCRIPTION", _MEDIA[media])
        for repository, kind, _, more in _REPOSITORIES:
            words = ("DESCRIPTION", kind, "TYPE", kind, *more)
            yield ("REPOSITORY.ADD", f"{name}.{repository}", *words)
        # Each comes after another one of them, so this has to wait until all are there.
        for repository, _, following, _ in _REPOSITORIES:
            if following:
                yield ("REPOSITORY.SET", f"{name}.{repository}", "NEXT", following)
        yield ("MEDIA.SET", name, "DEFAULT", _REPOSITORIES[0][0])


def volumes(count: int, seed: int = SEED) -> Iterator[SampleVolume]:
    """Make up an inventory.

    Args:
        count: volumes in all, at most `VOLUMES_MAX`.
        seed: another one gives another inventory.
    """
    chance = random.Random(seed)  # noqa: S311 - an inventory, not a secret
    total = sum(share for _, _, share, _ in _LIBRARIES)
    places = _places_in_containers(count * _LIBRARIES[0][2] // total)
    made = 0
    for number, (customer, media, share, pattern) in enumerate(_LIBRARIES, start=1):
        # The last library takes what rounding left over.
        part = count * share // total if number < len(_LIBRARIES) else count - made
        if media == "CONT":
            for serial in range(_CONTAINERS_FROM, _CONTAINERS_FROM + part):
                date = _in_days(chance.randrange(_CONTAINER_KEPT_DAYS))
                name = pattern.format(serial)
                yield SampleVolume(customer, media, name, "OFFS", "", date, "")
        else:
            for serial in range(part):
                yield _tape(chance, customer, media, pattern.format(serial), places)
        made += part


def _places_in_containers(containers: int) -> Iterator[str]:
    customer, media, _, pattern = _LIBRARIES[0]
    for serial in range(_CONTAINERS_FROM, _CONTAINERS_FROM + containers):
        for _ in range(_IN_CONTAINER):
            yield f"{customer}.{media}.{pattern.format(serial)}"


def _tape(
    chance: random.Random, customer: str, media: str, name: str, places: Iterator[str]
) -> SampleVolume:
    if chance.randrange(_SCRATCH_ONE_IN) == 0:
        return SampleVolume(customer, media, name, "SCRT", "", "", "")
    description, keep_days, _ = chance.choices(_BACKUPS, [share for *_, share in _BACKUPS])[0]
    repository, _ = chance.choices(_PLACES, [share for _, share in _PLACES])[0]
    if (customer, repository) == (_LIBRARIES[0][0], "OFFS") and (container := next(places, "")):
        # It moves when its container does.
        return SampleVolume(customer, media, name, repository, description, "", container)
    # A few are late: those are the ones an operator looks for.
    age_days = chance.randrange(keep_days + keep_days // 7 + 1)
    date = _in_days(keep_days - age_days)
    return SampleVolume(customer, media, name, repository, description, date, "")


def _in_days(days: int) -> str:
    return f"*{days:+d}"


class _Echo:
    """A file for a writer of CSV that gives each line back."""

    def write(self, line: str) -> str:
        return line


def csv_lines(made: Iterable[SampleVolume]) -> Iterator[str]:
    """Write volumes as `tt load` reads them, a line at a time; the first has the columns."""
    writer = csv.writer(_Echo(), lineterminator="\n")
    yield writer.writerow(COLUMNS)
    for volume in made:
        yield writer.writerow([getattr(volume, column) for column in COLUMNS])
