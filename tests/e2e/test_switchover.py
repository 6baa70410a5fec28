"""The master's role handed over between real daemons, with writers at work; and when it fails."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis

from tests.support.sites import Site, Sites, wait_caught_up, wait_for

pytestmark = pytest.mark.timeout(300)


class Writer:
    """Writes one key after the other to whoever takes it, and remembers what was answered OK."""

    def __init__(self, name: str, *sites: Site) -> None:
        self.acknowledged: dict[bytes, bytes] = {}
        self.refusals: list[str] = []
        self._name = name
        self._sites = sites
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        clients = [site.client() for site in self._sites]
        at = number = 0
        while not self._end.is_set():
            key, value = f"{self._name}{number:06d}".encode(), b"%d" % number
            try:
                assert clients[at].set(key, value) is True
                self.acknowledged[key] = value
                number += 1
            except redis.RedisError as refusal:
                self.refusals.append(str(refusal))
                at = (at + 1) % len(clients)
        for client in clients:
            client.close()

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def goes_on(self, count: int = 20) -> None:
        """Wait until so many more writes are answered OK."""
        wanted = len(self.acknowledged) + count
        wait_for(
            lambda: f"{count} more writes; the last refusals: {self.refusals[-3:]}",
            lambda: len(self.acknowledged) >= wanted,
        )


@contextmanager
def writing(*sites: Site) -> Iterator[list[Writer]]:
    with Writer("a", *sites) as one, Writer("b", *sites) as two:
        yield [one, two]


def master_of(*sites: Site) -> Site:
    """The one that leads, when all agree."""

    def agreed() -> Site | None:
        seen = [site.now() for site in sites]
        masters = {status["master"] for status in seen}
        [leads] = masters if len(masters) == 1 else [None]
        return next((site for site in sites if str(site.replication) == leads), None)

    found = wait_for(lambda: f"one master: {[s.now()['master'] for s in sites]}", agreed)
    assert found is not None
    return found


def group_of(sites: Sites, count: int) -> list[Site]:
    """Electable sites, all connected with each other."""
    made = [sites(f"site{number}") for number in range(1, count + 1)]
    for site in made:
        others = [other for other in made if other is not site]
        site.init("master" if site is made[0] else "replicant", *others, priority=1)
    for site in made:
        site.run()
    for site in made:
        wait_for(
            lambda site=site: f"{site.name} knows all: {site.now()['sites']}",  # type: ignore[misc]
            lambda site=site: (  # type: ignore[misc]
                sum(s["status"] == "connected" for s in site.now()["sites"]) == count - 1
            ),
        )
    return made


def lost(writers: list[Writer], sites: list[Site], master: Site) -> dict[bytes, bytes]:
    """What was answered OK and is not everywhere."""
    answered = {k: v for writer in writers for k, v in writer.acknowledged.items()}
    missing: dict[bytes, bytes] = {}
    for site in sites:
        wait_caught_up(master, site)
        held = site.contents()
        missing |= {k: v for k, v in answered.items() if held.get(k) != v}
    return missing


def test_three_sites_hand_the_role_round_and_lose_nothing(sites: Sites) -> None:
    group = group_of(sites, 3)
    with writing(*group) as writers:
        for writer in writers:
            writer.goes_on()
        # To a site that is named, by the address it replicates at.
        first, second = group[0], group[1]
        shown = first.must("switchover", "--to", str(second.replication))
        before, handing, after = shown.splitlines()
        assert before == f"before: {first.replication} is master, generation 1"
        assert handing == f"handing over to {second.replication}"
        assert after.startswith(f"after: {second.replication} is master, generation 2; writes")
        assert master_of(*group) is second
        for writer in writers:
            writer.goes_on()
        # By a client, to the address where clients are served.
        third = group[2]
        with second.client() as client:
            to = ("TO", third.clients.host, third.clients.port)
            assert client.execute_command("FAILOVER", *to) == b"OK"
        assert master_of(*group) is third
        for writer in writers:
            writer.goes_on()
        # To whoever is fit; then once more, as a program would.
        with third.client() as client:
            assert client.execute_command("FAILOVER") == b"OK"
        fourth = master_of(*group)
        assert fourth is not third
        for writer in writers:
            writer.goes_on()
        done = json.loads(fourth.must("switchover", "--json").splitlines()[-1])
        assert done["after"]["generation"] == done["before"]["generation"] + 1
        assert done["held_ms"] >= 0
        for writer in writers:
            writer.goes_on()
    assert lost(writers, group, master_of(*group)) == {}
    for site in group:
        assert site.count("election_won") == 0
        assert site.count("duplicate_master") == 0
        assert site.now()["counters"]["rollbacks"] == 0


def test_a_replicant_is_told_where_to_ask_and_nobody_else_can_take_over(
    pair: tuple[Site, Site],
) -> None:
    master, replicant = pair
    refused = replicant.cli("switchover")
    assert refused.returncode == 1
    assert f"this site is a replicant of {master.replication}" in refused.stderr
    refused = master.cli("switchover", "--to", str(replicant.replication))
    assert refused.returncode == 1
    assert "has priority 0 and never becomes master" in refused.stderr
    refused = master.cli("switchover")
    assert "has priority 0" in refused.stderr
    assert master.now()["role"] == "master"
    master.put("still")


def test_a_frozen_or_dead_target_leaves_the_old_master_what_it_was(sites: Sites) -> None:
    one, two = group_of(sites, 2)
    with writing(one) as writers:
        writers[0].goes_on()
        two.freeze()
        refused = one.cli("switchover", "--timeout", "1")
        assert refused.returncode == 1
        assert f"{two.replication} did not become master" in refused.stderr
        assert one.now()["role"] == "master"
        two.thaw()
        for writer in writers:
            writer.goes_on()
        two.kill()
        wait_for("its link is gone", lambda: one.now()["sites"][0]["status"] != "connected")
        refused = one.cli("switchover")
        assert "is not connected" in refused.stderr
        two.run()
        for writer in writers:
            writer.goes_on()
    assert lost(writers, [one, two], one) == {}
    assert one.count("became_master") == 1, "it never was anything else"


def test_a_target_that_dies_while_it_takes_over(sites: Sites) -> None:
    """The old master has stepped down by then, and the other may be master for all it knows."""
    one, two = group_of(sites, 2)
    one.put("before")
    for _ in range(2):
        handing = threading.Thread(target=one.cli, args=("switchover",))
        handing.start()
        try:
            # As soon as it is asked: it dies before, in, or after the change of role.
            wait_for("it is asked", lambda: two.count("switchover_asked"))
        finally:
            two.kill()
        handing.join(60)
        two.home.journal.unlink()
        wait_for(
            lambda: f"somebody leads: {one.now()}",
            lambda: one.now()["role"] == "master" or one.now()["master"] is None,
        )
        two.run()
        leader = master_of(one, two)
        if leader is two:
            two.must("switchover")
        assert master_of(one, two) is one
        one.put("after")
        assert two.get("before") == "value"
        wait_caught_up(one, two)
        assert two.get("after") == "value"


def test_reads_go_on_and_nobody_waits_long(sites: Sites) -> None:
    """No figure here: a pause of seconds would mean that something waited for a time-out."""
    group = group_of(sites, 3)
    held_ms = []
    with writing(*group) as writers:
        for _ in range(2):
            leader = master_of(*group)
            began_s = time.monotonic()
            done = json.loads(leader.must("switchover", "--json").splitlines()[-1])
            held_ms.append(done["held_ms"])
            for writer in writers:
                writer.goes_on(5)
            assert time.monotonic() - began_s < 60
            for site in group:
                assert site.get("a000000") == "0"
    assert min(held_ms) < 1000, held_ms
