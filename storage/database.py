"""One btree file of the environment, with a handle that is opened again after it died.

On a replicant a handle dies when the library replaces the file under it (internal
initialisation) or undoes transactions (`DB_REP_HANDLE_DEAD`). The dead handle is only put aside:
another thread may be inside it, and closing it then would crash. It is closed with the
environment.

Source: Programmer's Reference, "Running replication: handles" (`DB_REP_HANDLE_DEAD`).
"""

from __future__ import annotations

import threading

from berkeleydb import db

from storage.environment import Environment
from storage.library import LIBRARY_ERRORS, DatabaseMissing, from_library

# These say that the open itself may be tried again, which is its caller's business.
_PASSING = (
    db.DBLockDeadlockError,
    db.DBLockNotGrantedError,
    db.DBRepHandleDeadError,
    db.DBRepLockoutError,
    db.DBRunRecoveryError,
)


class Database:
    """A btree in a file of its own (or a named one inside a file).

    Args:
        environment: the environment that holds it.
        filename: inside the environment's data directory.
        name: the sub-database, None for a file that is one database.
    """

    def __init__(self, environment: Environment, filename: str, name: str | None = None) -> None:
        self._environment = environment
        self.filename = filename
        self.name = name
        self._handle: db.DB | None = None
        self._dead: list[db.DB] = []
        self._drops = 0
        self._lock = threading.Lock()  # never held while the library is called
        self._opening = threading.Lock()

    @property
    def is_open(self) -> bool:
        """True when `handle` answers at once, without opening a file."""
        return self._handle is not None

    def handle(self) -> db.DB:
        """The open handle; opens it when needed (then it may block: not on the event loop).

        Raises:
            DatabaseMissing: there is no such file here (yet).
            StorageError: the library refused.
            DBError: of a kind that passes, as any call with the handle may raise it: a deadlock,
                a lockout, a dead handle, a panic.
        """
        handle = self._handle
        return handle if handle is not None else self._open(create=False)

    def create(self) -> db.DB:
        """Like `handle`, but make the file when it is missing. Only on a master."""
        handle = self._handle
        return handle if handle is not None else self._open(create=True)

    def put(self, key: bytes, value: bytes, txn: db.DBTxn) -> None:
        """Set a key in the committer's transaction, and note that. Raises as `handle`."""
        self.handle().put(key, value, txn)
        self._environment.changes.note((self.filename, key, value))

    def delete(self, key: bytes, txn: db.DBTxn) -> None:
        """Remove a key that is there, as `put`."""
        self.handle().delete(key, txn)
        self._environment.changes.note((self.filename, key, None))

    def drop(self) -> None:
        """Put the handle aside; the next call opens a new one. *Thread:* any; never waits."""
        with self._lock:
            self._drops += 1
            if self._handle is not None:
                self._dead.append(self._handle)
                self._handle = None

    def close(self) -> None:
        """Close all handles. Nobody may be inside the library."""
        self.drop()
        dead, self._dead = self._dead, []
        for handle in dead:
            try:
                handle.close(db.DB_NOSYNC)
            except LIBRARY_ERRORS:
                continue  # a dead handle may refuse; the environment is closed next

    def _open(self, *, create: bool) -> db.DB:
        with self._opening:
            while (handle := self._handle) is None:
                drops = self._drops
                opened = self._open_one(create=create)
                with self._lock:
                    if drops == self._drops:
                        self._handle = opened
                    else:
                        self._dead.append(opened)  # of the copy that was just replaced
            return handle

    def _open_one(self, *, create: bool) -> db.DB:
        handle = self._environment.new_handle()
        flags = db.DB_THREAD | db.DB_AUTO_COMMIT | (db.DB_CREATE if create else 0)
        try:
            handle.open(self.filename, dbname=self.name, dbtype=db.DB_BTREE, flags=flags)
        except LIBRARY_ERRORS as error:
            self._discard(handle)
            if isinstance(error, db.DBNoSuchFileError):
                raise DatabaseMissing(
                    f"{self.filename} does not exist on this site yet",
                    hint="it is made by the master; wait until this site is in step with it.",
                ) from error
            if isinstance(error, _PASSING):
                raise
            raise from_library(error, f"{self.filename} cannot be opened") from error
        return handle

    def _discard(self, handle: db.DB) -> None:
        try:
            handle.close(db.DB_NOSYNC)
        except LIBRARY_ERRORS:
            with self._lock:
                self._dead.append(handle)
