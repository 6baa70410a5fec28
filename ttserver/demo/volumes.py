"""Sample data: the inventory of a tape vault as a CSV file, and as keys and values.

    US04.LTO.000001L6 -> {"customer": "US04", "media": "LTO", "volume": "000001L6", ...}

The same seed and day give the same file, byte by byte.
"""

import csv
import io
import random
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from datetime import date, timedelta

import msgspec

VOLUMES = 10_000
SEED = 20

# Customer, media type, share of all volumes, what a volume is called.
_LIBRARIES = (
    ("US04", "LTO", 40, "{:06d}L6"),
    ("US01", "LTO", 20, "{:06d}L6"),
    ("US02", "LTO", 15, "{:06d}L7"),
    ("ACME", "LTO", 10, "{:06d}L8"),
    ("ACME", "DL", 8, "{:06d}S4"),
    ("1009", "DL", 6, "{:06d}S4"),
    ("US04", "CONT", 1, "CT{:06d}"),
)
_CONTAINERS_FROM = 100_100
# Description, days until the tape has to move on, how many of ten tapes are such.
_BACKUPS = (("weekly_full", 7, 6), ("monthly", 30, 3), ("yearly_full", 365, 1))
_REPOSITORIES = (("LIBR", 3), ("OFFS", 5), ("RACK", 1))
_SCRATCH_ONE_IN = 10


@dataclass(frozen=True, slots=True)
class Volume:
    """One tape; every field is text, as a CSV file holds it.

    Args:
        customer, media, volume: the parts of its name.
        repository: where it is.
        description: which backup is on it; empty for a scratch tape.
        since: the day it came there, ISO.
        date: the day it moves on, ISO; empty for a scratch tape.
    """

    customer: str
    media: str
    volume: str
    repository: str
    description: str
    since: str
    date: str

    @property
    def name(self) -> str:
        """The qualified name, which is the key."""
        return f"{self.customer}.{self.media}.{self.volume}"

    def value(self) -> bytes:
        """What is stored under the name: JSON."""
        return msgspec.json.encode({**asdict(self), "date": self.date or None})


COLUMNS = tuple(field.name for field in fields(Volume))


def generate(count: int = VOLUMES, *, today: date, seed: int = SEED) -> Iterator[Volume]:
    """Make up an inventory.

    Args:
        count: volumes in all.
        today: what the dates are reckoned from.
        seed: another one gives another inventory.
    """
    chance = random.Random(seed)  # noqa: S311 - an inventory, not a secret
    total = sum(share for _, _, share, _ in _LIBRARIES)
    made = 0
    for number, (customer, media, share, pattern) in enumerate(_LIBRARIES, start=1):
        # The last library takes what rounding left over.
        part = count * share // total if number < len(_LIBRARIES) else count - made
        first = _CONTAINERS_FROM if media == "CONT" else 1
        for serial in range(first, first + part):
            yield _volume(chance, customer, media, pattern.format(serial), today)
        made += part


def _volume(chance: random.Random, customer: str, media: str, name: str, today: date) -> Volume:
    if chance.randrange(_SCRATCH_ONE_IN) == 0:
        since = today - timedelta(days=chance.randrange(60))
        return Volume(customer, media, name, "SCRT", "", since.isoformat(), "")
    description, keep_days, _ = chance.choices(_BACKUPS, [share for *_, share in _BACKUPS])[0]
    repository, _ = chance.choices(_REPOSITORIES, [share for _, share in _REPOSITORIES])[0]
    # A few are overdue: those are the ones an operator looks for.
    since = today - timedelta(days=chance.randrange(keep_days + keep_days // 7 + 1))
    moves = since + timedelta(days=keep_days)
    return Volume(
        customer, media, name, repository, description, since.isoformat(), moves.isoformat()
    )


def to_csv(volumes: Iterable[Volume]) -> str:
    """Write volumes as CSV with a header."""
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(volume) for volume in volumes)
    return out.getvalue()


def from_csv(lines: Iterable[str]) -> Iterator[Volume]:
    """Read what `to_csv` wrote.

    Raises:
        ValueError: a row lacks a column or has one too many; names its line.
    """
    reader = csv.DictReader(lines)
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise ValueError(f"line 1 must be {','.join(COLUMNS)}")
    for row in reader:
        if None in row or None in row.values():
            raise ValueError(f"line {reader.line_num} has not {len(COLUMNS)} columns")
        yield Volume(**row)
