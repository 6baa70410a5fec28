"""Each kind survives that the other is killed, or stopped in order, and comes back."""

import pytest

from tests.support.native import Native, Natives, read_beside
from tests.support.sites import Site, Sites, wait_for

pytestmark = pytest.mark.timeout(300)

END = {"killed": lambda site: site.kill(), "stopped": lambda site: site.stop()}
Ends = pytest.mark.parametrize("how", END)


def their_native(ours: Site, natives: Natives) -> Native:
    """A native replicant of a master of ours, in step."""
    native = natives("native", helpers=[ours], priority=0)
    ours.init("master")
    ours.run()
    ours.put("before")
    native.start()
    native.wait_following(ours)
    return native


def wait_beside(ours: Site, key: str) -> None:
    """Wait until a site of a group without users has a key."""
    wait_for(
        lambda: f"{key} on {ours.name}\n{ours.tail()}",
        lambda: key in read_beside(ours.home.environment),
    )


@Ends
def test_our_master_comes_back_to_its_native_replicant(
    sites: Sites, natives: Natives, how: str
) -> None:
    ours = sites("ours")
    native = their_native(ours, natives)
    END[how](ours)
    native.wait("lost it", lambda s: not s.connected)
    ours.run()
    ours.put("after")
    native.wait_key("after")
    assert native.stat().role == "client"


@Ends
def test_a_native_replicant_comes_back_to_our_master(
    sites: Sites, natives: Natives, how: str
) -> None:
    ours = sites("ours")
    native = their_native(ours, natives)
    END[how](native)
    with ours.client() as client, pytest.raises(Exception, match="PERMFAILED"):
        client.set("meanwhile", "value")
    native.start(helpers=[])  # it knows the group from its membership database
    native.wait_following(ours)
    ours.put("after")
    native.wait_key("after")
    assert native.items() == {"before": "value", "meanwhile": "value", "after": "value"}


@Ends
def test_a_native_master_comes_back_to_our_replicant(
    sites: Sites, natives: Natives, how: str
) -> None:
    ours, native = sites("ours"), natives("native", creator=True)
    native.start("master")
    ours.init("replicant", native)
    ours.run()
    native.put("before")
    END[how](native)
    ours.wait("alone", lambda s: s["master"] is None)
    native.start("master")
    ours.wait("following", lambda s: s["master"] == str(native.replication))
    wait_for("acknowledged", lambda: native.put("after") == 0)
    wait_beside(ours, "after")


@Ends
def test_our_replicant_comes_back_to_a_native_master(
    sites: Sites, natives: Natives, how: str
) -> None:
    ours, native = sites("ours"), natives("native", creator=True)
    native.start("master")
    ours.init("replicant", native)
    ours.run()
    native.put("before")
    END[how](ours)
    assert native.put("meanwhile") == 1
    ours.run()
    wait_beside(ours, "meanwhile")
    wait_for("acknowledged", lambda: native.put("after") == 0)
    wait_beside(ours, "after")


def test_all_come_back_where_the_native_site_calls_no_election(
    sites: Sites, natives: Natives
) -> None:
    """It would wait for a master for ever, and so would we for a word of it."""
    ours = sites("ours")
    native = their_native(ours, natives)
    ours.stop()
    native.stop()
    native.start(helpers=[], elections=False)
    assert ours.run()["role"] == "master"
    native.wait_following(ours)
    ours.put("after")
    native.wait_key("after")
