"""Three daemons, one of which is lost: killed, or stopped and let go again."""

from typing import Any

import pytest
import redis
from redis.connection import Connection

from tests.support.sites import Site, Sites, wait_for

pytestmark = pytest.mark.timeout(600)

LEASE_S = 1.5
FENCE_S = 1.0  # nobody else is master before: silence and the lease have to pass


@pytest.fixture
def three(sites: Sites) -> list[Site]:
    """Give three electable sites that run, the first one master."""
    made = [sites(f"db{number}") for number in range(1, 4)]
    for number, site in enumerate(made):
        others = [other for other in made if other is not site]
        site.init("replicant" if number else "master", *others, priority=1)
        site.db_config("repmgr_set_ack_policy db_repmgr_acks_quorum")
        site.toml(replication={"lease_s": LEASE_S, "fence_s": FENCE_S})
        site.start()
    for site in made:
        site.wait_running()
    wait_followed(made[0])
    return made


def wait_followed(master: Site) -> None:
    """Wait until both others acknowledge, and the master may read."""

    def followed() -> bool:
        status = master.now()
        sites, lease = status["sites"], status["lease"]
        return all(s["acked_lsn"] for s in sites) and lease is not None and lease["left_s"] > 0

    wait_for(f"both follow {master.name}", followed)


def master_of(sites: list[Site]) -> Site:
    """Wait until one of these is master and takes writes."""

    def leading() -> Site | None:
        for site in sites:
            status = site.now()
            if status["role"] == "master" and not status["read_only"]:
                return site
        return None

    found = wait_for("one leads", leading)
    assert found is not None
    return found


def test_a_master_that_stood_still_answers_nothing_that_is_no_longer_true(
    three: list[Site],
) -> None:
    old, *rest = three
    old.put("key", value="old")
    with old.client() as client:
        assert client.get("key") == b"old"
        connection = client.connection
        assert connection is not None
        old.freeze()
        # All this waits in its sockets, and is the first it sees.
        for command in (("SET", "late", "value"), ("GET", "key"), ("ROLE",)):
            connection.send_command(*command)
        new = master_of(rest)
        new.put("key", value="new")
        old.thaw()
        written, read, role = (reply(connection) for _ in range(3))
    assert isinstance(written, (redis.exceptions.TryAgainError, redis.ReadOnlyError)), written
    # As a replicant it may read what it has: whoever must know asks for the role behind the read.
    assert isinstance(read, redis.exceptions.TryAgainError) or role[0] == b"slave", (read, role)
    wait_followed(new)
    old.wait_key("key", "new")
    assert old.get("late") is None
    assert [line.event for line in old.events()].count("became_master") == 1

    # The next one dies; what it said is on the others.
    new.put("more")
    new.kill()
    left = [site for site in three if site is not new]
    newest = master_of(left)
    newest.put("most")
    wait_for("it may read", lambda: newest.now()["lease"]["left_s"] > 0)
    assert set(newest.contents()) == {b"key", b"more", b"most"}


def reply(connection: Connection) -> Any:
    """Read one reply; an error is one, too."""
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        return error
