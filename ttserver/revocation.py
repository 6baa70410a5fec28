"""Accounts are closed after too many wrong passwords in a row, on the master.

The count is kept in memory: a logon writes nothing, and only the one that is too many does. On a
replicant nothing is counted; guessing is slowed down there as everywhere.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from storage.accounts import Accounts
from storage.errors import StorageError
from storage.users import ADMINISTRATOR
from ttserver.errors import TtserverError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ttserver.auth import JournalLike, Reason

COUNTED_MAX: Final = 10_000  # users with wrong passwords; only names that exist are counted

log = structlog.get_logger(__name__)


class Writer(Protocol):
    """What it needs of the engine."""

    @property
    def read_only(self) -> bool: ...

    @property
    def journal(self) -> JournalLike: ...

    def submit(self, work: Callable[[Any], Any], on_done: Callable[[Any], None]) -> None: ...


class Revocation:
    """See the module's text. Everything in the event loop.

    Args:
        engine: writes, on a master.
        accounts: how.
        after: so many wrong passwords in a row; 0 never revokes.
    """

    def __init__(self, engine: Writer, accounts: Accounts, after: int) -> None:
        self._engine = engine
        self._accounts = accounts
        self._after = after
        self._wrong: OrderedDict[str, int] = OrderedDict()

    def note(self, user: str, refused: Reason | None) -> None:
        """Take note of how a logon ended; None is a success."""
        if refused is None:
            self._wrong.pop(user, None)
        elif refused == "wrong_password" and self._after and not self._engine.read_only:
            self._count(user)

    def _count(self, user: str) -> None:
        count = self._wrong.pop(user, 0) + 1
        self._wrong[user] = count
        if len(self._wrong) > COUNTED_MAX:
            self._wrong.popitem(last=False)
        if count < self._after or user == ADMINISTRATOR:
            return
        del self._wrong[user]
        try:
            self._engine.submit(
                lambda txn: self._accounts.revoke(txn, user),
                lambda outcome: self._revoked(user, count, outcome),
            )
        except (TtserverError, StorageError) as error:
            log.warning("user_not_revoked", user=user, error=str(error))

    def _revoked(self, user: str, count: int, outcome: Any) -> None:
        if outcome.error is not None:
            log.warning("user_not_revoked", user=user, error=str(outcome.error))
        elif outcome.result:
            log.warning("user_revoked", user=user, wrong=count)
            self._engine.journal.write_seldom(
                "user_revoked", every_s=1.0, burst=100, user=user, wrong=count
            )
