"""What a bench writes in bulk is what the commands would have left."""

from __future__ import annotations

from typing import Any

from bench.vault import HISTORY_EACH, fill
from storage.catalog.index import counts_of
from storage.catalog.records import custody_of
from storage.catalog.store import decode_history, decode_volume
from tests.support.catalog import Vault, vault
from tests.support.environments import environments, fast
from ttserver.sample import volumes

__all__ = ["environments", "fast", "vault"]
COUNT = 400


def test_indexes_counts_and_history_add_up(vault: Vault) -> None:
    told: list[int] = []
    fill(vault.opened.environment, vault.files, COUNT, vault.today, told.append)
    assert told[-1] == COUNT
    vault.check()
    dump = vault.dump()
    records = {key.decode(): decode_volume(key.decode(), data) for key, data in dump["volumes.db"]}
    assert set(records) == {one.name for one in volumes(COUNT)}
    assert {one.changes for one in records.values()} == {HISTORY_EACH}
    facts: dict[str, dict[str, Any]] = {name: {} for name in records}
    for key, data in dump["history.db"]:
        name, record = key.decode().split(" ")[0], decode_history(key.decode(), data)
        here = facts[name]
        assert all(here.pop(fact) == value for fact, value in record.before.items())
        here.update(record.after)
    assert facts == {name: custody_of(record) for name, record in records.items()}
    sample = {one.name: one for one in volumes(COUNT)}
    assert all(one.target.repository == sample[name].repository for name, one in records.items())
    assert 0 < sum(one.moving for one in records.values()) < COUNT / 10
    inside = sum(one.contents for one in records.values())
    assert inside == sum(bool(one.container) for one in records.values()) > 0
    assert sum(counts_of(name, one)[("US04.LTO", 0)] for name, one in records.items()) > 0
