"""Three daemons and redis-py: who acknowledged a write, and what became of it after a failover."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.sites import Site, Sites, sites, wait_for

__all__ = ["sites"]

FOR_EVER_MS = 60_000


def ask(client: redis.Redis, *command: object) -> Any:
    return client.execute_command(*command)  # type: ignore[no-untyped-call]


def group(sites: Sites) -> tuple[Site, Site, Site]:
    """Make three electable sites that ask for a quorum, all Running."""
    one, two, three = sites("one"), sites("two"), sites("three")
    one.init("master", two, three, priority=3)
    two.init("replicant", one, three, priority=2)
    three.init("replicant", one, two, priority=1)
    for site in (one, two, three):
        site.db_config(
            "repmgr_set_ack_policy db_repmgr_acks_quorum",
            f"rep_set_timeout db_rep_ack_timeout {FOR_EVER_MS * 1000}",
        )
        site.run()
    return one, two, three


def test_each_reply_is_honest_and_a_token_tells_the_rest(sites: Sites) -> None:
    one, two, three = group(sites)
    names = [str(site.replication) for site in (two, three)]
    with one.client() as client:
        # A write can be read on every site by its token.
        for number in range(5):
            assert client.set("key", number) is True
            token, _ = ask(client, "LASTWRITE")
            for site in (one, two, three):
                with site.client() as reader:
                    assert ask(reader, "WAITFOR", token, FOR_EVER_MS) == 1
                    assert reader.get("key") == b"%d" % number
        assert client.wait(2, FOR_EVER_MS) == 2
        kept, holders = ask(client, "LASTWRITE")
        assert sorted(holder.decode() for holder in holders) == sorted(names)

        # One site stands still: a quorum goes on, and who asks for all is told who is missing.
        three.freeze()
        wait_for("three stands still", lambda: _stands_still(three))
        assert client.set("quorum", 1) is True
        assert ask(client, "ACKS", "all", 300) == b"OK"
        with pytest.raises(redis.ResponseError) as late:
            client.set("all", 1)
        token, holders = ask(client, "LASTWRITE")
        assert str(late.value).startswith(
            f"PERMFAILED committed here as {token.decode()}, but ALL needs all 2 other sites; "
        )
        assert f"acknowledged by {names[0]}; missing: {names[1]} (at " in str(late.value)
        assert [holder.decode() for holder in holders] == names[:1]
        assert client.wait(2, 100) == 1
        three.thaw()
        assert client.wait(2, FOR_EVER_MS) == 2
        wait_for("three is back", lambda: three.now()["role"] == "replicant")

        # Alone, the answer comes at once, not after the time-out.
        for site in (two, three):
            site.kill()
        wait_for(
            "both are lost",
            lambda: all(site["status"] != "connected" for site in one.now()["sites"]),
        )
        assert ask(client, "ACKS", "default") == b"OK"
        began = time.monotonic()
        with pytest.raises(
            redis.ResponseError, match=r"acknowledged by none; missing: .* not conn"
        ):
            client.set("doomed", 1)
        assert (time.monotonic() - began) * 1000 < FOR_EVER_MS / 2
        doomed, holders = ask(client, "LASTWRITE")
        assert holders == []
    one.kill()

    for site in (two, three):
        site.start()
    new = wait_for("a new master", lambda: _master(two, three))
    assert new is not None
    with new.client() as client:
        assert ask(client, "WAITFOR", kept, FOR_EVER_MS) == 1
        with pytest.raises(redis.ResponseError, match=f"^TOKENLOST write {doomed.decode()} was "):
            ask(client, "WAITFOR", doomed, FOR_EVER_MS)
        assert client.set("later", 1) is True
        later, _ = ask(client, "LASTWRITE")
    one.run()
    for site in (one, two, three):
        with site.client() as client:
            assert ask(client, "WAITFOR", later, FOR_EVER_MS) == 1
            assert ask(client, "WAITFOR", kept, FOR_EVER_MS) == 1
            with pytest.raises(redis.ResponseError, match=r"^TOKENLOST"):
                ask(client, "WAITFOR", doomed, FOR_EVER_MS)
            assert client.get("doomed") is None
            assert client.get("all") == b"1"


def _stands_still(site: Site) -> bool:
    """Every thread has stopped: the signal is only the beginning of that."""
    assert site.process is not None
    tasks = Path(f"/proc/{site.process.pid}/task").glob("*/stat")
    return all(task.read_text().rpartition(")")[2].split()[0] == "T" for task in tasks)


def _master(*candidates: Site) -> Site | None:
    for site in candidates:
        status = site.status()
        if status is not None and status["role"] == "master" and not status["read_only"]:
            return site
    return None
