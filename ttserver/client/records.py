"""What the commands of the catalog answer, as structs: fields, types and units.

All times are UTC. A field of a newer server that is not here is left out.
"""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal

import msgspec

from storage.catalog.records import RepositoryType, Unique


class Customer(msgspec.Struct, frozen=True, kw_only=True):
    """A customer; `media_max` 0 is any number."""

    name: str
    description: str
    contact: str
    locked: bool
    unique: Unique
    media_max: int


class Media(msgspec.Struct, frozen=True, kw_only=True):
    """A media type, and how many volumes it has; limits of 0 are none.

    Args:
        name: CUSTOMER.MEDIA.
        default: the repository new volumes are put into, an ID.
    """

    name: str
    customer: str
    media: str
    description: str
    filter: str | None
    volumes_max: int
    repositories_max: int
    default: str | None
    locked: bool
    warn_back: bool
    volumes: int


class Repository(msgspec.Struct, frozen=True, kw_only=True):
    """A repository, and how many volumes are in it, coming and going.

    Args:
        name: CUSTOMER.MEDIA.REPOSITORY.
        next: where volumes go when their date has come, an ID.
    """

    name: str
    customer: str
    media: str
    repository: str
    description: str
    type: RepositoryType
    next: str | None
    offsite: bool
    scratch: bool
    priority: int
    filter: str | None
    deletes: bool
    volumes: int
    incoming: int
    outgoing: int


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A repository of a volume, an ID, and since when, by whom, with what program."""

    repository: str
    at: dt.datetime
    by: str
    via: str


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """A volume.

    Args:
        name: CUSTOMER.MEDIA.VOLUME.
        flags: letters, those that follow from the record among them.
        current, target: where it is, and where it has to be.
        scanned: where it was seen last.
        date: when it moves on.
        overdue_days: how long a move may take; 0 for any time.
        container: the name of the volume it is in.
        contents: how many volumes are in it.
        home: the repository it belongs to, an ID.
    """

    name: str
    customer: str
    media: str
    volume: str
    description: str
    flags: str
    current: Place
    target: Place
    scanned: Place | None
    date: dt.date | None
    overdue_days: int
    container: str | None
    contents: int
    home: str | None
    encrypted: bool
    notes: str

    @property
    def moving(self) -> bool:
        return self.current.repository != self.target.repository


class MovedVolume(Volume, frozen=True, kw_only=True):
    """A volume after a step of its life.

    Args:
        carried: volumes inside it that went along.
        warnings: what the user should know.
    """

    carried: int
    warnings: list[str]


class HistoryRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One change of a volume.

    Args:
        number: counts the records of the volume.
        what: the operation.
        before, after: what it changed, by the name of the field.
    """

    name: str
    number: int
    at: dt.datetime
    by: str
    via: str
    what: str
    before: dict[str, Any]
    after: dict[str, Any]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a job made of one volume."""

    name: str
    verdict: str
    repository: str | None
    target: str | None
    why: str | None


class Expired(msgspec.Struct, frozen=True, kw_only=True):
    """What EXPIRE did, or with `dry` would do.

    Args:
        counts: how many volumes of each verdict.
        volumes: those.
    """

    on: dt.date
    dry: bool
    counts: dict[str, int]
    volumes: list[Outcome]


class Reconciled(msgspec.Struct, frozen=True, kw_only=True):
    """What RECONCILE found, or with `dry` would note.

    Args:
        scanned: how many IDs were given, each counted once.
        counts: how many volumes of each verdict.
        volumes: those that are not in order.
    """

    repository: str
    dry: bool
    scanned: int
    counts: dict[str, int]
    volumes: list[Outcome]


class Scratch(msgspec.Struct, frozen=True, kw_only=True):
    """A repository of blank volumes, and how many it has."""

    repository: str
    volumes: int


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """What a repository has, and what comes and goes.

    Args:
        difference: incoming less outgoing.
        deficit, surplus: blank volumes it will lack, or have left over.
        scratch: where blank ones are, in the order they are used.
    """

    repository: str
    volumes: int
    incoming: int
    outgoing: int
    difference: int
    deficit: int
    surplus: int
    scratch: list[Scratch]


class User(msgspec.Struct, frozen=True, kw_only=True):
    """A user; `revoked` after too many wrong passwords."""

    name: str
    role: Literal["administrator", "user"]
    group: str | None
    created: dt.datetime
    disabled: bool
    revoked: bool


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """A group; grants are `RIGHT:filter` of customers."""

    name: str
    role: str
    grants: list[str]


class Whoami(msgspec.Struct, frozen=True, kw_only=True):
    """Who is logged on.

    Args:
        everywhere: the right for what belongs to no customer.
        keys: what may be done with plain keys.
    """

    name: str
    role: Literal["administrator", "user"] | None
    group: str | None
    grants: list[str]
    everywhere: str
    keys: list[str]
