"""Every rule of the catalog, broken, with what is said then."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from storage.catalog.records import Volume
from storage.catalog.tree import Tree
from storage.catalog.volumes import CONTENTS_MAX
from tests.support.catalog import Vault, vault
from tests.support.environments import environments, fast

__all__ = ["environments", "fast", "vault"]

Work = Callable[[Vault], Callable[[Any], Any]]


def tree(method: str, name: str, **fields: Any) -> Work:
    """One call of the tree."""

    def work(vault: Vault) -> Callable[[Any], Any]:
        call = getattr(vault.catalog.tree, f"{method}")
        return lambda txn: call(txn, name, fields) if "delete" not in method else call(txn, name)

    return work


def add(name: str, repository: str = "LIBR", **fields: Any) -> Work:
    return lambda vault: (
        lambda txn: vault.catalog.volumes.add(txn, vault.actor, name, repository, fields)
    )


def change(name: str, **fields: Any) -> Work:
    return lambda vault: lambda txn: vault.catalog.volumes.change(txn, vault.actor, name, fields)


def flags(name: str, add: str = "", remove: str = "") -> Work:
    return lambda vault: (
        lambda txn: vault.catalog.volumes.set_flags(txn, vault.actor, name, add, remove)
    )


def delete(name: str) -> Work:
    return lambda vault: lambda txn: vault.catalog.volumes.delete(txn, vault.actor, name)


def moves(method: str, *args: str) -> Work:
    return lambda vault: lambda txn: getattr(vault.catalog.moves, method)(txn, vault.actor, *args)


MEDIA = {"description": "tapes"}
PLACE = {"description": "a place"}
ONE = "US04.LTO.000001L6"
CASE = "US04.CONT.CT100100"

# What has to be there first, what is done then, what is said.
RULES: list[tuple[str, Work, str]] = [
    # names
    ("", tree("add_customer", "us04"), "INVALID customer ID 'us04' refused: not 1 to 4 of"),
    ("", tree("add_customer", "US045"), "INVALID customer ID 'US045' refused"),
    ("", tree("add_customer", ""), "INVALID customer ID '' refused"),
    ("", tree("add_customer", "A-1"), "INVALID customer ID 'A-1' refused"),
    ("", tree("add_customer", "A.B"), "INVALID customer name 'A.B' refused: it has not the form"),
    ("", tree("add_media", "US04", **MEDIA), "INVALID media type name 'US04' refused"),
    ("", tree("add_media", "US04.LTO12", **MEDIA), "INVALID media type ID 'LTO12' refused"),
    ("", tree("add_repository", "US04.LTO", **PLACE), "INVALID repository name 'US04.LTO'"),
    ("", tree("add_repository", "US04.LTO.-", **PLACE), "INVALID repository ID '-' refused"),
    ("", add("US04.LTO.-1"), "INVALID volume ID '-1' refused: not 1 to 10 of A-Z, 0-9 and dash"),
    ("", add("US04.LTO.12345678901"), "INVALID volume ID '12345678901' refused"),
    ("", add("US04.LTO."), "INVALID volume ID '' refused"),
    ("", add("US04.LTO.1\n"), "INVALID volume ID '1\\n' refused"),
    ("", add("US04.LTO"), "INVALID volume name 'US04.LTO' refused"),
    # unique, in their owners
    ("", tree("add_customer", "US04"), "EXISTS customer US04 exists already"),
    ("", tree("add_media", "US04.LTO", **MEDIA), "EXISTS media type US04.LTO exists already"),
    ("", tree("add_repository", "US04.LTO.OFFS", **PLACE), "EXISTS repository US04.LTO.OFFS"),
    ("one", add(ONE), f"EXISTS volume {ONE} exists already"),
    ("", tree("set_customer", "NONE"), "NOTFOUND customer NONE does not exist"),
    ("", tree("add_media", "NONE.LTO", **MEDIA), "NOTFOUND customer NONE does not exist"),
    ("", tree("set_media", "US04.DL"), "NOTFOUND media type US04.DL does not exist"),
    ("", tree("add_repository", "US04.DL.A", **PLACE), "NOTFOUND media type US04.DL does not"),
    ("", tree("set_repository", "US04.LTO.A"), "NOTFOUND repository US04.LTO.A does not exist"),
    ("", add("NONE.LTO.1"), "NOTFOUND customer NONE does not exist"),
    ("", add("US04.DL.1"), "NOTFOUND media type US04.DL does not exist"),
    ("", add("US04.LTO.1", "NONE"), "NOTFOUND repository US04.LTO.NONE does not exist"),
    ("", add("US04.LTO.1", "ACME.LTO.LIBR"), "INVALID repository ACME.LTO.LIBR refused: the"),
    ("", add("US04.LTO.1", ""), "INVALID volume US04.LTO.1 refused: no repository is named"),
    ("", change(ONE), f"NOTFOUND volume {ONE} does not exist"),
    ("", delete(ONE), f"NOTFOUND volume {ONE} does not exist"),
    ("", moves("move", ONE, "OFFS"), f"NOTFOUND volume {ONE} does not exist"),
    # children and others who depend on it
    ("", tree("delete_customer", "US04"), "INUSE customer US04 stays: media type US04.CONT"),
    ("", tree("delete_media", "US04.LTO"), "INUSE media type US04.LTO stays: repository US04.LTO."),
    ("one", tree("delete_repository", "US04.LTO.LIBR"), "INUSE repository US04.LTO.LIBR stays: 1"),
    ("", tree("delete_repository", "US04.LTO.OFFS"), "INUSE repository US04.LTO.OFFS stays: it"),
    ("moving", tree("delete_repository", "US04.LTO.RACK"), "INUSE repository US04.LTO.RACK stays"),
    ("home", tree("delete_repository", "US04.LTO.RACK"), "INUSE repository US04.LTO.RACK stays:"),
    ("default", tree("delete_repository", "US04.LTO.RACK"), "INUSE repository US04.LTO.RACK"),
    # fields
    ("", tree("add_customer", "A", description="x" * 41), "INVALID description 'xxx"),
    ("", tree("add_customer", "A", contact="x" * 101), "INVALID contact 'xxx"),
    ("", tree("add_customer", "A", contact="a\tb"), "INVALID contact 'a\\tb' refused: it has char"),
    ("", tree("add_customer", "A", unique="all"), "INVALID unique 'all' refused: it is none of"),
    ("", tree("add_customer", "A", media_max=-1), "INVALID most media types -1 refused: not 0 to"),
    ("", tree("add_media", "US04.DL", description=""), "INVALID description '' refused: it has 0"),
    ("", tree("add_media", "US04.DL", description="x" * 21), "INVALID description 'xxx"),
    ("", tree("add_media", "US04.DL", **MEDIA, filter="[1"), "INVALID filter '[1' refused"),
    ("", tree("add_media", "US04.DL", **MEDIA, default="A"), "NOTFOUND repository US04.DL.A does"),
    ("", tree("set_media", "US04.LTO", default="no"), "INVALID repository ID 'no' refused"),
    ("", tree("add_repository", "US04.LTO.A", description=""), "INVALID description '' refused"),
    ("", tree("add_repository", "US04.LTO.A", **PLACE, type="shelf"), "INVALID type 'shelf' ref"),
    ("", tree("add_repository", "US04.LTO.A", **PLACE, priority=10), "INVALID priority 10 refuse"),
    ("", tree("add_repository", "US04.LTO.A", **PLACE, next="A"), "INVALID repository US04.LTO.A"),
    ("", tree("add_repository", "US04.LTO.A", **PLACE, next="B"), "NOTFOUND repository US04.LTO.B"),
    ("", tree("add_repository", "US04.LTO.A", **PLACE, filter=""), ""),
    ("", add(ONE, description="x" * 41), "INVALID description 'xxx"),
    ("", add(ONE, notes="x" * 501), "INVALID notes 'xxx"),
    ("", add(ONE, overdue_days=-1), "INVALID overdue days -1 refused: not 0 to"),
    ("", add(ONE, home="NONE"), "NOTFOUND repository US04.LTO.NONE does not exist"),
    ("", add(ONE, flags="EX"), "INVALID flag 'X' refused: there is none of this name"),
    # caps and filters
    ("full customer", tree("add_media", "US04.DL", **MEDIA), "LIMIT customer US04 is full: it may"),
    ("full media", tree("add_repository", "US04.LTO.A", **PLACE), "LIMIT media type US04.LTO is"),
    ("one volume", add("US04.LTO.2"), "LIMIT media type US04.LTO is full: it may have 1 volumes"),
    ("media filter", add("US04.LTO.1"), "REFUSED volume US04.LTO.1 refused: US04.LTO takes only"),
    ("place filter", add("US04.LTO.1", "RACK"), "REFUSED volume US04.LTO.1 refused: repository"),
    ("place filter", moves("move", ONE, "RACK"), f"REFUSED volume {ONE} refused: repository RACK"),
    ("unique in customer", add("US04.CONT.000001L6"), "REFUSED volume US04.CONT.000001L6 refused"),
    ("unique on server", add("ACME.LTO.000001L6"), "REFUSED volume ACME.LTO.000001L6 refused: the"),
    ("ACME unique on server", add("ACME.LTO.000001L6"), "REFUSED volume ACME.LTO.000001L6 refus"),
    # deletes
    ("inside", delete(CASE), f"INUSE volume {CASE} stays: 1 volumes are in it"),
    ("no deletes", delete(ONE), f"REFUSED volume {ONE} stays: repository US04.LTO.LIBR allows no"),
    # locks
    ("customer locked", add("US04.LTO.2"), "LOCKED volume US04.LTO.2 stays as it is: customer"),
    (
        "customer locked",
        moves("move", ONE, "OFFS"),
        f"LOCKED volume {ONE} stays as it is: customer",
    ),
    ("media locked", delete(ONE), f"LOCKED volume {ONE} stays as it is: media type US04.LTO is"),
    ("media locked", flags(ONE, "E"), f"LOCKED volume {ONE} stays as it is: media type US04.LTO"),
    ("update lock", change(ONE, description="x"), f"LOCKED volume {ONE} stays as it is: flag L ("),
    ("update lock", flags(ONE, "E"), f"LOCKED volume {ONE} stays as it is: flag L (update lock)"),
    ("update lock", flags(ONE, "E", "L"), f"LOCKED volume {ONE} stays as it is: flag L"),
    ("update lock", delete(ONE), f"LOCKED volume {ONE} stays as it is: flag L"),
    ("move lock", delete(ONE), f"LOCKED volume {ONE} stays as it is: flag l (move lock) is set"),
    ("move lock", moves("move", ONE, "OFFS"), f"LOCKED volume {ONE} stays as it is: flag l"),
    ("moving, move lock", moves("scan_out", ONE), f"LOCKED volume {ONE} stays as it is: flag l"),
    ("moving, move lock", moves("pick_up", ONE), f"LOCKED volume {ONE} stays as it is: flag l"),
    ("moving, move lock", moves("confirm", ONE), f"LOCKED volume {ONE} stays as it is: flag l"),
    ("moving, move lock", moves("cancel", ONE), f"LOCKED volume {ONE} stays as it is: flag l"),
    # flags
    ("one", flags(ONE, "M"), "INVALID flag M (moving) refused: it follows from what is done"),
    ("one", flags(ONE, "W"), "INVALID flag W (moved back) refused: it follows from what is done"),
    ("one", flags(ONE, remove="O"), "INVALID flag O (in an offsite repository) refused"),
    ("one", flags(ONE, "z"), "INVALID flag 'z' refused: there is none of this name"),
    # moves
    ("one", moves("move", ONE, "NONE"), "NOTFOUND repository US04.LTO.NONE does not exist"),
    ("one", moves("move", ONE, "ACME.LTO.OFFS"), "INVALID repository ACME.LTO.OFFS refused"),
    ("one", moves("scan_out", ONE), f"REFUSED volume {ONE} is not moving: it is in LIBR"),
    ("one", moves("pick_up", ONE), f"REFUSED volume {ONE} is not moving: it is in LIBR"),
    ("one", moves("cancel", ONE), f"REFUSED volume {ONE} is not moving: it is in LIBR"),
    ("one", moves("confirm", ONE, "OFFS"), f"REFUSED volume {ONE} is in the wrong place: scanned"),
    # containers
    ("one", change(ONE, container="US04.CONT.NONE"), "NOTFOUND volume US04.CONT.NONE does not"),
    ("one", change(ONE, container="NONE"), "INVALID volume name 'NONE' refused"),
    ("two owners", change(ONE, container="ACME.CONT.CT1"), f"REFUSED volume {ONE} refused: contai"),
    ("one", change(ONE, container=ONE), f"REFUSED volume {ONE} refused: it would be inside itself"),
    ("inside", change(CASE, container=ONE), f"REFUSED volume {CASE} refused: it would be inside"),
    ("far case", change(ONE, container=CASE), f"REFUSED volume {ONE} refused: it is at LIBR"),
    ("moving case", change(ONE, container=CASE), f"REFUSED volume {ONE} refused: it is bound for"),
    ("full case", change(ONE, container=CASE), f"LIMIT container {CASE} is full: it holds"),
    ("inside", moves("move", ONE, "OFFS"), f"REFUSED volume {ONE} moves with its container {CASE}"),
    ("inside", moves("move", CASE, "NONE"), "NOTFOUND repository US04.CONT.NONE does not exist"),
    ("inside", moves("move", CASE, "CAGE"), "NOTFOUND repository US04.LTO.CAGE does not exist"),
    ("inside, move lock", moves("move", CASE, "OFFS"), f"LOCKED volume {ONE} stays as it is: flag"),
]


def prepare(vault: Vault, what: str) -> None:
    """Make what a row of the table needs."""
    if not what:
        return
    catalog, run = vault.catalog, vault.run
    tree: Tree = catalog.tree
    if what == "media filter":
        run(lambda txn: tree.set_media(txn, "US04.LTO", {"filter": "??????L[4-8]"}))
        vault.add(ONE)
        return
    if what == "ACME unique on server":
        run(lambda txn: tree.set_customer(txn, "ACME", {"unique": "server"}))
    vault.add(ONE)
    vault.repository("US04.CONT.CAGE")
    steps: dict[str, list[Callable[[], object]]] = {
        "moving": [lambda: vault.move(ONE, "RACK")],
        "home": [lambda: vault.change(ONE, home="RACK")],
        "default": [lambda: run(lambda txn: tree.set_media(txn, "US04.LTO", {"default": "RACK"}))],
        "full customer": [
            lambda: run(lambda txn: tree.set_customer(txn, "US04", {"media_max": 2}))
        ],
        "full media": [
            lambda: run(lambda txn: tree.set_media(txn, "US04.LTO", {"repositories_max": 4}))
        ],
        "one volume": [
            lambda: run(lambda txn: tree.set_media(txn, "US04.LTO", {"volumes_max": 1}))
        ],
        "place filter": [
            lambda: run(lambda txn: tree.set_repository(txn, "US04.LTO.RACK", {"filter": "X*"}))
        ],
        "unique in customer": [
            lambda: run(lambda txn: tree.set_customer(txn, "US04", {"unique": "customer"}))
        ],
        "unique on server": [
            lambda: run(lambda txn: tree.set_customer(txn, "US04", {"unique": "server"}))
        ],
        "no deletes": [
            lambda: run(lambda txn: tree.set_repository(txn, "US04.LTO.LIBR", {"deletes": False}))
        ],
        "customer locked": [
            lambda: run(lambda txn: tree.set_customer(txn, "US04", {"locked": True}))
        ],
        "media locked": [
            lambda: run(lambda txn: tree.set_media(txn, "US04.LTO", {"locked": True}))
        ],
        "update lock": [lambda: vault.flag(ONE, "L")],
        "move lock": [lambda: vault.flag(ONE, "l")],
        "two owners": [lambda: vault.add("ACME.CONT.CT1")],
        "inside": [lambda: vault.add(CASE), lambda: vault.change(ONE, container=CASE)],
        "far case": [lambda: vault.add(CASE, "OFFS")],
        "moving case": [lambda: vault.add(CASE), lambda: vault.move(CASE, "OFFS")],
        "full case": [lambda: vault.add(CASE), lambda: fill(vault)],
    }
    for part in what.split(", "):
        for step in steps.get(part, []):
            step()


def fill(vault: Vault) -> None:
    def work(txn: Any) -> None:
        for number in range(CONTENTS_MAX):
            name, fields = f"US04.LTO.F{number}", {"container": CASE}
            vault.catalog.volumes.add(txn, vault.actor, name, "LIBR", fields)

    vault.run(work)


@pytest.mark.parametrize(
    ("there", "work", "said"), RULES, ids=lambda part: part[:40] if isinstance(part, str) else ""
)
def test_a_broken_rule_is_refused(vault: Vault, there: str, work: Work, said: str) -> None:
    prepare(vault, there)
    if not said:
        vault.run(work(vault))
        return
    assert vault.refused(work(vault)).startswith(said)
    vault.check()


def test_what_the_rules_allow(vault: Vault) -> None:
    """The other side of the rules above: the same things where nothing is in the way."""
    tree = vault.catalog.tree
    vault.customer("1009", description="x" * 40, contact="y" * 100, unique="none", media_max=1)
    vault.media("1009.DL", volumes_max=1, repositories_max=1, filter="??????S4")
    vault.repository("1009.DL.A")
    vault.run(lambda txn: tree.set_media(txn, "1009.DL", {"default": "A"}))
    made = vault.add("1009.DL.000001S4", "", notes="z" * 500, flags="hE", overdue_days=3)
    assert (made.current.repository, made.flags, made.overdue_days) == ("A", "Eh", 3)
    # The same ID in another media type and at another customer: nobody asked to be the only one.
    vault.add("US04.LTO.000001S4")
    vault.add("ACME.LTO.000001S4")
    # A limit is asked when something is added: what is there already stays.
    vault.run(lambda txn: tree.set_media(txn, "US04.LTO", {"volumes_max": 1}))
    vault.delete("1009.DL.000001S4")
    vault.run(lambda txn: tree.set_media(txn, "1009.DL", {"default": ""}))
    vault.run(lambda txn: tree.delete_repository(txn, "1009.DL.A"))
    vault.run(lambda txn: tree.delete_media(txn, "1009.DL"))
    vault.run(lambda txn: tree.delete_customer(txn, "1009"))
    assert vault.run(lambda txn: vault.catalog.store.customer(txn, "1009")) is None
    vault.check()


def test_locks_can_be_taken_off(vault: Vault) -> None:
    vault.add(ONE)
    vault.flag(ONE, "Ll")
    vault.flag(ONE, remove="l")
    assert vault.flag(ONE, remove="L").flags == ""
    tree = vault.catalog.tree
    for locked in ({"locked": True}, {"locked": False}):
        vault.run(partial(tree.set_customer, name="US04", fields=locked))
        vault.run(partial(tree.set_media, name="US04.LTO", fields=locked))
    assert isinstance(vault.change(ONE, description="open"), Volume)
