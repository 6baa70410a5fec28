"""The catalog's databases, opened together, and the few ways they are read.

    catalog.db          customers, media types, repositories, by name
    volumes.db          volumes, by name
    volumes_index.db    see `storage.catalog.index`
    history.db          what happened to each volume, by its name and a number
    history_time.db     the keys of history.db by the time: keys without values
    groups.db           what users may do with it, see `storage.groups`

Keys are text in byte order, values JSON, so db_verify, db_dump and native sites read every file.
Walks read a page of keys at a time and let go of it, as those of `storage.keyspace` do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from berkeleydb import db

from storage.database import Database
from storage.environment import Environment
from storage.reads import WouldBlock

CATALOG_FILE: Final = "catalog.db"
VOLUMES_FILE: Final = "volumes.db"
INDEX_FILE: Final = "volumes_index.db"
HISTORY_FILE: Final = "history.db"
TIMES_FILE: Final = "history_time.db"
GROUPS_FILE: Final = "groups.db"

WALK_KEYS: Final = 128  # a step of a walk: about 0.2 ms

Pair = tuple[bytes, bytes]
Pace = Callable[["db.DBTxn"], bool]


class CatalogFiles:
    """The open databases of one environment.

    Args:
        environment: the one they are in.
        users: the users' database, opened elsewhere; every command looks into it.
    """

    def __init__(self, environment: Environment, users: Database | None = None) -> None:
        self._users = users
        self.objects = Database(environment, CATALOG_FILE)
        self.volumes = Database(environment, VOLUMES_FILE)
        self.index = Database(environment, INDEX_FILE)
        self.history = Database(environment, HISTORY_FILE)
        self.times = Database(environment, TIMES_FILE)
        self.groups = Database(environment, GROUPS_FILE)
        volumes = (self.volumes, self.index, self.history, self.times)
        self._all = (self.objects, *volumes, self.groups)

    @property
    def are_open(self) -> bool:
        """True when no handle has to be opened for a read."""
        if self._users is not None and not self._users.is_open:
            return False
        return all(database.is_open for database in self._all)

    def create(self) -> None:
        """Open all, making what is missing. Only on a master."""
        for database in self._all:
            database.create()

    def drop(self) -> None:
        """Have all opened again at their next use. *Thread:* any; never waits."""
        for database in self._all:
            database.drop()

    def close(self) -> None:
        """Close all. Nobody may be inside the library."""
        for database in self._all:
            database.close()


class Pacer:
    """What reads ask again and again, so that none holds the event loop.

    Args:
        files: of the site as it is open now.
        pace: see `storage.reads.Reads.pace`.
    """

    def __init__(self, files: Callable[[], CatalogFiles], pace: Pace) -> None:
        self._files = files
        self._pace = pace

    def __call__(self, txn: db.DBTxn) -> CatalogFiles:
        """Give the databases.

        Raises:
            WouldBlock: in the event loop, and this would take too long there.
        """
        files = self._files()
        if self._pace(txn) and not files.are_open:
            raise WouldBlock
        return files


def pairs_from(
    handle: db.DB, txn: db.DBTxn, start: bytes, prefix: bytes, limit: int = WALK_KEYS
) -> list[Pair]:
    """At most `limit` pairs whose keys begin with `prefix`, from `start` on, ascending."""
    found: list[Pair] = []
    cursor = handle.cursor(txn, db.DB_READ_COMMITTED)
    try:
        item = cursor.set_range(start)
        while item is not None and item[0].startswith(prefix):
            found.append(item)
            if len(found) >= limit:
                break
            item = cursor.next()
    finally:
        cursor.close()
    return found


def keys_from(
    handle: db.DB, txn: db.DBTxn, start: bytes, prefix: bytes, limit: int = WALK_KEYS
) -> list[bytes]:
    """The keys alone, see `pairs_from`."""
    found: list[bytes] = []
    cursor = handle.cursor(txn, db.DB_READ_COMMITTED)
    try:
        # Reading no byte of a value gives the keys alone.
        item = cursor.set_range(start, 0, 0, 0)
        while item is not None and item[0].startswith(prefix):
            found.append(item[0])
            if len(found) >= limit:
                break
            item = cursor.next(0, 0, 0)
    finally:
        cursor.close()
    return found


def last_key(handle: db.DB, txn: db.DBTxn, prefix: bytes, above: bytes) -> bytes | None:
    """The last key that begins with `prefix`; `above` is greater than all of these."""
    cursor = handle.cursor(txn)
    try:
        item = cursor.set_range(above, 0, 0, 0)
        item = cursor.last(0, 0, 0) if item is None else cursor.prev(0, 0, 0)
    finally:
        cursor.close()
    return item[0] if item is not None and item[0].startswith(prefix) else None


def behind(key: bytes) -> bytes:
    """The first key that can come after this one."""
    return key + b"\0"


def walk_keys(
    handle: Callable[[], db.DB],
    txn: db.DBTxn,
    start: bytes,
    prefix: bytes,
    pace: Callable[[db.DBTxn], object],
) -> Iterator[bytes]:
    """All keys that begin with `prefix`, from `start` on; no cursor is open between two."""
    while True:
        pace(txn)
        found = keys_from(handle(), txn, start, prefix)
        yield from found
        if len(found) < WALK_KEYS:
            return
        start = behind(found[-1])
