"""Two hosts with a preferred master: it is killed, the other leads, and gives the role back."""

from __future__ import annotations

import contextlib

import pytest
import redis

from tests.support.sites import Site, Sites, wait_caught_up, wait_for

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def hosts(sites: Sites) -> tuple[Site, Site]:
    """The preferred master and the other site, both running."""
    first, second = sites("first"), sites("second")
    first.init("master", second, priority=2)
    second.init("replicant", first, priority=1)
    for site in (first, second):
        site.toml(replication={"preferred_master": str(first.replication)})
        site.db_config("rep_set_config db_repmgr_conf_2site_strict off")
    for site in (first, second):
        site.run()
    wait_for("connected", lambda: first.now()["sites"][0]["status"] == "connected")
    return first, second


def leads(site: Site, other: Site) -> None:
    """Wait until both agree on who is master, and it takes writes."""
    address = str(site.replication)

    def agreed() -> bool:
        status = site.now()
        return not status["read_only"] and {status["master"], other.now()["master"]} == {address}

    wait_for(lambda: f"{site.name} leads: {site.now()} {other.now()}", agreed)


def test_the_preferred_master_leads_again_and_what_the_other_took_is_kept(
    hosts: tuple[Site, Site],
) -> None:
    first, second = hosts
    first.put("before")
    for number in range(2):
        first.kill()
        second.wait("leading", lambda status: not status["read_only"])
        with second.client() as client, contextlib.suppress(redis.ResponseError):
            # One copy only: written and answered PERMFAILED, and kept all the same.
            client.set(f"meanwhile{number}", "value")
        first.run()
        leads(first, second)
        assert first.get(f"meanwhile{number}") == "value"
        first.put(f"after{number}")
    assert second.count("failback_due") == 2
    assert second.count("switchover_done") == 2
    wait_caught_up(first, second)
    assert first.contents() == second.contents()
    for site in hosts:
        assert site.count("duplicate_master") == 0
        assert site.now()["counters"]["rollbacks"] == 0


def test_a_role_that_was_moved_for_work_on_that_machine_is_not_dragged_back(
    hosts: tuple[Site, Site],
) -> None:
    first, second = hosts
    first.must("switchover")
    leads(second, first)
    second.put("working")
    assert first.stop() == 0  # the work
    first.run()
    leads(first, second)
    assert second.count("failback_due") == 1, "only when it had been away"
    assert first.get("working") == "value"


def test_a_preferred_master_that_may_not_lead_is_a_mistake(sites: Sites) -> None:
    site = sites("site")
    site.init("replicant", sites("other"))
    site.toml(replication={"preferred_master": str(site.replication)})
    refused = site.cli("run")
    assert refused.returncode == 2
    assert "replication.preferred_master is this site" in refused.stderr
    assert "HINT: write `rep_set_priority 1`" in refused.stderr
