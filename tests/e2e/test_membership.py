"""Sites added, removed and taken in again while the group works; daemons killed in between."""

import json

import pytest
import redis

from tests.support.sites import Site, Sites, wait_caught_up, wait_for

pytestmark = pytest.mark.timeout(300)


def members(site: Site) -> set[str]:
    """The other sites that this one takes for members."""
    shown = json.loads(site.must("sites", "--json"))
    return {row["site"] for row in shown if row["member"] == "present"}


def knows(site: Site, *others: Site) -> None:
    """Wait until these are the other members for this site, and all of them are connected."""
    wanted = {str(other.replication) for other in others}

    def settled() -> bool:
        rows = {row["site"]: row for row in site.now()["sites"] if row["member"] == "present"}
        return rows.keys() == wanted and all(r["status"] == "connected" for r in rows.values())

    wait_for(lambda: f"{site.name} knows {wanted}: {site.now()['sites']}", settled)


def wait_removed(site: Site) -> None:
    site.wait("removed", lambda status: "was removed from the group" in (status["why"] or ""))


@pytest.fixture
def three(sites: Sites) -> tuple[Site, Site, Site]:
    """A master and two replicants that know each other; the third knows only the second."""
    master, second, third = sites("master"), sites("second"), sites("third")
    master.init("master", second)
    second.init("replicant", master)
    third.init("replicant", second)
    master.run()
    second.run()
    third.run()
    for site in (master, second, third):
        knows(site, *({master, second, third} - {site}))
    return master, second, third


def test_a_site_joins_through_a_replicant_leaves_and_comes_back(
    three: tuple[Site, Site, Site],
) -> None:
    master, second, third = three
    # Asked to join, the replicant named the master.
    third.wait_event("joined_group", version="5")
    assert master.now()["members"] == 3
    master.put("before")
    third.wait_key("before")

    # Removed by a word to a replicant, which passes it on.
    done = second.must("site", "remove", str(third.replication), "--yes")
    assert f"{third.replication} is no member now; the group has 2 sites" in done
    wait_removed(third)
    knows(master, second)
    knows(second, master)
    assert members(master) == {str(second.replication)}
    status = third.now()
    assert (status["role"], status["state"], status["master"]) == ("none", "running", None)
    assert f"site add {third.replication}" in status["hint"]
    assert third.get("before") == "value", "its copy is still served"
    with third.client() as client, pytest.raises(redis.ReadOnlyError, match="was removed"):
        client.set("mine", "value")

    # It stays removed, whoever is killed.
    master.put("meanwhile")
    for site in (third, master):
        site.kill()
    master.run()
    third.start()
    wait_removed(third)
    knows(master, second)
    knows(second, master)
    assert third.get("meanwhile") is None

    # Taken in again by a word on the master.
    done = master.must("site", "add", str(third.replication))
    assert f"{third.replication} is a member; the group has 3 sites" in done
    assert "it is connected" in done
    for site in (master, second, third):
        knows(site, *({master, second, third} - {site}))
    wait_caught_up(master, third)
    assert third.get("meanwhile") == "value"
    master.put("after")
    third.wait_key("after")
    assert third.now()["why"] is None

    # And once more, by a word on the site itself; that outlives a kill as well.
    master.must("site", "remove", str(third.replication), "--yes")
    wait_removed(third)
    third.must("site", "add", str(third.replication))
    third.kill()
    third.run()
    knows(third, master, second)
    master.put("later")
    third.wait_key("later")


def test_dead_sites_are_removed_only_where_that_is_safe(three: tuple[Site, Site, Site]) -> None:
    master, second, third = three
    refused = master.cli("site", "remove", str(master.replication), "--yes")
    assert refused.returncode == 1
    assert "is the master" in refused.stderr
    third.kill()
    assert master.must("site", "remove", str(third.replication), "--yes")
    knows(master, second)
    # Whoever was away learns it when it calls.
    third.start()
    wait_removed(third)
    asked = master.must("site", "remove", str(third.replication), "--yes")
    assert "was no member" in asked
    # A site that does not answer is added by force only, since it makes each quorum harder.
    third.kill()
    refused = master.cli("site", "add", str(third.replication))
    assert refused.returncode == 1
    assert "HINT: start it first" in refused.stderr
    assert master.now()["members"] == 2
    forced = master.must("site", "add", str(third.replication), "--force")
    assert "the group has 3 sites" in forced
    assert "it counts as a member all the same" in forced
    third.start()
    wait_removed(third)  # a member by now, it waits for somebody to ask
    third.must("site", "add", str(third.replication))
    third.wait_running()
    master.put("after")
    third.wait_key("after")
