"""The operator's walk-through on two real sites: enabling, states, journals, logon, refusal."""

import re
import subprocess
from pathlib import Path

import pytest
import redis

from replication.journal_line import Line
from tests.support.sites import PASSWORD, Site, Sites, caught_up, wait_caught_up, wait_for

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parents[2]
VALUES = {
    f"US04.LTO.{n:06d}L6": f'{{"repository":"LIBR","note":"{"x" * 80}"}}' for n in range(2000)
}


def fill(site: Site) -> None:
    with site.client() as client, client.pipeline(transaction=False) as pipeline:
        for key, value in VALUES.items():
            pipeline.set(key, value)
        assert set(pipeline.execute()) == {True}


def by_hand(site: Site, role: str, other: Site) -> None:
    """Enable replication as the comments of the samples in conf/ say: copy, sed, start."""
    site.home.root.mkdir()
    sample = (ROOT / "conf" / f"DB_CONFIG.{role}").read_text()
    site.home.db_config.write_text(sample)
    own, far = (site.replication, other.replication)
    here, there = ("192.0.2.10", "192.0.2.20") if role == "master" else ("192.0.2.20", "192.0.2.10")
    commands = (
        f"s/{re.escape(here)} 5010/{own.host} {own.port}/",
        f"s/{re.escape(there)} 5010/{far.host} {far.port}/",
        "s/^#re/re/",
    )
    for command in commands:
        subprocess.run(["sed", "-i", command, str(site.home.db_config)], check=True, timeout=60)
    site.serve_clients_at_own_port()


@pytest.fixture(params=["init", "by hand"])
def enabled(request: pytest.FixtureRequest, sites: Sites) -> tuple[Site, Site]:
    """Two sites with replication enabled in one of the two ways."""
    master, replicant = sites("master"), sites("replicant")
    if request.param == "init":
        master.init_by_program("master", replicant)
        replicant.init_by_program("replicant", master)
    else:
        by_hand(master, "master", replicant)
        by_hand(replicant, "replicant", master)
    return master, replicant


def test_master_first_replicant_second(enabled: tuple[Site, Site]) -> None:
    master, replicant = enabled
    status = master.run()
    assert (status["role"], status["read_only"], status["priority"]) == ("master", False, 1)
    if "tapemaster" not in master.must("user", "list"):
        # Enabled by hand there is no administrator yet; whoever owns HOME makes one.
        master.must(
            *("user", "add", "tapemaster", "--role", "administrator", "--password-stdin"),
            stdin=PASSWORD,
        )
    fill(master)

    replicant.start()
    status = replicant.wait_running()
    assert (status["role"], status["read_only"]) == ("replicant", True)
    assert status["master"] == str(master.replication)
    assert states(replicant) == [("none", "start-pending"), ("start-pending", "running")]

    # The master's user, unknown to the replicant before the sync, is good for it as well.
    with replicant.client() as client:
        assert client.dbsize() == len(VALUES)
        name, value = next(iter(VALUES.items()))
        assert client.get(name) == value.encode()
        with pytest.raises(redis.ReadOnlyError, match=re.escape(str(master.clients))):
            client.set(name, "mine")
        assert client.get(name) == value.encode()
    with pytest.raises(redis.AuthenticationError):
        replicant.client(password="not this one").ping()

    master.put("live")
    replicant.wait_key("live")
    assert {site["site"]: site["status"] for site in master.now()["sites"]} == {
        str(replicant.replication): "connected"
    }
    told_by_master(master, replicant)
    told_by_replicant(replicant, master)
    assert [site.stop() for site in (replicant, master)] == [0, 0]
    for site in enabled:
        service_lines(site)


def states(site: Site) -> list[tuple[str, str]]:
    lines = [line for line in site.new_events() if line.event == "state_changed"]
    return [(line.facts["from"], line.facts["to"]) for line in lines]


def in_order(lines: list[Line], *wanted: str) -> list[Line]:
    """Find these events in this order, others between them."""
    found: list[Line] = []
    rest = iter(lines)
    for event in wanted:
        line = next((line for line in rest if line.event == event), None)
        assert line is not None, f"{event} is not told after {[one.event for one in found]}"
        found.append(line)
    return found


def told_by_master(master: Site, replicant: Site) -> None:
    """The connection from the replicant, and the sending of database information with totals."""
    master.wait_event("sync_send_finished")
    established, started, finished = in_order(
        master.new_events(), "connection_established", "sync_send_started", "sync_send_finished"
    )
    assert established.facts["site"] == str(replicant.replication)
    assert started.facts["site"] == finished.facts["site"] == str(replicant.replication)
    assert int(started.facts["files"]) >= 2
    assert int(finished.facts["pages"]) >= int(started.facts["pages"]) > len(VALUES) // 50
    assert int(finished.facts["bytes"]) > sum(map(len, VALUES.values()))
    assert float(finished.facts["seconds"]) >= 0
    assert {line.role for line in (established, started, finished)} == {"master"}


def told_by_replicant(replicant: Site, master: Site) -> None:
    """The connection, its validation, and the receiving of database information."""
    version, member, generation, started, finished, done = in_order(
        replicant.new_events(),
        "version_agreed",
        "member_confirmed",
        "generation_confirmed",
        "sync_receive_started",
        "sync_receive_finished",
        "startup_done",
    )
    assert version.facts["version"] == "4"
    assert member.facts["members"] == "2"
    assert generation.facts["generation"] == done.facts["generation"] == "1"
    assert started.facts["master"] == str(master.replication)
    assert int(finished.facts["pages"]) >= int(started.facts["pages"]) > len(VALUES) // 50
    assert {line.role for line in (version, started, done)} == {"replicant"}


def service_lines(site: Site) -> None:
    """The life of the service: started, every state, stopping and why, stopped."""
    lines = site.new_events()
    started, opened, stopping, stopped = in_order(
        lines, "server_started", "environment_opened", "server_stopping", "server_stopped"
    )
    assert site.process is not None
    assert started.facts["pid"] == str(site.process.pid)
    assert started.facts["home"] == str(site.home.root)
    assert "lsn" in opened.facts
    assert stopping.facts["why"] == "SIGTERM"
    assert float(stopped.facts["seconds"]) < 5
    assert (lines[0].event, lines[-1].event) == ("server_started", "server_stopped")


def test_the_replicant_may_be_started_first(initialised: tuple[Site, Site]) -> None:
    master, replicant = initialised
    replicant.start()
    replicant.wait_why(str(master.replication))
    assert replicant.now()["state"] == "start-pending"
    assert not replicant.now()["serving"]
    with pytest.raises(redis.ConnectionError):
        # Nobody can log on where no users are; the words say what is the matter.
        replicant.client().ping()
    master.run()
    replicant.wait_running()
    master.put("key")
    replicant.wait_key("key")


@pytest.mark.parametrize("late", ["master", "replicant"])
def test_what_was_missed_is_caught_up(pair: tuple[Site, Site], late: str) -> None:
    master, replicant = pair
    master.put("before")
    replicant.wait_key("before")
    syncs = replicant.count("sync_receive_started")
    if late == "replicant":
        assert replicant.stop() == 0
        with master.client() as client:
            # Stored here and nowhere else: the client is told.
            with pytest.raises(redis.ResponseError, match=r"^PERMFAILED"):
                client.set("meanwhile", "value")
            assert client.get("meanwhile") == b"value"
        replicant.run()
        replicant.wait_key("meanwhile")
    else:
        assert master.stop() == 0
        assert replicant.get("before") == "value"
        status = replicant.now()
        assert (status["state"], status["master"]) == ("running", None)
        with replicant.client() as client, pytest.raises(redis.ReadOnlyError):
            client.set("meanwhile", "value")
        master.run()
    master.wait("connected", lambda s: s["sites"][0]["status"] == "connected")
    wait_for("the replicant follows", lambda: caught_up(master, replicant))
    master.put("after")
    replicant.wait_key("after")
    # Nothing was copied again: the log was enough.
    assert replicant.count("sync_receive_started") == syncs


def test_both_sites_return_after_both_were_down(pair: tuple[Site, Site]) -> None:
    master, replicant = pair
    master.put("key")
    for site in pair:
        assert site.stop() == 0
    for site in pair:
        site.start()
    for site in pair:
        site.wait_running()
    wait_caught_up(master, replicant)
    master.put("later")
    replicant.wait_key("later")
    assert replicant.get("key") == "value"
