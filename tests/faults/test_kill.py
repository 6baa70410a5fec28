"""Nothing acknowledged is lost, whoever dies or freezes, and replication resumes by itself."""

import pytest

from tests.faults.ledger import Ledger
from tests.faults.storm import Storm
from tests.faults.writers import Load
from tests.support.sites import Site, wait_caught_up, wait_for

pytestmark = pytest.mark.timeout(600)

SEED = 8
ROUNDS = 10


def test_ten_kills_under_load(pair: tuple[Site, Site]) -> None:
    """Replay a longer one: python -m tests.faults --rounds N --seed S."""
    Storm(*pair, seed=SEED).run(ROUNDS)


def test_a_frozen_replicant_does_not_stop_the_master(initialised: tuple[Site, Site]) -> None:
    master, replicant = initialised
    # Queues are full soon, and nobody waits long for acks: what is to be seen is what comes then.
    master.toml(replication={"queue_bytes_max": 65536, "link_stall_s": 0.5})
    master.db_config("rep_set_timeout db_rep_ack_timeout 200000")
    for site in initialised:
        site.run()
    with Load(4, master.client, SEED, value_bytes=100_000) as load:
        wait_for("writes are answered OK", lambda: load.acknowledged >= 50)
        replicant.freeze()
        wait_for("the replicant is shown lagging", lambda: lagging(master))
        before = load.uncertain
        # Nobody waits any more for the one that does not answer.
        wait_for("the master goes on", lambda: load.uncertain >= before + 200)
        assert master.now()["state"] == "running"
        replicant.thaw()
        wait_for("the replicant is back", lambda: not lagging(master))
        acked = load.acknowledged
        wait_for("writes are answered OK again", lambda: load.acknowledged >= acked + 50)
    assert not load.complaints(), load.complaints()
    wait_caught_up(master, replicant)
    contents = master.contents()
    assert not load.disagreements(contents), load.disagreements(contents)[:5]
    assert replicant.contents() == contents
    told = [line.event for line in master.new_events()]
    stalled, left, back = (
        told.index(event) for event in ("link_stalled", "site_lagging", "site_caught_up")
    )
    assert stalled < left < back


def lagging(master: Site) -> bool:
    (site,) = master.now()["sites"]
    return bool(site["status"] == "lagging")


def test_a_frozen_master_is_followed_again(pair: tuple[Site, Site]) -> None:
    master, replicant = pair
    with Load(2, master.client, SEED) as load:
        wait_for("writes are answered OK", lambda: load.acknowledged >= 100)
        master.freeze()
        status = replicant.wait("without a master", lambda s: s if s["master"] is None else None)
        assert status["state"] == "running"
        replicant.contents()
        master.thaw()
        acked = load.acknowledged
        wait_for("writes are answered OK again", lambda: load.acknowledged >= acked + 100)
    assert not load.complaints(), load.complaints()
    wait_caught_up(master, replicant)
    contents = replicant.contents()
    assert not load.disagreements(contents), load.disagreements(contents)[:5]


def test_the_ledger_sees_a_lost_write() -> None:
    """What the other tests rely on: a database that lost something does not pass."""
    ledger = Ledger("w:")
    kept, lost, open_, gone = b"w:kept", b"w:lost", b"w:open", b"w:gone"
    for key in (kept, lost, open_, gone):
        ledger.attempt({key: b"1"})
        ledger.ok({key: b"1"})
    ledger.attempt({open_: b"2"})
    ledger.unknown()
    ledger.attempt({gone: None})
    ledger.ok({gone: None})
    ledger.attempt({kept: b"2"})
    ledger.refused({kept: b"2"})
    whole = {kept: b"1", lost: b"1", open_: b"1"}
    assert list(ledger.disagreements(whole)) == []
    assert list(ledger.disagreements({**whole, open_: b"2"})) == []
    assert len(list(ledger.disagreements({**whole, open_: b"3"}))) == 1
    assert len(list(ledger.disagreements({kept: b"1", open_: b"1"}))) == 1
    assert len(list(ledger.disagreements({**whole, kept: b"2"}))) == 1
    assert len(list(ledger.disagreements({**whole, gone: b"1"}))) == 1
    ledger.attempt({b"w:a": b"1", b"w:b": b"1"})
    ledger.unknown()
    assert list(ledger.disagreements(whole)) == []
    assert list(ledger.disagreements({**whole, b"w:a": b"1", b"w:b": b"1"})) == []
    assert len(list(ledger.disagreements({**whole, b"w:a": b"1"}))) == 1
