"""A directory that can't be written, and a disk that gets full and is freed again."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from tests.faults.strangers import exchange
from tests.faults.writers import Load
from tests.support.disks import DiskSite, NoOwnDiskError, own_disk
from tests.support.sites import Site, Sites, wait_caught_up, wait_for

pytestmark = pytest.mark.timeout(400)

SIZE = "400m"  # half of it is for the shared memory of an open environment
SEED = 5
ROOM_BYTES = 3 * 2**20


@pytest.fixture
def disk_site(fast_path: Path) -> Iterator[DiskSite]:
    """A site, not initialised, on a disk of its own."""
    at = fast_path / "disk"
    at.mkdir()
    with ExitStack() as stack:
        try:
            disk = stack.enter_context(own_disk(at, SIZE))
        except NoOwnDiskError as error:
            pytest.skip(f"no file system of its own: {error}")
        site = DiskSite("master", fast_path, stack, disk)
        stack.callback(lambda: print(site.tail(60)))
        stack.callback(site.kill)
        yield site


def refused(site: Site, *arguments: str) -> tuple[str, str]:
    """Run a command that fails in order; give its error and its hint."""
    done = site.cli(*arguments)
    assert done.returncode == 1, done
    lines = [line for line in done.stderr.splitlines() if not line.startswith("timestamp=")]
    assert len(lines) == 2, done.stderr
    assert lines[1].startswith("HINT: ")
    return lines[0], lines[1]


def test_a_read_only_directory(disk_site: DiskSite) -> None:
    disk_site.init("master")
    disk_site.disk.remount("ro")
    error, _ = refused(disk_site, "run")
    assert "read-only" in error.lower()
    assert str(disk_site.disk.at) in error
    checked = disk_site.cli("check")
    assert checked.returncode == 1
    assert "FAIL" in checked.stdout
    error, _ = refused(disk_site, "wipe", "--force", "--yes")
    assert "read-only" in error.lower()
    disk_site.disk.remount("rw")
    disk_site.run()


def test_a_disk_that_is_full_before_the_start(disk_site: DiskSite) -> None:
    disk_site.init("master")
    disk_site.run()
    disk_site.put("key")
    assert disk_site.stop() == 0
    disk_site.disk.fill()
    error, _ = refused(disk_site, "run")
    assert "full" in error or "space" in error
    disk_site.disk.free()
    disk_site.run()
    assert disk_site.get("key") == "value"


def test_init_on_a_full_disk_leaves_nothing_half_made(disk_site: DiskSite) -> None:
    disk_site.disk.fill()
    local = str(disk_site.replication)
    done = disk_site.cli("init", "--role", "replicant", "--local", local, "--remote", "192.0.2.1:1")
    assert done.returncode == 1
    assert "space" in done.stderr
    disk_site.disk.free()
    disk_site.init("master")
    disk_site.run()


def test_a_master_whose_disk_gets_full_goes_on_when_it_is_freed(
    disk_site: DiskSite, sites: Sites
) -> None:
    master, replicant = disk_site, sites("replicant")
    master.init("master", replicant)
    replicant.init("replicant", master)
    for site in (master, replicant):
        site.run()
    assert master.process is not None
    pid, before = master.process.pid, master.rss_bytes()
    with Load(4, master.client, SEED, value_bytes=50_000) as load:
        wait_for("writes are answered OK", lambda: load.acknowledged >= 100)
        master.disk.fill(leave_bytes=ROOM_BYTES)
        master.wait_why("the disk is full")
        # It does not work, and says so; it does not go away.
        assert exchange(master.clients, b"PING\r\n") == b"+PONG\r\n"
        status = master.now()
        assert (status["pid"], status["state"]) == (pid, "start-pending")
        assert "free space" in status["hint"]
        assert replicant.contents(), "the copy is still read"
        master.disk.free()
        acked = load.acknowledged
        wait_for("writes are answered OK again", lambda: load.acknowledged >= acked + 100)
    assert master.now()["pid"] == pid
    assert all("needs recovery" in text for text in load.complaints()), load.complaints()
    assert master.rss_bytes() - before < 128 * 2**20
    wait_for("both are as far", lambda: replicant.now()["state"] == "running")
    wait_caught_up(master, replicant)
    contents = master.contents()
    assert not load.disagreements(contents), load.disagreements(contents)[:5]
    assert replicant.contents() == contents


def test_a_replicant_whose_disk_gets_full_catches_up_when_it_is_freed(
    disk_site: DiskSite, sites: Sites
) -> None:
    master, replicant = sites("first"), disk_site
    master.init("master", replicant)
    replicant.init("replicant", master)
    for site in (master, replicant):
        site.run()
    assert replicant.process is not None
    pid = replicant.process.pid
    with Load(4, master.client, SEED, value_bytes=50_000) as load:
        wait_for("writes are answered OK", lambda: load.acknowledged >= 100)
        replicant.disk.fill(leave_bytes=ROOM_BYTES)
        uncertain = load.uncertain
        wait_for("writes are stored on the master only", lambda: load.uncertain > uncertain + 50)
        assert master.now()["state"] == "running"
        assert exchange(replicant.clients, b"PING\r\n") == b"+PONG\r\n"
        replicant.disk.free()
        acked = load.acknowledged
        wait_for("writes are answered OK again", lambda: load.acknowledged >= acked + 100)
    assert not load.complaints(), load.complaints()
    assert replicant.now()["pid"] == pid
    wait_caught_up(master, replicant)
    contents = replicant.contents()
    assert not load.disagreements(contents), load.disagreements(contents)[:5]
    assert master.contents() == contents


def test_reads_are_answered_while_the_disk_is_full(disk_site: DiskSite) -> None:
    disk_site.init("master")
    disk_site.run()
    disk_site.put("key")
    disk_site.disk.fill()
    with disk_site.client() as client, pytest.raises(redis.RedisError):
        write_much(client)
    disk_site.disk.free()
    disk_site.wait_running()
    wait_for("a write is taken again", lambda: taken(disk_site))
    assert disk_site.get("key") == "value"


def write_much(client: redis.Redis) -> None:
    for number in range(2000):
        client.set(f"key{number}", "x" * 50_000)


def taken(site: Site) -> bool:
    try:
        site.put("again")
    except redis.RedisError:
        return False
    return True
