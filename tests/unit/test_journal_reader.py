"""`$DB_Msg.txt`, the reading side: the last lines and the coming ones, through rotations."""

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from replication.journal import Journal, rotated
from replication.journal_line import parse_line
from replication.journal_reader import SKIPPED, Follower, follow, tail


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "$DB_Msg.txt"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    made = Journal(path, 400, 2, "db1:5010", capture_stdout=False)
    yield made
    made.close()


@pytest.fixture
def follower(path: Path, journal: Journal) -> Iterator[Follower]:
    made = Follower(path, 0)
    yield made
    made.close()


def numbers(lines: list[str]) -> list[int]:
    """Give the fact `number` of the lines that have one."""
    parsed = [parse_line(line) for line in lines]
    return [int(line.facts["number"]) for line in parsed if line and "number" in line.facts]


def read_all(follower: Follower) -> list[str]:
    """Read until nothing is new."""
    return list(itertools.chain.from_iterable(iter(follower.read_new, [])))


def write(journal: Journal, *span: int) -> None:
    for number in range(*span):
        journal.write("event", number=number)


def test_tail_goes_back_into_the_rotated_files(path: Path, journal: Journal) -> None:
    write(journal, 16)
    assert rotated(path, 2).exists()
    assert numbers(tail(path, 10_000)) == list(range(16))
    assert len(tail(path, 11)) == 11
    assert numbers(tail(path, 11))[-1] == 15
    assert numbers(tail(path, 1)) == [15]
    assert tail(path, 0) == []


def test_tail_of_a_large_file_reads_only_its_end(path: Path) -> None:
    path.write_text("".join(f"line {n} {'x' * 997}\n" for n in range(1000)))
    last = tail(path, 200)
    assert [line.split()[1] for line in last] == [str(n) for n in range(800, 1000)]


def test_tail_leaves_out_a_line_that_is_being_written(path: Path) -> None:
    path.write_text("one\ntwo\nthr")
    assert tail(path, 5) == ["one", "two"]
    path.write_text("thr")
    assert tail(path, 5) == []


def test_tail_without_a_journal(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        tail(path, 5)


def test_what_a_terminal_would_act_on_is_escaped(path: Path) -> None:
    path.write_bytes(b"library says \x1b[2J\xff\n")
    assert tail(path, 1) == ["library says \\x1b[2J\ufffd"]


def test_following_gives_each_line_once_and_half_lines_when_they_are_whole(
    path: Path, journal: Journal, follower: Follower
) -> None:
    assert follower.read_new() == []
    write(journal, 2)
    assert numbers(follower.read_new()) == [0, 1]
    with path.open("ab") as file:
        file.write(b"half")
        file.flush()
        assert follower.read_new() == []
        file.write(b" whole\n")
    assert follower.read_new() == ["half whole"]


@pytest.mark.parametrize("written", [9, 16])
def test_following_survives_one_and_several_rotations_between_two_looks(
    journal: Journal, follower: Follower, written: int
) -> None:
    write(journal, 2)
    assert numbers(read_all(follower)) == [0, 1]
    write(journal, 2, written)
    lines = read_all(follower)
    assert numbers(lines) == list(range(2, written))
    assert SKIPPED not in lines


def test_a_reader_slower_than_the_rotation_says_so(
    path: Path, journal: Journal, follower: Follower
) -> None:
    write(journal, 100)
    lines = read_all(follower)
    # Its own file's lines are still there, for it holds the file open; then comes the gap.
    assert lines.count(SKIPPED) == 1
    seen = numbers(lines)
    assert seen[0] == 0
    assert seen[-1] == 99
    assert seen == sorted(set(seen))


def test_a_file_emptied_in_place_is_read_from_its_start(
    path: Path, journal: Journal, follower: Follower
) -> None:
    write(journal, 3)
    assert len(follower.read_new()) == 3
    with path.open("r+b") as file:
        file.truncate()
    write(journal, 3, 4)
    assert numbers(read_all(follower)) == [3]


def test_a_file_deleted_and_made_again_is_followed(
    path: Path, journal: Journal, follower: Follower
) -> None:
    write(journal, 2)
    path.unlink()
    write(journal, 2, 4)
    assert numbers(read_all(follower)) == [0, 1, 2, 3]


def test_follow_waits_for_a_journal_gives_its_end_and_then_the_new_lines(path: Path) -> None:
    made: list[Journal] = []
    waits = itertools.count()

    def wait(poll_s: float) -> None:
        if next(waits) == 0:
            made.append(Journal(path, 400, 2, "db1:5010", capture_stdout=False))
            write(made[0], 3)
        else:
            write(made[0], 3, 9)

    lines = list(itertools.islice(follow(path, 2, wait=wait), 9))
    made[0].close()
    assert numbers(lines) == list(range(1, 9))


def test_following_a_busy_writer_misses_and_doubles_nothing(path: Path) -> None:
    lines = 5000
    journal = Journal(path, 3000, 1000, "db1:5010", capture_stdout=False)
    follower = Follower(path, 0)
    writer = threading.Thread(target=write, args=(journal, lines))
    writer.start()
    seen: list[str] = []
    while writer.is_alive():
        seen += follower.read_new()
    seen += read_all(follower)
    writer.join()
    journal.close()
    follower.close()
    assert numbers(seen) == list(range(lines))
    assert SKIPPED not in seen
