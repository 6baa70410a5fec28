"""A first sync that is broken off by a kill of either side starts over and ends, not for ever."""

from __future__ import annotations

import pytest

from tests.support.sites import Site, Sites, fast_path, sites, wait_caught_up

__all__ = ["fast_path", "sites"]

# A request is answered with so little that the sync is still under way when it is looked at.
SLOW_LINES = ("rep_set_limit 0 8192", "set_lg_max 1048576", "set_lg_bsize 262144")
KEYS = [f"k{number}" for number in range(300)]
VALUE = "x" * 50_000


@pytest.mark.parametrize("victim", ["master", "replicant"])
def test_a_sync_survives_a_kill_of_either_side(sites: Sites, victim: str) -> None:
    master, replicant = sites("master"), sites("replicant")
    master.init("master", replicant)
    replicant.init("replicant", master)
    for site in (master, replicant):
        site.db_config(*SLOW_LINES)
    master.db_config("repmgr_set_ack_policy db_repmgr_acks_none")
    master.run()
    master.put(*KEYS, value=VALUE)
    replicant.start()
    replicant.wait("receiving pages", lambda s: (s["sync"] or {}).get("pages_done", 0) > 20)
    assert replicant.now()["state"] == "start-pending"
    killed: Site = master if victim == "master" else replicant
    killed.kill()
    killed.start()
    master.wait_running()
    replicant.wait_running()
    wait_caught_up(master, replicant)
    assert replicant.count("startup_done") == 1
    assert all(replicant.get(key) == VALUE for key in (KEYS[0], KEYS[-1]))


def test_after_so_many_syncs_that_came_to_nothing_the_operator_is_asked(sites: Sites) -> None:
    master, replicant = sites("master"), sites("replicant")
    master.init("master", replicant)
    replicant.init("replicant", master)
    for site in (master, replicant):
        site.db_config(*SLOW_LINES)
    replicant.toml(replication={"sync_tries_max": 2})
    master.db_config("repmgr_set_ack_policy db_repmgr_acks_none")
    master.run()
    master.put(*KEYS, value=VALUE)
    for _ in range(2):
        replicant.start()
        replicant.wait("receiving pages", lambda s: (s["sync"] or {}).get("pages_done", 0) > 20)
        replicant.kill()

    replicant.start()
    given_up = replicant.wait_event("sync_given_up", tries="2")
    assert "2 syncs in a row came to nothing" in given_up.facts["why"]
    why = replicant.wait_why("no copy of the database is taken any more")
    assert given_up.facts["why"] in why
    status = replicant.now()
    assert "ttserver sync" in status["hint"]
    assert status["state"] == "start-pending"
    assert any(alarm["kind"] == "sync" for alarm in status["alarms"])
    replicant.wait_event("new_master")
    assert not [line for line in replicant.new_events() if line.event == "sync_receive_started"]

    replicant.must("sync")
    replicant.wait_running()
    wait_caught_up(master, replicant)
    assert all(replicant.get(key) == VALUE for key in (KEYS[0], KEYS[-1]))
    assert replicant.now()["alarms"] == []
