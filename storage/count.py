"""A fast count of all keys, where it can be proved to be right."""

from __future__ import annotations

from berkeleydb import db

from storage.environment import Environment
from storage.keyspace import Keyspace


def count_if_quiet(environment: Environment, keyspace: Keyspace) -> int | None:
    """Count all keys of a master's small database while nobody writes; None when that fails.

    The library counts without locks. Its number is right if no transaction was under way when it
    began, and if none logged anything until it ended. On a replicant it proves nothing: there the
    log is written before what it says is done.

    *Thread:* any of the environment's; may take 0.1 s.
    """
    env = environment.env
    end = environment.log_end()
    if env.txn_stat()["nactive"]:
        return None
    try:
        number = keyspace.count_unlocked()
    except (db.DBRepHandleDeadError, db.DBRepLockoutError):
        return None
    return number if environment.log_end() == end else None
