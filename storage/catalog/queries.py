"""Lists of volumes, a page at a time, by the index that leaves least to look at.

A list walks over one index (or the volumes themselves), one media type after the other, and looks
at each volume for what else was asked. So a page begins where the last one ended, whatever was
added or deleted meanwhile, and volumes come in the order of their names; by date, then name, when
a date was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from storage.catalog.files import WALK_KEYS, behind, keys_from, pairs_from
from storage.catalog.filters import EVERYTHING, compile_filter
from storage.catalog.index import (
    CONTAINER,
    CURRENT,
    DATE,
    FLAG,
    HOME,
    INDEXED_FLAGS,
    OVERDUE,
    TARGET,
    UNCONFIRMED,
)
from storage.catalog.names import CatalogError, shown
from storage.catalog.records import ALL_FLAGS, Volume, flags_of
from storage.catalog.store import CatalogStore, decode_volume
from storage.catalog.tree import Sees, Tree

if TYPE_CHECKING:
    from berkeleydb import db

# A page may come back short, with a cursor, rather than hold a thread: 2 ms for so many keys, as
# much again for so many volumes that were read and were none of those asked for.
EXAMINED_MAX: Final = 1000
MISSES_MAX: Final = 200
# The fewer volumes have a flag, the better its index.
_RARE_FLAGS: Final = "aWQrKUphLlcM"
_COMMON_FLAGS: Final = "BE"


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """What volumes are asked for; everything that is given has to hold.

    Args:
        filter: of their names.
        today: what dates are seen from.
        place: the ID of the repository they are in.
        target: of the one they are moving to.
        home: of the one they belong to.
        flags: letters of flags they have.
        without: letters of flags they do not have.
        due: they have a move date, this day or earlier.
        container: the name of the volume they are in.
    """

    today: date
    filter: str = EVERYTHING
    place: str = ""
    target: str = ""
    home: str = ""
    flags: str = ""
    without: str = ""
    due: date | None = None
    container: str = ""

    def check(self) -> None:
        """Refuse flags that do not exist.

        Raises:
            CatalogError: INVALID, also for a filter that cannot be.
        """
        compile_filter(self.filter)
        for flag in self.flags + self.without:
            if flag not in ALL_FLAGS:
                raise CatalogError(
                    f"flag {shown(flag)} refused: there is none of this name",
                    hint=f"flags are {ALL_FLAGS}; capital letters count.",
                )


class Listed(msgspec.Struct, frozen=True):
    """One volume of a list, with all its flags."""

    name: str
    volume: Volume
    flags: str


class Page(msgspec.Struct, frozen=True):
    """A part of a list, and where the next one goes on; None at its end."""

    volumes: list[Listed]
    after: bytes | None


class _Range(msgspec.Struct, frozen=True):
    """The keys of one media type to walk over.

    Args:
        prefix: all of them begin so.
        by_id: the volume's ID comes right behind that.
        last: none is greater.
    """

    prefix: str
    by_id: bool = True
    last: str = ""


class _Item(msgspec.Struct, frozen=True):
    """One key that was walked over; `data` when it was a volume's own."""

    media: str
    key: bytes
    name: str
    data: bytes | None
    matched: bool


class Queries:
    """See the module's text.

    Args:
        store: where the records are.
        tree: gives the media types.
    """

    def __init__(self, store: CatalogStore, tree: Tree) -> None:
        self._store = store
        self._tree = tree

    def page(
        self, txn: db.DBTxn, query: Query, after: bytes | None, limit: int, sees: Sees
    ) -> Page:
        """At most `limit` volumes behind `after`; fewer, even none, with more to come.

        Raises:
            CatalogError: INVALID.
        """
        query.check()
        found: list[Listed] = []
        offsite: dict[str, bool] = {}
        misses = 0
        for number, item in enumerate(self._walk(txn, query, after, sees), start=1):
            if item.matched:
                listed = self._look(txn, query, item, offsite)
                if listed is not None:
                    found.append(listed)
                else:
                    misses += 1
            if len(found) == limit or number == EXAMINED_MAX or misses == MISSES_MAX:
                return Page(found, f"{item.media} ".encode() + item.key)
        return Page(found, None)

    def count(self, txn: db.DBTxn, query: Query, sees: Sees) -> int:
        """Count the volumes; by the counts that are kept where these say it.

        Raises:
            CatalogError: INVALID.
        """
        query.check()
        place = _only_place(query)
        if place is None:
            return self._count_each(txn, query, sees)
        wanted, total = compile_filter(query.filter), 0
        for media, _ in self._tree.reachable_media(txn, query.filter, "", sees):
            rest = wanted.after(media + ".")
            if rest is not None and rest.everything:
                total += self._store.counts(txn, media + place[0])[place[1]]
            else:
                total += self._count_each(txn, query, sees, media)
        return total

    def _count_each(self, txn: db.DBTxn, query: Query, sees: Sees, media: str = "") -> int:
        total, offsite = 0, dict[str, bool]()
        whole = _index_says_all(query)
        for item in self._walk(txn, query, None, sees, media):
            if item.matched and (whole or self._look(txn, query, item, offsite) is not None):
                total += 1
        return total

    # -- walking

    def _walk(
        self,
        txn: db.DBTxn,
        query: Query,
        after: bytes | None,
        sees: Sees,
        only: str = "",
    ) -> Iterator[_Item]:
        first, start = "", b""
        if after is not None:
            place, _, start = after.partition(b" ")
            first = place.decode()
        wanted = compile_filter(query.filter)
        for media, _ in self._tree.reachable_media(txn, query.filter, first or only, sees):
            if only and media != only:
                return
            rest = wanted.after(f"{media}.")
            assert rest is not None, "such a media type is not reachable"
            span = _range(query, media)
            literal = rest.literal if span.by_id else ""
            prefix = f"{span.prefix}{literal}".encode()
            begin = prefix
            if media == first:
                if not start.startswith(prefix):
                    raise CatalogError(
                        "cursor refused: it belongs to another list",
                        hint="begin with cursor 0, and ask the same each time.",
                    )
                begin = behind(start)
            for key, data in self._keys(txn, query, begin, prefix):
                if span.last and key.decode() > span.last:
                    break
                name = f"{media}.{key.decode().replace('.', ' ').rpartition(' ')[2]}"
                matched = rest.everything or bool(wanted.matches(name))
                yield _Item(media, key, name, data, matched)

    def _keys(
        self, txn: db.DBTxn, query: Query, start: bytes, prefix: bytes
    ) -> Iterator[tuple[bytes, bytes | None]]:
        plain = _choice(query) == ""
        while True:
            files = self._store.files(txn)
            found: list[tuple[bytes, bytes | None]]
            if plain:
                found = [*pairs_from(files.volumes.handle(), txn, start, prefix)]
            else:
                keys = keys_from(files.index.handle(), txn, start, prefix)
                found = [(key, None) for key in keys]
            yield from found
            if len(found) < WALK_KEYS:
                return
            start = behind(found[-1][0])

    def _look(
        self, txn: db.DBTxn, query: Query, item: _Item, offsite: dict[str, bool]
    ) -> Listed | None:
        """Read a volume, and see whether everything else holds."""
        if item.data is not None:
            volume = decode_volume(item.name, item.data)
        else:
            there = self._store.volume(txn, item.name)
            if there is None:
                return None  # deleted since its key was read: pages are let go of
            volume = there
        place = f"{item.media}.{volume.current.repository}"
        if place not in offsite:
            repository = self._store.repository(txn, place)
            offsite[place] = repository is not None and repository.offsite
        flags = flags_of(volume, today=query.today, offsite=offsite[place])
        return Listed(item.name, volume, flags) if _holds(query, volume, flags) else None


def _holds(query: Query, volume: Volume, flags: str) -> bool:
    if query.place and volume.current.repository != query.place:
        return False
    if query.target and not (volume.moving and volume.target.repository == query.target):
        return False
    if query.home and volume.home != query.home:
        return False
    if query.due is not None and (volume.date is None or volume.date > query.due):
        return False
    if query.container and volume.container != query.container:
        return False
    have = set(flags)
    return have.issuperset(query.flags) and have.isdisjoint(query.without)


def _choice(query: Query) -> str:
    """Choose the index: the one with the fewest keys, as a rule."""
    has, lacks = query.flags, query.without
    order = (
        (CONTAINER, bool(query.container)),
        *((FLAG + flag, flag in has) for flag in _RARE_FLAGS),
        (OVERDUE, "o" in has),
        (TARGET, bool(query.target)),
        (DATE, "d" in has or query.due is not None),
        (FLAG + UNCONFIRMED, "C" in lacks),
        (HOME, bool(query.home)),
        (CURRENT, bool(query.place)),
        (DATE, "D" in has),
        *((FLAG + flag, flag in has) for flag in _COMMON_FLAGS),
    )
    return next((choice for choice, asked in order if asked), "")


def _range(query: Query, media: str) -> _Range:
    choice = _choice(query)
    if choice == "":
        return _Range(f"{media}.")
    if choice == CONTAINER:
        return _Range(f"{CONTAINER} {query.container} {media}.")
    if choice in (DATE, OVERDUE):
        prefix = f"{choice} {media} "
        last = _last_day(query) if choice == DATE else query.today
        return _Range(prefix, by_id=False, last=f"{prefix}{last}~" if last is not None else "")
    if choice.startswith(FLAG):
        return _Range(f"{choice} {media} ")
    repository = {TARGET: query.target, HOME: query.home, CURRENT: query.place}[choice]
    return _Range(f"{choice} {media}.{repository} ")


def _last_day(query: Query) -> date | None:
    yesterday = query.today - timedelta(days=1)
    days = [query.due] if query.due is not None else []
    days += [yesterday] if "d" in query.flags else []
    return min(days) if days else None


def _only_place(query: Query) -> tuple[str, int] | None:
    """Tell which of the kept counts answers a query: what follows the media type, and which."""
    bare = Query(today=query.today, filter=query.filter)
    if query == bare:
        return "", 0
    if query == msgspec.structs.replace(bare, place=query.place):
        return f".{query.place}", 0
    if query == msgspec.structs.replace(bare, target=query.target):
        return f".{query.target}", 1
    return None


def _index_says_all(query: Query) -> bool:
    """Tell whether a key of the chosen index is enough to know that a volume is one."""
    choice = _choice(query)
    asked = msgspec.structs.replace(query, filter=EVERYTHING)
    bare = Query(today=query.today)
    if choice.startswith(FLAG) and choice != FLAG + UNCONFIRMED:
        return asked == msgspec.structs.replace(bare, flags=choice[1:])
    if choice == DATE:
        return asked == msgspec.structs.replace(bare, due=query.due)
    single = {
        "": bare,
        CURRENT: msgspec.structs.replace(bare, place=query.place),
        TARGET: msgspec.structs.replace(bare, target=query.target),
        HOME: msgspec.structs.replace(bare, home=query.home),
        CONTAINER: msgspec.structs.replace(bare, container=query.container),
        OVERDUE: msgspec.structs.replace(bare, flags="o"),
        FLAG + UNCONFIRMED: msgspec.structs.replace(bare, without="C"),
    }
    return asked == single[choice]


assert set(_RARE_FLAGS + _COMMON_FLAGS) == set(INDEXED_FLAGS), "each index is tried"
