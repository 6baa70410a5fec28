"""CUSTOMER, MEDIA, REPOSITORY: ADD, SET, GET, LIST, DEL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from storage.catalog.filters import EVERYTHING
from storage.catalog.names import check_customer, check_media, check_repository, customer_of
from storage.rights import Right
from ttserver.commands.catalog_request import (
    PAGE,
    Option,
    Options,
    Request,
    always,
    listing,
    must,
    named,
    number,
    page_size,
    plain,
    read,
    rows_of,
    rows_reply,
    write,
    yes_no,
)
from ttserver.commands.catalog_views import customer_map, media_map, repository_map
from ttserver.commands.context import Store
from ttserver.commands.table import Command
from ttserver.replies import OK, Value

if TYPE_CHECKING:
    from berkeleydb.db import DBTxn

_CUSTOMER: Final[Options] = {
    "DESCRIPTION": Option("description", plain),
    "CONTACT": Option("contact", plain),
    "LOCK": Option("locked", yes_no),
    "UNIQUE": Option("unique", plain),
    "MAXMEDIA": Option("media_max", number),
}
_MEDIA: Final[Options] = {
    "DESCRIPTION": Option("description", plain),
    "FILTER": Option("filter", plain),
    "MAXVOLUMES": Option("volumes_max", number),
    "MAXREPOSITORIES": Option("repositories_max", number),
    "DEFAULT": Option("default", plain),
    "LOCK": Option("locked", yes_no),
    "WARNBACK": Option("warn_back", yes_no),
}
_REPOSITORY: Final[Options] = {
    "DESCRIPTION": Option("description", plain),
    "TYPE": Option("type", plain),
    "NEXT": Option("next", plain),
    "OFFSITE": Option("offsite", yes_no),
    "SCRATCH": Option("scratch", yes_no),
    "PRIORITY": Option("priority", number),
    "FILTER": Option("filter", plain),
    "DELETES": Option("deletes", yes_no),
}
_LIST: Final[Options] = {
    "MATCH": Option("filter", plain),
    "COUNT": Option("count", page_size),
}
_LIST_USAGE: Final = "cursor [MATCH filter] [COUNT count]"


class _Kind:
    """One kind of object, and the functions of its commands.

    Args:
        word: what it is called in names of methods: `customer`, `media`, `repository`.
        check: refuses a name that cannot be one.
    """

    def __init__(self, word: str, check: Callable[[str], str]) -> None:
        self._word = word
        self._check = check

    def add(self, store: Store, txn: DBTxn, asked: Request) -> Value:
        """ADD name [OPTION value ...]."""
        return self._changed("add", store, txn, asked)

    def set(self, store: Store, txn: DBTxn, asked: Request) -> Value:
        """SET name [OPTION value ...]."""
        return self._changed("set", store, txn, asked)

    def _changed(self, what: str, store: Store, txn: DBTxn, asked: Request) -> Value:
        self._allow(store, txn, asked, Right.ADMIN)
        change = getattr(store.catalog.tree, f"{what}_{self._word}")
        return self.view(store, txn, asked.name, change(txn, asked.name, asked.given))

    def get(self, store: Store, txn: DBTxn, asked: Request) -> Value:
        """GET name."""
        self._allow(store, txn, asked, Right.READ)
        find = getattr(store.catalog.store, f"the_{self._word}")
        return self.view(store, txn, asked.name, find(txn, asked.name))

    def delete(self, store: Store, txn: DBTxn, asked: Request) -> Value:
        """DEL name."""
        self._allow(store, txn, asked, Right.ADMIN)
        getattr(store.catalog.tree, f"delete_{self._word}")(txn, asked.name)
        return OK

    def list(self, store: Store, txn: DBTxn, asked: Request) -> Value:
        """LIST cursor [MATCH filter] [COUNT count]."""
        tree = store.catalog.tree
        methods: dict[str, Callable[..., Sequence[tuple[str, Any]]]] = {
            "customer": tree.customers,
            "media": tree.media_types,
            "repository": tree.repositories,
        }
        limit: int = asked.given.get("count", PAGE)
        after = "" if asked.after is None else asked.after.decode()
        text = asked.given.get("filter", EVERYTHING)
        sees = store.access.sees(txn, asked.actor.user)
        found = methods[self._word](txn, text, after, limit, sees)
        rows = [self.view(store, txn, name, record) for name, record in found]
        return rows_of(asked, rows, found[-1][0].encode() if len(found) == limit else None)

    def view(self, store: Store, txn: DBTxn, name: str, record: Any) -> Value:
        """Make the map of one object."""
        if self._word == "customer":
            return customer_map(name, record)
        counts = store.catalog.store.counts(txn, name)
        if self._word == "media":
            return media_map(name, record, counts[0])
        return repository_map(name, record, counts)

    def _allow(self, store: Store, txn: DBTxn, asked: Request, right: Right) -> None:
        must(store, txn, asked, right, customer_of(self._check(asked.name)))


def _commands(kind: _Kind, word: str, what: str, known: Options, usage: str) -> list[Command]:
    return [
        write(f"{word}.add", -2, run=kind.add, usage=f"name {usage}",
              summary=f"Makes a {what}.", prepare=named(known)),
        write(f"{word}.set", -2, run=kind.set, usage=f"name {usage}",
              summary=f"Changes a {what}.", prepare=named(known)),
        write(f"{word}.del", 2, run=kind.delete, usage="name",
              summary=f"Deletes a {what} that nothing belongs to.", prepare=named({})),
        read(f"{word}.get", 2, run=kind.get, usage="name",
             summary=f"Returns a {what}.", prepare=named({})),
        read(f"{word}.list", -2, run=kind.list, usage=_LIST_USAGE,
             summary=f"Returns a page of the list of each {what}.", prepare=listing(_LIST),
             finish=rows_reply, heavy=always, complexity="O(N)"),
    ]  # fmt: skip


COMMANDS: Final = (
    *_commands(
        _Kind("customer", check_customer),
        "customer",
        "customer",
        _CUSTOMER,
        "[DESCRIPTION text] [CONTACT text] [LOCK yesno] [UNIQUE scope] [MAXMEDIA count]",
    ),
    *_commands(
        _Kind("media", check_media),
        "media",
        "media type",
        _MEDIA,
        "[DESCRIPTION text] [FILTER filter] [MAXVOLUMES count] [MAXREPOSITORIES count]"
        " [DEFAULT repository] [LOCK yesno] [WARNBACK yesno]",
    ),
    *_commands(
        _Kind("repository", check_repository),
        "repository",
        "repository",
        _REPOSITORY,
        "[DESCRIPTION text] [TYPE type] [NEXT repository] [OFFSITE yesno] [SCRATCH yesno]"
        " [PRIORITY number] [FILTER filter] [DELETES yesno]",
    ),
)
