"""The membership database, read and written through the library.

It is an ordinary btree beside the library's own records. It is kept closed between uses, as native
sites do, so that nobody's handle stands in the way of internal initialisation. Its transactions
are always flushed: a group creator that lost them would come back as master of a group of one.
"""

from __future__ import annotations

from berkeleydb import db

from replication import library
from replication.errors import MembershipError
from replication.membership import (
    GMDB_DATABASE,
    GMDB_FILE,
    Membership,
    decode_gmdb,
    encode_gmdb,
    gmdb_changes,
)

DEADLOCK_RETRIES_MAX = 20


def read(env: db.DBEnv, generation: int) -> Membership | None:
    """Return the site list, None when there is no membership database (or an empty one).

    *Thread:* one of the environment's, not the event loop.

    Raises:
        MembershipError: a record makes no sense.
        db.DBError: the library refused.
    """
    handle = library.new_handle(env)
    try:
        handle.open(
            GMDB_FILE, dbname=GMDB_DATABASE, dbtype=db.DB_BTREE, flags=db.DB_THREAD | db.DB_RDONLY
        )
        items = handle.items()
    except db.DBNoSuchFileError:
        return None
    finally:
        handle.close()
    return decode_gmdb(items, generation) if items else None


def write(env: db.DBEnv, steps: tuple[Membership, ...], generation: int) -> Membership:
    """Commit site lists, each in a transaction of its own; the first may create the database.

    Returns:
        The last list.

    Raises:
        MembershipError: a step does not follow from what is there.
        db.DBError: the library refused; earlier steps stay committed.
    """
    current = read(env, generation)
    for step in steps:
        _retry(env, current, step)
        current = step
    assert current is not None, "there is at least one step"
    return current


def _retry(env: db.DBEnv, old: Membership | None, new: Membership) -> None:
    for attempt in range(DEADLOCK_RETRIES_MAX):
        try:
            _write_one(env, old, new)
        except db.DBLockDeadlockError:
            if attempt == DEADLOCK_RETRIES_MAX - 1:
                raise
        else:
            return


def _write_one(env: db.DBEnv, old: Membership | None, new: Membership) -> None:
    if old is None and new.version != 1:
        raise MembershipError(
            f"the membership database is missing, so its version {new.version} cannot be written",
            code="membership_missing",
            hint="start this site again; a master makes the database at its start.",
        )
    handle = library.new_handle(env)
    txn = env.txn_begin()
    try:
        handle.open(
            GMDB_FILE,
            dbname=GMDB_DATABASE,
            dbtype=db.DB_BTREE,
            flags=db.DB_THREAD | db.DB_CREATE,
            txn=txn,
        )
        changes = encode_gmdb(new) if old is None else gmdb_changes(old, new)
        for key, value in changes:
            if value is None:
                handle.delete(key, txn)
            else:
                handle.put(key, value, txn)
    except BaseException:
        txn.abort()
        handle.close()
        raise
    txn.commit(db.DB_TXN_SYNC)
    handle.close()
