"""The table of commands: for each a function that makes its call.

The clients' methods are made of these, see `ttserver.client.methods`. Values and keys are bytes as
they are stored; text is encoded as UTF-8. Dates are `datetime.date`, or text as the server knows
it: `*+7`, `none`. An option that is left out stays as it is, or at the server's default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, Final, TypeAlias, TypedDict, TypeVar, Unpack

from storage.catalog.records import RepositoryType, Unique
from ttserver.client.call import (
    Call,
    Listing,
    Word,
    as_is,
    done,
    number,
    options,
    plain,
    shape,
    shapes,
)
from ttserver.client.records import (
    Balance,
    Customer,
    Expired,
    Group,
    HistoryRecord,
    Media,
    MovedVolume,
    Reconciled,
    Repository,
    User,
    Volume,
    Whoami,
)

T = TypeVar("T")
Key: TypeAlias = bytes | str
Value: TypeAlias = bytes | str | int | float
Day: TypeAlias = date | str

JOB_TIMEOUT_S: Final = 3600.0  # of work over many volumes
REPLY_S: Final = 10.0  # for the reply to what waited its own time at the server
PAGE_ROWS: Final = 500

# -- keys


def get(key: Key) -> Call[bytes | None]:
    """GET: the value of a key, None when there is no such key."""
    return Call("GET", key, decode=as_is, text=False)


def set_(key: Key, value: Value, *, nx: bool = False, xx: bool = False) -> Call[bool]:
    """SET: whether it was set; with `nx` only a new key is, with `xx` only one that is there."""
    when = [word for word, wanted in (("NX", nx), ("XX", xx)) if wanted]
    return Call("SET", key, value, *when, decode=_was_ok, write=True, again=not when)


def getdel(key: Key) -> Call[bytes | None]:
    """GETDEL: the value of a key, which is gone then."""
    return Call("GETDEL", key, decode=as_is, write=True, text=False)


def delete(*keys: Key) -> Call[int]:
    """DEL: how many of the keys were there."""
    return Call("DEL", *keys, decode=number, write=True)


def exists(*keys: Key) -> Call[int]:
    """EXISTS: how many of the keys are there."""
    return Call("EXISTS", *keys, decode=number)


def mget(*keys: Key) -> Call[list[bytes | None]]:
    """MGET: the values of keys, in their order."""
    return Call("MGET", *keys, decode=as_is, text=False)


def mset(pairs: Mapping[Key, Value]) -> Call[None]:
    """MSET: set many keys in one commit."""
    words = [word for pair in pairs.items() for word in pair]
    return Call("MSET", *words, decode=done, write=True, again=True)


def append(key: Key, value: Value) -> Call[int]:
    """APPEND: how long the value is then, in bytes."""
    return Call("APPEND", key, value, decode=number, write=True)


def strlen(key: Key) -> Call[int]:
    """STRLEN: how long the value is, in bytes; 0 when there is no such key."""
    return Call("STRLEN", key, decode=number)


def incr(key: Key, by: int = 1) -> Call[int]:
    """INCRBY: add to a number, 0 when there is no such key; gives the sum."""
    return Call("INCRBY", key, by, decode=number, write=True)


def scan(match: Key | None = None) -> Listing[bytes]:
    """SCAN: keys in byte order, those that match a pattern such as `US04.*`."""
    asked: list[Word] = [] if match is None else ["MATCH", match]
    return Listing("SCAN", *asked, "COUNT", PAGE_ROWS, decode=as_is, text=False)


def range_(
    start: Key = "-", end: Key = "+", *, limit: int | None = None, rev: bool = False
) -> Call[list[tuple[bytes, bytes]]]:
    """RANGE: keys and their values from `start` to `end`, both included; `-` and `+` are open."""
    words: list[Word] = ["RANGE", start, end]
    words += [] if limit is None else ["LIMIT", limit]
    words += ["REV"] if rev else []
    return Call(*words, decode=_pairs, text=False)


def dbsize() -> Call[int]:
    """DBSIZE: how many keys there are."""
    return Call("DBSIZE", decode=number)


# -- the server


def ping() -> Call[None]:
    """PING: see whether a site answers."""
    return Call("PING", decode=done)


def info(section: str = "replication") -> Call[dict[str, str]]:
    """INFO: what the site that answers says of itself, a section at a time."""
    return Call("INFO", section, decode=_facts)


def waitfor(token: str, timeout_s: float) -> Call[bool]:
    """WAITFOR: whether that write can be read at this site within the time.

    The server answers TOKENLOST, which is raised as `WriteLost`, when it was rolled back.
    """
    milliseconds = int(timeout_s * 1000)
    wait_s = timeout_s + REPLY_S
    return Call("WAITFOR", token, milliseconds, decode=bool, timeout_s=wait_s)


# -- customers, media types, repositories


class CustomerOptions(TypedDict, total=False):
    """What can be said of a customer; `max_media` 0 is any number."""

    description: str
    contact: str
    lock: bool
    unique: Unique
    max_media: int


class MediaOptions(TypedDict, total=False):
    """What can be said of a media type; limits of 0 are none."""

    description: str
    filter: str
    max_volumes: int
    max_repositories: int
    default: str
    lock: bool
    warn_back: bool


class RepositoryOptions(TypedDict, total=False):
    """What can be said of a repository."""

    description: str
    type: RepositoryType
    next: str
    offsite: bool
    scratch: bool
    priority: int
    filter: str
    deletes: bool


def customer_add(name: str, **given: Unpack[CustomerOptions]) -> Call[Customer]:
    """CUSTOMER.ADD."""
    return _write(Customer, "CUSTOMER.ADD", name, given)


def customer_set(name: str, **given: Unpack[CustomerOptions]) -> Call[Customer]:
    """CUSTOMER.SET."""
    return _write(Customer, "CUSTOMER.SET", name, given, again=True)


def customer_get(name: str) -> Call[Customer]:
    """CUSTOMER.GET."""
    return _read(Customer, "CUSTOMER.GET", name)


def customer_list(match: str = "*") -> Listing[Customer]:
    """CUSTOMER.LIST: those whose names match a filter."""
    return _list(Customer, "CUSTOMER.LIST", {"match": match})


def customer_del(name: str) -> Call[None]:
    """CUSTOMER.DEL."""
    return Call("CUSTOMER.DEL", name, decode=done, write=True)


def media_add(name: str, **given: Unpack[MediaOptions]) -> Call[Media]:
    """MEDIA.ADD; the description has to be given."""
    return _write(Media, "MEDIA.ADD", name, given)


def media_set(name: str, **given: Unpack[MediaOptions]) -> Call[Media]:
    """MEDIA.SET."""
    return _write(Media, "MEDIA.SET", name, given, again=True)


def media_get(name: str) -> Call[Media]:
    """MEDIA.GET."""
    return _read(Media, "MEDIA.GET", name)


def media_list(match: str = "*") -> Listing[Media]:
    """MEDIA.LIST: those whose names match a filter."""
    return _list(Media, "MEDIA.LIST", {"match": match})


def media_del(name: str) -> Call[None]:
    """MEDIA.DEL."""
    return Call("MEDIA.DEL", name, decode=done, write=True)


def repository_add(name: str, **given: Unpack[RepositoryOptions]) -> Call[Repository]:
    """REPOSITORY.ADD; the description has to be given."""
    return _write(Repository, "REPOSITORY.ADD", name, given)


def repository_set(name: str, **given: Unpack[RepositoryOptions]) -> Call[Repository]:
    """REPOSITORY.SET."""
    return _write(Repository, "REPOSITORY.SET", name, given, again=True)


def repository_get(name: str) -> Call[Repository]:
    """REPOSITORY.GET."""
    return _read(Repository, "REPOSITORY.GET", name)


def repository_list(match: str = "*") -> Listing[Repository]:
    """REPOSITORY.LIST: those whose names match a filter."""
    return _list(Repository, "REPOSITORY.LIST", {"match": match})


def repository_del(name: str) -> Call[None]:
    """REPOSITORY.DEL."""
    return Call("REPOSITORY.DEL", name, decode=done, write=True)


# -- volumes


class VolumeOptions(TypedDict, total=False):
    """What can be said of a volume; `overdue` in days, 0 for any time."""

    description: str
    date: Day
    overdue: int
    container: str
    home: str
    notes: str


class NewVolumeOptions(VolumeOptions, total=False):
    """And of a new one: the repository it is put into (an ID), flags to set."""

    in_: str
    flags: str


class VolumeQuery(TypedDict, total=False):
    """Which volumes; everything that is given has to hold.

    `in_`, `to` and `home` are repositories: an ID means that of every media type, or a whole name.
    `flags` are letters all of which they have, `without` letters none of which they have; `due` is
    the day until which their move date has come; `container` is the volume they are in.
    """

    match: str
    in_: str
    to: str
    home: str
    flags: str
    without: str
    due: Day
    container: str


def volume_add(name: str, **given: Unpack[NewVolumeOptions]) -> Call[Volume]:
    """VOLUME.ADD: into a repository, or into the default one of its media type."""
    return _write(Volume, "VOLUME.ADD", name, given)


def volume_check(name: str, **given: Unpack[NewVolumeOptions]) -> Call[Volume]:
    """VOLUME.CHECK: what VOLUME.ADD would answer; nothing is added."""
    return Call("VOLUME.CHECK", name, *options(given), decode=shape(Volume))


def volume_set(name: str, **given: Unpack[VolumeOptions]) -> Call[Volume]:
    """VOLUME.SET; an empty text takes a value away."""
    return _write(Volume, "VOLUME.SET", name, given, again=True)


def volume_get(name: str) -> Call[Volume]:
    """VOLUME.GET."""
    return _read(Volume, "VOLUME.GET", name)


def volume_list(**asked: Unpack[VolumeQuery]) -> Listing[Volume]:
    """VOLUME.LIST."""
    return _list(Volume, "VOLUME.LIST", asked)


def volume_count(**asked: Unpack[VolumeQuery]) -> Call[int]:
    """VOLUME.COUNT."""
    return Call("VOLUME.COUNT", *options(asked), decode=number)


def volume_del(name: str) -> Call[None]:
    """VOLUME.DEL: its history stays."""
    return Call("VOLUME.DEL", name, decode=done, write=True)


def volume_move(name: str, repository: str) -> Call[MovedVolume]:
    """VOLUME.MOVE: ask for it to be brought to a repository."""
    return _step("VOLUME.MOVE", name, repository)


def volume_scanout(name: str) -> Call[MovedVolume]:
    """VOLUME.SCANOUT: it was scanned out on its way."""
    return _step("VOLUME.SCANOUT", name)


def volume_pickup(name: str) -> Call[MovedVolume]:
    """VOLUME.PICKUP: it was picked up on its way."""
    return _step("VOLUME.PICKUP", name)


def volume_confirm(name: str, *, at: str | None = None) -> Call[MovedVolume]:
    """VOLUME.CONFIRM: it was scanned in, at its target when nothing else is said."""
    return _step("VOLUME.CONFIRM", name, *options({"at": at}))


def volume_cancel(name: str) -> Call[MovedVolume]:
    """VOLUME.CANCEL: call it back to where it is."""
    return _step("VOLUME.CANCEL", name)


def volume_setdate(name: str, when: Day) -> Call[Volume]:
    """VOLUME.SETDATE: when it moves on."""
    return Call("VOLUME.SETDATE", name, when, decode=shape(Volume), write=True, again=True)


def volume_flag(name: str, *changes: str) -> Call[Volume]:
    """VOLUME.FLAG: set flags (`+E`) and clear them (`-l`)."""
    # Not to be repeated: once flag L is set, the same is refused.
    return Call("VOLUME.FLAG", name, *changes, decode=shape(Volume), write=True)


def volume_history(
    match: str, *, since: datetime | Day | None = None, until: datetime | Day | None = None
) -> Listing[HistoryRecord]:
    """VOLUME.HISTORY: of a volume, or of all that match; by time with `since` or `until`."""
    span = options({"from": _moment(since), "to": _moment(until)})
    words = ("VOLUME.HISTORY", match, *span, "COUNT", PAGE_ROWS)
    return Listing(*words, decode=shape(HistoryRecord), cursor_at=-1)


# -- work over many volumes


def expire(*, on: Day | None = None, match: str = "*", dry: bool = False) -> Call[Expired]:
    """EXPIRE: send volumes whose date has come where their repositories send them; once a day."""
    words = [*options({"on": on, "match": match}), *(["DRYRUN"] if dry else [])]
    return _job(Expired, dry, "EXPIRE", *words)


def reconcile(repository: str, ids: Sequence[str], *, dry: bool = False) -> Call[Reconciled]:
    """RECONCILE: compare a repository with what was scanned there; what is missing is marked."""
    words = [*(["DRYRUN"] if dry else []), "IDS", *ids]
    return _job(Reconciled, dry, "RECONCILE", repository, *words)


def library_balance(repository: str) -> Call[Balance]:
    """LIBRARY.BALANCE: what it has, what comes and goes, blank volumes."""
    return _read(Balance, "LIBRARY.BALANCE", repository)


# -- users and groups


class UserOptions(TypedDict, total=False):
    """What can be changed of a user; `revoked` can only be taken back."""

    group: str
    disabled: bool
    revoked: bool


def user_add(name: str, password: str, *, group: str | None = None) -> Call[None]:
    """USER.ADD."""
    return Call("USER.ADD", name, password, *options({"group": group}), decode=done, write=True)


def user_set(name: str, **given: Unpack[UserOptions]) -> Call[User]:
    """USER.SET."""
    return _write(User, "USER.SET", name, given, again=True)


def user_passwd(name: str, password: str) -> Call[None]:
    """USER.PASSWD: another user's password; takes a revocation back."""
    return Call("USER.PASSWD", name, password, decode=done, write=True, again=True)


def user_get(name: str) -> Call[User]:
    """USER.GET."""
    return _read(User, "USER.GET", name)


def user_list() -> Call[list[User]]:
    """USER.LIST."""
    return Call("USER.LIST", decode=shapes(User))


def user_del(name: str) -> Call[None]:
    """USER.DEL."""
    return Call("USER.DEL", name, decode=done, write=True)


def group_add(name: str, *, role: str | None = None, grants: Sequence[str] = ()) -> Call[Group]:
    """GROUP.ADD; grants are `RIGHT:filter` of customers."""
    return _write(Group, "GROUP.ADD", name, {"role": role, "grants": " ".join(grants)})


def group_set(
    name: str, *, role: str | None = None, grants: Sequence[str] | None = None
) -> Call[Group]:
    """GROUP.SET; the grants replace those before."""
    given = {"role": role, "grants": None if grants is None else " ".join(grants)}
    return _write(Group, "GROUP.SET", name, given, again=True)


def group_get(name: str) -> Call[Group]:
    """GROUP.GET."""
    return _read(Group, "GROUP.GET", name)


def group_list() -> Call[list[Group]]:
    """GROUP.LIST."""
    return Call("GROUP.LIST", decode=shapes(Group))


def group_del(name: str) -> Call[None]:
    """GROUP.DEL: when nobody is in it."""
    return Call("GROUP.DEL", name, decode=done, write=True)


def passwd(old: str, new: str) -> Call[None]:
    """PASSWD: one's own. The client itself goes on with the old one where it connects anew."""
    return Call("PASSWD", old, new, decode=done, write=True)


def whoami() -> Call[Whoami]:
    """WHOAMI."""
    return Call("WHOAMI", decode=shape(Whoami))


# -- steps


def _write(
    kind: type[T], command: str, name: str, given: Mapping[str, Any], *, again: bool = False
) -> Call[T]:
    return Call(command, name, *options(given), decode=shape(kind), write=True, again=again)


def _read(kind: type[T], command: str, name: str) -> Call[T]:
    return Call(command, name, decode=shape(kind))


def _list(kind: type[T], command: str, asked: Mapping[str, Any]) -> Listing[T]:
    return Listing(command, *options(asked), "COUNT", PAGE_ROWS, decode=shape(kind))


def _step(command: str, name: str, *words: Word) -> Call[MovedVolume]:
    # Not to be repeated: done twice, most of them answer something else than once.
    return Call(command, name, *words, decode=shape(MovedVolume), write=True)


def _job(kind: type[T], dry: bool, *words: Word) -> Call[T]:
    # Made to be sent again after an interruption, but its answer is of the rest then.
    return Call(*words, decode=shape(kind), write=not dry, timeout_s=JOB_TIMEOUT_S)


def _moment(when: datetime | Day | None) -> Day | None:
    if not isinstance(when, datetime):
        return when
    if when.tzinfo is None:
        raise ValueError("a time of the history needs a time zone: datetime.now(UTC)")
    return when.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _was_ok(reply: Any) -> bool:
    return reply is not None


def _pairs(reply: list[bytes]) -> list[tuple[bytes, bytes]]:
    return list(zip(reply[::2], reply[1::2], strict=True))


def _facts(reply: Any) -> dict[str, str]:
    lines = (line.partition(":") for line in plain(reply).splitlines())
    return {name: value for name, colon, value in lines if colon}
