"""Lists and counts: what is found, in which order, by pages of any size."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from storage.catalog.catalog import Catalog
from storage.catalog.queries import EXAMINED_MAX, MISSES_MAX, Query
from storage.reads import WouldBlock
from tests.support.catalog import Vault, everyone, vault
from tests.support.environments import environments, fast

__all__ = ["environments", "fast", "vault"]


@pytest.fixture
def filled(vault: Vault) -> Vault:
    for number in range(10):
        vault.add(f"US04.LTO.00000{number}L6", "LIBR" if number % 2 else "OFFS")
        vault.add(f"ACME.LTO.00000{number}L8", "RACK")
    vault.add("US04.CONT.CT1")
    for number in (1, 3):
        vault.change(f"US04.LTO.00000{number}L6", container="US04.CONT.CT1", home="RACK")
    vault.move("US04.LTO.000005L6", "OFFS")
    vault.move("ACME.LTO.000002L8", "OFFS")
    vault.change("ACME.LTO.000002L8", overdue_days=1)
    vault.flag("US04.LTO.000007L6", "EQ")
    vault.flag("US04.LTO.000009L6", "Eh")
    for number, days in ((2, 3), (4, -1), (6, 0)):
        vault.change(f"US04.LTO.00000{number}L6", date=vault.today + timedelta(days=days))
    vault.later(days=2)
    vault.move("US04.LTO.000008L6", "LIBR")
    vault.confirm("US04.LTO.000008L6")
    return vault


def us(*numbers: int) -> list[str]:
    return [f"US04.LTO.00000{number}L6" for number in numbers]


def acme(*numbers: int) -> list[str]:
    return [f"ACME.LTO.00000{number}L8" for number in numbers]


QUERIES: list[tuple[dict[str, Any], list[str]]] = [
    ({"filter": "US04.LTO.*"}, us(*range(10))),
    ({"filter": "*.LTO.000004L?"}, acme(4) + us(4)),
    ({"filter": "*L[!6]"}, acme(*range(10))),
    ({"filter": "US04.LTO.000003L6"}, us(3)),
    ({"filter": "US04.DL.*"}, []),
    ({"filter": "NONE.*"}, []),
    ({"filter": "US04.LTO.*", "place": "OFFS"}, us(0, 2, 4, 6)),
    ({"place": "LIBR"}, ["US04.CONT.CT1", *us(1, 3, 5, 7, 8, 9)]),
    ({"place": "NONE"}, []),
    ({"target": "OFFS"}, [*acme(2), *us(5)]),
    ({"target": "LIBR"}, []),
    ({"home": "RACK"}, us(1, 3)),
    ({"home": "RACK", "place": "OFFS"}, []),
    ({"flags": "M"}, [*acme(2), *us(5)]),
    ({"flags": "M", "filter": "US*"}, us(5)),
    ({"flags": "E"}, us(7, 9)),
    ({"flags": "EQ"}, us(7)),
    ({"flags": "E", "without": "h"}, us(7)),
    ({"flags": "E", "place": "LIBR"}, us(7, 9)),
    ({"flags": "O"}, us(0, 2, 4, 6)),
    ({"flags": "O", "place": "LIBR"}, []),
    ({"flags": "B"}, ["US04.CONT.CT1"]),
    ({"flags": "c"}, us(1, 3)),
    ({"flags": "C", "filter": "US04.LTO.*", "place": "LIBR"}, us(1, 3, 5, 7, 8, 9)),
    ({"without": "C"}, []),
    ({"flags": "D"}, us(4, 6, 2)),  # by date
    ({"flags": "d"}, us(4, 6)),
    ({"flags": "o"}, acme(2)),
    ({"container": "US04.CONT.CT1"}, us(1, 3)),
    ({"container": "US04.CONT.CT1", "filter": "*3L6"}, us(3)),
    ({"container": "US04.CONT.NONE"}, []),
    ({"flags": "M", "without": "M"}, []),
]


@pytest.mark.parametrize(("asked", "found"), QUERIES, ids=str)
def test_what_is_found(filled: Vault, asked: dict[str, Any], found: list[str]) -> None:
    for limit in (100, 1, 3):
        assert filled.names(limit, **asked) == found
    assert filled.count(**asked) == len(found)


def test_by_date_due(filled: Vault) -> None:
    def due(days: int, **more: Any) -> list[str]:
        return filled.names(due=filled.today + timedelta(days=days), **more)

    assert due(-4) == []
    assert due(-3) == us(4)
    assert due(-2) == us(4, 6)
    assert due(1) == us(4, 6, 2)
    assert due(1, flags="d") == us(4, 6)
    assert due(1, place="LIBR") == []
    assert filled.count(due=filled.today + timedelta(days=1)) == 3


def test_only_what_may_be_seen(filled: Vault) -> None:
    query = Query(today=filled.today)
    queries = filled.catalog.queries

    def sees(customer: str) -> bool:
        return customer == "ACME"

    page = filled.run(lambda txn: queries.page(txn, query, None, 100, sees))
    assert [one.name for one in page.volumes] == acme(*range(10))
    assert filled.run(lambda txn: queries.count(txn, query, sees)) == 10


@pytest.mark.parametrize(("asked", "flag"), [({"flags": "X"}, "X"), ({"without": "MZ"}, "Z")])
def test_a_flag_that_does_not_exist(vault: Vault, asked: dict[str, str], flag: str) -> None:
    query = Query(today=vault.today, **asked)  # type: ignore[arg-type]
    for call in (
        lambda txn: vault.catalog.queries.page(txn, query, None, 1, everyone),
        lambda txn: vault.catalog.queries.count(txn, query, everyone),
    ):
        assert vault.refused(call).startswith(f"INVALID flag '{flag}' refused")


def test_a_cursor_of_another_list_is_refused(filled: Vault) -> None:
    queries = filled.catalog.queries
    one, other = Query(today=filled.today, flags="M"), Query(today=filled.today, place="RACK")
    page = filled.run(lambda txn: queries.page(txn, one, None, 1, everyone))
    said = filled.refused(lambda txn: queries.page(txn, other, page.after, 1, everyone))
    assert said.startswith("INVALID cursor refused: it belongs to another list")


def test_a_list_goes_on_after_its_place_was_deleted(filled: Vault) -> None:
    queries, query = filled.catalog.queries, Query(today=filled.today, filter="US04.LTO.*")
    page = filled.run(lambda txn: queries.page(txn, query, None, 3, everyone))
    assert [one.name for one in page.volumes] == us(0, 1, 2)
    filled.delete(us(2)[0])
    filled.delete(us(4)[0])
    page = filled.run(lambda txn: queries.page(txn, query, page.after, 3, everyone))
    assert [one.name for one in page.volumes] == us(3, 5, 6)


def test_a_search_for_little_gives_its_thread_back(vault: Vault) -> None:
    """Many volumes, few that match: pages come back short, and all is found in the end."""
    count = EXAMINED_MAX + 10

    def work(txn: Any) -> None:
        for number in range(count):
            name = f"US04.LTO.{number:06d}"
            vault.catalog.volumes.add(txn, vault.actor, name, "LIBR", {})

    vault.run(work)
    last = f"US04.LTO.{count - 1:06d}"
    query = Query(today=vault.today, filter=f"*.*{count - 1:06d}")
    page = vault.run(lambda txn: vault.catalog.queries.page(txn, query, None, 10, everyone))
    assert page.volumes == []
    assert page.after is not None
    assert vault.names(filter=query.filter) == [last]
    assert vault.count(filter=query.filter) == 1


def test_a_search_whose_index_says_little_gives_its_thread_back(vault: Vault) -> None:
    count = MISSES_MAX + 10

    def work(txn: Any) -> None:
        for number in range(count):
            name, last = f"US04.LTO.{number:06d}", number == count - 1
            fields = {"flags": "Q" if last else "E", "date": vault.today}
            vault.catalog.volumes.add(txn, vault.actor, name, "LIBR", fields)

    vault.run(work)
    query = Query(today=vault.today, due=vault.today, without="E")
    page = vault.run(lambda txn: vault.catalog.queries.page(txn, query, None, 10, everyone))
    assert page.volumes == []
    assert page.after is not None
    assert vault.names(due=vault.today, without="E") == [f"US04.LTO.{count - 1:06d}"]


def test_lists_of_customers_media_types_and_repositories(vault: Vault) -> None:
    tree = vault.catalog.tree
    vault.customer("US0")
    assert vault.refused(lambda txn: tree.add_customer(txn, "US041", {}))

    def names(method: str, text: str = "*", limit: int = 100) -> list[str]:
        found: list[str] = []
        while True:
            after = found[-1] if found else ""
            call = getattr(tree, method)
            page = vault.run(partial(call, text=text, after=after, limit=limit, sees=everyone))
            found += [name for name, _ in page]
            if len(page) < limit:
                return found

    for limit in (1, 2, 100):
        assert names("customers", limit=limit) == ["ACME", "US0", "US04"]
        assert names("customers", "US*", limit) == ["US0", "US04"]
        assert names("media_types", limit=limit) == [
            *("ACME.CONT", "ACME.LTO", "US04.CONT", "US04.LTO")
        ]
        assert names("media_types", "*.LTO", limit) == ["ACME.LTO", "US04.LTO"]
        assert names("repositories", "US04.*", limit) == [
            f"US04.{media}.{place}"
            for media in ("CONT", "LTO")
            for place in ("LIBR", "OFFS", "RACK", "SCRT")
        ]
        assert names("repositories", "*.LTO.OFFS", limit) == ["ACME.LTO.OFFS", "US04.LTO.OFFS"]


def test_nothing_opens_a_file_in_the_event_loop(vault: Vault) -> None:
    catalog = Catalog(lambda: vault.files, lambda _txn: True)
    assert vault.run(lambda txn: catalog.store.customer(txn, "US04")) is not None
    vault.files.drop()
    with pytest.raises(WouldBlock):
        vault.run(lambda txn: catalog.store.customer(txn, "US04"))
