"""Sites that lost something, by an operator's hand or by a crash, and come back by themselves."""

import re
from pathlib import Path

import pytest
import redis

from tests.support.sites import PASSWORD, Site, Sites, wait_caught_up, wait_for

pytestmark = pytest.mark.timeout(300)

GENERATION_FILES = re.compile(r"__db\.")


def wait_following(replicant: Site, master: Site) -> None:
    """Wait until both know each other again, and a new write arrives."""

    def connected() -> bool:
        sites = {site["site"]: site["status"] for site in master.now()["sites"]}
        return sites.get(str(replicant.replication)) == "connected"

    wait_for(lambda: f"{replicant.name} connected: {master.now()}", connected)
    wait_caught_up(master, replicant)
    status = replicant.now()
    assert (status["role"], status["master"]) == ("replicant", str(master.replication))


def test_a_replicant_wiped_by_hand_starts_over(pair: tuple[Site, Site]) -> None:
    master, replicant = pair
    master.put("before")
    assert replicant.stop() == 0
    gone = replicant.empty_environment(keep=lambda name: name == "DB_CONFIG")
    assert {"keys.db", "log.0000000001", "$DB_Msg.txt"} <= set(gone)
    with master.client() as client, pytest.raises(redis.ResponseError, match=r"^PERMFAILED"):
        client.set("meanwhile", "value")
    replicant.run()
    wait_following(replicant, master)
    assert replicant.contents() == master.contents()
    assert replicant.count("sync_receive_finished") == 1
    master.put("after")
    replicant.wait_key("after")


def test_wipe_does_the_same(pair: tuple[Site, Site]) -> None:
    master, replicant = pair
    master.put("before")
    running = replicant.cli("wipe", "--yes")
    assert running.returncode == 1
    assert "is in use by process" in running.stderr
    assert replicant.stop() == 0
    replicant.must("wipe", "--yes")
    assert [path.name for path in replicant.home.environment.iterdir()] == ["DB_CONFIG"]
    replicant.run()
    wait_following(replicant, master)
    assert replicant.get("before") == "value"


@pytest.mark.parametrize("replicant_is_up", [True, False])
def test_a_master_without_its_generation_files_is_followed(
    pair: tuple[Site, Site], *, replicant_is_up: bool
) -> None:
    """The trap: members at a higher generation ignore that master silently, for ever."""
    master, replicant = pair
    for _ in range(2):  # a generation above 1, which is where a new environment begins
        assert master.stop() == 0
        master.run()
    wait_following(replicant, master)
    before = replicant.now()["generation"]
    assert before == 3
    master.put("before")
    assert master.stop() == 0
    if not replicant_is_up:
        assert replicant.stop() == 0
    gone = master.empty_environment(keep=lambda name: not GENERATION_FILES.match(name))
    assert {"__db.001", "__db.rep.gen", "__db.rep.egen", "__db.rep.system"} <= set(gone)
    status = master.run()
    assert status["role"] == "master"
    if not replicant_is_up:
        replicant.run()
    wait_following(replicant, master)
    assert master.now()["generation"] > before
    master.put("after")
    replicant.wait_key("after")
    assert replicant.contents() == master.contents()
    # Once more in order: what was raised stays raised, and both still know the membership.
    for site in pair:
        assert site.stop() == 0
    for site in pair:
        site.start()
    for site in pair:
        site.wait_running()
    wait_following(replicant, master)
    master.put("later")
    replicant.wait_key("later")


def test_an_emptied_master_does_not_take_the_copy_with_it(pair: tuple[Site, Site]) -> None:
    master, replicant = pair
    keys = [f"key{n}" for n in range(50)]
    master.put(*keys)
    wait_caught_up(master, replicant)
    whole = replicant.contents()
    assert master.stop() == 0
    master.empty_environment()

    master.start()
    why = master.wait_why("empty")
    assert str(replicant.replication) in why
    status = master.now()
    assert (status["state"], status["serving"], status["role"]) == ("start-pending", False, "none")
    assert f"promote` on {replicant.replication}" in status["hint"]
    shown = master.cli("status")
    assert shown.returncode == 1
    assert "HINT:" in shown.stdout
    # It may wait as long as it likes: the copy stays, and is served.
    assert replicant.contents() == whole
    assert replicant.now()["state"] == "running"

    replicant.must("promote", "--yes")
    replicant.wait("master", lambda s: s["role"] == "master" and not s["read_only"])
    status = master.wait_running()
    assert (status["role"], status["master"]) == ("replicant", str(replicant.replication))
    wait_following(master, replicant)
    assert master.contents() == replicant.contents() == whole
    replicant.put("after")
    master.wait_key("after")
    with master.client() as client, pytest.raises(redis.ReadOnlyError):
        client.set("mine", "value")


def test_an_emptied_master_waits_even_where_nobody_answers(pair: tuple[Site, Site]) -> None:
    master, replicant = pair
    master.put("key")
    for site in pair:
        assert site.stop() == 0
    master.empty_environment()
    master.start()
    master.wait_why("empty")
    assert master.now()["state"] == "start-pending"
    # The replicant returns with the data; both wait for the operator's word.
    replicant.start()
    replicant.wait("running with its old copy", lambda status: status["serving"])
    assert replicant.get("key") == "value"
    replicant.must("promote", "--yes")
    master.wait("following", lambda s: s["role"] == "replicant" and s["state"] == "running")
    assert master.get("key") == "value"


def test_a_replicant_ahead_by_what_was_never_acknowledged_rolls_back(sites: Sites) -> None:
    """Records reach the replicant before they are flushed on the master, which then dies.

    A third member that is down keeps the policy ALL from ever being met: nothing is answered OK.
    The master does not flush, so that kill -9 takes the end of its log away for certain.
    """
    master, replicant, third = sites("master"), sites("replicant"), sites("third")
    master.init("master", replicant, third)
    for site, other in ((replicant, third), (third, replicant)):
        site.init("replicant", master, other)
    master.db_config("repmgr_set_ack_policy db_repmgr_acks_all")
    for site in (master, replicant, third):
        site.run()
    master.put("acknowledged")
    assert third.stop() == 0
    assert master.stop() == 0
    master.toml(storage={"durability": "nosync", "checkpoint_interval_s": 3600})
    master.run()
    wait_following(replicant, master)
    with master.client() as client:
        for n in range(20):
            with pytest.raises(redis.ResponseError, match=r"^PERMFAILED"):
                client.set(f"tail{n}", "value")
    replicant.wait_key("tail19")
    ahead = tuple(replicant.now()["applied_lsn"])
    master.kill()
    assert replicant.get("tail19") == "value"

    master.run()
    (opened,) = [line for line in master.new_events() if line.event == "environment_opened"]
    file, offset = opened.facts["lsn"].split("/")
    assert (int(file), int(offset)) < ahead, "kill -9 did not take the tail away"
    replicant.wait_event("rollback_done")
    wait_following(replicant, master)
    assert master.get("acknowledged") == replicant.get("acknowledged") == "value"
    assert replicant.contents() == master.contents()
    assert master.get("tail19") is None
    with master.client() as client, pytest.raises(redis.ResponseError, match=r"^PERMFAILED"):
        client.set("after", "value")
    replicant.wait_key("after")


def test_a_master_that_lost_acknowledged_writes_waits(
    pair: tuple[Site, Site], tmp_path: Path
) -> None:
    """An old copy was put back on the master: others know of writes after its end that got OK."""
    master, replicant = pair
    master.put("old")
    assert master.stop() == 0
    saved = {path.name: path.read_bytes() for path in master.home.environment.iterdir()}
    master.run()
    wait_following(replicant, master)
    master.put(*(f"new{n}" for n in range(20)))
    wait_caught_up(master, replicant)
    assert master.stop() == 0
    master.empty_environment()
    for name, data in saved.items():
        (master.home.environment / name).write_bytes(data)

    master.start()
    master.wait_why("acknowledged")
    assert master.now()["state"] == "start-pending"
    assert replicant.get("new19") == "value"
    replicant.must("promote", "--yes")
    master.wait("following", lambda s: s["role"] == "replicant" and s["state"] == "running")
    wait_following(master, replicant)
    assert master.get("new19") == "value"
    assert master.contents() == replicant.contents()
    # A master without new writes is reached as well, and nobody goes on looking for more.
    assert master.count("gap_suspected") < 5
    assert master.client(password=PASSWORD).ping()
