"""Customers, media types and repositories: made, changed, listed, deleted, with their rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import msgspec

from storage.catalog.files import WALK_KEYS, behind, pairs_from
from storage.catalog.filters import EVERYTHING, compile_filter
from storage.catalog.names import (
    CatalogError,
    check_customer,
    check_media,
    check_repository,
    customer_of,
    media_of,
    repository_in,
    shown,
)
from storage.catalog.records import REPOSITORY_TYPES, UNIQUE, Customer, Media, Repository
from storage.catalog.store import CatalogStore, decode_object

if TYPE_CHECKING:
    from berkeleydb import db

Fields: TypeAlias = Mapping[str, Any]  # by the names of the record's fields, right in their types
Sees: TypeAlias = Callable[[str], bool]  # whether a customer's objects may be seen
Object: TypeAlias = Customer | Media | Repository
O = TypeVar("O", Customer, Media, Repository)  # noqa: E741 - of object

CUSTOMER_CHARS_MAX: Final = 40
DESCRIPTION_CHARS_MAX: Final = 20
CONTACT_CHARS_MAX: Final = 100
COUNT_MAX: Final = 10**9
PRIORITY_MAX: Final = 9
# `/` comes right behind `.`: so begins what comes after everything that belongs to a name.
_BEHIND_CHILDREN: Final = "/"


class Tree:
    """See the module's text.

    Args:
        store: where the records are.
    """

    def __init__(self, store: CatalogStore) -> None:
        self._store = store

    # -- customers

    def add_customer(self, txn: db.DBTxn, name: str, fields: Fields) -> Customer:
        """Make a customer.

        Raises:
            CatalogError: INVALID, EXISTS.
        """
        check_customer(name)
        _must_be_new("customer", name, self._store.customer(txn, name))
        return self._put(txn, name, _customer_checked(_with(Customer(), fields)))

    def set_customer(self, txn: db.DBTxn, name: str, fields: Fields) -> Customer:
        """Change a customer.

        Raises:
            CatalogError: INVALID, NOTFOUND.
        """
        record = self._store.the_customer(txn, check_customer(name))
        return self._put(txn, name, _customer_checked(_with(record, fields)))

    def delete_customer(self, txn: db.DBTxn, name: str) -> None:
        """Delete a customer without media types.

        Raises:
            CatalogError: INVALID, NOTFOUND, INUSE.
        """
        self._store.the_customer(txn, check_customer(name))
        if children := self._children(txn, name, 1):
            raise _in_use("customer", name, f"media type {children[0]} belongs to it")
        self._store.delete_object(txn, name)

    # -- media types

    def add_media(self, txn: db.DBTxn, name: str, fields: Fields) -> Media:
        """Make a media type.

        Raises:
            CatalogError: INVALID, NOTFOUND, EXISTS, LIMIT.
        """
        customer = customer_of(check_media(name))
        owner = self._store.the_customer(txn, customer)
        _must_be_new("media type", name, self._store.media(txn, name))
        record = self._media_checked(txn, name, _with(Media(description=""), fields))
        most = owner.media_max
        if most and len(self._children(txn, customer, most)) >= most:
            raise _full("customer", customer, most, "media types")
        return self._put(txn, name, record)

    def set_media(self, txn: db.DBTxn, name: str, fields: Fields) -> Media:
        """Change a media type.

        Raises:
            CatalogError: INVALID, NOTFOUND.
        """
        record = self._store.the_media(txn, check_media(name))
        return self._put(txn, name, self._media_checked(txn, name, _with(record, fields)))

    def delete_media(self, txn: db.DBTxn, name: str) -> None:
        """Delete a media type without repositories and volumes.

        Raises:
            CatalogError: INVALID, NOTFOUND, INUSE.
        """
        self._store.the_media(txn, check_media(name))
        if children := self._children(txn, name, 1):
            raise _in_use("media type", name, f"repository {children[0]} belongs to it")
        if count := self._store.counts(txn, name)[0]:
            raise _in_use("media type", name, f"{count} volumes belong to it")
        self._store.delete_object(txn, name)

    def _media_checked(self, txn: db.DBTxn, name: str, record: Media) -> Media:
        check_text("description", record.description, 1, DESCRIPTION_CHARS_MAX)
        _check_filter(record.filter)
        check_number("most volumes", record.volumes_max, COUNT_MAX)
        check_number("most repositories", record.repositories_max, COUNT_MAX)
        if record.default:
            default = repository_in(name, record.default)
            self._store.the_repository(txn, f"{name}.{default}")
            record = msgspec.structs.replace(record, default=default)
        return record

    # -- repositories

    def add_repository(self, txn: db.DBTxn, name: str, fields: Fields) -> Repository:
        """Make a repository.

        Raises:
            CatalogError: INVALID, NOTFOUND, EXISTS, LIMIT.
        """
        media = media_of(check_repository(name))
        owner = self._store.the_media(txn, media)
        _must_be_new("repository", name, self._store.repository(txn, name))
        record = self._repository_checked(txn, name, _with(Repository(description=""), fields))
        most = owner.repositories_max
        if most and len(self._children(txn, media, most)) >= most:
            raise _full("media type", media, most, "repositories")
        return self._put(txn, name, record)

    def set_repository(self, txn: db.DBTxn, name: str, fields: Fields) -> Repository:
        """Change a repository.

        Raises:
            CatalogError: INVALID, NOTFOUND.
        """
        record = self._store.the_repository(txn, check_repository(name))
        return self._put(txn, name, self._repository_checked(txn, name, _with(record, fields)))

    def delete_repository(self, txn: db.DBTxn, name: str) -> None:
        """Delete a repository that nothing refers to.

        Raises:
            CatalogError: INVALID, NOTFOUND, INUSE.
        """
        self._store.the_repository(txn, check_repository(name))
        media, _, own = name.rpartition(".")
        inside, coming, _ = self._store.counts(txn, name)
        if inside or coming:
            raise _in_use("repository", name, f"{inside} volumes are in it, {coming} on the way")
        index = self._store.files(txn).index.handle()
        home = f"H {name} ".encode()
        if homes := pairs_from(index, txn, home, home, 1):
            owner = homes[0][0][len(home) :].decode()
            raise _in_use("repository", name, f"volume {media}.{owner} belongs to it")
        if self._store.the_media(txn, media).default == own:
            raise _in_use("repository", name, f"it is the default of {media}")
        for other, record in self.below(txn, media):
            if isinstance(record, Repository) and record.next == own and other != name:
                raise _in_use("repository", name, f"it comes next after {other}")
        self._store.delete_object(txn, name)

    def _repository_checked(self, txn: db.DBTxn, name: str, record: Repository) -> Repository:
        check_text("description", record.description, 1, DESCRIPTION_CHARS_MAX)
        _check_filter(record.filter)
        check_number("priority", record.priority, PRIORITY_MAX)
        _check_choice("type", record.type, REPOSITORY_TYPES)
        if record.next:
            media = media_of(name)
            following = repository_in(media, record.next)
            if f"{media}.{following}" == name:
                raise CatalogError(
                    f"repository {name} refused: it cannot come next after itself",
                    hint="name another one, or none.",
                )
            self._store.the_repository(txn, f"{media}.{following}")
            record = msgspec.structs.replace(record, next=following)
        return record

    # -- lists

    def customers(
        self, txn: db.DBTxn, text: str, after: str, limit: int, sees: Sees
    ) -> list[tuple[str, Customer]]:
        """At most `limit` customers behind `after` that match a filter and may be seen."""
        matches = compile_filter(text or EVERYTHING).matches
        found: list[tuple[str, Customer]] = []
        for name, record in self._customers(txn, after):
            if matches(name) and sees(name):
                found.append((name, record))
                if len(found) == limit:
                    break
        return found

    def _customers(self, txn: db.DBTxn, after: str) -> Iterator[tuple[str, Customer]]:
        start = f"{after}{_BEHIND_CHILDREN}" if after else ""
        while True:
            item = self._pairs(txn, start, "", 1)
            if not item:
                return
            name, record = item[0]
            if isinstance(record, Customer):
                yield name, record
            start = f"{customer_of(name)}{_BEHIND_CHILDREN}"

    def media_types(
        self, txn: db.DBTxn, text: str, after: str, limit: int, sees: Sees
    ) -> list[tuple[str, Media]]:
        """At most `limit` media types, as `customers`."""
        found: list[tuple[str, Media]] = []
        for name, record in self.matching(txn, text, after, 1, sees):
            if isinstance(record, Media):
                found.append((name, record))
                if len(found) == limit:
                    break
        return found

    def repositories(
        self, txn: db.DBTxn, text: str, after: str, limit: int, sees: Sees
    ) -> list[tuple[str, Repository]]:
        """At most `limit` repositories, as `customers`."""
        found: list[tuple[str, Repository]] = []
        for name, record in self.matching(txn, text, after, 2, sees):
            if isinstance(record, Repository):
                found.append((name, record))
                if len(found) == limit:
                    break
        return found

    def matching(
        self, txn: db.DBTxn, text: str, after: str, dots: int, sees: Sees
    ) -> Iterator[tuple[str, Object]]:
        """Objects whose names have so many dots and match a filter, behind `after`."""
        wanted = compile_filter(text or EVERYTHING)
        first = customer_of(after)
        for customer, _ in self._customers_from(txn, first):
            if not sees(customer) or wanted.after(f"{customer}.", dots_left=dots - 1) is None:
                continue
            for name, record in self.below(txn, customer):
                if name > after and name.count(".") == dots and wanted.matches(name):
                    yield name, record

    def reachable_media(
        self, txn: db.DBTxn, text: str, first: str, sees: Sees
    ) -> Iterator[tuple[str, Media]]:
        """Media types that can have volumes whose names match a filter, `first` and behind it."""
        wanted = compile_filter(text or EVERYTHING)
        for customer, _ in self._customers_from(txn, customer_of(first)):
            if not sees(customer) or wanted.after(f"{customer}.", dots_left=1) is None:
                continue
            for name, record in self._media_of(txn, customer):
                if name >= first and wanted.after(f"{name}.") is not None:
                    yield name, record

    def _customers_from(self, txn: db.DBTxn, first: str) -> Iterator[tuple[str, Customer]]:
        if first and (record := self._store.customer(txn, first)) is not None:
            yield first, record
        yield from self._customers(txn, first)

    def _media_of(self, txn: db.DBTxn, customer: str) -> Iterator[tuple[str, Media]]:
        start = f"{customer}."
        while item := self._pairs(txn, start, f"{customer}.", 1):
            name, record = item[0]
            if isinstance(record, Media):
                yield name, record
            start = f"{name}{_BEHIND_CHILDREN}"

    def below(self, txn: db.DBTxn, name: str) -> Iterator[tuple[str, Object]]:
        """All objects below one, in the order of their names."""
        prefix = start = f"{name}."
        while True:
            found = self._pairs(txn, start, prefix, WALK_KEYS)
            yield from found
            if len(found) < WALK_KEYS:
                return
            start = behind(found[-1][0].encode()).decode()

    def _pairs(
        self, txn: db.DBTxn, start: str, prefix: str, limit: int
    ) -> list[tuple[str, Object]]:
        handle = self._store.files(txn).objects.handle()
        found = pairs_from(handle, txn, start.encode(), prefix.encode(), limit)
        return [(key.decode(), decode_object(key.decode(), data)) for key, data in found]

    def _children(self, txn: db.DBTxn, name: str, most: int) -> list[str]:
        """The first of the objects right below one."""
        dots = name.count(".") + 1
        found: list[str] = []
        for child, _ in self.below(txn, name):
            if child.count(".") == dots:
                found.append(child)
                if len(found) == most:
                    break
        return found

    def _put(self, txn: db.DBTxn, name: str, record: O) -> O:
        self._store.put_object(txn, name, record)
        return record


def _with(record: O, fields: Fields) -> O:
    return msgspec.structs.replace(record, **fields)


def _customer_checked(record: Customer) -> Customer:
    check_text("description", record.description, 0, CUSTOMER_CHARS_MAX)
    check_text("contact", record.contact, 0, CONTACT_CHARS_MAX)
    check_number("most media types", record.media_max, COUNT_MAX)
    _check_choice("unique", record.unique, UNIQUE)
    return record


def check_text(what: str, text: str, least: int, most: int) -> None:
    """Check a text by its length; no control characters.

    Raises:
        CatalogError: INVALID.
    """
    if not least <= len(text) <= most:
        between = f"{least} to {most}" if least else f"at most {most}"
        raise CatalogError(
            f"{what} {shown(text)} refused: it has {len(text)} characters, not {between}",
            hint="write it shorter." if text else "it must not be empty.",
        )
    if not text.isprintable():
        raise CatalogError(
            f"{what} {shown(text)} refused: it has characters that cannot be printed",
            hint="leave out tabs and line ends.",
        )


def check_number(what: str, number: int, most: int) -> None:
    """Check that a number is from 0 to `most`.

    Raises:
        CatalogError: INVALID.
    """
    if not 0 <= number <= most:
        raise CatalogError(f"{what} {number} refused: not 0 to {most}", hint="0 is for none.")


def _check_choice(what: str, word: str, choices: tuple[str, ...]) -> None:
    if word not in choices:
        raise CatalogError(
            f"{what} {shown(word)} refused: it is none of {', '.join(choices)}",
            hint="write it in small letters.",
        )


def _check_filter(text: str) -> None:
    if text:
        compile_filter(text)


def _must_be_new(kind: str, name: str, there: object) -> None:
    if there is not None:
        raise CatalogError(
            f"{kind} {name} exists already", code="EXISTS", hint="change it instead: SET."
        )


def _in_use(kind: str, name: str, why: str) -> CatalogError:
    return CatalogError(
        f"{kind} {name} stays: {why}",
        code="INUSE",
        hint="delete or change that first.",
    )


def _full(kind: str, name: str, most: int, what: str) -> CatalogError:
    return CatalogError(
        f"{kind} {name} is full: it may have {most} {what}",
        code="LIMIT",
        hint="raise its limit, or set it to 0 for any number.",
    )
