"""Logon, protocol, names, the list of clients and how they are let go."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.engine import SmallAuth, SmallEngine, settings_for
from tests.support.wire import Error, Wire, packed, small_listener
from ttserver.listener import Listener
from ttserver.settings import ClientSettings

NOAUTH = Error("NOAUTH Authentication required.")
WRONGPASS = Error("WRONGPASS invalid username-password pair or user is disabled.")


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[Listener, SmallEngine]]:
    async with small_listener(tmp_path) as both:
        yield both


@pytest.fixture
def listener(served: tuple[Listener, SmallEngine]) -> Listener:
    return served[0]


@pytest.fixture
async def stranger(listener: Listener) -> Wire:
    """A client that is not logged on."""
    return Wire(listener)


@pytest.fixture
async def client(listener: Listener) -> Wire:
    return await Wire(listener).login()


def facts(line: bytes) -> dict[str, str]:
    """Read one line of CLIENT LIST."""
    return dict(fact.split("=", 1) for fact in line.decode().strip().split(" "))


# -- before the logon


@pytest.mark.parametrize(
    "said", ["GET a", "SET a 1", "INFO", "CLIENT LIST", "ECHO x", "RESET", "MULTI", "SELECT 0"]
)
async def test_nothing_goes_without_a_logon(stranger: Wire, said: str) -> None:
    assert await stranger.call(*said.split(" ")) == NOAUTH


async def test_what_goes_without_a_logon(stranger: Wire) -> None:
    assert await stranger.call("PING") == b"PONG"
    assert await stranger.call("PING", "hello") == b"hello"
    assert await stranger.call("COMMAND", "COUNT") > 30
    assert (await stranger.call("HELLO", 3)).startswith("NOAUTH HELLO must be called")
    assert await stranger.call("QUIT") == b"OK"
    assert await stranger.closed() == b""


async def test_what_was_sent_behind_an_auth_waits_for_it(stranger: Wire) -> None:
    answers = await stranger.pipeline(
        ["GET", "a"], ["AUTH", "fred", "secret"], ["SET", "a", 1], ["GET", "a"]
    )
    assert answers == [NOAUTH, b"OK", b"OK", b"1"]


async def test_wrong_passwords_and_unknown_users_look_the_same(stranger: Wire) -> None:
    for user, password in (
        ("fred", "wrong"),
        ("nobody", "secret"),
        (b"fr\xff", "secret"),
        ("", ""),
    ):
        assert await stranger.call("AUTH", user, password) == WRONGPASS
        assert await stranger.call("HELLO", 2, "AUTH", user, password) == WRONGPASS
    assert await stranger.call("GET", "a") == NOAUTH
    assert stranger.session.client is not None
    assert stranger.session.client.errors == 9


async def test_a_wrong_password_does_not_log_out(client: Wire) -> None:
    assert await client.call("AUTH", "fred", "wrong") == WRONGPASS
    assert await client.call("GET", "a") is None


async def test_auth_with_a_password_alone_is_explained(stranger: Wire) -> None:
    answer = await stranger.call("AUTH", "secret")
    assert answer.startswith("WRONGPASS AUTH needs a user and a password here")
    assert await stranger.call("AUTH", "a", "b", "c") == Error("ERR syntax error")


async def test_a_logon_that_was_not_looked_at(stranger: Wire, listener: Listener) -> None:
    assert isinstance(listener.server.auth, SmallAuth)
    listener.server.auth.busy = True
    answer = await stranger.call("AUTH", "fred", "secret")
    assert answer == Error("TRYAGAIN too many passwords are being checked")


# -- HELLO


async def test_hello_says_where_the_client_is(
    stranger: Wire, served: tuple[Listener, SmallEngine]
) -> None:
    answer = await stranger.call("HELLO", 3, "AUTH", "fred", "secret", "SETNAME", "loader")
    assert answer[b"server"] == b"ttserver"
    assert answer[b"proto"] == 3
    assert answer[b"mode"] == b"standalone"
    assert (answer[b"role"], answer[b"readonly"]) == (b"master", 0)
    assert answer[b"modules"] == []
    assert await stranger.call("CLIENT", "GETNAME") == b"loader"
    assert await stranger.call("CLIENT", "ID") == answer[b"id"]
    served[1].role = "replicant"
    answer = await stranger.call("HELLO")
    assert (answer[b"role"], answer[b"readonly"]) == (b"replica", 1)
    # protocol 2 again: a map is a flat array
    answer = await stranger.call("HELLO", 2)
    assert answer[:2] == [b"server", b"ttserver"]


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("HELLO 4", "NOPROTO unsupported protocol version"),
        ("HELLO x", "ERR Protocol version is not an integer or out of range"),
        ("HELLO 3 AUTH fred", "ERR Syntax error in HELLO option 'AUTH'"),
        ("HELLO 3 NONSENSE", "ERR Syntax error in HELLO option 'NONSENSE'"),
    ],
)
async def test_hello_that_is_not_understood(client: Wire, said: str, answer: str) -> None:
    assert await client.call(*said.split(" ")) == Error(answer)
    client.send(packed("GET", "absent"))
    assert (await client.reply()) is None
    assert client.pipe.written.endswith(b"$-1\r\n"), "still protocol 2"


async def test_null_and_errors_in_both_protocols(client: Wire) -> None:
    await client.call("GET", "absent")
    assert client.pipe.written.endswith(b"$-1\r\n")
    await client.call("HELLO", 3)
    await client.call("GET", "absent")
    assert client.pipe.written.endswith(b"_\r\n")


# -- the connection


async def test_small_talk(client: Wire) -> None:
    assert await client.pipeline(
        ["PING"],
        ["PING", "x"],
        ["PING", "x", "y"],
        ["ECHO", "y"],
        ["SELECT", 0],
        ["SELECT", 1],
        ["SELECT", "x"],
    ) == [
        b"PONG",
        b"x",
        Error("ERR wrong number of arguments for 'ping' command"),
        b"y",
        b"OK",
        Error("ERR DB index is out of range: there is one database, 0"),
        Error("ERR invalid DB index"),
    ]


async def test_quit_answers_what_came_before_and_nothing_behind(client: Wire) -> None:
    answers = await client.pipeline(["SET", "a", 1], ["QUIT"])
    client.send(packed("SET", "a", 2))
    assert answers == [b"OK", b"OK"]
    assert await client.closed() == b""


async def test_reset_is_a_new_beginning(client: Wire, listener: Listener) -> None:
    await client.call("HELLO", 3, "SETNAME", "x")
    await client.pipeline(["WATCH", "k"], ["MULTI"], ["SET", "a", 1])
    assert await client.pipeline(["RESET"], ["GET", "a"]) == [b"RESET", NOAUTH]
    await client.login()
    assert await client.pipeline(["CLIENT", "GETNAME"], ["EXEC"]) == [
        None,
        Error("ERR EXEC without MULTI"),
    ]
    assert client.session.client is not None
    assert client.session.client.watch is None


async def test_names(client: Wire) -> None:
    assert await client.call("CLIENT", "GETNAME") is None
    assert await client.call("CLIENT", "SETNAME", "loader-1") == b"OK"
    assert await client.call("CLIENT", "GETNAME") == b"loader-1"
    refused = Error("ERR Client names cannot contain spaces, newlines or special characters.")
    for name in (b"a b", b"a\n", b"\xff"):
        assert await client.call("CLIENT", "SETNAME", name) == refused
    assert await client.call("CLIENT", "SETNAME", "x" * 257) == Error(
        "ERR a client name has at most 256 bytes"
    )
    assert await client.call("CLIENT", "SETNAME", "") == b"OK"
    assert await client.call("CLIENT", "GETNAME") is None


async def test_client_info_tells_what_was_set(client: Wire) -> None:
    await client.call("CLIENT", "SETINFO", "LIB-NAME", "redis-py")
    await client.call("CLIENT", "SETINFO", "lib-ver", "1.2.3")
    await client.call("CLIENT", "SETNAME", "me")
    await client.call("WATCH", "k")
    await client.call("MULTI")
    await client.call("PING")
    await client.call("DISCARD")
    told = facts(await client.call("CLIENT", "INFO"))
    assert told["addr"] == "192.0.2.99:4711"
    assert told["laddr"] == "192.0.2.7:5000"
    assert told["user"] == "fred"
    assert (told["lib-name"], told["lib-ver"], told["name"]) == ("redis-py", "1.2.3", "me")
    assert (told["resp"], told["cmd"], told["multi"], told["watch"]) == (
        "2",
        "client|info",
        "-1",
        "0",
    )
    assert await client.call("CLIENT", "SETINFO", "LIB-NAME", "a b") == Error(
        "ERR lib-name cannot contain spaces, newlines or special characters."
    )
    assert await client.call("CLIENT", "SETINFO", "COLOUR", "red") == Error(
        "ERR Unrecognized option 'COLOUR'"
    )


async def test_client_list_and_its_filters(client: Wire, listener: Listener) -> None:
    other = await Wire(listener).login("tapemaster")
    stranger = Wire(listener)
    own, theirs = [await one.call("CLIENT", "ID") for one in (client, other)]
    lines = [facts(line) for line in (await client.call("CLIENT", "LIST")).splitlines()]
    assert [line["user"] for line in lines] == ["fred", "tapemaster", "(none)"]
    listed = await client.call("CLIENT", "LIST", "ID", theirs, 99, own)
    assert [int(facts(line)["id"]) for line in listed.splitlines()] == [theirs, own]
    assert await client.call("CLIENT", "LIST", "TYPE", "pubsub") == b""
    assert len((await client.call("CLIENT", "LIST", "TYPE", "normal")).splitlines()) == 3
    assert await client.call("CLIENT", "LIST", "TYPE", "odd") == Error(
        "ERR Unknown client type 'odd'"
    )
    assert await client.call("CLIENT", "LIST", "ID", "x") == Error("ERR Invalid client ID")
    assert (await client.call("CLIENT", "NONSENSE")).startswith(
        "ERR unknown subcommand 'NONSENSE': CLIENT has GETNAME, ID, INFO, KILL, LIST"
    )
    assert stranger.session.client is not None


# -- CLIENT KILL


async def test_only_an_administrator_ends_sessions(client: Wire) -> None:
    assert await client.call("CLIENT", "KILL", "ID", 1) == Error(
        "NOPERM User fred has no permissions to run the 'client|kill' command"
    )


async def test_kill_by_id_address_user_and_type(client: Wire, listener: Listener) -> None:
    admin = await Wire(listener).login("tapemaster")
    number = await client.call("CLIENT", "ID")
    assert await admin.call("CLIENT", "KILL", "ID", number, "USER", "nobody") == 0
    assert await admin.call("CLIENT", "KILL", "ID", number, "USER", "fred") == 1
    await client.closed()
    for filters in (["USER", "fred"], ["TYPE", "normal"], ["ADDR", "192.0.2.99:4711"]):
        victim = await Wire(listener).login()
        assert await admin.call("CLIENT", "KILL", *filters) == 1
        await victim.closed()
    assert await admin.call("CLIENT", "KILL", "192.0.2.1:1") == Error("ERR No such client")
    assert await admin.call("CLIENT", "KILL", "COLOUR", "red") == Error("ERR syntax error")
    assert await admin.call("CLIENT", "KILL", "ID", 1, "SKIPME") == Error("ERR syntax error")


async def test_an_administrator_may_end_the_own_session_and_hears_so(listener: Listener) -> None:
    admin = await Wire(listener).login("tapemaster")
    number = await admin.call("CLIENT", "ID")
    assert await admin.call("CLIENT", "KILL", "ID", number) == 0
    assert await admin.call("CLIENT", "KILL", "ID", number, "SKIPME", "no") == 1
    assert await admin.closed() == b""


# -- too many


async def test_one_client_too_many_is_told_so(tmp_path: Path) -> None:
    async with small_listener(tmp_path, settings_for(client=ClientSettings(max_clients=2))) as (
        listener,
        _,
    ):
        first, second, third = Wire(listener), Wire(listener), Wire(listener)
        assert await third.closed() == b"-ERR max number of clients reached\r\n"
        assert await first.call("QUIT") == b"OK"
        await first.closed()
        await second.login()
        fourth = await Wire(listener).login()
        assert await fourth.call("PING") == b"PONG"
        assert listener.server.totals.refused == 1
