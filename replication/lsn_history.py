"""The library's record of where each generation begins, read from the environment.

It is a database of the library's own, beside the membership. Each new master writes its record
before it takes anything else, so a replicant that has a commit has the beginning of its
generation.

Source: the library's message formats, `lsn_hist_key` and `lsn_hist_data`, version 1.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import replace
from typing import Final, TypeAlias

from berkeleydb import db

from replication import library
from replication.generations import Beginning, History
from replication.membership import GMDB_FILE
from replication.wire import LSN

DATABASE: Final = "__db.lsn.history"
FORMAT: Final = 1
OwnHistory: TypeAlias = tuple[History, Beginning | None]
_KEY: Final = struct.Struct(">II")  # format, generation
_DATA: Final = struct.Struct(">IIIII")  # environment's number, file, offset, seconds, nanoseconds


def read(env: db.DBEnv) -> History:
    """Return the history; an empty one when there was no master yet.

    *Thread:* one of the environment's, not the event loop.

    Raises:
        db.DBError: the library refused.
    """
    items: list[tuple[bytes, bytes]] = []
    handle = library.new_handle(env)
    try:
        # What a replicant applies may want the same pages in the other order: never wait for a
        # lock here, or both stand until a deadlock is looked for.
        txn = env.txn_begin(flags=db.DB_TXN_NOWAIT)
        try:
            flags = db.DB_THREAD | db.DB_RDONLY
            handle.open(GMDB_FILE, dbname=DATABASE, dbtype=db.DB_BTREE, flags=flags, txn=txn)
            items = handle.items(txn)
        finally:
            txn.abort()
    except db.DBNoSuchFileError:
        pass  # there was no master yet
    finally:
        # At once: an open handle would stand in the way of internal initialisation.
        handle.close()
    return History(decode(items))


def read_own(env: db.DBEnv) -> OwnHistory:
    """Return the history; as a master also where its generation begins and what it kept.

    *Thread:* the one that changes the role.

    Raises:
        db.DBError: the library refused.
    """
    history, stat = read(env), env.rep_stat()
    began = history.beginning(int(stat["gen"]))
    if stat["status"] != db.DB_REP_MASTER or began is None:
        return history, None
    kept = library.last_commit(env, began.lsn)
    return history, replace(began, kept=kept or LSN(began.lsn.file, began.lsn.offset - 1))


def decode(items: Iterable[tuple[bytes, bytes]]) -> Iterable[Beginning]:
    """Read the database's records; one of another format is none."""
    for key, data in items:
        if len(key) != _KEY.size or len(data) != _DATA.size:
            continue
        format_, generation = _KEY.unpack(key)
        if format_ == FORMAT:
            _, file, offset, _, _ = _DATA.unpack(data)
            yield Beginning(generation, LSN(file, offset))
