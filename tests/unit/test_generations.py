"""What became of a commit, by the beginnings of generations; and the tokens that name commits."""

from __future__ import annotations

import pytest

from replication.generations import Beginning, CommitToken, Fate, History
from replication.lsn_history import decode
from replication.wire import LSN

APPLIED, PENDING, LOST = Fate.APPLIED, Fate.PENDING, Fate.LOST
END = LSN(2, 500)


def history(**beginnings: tuple[int, int]) -> History:
    """Make one of `g4=(1, 100)`."""
    return History(Beginning(int(name[1:]), LSN(*at)) for name, at in beginnings.items())


THREE = history(g4=(1, 400), g2=(1, 28), g6=(2, 100))


@pytest.mark.parametrize(
    ("generation", "lsn", "fate"),
    [
        (2, (1, 28), APPLIED),
        (2, (1, 399), APPLIED),
        (2, (1, 400), LOST),  # generation 4 wrote something else there
        (2, (2, 400), LOST),
        (4, (1, 400), APPLIED),
        (4, (1, 9000), APPLIED),
        (4, (2, 99), APPLIED),
        (4, (2, 100), LOST),
        (4, (1, 399), LOST),  # nobody wrote that
        (6, (2, 500), APPLIED),
        (6, (2, 501), PENDING),
        (6, (2, 99), LOST),
        (3, (1, 200), LOST),  # the whole generation was rolled back
        (5, (1, 500), LOST),
        (5, (2, 600), LOST),
        (7, (2, 600), PENDING),  # of a master not heard of yet
        (7, (2, 400), PENDING),
        (1, (1, 10), APPLIED),  # from before the records here, which begin with 2
        (1, (1, 28), LOST),
    ],
)
def test_fates(generation: int, lsn: tuple[int, int], fate: Fate) -> None:
    assert THREE.fate(CommitToken(generation, LSN(*lsn)), END, 6) is fate


def test_what_is_not_applied_yet_is_pending_or_lost_already() -> None:
    behind = LSN(1, 300)
    assert THREE.fate(CommitToken(2, LSN(1, 350)), behind, 6) is PENDING
    assert THREE.fate(CommitToken(4, LSN(2, 200)), behind, 6) is LOST


@pytest.mark.parametrize("reached", [2, 5])
def test_a_log_that_did_not_reach_the_last_generation_shows_nothing(reached: int) -> None:
    # Its end may be one that the master of 6 never had.
    assert THREE.fate(CommitToken(2, LSN(1, 350)), END, reached) is PENDING
    assert THREE.fate(CommitToken(4, LSN(2, 200)), END, reached) is LOST


def test_what_a_new_master_kept_is_the_end_of_the_generation_before() -> None:
    known = THREE.knowing(Beginning(6, LSN(2, 100), LSN(2, 40)))
    assert known.fate(CommitToken(4, LSN(2, 40)), END, 6) is APPLIED
    assert known.fate(CommitToken(4, LSN(2, 41)), END, 6) is LOST
    assert THREE.remembering(known).beginnings == known.beginnings
    assert known.remembering(THREE).beginnings == known.beginnings
    other = history(g4=(1, 400), g6=(2, 99)).remembering(known)
    assert [each.kept for each in other.beginnings] == [None, None], "another generation 6"


def test_so_many_generations_are_kept() -> None:
    many = History(Beginning(number, LSN(1, number)) for number in range(5000))
    assert len(many.beginnings) == 1000
    assert many.latest == 4999


def test_nothing_is_known_without_any_record() -> None:
    assert History().fate(CommitToken(1, LSN(1, 28)), END, 0) is PENDING
    assert History().latest == 0
    assert THREE.latest == 6


def test_it_says_why_a_commit_is_lost() -> None:
    assert THREE.why_lost(CommitToken(4, LSN(2, 200))) == "generation 6 began without it, at 2/100"
    assert THREE.why_lost(CommitToken(5, LSN(1, 500))) == (
        "generation 5 has no such write in the log here"
    )


# -- tokens


@pytest.mark.parametrize("text", ["0:0:0", "3:1:1500", "4294967295:4294967295:4294967295"])
def test_a_token_reads_back(text: str) -> None:
    assert str(CommitToken.parse(text)) == text


def test_tokens_are_ordered_as_the_log_is() -> None:
    mixed = ["3:10:28", "2:9:9", "3:2:28", "3:1:1500"]
    assert sorted(mixed, key=CommitToken.parse) == ["2:9:9", "3:1:1500", "3:2:28", "3:10:28"]


@pytest.mark.parametrize(
    "text",
    ["", "3", "3:1", "3:1:28:0", "a:1:28", "3:-1:28", "3: 1:28", "+3:1:28", "3:1_0:28", "3:1:٢",
     "3:1:4294967296", "3::28", "3/1/28"],
)  # fmt: skip
def test_what_is_no_token(text: str) -> None:
    with pytest.raises(ValueError, match=r"numbers|above"):
        CommitToken.parse(text)


# -- the library's records


def test_the_records_of_another_format_are_none() -> None:
    data = bytes.fromhex("0000002a 00000001 00000190") + b"t" * 8
    good = (bytes.fromhex("00000001 00000004"), data)
    other = (bytes.fromhex("00000002 00000005"), good[1])
    short = (good[0], b"\0" * 19)
    assert list(decode([good, other, short])) == [Beginning(4, LSN(1, 400))]
