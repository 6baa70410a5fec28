"""A small vault in a real environment: customers, media types, repositories, some volumes.

Use `vault` as a fixture. Its clock stands still until a test moves it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import pytest
from berkeleydb import db

from storage.catalog.catalog import Catalog
from storage.catalog.files import CatalogFiles
from storage.catalog.index import COUNT, counts_of, index_keys
from storage.catalog.names import CatalogError
from storage.catalog.queries import Page, Query
from storage.catalog.records import Actor, Volume, flags_of
from storage.catalog.store import decode_volume
from tests.support.environments import Open, Opened

T = TypeVar("T")
START = datetime(2025, 12, 1, 8, 0, tzinfo=UTC)
PLACES: dict[str, dict[str, Any]] = {
    "LIBR": {"type": "library"},
    "OFFS": {"type": "vault", "offsite": True},
    "RACK": {"type": "rack"},
    "SCRT": {"type": "scratch", "scratch": True},
}
NEXT = {"LIBR": "OFFS", "OFFS": "SCRT", "SCRT": "LIBR"}


def everyone(_customer: str) -> bool:
    return True


class Vault:
    """See the module's text.

    Attributes:
        catalog: the catalog.
        now: the time that what is done next is done at.
    """

    def __init__(self, opened: Opened) -> None:
        self.opened = opened
        self.files = CatalogFiles(opened.environment)
        self.files.create()
        self.catalog = Catalog(lambda: self.files, lambda _txn: False)
        self.now = START

    @property
    def actor(self) -> Actor:
        return Actor("fred", "test", self.now)

    @property
    def today(self) -> date:
        return self.now.date()

    def later(self, **by: float) -> None:
        self.now += timedelta(**by)

    def run(self, work: Callable[[db.DBTxn], T]) -> T:
        with self.opened.txn() as txn:
            return work(txn)

    def refused(self, work: Callable[[db.DBTxn], Any]) -> str:
        """Run what has to be refused, see that nothing was written, and give `CODE text`."""
        before = self.dump()
        with self.opened.txn() as txn:
            with pytest.raises(CatalogError) as raised:
                work(txn)
            # The group commit goes on: what others wrote in the transaction is committed.
            assert self.dump(txn) == before, "a refusal must have written nothing"
        assert raised.value.hint
        return f"{raised.value.code} {raised.value}"

    # -- what is done

    def customer(self, name: str, **fields: Any) -> None:
        self.run(lambda txn: self.catalog.tree.add_customer(txn, name, fields))

    def media(self, name: str, **fields: Any) -> None:
        given = {"description": "tapes", **fields}
        self.run(lambda txn: self.catalog.tree.add_media(txn, name, given))

    def repository(self, name: str, **fields: Any) -> None:
        given = {"description": "a place", **fields}
        self.run(lambda txn: self.catalog.tree.add_repository(txn, name, given))

    def shelves(self, media: str, **fields: Any) -> None:
        """Make a media type with its four repositories."""
        self.media(media, **fields)
        tree = self.catalog.tree
        for place, kind in PLACES.items():
            self.repository(f"{media}.{place}", **kind)
        for place, following in NEXT.items():
            given = {"next": following}
            self.run(partial(tree.set_repository, name=f"{media}.{place}", fields=given))

    def add(self, name: str, repository: str = "LIBR", **fields: Any) -> Volume:
        return self.run(
            lambda txn: self.catalog.volumes.add(txn, self.actor, name, repository, fields)
        )

    def change(self, name: str, **fields: Any) -> Volume:
        return self.run(lambda txn: self.catalog.volumes.change(txn, self.actor, name, fields))

    def flag(self, name: str, add: str = "", remove: str = "") -> Volume:
        return self.run(
            lambda txn: self.catalog.volumes.set_flags(txn, self.actor, name, add, remove)
        )

    def delete(self, name: str) -> None:
        self.run(lambda txn: self.catalog.volumes.delete(txn, self.actor, name))

    def move(self, name: str, repository: str) -> tuple[str, ...]:
        return self.run(
            lambda txn: self.catalog.moves.move(txn, self.actor, name, repository)
        ).warnings

    def confirm(self, name: str, repository: str = "") -> tuple[str, ...]:
        return self.run(
            lambda txn: self.catalog.moves.confirm(txn, self.actor, name, repository)
        ).warnings

    def scan_out(self, name: str) -> None:
        self.run(lambda txn: self.catalog.moves.scan_out(txn, self.actor, name))

    def pick_up(self, name: str) -> None:
        self.run(lambda txn: self.catalog.moves.pick_up(txn, self.actor, name))

    def cancel(self, name: str) -> tuple[str, ...]:
        return self.run(lambda txn: self.catalog.moves.cancel(txn, self.actor, name)).warnings

    def expire(self, *names: str, **how: Any) -> dict[str, str]:
        """Expire today's; give each volume's verdict."""
        on = how.pop("on", self.today)
        found = self.run(lambda txn: self.catalog.jobs.expire(txn, self.actor, names, on, **how))
        return {outcome.name: outcome.verdict for outcome in found}

    # -- what there is

    def get(self, name: str) -> Volume:
        return self.run(lambda txn: self.catalog.store.the_volume(txn, name))

    def flags(self, name: str) -> str:
        volume = self.get(name)
        place = f"{name.rpartition('.')[0]}.{volume.current.repository}"
        offsite = self.run(lambda txn: self.catalog.store.the_repository(txn, place)).offsite
        return flags_of(volume, today=self.today, offsite=offsite)

    def where(self, name: str) -> str:
        """Give `current>target flags`."""
        volume = self.get(name)
        return f"{volume.current.repository}>{volume.target.repository} {self.flags(name)}".strip()

    def names(self, limit: int = 100, **asked: Any) -> list[str]:
        """List all that match, by pages."""
        query = Query(today=self.today, **asked)
        page = self.page(query, None, limit)
        found = [one.name for one in page.volumes]
        while page.after is not None:
            page = self.page(query, page.after, limit)
            found += [one.name for one in page.volumes]
        return found

    def page(self, query: Query, after: bytes | None = None, limit: int = 100) -> Page:
        return self.run(lambda txn: self.catalog.queries.page(txn, query, after, limit, everyone))

    def count(self, **asked: Any) -> int:
        query = Query(today=self.today, **asked)
        return self.run(lambda txn: self.catalog.queries.count(txn, query, everyone))

    def counts(self, name: str) -> list[int]:
        return self.run(lambda txn: self.catalog.store.counts(txn, name))

    def dump(self, txn: db.DBTxn | None = None) -> dict[str, list[tuple[bytes, bytes]]]:
        """All files as they are."""
        if txn is None:
            return self.run(self.dump)
        files = self.files
        return {
            each.filename: each.handle().items(txn)
            for each in (files.objects, files.volumes, files.index, files.history, files.times)
        }

    def check(self) -> None:
        """See that the indexes, the counts and the histories are those of the volumes."""
        dump = self.dump()
        keys: set[bytes] = set()
        counts: dict[str, list[int]] = {}
        for key, data in dump["volumes.db"]:
            name = key.decode()
            volume = decode_volume(name, data)
            keys |= index_keys(name, volume)
            for (what, place), number in counts_of(name, volume).items():
                counts.setdefault(what, [0, 0, 0])[place] += number
            numbers = [
                int(each[0].rpartition(b" ")[2])
                for each in dump["history.db"]
                if each[0].startswith(key + b" ")
            ]
            assert numbers == list(range(1, volume.changes + 1)), name
        index = dict(dump["volumes_index.db"])
        kept = {key.decode(): value for key, value in index.items() if key.startswith(b"#")}
        assert kept == {
            f"{COUNT} {name}": str(numbers).replace(" ", "").encode()
            for name, numbers in counts.items()
        }
        assert {key for key in index if not key.startswith(b"#")} == keys
        times = [key.partition(b" ")[2] for key, _ in dump["history_time.db"]]
        assert sorted(times) == [key for key, _ in dump["history.db"]]


@contextmanager
def opened_vault(opened: Opened) -> Iterator[Vault]:
    """A vault with customers US04 and ACME in an environment; closes the files at its end."""
    made = Vault(opened)
    try:
        for customer in ("US04", "ACME"):
            made.customer(customer, description="a customer")
            made.shelves(f"{customer}.LTO", default="")
            made.shelves(f"{customer}.CONT")
        yield made
    finally:
        made.files.close()


@pytest.fixture
def vault(environments: Open) -> Iterator[Vault]:
    with opened_vault(environments()) as made:
        yield made
