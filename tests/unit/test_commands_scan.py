"""SCAN: every key exactly once, cursors that belong to somebody and are given up one day."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.wire import Error, Wire, small_listener
from ttserver.commands.cursors import CURSORS_PER_CLIENT_MAX, Cursors
from ttserver.listener import Listener

EXPIRED = Error("ERR this cursor has expired or is not yours: start again with SCAN 0")


@pytest.fixture
async def listener(tmp_path: Path) -> AsyncIterator[Listener]:
    async with small_listener(tmp_path) as (listener, _):
        yield listener


@pytest.fixture
async def client(listener: Listener) -> Wire:
    return await Wire(listener).login()


async def walk(client: Wire, *options: object) -> list[bytes]:
    found: list[bytes] = []
    cursor: object = 0
    while True:
        cursor, keys = await client.call("SCAN", cursor, *options)
        found += keys
        if cursor == b"0":
            return found


async def fill(client: Wire, count: int) -> list[bytes]:
    names = [b"vol:%03d" % number for number in range(count)]
    others = [b"rep:%03d" % number for number in range(count)] + [b"vol:", b"vom"]
    for name in names + others:
        await client.call("SET", name, "x")
    return sorted(names + others)


@pytest.mark.parametrize("count", [1, 7, 10, 1000])
async def test_every_key_once_and_in_order(client: Wire, count: int) -> None:
    everything = await fill(client, 23)
    assert await walk(client, "COUNT", count) == everything
    assert await client.call("KEYS", "*") == everything


async def test_a_pattern_with_a_fixed_beginning_touches_only_such_keys(client: Wire) -> None:
    everything = await fill(client, 23)
    wanted = [key for key in everything if key.startswith(b"vol:")]
    assert await walk(client, "MATCH", "vol:*", "COUNT", 5) == wanted
    assert await walk(client, "MATCH", "vol:*") == wanted
    # 24 keys: with COUNT 24 the first call already meets the last of them.
    cursor, keys = await client.call("SCAN", 0, "MATCH", "vol:*", "COUNT", 25)
    assert (cursor, keys) == (b"0", wanted)


async def test_other_patterns_filter(client: Wire) -> None:
    everything = await fill(client, 12)
    assert await walk(client, "MATCH", "*:01?") == [
        key for key in everything if key[3:6] == b":01" and len(key) == 7
    ]
    assert await walk(client, "MATCH", "nothing*") == []
    assert await walk(client, "TYPE", "string") == everything
    assert await walk(client, "TYPE", "hash") == []


async def test_a_cursor_may_be_used_twice_and_from_another_connection(
    client: Wire, listener: Listener
) -> None:
    everything = await fill(client, 10)
    cursor, first = await client.call("SCAN", 0, "COUNT", 5)
    assert first == everything[:5]
    pooled = await Wire(listener).login()
    for one in (client, pooled, client):
        _, second = await one.call("SCAN", cursor, "COUNT", 5)
        assert second == everything[5:10]


async def test_a_cursor_is_no_use_to_another_user(client: Wire, listener: Listener) -> None:
    await fill(client, 10)
    cursor, _ = await client.call("SCAN", 0)
    stranger = await Wire(listener).login("tapemaster")
    assert await stranger.call("SCAN", cursor) == EXPIRED


async def test_the_oldest_cursors_of_a_client_are_given_up(client: Wire) -> None:
    await fill(client, 10)
    cursors = [(await client.call("SCAN", 0))[0] for _ in range(CURSORS_PER_CLIENT_MAX + 1)]
    assert len(set(cursors)) == len(cursors)
    assert await client.call("SCAN", cursors[0]) == EXPIRED
    assert (await client.call("SCAN", cursors[-1]))[1]


async def test_cursors_go_with_their_client(client: Wire, listener: Listener) -> None:
    await fill(client, 10)
    cursor, _ = await client.call("SCAN", 0)
    assert await client.call("QUIT") == b"OK"
    await client.closed()
    later = await Wire(listener).login()
    assert await later.call("SCAN", cursor) == EXPIRED
    assert len(listener.server.cursors) == 0


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("SCAN x", "ERR invalid cursor"),
        ("SCAN -1", "ERR invalid cursor"),
        (f"SCAN {2**64}", "ERR invalid cursor"),
        (f"SCAN {2**64 - 1}", EXPIRED),
        ("SCAN 0 COUNT 0", "ERR syntax error"),
        ("SCAN 0 COUNT x", "ERR value is not an integer or out of range"),
        ("SCAN 0 MATCH", "ERR syntax error"),
        ("SCAN 0 LIMIT 5", "ERR syntax error"),
    ],
)
async def test_what_scan_does_not_understand(client: Wire, said: str, answer: str) -> None:
    assert await client.call(*said.split(" ")) == Error(answer)


async def test_scan_in_a_transaction(client: Wire) -> None:
    everything = await fill(client, 10)
    await client.pipeline(["MULTI"], ["SCAN", 0, "COUNT", 5], ["SCAN", 99], ["SET", "zz", 1])
    (cursor, first), unknown, done = await client.call("EXEC")
    assert (first, unknown, done) == (everything[:5], EXPIRED, b"OK")
    assert (await client.call("SCAN", cursor, "COUNT", 5))[1] == everything[5:10]


def test_numbers_of_cursors_fit_any_client_library() -> None:
    cursors = Cursors()
    numbers = [cursors.add(1, "fred", b"%d" % n) for n in range(CURSORS_PER_CLIENT_MAX)]
    assert all(0 < number < 2**63 for number in numbers)
    assert cursors.place(numbers[3], "fred") == b"3"
