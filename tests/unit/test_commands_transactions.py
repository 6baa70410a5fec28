"""MULTI, EXEC, DISCARD, WATCH over both engines; and what an engine that refuses does to them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.engine import Refusal, SmallEngine, settings_for
from tests.support.wire import Error, Wire, real_listener, small_listener
from ttserver.listener import Listener
from ttserver.settings import LimitSettings

READONLY = Refusal(
    "write refused: this site is a replicant (master is 192.0.2.1:5000, generation 3)",
    code="READONLY",
)
ABORTED = Error("EXECABORT Transaction discarded because of previous errors.")
LIMITS = LimitSettings(multi_commands_max=5, multi_bytes_max=500, reply_bytes_max=4000)


@pytest.fixture(params=["small", "real"])
async def listener(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Listener]:
    serve = small_listener if request.param == "small" else real_listener
    async with serve(tmp_path, settings_for(LIMITS)) as (listener, _):
        yield listener


@pytest.fixture
async def client(listener: Listener) -> Wire:
    return await Wire(listener).login()


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[tuple[Wire, SmallEngine]]:
    """A client of the small engine, and the engine."""
    async with small_listener(tmp_path, settings_for(LIMITS)) as (listener, engine):
        yield await Wire(listener).login(), engine


async def test_all_commands_of_a_transaction_and_their_replies(client: Wire) -> None:
    assert await client.pipeline(
        ["MULTI"],
        ["SET", "a", 1],
        ["INCR", "a"],
        ["GET", "a"],
        ["GET", "b"],
        ["EXEC"],
        ["GET", "a"],
    ) == [b"OK", *[b"QUEUED"] * 4, [b"OK", 2, b"2", None], b"2"]


async def test_a_command_that_fails_leaves_the_others(client: Wire) -> None:
    await client.pipeline(["MULTI"], ["SET", "a", "x"], ["INCR", "a"], ["SET", "b", 1])
    assert await client.call("EXEC") == [
        b"OK",
        Error("ERR value is not an integer or out of range"),
        b"OK",
    ]
    assert await client.call("MGET", "a", "b") == [b"x", b"1"]


@pytest.mark.parametrize(
    ("bad", "answer"),
    [
        (["NONSENSE"], "ERR unknown command 'NONSENSE', with args beginning with: "),
        (["GET"], "ERR wrong number of arguments for 'get' command"),
        (["DBSIZE"], "ERR Command not allowed inside a transaction"),
        (["WAIT", 1, 1], "ERR Command not allowed inside a transaction"),
        (
            ["CLIENT", "KILL", "ID", 1],
            "NOPERM User fred has no permissions to run the 'client|kill' command",
        ),
    ],
)
async def test_what_cannot_be_queued_refuses_the_whole(
    client: Wire, bad: list[object], answer: str
) -> None:
    assert await client.pipeline(["MULTI"], ["SET", "a", 1], bad, ["EXEC"], ["GET", "a"]) == [
        b"OK",
        b"QUEUED",
        Error(answer),
        ABORTED,
        None,
    ]


async def test_words_out_of_place(client: Wire) -> None:
    assert await client.call("EXEC") == Error("ERR EXEC without MULTI")
    assert await client.call("DISCARD") == Error("ERR DISCARD without MULTI")
    assert await client.pipeline(
        ["MULTI"], ["MULTI"], ["WATCH", "k"], ["SET", "a", 1], ["EXEC"]
    ) == [
        b"OK",
        Error("ERR MULTI calls can not be nested"),
        Error("ERR WATCH inside MULTI is not allowed"),
        b"QUEUED",
        [b"OK"],
    ]


async def test_discard_forgets(client: Wire) -> None:
    assert await client.pipeline(["MULTI"], ["SET", "a", 1], ["DISCARD"], ["GET", "a"]) == [
        b"OK",
        b"QUEUED",
        b"OK",
        None,
    ]


async def test_an_empty_transaction_and_one_without_keys(client: Wire) -> None:
    assert await client.pipeline(["MULTI"], ["EXEC"]) == [b"OK", []]
    await client.pipeline(["MULTI"], ["PING"], ["ECHO", "x"], ["SELECT", 1])
    assert await client.call("EXEC") == [
        b"PONG",
        b"x",
        Error("ERR DB index is out of range: there is one database, 0"),
    ]


async def test_local_commands_and_writes_keep_their_order(client: Wire) -> None:
    await client.pipeline(["MULTI"], ["PING"], ["SET", "a", 1], ["ECHO", "x"], ["GET", "a"])
    assert await client.call("EXEC") == [b"PONG", b"OK", b"x", b"1"]


async def test_watch_stops_an_exec_after_a_change(client: Wire, listener: Listener) -> None:
    other = await Wire(listener).login()
    await client.call("SET", "k", 1)
    await client.pipeline(["WATCH", "k", "l"], ["GET", "k"])
    await other.call("SET", "l", 2)
    assert await client.pipeline(["MULTI"], ["SET", "k", 9], ["EXEC"]) == [b"OK", b"QUEUED", None]
    assert await client.call("GET", "k") == b"1"
    # the keys are forgotten by an EXEC, whatever became of it
    await other.call("SET", "k", 3)
    assert await client.pipeline(["MULTI"], ["SET", "k", 9], ["EXEC"]) == [
        b"OK",
        b"QUEUED",
        [b"OK"],
    ]


async def test_watch_also_guards_a_transaction_that_only_reads(
    client: Wire, listener: Listener
) -> None:
    other = await Wire(listener).login()
    await client.call("WATCH", "k")
    await other.call("SET", "k", 2)
    assert await client.pipeline(["MULTI"], ["GET", "k"], ["EXEC"]) == [b"OK", b"QUEUED", None]
    await client.call("WATCH", "k")
    await other.call("SET", "k", 3)
    assert await client.pipeline(["MULTI"], ["PING"], ["EXEC"]) == [b"OK", b"QUEUED", None]
    assert client.session.client is not None
    assert client.session.client.watch is None


@pytest.mark.parametrize("between", [["UNWATCH"], ["MULTI"], ["WATCH", "other"]])
async def test_what_ends_a_watch_and_what_does_not(
    client: Wire, listener: Listener, between: list[str]
) -> None:
    other = await Wire(listener).login()
    await client.call("WATCH", "k")
    await other.call("SET", "k", 2)
    await client.call(*between)
    if between == ["MULTI"]:
        await client.call("DISCARD")
    answer = (await client.pipeline(["MULTI"], ["SET", "k", 9], ["EXEC"]))[-1]
    assert answer == (None if between[0] == "WATCH" else [b"OK"])


async def test_a_watched_key_that_nobody_changes(client: Wire, listener: Listener) -> None:
    other = await Wire(listener).login()
    await client.call("WATCH", "k")
    await other.call("SET", "l", 2)
    await other.call("INCR", "l")
    assert (await client.pipeline(["MULTI"], ["SET", "k", 9], ["EXEC"]))[-1] == [b"OK"]


async def test_the_next_watch_knows_nothing_of_the_last_one(
    client: Wire, listener: Listener
) -> None:
    other = await Wire(listener).login()
    for end in (["EXEC"], ["DISCARD"]):
        await client.pipeline(["WATCH", "old"], ["MULTI"], end, ["WATCH", "k"])
        await other.call("INCR", "old")
        assert (await client.pipeline(["MULTI"], ["SET", "k", 9], ["EXEC"]))[-1] == [b"OK"]


async def test_a_transaction_that_only_reads_sees_the_writes_before_it(client: Wire) -> None:
    said: list[list[object]] = []
    for number in range(20):
        said += [["SET", "k", number], ["MULTI"], ["GET", "k"], ["EXEC"]]
    answers = await client.pipeline(*said)
    assert answers[3::4] == [[str(number).encode()] for number in range(20)]


async def test_ones_own_earlier_write_is_no_change_behind_ones_back(client: Wire) -> None:
    assert (
        await client.pipeline(["SET", "k", 1], ["WATCH", "k"], ["MULTI"], ["INCR", "k"], ["EXEC"])
    )[-1] == [2]


async def test_transactions_have_an_end(client: Wire) -> None:
    too_long = Error("ERR the transaction is too long for multi_commands_max, _bytes_max")
    answers = await client.pipeline(["MULTI"], *[["SET", "a", 1]] * 6, ["EXEC"])
    assert answers[-3:] == [b"QUEUED", too_long, ABORTED]
    answers = await client.pipeline(["MULTI"], ["SET", "a", "x" * 600], ["PING"], ["EXEC"])
    assert answers[1:] == [too_long, too_long, ABORTED]
    assert await client.call("GET", "a") is None


async def test_an_exec_that_answers_too_much_still_writes_and_says_so(client: Wire) -> None:
    for _ in range(8):
        await client.call("APPEND", "a", "x" * 400)
    await client.pipeline(["MULTI"], ["GET", "a"], ["SET", "b", 1], ["GET", "a"])
    first, wrote, second = await client.call("EXEC")
    assert (len(first), wrote) == (3200, b"OK")
    assert second == Error("ERR the reply would be longer than 4000 bytes: ask for less at once")
    assert await client.call("GET", "b") == b"1"


# -- with an engine that refuses


async def test_a_transaction_that_only_reads_works_on_a_replicant(
    small: tuple[Wire, SmallEngine],
) -> None:
    client, engine = small
    await client.call("SET", "a", 1)
    engine.refuse_writes = READONLY
    await client.pipeline(["MULTI"], ["GET", "a"], ["SCAN", 0], ["PING"])
    assert await client.call("EXEC") == [b"1", [b"0", [b"a"]], b"PONG"]
    await client.pipeline(["MULTI"], ["GET", "a"], ["SET", "a", 2])
    assert await client.call("EXEC") == Error(f"READONLY {READONLY}")
    assert await client.call("PING") == b"PONG"
    assert await client.call("GET", "a") == b"1"


async def test_reads_of_one_exec_see_one_state(small: tuple[Wire, SmallEngine]) -> None:
    client, engine = small
    await client.pipeline(["MULTI"], ["GET", "a"], ["GET", "b"], ["EXEC"])
    assert engine.reads_on_thread == 1


async def test_an_exec_that_was_not_acknowledged(small: tuple[Wire, SmallEngine]) -> None:
    client, engine = small
    engine.perm_failed = "nobody acknowledged"
    await client.pipeline(["MULTI"], ["SET", "a", 1])
    assert await client.call("EXEC") == Error(
        "PERMFAILED committed here as 1:1:28, but nobody acknowledged"
    )
    assert await client.call("GET", "a") == b"1"
