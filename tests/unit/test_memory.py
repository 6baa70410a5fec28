"""What a site remembers beside its environment: kept whole, refused when damaged."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replication import memory
from replication.bodies import SiteAddress
from replication.effects import Outbox, SaveMemory
from replication.errors import ReplicationError
from replication.membership import Member, Membership
from replication.memory import Memory
from replication.messages import SiteStatus
from replication.remembered import Remembered
from replication.wire import LSN, LSN_ZERO

A, B = SiteAddress("192.0.2.10", 5010), SiteAddress("fd00::1", 5011)
FULL = Memory(
    0xDEADBEEFCAFE1234,
    LSN(12, 345678),
    True,
    {A: 1, B: 0},
    42,
    True,
    {A: LSN(12, 1)},
    frozenset({B}),
    Membership(7, 42, (Member(*A), Member(*B, SiteStatus.DELETING))),
)


def test_a_missing_file_is_an_empty_memory(tmp_path: Path) -> None:
    assert memory.load(tmp_path / "replication.json") == Memory()


@pytest.mark.parametrize("kept", [Memory(), FULL])
def test_what_is_saved_is_loaded(tmp_path: Path, kept: Memory) -> None:
    path = tmp_path / "var" / "replication.json"
    memory.save(path, kept)
    assert memory.load(path) == kept


@given(
    st.builds(
        Memory,
        st.integers(0, 2**64 - 1),
        st.builds(LSN, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
        st.booleans(),
        st.dictionaries(st.sampled_from([A, B]), st.integers(0, 2**32 - 1)),
        st.integers(0, 2**32 - 1),
    )
)
def test_everything_a_memory_can_hold_survives(
    tmp_path_factory: pytest.TempPathFactory, kept: Memory
) -> None:
    path = tmp_path_factory.mktemp("memory") / "replication.json"
    memory.save(path, kept)
    assert memory.load(path) == kept


def test_the_file_is_the_owners_and_no_other_is_left(tmp_path: Path) -> None:
    path = tmp_path / "replication.json"
    memory.save(path, FULL)
    memory.save(path, Memory())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["replication.json"]


def test_a_failed_save_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "replication.json"
    memory.save(path, FULL)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        memory.save(path, Memory())
    assert memory.load(path) == FULL


DAMAGED = {
    "empty": b"",
    "no JSON": b"{",
    "not text": b"\xff\xfe\x00",
    "another shape": b"[]",
    "an unknown key": b'{"groupid": "1"}',
    "a group that is no number": b'{"group_id": "xyz"}',
    "a group below zero": b'{"group_id": "-1"}',
    "a group too large": b'{"group_id": "11112222333344445"}',
    "an LSN of one number": b'{"stable_lsn": [1]}',
    "an LSN below zero": b'{"stable_lsn": [-1, 0]}',
    "an LSN too large": b'{"stable_lsn": [1, 4294967296]}',
    "a generation too large": b'{"generation": 4294967296}',
    "a site without port": b'{"priorities": {"host": 1}}',
    "a site without host": b'{"priorities": {":5010": 1}}',
    "a port too large": b'{"priorities": {"host:65536": 1}}',
    "a priority below zero": b'{"priorities": {"host:5010": -1}}',
}


@pytest.mark.parametrize("raw", DAMAGED.values(), ids=DAMAGED.keys())
def test_damage_is_named_with_what_to_do(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "replication.json"
    path.write_bytes(raw)
    with pytest.raises(ReplicationError, match="is damaged") as caught:
        memory.load(path)
    assert caught.value.code == "memory_damaged"
    assert caught.value.hint.startswith(f"remove {path}")


@given(st.binary(max_size=200))
def test_arbitrary_bytes_load_or_are_damage(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    path = tmp_path_factory.mktemp("memory") / "replication.json"
    path.write_bytes(raw)
    with contextlib.suppress(ReplicationError):  # and nothing else
        assert isinstance(memory.load(path), Memory)


def test_what_cannot_be_read_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ReplicationError, match="cannot be read") as caught:
        memory.load(tmp_path)
    assert caught.value.code == "memory_unreadable"


class TestRemembered:
    def remembered(self, kept: Memory = FULL) -> tuple[Remembered, Outbox]:
        out = Outbox()
        return Remembered(kept, out), out

    def saved(self, out: Outbox) -> list[Memory]:
        return [effect.memory for effect in out.take() if isinstance(effect, SaveMemory)]

    def test_only_changes_are_saved(self) -> None:
        remembered, out = self.remembered()
        remembered.complete(True)
        remembered.generation(42)
        remembered.priority(A, 1)
        remembered.group(FULL.group_id)
        assert not self.saved(out)
        remembered.priority(A, 0)
        remembered.complete(False)
        assert [kept.complete for kept in self.saved(out)] == [True, False]

    def test_a_generation_never_goes_back(self) -> None:
        remembered, out = self.remembered()
        remembered.generation(7)
        assert not self.saved(out)
        remembered.generation(43)
        assert remembered.memory.generation == 43

    def test_an_lsn_of_another_group_is_forgotten(self) -> None:
        remembered, _ = self.remembered()
        remembered.group(5)
        assert remembered.memory.stable_lsn == LSN_ZERO

    def test_the_first_group_keeps_what_is_known(self) -> None:
        remembered, _ = self.remembered(Memory(stable_lsn=LSN(1, 100)))
        remembered.group(5)
        assert remembered.memory.stable_lsn == LSN(1, 100)
