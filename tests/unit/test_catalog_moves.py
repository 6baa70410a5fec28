"""The life of a volume, step by step, and what is kept of it."""

from __future__ import annotations

import shutil
import subprocess
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from storage.catalog.history import Happened, Span
from tests.support.catalog import START, Vault, everyone, vault
from tests.support.environments import environments, fast

__all__ = ["environments", "fast", "vault"]

ONE = "US04.LTO.123456L6"
CASE = "US04.CONT.CT100100"


def history(vault: Vault, text: str, limit: int = 100, **span: Any) -> list[Happened]:
    """Read a history by pages."""
    asked = Span(filter=text, **span)
    page = vault.run(lambda txn: vault.catalog.history.page(txn, asked, None, limit, everyone))
    found = list(page.records)
    while page.after is not None:
        call = partial(vault.catalog.history.page, span=asked, after=page.after)
        page = vault.run(partial(call, limit=limit, sees=everyone))
        found += page.records
    return found


def told(vault: Vault, text: str) -> list[str]:
    return [
        f"{one.number} {one.record.what}"
        f" {'+'.join(f'{k}:{v}' for k, v in one.record.before.items())}"
        f" > {'+'.join(f'{k}:{v}' for k, v in one.record.after.items())}"
        for one in history(vault, text)
    ]


def test_from_the_library_to_the_vault(vault: Vault) -> None:
    vault.add(ONE)
    assert vault.where(ONE) == "LIBR>LIBR C"
    vault.later(hours=1)
    assert vault.move(ONE, "OFFS") == ()
    assert vault.where(ONE) == "LIBR>OFFS MC"
    vault.scan_out(ONE)
    assert vault.where(ONE) == "LIBR>OFFS MCU"
    vault.pick_up(ONE)
    assert vault.where(ONE) == "LIBR>OFFS MCUK"
    vault.later(hours=1)
    assert vault.confirm(ONE) == ()
    assert vault.where(ONE) == "OFFS>OFFS CO"
    volume = vault.get(ONE)
    assert volume.current.at == volume.scanned.at == START + timedelta(hours=2)  # type: ignore[union-attr]
    assert volume.target.at == START + timedelta(hours=1)
    assert (volume.current.by, volume.current.via) == ("fred", "test")
    assert told(vault, ONE) == [
        "1 add  > current:LIBR+target:LIBR+scanned:LIBR",
        "2 move target:LIBR > target:OFFS",
        "3 scanout  > flags:U",
        "4 pickup flags:U > flags:UK",
        "5 confirm current:LIBR+scanned:LIBR+flags:UK > current:OFFS+scanned:OFFS",
    ]
    vault.check()


def test_a_move_that_is_asked_for_again_changes_nothing(vault: Vault) -> None:
    vault.add(ONE)
    assert vault.move(ONE, "LIBR") == (f"volume {ONE} is in LIBR already",)
    vault.move(ONE, "US04.LTO.OFFS")
    assert vault.move(ONE, "OFFS") == (f"volume {ONE} is on its way to OFFS already",)
    assert len(history(vault, ONE)) == 2


def test_a_new_target_takes_back_what_was_done_for_the_old_one(vault: Vault) -> None:
    vault.add(ONE)
    vault.move(ONE, "OFFS")
    vault.scan_out(ONE)
    vault.move(ONE, "RACK")
    assert vault.where(ONE) == "LIBR>RACK MC"


@pytest.mark.parametrize("by", ["cancel", "move"])
def test_called_back(vault: Vault, by: str) -> None:
    vault.add(ONE)
    vault.move(ONE, "OFFS")
    vault.pick_up(ONE)
    warnings = vault.cancel(ONE) if by == "cancel" else vault.move(ONE, "LIBR")
    assert warnings == (f"volume {ONE} was moved back to LIBR before it was confirmed at OFFS",)
    assert vault.where(ONE) == "LIBR>LIBR CW"
    vault.move(ONE, "RACK")
    assert vault.where(ONE) == "LIBR>RACK MC"
    vault.run(lambda txn: vault.catalog.tree.set_media(txn, "US04.LTO", {"warn_back": False}))
    assert vault.cancel(ONE) == ()
    assert vault.where(ONE) == "LIBR>LIBR CW"
    assert vault.flag(ONE, remove="W").flags == ""
    vault.check()


def test_seen_where_it_is(vault: Vault) -> None:
    vault.add(ONE)
    vault.flag(ONE, "a")
    vault.move(ONE, "OFFS")
    vault.later(minutes=1)
    assert vault.confirm(ONE, "LIBR") == (f"volume {ONE} is still bound for OFFS",)
    assert vault.where(ONE) == "LIBR>OFFS MC"
    assert vault.get(ONE).scanned.at == vault.now  # type: ignore[union-attr]
    vault.confirm(ONE, "OFFS")
    vault.later(minutes=1)
    assert vault.confirm(ONE) == ()
    assert told(vault, ONE)[-1] == "6 confirm  > "


def test_a_move_locked_volume_can_be_seen_where_it_is(vault: Vault) -> None:
    vault.add(ONE)
    vault.flag(ONE, "l")
    vault.later(minutes=1)
    vault.confirm(ONE)
    assert vault.get(ONE).scanned.at == vault.now  # type: ignore[union-attr]


def test_move_dates_and_overdue_moves(vault: Vault) -> None:
    vault.add(ONE, date=vault.today + timedelta(days=1), overdue_days=2)
    assert vault.where(ONE) == "LIBR>LIBR CD"
    vault.later(days=1)
    assert vault.where(ONE) == "LIBR>LIBR CD"
    vault.later(days=1)
    assert vault.where(ONE) == "LIBR>LIBR CDd"
    vault.change(ONE, date=None)
    vault.move(ONE, "OFFS")
    vault.later(days=2)
    assert vault.where(ONE) == "LIBR>OFFS MC"
    vault.later(days=1)
    assert vault.where(ONE) == "LIBR>OFFS MCo"
    assert vault.names(flags="o") == [ONE]
    vault.check()


def test_a_container_carries_what_is_in_it(vault: Vault) -> None:
    vault.add(CASE)
    vault.add("US04.CONT.BOX", container=CASE)
    vault.add(ONE, container="US04.CONT.BOX")
    assert vault.where(CASE) == "LIBR>LIBR CB"
    assert vault.where("US04.CONT.BOX") == "LIBR>LIBR CBc"
    assert vault.where(ONE) == "LIBR>LIBR Cc"
    for step in (lambda: vault.move(CASE, "OFFS"), lambda: vault.scan_out(CASE)):
        step()
    assert vault.where(ONE) == "LIBR>OFFS MCcU"
    vault.confirm(CASE)
    # It came with its container, and nobody has scanned it there.
    assert vault.where(CASE) == "OFFS>OFFS COB"
    assert vault.where(ONE) == "OFFS>OFFS Oc"
    assert vault.names(without="C") == ["US04.CONT.BOX", ONE]
    vault.confirm(ONE)
    assert vault.where(ONE) == "OFFS>OFFS COc"
    vault.move(CASE, "SCRT")
    vault.cancel(CASE)
    assert vault.where(ONE) == "OFFS>OFFS COcW"
    assert [line.split()[1] for line in told(vault, ONE)] == [
        *("add", "move", "scanout", "confirm", "confirm", "move", "cancel")
    ]
    vault.check()
    # Taken out, it stays; back in, it is counted again; deleted, it leaves no trace inside.
    vault.change(ONE, container="")
    vault.move(CASE, "LIBR")
    assert vault.where(ONE) == "OFFS>OFFS COW"
    vault.cancel(CASE)
    vault.change(ONE, container=CASE)
    assert vault.get(CASE).contents == 2
    assert vault.names(container=CASE) == ["US04.CONT.BOX", ONE]
    vault.change(ONE, container="US04.CONT.BOX")
    vault.delete(ONE)
    assert (vault.get(CASE).contents, vault.get("US04.CONT.BOX").contents) == (1, 0)
    vault.check()


def test_history_outlives_its_volume_and_goes_on_with_its_name(vault: Vault) -> None:
    vault.add(ONE)
    vault.add(ONE + "A")
    vault.later(days=1)
    vault.delete(ONE)
    vault.later(days=1)
    vault.add(ONE, "RACK")
    assert told(vault, ONE) == [
        "1 add  > current:LIBR+target:LIBR+scanned:LIBR",
        "2 delete current:LIBR+target:LIBR+scanned:LIBR > ",
        "3 add  > current:RACK+target:RACK+scanned:RACK",
    ]
    vault.check()


def test_what_does_not_influence_the_place_is_no_history(vault: Vault) -> None:
    vault.add(ONE)
    vault.change(ONE, description="weekly_full", notes="dented")
    assert len(history(vault, ONE)) == 1
    vault.change(ONE, overdue_days=3, home="RACK")
    vault.flag(ONE, "Q")
    vault.flag(ONE, "Q")
    assert told(vault, ONE)[1:] == ["2 set  > overdue_days:3+home:RACK", "3 flag  > flags:Q"]


def test_history_by_filter_and_by_time(vault: Vault) -> None:
    for number in range(12):
        vault.add(f"US04.LTO.{number:03d}")
        vault.add(f"ACME.LTO.{number:03d}")
        vault.later(hours=1)
    vault.move("US04.LTO.003", "OFFS")

    def names(text: str, **span: Any) -> list[str]:
        found = history(vault, text, **span)
        assert found == history(vault, text, limit=2, **span)
        return [one.name for one in found]

    assert names("US04.LTO.00[3-5]") == [f"US04.LTO.00{n}" for n in (3, 3, 4, 5)]
    assert len(names("*")) == 25
    five, seven = START + timedelta(hours=5), START + timedelta(hours=7)
    assert names("US04.*", start=five, end=seven) == [f"US04.LTO.00{n}" for n in (5, 6, 7)]
    assert names("*", start=seven + timedelta(hours=4)) == [
        *("ACME.LTO.011", "US04.LTO.011", "US04.LTO.003")
    ]
    assert names("US04.LTO.003", start=five) == ["US04.LTO.003"]
    assert names("US04.LTO.003", end=five) == ["US04.LTO.003"]
    seen = Span(filter="*")
    page = vault.run(
        lambda txn: vault.catalog.history.page(txn, seen, None, 99, lambda c: c == "ACME")
    )
    assert {one.name[:4] for one in page.records} == {"ACME"}


def test_a_cursor_of_another_history_is_refused(vault: Vault) -> None:
    vault.add(ONE)
    asked = Span(filter=ONE)
    said = vault.refused(
        lambda txn: vault.catalog.history.page(txn, asked, b"ACME.LTO.1 0000000001", 9, everyone)
    )
    assert said.startswith("INVALID cursor refused: it belongs to another list")


def test_every_file_is_sound_to_the_librarys_own_programs(vault: Vault) -> None:
    vault.add(CASE)
    vault.add(ONE, container=CASE, date=vault.today, notes="ä")
    vault.move(CASE, "OFFS")
    files, home = list(vault.dump()), vault.opened.environment.home
    verify, dump = shutil.which("db5.3_verify"), shutil.which("db5.3_dump")
    assert verify is not None, "apt-get install db5.3-util"
    assert dump is not None
    vault.opened.env.txn_checkpoint(0, 0, 1)
    for name in files:
        subprocess.run([verify, "-h", str(home), name], check=True, timeout=60)
        shown = subprocess.run(
            [dump, "-p", "-h", str(home), name], check=True, timeout=60, capture_output=True
        )
        assert b"US04" in shown.stdout
