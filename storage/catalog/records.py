"""What is stored of the catalog's objects, as JSON that db_dump and other programs can read.

A field at its default is left out, so a record from before a field was there reads as one without.
"""

import datetime as dt
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, Literal, TypeAlias, get_args

import msgspec

Unique: TypeAlias = Literal["none", "customer", "server"]
RepositoryType: TypeAlias = Literal[
    "library",
    "vault",
    "scratch",
    "rack",
    "transport",
    "destruction",
    "disaster-recovery",
    "legal-hold",
]
UNIQUE: Final[tuple[str, ...]] = get_args(Unique)
REPOSITORY_TYPES: Final[tuple[str, ...]] = get_args(RepositoryType)

# Flags that are stored, in the order they are shown, and what each says.
SETTABLE: Final[Mapping[str, str]] = {
    "E": "encrypted",
    "L": "update lock",
    "l": "move lock",
    "p": "move pending",
    "U": "scanned out",
    "K": "picked up",
    "a": "audit failed",
    "r": "requested back",
    "Q": "unhealthy",
    "h": "hidden",
}
MOVED_BACK: Final = "W"  # the server's own to set: moved back before it was confirmed
STORED: Final = "".join(SETTABLE) + MOVED_BACK
# Flags that follow from the record, the repository and the day.
DERIVED: Final[Mapping[str, str]] = {
    "M": "moving",
    "C": "confirmed at its repository",
    "D": "has a move date",
    "d": "move date has passed",
    "o": "overdue at its target",
    "O": "in an offsite repository",
    "B": "is a container with volumes in it",
    "c": "is in a container",
}
ALL_FLAGS: Final = "".join(DERIVED) + STORED


class Customer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A customer.

    Args:
        description: up to 40 characters.
        contact: whom to ask.
        locked: no volume of it can be changed.
        unique: where the IDs of its volumes have to be unique beyond their media type.
        media_max: media types it may have, 0 for any number.
    """

    description: str = ""
    contact: str = ""
    locked: bool = False
    unique: Unique = "none"
    media_max: int = 0


class Media(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A media type.

    Args:
        description: 1 to 20 characters.
        filter: the IDs its volumes may have.
        volumes_max, repositories_max: 0 for any number.
        default: where a new volume is put, a repository's ID.
        locked: no volume of it can be changed.
        warn_back: a cancelled move is warned of.
    """

    description: str
    filter: str = ""
    volumes_max: int = 0
    repositories_max: int = 0
    default: str = ""
    locked: bool = False
    warn_back: bool = True


class Repository(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A repository.

    Args:
        description: 1 to 20 characters.
        type: what kind of place it is.
        next: where its volumes go when their move date has come, a repository's ID.
        offsite: it is not where the library is.
        scratch: its volumes are blank and may be used.
        priority: which scratch repository is used first, 0 before 9.
        filter: the IDs of the volumes it takes.
        deletes: volumes in it may be deleted.
    """

    description: str
    type: RepositoryType = "rack"
    next: str = ""
    offsite: bool = False
    scratch: bool = False
    priority: int = 0
    filter: str = ""
    deletes: bool = True


class Place(msgspec.Struct, frozen=True, array_like=True):
    """A repository of a volume, and how it came to that.

    Args:
        repository: its ID.
        at: when, UTC.
        by: the user.
        via: the program.
    """

    repository: str
    at: datetime
    by: str
    via: str


class Volume(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A volume.

    Args:
        current, target: where it is, and where it has to be.
        scanned: where it was seen last.
        description: up to 40 characters.
        date: its next move date.
        overdue_days: how long a move may take; 0 for any time.
        container: the name of the volume it is in.
        contents: how many volumes are in it.
        home: the repository it belongs to, an ID.
        notes: up to 500 characters.
        flags: those of `STORED`, in that order.
        changes: how many records its history has.
    """

    current: Place
    target: Place
    scanned: Place | None = None
    description: str = ""
    date: dt.date | None = None
    overdue_days: int = 0
    container: str = ""
    contents: int = 0
    home: str = ""
    notes: str = ""
    flags: str = ""
    changes: int = 0

    @property
    def moving(self) -> bool:
        return self.current.repository != self.target.repository

    @property
    def confirmed(self) -> bool:
        """It was seen at its repository since it came there."""
        seen = self.scanned
        return (
            seen is not None
            and seen.repository == self.current.repository
            and seen.at >= self.current.at
        )

    @property
    def overdue_on(self) -> dt.date | None:
        """The day from which on its move is overdue; None when that cannot be."""
        if not self.moving or not self.overdue_days:
            return None
        return self.target.at.date() + timedelta(days=self.overdue_days + 1)


class HistoryRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One change of a volume's place, or of what decides about it.

    Args:
        at: when, UTC.
        by: the user.
        via: the program.
        what: the operation.
        before, after: what it changed, by the name of the field; see `custody_of`.
    """

    at: datetime
    by: str
    via: str
    what: str
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}


class Actor(msgspec.Struct, frozen=True):
    """Who does something, with what, when.

    Args:
        user: the user ID.
        program: what the client calls itself.
        at: the time of the request, UTC.
    """

    user: str
    program: str
    at: datetime

    def place(self, repository: str) -> Place:
        """A place that it came to just now."""
        return Place(repository, self.at, self.user, self.program)


def actor_at(user: str, program: str, seconds: float) -> Actor:
    """Make an actor of a time of day in seconds since 1970, kept to the millisecond."""
    at = datetime.fromtimestamp(int(seconds * 1000) / 1000, UTC)
    return Actor(user, program, at.replace(microsecond=at.microsecond // 1000 * 1000))


def with_flags(flags: str, add: str = "", remove: str = "") -> str:
    """Add and remove stored flags; the result is in their order."""
    there = (set(flags) | set(add)) - set(remove)
    return "".join(flag for flag in STORED if flag in there)


def flags_of(volume: Volume, *, today: date, offsite: bool) -> str:
    """All flags of a volume.

    Args:
        volume: its record.
        today: dates are seen from this day.
        offsite: whether its current repository is.
    """
    date, overdue_on = volume.date, volume.overdue_on
    # In the order of `DERIVED`; not a loop over it, because a list asks this of each of its rows.
    return (
        ("M" if volume.moving else "")
        + ("C" if volume.confirmed else "")
        + ("D" if date is not None else "")
        + ("d" if date is not None and date < today else "")
        + ("o" if overdue_on is not None and overdue_on <= today else "")
        + ("O" if offsite else "")
        + ("B" if volume.contents else "")
        + ("c" if volume.container else "")
        + volume.flags
    )


def custody_of(volume: Volume) -> dict[str, Any]:
    """What history keeps of a volume: its places and what decides about them."""
    facts: dict[str, Any] = {
        "current": volume.current.repository,
        "target": volume.target.repository,
        "scanned": volume.scanned.repository if volume.scanned is not None else None,
        "date": volume.date.isoformat() if volume.date is not None else None,
        "overdue_days": volume.overdue_days,
        "container": volume.container,
        "home": volume.home,
        "flags": volume.flags,
    }
    return {name: value for name, value in facts.items() if value}
