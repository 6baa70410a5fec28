"""The users of this server: one btree of their own, `users.db`, replicated like all data.

The key is the user ID, the value its record as JSON, so that db_dump and another program can read
it. Every method takes the transaction it runs in. Reads work on every site; writes check first and
then write, because the group commit expects of a refusal that nothing was written.

A site without users, or without the file, is a sound one: nobody can log on until
`ttserver user add` (or the record that `ttserver init` left behind) made the first user.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

from storage.changes import Note, no_note
from storage.errors import StorageError
from storage.library import DatabaseMissing
from storage.passwords import hash_password, needs_rehash, verify_password

if TYPE_CHECKING:
    from pathlib import Path

    from berkeleydb import db

USERS_FILE: Final = "users.db"
ADMINISTRATOR: Final = "tapemaster"  # the one `ttserver init` makes

Role: TypeAlias = Literal["administrator", "user"]
Handle: TypeAlias = "Callable[[], db.DB | None]"

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,15}")
_FIRST_USER_BYTES_MAX: Final = 4096


class UserError(StorageError):
    """A change to the users, or a record of one, that cannot be.

    Codes: `USER_NAME`, `USER_EXISTS`, `USER_UNKNOWN`, `USER_LAST` (the last administrator),
    `USER_RECORD` (a record that cannot be read), `FIRST_USER` (the file that `init` left).
    """

    default_code = "USER"


class UserRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored of a user.

    Args:
        name: the user ID, case-sensitive.
        password_hash: argon2id, see `storage.passwords`.
        role: an administrator may do everything.
        created: when, UTC.
        group: the name of the group it is in, see `storage.groups`; empty for none.
        disabled: an administrator has closed the account.
        revoked: closed by the server itself after too many wrong passwords.
    """

    name: str
    password_hash: str
    role: Role
    created: datetime
    group: str = ""
    disabled: bool = False
    revoked: bool = False

    def __repr__(self) -> str:
        """Leave the hash out: records end up in logs and tracebacks."""
        state = f"disabled={self.disabled}, revoked={self.revoked}"
        return f"UserRecord(name={self.name!r}, role={self.role}, {state})"

    @property
    def may_log_on(self) -> bool:
        """False for a disabled or revoked account."""
        return not (self.disabled or self.revoked)


_decoder: Final = msgspec.json.Decoder(UserRecord)


def is_user_name(name: str) -> bool:
    """Tell whether this can be a user ID: 1 to 16 letters, digits, dots and dashes."""
    return _NAME.fullmatch(name) is not None


def new_record(
    name: str, password: str, role: Role = "user", *, created: datetime | None = None
) -> UserRecord:
    """Make the record of a new user; to be done before the transaction, for it takes 50 ms.

    Raises:
        UserError: the name cannot be one.
        PasswordRefused: the password is not good enough.

    *Thread:* any but the event loop's.
    """
    if not is_user_name(name):
        raise UserError(
            f"user ID {name[:40]!r} refused: not 1 to 16 letters, digits, `.` and `-`",
            code="USER_NAME",
            hint="begin with a letter or a digit, and leave out blanks and accents.",
        )
    return UserRecord(
        name=name,
        password_hash=hash_password(password, name),
        role=role,
        created=(created or datetime.now(UTC)).replace(microsecond=0),
    )


def encode_record(record: UserRecord) -> bytes:
    """Write a record as it is stored, in users.db and in first-user.json."""
    return msgspec.json.encode(record)


class Users:
    """The users of the group, as this site knows them.

    Args:
        handle: returns the open database; None, or DatabaseMissing, where there is no file yet.
        create: the same, but makes the file; for the master's writes. `handle` when left out.
        note: told of each change, see `storage.changes.Changes`; of a record only that it is
            another one, for the hash is nobody's business.
    """

    def __init__(
        self,
        handle: Handle,
        create: Handle | None = None,
        note: Note = no_note,
    ) -> None:
        self._handle = handle
        self._create = create if create is not None else handle
        self._note = note

    # -- passwords, in no transaction

    @staticmethod
    def hash_password(password: str, user: str = "") -> str:
        """Hash a password for `set_password`; see `storage.passwords.hash_password`."""
        return hash_password(password, user)

    @staticmethod
    def verify(record: UserRecord | None, password: str) -> bool:
        """Tell whether this is the user's password; costs the same without a user (None).

        Raises:
            HashUnusable: the stored hash cannot be checked.

        *Thread:* any but the event loop's; takes about 50 ms.
        """
        return verify_password(None if record is None else record.password_hash, password)

    @staticmethod
    def needs_rehash(record: UserRecord) -> bool:
        """Tell whether the hash was made at another cost than today's.

        A logon writes nothing, so it cannot be renewed then; the next password will be.
        """
        return needs_rehash(record.password_hash)

    # -- reading

    def get(self, txn: db.DBTxn, name: str) -> UserRecord | None:
        """Find a user; None when there is none of this name.

        Raises:
            UserError: the record cannot be read (`USER_RECORD`).
        """
        handle = self._open()
        if handle is None or not is_user_name(name):
            return None
        key = name.encode()
        data = handle.get(key, None, txn)
        return None if data is None else _decode(key, data)

    def existing(self, txn: db.DBTxn, name: str) -> UserRecord:
        """Find a user who has to be there.

        Raises:
            UserError: there is none of this name (`USER_UNKNOWN`).
        """
        record = self.get(txn, name)
        if record is None:
            raise UserError(
                f"user {name[:40]} does not exist",
                code="USER_UNKNOWN",
                hint="see who does: ttserver user list (capital letters count)",
            )
        return record

    def count(self, txn: db.DBTxn) -> int:
        """Count the users; 0 means that nobody can log on."""
        return sum(1 for _ in self._each(txn))

    # -- writing, on the master

    def add_record(self, txn: db.DBTxn, record: UserRecord) -> None:
        """Store a new user.

        Raises:
            UserError: there is one of this name (`USER_EXISTS`).
        """
        assert is_user_name(record.name), "new_record checks the name"
        if self.get(txn, record.name) is not None:
            raise UserError(
                f"user {record.name} exists already",
                code="USER_EXISTS",
                hint=f"change the password instead: ttserver user passwd {record.name}",
            )
        self._put(txn, record)

    def set_password(self, txn: db.DBTxn, name: str, password_hash: str) -> UserRecord:
        """Replace a user's password, and take back a revocation for wrong ones.

        Args:
            txn: the transaction.
            name: an existing user.
            password_hash: from `hash_password`, made before the transaction.

        Raises:
            UserError: there is no such user (`USER_UNKNOWN`).
        """
        record = self.existing(txn, name)
        record = msgspec.structs.replace(record, password_hash=password_hash, revoked=False)
        self._put(txn, record)
        return record

    def replace(self, txn: db.DBTxn, record: UserRecord) -> None:
        """Store a changed record of a user who is there."""
        self._put(txn, record)

    def remove(self, txn: db.DBTxn, name: str) -> None:
        """Delete a user.

        Raises:
            UserError: there is no such user (`USER_UNKNOWN`), or nobody else could administer the
                server (`USER_LAST`).
        """
        record = self.existing(txn, name)
        left = [
            other.name
            for other in self._each(txn)
            if other.role == "administrator" and other.may_log_on and other.name != name
        ]
        if record.role == "administrator" and not left:
            raise UserError(
                f"user {name} stays: it is the last administrator who can log on",
                code="USER_LAST",
                hint="make another one first: ttserver user add NAME --role administrator",
            )
        self._writable().delete(name.encode(), txn)
        self._note((USERS_FILE, name.encode(), None))

    def take_first_user(self, path: Path, txn: db.DBTxn) -> UserRecord | None:
        """Store the administrator that `ttserver init` left in a file, once this site is master.

        To be followed by `discard_first_user` after the commit. A user of that name who is there
        already stays as it is.

        Returns:
            The record, or None when nothing was to be done.

        Raises:
            UserError: the file cannot be trusted or read (`FIRST_USER`).
        """
        record = read_first_user(path)
        if record is None or self.get(txn, record.name) is not None:
            return None
        self._put(txn, record)
        return record

    # -- the file

    def _open(self) -> db.DB | None:
        try:
            return self._handle()
        except DatabaseMissing:
            return None

    def _writable(self) -> db.DB:
        handle = self._create()
        if handle is None:
            raise DatabaseMissing(f"{USERS_FILE} does not exist on this site yet")
        return handle

    def _put(self, txn: db.DBTxn, record: UserRecord) -> None:
        self._writable().put(record.name.encode(), encode_record(record), txn)
        self._note((USERS_FILE, record.name.encode(), b""))

    def _each(self, txn: db.DBTxn) -> Iterator[UserRecord]:
        handle = self._open()
        if handle is None:
            return
        cursor = handle.cursor(txn)
        try:
            item = cursor.first()
            while item is not None:
                yield _decode(*item)
                item = cursor.next()
        finally:
            cursor.close()

    # Last in the class: below it, `list` means this method.
    def list(self, txn: db.DBTxn) -> Sequence[UserRecord]:
        """All users, by name in byte order."""
        return tuple(self._each(txn))


def write_first_user(path: Path, record: UserRecord) -> None:
    """Leave the first administrator's record for the daemon, mode 0600, whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(encode_record(record))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    _flush_directory(path)


def read_first_user(path: Path) -> UserRecord | None:
    """Read what `write_first_user` left; None when there is no such file.

    Raises:
        UserError: others may write to it, or it holds something else (`FIRST_USER`).
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            status = os.fstat(fd)
            # Whoever can write here can make an administrator.
            if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
                raise _bad_first_user(path, "others may write to it")
            data = os.read(fd, _FIRST_USER_BYTES_MAX)
        finally:
            os.close(fd)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _bad_first_user(path, error.strerror or str(error)) from error
    try:
        record = _decoder.decode(data)
    except msgspec.DecodeError as error:
        raise _bad_first_user(path, str(error)) from error
    if not is_user_name(record.name):
        raise _bad_first_user(path, "the name in it cannot be a user ID")
    return record


def discard_first_user(path: Path) -> None:
    """Remove the file, after the commit that stored its record; a second call does nothing."""
    path.unlink(missing_ok=True)
    _flush_directory(path)


def _decode(key: bytes, data: bytes) -> UserRecord:
    try:
        record = _decoder.decode(data)
    except msgspec.DecodeError as error:
        raise _bad_record(key, str(error)) from error
    if record.name.encode() != key:
        raise _bad_record(key, "it names another user")
    return record


def _bad_record(key: bytes, why: str) -> UserError:
    name = key.decode("ascii", "backslashreplace")
    return UserError(
        f"{USERS_FILE} record {name} cannot be read: {why}",
        code="USER_RECORD",
        hint="this server did not write it; see what did with db5.3_dump -p.",
    )


def _bad_first_user(path: Path, why: str) -> UserError:
    return UserError(
        f"first user's file {path} refused: {why}",
        code="FIRST_USER",
        hint="remove it and make the user yourself: ttserver user add",
    )


def _flush_directory(path: Path) -> None:
    # Without it a power failure could bring a removed file back, or lose a new one.
    with suppress(OSError):
        fd = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
