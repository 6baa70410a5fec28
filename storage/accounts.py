"""Changes of users that a client makes: the rules that keep everybody's door open.

The administrator that `ttserver init` makes, `tapemaster`, has every right and is in no group.
Nobody else can give it a password, disable, revoke or delete it; wrong passwords do not revoke it.
Whoever owns HOME may do all of that with `ttserver user`, which does not come here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from storage.groups import Groups
from storage.users import ADMINISTRATOR, UserError, UserRecord, Users

if TYPE_CHECKING:
    from berkeleydb import db

_OWN: Final = "log on as that user, or run `ttserver user` on the master's machine."


class Accounts:
    """See the module's text.

    Args:
        users, groups: where they are stored.
    """

    def __init__(self, users: Users, groups: Groups) -> None:
        self._users = users
        self._groups = groups

    def add(self, txn: db.DBTxn, record: UserRecord) -> UserRecord:
        """Store a new user, who has to be in a group.

        Raises:
            UserError: there is one of this name (`USER_EXISTS`), it is in no group (`USER_GROUP`),
                or in one that does not exist (`GROUP_UNKNOWN`).
        """
        self._must_be_grouped(txn, record)
        self._users.add_record(txn, record)
        return record

    def change(
        self,
        txn: db.DBTxn,
        by: str,
        name: str,
        *,
        group: str | None = None,
        disabled: bool | None = None,
        revoked: bool | None = None,
    ) -> UserRecord:
        """Change a user; what is None stays.

        Args:
            txn: the transaction.
            by: who asks for it.
            name: the user.
            group: the group to be in.
            disabled: whether the account is closed.
            revoked: False takes back a revocation for wrong passwords.

        Raises:
            UserError: no such user or group, or the built-in administrator (`USER_BUILTIN`).
        """
        record = self._own(txn, by, name)
        if name == ADMINISTRATOR and (group or disabled or revoked):
            raise _built_in("it stays as it is: in no group, and able to log on")
        given = {"group": group, "disabled": disabled, "revoked": revoked}
        changes = {field: value for field, value in given.items() if value is not None}
        record = msgspec.structs.replace(record, **changes)
        if group is not None:
            self._must_be_grouped(txn, record)
        self._users.replace(txn, record)
        return record

    def set_password(self, txn: db.DBTxn, by: str, name: str, password_hash: str) -> UserRecord:
        """Give a user a new password; takes back a revocation.

        Raises:
            UserError: there is no such user, or it is the built-in administrator and not `by`.
        """
        self._own(txn, by, name)
        return self._users.set_password(txn, name, password_hash)

    def remove(self, txn: db.DBTxn, name: str) -> None:
        """Delete a user.

        Raises:
            UserError: there is no such user (`USER_UNKNOWN`), it is the built-in administrator
                (`USER_BUILTIN`), or the last administrator who can log on (`USER_LAST`).
        """
        if name == ADMINISTRATOR:
            raise _built_in("it cannot be deleted")
        self._users.remove(txn, name)

    def revoke(self, txn: db.DBTxn, name: str) -> bool:
        """Close an account after too many wrong passwords; tells whether anything changed."""
        record = self._users.get(txn, name)
        if record is None or record.revoked or name == ADMINISTRATOR:
            return False
        self._users.replace(txn, msgspec.structs.replace(record, revoked=True))
        return True

    def _own(self, txn: db.DBTxn, by: str, name: str) -> UserRecord:
        record = self._users.existing(txn, name)
        if name == ADMINISTRATOR and by != name:
            raise _built_in("only itself can change it")
        return record

    def _must_be_grouped(self, txn: db.DBTxn, record: UserRecord) -> None:
        if record.role == "administrator" and not record.group:
            return
        if not record.group:
            raise UserError(
                f"user {record.name} refused: a user has to be in a group",
                code="USER_GROUP",
                hint="make one first: GROUP.ADD.",
            )
        self._groups.existing(txn, record.group)


def _built_in(why: str) -> UserError:
    return UserError(
        f"user {ADMINISTRATOR} is the built-in administrator: {why}",
        code="USER_BUILTIN",
        hint=_OWN,
    )
