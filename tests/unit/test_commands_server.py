"""COMMAND, INFO, ROLE, DBSIZE, TIME, CONFIG; and the patterns they and KEYS share."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
from redis._parsers.helpers import parse_info

from tests.support.engine import Refusal, SmallEngine
from tests.support.wire import Error, Wire, real_listener, small_listener
from ttserver.commands import TABLE
from ttserver.commands.docs import parse_usage
from ttserver.commands.glob import literal_prefix, matcher
from ttserver.commands.info import offset, split_address
from ttserver.commands.table import Command
from ttserver.listener import Listener
from ttserver.status import SiteStatus, SyncStatus


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[Listener, SmallEngine]]:
    async with small_listener(tmp_path) as both:
        yield both


@pytest.fixture
async def client(served: tuple[Listener, SmallEngine]) -> Wire:
    return await Wire(served[0]).login()


def parsed(text: bytes) -> dict[str, Any]:
    """Read INFO the way redis-py does."""
    return cast("dict[str, Any]", parse_info(text))  # type: ignore[no-untyped-call]


def site(
    name: str, role: str, lsn: tuple[int, int] | None, status: str = "connected"
) -> SiteStatus:
    return SiteStatus(name, 1, status, role, True, lsn, 0, 1.5, False, False)


# -- COMMAND


async def test_command_describes_every_command_the_same_way(client: Wire) -> None:
    everything = await client.call("COMMAND")
    assert len(everything) == await client.call("COMMAND", "COUNT") == len(TABLE)
    assert await client.call("COMMAND", "INFO") == everything
    assert [entry[0] for entry in everything] == await client.call("COMMAND", "LIST")
    names = [entry[0].decode() for entry in everything]
    assert {"get", "set", "range", "exec", "hello", "client"} <= set(names)


async def test_command_info_of_some(client: Wire) -> None:
    get, unknown, mset, kill = await client.call(
        "COMMAND", "INFO", "GET", "nonsense", "mset", "client|kill"
    )
    assert unknown is None
    assert get[:2] == [b"get", 2]
    assert get[2] == [b"readonly", b"fast"]
    assert get[3:6] == [1, 1, 1]
    assert mset[3:6] == [1, -1, 2]
    assert b"write" in mset[2]
    assert kill[0] == b"client|kill"
    assert b"admin" in kill[2]


async def test_command_docs_is_a_map(client: Wire) -> None:
    await client.call("HELLO", 3)
    docs = await client.call("COMMAND", "DOCS", "set", "nonsense", "client")
    assert list(docs) == [b"set", b"client"]
    assert docs[b"set"][b"summary"] == b"Sets the value of a key."
    arguments = docs[b"set"][b"arguments"]
    assert [one[b"name"] for one in arguments] == [b"key", b"value", b"condition", b"get"]
    assert arguments[2][b"type"] == b"oneof"
    assert docs[b"client"][b"subcommands"][b"client|kill"][b"group"] == b"connection"
    everything = await client.call("COMMAND", "DOCS")
    assert len(everything) == len(TABLE)


def every_command() -> list[Command]:
    """All that can be run: containers are only a name for theirs."""
    return [
        one
        for command in TABLE
        for one in (command.subcommands.values() if command.subcommands else [command])
    ]


# Its least argument is one of several optional ones; refused, so without a usage; and a single
# argument is taken only to explain that it needs two.
ODD_USAGES = {"client|kill", "config|set", "auth"}


@pytest.mark.parametrize("command", every_command(), ids=lambda command: command.name)
def test_usage_and_arity_say_the_same(command: Command) -> None:
    needed = [a for a in parse_usage(command.usage) if not is_optional(a)]
    words = sum(len(a.get("arguments", ())) or 1 for a in needed)
    least = abs(command.arity) - 1 - ("|" in command.name)
    assert words == least or command.name in ODD_USAGES
    assert command.summary.endswith(".")


def test_the_page_for_clients_names_every_command() -> None:
    page = (Path(__file__).parents[2] / "docs" / "CLIENTS.md").read_text(encoding="utf-8")
    named = {word.upper() for words in re.findall(r"`([^`]+)`", page) for word in words.split()}
    assert {word.upper() for one in every_command() for word in one.name.split("|")} <= named


def is_optional(argument: dict[str, Any]) -> bool:
    return "optional" in [flag.text for flag in argument.get("flags", [])]


# -- INFO and ROLE


async def test_info_of_a_master(client: Wire, served: tuple[Listener, SmallEngine]) -> None:
    served[1].sites = [
        site("192.0.2.7:5010", "replicant", None),
        site("192.0.2.8:5010", "replicant", (2, 100)),
        site("[2001:db8::1]:5010", "replicant", None),
        site("192.0.2.9:5010", "replicant", (1, 1), status="unreachable"),
    ]
    told = parsed(await client.call("INFO", "replication"))
    assert told["role"] == "master"
    assert told["connected_slaves"] == 2
    assert told["slave0"] == {
        "ip": "192.0.2.8",
        "port": 5010,
        "state": "online",
        "offset": offset((2, 100)),
        "lag": 1,
    }
    assert told["slave1"]["ip"] == "2001:db8::1"
    assert told["master_repl_offset"] == offset((1, 28))
    assert await client.call("ROLE") == [
        b"master",
        offset((1, 28)),
        [
            [b"192.0.2.8", b"5010", str(offset((2, 100))).encode()],
            [b"2001:db8::1", b"5010", b"0"],
        ],
    ]


async def test_info_of_a_replicant(client: Wire, served: tuple[Listener, SmallEngine]) -> None:
    engine = served[1]
    engine.role, engine.notice = "replicant", "this site is a read-only\r\nreplicant"
    engine.sites = [site("192.0.2.1:5010", "master", None)]
    told = parsed(await client.call("INFO", "replication"))
    assert told["role"] == "slave"
    assert (told["master_host"], told["master_port"]) == ("192.0.2.1", 5010)
    assert told["master_link_status"] == "up"
    assert told["master_last_io_seconds_ago"] == 1
    assert told["ttserver_notice"] == "this site is a read-only  replicant"
    assert (await client.call("ROLE"))[:4] == [b"slave", b"192.0.2.1", 5010, b"connected"]
    engine.master_client_address = "192.0.2.1:5000"
    assert (await client.call("ROLE"))[2] == 5000
    engine.sync = SyncStatus("receiving pages", 1, 10, 4096, None)
    assert (await client.call("ROLE"))[3] == b"sync"


@pytest.mark.parametrize("role", ["replicant", "electing", "none"])
async def test_role_without_a_master(
    client: Wire, served: tuple[Listener, SmallEngine], role: str
) -> None:
    served[1].role, served[1].master = role, None
    assert await client.call("ROLE") == [b"slave", b"", 0, b"connect", offset((1, 28))]
    assert parsed(await client.call("INFO"))["master_link_status"] == "down"


async def test_info_sections(client: Wire) -> None:
    await client.call("SET", "a", 1)
    everything = await client.call("INFO")
    told = parsed(everything)
    assert told["redis_mode"] == "standalone"
    assert told["connected_clients"] == 1
    assert told["total_writes_processed"] == 1
    assert b"# Keyspace" not in everything, "counting all keys is for who asks"
    for sections in (["keyspace"], ["everything"], ["KEYSPACE", "server"]):
        assert parsed(await client.call("INFO", *sections))["db0"]["keys"] == 1
    assert await client.call("INFO", "nonsense") == b""
    assert (await client.call("INFO", "clients", "server")).startswith(b"# Server\r\n")


async def test_info_is_text_for_people_in_protocol_3(client: Wire) -> None:
    await client.call("HELLO", 3)
    await client.call("INFO", "server")
    assert b"\r\ntxt:# Server\r\n" in client.pipe.written


def test_offsets_grow_with_the_log() -> None:
    lsns = [(1, 28), (1, 29), (1, 10 * 2**20), (2, 28), (70_000, 5)]
    numbers = [offset(lsn) for lsn in lsns]
    assert numbers == sorted(numbers)
    assert numbers[-1] < 2**63
    assert split_address("host") == ("", 0)
    assert split_address("[::1]:5000") == ("::1", 5000)


# -- the rest


async def test_dbsize_counts_what_was_written_before_it(client: Wire) -> None:
    assert await client.call("DBSIZE") == 0
    answers = await client.pipeline(["MSET", "a", 1, "b", 2], ["DBSIZE"], ["DEL", "a"], ["DBSIZE"])
    assert answers == [b"OK", 2, 1, 1]


async def test_time_is_the_time(client: Wire) -> None:
    before = time.time()
    seconds, micros = await client.call("TIME")
    assert before - 1e-3 <= int(seconds) + int(micros) / 1e6 <= time.time() + 1e-3


async def test_config_get_by_pattern(client: Wire) -> None:
    assert await client.call("CONFIG", "GET", "save") == [b"save", b""]
    assert await client.call("CONFIG", "GET", "APPENDONLY") == [b"appendonly", b"yes"]
    assert await client.call("CONFIG", "GET", "nonsense") == []
    assert await client.call("CONFIG", "GET", "storage.*") == [b"storage.durability", b"sync"]
    await client.call("HELLO", 3)
    both = await client.call("CONFIG", "GET", "save", "client.*")
    assert both == {b"save": b"", b"client.max_clients": b"1000"}
    assert (await client.call("CONFIG", "SET", "save", "60 1")).startswith(
        "ERR settings are not changed over this port: edit DB_CONFIG or ttserver.toml"
    )


async def test_config_get_shows_the_settings_of_the_server(tmp_path: Path) -> None:
    async with real_listener(tmp_path) as (listener, _):
        client = await Wire(listener).login()
        assert await client.call("CONFIG", "GET", "limits.key_bytes_max") == [
            b"limits.key_bytes_max",
            b"65536",
        ]


async def test_a_site_that_loads_says_so(
    client: Wire, served: tuple[Listener, SmallEngine]
) -> None:
    served[1].refuse_reads = Refusal("this site has no complete copy yet", code="LOADING")
    loading = Error("LOADING this site has no complete copy yet")
    for said in ("GET a", "MGET a b", "KEYS *", "SCAN 0", "DBSIZE", "RANGE - + LIMIT 1"):
        assert await client.call(*said.split(" ")) == loading
    assert await client.pipeline(["MULTI"], ["GET", "a"], ["EXEC"]) == [b"OK", b"QUEUED", loading]
    assert parsed(await client.call("INFO"))["loading"] == 1
    assert await client.call("PING") == b"PONG"


# -- patterns


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        (b"*", [b"", b"a", b"\n"], []),
        (b"a*", [b"a", b"ab"], [b"", b"ba"]),
        (b"*a", [b"a", b"ba"], [b"ab"]),
        (b"a*b*c", [b"abc", b"axxbyyc", b"abbcc"], [b"ab", b"acb"]),
        (b"**a**", [b"a", b"xax"], [b"x"]),
        (b"a?c", [b"abc", b"a\nc", b"a\xffc"], [b"ac", b"abbc"]),
        (b"[abc]x", [b"ax", b"cx"], [b"dx", b"x"]),
        (b"[a-c]", [b"a", b"b", b"c"], [b"d", b"-"]),
        (b"[c-a]", [b"b"], [b"d"]),
        (b"[^a-c]", [b"d", b"^"], [b"a", b""]),
        (b"[a\\]b]", [b"]", b"a"], [b"\\"]),
        (b"[abc", [b"a", b"c"], [b"[abc"]),
        (b"a[]b", [], [b"ab", b"a[]b"]),
        (b"\\*", [b"*"], [b"a", b"\\*"]),
        (b"a\\", [b"a\\"], [b"a"]),
        (b"a.b", [b"a.b"], [b"axb"]),
        (b"", [b""], [b"a"]),
    ],
)
def test_patterns(pattern: bytes, matching: list[bytes], others: list[bytes]) -> None:
    match = matcher(pattern)
    assert [key for key in matching if not match(key)] == []
    assert [key for key in others if match(key)] == []


def test_a_hostile_pattern_costs_no_more_than_its_length() -> None:
    match = matcher(b"a*" * 50 + b"b")
    began = time.perf_counter()
    assert not match(b"a" * 2000)
    assert time.perf_counter() - began < 1.0


@pytest.mark.parametrize(
    ("pattern", "prefix"),
    [(b"vol:*", b"vol:"), (b"*", b""), (b"a?b", b"a"), (b"a\\*b*", b"a*b"), (b"abc", b"abc")],
)
def test_fixed_beginnings(pattern: bytes, prefix: bytes) -> None:
    assert literal_prefix(pattern) == prefix


# -- FAILOVER


async def test_failover_hands_over_and_answers_when_it_is_done(
    served: tuple[Listener, SmallEngine],
) -> None:
    listener, engine = served
    client = await Wire(listener).login("tapemaster")
    assert await client.call("FAILOVER") == b"OK"
    assert await client.call("FAILOVER", "to", "db2", "5000", "timeout", "1500") == b"OK"
    assert engine.switchovers == [(None, 30.0), (("db2", 5000), 1.5)]
    engine.refuse_switchover = Refusal("db2:5010 has priority 0", code="ERR")
    refused = await client.call("FAILOVER")
    assert refused == Error("ERR db2:5010 has priority 0")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("TO db2", "ERR syntax error"),
        ("TO db2 0", "ERR syntax error"),
        ("TO db2 65536", "ERR Invalid port"),
        ("TO db2 5000 TO db3 5000", "ERR syntax error"),
        ("TIMEOUT x", "ERR FAILOVER timeout must be greater than 0"),
        ("TO db2 5000 FORCE", "ERR FORCE is not supported"),
        ("ABORT", "ERR ABORT is not supported"),
        ("NOW", "ERR syntax error"),
    ],
)
async def test_failover_takes_no_other_words(
    served: tuple[Listener, SmallEngine], words: str, said: str
) -> None:
    listener, engine = served
    client = await Wire(listener).login("tapemaster")
    refused = await client.call("FAILOVER", *words.split())
    assert isinstance(refused, Error)
    assert str(refused).startswith(said)
    assert not engine.switchovers


async def test_failover_is_for_administrators_on_the_master(
    served: tuple[Listener, SmallEngine], client: Wire
) -> None:
    listener, engine = served
    refused = await client.call("FAILOVER")
    assert isinstance(refused, Error)
    assert str(refused).startswith("NOPERM")
    engine.role = "replicant"
    refused = await (await Wire(listener).login("tapemaster")).call("FAILOVER")
    assert refused == Error("ERR FAILOVER is not valid when server is a replica.")
