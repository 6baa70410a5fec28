"""The keyspace against a sorted dictionary, whatever the keys and the order of calls."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from storage.environment import Environment
from tests.support.environments import Opened, configured, fast_directory

# Few different bytes, so that keys are prefixes of each other and meet the ends of the order.
KEYS = st.lists(st.sampled_from(b"\0\1a\xfe\xff"), max_size=4).map(bytes) | st.binary(max_size=40)
VALUES = st.binary(max_size=20) | st.integers(0, 20_000).map(lambda size: b"v" * size)
ENDS = st.none() | KEYS


@contextmanager
def opened_keyspace() -> Iterator[Opened]:
    with (
        tempfile.TemporaryDirectory() as below,
        fast_directory(Path(below)) as directory,
    ):
        opened = Opened(Environment(configured(directory / "env")))
        opened.environment.open()
        opened.database.create()
        yield opened
        opened.close()


class KeyspaceMachine(RuleBasedStateMachine):
    """Reads and writes in one transaction at a time, committed or not."""

    def __init__(self) -> None:
        super().__init__()
        self._context = opened_keyspace()
        self._opened = self._context.__enter__()
        self._keyspace = self._opened.keyspace
        self.committed: dict[bytes, bytes] = {}
        self.model: dict[bytes, bytes] = {}

    @initialize()
    def begin(self) -> None:
        self._txn = self._opened.env.txn_begin()

    @rule()
    def commit(self) -> None:
        self._txn.commit()
        self.committed = dict(self.model)
        self.begin()

    @rule()
    def abort(self) -> None:
        self._txn.abort()
        self.model = dict(self.committed)
        self.begin()

    @rule(key=KEYS, value=VALUES)
    def put(self, key: bytes, value: bytes) -> None:
        self._keyspace.put(self._txn, key, value)
        self.model[key] = value

    @rule(key=KEYS)
    def delete(self, key: bytes) -> None:
        assert self._keyspace.delete(self._txn, key) == (self.model.pop(key, None) is not None)

    @rule(start=ENDS, end=ENDS)
    def delete_range(self, start: bytes | None, end: bytes | None) -> None:
        for key, _ in self._keyspace.range(self._txn, start, end, limit=10**6):
            assert self._keyspace.delete(self._txn, key)
            del self.model[key]
        assert self._keyspace.range(self._txn, start, end, limit=10**6) == []

    @rule(key=KEYS)
    def point(self, key: bytes) -> None:
        expected = self.model.get(key)
        assert self._keyspace.get(self._txn, key) == expected
        assert self._keyspace.exists(self._txn, key) == (key in self.model)
        assert self._keyspace.length(self._txn, key) == len(expected or b"")

    @rule(start=ENDS, end=ENDS, after=ENDS, limit=st.integers(0, 12), reverse=st.booleans())
    def range(
        self,
        start: bytes | None,
        end: bytes | None,
        after: bytes | None,
        limit: int,
        reverse: bool,
    ) -> None:
        chosen = [
            (key, value)
            for key, value in sorted(self.model.items(), reverse=reverse)
            if (start is None or key >= start)
            and (end is None or key <= end)
            and (after is None or (key < after if reverse else key > after))
        ]
        found = self._keyspace.range(
            self._txn, start, end, limit=limit, reverse=reverse, after=after
        )
        assert found == chosen[:limit]

    @rule(after=ENDS, limit=st.integers(0, 12))
    def keys(self, after: bytes | None, limit: int) -> None:
        behind = [key for key in sorted(self.model) if after is None or key > after]
        assert self._keyspace.keys(self._txn, after, limit) == behind[:limit]

    @rule(page=st.integers(1, 5))
    def count(self, page: int) -> None:
        number, last = self._keyspace.count(self._txn, None, page)
        while last is not None:
            step, last = self._keyspace.count(self._txn, last, page)
            number += step
        assert number == len(self.model)
        assert self._keyspace.count_unlocked(self._txn) == len(self.model)

    @invariant()
    def nothing_is_left_open(self) -> None:
        assert self._opened.env.txn_stat()["nactive"] == 1

    def teardown(self) -> None:
        self._txn.abort()
        self._context.__exit__(None, None, None)


TestKeyspace = KeyspaceMachine.TestCase
TestKeyspace.settings = settings(max_examples=40, stateful_step_count=40)


@settings(max_examples=30)
@given(
    keys=st.sets(KEYS, max_size=60),
    page=st.integers(1, 7),
    reverse=st.booleans(),
    start=ENDS,
    end=ENDS,
)
def test_pages_together_are_the_whole(
    keys: set[bytes], page: int, reverse: bool, start: bytes | None, end: bytes | None
) -> None:
    with opened_keyspace() as opened, opened.txn() as txn:
        for key in keys:
            opened.keyspace.put(txn, key, key)
        walked: list[bytes] = []
        after: bytes | None = None
        while found := opened.keyspace.range(
            txn, start, end, limit=page, reverse=reverse, after=after
        ):
            walked += [key for key, _ in found]
            after = walked[-1]
        inside = [
            key
            for key in sorted(keys, reverse=reverse)
            if (start is None or key >= start) and (end is None or key <= end)
        ]
        assert walked == inside
