"""Taking over from a native application, and handing back: its group, its data, its btree."""

import json
import tomllib

import pytest

from tests.support.native import Native, Natives
from tests.support.sites import PASSWORD, Site, Sites, wait_for

pytestmark = pytest.mark.timeout(300)

APPLICATION = "inventory.db"


def adopt(ours: Site, native: Native, *options: str) -> dict[str, object]:
    """Run `ttserver adopt`; give its JSON."""
    arguments = ("adopt", str(native.replication), "--local", str(ours.replication), "--json")
    shown = ours.must(*arguments, "--password-stdin", *options, stdin=f"{PASSWORD}\n")
    return dict(json.loads(shown))


def test_an_application_is_taken_over_and_handed_back(sites: Sites, natives: Natives) -> None:
    """Its master is stopped in order, ours is elected, and in the end a native program goes on."""
    ours = sites("ours")
    one = natives("one", creator=True, priority=1, keys_file=APPLICATION)
    two = natives("two", helpers=[one], priority=1, keys_file=APPLICATION)
    one.start("master")
    one.put("of the application")
    two.start()
    two.wait_following(one)
    assert adopt(ours, one, "--priority", "200") == {
        "master": str(one.replication),
        "members": 3,
        "databases": {APPLICATION: None},
        "keyspace": APPLICATION,
    }
    ours.serve_clients_at_own_port()
    ours.run()
    wait_for("acknowledged", lambda: one.put("last of the old master") == 0)
    refused = ours.cli("switchover")
    assert refused.returncode == 1
    assert "native site, which cannot step down on request" in refused.stderr
    one.stop()
    ours.wait("master", lambda s: s["role"] == "master" and not s["read_only"])
    assert ours.get("of the application") == ours.get("last of the old master") == "value"
    ours.put("of ours")  # acknowledged by the native site
    two.wait_key("of ours")
    assert ours.contents().keys() == {name.encode() for name in two.items()}

    ours.stop()  # and back: the same environment, opened by a native program
    heir = natives(
        "heir",
        home=ours.home.environment,
        address=ours.replication,
        keys_file=APPLICATION,
        priority=200,
    )
    heir.start("election")
    heir.wait_master()
    two.wait_following(heir)
    assert heir.items() == two.items()
    assert heir.put("of the heir") == 0
    two.wait_key("of the heir")


def test_a_master_of_two_is_taken_over_once_it_is_stopped(sites: Sites, natives: Natives) -> None:
    """One of two wins no election: `switchover` takes over when the native master is gone."""
    ours, native = sites("ours"), natives("native", creator=True, priority=1)
    native.start("master")
    native.put("first")
    adopt(ours, native, "--priority", "1")
    ours.serve_clients_at_own_port()
    ours.run()
    wait_for("acknowledged", lambda: native.put("last") == 0)
    assert "HINT: stop it in order there" in ours.cli("switchover").stderr
    native.stop()
    ours.wait("alone", lambda s: s["master"] is None)
    assert "after:" in ours.must("switchover")
    assert ours.get("last") == "value"
    native.start("client")
    native.wait_following(ours)
    ours.put("of ours")
    native.wait_key("of ours")


def test_a_living_master_is_deposed_by_force(sites: Sites, natives: Natives) -> None:
    """What is lost is said before; the native site follows afterwards."""
    ours, native = sites("ours"), natives("native", creator=True, priority=1)
    native.start("master")
    native.put("first")
    adopt(ours, native, "--priority", "100")
    ours.serve_clients_at_own_port()
    ours.run()
    wait_for("acknowledged", lambda: native.put("last") == 0)
    shown = ours.cli("switchover", "--force", "--yes")
    assert shown.returncode == 0, shown.stderr
    assert f"what {native.replication}, a native site, writes until it hears of this" in (
        " ".join(shown.stderr.split())
    )
    native.wait_following(ours)
    ours.put("of ours")
    native.wait_key("of ours")


def test_what_cannot_be_adopted_is_told(sites: Sites, natives: Natives) -> None:
    """Nobody there; one of our own sites; a database that is no keyspace."""
    ours, other = sites("ours"), sites("other")
    native = natives("native", creator=True)
    local = ("--local", str(ours.replication))
    silent = ours.cli("adopt", str(native.replication), *local)
    assert silent.returncode == 1
    assert "no site answers" in silent.stderr
    other.init("master")
    other.run()
    wrong = ours.cli("adopt", str(other.replication), *local)
    assert wrong.returncode == 2
    assert f"ttserver init --role replicant --remote {other.replication}" in wrong.stderr
    assert not ours.home.root.exists()
    native.start("master")
    native.put("first")
    adopt(ours, native)
    refused = ours.cli("adopt", str(native.replication), *local, "--keyspace", "other.db")
    assert refused.returncode == 2
    assert "these can: keys.db" in refused.stderr
    assert tomllib.loads(ours.home.toml.read_text())["storage"] == {"keyspace": "keys.db"}
