"""A first sync that is broken off by a kill of either side starts over and ends."""

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
