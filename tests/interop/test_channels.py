"""Application channels of native sites: ours serve none, and say so to whoever asks."""

import pytest

from tests.support.native import Natives
from tests.support.sites import Sites

pytestmark = pytest.mark.timeout(300)

NO_SERVER = -30989  # the library's DB_NOSERVER


def test_a_channel_is_refused_and_replication_goes_on(sites: Sites, natives: Natives) -> None:
    """By our master and by our replicant; the native site's own link to each stays."""
    ours, other = sites("ours"), sites("other")
    native = natives("native", helpers=[ours])
    ours.init("master")
    other.init("replicant", ours)
    ours.run()
    other.run()
    native.start()
    native.wait_following(ours)
    native.wait("connected", lambda s: len(s.connected) == 2)
    for site in (ours, other):
        host, port = site.replication.host, site.replication.port
        answer = native.ask("channel", host=host, port=port, requests=3)
        assert answer == {"sent": [0], "asked": [NO_SERVER] * 3}
        refused = site.wait_event("channel_refused")
        assert refused.facts["site"] == str(native.replication)
        assert not [line for line in site.events() if line.event == "connection_lost"]
    ours.put("after")  # OK: both acknowledged it
    native.wait_key("after")
    assert native.stat().dropped_connections == 0
