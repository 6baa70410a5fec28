"""`ttserver.client` and three daemons: the master dies, and the programs at work go on."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support.sites import PASSWORD, Site, Sites, wait_for
from ttserver.client import AsyncClient, Client, OutcomeUnknown, Unreachable, calls

pytestmark = pytest.mark.timeout(300)

DEADLINE_S = 90.0
MORE = 30
ROWS = 20_000


@pytest.fixture
def group(sites: Sites) -> list[Site]:
    """Three electable sites, QUORUM, all Running; the first is master."""
    made = [sites(name) for name in ("one", "two", "three")]
    for site, priority in zip(made, (3, 2, 1), strict=True):
        others = [other for other in made if other is not site]
        site.init("master" if site is made[0] else "replicant", *others, priority=priority)
    for site in made:
        site.run()
    return made


def servers(group: list[Site]) -> str:
    return f"tapemaster:{PASSWORD}@" + ",".join(str(site.clients) for site in group)


class Counter(threading.Thread):
    """Counts in a key of its own, and reads what it wrote; never repeats what may have been done.

    Attributes:
        answered: additions that were answered.
        unknown: additions that were done or not.
    """

    def __init__(self, client: Client, key: str) -> None:
        super().__init__()
        self.answered = self.unknown = 0
        self.failure: Exception | None = None
        self.end = threading.Event()
        self._client = client
        self._key = key

    def run(self) -> None:
        try:
            while not self.end.is_set():
                self._once()
        except Exception as error:
            self.failure = error
            raise

    def _once(self) -> None:
        try:
            total = self._client.incr(self._key)
        except OutcomeUnknown:
            self.unknown += 1
        else:
            self.answered += 1
            assert self.answered <= total <= self.answered + self.unknown
            # Of another site than the one that wrote it, often.
            assert int(self._client.get(self._key) or 0) >= total

    def goes_on(self) -> None:
        """Wait until so many more are answered."""
        wanted = self.answered + MORE
        wait_for(
            lambda: f"{MORE} more of {self._key}: {self.failure}",
            lambda: self.answered >= wanted or self.failure,
        )
        assert self.failure is None


def test_programs_follow_the_master_and_lose_nothing(group: list[Site]) -> None:
    one, two, three = group
    with (
        # Reads go to a replicant, as long as there is one.
        Client(servers([three, one, two]), read_your_writes=True, deadline_s=DEADLINE_S) as near,
        Client(servers(group), deadline_s=DEADLINE_S) as plain,
    ):
        assert near.get("warm up") is None
        counters = [Counter(near, "near"), Counter(plain, "plain")]
        for counter in counters:
            counter.start()
        try:
            for counter in counters:
                counter.goes_on()
            one.kill()
            for counter in counters:
                counter.goes_on()
            one.run()
            three.freeze()
            try:
                counters[1].goes_on()
            finally:
                three.thaw()
            for counter in counters:
                counter.goes_on()
        finally:
            for counter in counters:
                counter.end.set()
            for counter in counters:
                counter.join(DEADLINE_S)
        for counter in counters:
            total = int(plain.get(counter._key) or 0)
            assert counter.answered <= total <= counter.answered + counter.unknown
            # At most what was under way when its master died.
            assert counter.unknown <= 2


def test_a_batch_and_tasks_go_on_with_the_new_master(group: list[Site]) -> None:
    one, two, three = group

    async def count() -> list[object]:
        async with AsyncClient(servers(group), deadline_s=DEADLINE_S) as client:
            await client.set("k", 0)
            one.kill()
            async with asyncio.TaskGroup() as tasks:
                started = [
                    tasks.create_task(client.run(calls.set_(f"task{number}", number)))
                    for number in range(20)
                ]
            assert [task.result() for task in started] == [True] * 20
            pairs = (calls.set_(f"many{number}", number) for number in range(500))
            return [result async for result in client.many(pairs)]

    assert asyncio.run(count()) == [True] * 500
    with Client(servers([two, three]), deadline_s=DEADLINE_S) as client:
        assert len(list(client.scan("many*"))) == 500
        assert client.mget("task0", "task19") == [b"0", b"19"]


def test_a_list_that_loses_its_site_says_so(group: list[Site]) -> None:
    one, _, three = group
    with Client(servers([three, one]), deadline_s=DEADLINE_S) as client:
        client.ping()  # from now on reads go to this site
        list(client.many(calls.set_(f"key{number:04}", number) for number in range(1200)))
        wait_for("all there", lambda: client.exists("key1199"))
        rows = client.scan("key*")
        assert next(rows) == b"key0000"
        three.kill()
        with pytest.raises(Unreachable, match=f"server {three.clients} cannot be reached"):
            list(rows)
        assert len(list(client.scan("key*"))) == 1200


def test_a_load_by_tt_goes_on_with_the_new_master(group: list[Site], tmp_path: Path) -> None:
    one = group[0]
    with Client(servers(group), deadline_s=DEADLINE_S) as client:
        client.customer_add("US04")
        client.media_add("US04.LTO", description="tapes")
        client.repository_add("US04.LTO.LIBR", description="library")
        rows = "".join(f"{number:06d}L6,LIBR\n" for number in range(ROWS))
        path = tmp_path / "volumes.csv"
        path.write_text(f"volume,repository\n{rows}")
        load = ("load", str(path), "--customer", "US04", "--media", "LTO", "--json")
        process = tt(group, *load)
        try:
            wait_for("some are there", lambda: client.volume_count() > ROWS // 10)
            one.kill()
            out, err = process.communicate(timeout=DEADLINE_S)
        finally:
            process.kill()
            process.wait()
        assert (process.returncode, err) == (0, ""), err
        loaded = json.loads(out)
        assert loaded["added"] + loaded["there"] == ROWS
        assert loaded["bad"] == []
        wait_for("all of them", lambda: client.volume_count() == ROWS)
        # Each once, whatever was sent again.
        assert all(record.what == "add" for record in client.volume_history("US04.LTO.00?000L6"))
    again = tt(group, *load)
    out, err = again.communicate(timeout=DEADLINE_S)
    assert again.returncode == 0, err
    assert json.loads(out)["there"] == ROWS


def tt(group: list[Site], *arguments: str) -> subprocess.Popen[str]:
    """Begin a command of `tt` that knows all sites."""
    return subprocess.Popen(
        [sys.executable, "-m", "ttserver.tt", "-S", servers(group), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
