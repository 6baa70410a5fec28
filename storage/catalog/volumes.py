"""Volumes: added, changed, marked, deleted, with the rules of their owners and containers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import msgspec

from storage.catalog.files import walk_keys
from storage.catalog.filters import compile_filter
from storage.catalog.index import CONTAINER, UNIQUE
from storage.catalog.names import (
    CatalogError,
    check_volume,
    customer_of,
    id_of,
    media_of,
    repository_in,
    shown,
)
from storage.catalog.records import (
    ALL_FLAGS,
    DERIVED,
    MOVED_BACK,
    SETTABLE,
    Actor,
    Media,
    Volume,
    with_flags,
)
from storage.catalog.store import CatalogStore, Change
from storage.catalog.tree import Fields, check_number, check_text

if TYPE_CHECKING:
    from berkeleydb import db

DESCRIPTION_CHARS_MAX: Final = 40
NOTES_CHARS_MAX: Final = 500
OVERDUE_DAYS_MAX: Final = 36_500
# A move carries them in one transaction, some 0.1 ms each, and others' writes wait for it.
CONTENTS_MAX: Final = 200


class Volumes:
    """See the module's text.

    Args:
        store: where the records are.
    """

    def __init__(self, store: CatalogStore) -> None:
        self._store = store

    # -- adding, changing

    def add(
        self, txn: db.DBTxn, actor: Actor, name: str, repository: str, fields: Fields
    ) -> Volume:
        """Add a volume; it is where it is put, and confirmed.

        Args:
            txn: the transaction.
            actor: who.
            name: the volume.
            repository: its ID or name; empty for the media type's default.
            fields: as `change`, and `flags`, letters.

        Raises:
            CatalogError: INVALID, NOTFOUND, EXISTS, LIMIT, LOCKED, REFUSED.
        """
        volume, changes = self.plan_add(txn, actor, name, repository, fields)
        self._store.write(txn, actor, changes)
        return volume

    def plan_add(
        self, txn: db.DBTxn, actor: Actor, name: str, repository: str, fields: Fields
    ) -> tuple[Volume, list[Change]]:
        """Plan what `add` does, and write nothing.

        Raises:
            CatalogError: as `add`.
        """
        media_name = media_of(check_volume(name))
        media = self._open_media(txn, media_name, name)
        if self._store.volume(txn, name) is not None:
            raise CatalogError(
                f"volume {name} exists already", code="EXISTS", hint="change it: VOLUME.SET."
            )
        if media.filter and not compile_filter(media.filter).matches(id_of(name)):
            raise CatalogError(
                f"volume {name} refused: {media_name} takes only IDs that match {media.filter}",
                code="REFUSED",
                hint="look at the label, or change the filter of the media type.",
            )
        most = media.volumes_max
        if most and self._store.counts(txn, media_name)[0] >= most:
            raise CatalogError(
                f"media type {media_name} is full: it may have {most} volumes",
                code="LIMIT",
                hint="raise its limit, or set it to 0 for any number.",
            )
        self._must_be_unique(txn, name)
        place = actor.place(self.place_for(txn, name, repository or media.default))
        flags = _checked_flags(fields.get("flags", ""))
        volume = Volume(current=place, target=place, scanned=place, flags=with_flags(flags))
        volume, changes = self._changed(txn, name, volume, fields)
        return volume, [Change(name, None, volume, "add"), *changes]

    def change(self, txn: db.DBTxn, actor: Actor, name: str, fields: Fields) -> Volume:
        """Change what is known of a volume.

        Args:
            txn: the transaction.
            actor: who.
            name: the volume.
            fields: of `description`, `notes`, `overdue_days`, `home` (an ID or name), `container`
                (a name), `date`; empty texts and None take away.

        Raises:
            CatalogError: INVALID, NOTFOUND, LIMIT, LOCKED, REFUSED.
        """
        before = self.unlocked(txn, name, "L")
        after, changes = self._changed(txn, name, before, fields)
        if "date" in fields:
            after = msgspec.structs.replace(after, flags=with_flags(after.flags, remove="p"))
        own = Change(name, before, after, "set", always=False)
        self._store.write(txn, actor, [own, *changes])
        return after

    def _changed(
        self, txn: db.DBTxn, name: str, volume: Volume, fields: Fields
    ) -> tuple[Volume, list[Change]]:
        """Plan the fields; also what becomes of the containers it leaves and enters."""
        given = {key: value for key, value in fields.items() if key != "flags"}
        check_text("description", given.get("description", ""), 0, DESCRIPTION_CHARS_MAX)
        check_text("notes", given.get("notes", ""), 0, NOTES_CHARS_MAX)
        check_number("overdue days", given.get("overdue_days", 0), OVERDUE_DAYS_MAX)
        if given.get("home"):
            given["home"] = self._existing_repository(txn, media_of(name), given["home"])
        changes: list[Change] = []
        container = given.get("container", volume.container)
        if container != volume.container:
            changes = self._repacked(txn, name, volume, container)
        return msgspec.structs.replace(volume, **given), changes

    def set_flags(self, txn: db.DBTxn, actor: Actor, name: str, add: str, remove: str) -> Volume:
        """Set and clear flags.

        Raises:
            CatalogError: INVALID, NOTFOUND, LOCKED.
        """
        _checked_flags(add)
        _checked_flags(remove.replace(MOVED_BACK, ""))
        # Whoever may lock may unlock: the lock keeps out what is done without looking.
        before = self.unlocked(txn, name, "" if set(add + remove) <= set("Ll") else "L")
        after = msgspec.structs.replace(before, flags=with_flags(before.flags, add, remove))
        self._store.write(txn, actor, [Change(name, before, after, "flag", always=False)])
        return after

    def delete(self, txn: db.DBTxn, actor: Actor, name: str) -> None:
        """Delete a volume; its history stays.

        Raises:
            CatalogError: INVALID, NOTFOUND, INUSE, LOCKED, REFUSED.
        """
        before = self.unlocked(txn, name, "Ll")
        if before.contents:
            raise CatalogError(
                f"volume {name} stays: {before.contents} volumes are in it",
                code="INUSE",
                hint="take them out first: VOLUME.SET name CONTAINER ''.",
            )
        place = f"{media_of(name)}.{before.current.repository}"
        if not self._store.the_repository(txn, place).deletes:
            raise CatalogError(
                f"volume {name} stays: repository {place} allows no deletes",
                code="REFUSED",
                hint="move it to one that does, or change that repository.",
            )
        changes = [Change(name, before, None, "delete")]
        if before.container:
            changes.append(self._fewer_inside(txn, before.container))
        self._store.write(txn, actor, changes)

    # -- rules that other operations share

    def unlocked(self, txn: db.DBTxn, name: str, locks: str) -> Volume:
        """Find a volume that may be changed.

        Args:
            txn: the transaction.
            name: the volume.
            locks: the flags of which each would refuse it.

        Raises:
            CatalogError: INVALID, NOTFOUND, LOCKED.
        """
        self._open_media(txn, media_of(check_volume(name)), name)
        volume = self._store.the_volume(txn, name)
        for flag in locks:
            if flag in volume.flags:
                raise CatalogError(
                    f"volume {name} stays as it is: flag {flag} ({SETTABLE[flag]}) is set",
                    code="LOCKED",
                    hint=f"take it off first: VOLUME.FLAG {name} -{flag}.",
                )
        return volume

    def place_for(self, txn: db.DBTxn, name: str, repository: str) -> str:
        """Find the repository a volume is to be put into, and ask whether it takes it.

        Returns:
            Its ID.

        Raises:
            CatalogError: INVALID, NOTFOUND, REFUSED.
        """
        media = media_of(name)
        if not repository:
            raise CatalogError(
                f"volume {name} refused: no repository is named, and {media} has no default",
                hint=f"name one, or set a default: MEDIA.SET {media} DEFAULT repository.",
            )
        found = self._existing_repository(txn, media, repository)
        wanted = self._store.the_repository(txn, f"{media}.{found}").filter
        if wanted and not compile_filter(wanted).matches(id_of(name)):
            raise CatalogError(
                f"volume {name} refused: repository {found} takes only IDs that match {wanted}",
                code="REFUSED",
                hint="choose another repository, or change its filter.",
            )
        return found

    def _existing_repository(self, txn: db.DBTxn, media: str, text: str) -> str:
        found = repository_in(media, text)
        self._store.the_repository(txn, f"{media}.{found}")
        return found

    def _open_media(self, txn: db.DBTxn, media: str, name: str) -> Media:
        """Find the media type of a volume that is to be changed."""
        customer = customer_of(media)
        owner = self._store.the_customer(txn, customer)
        record = self._store.the_media(txn, media)
        if owner.locked or record.locked:
            kind, which = ("customer", customer) if owner.locked else ("media type", media)
            raise CatalogError(
                f"volume {name} stays as it is: {kind} {which} is locked",
                code="LOCKED",
                hint=f"take the lock off first: {kind.split()[0].upper()}.SET {which} LOCK no.",
            )
        return record

    def _must_be_unique(self, txn: db.DBTxn, name: str) -> None:
        """See that nobody who has this ID, or takes it now, asked to be the only one."""
        prefix = f"{UNIQUE} {id_of(name)} "
        index = self._store.files(txn).index.handle
        keys = walk_keys(index, txn, prefix.encode(), prefix.encode(), self._store.files)
        customer = customer_of(name)
        wanted = self._store.the_customer(txn, customer).unique
        for key in keys:
            media = key.decode().removeprefix(prefix)
            other = customer_of(media)
            asks = self._store.the_customer(txn, other).unique
            alone = "server" in (wanted, asks)
            if alone or (other == customer and wanted == "customer"):
                where = "on this server" if alone else f"of customer {customer}"
                raise CatalogError(
                    f"volume {name} refused: the ID has to be unique, and {media} has it, too"
                    f" ({where})",
                    code="REFUSED",
                    hint="look at the label; the rule is the customer's: CUSTOMER.SET ... UNIQUE.",
                )

    # -- containers

    def contents(self, txn: db.DBTxn, name: str) -> Iterator[tuple[str, Volume]]:
        """The volumes inside one, and those inside of these."""
        prefix = f"{CONTAINER} {name} "
        index = self._store.files(txn).index.handle
        for key in walk_keys(index, txn, prefix.encode(), prefix.encode(), self._store.files):
            inner = key.decode().removeprefix(prefix)
            volume = self._store.the_volume(txn, inner)
            yield inner, volume
            if volume.contents:
                yield from self.contents(txn, inner)

    def _repacked(self, txn: db.DBTxn, name: str, volume: Volume, into: str) -> list[Change]:
        """Plan the change of both containers, and refuse one that cannot hold the volume."""
        changes = [self._fewer_inside(txn, volume.container)] if volume.container else []
        if not into:
            return changes
        holder = self._container_for(txn, name, volume, into)
        more = msgspec.structs.replace(holder, contents=holder.contents + 1)
        return [*changes, Change(into, holder, more, "set", always=False)]

    def _fewer_inside(self, txn: db.DBTxn, container: str) -> Change:
        holder = self._store.the_volume(txn, container)
        fewer = msgspec.structs.replace(holder, contents=holder.contents - 1)
        return Change(container, holder, fewer, "set", always=False)

    def _container_for(self, txn: db.DBTxn, name: str, volume: Volume, into: str) -> Volume:
        if customer_of(check_volume(into)) != customer_of(name):
            raise CatalogError(
                f"volume {name} refused: container {into} is another customer's",
                code="REFUSED",
                hint="a container holds volumes of one customer.",
            )
        holder = self._store.the_volume(txn, into)
        outermost, seen = into, holder
        while True:
            if outermost == name:
                raise CatalogError(
                    f"volume {name} refused: it would be inside itself by {into}",
                    code="REFUSED",
                    hint="take the container out of the volume first.",
                )
            if not seen.container:
                break
            outermost = seen.container
            seen = self._store.the_volume(txn, outermost)
        for what, own, its in (
            ("at", volume.current.repository, holder.current.repository),
            ("bound for", volume.target.repository, holder.target.repository),
        ):
            if own != its:
                raise CatalogError(
                    f"volume {name} refused: it is {what} {own}, container {into} {what} {its}",
                    code="REFUSED",
                    hint="move one to the other first.",
                )
        there = 1 + sum(1 for _ in self.contents(txn, outermost))
        coming = 1 + (sum(1 for _ in self.contents(txn, name)) if volume.contents else 0)
        if there - 1 + coming > CONTENTS_MAX:
            raise CatalogError(
                f"container {outermost} is full: it holds {there - 1} volumes, {CONTENTS_MAX} at"
                " most",
                code="LIMIT",
                hint="use another container.",
            )
        return holder


def _checked_flags(flags: str) -> str:
    for flag in flags:
        if flag in SETTABLE:
            continue
        if flag in ALL_FLAGS:
            meaning = DERIVED.get(flag, "moved back")
            raise CatalogError(
                f"flag {flag} ({meaning}) refused: it follows from what is done with the volume",
                hint=f"those that can be set are {''.join(SETTABLE)}.",
            )
        raise CatalogError(
            f"flag {shown(flag)} refused: there is none of this name",
            hint=f"those that can be set are {''.join(SETTABLE)}; capital letters count.",
        )
    return flags
