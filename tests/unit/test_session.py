"""One client's session: order of replies, what waits for what, bounds in both directions, ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from storage.reads import WouldBlock
from tests.support.engine import Refusal, SmallEngine, settings_for
from tests.support.wire import DEADLINE_S, Error, Wire, packed, small_listener
from ttserver.dispatch import TURN_COMMANDS
from ttserver.listener import LINGER_LOOKS, Listener
from ttserver.read_run import RUN_BYTES_MAX
from ttserver.refused import Refused
from ttserver.session import READ_AHEAD_BYTES_MAX
from ttserver.settings import ClientSettings, LimitSettings

if TYPE_CHECKING:
    from berkeleydb.db import DBTxn

Served = tuple[Listener, SmallEngine]
READONLY = Refusal("write refused: this site is a replicant (master is db1:5000)", code="READONLY")
LIMITS = LimitSettings(pipeline_commands_max=100, pending_output_bytes_max=10_000_000)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with small_listener(tmp_path, settings_for(LIMITS)) as both:
        yield both


@pytest.fixture
async def client(served: Served) -> Wire:
    return await Wire(served[0]).login()


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until something holds."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - nothing in the server tells of all of these
            await asyncio.sleep(0.001)


# -- order


async def test_replies_keep_the_order_of_their_commands(client: Wire, served: Served) -> None:
    engine = served[1]
    engine.held = []
    client.send(packed("SET", "a", 1))
    await until(lambda: len(engine.held or []) == 1)
    client.send(packed("PING") + packed("SET", "b", 2) + packed("NONSENSE") + packed("SET", "b", 3))
    await until(lambda: sum(len(batch.writes) for batch in engine.held or []) == 3)
    assert client.pipe.written.endswith(b"+OK\r\n"), "only the logon's"
    written = client.pipe.writes
    engine.release()
    answers = await client.replies(5)
    assert answers[:3] == [b"OK", b"PONG", b"OK"]
    assert answers[3].startswith("ERR unknown command 'NONSENSE'")
    assert answers[4] == b"OK"
    assert client.pipe.writes == written + 1, "what becomes known together is sent together"


async def test_a_pipeline_of_writes_is_one_group_commit_or_a_few(
    client: Wire, served: Served
) -> None:
    engine = served[1]
    engine.held = []
    client.send(b"".join(packed("INCR", "n") for _ in range(90)))
    await until(lambda: sum(len(batch.writes) for batch in engine.held or []) == 90)
    assert len(engine.held) < 10
    engine.release()
    assert await client.replies(90) == list(range(1, 91))


async def test_a_read_sees_the_writes_before_it_and_none_behind_it(client: Wire) -> None:
    said: list[list[object]] = []
    answers: list[Any] = []
    for number in range(1, 60):
        said += [["INCR", "n"], ["GET", "n"], ["STRLEN", "n"], ["MGET", "n"], ["DBSIZE"]]
        text = str(number).encode()
        answers += [number, text, len(text), [text], 1]
    assert await client.pipeline(*said) == answers


async def test_a_read_behind_a_write_that_failed(client: Wire) -> None:
    assert await client.pipeline(
        ["SET", "n", "x"], ["INCR", "n"], ["GET", "n"], ["EXISTS", "n"]
    ) == [b"OK", Error("ERR value is not an integer or out of range"), b"x", 1]


async def test_a_read_behind_writes_when_the_role_is_lost_in_between(
    client: Wire, served: Served
) -> None:
    engine = served[1]
    engine.held = []
    client.send(packed("SET", "a", 1))
    await until(lambda: bool(engine.held))
    engine.refuse_writes = READONLY
    client.send(packed("GET", "a") + packed("SET", "a", 2) + packed("GET", "a"))
    engine.release()
    assert await client.replies(4) == [b"OK", b"1", Error(f"READONLY {READONLY}"), b"1"]


async def test_a_write_that_was_not_acknowledged_does_not_make_reads_fail(
    client: Wire, served: Served
) -> None:
    served[1].perm_failed = "0 of 1 acknowledged"
    assert await client.pipeline(["SET", "a", 1], ["GET", "a"], ["GETDEL", "absent"]) == [
        Error("PERMFAILED committed here as 1:1:28, but 0 of 1 acknowledged"),
        b"1",
        Error("PERMFAILED committed here as 1:1:28, but 0 of 1 acknowledged"),
    ]


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("READONLY", "READONLY"),
        ("LOADING", "LOADING"),
        ("TRYAGAIN", "TRYAGAIN"),
        ("NOREPLICAS", "NOREPLICAS"),
        ("MASTERDOWN", "MASTERDOWN"),
        ("MISSING", "LOADING"),
        ("ANYTHING", "ERR"),
    ],
)
async def test_refusals_begin_with_a_word_that_libraries_know(
    client: Wire, served: Served, code: str, word: str
) -> None:
    served[1].refuse_writes = served[1].refuse_reads = Refusal("not now", code=code)
    assert await client.pipeline(["SET", "a", 1], ["GET", "a"], ["KEYS", "*"], ["PING"]) == [
        *[Error(f"{word} not now")] * 3,
        b"PONG",
    ]


@pytest.mark.parametrize("on_thread", [False, True])
async def test_what_was_read_is_not_answered_when_it_turns_out_that_it_must_not_be(
    client: Wire, served: Served, on_thread: bool
) -> None:
    engine = served[1]
    await client.pipeline(["SET", "a", 1], ["SET", "b", 2])
    now, later = engine.read_now, engine.read

    def read_now(read: Callable[[DBTxn], Any]) -> Any:
        result = now(read)
        raise Refused(f"maybe not the newest: {result}")

    async def read_later(read: Callable[[DBTxn], Any], *, limited: bool = True) -> Any:
        result = await later(read, limited=limited)
        raise Refused(f"maybe not the newest: {result}")

    engine.would_block = on_thread
    engine.read_now = now if on_thread else read_now  # type: ignore[method-assign]
    engine.read = read_later  # type: ignore[method-assign]
    tryagain = Error("TRYAGAIN maybe not the newest: None")
    assert await client.pipeline(["GET", "a"], ["GET", "b"], ["PING"]) == [
        tryagain,
        tryagain,
        b"PONG",
    ]


async def test_a_bug_in_a_command_is_answered_and_logged(client: Wire, served: Served) -> None:
    served[1].keyspace.put = None  # type: ignore[assignment,method-assign]
    with capture_logs() as logs:
        answer = await client.call("SET", "a", 1)
    assert answer == Error("ERR internal error: the server's log says more")
    assert [line["event"] for line in logs] == ["command_failed"]
    assert await client.call("PING") == b"PONG"


# -- reads that would block


async def test_what_would_block_goes_to_a_thread_at_once(client: Wire, served: Served) -> None:
    engine = served[1]
    await client.call("MSET", "a", 1, "b", 2)
    engine.would_block = True
    assert await client.pipeline(
        ["GET", "a"], ["GET", "b"], ["NONSENSE"], ["GET", "c"], ["MGET", "a", "c"], ["SCAN", 0]
    ) == [
        b"1",
        b"2",
        Error("ERR unknown command 'NONSENSE', with args beginning with: "),
        None,
        [b"1", None],
        [b"0", [b"a", b"b"]],
    ]
    assert engine.reads_on_thread == 3, "two runs of reads and one SCAN"


async def test_a_read_that_is_interrupted_goes_on_where_it_was(
    client: Wire, served: Served
) -> None:
    keyspace = served[1].keyspace
    get, asked = keyspace.get, list[bytes]()

    def interrupted(txn: DBTxn, key: bytes) -> bytes | None:
        asked.append(key)
        if asked == [b"a", b"x", b"b"]:
            raise WouldBlock
        return get(txn, key)

    await client.call("MSET", "a", 1, "b", 2)
    keyspace.get = interrupted  # type: ignore[method-assign]
    assert await client.pipeline(["GET", "a"], ["GET", "x"], ["GET", "b"], ["GET", "a"]) == [
        b"1",
        None,
        b"2",
        b"1",
    ]
    assert asked == [b"a", b"x", b"b", b"b", b"a"], "what was answered is not read again"


async def test_long_reads_never_run_in_the_loop(client: Wire, served: Served) -> None:
    engine = served[1]
    for said in (
        ["KEYS", "*"],
        ["RANGE", "-", "+"],
        ["MGET", *range(100)],
        ["SCAN", 0, "COUNT", 999],
    ):
        before = engine.reads_on_thread
        await client.call(*said)
        assert engine.reads_on_thread == before + 1
    for said in (["GET", "a"], ["RANGE", "-", "+", "LIMIT", 9], ["MGET", *range(9)], ["SCAN", 0]):
        before = engine.reads_on_thread
        await client.call(*said)
        assert engine.reads_on_thread == before


async def test_a_failing_read_on_a_thread(client: Wire, served: Served) -> None:
    engine = served[1]
    engine.would_block = True
    engine.refuse_reads = None

    async def fails(read: object) -> None:
        raise Refusal("the copy is being replaced", code="TRYAGAIN")

    engine.read = fails  # type: ignore[assignment]
    tryagain = Error("TRYAGAIN the copy is being replaced")
    assert await client.pipeline(["GET", "a"], ["GET", "b"], ["SCAN", 0], ["PING"]) == [
        *[tryagain] * 3,
        b"PONG",
    ]


# -- bounds


async def test_a_client_that_takes_no_replies_is_not_served_on(client: Wire) -> None:
    await client.call("SET", "a", 1)
    before = len(client.pipe.written)
    client.session.pause_writing()
    for _ in range(3):
        client.send(packed("GET", "a") * 10_000)
    await asyncio.sleep(0)
    assert len(client.pipe.written) == before
    assert not client.pipe.is_reading(), "its socket is not read any more"
    client.session.resume_writing()
    assert await client.replies(30_000) == [b"1"] * 30_000
    await until(client.pipe.is_reading)


async def test_a_client_that_lets_replies_pile_up_is_disconnected(client: Wire) -> None:
    client.send(packed("SET", "a", 1))
    client.session.pause_writing()
    client.pipe.buffered = LIMITS.pending_output_bytes_max + 1
    await client.closed()
    assert client.pipe.aborted


async def test_long_replies_go_out_one_after_the_other(client: Wire) -> None:
    await client.call("SET", "a", "x" * 200_000)
    client.send(packed("GET", "a") * 60)
    assert [len(value) for value in await client.replies(60)] == [200_000] * 60
    assert client.pipe.longest_write < 4 * RUN_BYTES_MAX, "one run in the loop, one on a thread"


async def test_too_many_outstanding_writes_stop_the_client(client: Wire, served: Served) -> None:
    engine = served[1]
    engine.held = []
    client.send(packed("SET", "a", "x" * 1000) * 500)
    await until(lambda: sum(len(batch.writes) for batch in engine.held or []) == 100)
    client.send(packed("SET", "a", "x" * 1000))
    assert not client.pipe.is_reading()
    engine.release()
    assert await client.replies(501) == [b"OK"] * 501
    await until(client.pipe.is_reading)


async def test_other_clients_get_their_turn(client: Wire, served: Served) -> None:
    other = await Wire(served[0]).login()
    before = len(client.pipe.written)
    client.send(packed("PING") * 10_000)
    other.send(packed("PING"))
    assert await other.reply() == b"PONG"
    answered = (len(client.pipe.written) - before) // len(b"+PONG\r\n")
    assert 0 < answered < 4 * TURN_COMMANDS + 2000
    assert await client.replies(10_000) == [b"PONG"] * 10_000


async def test_what_is_received_while_commands_wait_is_bounded(
    client: Wire, served: Served
) -> None:
    engine = served[1]
    engine.held = []
    client.send(packed("SET", "a", 1) + packed("DBSIZE"))
    await until(lambda: bool(engine.held))
    client.send(b"x" * (READ_AHEAD_BYTES_MAX // 2))
    assert client.pipe.is_reading()
    client.send(b"x" * READ_AHEAD_BYTES_MAX)
    assert not client.pipe.is_reading()
    engine.release()
    assert await client.replies(2) == [b"OK", 1]
    assert await client.reply() == Error("ERR Protocol error: too big inline request")
    await client.closed()


# -- ends


async def session_line(logs: list[Any]) -> dict[str, Any]:
    await until(lambda: any(line["event"] == "client_session" for line in logs))
    (line,) = [line for line in logs if line["event"] == "client_session"]
    return dict(line)


async def test_one_line_tells_of_a_session(served: Served) -> None:
    with capture_logs() as logs:
        client = await Wire(served[0]).login()
        await client.call("CLIENT", "SETNAME", "me")
        await client.pipeline(["SET", "a", 1], ["GET", "a"], ["NONSENSE"])
        await client.call("QUIT")
        await client.closed()
        line = await session_line(logs)
    assert line | {"seconds": 0, "bytes_in": 0, "bytes_out": 0} == {
        "event": "client_session",
        "log_level": "info",
        "client": 1,
        "peer": "192.0.2.99:4711",
        "user": "fred",
        "name": "me",
        "library": None,
        "commands": 6,
        "writes": 1,
        "errors": 1,
        "bytes_in": 0,
        "bytes_out": 0,
        "seconds": 0,
        "end": "quit",
    }
    assert line["bytes_out"] == len(client.pipe.written)
    assert "secret" not in str(logs)


async def test_a_broken_protocol_answers_what_came_before_then_closes(
    client: Wire, served: Served
) -> None:
    engine = served[1]
    engine.held = []
    with capture_logs() as logs:
        client.send(packed("SET", "a", 1) + b"*1\r\n:5\r\n" + packed("SET", "a", 2))
        await until(lambda: bool(engine.held))
        assert not client.pipe.closed.is_set()
        engine.release()
        assert await client.replies(2) == [
            b"OK",
            Error("ERR Protocol error: expected '$', got ':'"),
        ]
        assert await client.closed() == b""
        line = await session_line(logs)
    assert line["end"] == "Protocol error: expected '$', got ':'"


@pytest.mark.parametrize(
    ("data", "speaks"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "http"),
        (b"\x16\x03\x01\x00\xa5\x01", "tls"),
        (b"\x02\0\0\0\x0c\0\0\0\x13", "replication"),
    ],
)
async def test_other_protocols_get_no_answer_and_a_line_that_names_them(
    served: Served, data: bytes, speaks: str
) -> None:
    with capture_logs() as logs:
        client = Wire(served[0])
        client.send(data)
        assert await client.closed() == b""
        line = await session_line(logs)
    assert line["end"] == f"wrong protocol: {speaks}"
    (mixup,) = [line for line in logs if line["event"] == "client_port_mixup"]
    assert (mixup["speaks"], mixup["peer"], mixup["log_level"]) == (
        speaks,
        "192.0.2.99:4711",
        "warning",
    )
    facts = {"from_": "192.0.2.99:4711", "spoke": f"{speaks} on the client port"}
    assert served[1].journal.lines == [("wrong_port", facts)]


async def test_a_client_that_closes_its_side_still_gets_its_answers(
    client: Wire, served: Served
) -> None:
    engine = served[1]
    engine.held = []
    client.send(packed("SET", "a", 1) + packed("DBSIZE") + packed("GET", "a") * 1000)
    assert client.session.eof_received()
    await until(lambda: bool(engine.held))
    engine.release()
    assert await client.replies(1002) == [b"OK", 1, *[b"1"] * 1000]
    assert await client.closed() == b""


async def test_a_client_that_is_gone_leaves_nothing_behind(client: Wire, served: Served) -> None:
    listener, engine = served
    await client.pipeline(["WATCH", "k"], ["SCAN", 0])
    engine.held = []
    client.send(packed("SET", "a", 1) + packed("WAIT", 1, 0))
    await until(lambda: bool(engine.held))
    watch = client.session.client.watch  # type: ignore[union-attr]
    assert watch is not None
    client.pipe.close()
    await until(lambda: not listener.server.clients)
    engine.release()
    assert listener.server.totals.writes == 1
    other = await Wire(listener).login()
    assert await other.call("GET", "a") == b"1", "the write happened all the same"


async def test_a_client_that_leaves_while_it_waits(client: Wire, served: Served) -> None:
    client.send(packed("WAIT", 5, 0) + packed("PING"))
    await asyncio.sleep(0)
    task = client.session._task
    assert task is not None
    client.pipe.close()
    await until(task.done)
    assert task.cancelled()


async def test_a_read_that_somebody_else_cancelled_ends_the_session(
    client: Wire, served: Served
) -> None:
    async def cancelled(read: object) -> None:
        raise asyncio.CancelledError

    served[1].read = cancelled  # type: ignore[assignment]
    client.send(packed("KEYS", "*"))
    assert await client.closed() == b""


# -- time


class Clock:
    """The time the listener sees."""

    def __init__(self, listener: Listener) -> None:
        self.ahead_s = 0.0
        real = listener.server.now
        listener.server.now = lambda: real() + self.ahead_s


@pytest.fixture
async def timed(tmp_path: Path) -> AsyncIterator[tuple[Listener, SmallEngine, Clock]]:
    client = ClientSettings(auth_timeout_s=10, idle_timeout_s=60)
    async with small_listener(tmp_path, settings_for(client=client)) as (listener, engine):
        yield listener, engine, Clock(listener)


async def test_who_does_not_log_on_in_time_is_let_go(
    timed: tuple[Listener, SmallEngine, Clock],
) -> None:
    listener, _, clock = timed
    with capture_logs() as logs:
        stranger, client = Wire(listener), await Wire(listener).login()
        clock.ahead_s = 9
        listener.look()
        assert await stranger.call("PING") == b"PONG"
        clock.ahead_s = 11
        listener.look()
        await stranger.closed()
        line = await session_line(logs)
    assert line["end"] == "no logon within 10 s"
    assert await client.call("PING") == b"PONG"
    await client.call("RESET")
    listener.look()
    assert await client.call("PING") == b"PONG", "its time begins anew"


async def test_who_is_idle_is_let_go_but_not_who_waits_for_us(
    timed: tuple[Listener, SmallEngine, Clock],
) -> None:
    listener, engine, clock = timed
    idle, waiting = await Wire(listener).login(), await Wire(listener).login()
    engine.held = []
    waiting.send(packed("SET", "a", 1))
    clock.ahead_s = 61
    listener.look()
    await idle.closed()
    engine.release()
    assert await waiting.reply() == b"OK"


async def test_who_takes_no_last_reply_is_dropped(
    timed: tuple[Listener, SmallEngine, Clock],
) -> None:
    listener, _, _ = timed
    client = await Wire(listener).login()
    client.session.pause_writing()
    client.pipe.buffered = 5
    client.session.eof_received()
    for _ in range(LINGER_LOOKS):
        listener.look()
        assert not client.pipe.aborted
    client.pipe.buffered = 4
    for _ in range(LINGER_LOOKS):
        listener.look()
        assert not client.pipe.aborted, "it did take some"
    listener.look()
    assert client.pipe.aborted


async def test_the_end_of_the_server_answers_what_is_under_way(
    timed: tuple[Listener, SmallEngine, Clock],
) -> None:
    listener, engine, _ = timed
    writer, idle = await Wire(listener).login(), await Wire(listener).login()
    engine.held = []
    writer.send(packed("SET", "a", 1))
    await until(lambda: bool(engine.held))
    stopping = asyncio.create_task(listener.stop())
    await idle.closed()
    late = Wire(listener)
    assert await late.closed() == b"-ERR the server stops\r\n"
    assert not stopping.done()
    engine.release()
    assert await writer.reply() == b"OK"
    await stopping


async def test_the_end_of_the_server_does_not_wait_for_ever(
    timed: tuple[Listener, SmallEngine, Clock],
) -> None:
    listener, engine, _ = timed
    writer = await Wire(listener).login()
    engine.held = []
    writer.send(packed("SET", "a", 1))
    await until(lambda: bool(engine.held))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await listener.stop()
    assert writer.pipe.aborted
    engine.release()
