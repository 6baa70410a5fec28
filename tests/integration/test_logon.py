"""Logging on to a real daemon: one error for the client, the reason in `$DB_Msg.txt`."""

import threading
import time
from collections.abc import Callable

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from replication.journal_line import parse_line
from tests.integration.daemons import Site, sites

__all__ = ["sites"]

Sites = Callable[[str], Site]
PASSWORD = "correct horse"


class Logon:
    """A running master, and connections to it."""

    def __init__(self, site: Site) -> None:
        self.site = site
        host, _, port = str(site.json("status")["client_listen"]).rpartition(":")
        self.host, self.port = host, int(port)

    def connect(self, user: str, password: str) -> redis.Redis:
        return redis.Redis(
            self.host,
            self.port,
            username=user,
            password=password,
            socket_timeout=30,
            # Out of the box it tries a refused password ten times more.
            retry=Retry(NoBackoff(), 0),
        )

    def refusals(self) -> list[tuple[str, str]]:
        lines = [parse_line(text) for text in self.site.journal.splitlines()]
        return [
            (line.facts["user"], line.facts["reason"])
            for line in lines
            if line is not None and line.event == "logon_refused"
        ]


@pytest.fixture
def logon(sites: Sites) -> Logon:
    site = sites("master")
    site.init("master")
    site.start()
    site.wait_for_state("running")
    return Logon(site)


def test_the_first_user_of_init_logs_on_and_its_file_is_gone(logon: Logon) -> None:
    with logon.connect("tapemaster", PASSWORD) as client:
        assert client.set("key", "value")
    assert not list((logon.site.home / "var").glob("first-user*"))
    assert logon.refusals() == []


def test_refusals_look_alike_to_the_client_and_are_told_apart_in_the_journal(
    logon: Logon,
) -> None:
    texts = set()
    for user, password in [
        ("tapemaster", "wrong password"),
        ("nobody", PASSWORD),
        ("evil\nuser", PASSWORD),
    ]:
        with logon.connect(user, password) as client:
            with pytest.raises(redis.AuthenticationError) as refused:
                client.ping()
            texts.add(str(refused.value))
    assert texts == {"invalid username-password pair or user is disabled."}
    assert logon.refusals() == [
        ("tapemaster", "wrong_password"),
        ("nobody", "unknown_user"),
        ("evil\nuser", "unknown_user"),
    ]


def test_a_new_password_counts_at_once_and_the_old_one_no_more(logon: Logon) -> None:
    site = logon.site
    with logon.connect("tapemaster", PASSWORD) as client:
        assert client.ping()
    changed = site.cli("user", "passwd", "tapemaster", "--password-stdin", stdin="a new password\n")
    assert changed.returncode == 0, changed.stderr
    with logon.connect("tapemaster", "a new password") as client:
        assert client.ping()
    with logon.connect("tapemaster", PASSWORD) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


def test_many_connections_of_one_application_log_on_in_a_moment(logon: Logon) -> None:
    connections = 200
    answers: list[object] = []
    start = threading.Barrier(8)

    def work() -> None:
        start.wait(30)
        for _ in range(connections // 8):
            with logon.connect("tapemaster", PASSWORD) as client:
                answers.append(client.ping())

    threads = [threading.Thread(target=work) for _ in range(8)]
    begin_s = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == [True] * connections
    # Checked one by one they would take 200 x 50 ms on two threads; the bound is far from both.
    assert time.monotonic() - begin_s < 30
