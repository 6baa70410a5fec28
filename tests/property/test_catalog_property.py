"""The catalog under random operations: indexes, counts and histories always fit the volumes.

Refusals write nothing, history only grows, and every list is what a look at all volumes gives.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from storage.catalog.filters import compile_filter
from storage.catalog.names import CatalogError
from storage.catalog.queries import Query
from storage.catalog.records import SETTABLE, flags_of
from storage.catalog.store import decode_volume
from storage.environment import Environment
from tests.support.catalog import Vault, opened_vault
from tests.support.environments import Opened, configured, fast_directory

VOLUMES = [
    f"{owner}.{number}" for owner in ("US04.LTO", "ACME.LTO", "US04.CONT") for number in "12"
]
PLACES = ("LIBR", "OFFS", "RACK", "SCRT", "NONE")
names, places = st.sampled_from(VOLUMES), st.sampled_from(PLACES)
letters = st.text(st.sampled_from("".join(SETTABLE)), max_size=2)
days = st.none() | st.integers(-2, 3)

OPERATIONS = st.one_of(
    st.tuples(st.just("add"), names, places, days),
    st.tuples(st.just("move"), names, places),
    st.tuples(st.sampled_from(["scan_out", "pick_up", "cancel", "delete"]), names),
    st.tuples(st.just("confirm"), names, places | st.just("")),
    st.tuples(st.just("date"), names, days),
    st.tuples(st.just("flags"), names, letters, letters),
    st.tuples(st.just("container"), names, names | st.just("")),
    st.tuples(st.just("home"), names, places | st.just("")),
    st.tuples(st.just("expire"), names),
    st.tuples(st.just("reconcile"), names, places, st.booleans()),
    st.tuples(st.just("later"), st.integers(1, 48)),
)
QUERIES = st.fixed_dictionaries(
    {},
    optional={
        "filter": st.sampled_from(["*", "US*", "*.LTO.*", "US04.LTO.1", "*.[!1]"]),
        "place": places,
        "target": places,
        "home": places,
        "flags": st.text(st.sampled_from("MCDdoOBcELlpUKarQhW"), max_size=2),
        "without": st.text(st.sampled_from("MCDdoOBcELlpUKarQhW"), max_size=1),
        "container": names,
        "due_days": st.integers(-3, 4),
    },
)


@contextmanager
def vault() -> Iterator[Vault]:
    with tempfile.TemporaryDirectory() as below, fast_directory(Path(below)) as directory:
        opened = Opened(Environment(configured(directory / "env")))
        opened.environment.open()
        try:
            with opened_vault(opened) as made:
                yield made
        finally:
            opened.close()


def call(vault: Vault, operation: tuple[Any, ...]) -> Callable[[Any], object]:
    """Make the work of one operation."""
    what, *args = operation
    catalog, actor = vault.catalog, vault.actor
    volumes = catalog.volumes

    def day(number: int | None) -> object:
        return None if number is None else vault.today + timedelta(days=number)

    match what:
        case "add":
            name, place, due = args
            return lambda txn: volumes.add(txn, actor, name, place, {"date": day(due)})
        case "date":
            return lambda txn: volumes.change(txn, actor, args[0], {"date": day(args[1])})
        case "container" | "home":
            return lambda txn: volumes.change(txn, actor, args[0], {what: args[1]})
        case "flags":
            return lambda txn: volumes.set_flags(txn, actor, *args)
        case "delete":
            return lambda txn: volumes.delete(txn, actor, *args)
        case "expire":
            return lambda txn: catalog.jobs.expire(txn, actor, args, vault.today)
        case "reconcile":
            name, place, scanned = args
            there = f"{name.rpartition('.')[0]}.{place}"
            return lambda txn: catalog.jobs.reconcile(txn, actor, there, [name], scanned=scanned)
        case _:
            return lambda txn: getattr(catalog.moves, what)(txn, actor, *args)


def run(vault: Vault, operation: tuple[Any, ...]) -> None:
    if operation[0] == "later":
        vault.later(hours=operation[1])
        return
    before = vault.dump()
    with vault.opened.txn() as txn:
        try:
            call(vault, operation)(txn)
        except CatalogError:
            assert vault.dump(txn) == before
            return
    after = vault.dump()
    # Append-only: what is there stays as it is.
    assert set(before["history.db"]) <= set(after["history.db"])


def all_that_hold(vault: Vault, asked: dict[str, Any]) -> set[str]:
    """Look at every volume."""
    found = set()
    for key, data in vault.dump()["volumes.db"]:
        name = key.decode()
        volume = decode_volume(name, data)
        media = name.rpartition(".")[0]
        at = f"{media}.{volume.current.repository}"
        place = vault.run(partial(vault.catalog.store.the_repository, name=at))
        flags = set(flags_of(volume, today=vault.today, offsite=place.offsite))
        due = asked.get("due")
        if (
            compile_filter(asked.get("filter", "*")).matches(name)
            and asked.get("place", volume.current.repository) == volume.current.repository
            and ("target" not in asked or volume.moving)
            and asked.get("target", volume.target.repository) == volume.target.repository
            and asked.get("home", volume.home) == volume.home
            and asked.get("container", volume.container) == volume.container
            and set(asked.get("flags", "")) <= flags
            and not set(asked.get("without", "")) & flags
            and (due is None or (volume.date is not None and volume.date <= due))
        ):
            found.add(name)
    return found


@settings(max_examples=25, deadline=None)
@given(st.lists(OPERATIONS, min_size=8, max_size=40), st.lists(QUERIES, min_size=5, max_size=20))
def test_everything_fits_the_volumes(
    operations: list[tuple[Any, ...]], queries: list[dict[str, Any]]
) -> None:
    with vault() as made:
        for name in VOLUMES[:3]:
            made.add(name)
        for operation in operations:
            run(made, operation)
        made.check()
        for given_query in queries:
            asked = dict(given_query)
            if "due_days" in asked:
                asked["due"] = made.today + timedelta(days=asked.pop("due_days"))
            expected = all_that_hold(made, asked)
            found = made.names(2, **asked)
            assert len(found) == len(set(found))
            assert set(found) == expected
            assert made.count(**asked) == len(expected)
            page = made.page(Query(today=made.today, **asked))
            assert [one.name for one in page.volumes] == found
