"""Elections in groups of three of both kinds; either kind wins, and everybody follows."""

import pytest

from tests.support.native import Native, Natives
from tests.support.sites import Site, Sites, wait_for

pytestmark = pytest.mark.timeout(300)


def wait_leads(site: Site | Native, *others: Site | Native) -> None:
    """Wait until a site is master, the others follow it, and a write comes through to all."""
    for each in (site, *others):
        if isinstance(each, Site):
            each.wait("following", lambda s: s["master"] == str(site.replication))
        elif each is site:
            each.wait_master()
        else:
            each.wait_following(site)
    key = f"of {site.name}"
    if isinstance(site, Site):
        site.wait("writable", lambda s: not s["read_only"])
        wait_for("acknowledged", lambda: accepted(site, key))
    else:
        wait_for("acknowledged", lambda: site.put(key) == 0)
    for each in others:
        each.wait_key(key)


def accepted(site: Site, key: str) -> bool:
    """Write; tell whether a quorum has it in time."""
    with site.client() as client:
        client.execute_command("ACKS", "QUORUM", "2000")
        try:
            return bool(client.set(key, "value"))
        except Exception as error:
            if "PERMFAILED" not in repr(error) and "not acknowledged" not in str(error):
                raise
            return False


def test_a_native_site_wins_and_then_one_of_ours(sites: Sites, natives: Natives) -> None:
    """Two of ours and a native one."""
    one, two = sites("one"), sites("two")
    native = natives("native", helpers=[one], priority=2, acks="quorum")
    one.init("master", two, priority=3)
    two.init("replicant", one, priority=1)
    one.run()
    two.run()
    native.start()
    wait_leads(one, two, native)
    one.kill()
    wait_leads(native, two)
    one.start()
    wait_leads(native, one, two)
    native.kill()
    wait_leads(one, two)
    native.start("client", helpers=[])
    wait_leads(one, two, native)


def test_ours_wins_with_the_votes_of_native_sites(sites: Sites, natives: Natives) -> None:
    """Two native sites and one of ours."""
    ours = sites("ours")
    one = natives("one", creator=True, priority=1, acks="quorum")
    two = natives("two", helpers=[one], priority=1, acks="quorum")
    one.start("master")
    one.put("first")
    two.start()
    two.wait_following(one)
    ours.init("replicant", one, priority=5)
    ours.run()
    wait_for("acknowledged", lambda: one.put("second") == 0)
    one.ask("flush")
    one.kill()
    ours.wait("master", lambda s: s["role"] == "master" and not s["read_only"])
    two.wait_following(ours)
    one.start("client")
    one.wait_following(ours)
    two.wait("connected", lambda s: len(s.connected) == 2)
    assert one.items() == two.items() == {"first": "value", "second": "value"}
    ours.stop()
    wait_for("a native master", lambda: "master" in (one.stat().role, two.stat().role))
