"""The key commands, over the small engine and over the server's own: same questions, same answers.

A row is a pipeline and its replies, so a table reads like a conversation.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import settings_for
from tests.support.wire import Error, Wire, real_listener, small_listener
from ttserver.settings import LimitSettings

Row = tuple[str, Any]
INT = Error("ERR value is not an integer or out of range")
OVERFLOW = Error("ERR increment or decrement would overflow")
SYNTAX = Error("ERR syntax error")
MAX = 2**63 - 1
MIN = -(2**63)


@pytest.fixture(params=["small", "real"])
async def client(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Wire]:
    """A client that is logged on."""
    serve = small_listener if request.param == "small" else real_listener
    limits = LimitSettings(key_bytes_max=100, bulk_bytes_max=1000, reply_bytes_max=4000)
    async with serve(tmp_path, settings_for(limits)) as (listener, _):
        yield await Wire(listener).login()


CONVERSATIONS: dict[str, list[Row]] = {
    "a value is any bytes": [
        ("SET k v", b"OK"),
        ("GET k", b"v"),
        ("get k", b"v"),
        ("GeT k", b"v"),
        ("GET absent", None),
        ("SET k ", b"OK"),
        ("GET k", b""),
        ("STRLEN k", 0),
        ("EXISTS k", 1),
    ],
    "set NX, XX, GET": [
        ("SET k 1 XX", None),
        ("GET k", None),
        ("SET k 1 NX", b"OK"),
        ("SET k 2 NX", None),
        ("SET k 2 xx", b"OK"),
        ("SET k 3 GET", b"2"),
        ("SET k 4 NX GET", b"3"),
        ("GET k", b"3"),
        ("SET k 4 XX GET", b"3"),
        ("GET k", b"4"),
        ("SET n 1 NX GET", None),
        ("GET n", b"1"),
        ("SET x 1 XX GET", None),
        ("GET x", None),
    ],
    "options of set that mean nothing here are refused, and nothing is set": [
        ("SET k v EX 10", Error("ERR SET option EX is not supported: keys here never expire")),
        ("SET k v px 10", Error("ERR SET option PX is not supported: keys here never expire")),
        (
            "SET k v KEEPTTL",
            Error("ERR SET option KEEPTTL is not supported: keys here never expire"),
        ),
        ("SET k v NX XX", SYNTAX),
        ("SET k v NONSENSE", SYNTAX),
        ("EXISTS k", 0),
    ],
    "setnx, getdel, del, exists": [
        ("SETNX k 1", 1),
        ("SETNX k 2", 0),
        ("GETDEL k", b"1"),
        ("GETDEL k", None),
        ("MSET a 1 b 2 c 3", b"OK"),
        ("EXISTS a b a z", 3),
        ("DEL a z b", 2),
        ("MGET a b c z", [None, None, b"3", None]),
        ("DEL c c", 1),
    ],
    "mset": [
        ("MSET a 1 a 2", b"OK"),
        ("GET a", b"2"),
        ("MSET a 1 b", Error("ERR wrong number of arguments for 'mset' command")),
        ("GET a", b"2"),
    ],
    "append and strlen": [
        ("APPEND k ab", 2),
        ("APPEND k cde", 5),
        ("GET k", b"abcde"),
        ("STRLEN k", 5),
        ("STRLEN absent", 0),
    ],
    "counters": [
        ("INCR n", 1),
        ("INCRBY n 41", 42),
        ("DECR n", 41),
        ("DECRBY n 50", -9),
        ("GET n", b"-9"),
        ("INCRBY n -1", -10),
        (f"SET n {MAX}", b"OK"),
        ("INCR n", OVERFLOW),
        ("GET n", str(MAX).encode()),
        (f"SET n {MIN}", b"OK"),
        ("DECR n", OVERFLOW),
        (f"DECRBY n {MIN}", Error("ERR decrement would overflow")),
        (f"INCRBY n {MAX}", -1),
        (f"INCRBY n {MAX + 1}", INT),
        ("INCRBY n 1.5", INT),
        ("INCRBY n +1", INT),
        ("INCRBY n 01", INT),
        ("SET n 12x", b"OK"),
        ("INCR n", INT),
        ("SET n 012", b"OK"),
        ("INCR n", INT),
        ("SET n ", b"OK"),
        ("INCR n", INT),
    ],
    "type": [("SET k v", b"OK"), ("TYPE k", b"string"), ("TYPE absent", b"none")],
    "wrong numbers of arguments": [
        ("GET", Error("ERR wrong number of arguments for 'get' command")),
        ("GET a b", Error("ERR wrong number of arguments for 'get' command")),
        ("SET a", Error("ERR wrong number of arguments for 'set' command")),
        ("DEL", Error("ERR wrong number of arguments for 'del' command")),
    ],
    "what is no command": [
        (
            "LPUSH list x",
            Error("ERR unknown command 'LPUSH', with args beginning with: 'list' 'x' "),
        ),
        ("MIGRATE", Error("ERR unknown command 'MIGRATE', with args beginning with: ")),
    ],
    "range": [
        ("MSET a 1 b 2 c 3 d 4", b"OK"),
        ("RANGE b c", [b"b", b"2", b"c", b"3"]),
        ("RANGE - +", [b"a", b"1", b"b", b"2", b"c", b"3", b"d", b"4"]),
        ("RANGE - b", [b"a", b"1", b"b", b"2"]),
        ("RANGE bb +", [b"c", b"3", b"d", b"4"]),
        ("RANGE - + LIMIT 1", [b"a", b"1"]),
        ("RANGE - + limit 2 rev", [b"d", b"4", b"c", b"3"]),
        ("RANGE - + REV LIMIT 0", []),
        ("RANGE b c REV", [b"c", b"3", b"b", b"2"]),
        ("RANGE c b", []),
        ("RANGE - + LIMIT -1", Error("ERR LIMIT must not be negative")),
        ("RANGE - + LIMIT", SYNTAX),
        ("RANGE - + LIMIT x", INT),
        ("RANGE - + SIDEWAYS", SYNTAX),
        ("RANGE a", Error("ERR wrong number of arguments for 'range' command")),
    ],
    "keys come in byte order": [
        ("MSET b 1 a 1 ab 1 B 1", b"OK"),
        ("KEYS *", [b"B", b"a", b"ab", b"b"]),
        ("KEYS a*", [b"a", b"ab"]),
        ("KEYS a", [b"a"]),
        ("KEYS ?", [b"B", b"a", b"b"]),
        ("KEYS [^b]", [b"B", b"a"]),
        ("KEYS nothing*", []),
    ],
}


@pytest.mark.parametrize("rows", CONVERSATIONS.values(), ids=CONVERSATIONS)
async def test_one_command_at_a_time(client: Wire, rows: list[Row]) -> None:
    for said, answer in rows:
        assert (said, await client.call(*said.split(" "))) == (said, answer)


@pytest.mark.parametrize("rows", CONVERSATIONS.values(), ids=CONVERSATIONS)
async def test_as_one_pipeline(client: Wire, rows: list[Row]) -> None:
    commands = [said.split(" ") for said, _ in rows]
    assert await client.pipeline(*commands) == [answer for _, answer in rows]


async def test_any_byte_may_be_in_a_key_and_a_value(client: Wire) -> None:
    every = bytes(range(256))
    key = every[:100]
    assert await client.call("SET", key, every) == b"OK"
    assert await client.call("GET", key) == every
    assert await client.call("RANGE", key, key) == [key, every]


async def test_the_empty_key_is_a_key_like_any_other(client: Wire) -> None:
    assert await client.call("SET", "", "nameless") == b"OK"
    assert await client.pipeline(["GET", ""], ["EXISTS", ""], ["KEYS", "*"]) == [
        b"nameless",
        1,
        [b""],
    ]
    assert await client.call("SCAN", 0) == [b"0", [b""]]
    assert await client.call("RANGE", "", "a") == [b"", b"nameless"]
    assert await client.call("DEL", "") == 1


async def test_a_key_is_no_longer_than_the_limit(client: Wire) -> None:
    refused = Error("ERR key is longer than 100 bytes (key_bytes_max)")
    assert await client.call("SET", "k" * 100, 1) == b"OK"
    assert await client.call("SET", "k" * 101, 1) == refused
    assert await client.call("MSET", "a", 1, "k" * 101, 1) == refused
    assert await client.call("GET", "a") is None
    assert await client.call("GET", "k" * 101) is None


async def test_append_makes_nothing_longer_than_an_argument_may_be(client: Wire) -> None:
    assert await client.call("SET", "k", "x" * 600) == b"OK"
    answer = await client.call("APPEND", "k", "y" * 600)
    assert answer == Error("ERR string exceeds maximum allowed size (bulk_bytes_max)")
    assert await client.call("STRLEN", "k") == 600


@pytest.mark.parametrize(
    "asked", ["MGET a b c d e", "KEYS *", "RANGE - +", "RANGE - + LIMIT 100 REV"]
)
async def test_a_reply_is_whole_or_an_error(client: Wire, asked: str) -> None:
    for letter in "abcde":
        await client.call("SET", letter, letter * 1000)
    for number in range(100):
        await client.call("SET", f"key{number}".ljust(50), number)
    answer = await client.call(*asked.split(" "))
    assert answer == Error("ERR the reply would be longer than 4000 bytes: ask for less at once")


async def test_a_long_range_comes_whole_and_in_order(client: Wire) -> None:
    names = [b"%04d" % number for number in range(120)]
    await client.pipeline(*[["SET", name, b""] for name in names])
    whole = await client.call("RANGE", "-", "+", "LIMIT", 110)
    assert whole[::2] == names[:110]
    back = await client.call("RANGE", "-", "+", "REV", "LIMIT", 110)
    assert back[::2] == names[:-111:-1]
