"""What a user may do, looked up in the transaction that does it.

So a right that was taken away is gone with the next command, on every site that has the change,
and a write is allowed or refused by what is true where it takes its place among the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.catalog.names import CatalogError
from storage.catalog.tree import Sees
from storage.groups import Groups
from storage.rights import Right, Subject, right_for
from storage.users import UserRecord, Users

if TYPE_CHECKING:
    from berkeleydb import db


class Access:
    """See the module's text.

    Args:
        users, groups: where it is looked up.
    """

    def __init__(self, users: Users, groups: Groups) -> None:
        self._users = users
        self._groups = groups

    def subject(self, txn: db.DBTxn, user: str) -> Subject | None:
        """Find what decides about a user; None when there is no such user any more."""
        record = self._users.get(txn, user)
        return None if record is None else self.subject_of(txn, record)

    def subject_of(self, txn: db.DBTxn, record: UserRecord) -> Subject:
        """Find what decides about a user whose record is known."""
        group = self._groups.get(txn, record.group) if record.group else None
        return Subject(
            administrator=record.role == "administrator",
            may_log_on=record.may_log_on,
            grouped=bool(record.group),
            grants=group.grants if group is not None else (),
        )

    def must(self, txn: db.DBTxn, user: str, needed: Right, customer: str | None) -> None:
        """Refuse what a user may not do.

        Args:
            txn: the transaction it would be done in.
            user: who is logged on.
            needed: the level it takes.
            customer: with whose objects; None for what belongs to no customer.

        Raises:
            CatalogError: NOPERM.
        """
        if right_for(self.subject(txn, user), customer) >= needed:
            return
        whom = "for all customers (filter *)" if customer is None else f"for customer {customer}"
        raise CatalogError(
            f"user {user} lacks the right {needed.name} {whom}",
            code="NOPERM",
            hint="ask whoever runs this server: GROUP.SET group GRANTS READ:US04.",
        )

    def sees(self, txn: db.DBTxn, user: str, needed: Right = Right.READ) -> Sees:
        """Make the test whether a user has a level for a customer."""
        subject = self.subject(txn, user)
        known: dict[str, bool] = {}

        def may(customer: str) -> bool:
            if customer not in known:
                known[customer] = right_for(subject, customer) >= needed
            return known[customer]

        return may
