"""Which databases an environment holds, and which of them could be served as the plain keyspace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from berkeleydb import db

from storage.library import from_library

if TYPE_CHECKING:
    from pathlib import Path

_KINDS: Final = {
    db.DB_BTREE: "btree",
    db.DB_HASH: "hash",
    db.DB_HEAP: "heap",
    db.DB_QUEUE: "queue",
    db.DB_RECNO: "recno",
}
# Of a btree's meta page (the library's btree.h, BTM_*); record numbers alone change nothing here.
_DUPLICATES: Final = 0x01
_SEVERAL: Final = 0x20
_NO_DATABASES: Final = ("log.", "__db", "DB_CONFIG", "$DB_Msg")


@dataclass(frozen=True, slots=True)
class Inventoried:
    """One database file.

    Args:
        file: its name in the environment.
        kind: btree, hash, heap, queue or recno.
        obstacle: why it cannot be served as the keyspace; empty when it can.
    """

    file: str
    kind: str
    obstacle: str


def take(env: db.DBEnv, environment: Path) -> list[Inventoried]:
    """Look at every database file of an environment, in the order of their names.

    Args:
        env: its open handle.
        environment: its directory.

    Raises:
        StorageError: the library refused, other than because a file is no database.

    *Thread:* one of the environment's.
    """
    names = sorted(
        path.name
        for path in environment.iterdir()
        if path.is_file() and not path.name.startswith(_NO_DATABASES)
    )
    found = [_look(env, name) for name in names]
    return [each for each in found if each is not None]


def _look(env: db.DBEnv, file: str) -> Inventoried | None:
    handle = db.DB(env)
    try:
        handle.open(file, flags=db.DB_RDONLY | db.DB_THREAD)
        kind, stat = handle.get_type(), handle.stat(db.DB_FAST_STAT)
    except db.DBInvalidArgError:
        return None  # some other file
    except db.DBError as error:
        raise from_library(error, f"{file} cannot be looked at") from error
    finally:
        handle.close()
    name = _KINDS.get(kind, "unknown")
    if kind != db.DB_BTREE:
        return Inventoried(file, name, f"it is a {name}, not a btree")
    if stat["metaflags"] & _SEVERAL:
        return Inventoried(file, name, "it holds several databases by name")
    if stat["metaflags"] & _DUPLICATES:
        return Inventoried(file, name, "it holds several values of one key")
    return Inventoried(file, name, "")
