"""The daily job, the comparison with a scan, the balance of a library."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import pytest

from tests.support.catalog import Vault, vault
from tests.support.environments import environments, fast

__all__ = ["environments", "fast", "vault"]

ONE, TWO = "US04.LTO.000001L6", "US04.LTO.000002L6"
CASE = "US04.CONT.CT1"
HERE = "US04.LTO.LIBR"


def test_what_is_due_goes_where_its_repository_sends_it(vault: Vault) -> None:
    vault.add(ONE, date=vault.today)
    vault.add(TWO, date=vault.today + timedelta(days=1))
    assert vault.expire(ONE, TWO, dry=True) == {ONE: "moving", TWO: "done"}
    assert vault.where(ONE) == "LIBR>LIBR CD"
    assert vault.expire(ONE, TWO) == {ONE: "moving", TWO: "done"}
    assert vault.where(ONE) == "LIBR>OFFS MCDp"
    # Done again on the same day it changes nothing, and arrived it does not move on tomorrow.
    assert vault.expire(ONE, TWO) == {ONE: "done", TWO: "done"}
    vault.confirm(ONE)
    assert vault.where(ONE) == "OFFS>OFFS CO"
    vault.later(days=1)
    assert vault.expire(ONE, TWO) == {ONE: "done", TWO: "moving"}
    assert vault.expire("US04.LTO.NONE") == {"US04.LTO.NONE": "done"}
    vault.check()


def test_what_cannot_go_by_itself_is_marked(vault: Vault) -> None:
    vault.add(CASE)
    names = {
        "rack": "US04.LTO.RACK1",
        "locked": "US04.LTO.LOCKED",
        "inside": "US04.LTO.INSIDE",
        "moving": "US04.LTO.MOVING",
    }
    vault.add(names["rack"], "RACK")
    vault.add(names["locked"], flags="lL")
    vault.add(names["inside"], container=CASE)
    vault.add(names["moving"])
    vault.move(names["moving"], "RACK")
    vault.flag(names["locked"], remove="L")
    for name in names.values():
        vault.change(name, date=vault.today)
    vault.flag(names["locked"], "L")
    found = vault.run(
        lambda txn: vault.catalog.jobs.expire(txn, vault.actor, list(names.values()), vault.today)
    )
    assert [(one.verdict, one.why) for one in found] == [
        ("pending", "no repository comes next after US04.LTO.RACK"),
        ("pending", f"volume {names['locked']} stays as it is: flag l (move lock) is set"),
        ("pending", f"it is in container {CASE}"),
        ("pending", "it is on its way to RACK already"),
    ]
    assert vault.where(names["rack"]) == "RACK>RACK CDp"
    assert vault.where(names["moving"]) == "LIBR>RACK MCDp"
    # A new date, or an arrival, takes the mark off.
    vault.change(names["rack"], date=vault.today + timedelta(days=9))
    assert vault.where(names["rack"]) == "RACK>RACK CD"
    vault.confirm(names["moving"])
    assert vault.where(names["moving"]) == "RACK>RACK C"
    vault.check()


def test_a_due_container_takes_its_contents_along_or_stays(vault: Vault) -> None:
    vault.add(CASE, date=vault.today)
    vault.add(ONE, container=CASE)
    vault.flag(ONE, "l")
    assert vault.expire(CASE) == {CASE: "pending"}
    vault.flag(ONE, remove="l")
    vault.change(CASE, date=vault.today)
    assert vault.expire(CASE) == {CASE: "moving"}
    assert vault.where(ONE) == "LIBR>OFFS MCcp"
    vault.confirm(CASE)
    assert vault.where(ONE) == "OFFS>OFFS Oc"
    vault.check()


def test_a_cancelled_expiry_stays_cancelled_until_there_is_a_new_date(vault: Vault) -> None:
    vault.add(ONE, date=vault.today)
    vault.expire(ONE)
    vault.cancel(ONE)
    assert vault.where(ONE) == "LIBR>LIBR CDpW"
    assert vault.expire(ONE) == {ONE: "done"}
    vault.change(ONE, date=vault.today)
    assert vault.expire(ONE) == {ONE: "moving"}


@pytest.mark.parametrize("what", ["customer", "media"])
def test_what_is_locked_as_a_whole_is_left_alone(vault: Vault, what: str) -> None:
    vault.add(ONE, date=vault.today)
    name = "US04" if what == "customer" else "US04.LTO"
    setter = getattr(vault.catalog.tree, f"set_{what}")
    vault.run(lambda txn: setter(txn, name, {"locked": True}))
    before = vault.dump()
    assert vault.expire(ONE) == {ONE: "locked"}
    jobs = vault.catalog.jobs
    for scanned, verdict in ((True, "locked"), (False, "missing")):
        (found,) = vault.run(
            partial(
                jobs.reconcile, actor=vault.actor, repository=HERE, names=[ONE], scanned=scanned
            )
        )
        assert found.verdict == verdict
        assert "is locked" in found.why
    assert vault.dump() == before


def test_a_repository_is_compared_with_a_scan(vault: Vault) -> None:
    names = [f"US04.LTO.{number}" for number in range(7)]
    stays, comes, gone, leaves, elsewhere, inside, locked = names
    vault.add(CASE)
    for name in names:
        vault.add(name, "OFFS" if name in (comes, elsewhere) else "LIBR")
    vault.move(comes, "LIBR")
    vault.move(leaves, "OFFS")
    vault.scan_out(leaves)
    vault.change(inside, container=CASE)
    vault.move(locked, "OFFS")
    vault.confirm(locked)
    vault.move(locked, "LIBR")
    vault.flag(locked, "l")
    vault.flag(stays, "a")
    vault.later(hours=1)
    jobs = vault.catalog.jobs
    scan = [stays, comes, elsewhere, locked, "US04.LTO.NEW", "US04.LTO.bad id"]

    def compare(dry: bool) -> dict[str, str]:
        present = vault.run(lambda txn: jobs.present(txn, HERE, ""))
        found = vault.run(
            lambda txn: [
                *jobs.reconcile(txn, vault.actor, HERE, scan, scanned=True, dry=dry),
                *jobs.reconcile(
                    txn,
                    vault.actor,
                    HERE,
                    [name for name in present if name not in scan],
                    scanned=False,
                    dry=dry,
                ),
            ]
        )
        return {one.name: one.verdict for one in found}

    before = vault.dump()
    expected = {
        stays: "reconciled",
        comes: "confirmed",
        elsewhere: "wrong place",
        locked: "locked",
        "US04.LTO.NEW": "unknown",
        "US04.LTO.bad id": "unknown",
        gone: "missing",
        leaves: "outgoing",
        inside: "in container",
    }
    assert compare(dry=True) == expected
    assert vault.dump() == before
    assert compare(dry=False) == expected
    assert vault.where(stays) == "LIBR>LIBR C"
    assert vault.get(stays).scanned.at == vault.now  # type: ignore[union-attr]
    assert vault.where(comes) == "LIBR>LIBR C"
    assert vault.where(gone) == "LIBR>LIBR Ca"
    assert vault.names(flags="a") == [gone]
    assert compare(dry=False) == {**expected, comes: "reconciled"}
    vault.check()


def test_what_is_in_a_repository_is_given_by_steps(vault: Vault) -> None:
    names = [f"US04.LTO.{number:03d}" for number in range(230)]
    for name in names:
        vault.add(name)
    found: list[str] = []
    jobs, last = vault.catalog.jobs, ""
    while step := vault.run(partial(jobs.present, repository=HERE, after=last)):
        found += step
        last = step[-1]
    assert found == names


def test_the_balance_of_a_library(vault: Vault) -> None:
    for number in range(6):
        vault.add(f"US04.LTO.{number}")
        vault.add(f"US04.LTO.S{number}", "SCRT")
    vault.repository("US04.LTO.POOL", scratch=True, priority=1)
    vault.add("US04.LTO.P", "POOL")
    for number in range(3):
        vault.move(f"US04.LTO.{number}", "OFFS")
    vault.move("US04.LTO.S0", "LIBR")
    balance = vault.run(lambda txn: vault.catalog.jobs.balance(txn, HERE))
    assert (balance.inside, balance.incoming, balance.outgoing) == (6, 1, 3)
    assert balance.difference == -2
    assert balance.scratch == (("US04.LTO.SCRT", 6), ("US04.LTO.POOL", 1))
    said = vault.refused(lambda txn: vault.catalog.jobs.balance(txn, "US04.LTO.NONE"))
    assert said.startswith("NOTFOUND repository US04.LTO.NONE does not exist")
