"""The groups users are in: what each grants. One btree, `groups.db`, like `users.db`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from storage.catalog.files import GROUPS_FILE
from storage.catalog.filters import compile_filter
from storage.catalog.names import shown
from storage.catalog.tree import check_text
from storage.changes import Note, no_note
from storage.library import DatabaseMissing
from storage.rights import Grant
from storage.users import Handle, UserError, Users

if TYPE_CHECKING:
    from berkeleydb import db

ROLE_CHARS_MAX: Final = 40
GRANTS_MAX: Final = 100  # looked through at each command

_NAME: Final = re.compile(r"[A-Za-z0-9]{1,10}")


class GroupRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is stored of a group.

    Args:
        name: 1 to 10 letters and digits, case-sensitive.
        role: what its users do, in words.
        grants: what they may do.
    """

    name: str
    role: str = ""
    grants: tuple[Grant, ...] = ()


_decoder: Final = msgspec.json.Decoder(GroupRecord)


def checked_group(record: GroupRecord) -> GroupRecord:
    """Check a group before it is stored.

    Raises:
        UserError: the name cannot be one (`GROUP_NAME`), or it grants too much at once.
        CatalogError: the role is too long, or a filter cannot be.
    """
    if _NAME.fullmatch(record.name) is None:
        raise UserError(
            f"group {shown(record.name)} refused: not 1 to 10 letters and digits",
            code="GROUP_NAME",
            hint="leave out blanks, dots and dashes.",
        )
    check_text("role", record.role, 0, ROLE_CHARS_MAX)
    if len(record.grants) > GRANTS_MAX:
        raise UserError(
            f"group {record.name} refused: it grants {len(record.grants)} things,"
            f" {GRANTS_MAX} at most",
            code="GROUP_GRANTS",
            hint="use filters that name more customers at once.",
        )
    for grant in record.grants:
        compile_filter(grant.customers)
    return record


class Groups:
    """The groups, as this site knows them.

    Args:
        handle: returns the open database; None, or DatabaseMissing, where there is no file yet.
        create: the same, but makes the file; for the master's writes.
        note: told of each change, see `storage.changes.Changes`.
    """

    def __init__(self, handle: Handle, create: Handle, note: Note = no_note) -> None:
        self._handle = handle
        self._create = create
        self._note = note

    def get(self, txn: db.DBTxn, name: str) -> GroupRecord | None:
        """Find a group; None when there is none of this name.

        Raises:
            UserError: the record cannot be read (`GROUP_RECORD`).
        """
        handle = self._open()
        if handle is None or _NAME.fullmatch(name) is None:
            return None
        data = handle.get(name.encode(), None, txn)
        return None if data is None else _decode(name.encode(), data)

    def existing(self, txn: db.DBTxn, name: str) -> GroupRecord:
        """Find a group that has to be there.

        Raises:
            UserError: it is not (`GROUP_UNKNOWN`).
        """
        record = self.get(txn, name)
        if record is None:
            raise UserError(
                f"group {shown(name)} does not exist",
                code="GROUP_UNKNOWN",
                hint="see which do: GROUP.LIST (capital letters count).",
            )
        return record

    def put(self, txn: db.DBTxn, record: GroupRecord, *, new: bool) -> None:
        """Store a group.

        Args:
            txn: the transaction.
            record: from `checked_group`.
            new: it must not be there yet; else it must be.

        Raises:
            UserError: there is one of this name (`GROUP_EXISTS`), or none (`GROUP_UNKNOWN`).
        """
        if new and self.get(txn, record.name) is not None:
            raise UserError(
                f"group {record.name} exists already",
                code="GROUP_EXISTS",
                hint="change it instead: GROUP.SET.",
            )
        if not new:
            self.existing(txn, record.name)
        handle = self._create()
        if handle is None:
            raise DatabaseMissing(f"{GROUPS_FILE} does not exist on this site yet")
        key, value = record.name.encode(), msgspec.json.encode(record)
        handle.put(key, value, txn)
        self._note((GROUPS_FILE, key, value))

    def remove(self, txn: db.DBTxn, name: str, users: Users) -> None:
        """Delete a group that nobody is in.

        Raises:
            UserError: there is no such group (`GROUP_UNKNOWN`), or users are in it (`GROUP_USED`).
        """
        self.existing(txn, name)
        inside = [user.name for user in users.list(txn) if user.group == name]
        if inside:
            raise UserError(
                f"group {name} stays: {len(inside)} users are in it, {inside[0]} for one",
                code="GROUP_USED",
                hint="put them into another group first: USER.SET name GROUP group.",
            )
        handle = self._create()
        assert handle is not None, "the group was found in it"
        handle.delete(name.encode(), txn)
        self._note((GROUPS_FILE, name.encode(), None))

    def _open(self) -> db.DB | None:
        try:
            return self._handle()
        except DatabaseMissing:
            return None

    def _each(self, txn: db.DBTxn) -> Iterator[GroupRecord]:
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
    def list(self, txn: db.DBTxn) -> Sequence[GroupRecord]:
        """All groups, by name in byte order."""
        return tuple(self._each(txn))


def _decode(key: bytes, data: bytes) -> GroupRecord:
    try:
        return _decoder.decode(data)
    except msgspec.DecodeError as error:
        name = key.decode("ascii", "backslashreplace")
        raise UserError(
            f"{GROUPS_FILE} record {name} cannot be read: {error}",
            code="GROUP_RECORD",
            hint="this server did not write it; see what did with db5.3_dump -p.",
        ) from error
