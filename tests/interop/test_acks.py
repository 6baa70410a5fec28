"""Acknowledgements between the two kinds, under every policy; what a native site says of itself."""

import pytest
import redis

from tests.support.native import Native, Natives
from tests.support.sites import Site, Sites, wait_for

pytestmark = pytest.mark.timeout(300)

POLICIES = ("ALL", "ALL_AVAILABLE", "ALL_PEERS", "NONE", "ONE", "ONE_PEER", "QUORUM")
# A quorum of two sites is the master itself; that is what ALL_AVAILABLE comes to at the least.
WAIT_FOR_NOBODY = ("NONE", "QUORUM", "ALL_AVAILABLE")
ACK_TIMEOUT_MS = "300"


def set_policy(client: redis.Redis, policy: str, timeout_ms: str) -> None:
    """Choose what this client's writes wait for."""
    client.execute_command("ACKS", policy, timeout_ms)  # type: ignore[no-untyped-call]


def set_(client: redis.Redis, policy: str) -> bool:
    """Write under a policy; tell whether it was met."""
    set_policy(client, policy, ACK_TIMEOUT_MS)
    try:
        return bool(client.set("key", policy))
    except redis.ResponseError as error:
        if not str(error).startswith("PERMFAILED"):
            raise
        return False


def test_a_native_replicant_acknowledges_under_every_policy(sites: Sites, natives: Natives) -> None:
    ours = sites("ours")
    native = natives("native", helpers=[ours])
    ours.init("master")
    ours.run()
    native.start()
    native.wait_following(ours)
    with ours.client() as client:
        set_policy(client, "ALL", "60000")
        client.set("first", "value")
        met = {policy: set_(client, policy) for policy in POLICIES}
        assert met == dict.fromkeys(POLICIES, True)
        with native.frozen():
            met = {policy: set_(client, policy) for policy in POLICIES}
        assert met == {policy: policy in WAIT_FOR_NOBODY for policy in POLICIES}


def test_ours_acknowledges_to_a_native_master_under_every_policy(
    sites: Sites, natives: Natives
) -> None:
    """Each change of the policy is a refresh, whose electable bit the library gets wrong."""
    ours, native = followed(sites, natives, priority=1)
    wait_for("the first is acknowledged", lambda: native.put("key") == 0)
    for policy in POLICIES:
        native.ask("set_acks", policy=policy)
        assert native.put("key", value=policy) == 0, policy
    site = ours.now()["sites"][0]
    assert (site["native"], site["electable"]) == (True, True)
    for policy in POLICIES:
        native.ask("set_acks", policy=policy)
        ours.freeze()
        try:
            assert native.put("key", value=policy) == (policy not in WAIT_FOR_NOBODY), policy
        finally:
            ours.thaw()


def test_priority_0_acknowledges_to_no_policy_of_peers(sites: Sites, natives: Natives) -> None:
    """And says so: a native master counts its peers by the flag in their handshake."""
    _ours, native = followed(sites, natives, priority=0)
    wait_for("the first is acknowledged", lambda: native.put("key") == 0)
    # The library calls ALL_PEERS unmet where it has sent to no peer.
    for policy, unmet in {"ALL": 0, "ONE": 0, "ONE_PEER": 1, "ALL_PEERS": 1, "NONE": 0}.items():
        native.ask("set_acks", policy=policy)
        assert native.put("key", value=policy) == unmet, policy


def followed(sites: Sites, natives: Natives, *, priority: int) -> tuple[Site, Native]:
    """A native master and a replicant of ours."""
    ours = sites("ours")
    native = natives("native", creator=True, timeouts_us={"ACK_TIMEOUT": 300_000})
    native.start("master")
    ours.init("replicant", native, priority=priority)
    ours.run()
    native.put("first")
    return ours, native


def test_heartbeats_of_our_master_tell_a_native_site_when_it_is_gone(
    sites: Sites, natives: Natives
) -> None:
    ours = sites("ours")
    native = natives(
        "native", helpers=[ours], timeouts_us={"HEARTBEAT_MONITOR": 1_500_000}, elections=False
    )
    ours.init("master")
    ours.db_config("rep_set_timeout db_rep_heartbeat_send 200000")
    ours.run()
    native.start()
    native.wait_following(ours)
    ours.freeze()
    try:
        native.wait_event("master_failure")
    finally:
        ours.thaw()
    native.wait("found it again", lambda s: str(ours.replication) in s.connected)
    with ours.client() as client:
        set_policy(client, "ALL", "60000")
        assert client.set("after", "value")


def test_heartbeats_of_a_native_master_tell_ours_when_it_is_gone(
    sites: Sites, natives: Natives
) -> None:
    ours = sites("ours")
    native = natives("native", creator=True, timeouts_us={"HEARTBEAT_SEND": 200_000})
    native.start("master")
    native.put("first")
    ours.init("replicant", native)
    ours.db_config("rep_set_timeout db_rep_heartbeat_monitor 1500000")
    ours.run()
    ours.wait("monitoring", lambda s: s["lag_bytes"] == 0)  # it heard a heartbeat
    with native.frozen():
        ours.wait("alone", lambda s: s["master"] is None)
    ours.wait("following", lambda s: s["master"] == str(native.replication))
    wait_for("acknowledged", lambda: native.put("after") == 0)
