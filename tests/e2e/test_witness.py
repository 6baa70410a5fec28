"""Two sites with the data and a witness that only votes: kills, restarts, and what it answers."""

from __future__ import annotations

import json
import socket

import pytest
import redis

from tests.support.sites import Site, Sites, wait_caught_up, wait_for

pytestmark = pytest.mark.timeout(300)

DISK_BYTES_MAX = 8 * 2**20


@pytest.fixture
def group(sites: Sites) -> tuple[Site, Site, Site]:
    """Two electable sites and a witness, all running and connected."""
    first, second, witness = sites("first"), sites("second"), sites("witness")
    first.init("master", second, witness)
    second.init("replicant", first, witness, priority=1)
    witness.must(
        *("init", "--role", "witness", "--local", str(witness.replication)),
        *("--remote", str(first.replication), "--remote", str(second.replication)),
    )
    witness.serve_clients_at_own_port()
    for site in (first, second, witness):
        site.run()
    for site in (first, second, witness):
        connected(site, 2)
    return first, second, witness


def connected(site: Site, count: int) -> None:
    wait_for(
        lambda: f"{site.name} is connected with {count}: {site.now()['sites']}",
        lambda: sum(s["status"] == "connected" for s in site.now()["sites"]) == count,
    )


def disk_bytes(site: Site) -> int:
    """What its environment takes of the disk: the library's region files are sparse."""
    return sum(path.stat().st_blocks * 512 for path in site.home.environment.iterdir())


def leads(site: Site) -> None:
    site.wait("leading", lambda status: not status["read_only"])


def test_its_vote_elects_the_other_site_and_no_write_waits_for_it(
    group: tuple[Site, Site, Site],
) -> None:
    first, second, witness = group
    # QUORUM: the other site with the data has to acknowledge.
    first.put(*(f"key{number}" for number in range(200)), value="x" * 2000)
    # The master dies: neither of the others could win alone.
    first.kill()
    leads(second)
    wait_for("the witness follows", lambda: witness.now()["master"] == str(second.replication))
    assert second.get("key199") == "x" * 2000
    first.run()
    connected(second, 2)
    wait_caught_up(second, first)
    # The witness dies: nobody misses it.
    witness.kill()
    second.put("without the witness")
    assert second.now()["role"] == "master"
    # Back again while the master is away: it votes from what it remembers of the group.
    second.kill()
    witness.start()
    leads(first)
    assert first.get("without the witness") == "value"
    second.run()
    connected(first, 2)
    # The role is handed over, and it follows that, too.
    first.must("switchover")
    wait_for("the witness follows", lambda: witness.now()["master"] == str(second.replication))
    second.put("after")
    second.kill()
    leads(first)
    assert first.get("after") == "value"
    assert disk_bytes(witness) < DISK_BYTES_MAX
    assert witness.count("sync_receive_started") == 0
    assert not (witness.home.environment / "keys.db").exists()


def test_it_serves_no_data_and_says_so(group: tuple[Site, Site, Site]) -> None:
    first, _, witness = group
    status = witness.now()
    assert (status["state"], status["role"], status["serving"]) == ("running", "witness", False)
    assert status["master"] == str(first.replication)
    assert (status["lag_bytes"], status["priority"]) == (None, 0)
    assert status["why"] is None
    shown = witness.must("status")
    assert f"witness; the master is {first.replication}" in shown
    rows = {row["site"]: row for row in json.loads(first.must("sites", "--json"))}
    seen = rows[str(witness.replication)]
    assert (seen["role"], seen["electable"], seen["acked_lsn"]) == ("witness", False, None)
    assert first.now()["why"] is None
    # Clients: a connection is answered, a logon is refused with the way to go.
    host, port = witness.clients.host, witness.clients.port
    with socket.create_connection((host, port), timeout=60) as raw:
        raw.sendall(b"PING\r\n")
        assert raw.recv(100) == b"+PONG\r\n"
    with pytest.raises(redis.ResponseError, match=r"^NODATA this site is a witness") as refused:
        witness.get("key")
    assert str(first.clients) in str(refused.value)
    assert "upkeep_failed" not in witness.log.read_text()
    # It is no target, and no last resort.
    asked = first.cli("switchover", "--to", str(witness.replication))
    assert "priority 0 and never becomes master" in asked.stderr
    for site in group[:2]:
        site.kill()
    witness.wait("alone", lambda status: status["master"] is None)
    asked = witness.cli("promote", "--yes")
    assert asked.returncode == 1
    assert "is a witness and holds no data" in asked.stderr


def test_what_cannot_be_a_witness_is_refused(sites: Sites) -> None:
    site, other = sites("site"), sites("other")
    init = ("init", "--role", "witness", "--local", str(site.replication))
    refused = site.cli(*init)
    assert refused.returncode == 2
    assert "a witness has no master to follow" in refused.stderr
    refused = site.cli(*init, "--remote", str(other.replication), "--priority", "3")
    assert "a witness cannot have priority 3" in refused.stderr
    site.must(*init, "--remote", str(other.replication))
    text = site.home.db_config.read_text()
    site.home.db_config.write_text(text.replace("rep_set_priority 0", "rep_set_priority 3"))
    refused = site.cli("run")
    assert refused.returncode == 2
    assert "replication.witness is true, and rep_set_priority is 3" in refused.stderr
