"""The logical tail: what is written down before a commit, and what is found of it afterwards."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage import tail as tail_module
from storage import tail_records
from storage.tail import Tail
from storage.tail_records import Change, CommitRecord, OwnRecord

FILE_BYTES = 8192
Lsn = tuple[int, int]


class Held:
    """What a majority holds, as far as the test says."""

    lsn: Lsn = (0, 0)

    def __call__(self) -> Lsn:
        return self.lsn


@pytest.fixture
def held() -> Held:
    return Held()


Make = Callable[..., Tail]


@pytest.fixture
def make(tmp_path: Path, held: Held) -> Iterator[Make]:
    made: list[Tail] = []

    def tail(log_end: Lsn = (1, 28), **options: int) -> Tail:
        one = Tail(
            tmp_path / "tail",
            held_by_majority=held,
            **{"bytes_max": 8 * FILE_BYTES, "file_bytes": FILE_BYTES, **options},
        )
        one.open(log_end)
        made.append(one)
        return one

    yield tail
    for one in made:
        one.close()


def change(number: int, size: int = 10) -> Change:
    return ("keys.db", b"key%d" % number, b"v" * size)


def commit(tail: Tail, number: int, size: int = 10) -> Lsn:
    """Append what one transaction changes, and say that it was committed."""
    tail.append(number, [("user", 1)], [change(number, size)])
    lsn = (1, 1000 * number)
    tail.committed(lsn)
    return lsn


def found(tail: Tail) -> list[int]:
    return [r.txn_id for r in tail_records.read(tail.directory) if isinstance(r, CommitRecord)]


def files(tail: Tail) -> int:
    return len(list(tail.directory.iterdir()))


def test_what_is_written_is_found(make: Make) -> None:
    tail = make((1, 500))
    changes: list[Change] = [("keys.db", b"\x00\xff", None), ("users.db", b"", b"")]
    tail.append(-7, [("tapemaster", 1), ("", 2)], changes)
    tail.committed((1, 900))
    tail.own((1, 950))
    tail.append(-6, [("x", 1)], [change(1)])
    first, own, last = tail_records.read(tail.directory)
    assert isinstance(first, CommitRecord)
    assert (first.txn_id, first.behind) == (-7, (1, 500))
    assert (first.authors, first.changes) == ([("tapemaster", 1), ("", 2)], changes)
    assert own == OwnRecord((1, 950))
    assert isinstance(last, CommitRecord)
    assert last.behind == (1, 900)
    assert last.time_s >= first.time_s > 1.7e9


def test_nothing_is_made_before_it_is_needed(make: Make) -> None:
    tail = make()
    assert files(tail) == 0
    tail.own((1, 40))
    assert list(tail_records.read(tail.directory)) == [OwnRecord((1, 40))]


def test_it_survives_the_process_without_a_flush(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from storage.tail import Tail\n"
        "tail = Tail(Path(sys.argv[1]), bytes_max=2**20, held_by_majority=lambda: (0, 0))\n"
        "tail.open((1, 28))\n"
        "for n in range(100): tail.append(n, [('user', 1)], [('keys.db', b'key', b'value')])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    directory = tmp_path / "tail"
    ended = subprocess.run([sys.executable, "-c", script, directory], check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    assert [r.txn_id for r in tail_records.read(directory) if isinstance(r, CommitRecord)] == [
        *range(100)
    ]


def test_files_are_used_again_once_a_majority_holds_them(make: Make, held: Held) -> None:
    tail = make()
    for number in range(2000):
        held.lsn = commit(tail, number, 100)
    assert files(tail) <= 3
    assert tail.given_up == 0
    assert found(tail)[-1] == 1999


def test_what_no_majority_holds_stays(make: Make, held: Held) -> None:
    tail = make()
    held.lsn = commit(tail, 0)
    for number in range(1, 200):
        commit(tail, number, 200)
    assert found(tail)[-199:] == [*range(1, 200)]
    assert tail.given_up == 0
    assert files(tail) > 3


def test_above_its_bound_the_oldest_goes(make: Make) -> None:
    tail = make(bytes_max=3 * FILE_BYTES)
    for number in range(500):
        commit(tail, number, 200)
    numbers = found(tail)
    assert tail.given_up > 0
    assert numbers == [*range(numbers[0], 500)]
    assert numbers[0] > 0
    assert sum(path.stat().st_size for path in tail.directory.iterdir()) <= 3 * FILE_BYTES


def test_a_big_record_has_a_file_of_its_own(make: Make) -> None:
    tail = make()
    commit(tail, 1)
    commit(tail, 2, 3 * FILE_BYTES)
    commit(tail, 3)
    assert found(tail) == [1, 2, 3]


def test_one_that_is_too_big_is_left_out(make: Make, held: Held) -> None:
    tail = make(bytes_max=2 * FILE_BYTES)
    commit(tail, 1)
    commit(tail, 2, 3 * FILE_BYTES)
    held.lsn = commit(tail, 3)
    assert 2 not in found(tail)
    assert found(tail)[-1] == 3


def test_what_an_earlier_process_left_stays_until_a_majority_holds_its_log(
    make: Make, held: Held
) -> None:
    tail = make()
    for number in range(100):
        commit(tail, number, 200)
    tail.close()
    again = make((7, 28))
    held.lsn = (7, 27)
    for number in range(1000, 1050):
        commit(again, number, 200)
    assert found(again) == [*range(100), *range(1000, 1050)]
    held.lsn = (7, 28)
    for number in range(2000, 2200):
        commit(again, number, 200)
        again.committed((8, number))
    assert found(again)[-200:] == [*range(2000, 2200)]
    assert again.given_up == 0
    assert len(found(again)) < 350


def test_a_file_used_again_shows_nothing_of_before(make: Make, held: Held) -> None:
    tail = make(bytes_max=FILE_BYTES)
    for number in range(60):
        commit(tail, number, 300)
    numbers = found(tail)
    assert numbers == [*range(numbers[0], 60)]
    assert tail.given_up > 0


@pytest.mark.parametrize("part", ["length", "checksum", "body"])
def test_a_torn_record_ends_the_file(make: Make, part: str) -> None:
    tail = make()
    for number in range(3):
        commit(tail, number)
    (path,) = tail.directory.iterdir()
    data = bytearray(path.read_bytes())
    first = tail_records.HEADER.size
    (length, _) = tail_records.RECORD.unpack_from(data, first)
    second = first + tail_records.RECORD.size + length
    data[second + {"length": 0, "checksum": 4, "body": tail_records.RECORD.size}[part]] ^= 0x01
    path.write_bytes(data)
    assert found(tail) == [0]


def test_a_file_of_anybody_else_is_left_alone(make: Make) -> None:
    tail = make()
    commit(tail, 1)
    (tail.directory / "00000009.tail").write_bytes(b"not of ours")
    (tail.directory / "notes.txt").write_bytes(b"")
    assert found(tail) == [1]


def test_reset_forgets_all(make: Make) -> None:
    tail = make()
    for number in range(100):
        commit(tail, number, 200)
    tail.reset()
    assert files(tail) == 0
    commit(tail, 7)
    assert found(tail) == [7]


@pytest.mark.parametrize(("again_s", "numbers"), [(60.0, []), (0.0, [2])])
def test_a_full_disk_takes_the_tail_away_for_a_while_and_no_write(
    make: Make, monkeypatch: pytest.MonkeyPatch, again_s: float, numbers: list[int]
) -> None:
    def full(_fd: int, _at: int, _size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tail_module, "AGAIN_S", again_s)
    tail = make()
    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", full)
        commit(tail, 1)
    assert tail.failed is not None
    assert tail.failed.errno == errno.ENOSPC
    assert files(tail) == 0
    commit(tail, 2)
    assert found(tail) == numbers
    assert (tail.failed is None) == bool(numbers)


def test_a_directory_that_cannot_be_made_is_no_tail(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    tail = Tail(tmp_path / "file" / "tail", bytes_max=FILE_BYTES, held_by_majority=Held())
    tail.open((1, 28))
    assert tail.failed is not None
    tail.append(1, [("user", 1)], [change(1)])
    tail.committed((1, 100))
    tail.own((1, 200))
    tail.reset()
    tail.close()
