"""The apply thread stops at an LSN: what is there then, and that it goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from berkeleydb import db

from replication.compare import FIRST, Database, Digest, KeyRange, Outcome
from replication.compare_scan import Handles
from replication.pauses import Pause
from replication.wire import LSN
from tests.support.replicated import Pair, pair, wait_for

KEYS = KeyRange(Database("keys.db"), FIRST, None)


@pytest.fixture
def sites(tmp_path: Path) -> Iterator[Pair]:
    with pair(tmp_path) as made:
        yield made


@pytest.fixture
def handles(sites: Pair) -> Iterator[Handles]:
    made = Handles(sites.replicant.env)
    made.open(KEYS.database)
    yield made
    made.close()


class Stop:
    """Asks for a pause and digests there."""

    def __init__(self, sites: Pair, handles: Handles, lsn: LSN) -> None:
        self.sites, self.handles = sites, handles
        self.found: list[tuple[bool, Digest, list[tuple[int, LSN]]]] = []
        sites.replicant.applier.pause_at(Pause(1, lsn, self._there))

    def _there(self, is_there: bool) -> None:
        acks = list(self.sites.replicant.told.acks)
        scanned = self.handles.digest(KEYS, detail=False, pause_s_max=60.0)
        self.found.append((is_there, scanned.digest, acks))

    def wait(self) -> tuple[bool, Digest, list[tuple[int, LSN]]]:
        wait_for("the pause", lambda: self.found)
        (one,) = self.found
        return one


def digest_of(master: db.DBEnv) -> Digest:
    handles = Handles(master)
    try:
        handles.open(KEYS.database)
        return handles.digest(KEYS, detail=False, pause_s_max=60.0).digest
    finally:
        handles.close()


def same(one: Digest, other: Digest) -> bool:
    return one.whole == other.whole and one.outcome is other.outcome is Outcome.DONE


def test_it_stops_exactly_there_whatever_waits_behind_it(sites: Pair, handles: Handles) -> None:
    sites.kept = []
    first = sites.commit(10)
    at_first, before = digest_of(sites.master.env), sites.kept
    sites.kept = []
    end = sites.commit(10)
    behind, sites.kept = sites.kept, None
    # All in one go: the thread takes them together.
    stop = Stop(sites, handles, first)
    sites.deliver(before + behind)
    is_there, found, acks = stop.wait()
    assert is_there
    assert found.records == 11
    assert same(found, at_first)
    assert acks[-1] == (1, first), "what clients wait for is acknowledged first"
    wait_for("it goes on", lambda: sites.replicant.told.acks[-1] == (1, end))
    assert same(
        handles.digest(KEYS, detail=False, pause_s_max=60.0).digest, digest_of(sites.master.env)
    )


def test_where_it_stands_already_it_stops_at_once(sites: Pair, handles: Handles) -> None:
    end = sites.commit(3)
    wait_for("it is there", lambda: sites.replicant.told.acks[-1] == (1, end))
    is_there, found, _ = Stop(sites, handles, end).wait()
    assert (is_there, found.records) == (True, 4)


def test_a_checkpoint_in_between_is_too_late(sites: Pair, handles: Handles) -> None:
    end = sites.commit(3)
    sites.master.env.rep_set_timeout(db.DB_REP_CHECKPOINT_DELAY, 0)
    sites.master.env.txn_checkpoint(0, 0, db.DB_FORCE)
    wait_for("it is applied", lambda: sites.replicant.applier.applied > end)
    is_there, _, _ = Stop(sites, handles, end).wait()
    assert not is_there


def test_records_that_were_lost_are_waited_for(sites: Pair, handles: Handles) -> None:
    sites.kept = []
    first = sites.commit(5)
    lost, sites.kept = sites.kept, None
    stop = Stop(sites, handles, first)
    assert not stop.found
    sites.deliver(lost)
    is_there, found, _ = stop.wait()
    assert (is_there, found.records) == (True, 6)


def test_a_digest_that_fails_does_not_end_the_thread(sites: Pair, handles: Handles) -> None:
    end = sites.commit(1)
    handles.close()
    is_there, found, _ = Stop(sites, handles, end).wait()
    assert (is_there, found.outcome) == (True, Outcome.MISSING)
    later = sites.commit(1)
    wait_for("it goes on", lambda: sites.replicant.told.acks[-1] == (1, later))
