"""A native site in a group of ours, and one of our sites in a native group."""

import pytest

from tests.support.native import Natives, read_beside
from tests.support.sites import Sites, wait_for

pytestmark = pytest.mark.timeout(300)


def test_a_native_site_joins_follows_and_acknowledges(sites: Sites, natives: Natives) -> None:
    """With an internal init of what was there before."""
    ours = sites("ours")
    native = natives("native", helpers=[ours])
    ours.init("master")
    ours.run()
    ours.put("before")
    native.start()
    native.wait_following(ours)
    assert native.items() == {"before": "value"}
    ours.put("after")  # OK: the native site acknowledged it
    native.wait_key("after")


def test_ours_joins_a_native_master(sites: Sites, natives: Natives) -> None:
    """It syncs, follows and acknowledges; the group has no users, so nobody logs on here."""
    ours, native = sites("ours"), natives("native", creator=True)
    native.start("master")
    native.put("before")
    ours.init("replicant", native)
    status = ours.run()
    assert status["master"] == str(native.replication)
    assert read_beside(ours.home.environment) == {"before": "value"}
    assert native.put("after") == 0  # no write went without acknowledgement
    wait_for("it came", lambda: "after" in read_beside(ours.home.environment))


def test_whoever_is_no_master_passes_the_wish_to_join_on(sites: Sites, natives: Natives) -> None:
    """Each kind asks a replicant of the other kind, and is sent to the master."""
    master, ours, late = sites("master"), sites("ours"), sites("late")
    native = natives("native", helpers=[ours])
    master.init("master")
    ours.init("replicant", master)
    late.init("replicant", native)
    master.run()
    ours.run()
    native.start()
    native.wait_following(master)
    assert late.run()["master"] == str(master.replication)
    others = sorted(str(each.replication) for each in (master, ours, late))
    wait_for(lambda: f"{native.ask('sites')}", lambda: native.ask("sites") == others)
