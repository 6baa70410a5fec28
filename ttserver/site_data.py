"""What is stored besides plain keys, over the databases of the environment that is open now."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from berkeleydb import db

from storage.access import Access
from storage.accounts import Accounts
from storage.catalog.catalog import Catalog
from storage.catalog.files import CatalogFiles
from storage.groups import Groups
from storage.tail_records import Change
from storage.users import Users

if TYPE_CHECKING:
    from ttserver.open_site import OpenSite


class SiteData:
    """See the module's text.

    Args:
        site: gives the site; asked at each use, because a panic replaces it.

    Attributes:
        users, groups: who may log on, and as what.
        access: what they may do.
        accounts: how clients change them.
        catalog: the tape catalog.
    """

    def __init__(self, site: Callable[[], OpenSite]) -> None:
        self._site = site
        self.users = Users(self._users_handle, self._users_create, self._note)
        self.groups = Groups(self._groups_handle, self._groups_create, self._note)
        self.access = Access(self.users, self.groups)
        self.accounts = Accounts(self.users, self.groups)
        self.catalog = Catalog(self._files, self._pace)

    def _files(self) -> CatalogFiles:
        return self._site().catalog

    def _pace(self, txn: db.DBTxn) -> bool:
        return self._site().reads.pace(txn)

    def _note(self, change: Change) -> None:
        self._site().environment.changes.note(change)

    def _users_handle(self) -> db.DB:
        return self._site().users.handle()

    def _users_create(self) -> db.DB:
        return self._site().users.create()

    def _groups_handle(self) -> db.DB:
        return self._site().catalog.groups.handle()

    def _groups_create(self) -> db.DB:
        return self._site().catalog.groups.create()
