"""What two digests say, how much is read next, and the comparison's messages."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replication import compare
from replication.compare import (
    FIRST,
    KEYS_DETAIL,
    KEYS_MAX,
    Answer,
    At,
    Database,
    Difference,
    Digest,
    Entry,
    KeyRange,
    Outcome,
    Pace,
    Verdict,
    judge,
)
from replication.errors import RemoteProtocolError
from replication.wire import LSN

DONE = Outcome.DONE


def entry(key: bytes, value: bytes) -> Entry:
    # Digests are stood in for by the thing itself.
    return Entry(key, key, value)


def told(records: dict[bytes, bytes], most: int) -> Digest:
    """What a site tells that had time for so many records."""
    entries = tuple(entry(key, records[key]) for key in sorted(records)[:most])
    return Digest(DONE, len(entries), b"", entries, complete=most >= len(records))


def first_difference(mine: dict[bytes, bytes], theirs: dict[bytes, bytes]) -> bytes | None:
    """The dumb way."""
    for key in sorted({*mine, *theirs}):
        if mine.get(key) != theirs.get(key):
            return key
    return None


keys = st.sampled_from([bytes([number]) for number in range(12)])
databases = st.dictionaries(keys, st.sampled_from([b"a", b"b"]), max_size=10)


@given(databases, databases, st.integers(1, 12), st.integers(1, 12))
def test_the_first_difference_is_found_or_nothing_is_said_behind_what_both_told(
    mine: dict[bytes, bytes], theirs: dict[bytes, bytes], most_mine: int, most_theirs: int
) -> None:
    verdict = judge(told(mine, most_mine), told(theirs, most_theirs))
    expected = first_difference(mine, theirs)
    alike = sorted(mine)[: verdict.records]
    assert alike == sorted(theirs)[: verdict.records]
    assert all(mine[key] == theirs[key] for key in alike)
    if verdict.identical:
        # Either there is nothing more, or it gets on, and what differs lies behind.
        assert (expected is None) if verdict.everything else verdict.records > 0
        assert verdict.difference is None
    else:
        assert verdict.difference is not None
        assert verdict.difference.key == expected
        assert expected is not None
        there, here = expected in theirs, expected in mine
        assert (
            verdict.difference.what
            == {
                (True, True): "has another value there",
                (True, False): "is missing there",
                (False, True): "is there and not on the master",
            }[here, there]
        )


@pytest.mark.parametrize(
    ("mine", "theirs", "identical"),
    [
        (Digest(DONE, 3, b"abc"), Digest(DONE, 3, b"abc"), True),
        (Digest(DONE, 3, b"abc"), Digest(DONE, 3, b"abd"), False),
        (Digest(DONE, 3, b"abc"), Digest(DONE, 4, b"abc"), False),
        # A site of another version that tells records where a digest was asked for.
        (Digest(DONE, 0, b"abc"), Digest(DONE, 0), False),
    ],
)
def test_digests_of_whole_ranges(mine: Digest, theirs: Digest, identical: bool) -> None:
    records = mine.records if identical else 0
    assert judge(mine, theirs) == Verdict(identical, records, everything=identical)


def test_the_pace_grows_while_there_is_time_and_shrinks_to_single_records() -> None:
    pace = Pace(0.020, keys_first=256)
    assert (pace.keys, pace.detail) == (256, False)
    pace.done(0.004, 256)
    assert pace.keys == 512
    pace.done(0.012, 512)
    assert pace.keys == 512
    pace.done(0.001, 10)  # the end of a small database
    assert pace.keys == 512
    for _ in range(20):
        pace.done(0.0, pace.keys)
    assert pace.keys == KEYS_MAX
    sizes = []
    while not pace.detail:
        pace.narrow()
        sizes.append(pace.keys)
    assert sizes == [2048, 512, 128, KEYS_DETAIL]
    pace.narrow()
    assert pace.keys == KEYS_DETAIL


def test_a_difference_in_words_names_the_lesser_key() -> None:
    mine = Digest(DONE, 1, b"", (entry(b"b", b""),))
    assert judge(mine, Digest(DONE, 1, b"", (entry(b"a", b""),))).difference == Difference(
        b"a", "is there and not on the master"
    )


# -- bodies

u32 = st.integers(0, 2**32 - 1)
binary = st.binary(max_size=20)
text = st.text(max_size=20)
some_databases = st.builds(Database, text, text)
places = st.tuples(binary, binary)
ranges = st.builds(KeyRange, some_databases, places, st.none() | places)
lsns = st.builds(LSN, u32, u32)
answers = st.builds(Answer, u32, text, st.lists(some_databases, max_size=4).map(tuple))
ats = st.builds(At, u32, u32, lsns, st.booleans(), u32, ranges)
digests = st.builds(
    Digest,
    st.sampled_from(Outcome),
    u32,
    binary,
    st.lists(st.builds(Entry, binary, binary, binary), max_size=KEYS_DETAIL + 1).map(tuple),
    st.booleans(),
    u32,
    text,
)


@settings(max_examples=40)
@given(u32, ranges, answers, ats, digests)
def test_bodies_come_back_as_they_went(
    number: int, wanted: KeyRange, answer: Answer, at: At, digest: Digest
) -> None:
    assert compare.decode_begin(compare.encode_begin(number)) == number
    assert compare.decode_prepare(compare.encode_prepare(number, wanted)) == (number, wanted)
    assert compare.decode_answer(compare.encode_answer(answer)) == answer
    assert compare.decode_at(compare.encode_at(at)) == at
    assert compare.decode_digest(compare.encode_digest(number, digest)) == (number, digest)


DECODERS = [
    compare.decode_begin,
    compare.decode_prepare,
    compare.decode_answer,
    compare.decode_at,
    compare.decode_digest,
]


@given(st.sampled_from(DECODERS), st.binary(max_size=80))
def test_garbage_is_one_kind_of_error(decode: object, body: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        decode(body)  # type: ignore[operator]


@pytest.mark.parametrize("cut", range(0, 60, 7))
def test_a_body_that_was_cut_or_has_more_is_refused(cut: int) -> None:
    wanted = KeyRange(Database("keys.db"), FIRST, (b"m", b""))
    body = compare.encode_at(At(1, 2, LSN(3, 4), True, 20_000, wanted))
    for bad in (body[: min(cut, len(body) - 1)], body + b"\0"):
        with pytest.raises(RemoteProtocolError):
            compare.decode_at(bad)


def test_counts_that_no_site_would_send_are_refused() -> None:
    many = Digest(DONE, 1, b"", (entry(b"k", b"v"),) * (KEYS_DETAIL + 2))
    with pytest.raises(RemoteProtocolError):
        compare.decode_digest(compare.encode_digest(1, many))
