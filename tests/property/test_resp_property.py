"""Properties of the client port: chunking never changes anything, and pipelines do what they say.

The sessions run over real Berkeley DB; one engine serves all examples of a test, emptied between
them.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.engine import SmallAuth, SmallEngine, settings_for
from tests.support.wire import Wire, packed
from ttserver.commands.glob import literal_prefix, matcher
from ttserver.listener import Listener
from ttserver.replies import NULL_ARRAY, OK, PONG, QUEUED, CommandError, Value, encode
from ttserver.resp import CommandReader, ProtocolError, split_inline
from ttserver.settings import LimitSettings

T = TypeVar("T")
QUEUED_MAX = 6
ROOMY = LimitSettings()
TIGHT = LimitSettings(bulk_bytes_max=60, frame_bytes_max=150, args_max=12, inline_bytes_max=50)

words = st.one_of(
    st.sampled_from([b"GET", b"SET", b"a", b"\r\n", b"*1\r\n", b"$3\r\n", b"|", b"*12345", b""]),
    st.binary(max_size=80),
)
commands = st.lists(words, min_size=1, max_size=14).map(lambda args: packed(*args))
oddities = st.sampled_from(
    [
        b"*0\r\n",
        b"*-1\r\n",
        b"\r\n",
        b"PING\r\n",
        b'set a "b c"\n',
        b"*2\r\n+GET\r\n(12\r\n",
        b"*1\r\n=7\r\ntxt:abc\r\n",
        b"*2\r\n$3\r\nGETxx$1\r\naxx",
        b"*1\r\n$4\r\nPING\r\n" * 30,
        b"*1\r\n:1\r\n",
        b"*1\r\n*1\r\n",
        b"*13\r\n",
        b"*99999\r\n",
        b"*1\r\n$99\r\n",
        b"*01\r\n",
        b"*1\r\n$-1\r\n",
        b":0\r\n",
        b"%0\r\n",
        b"~0\r\n",
        b">0\r\n",
        b"|1\r\n+a\r\n+b\r\n",
        b"+OK\r\n",
        b"$3\r\nabc\r\n",
        b"_\r\n",
        b"*",
        b"*2\r\n$3\r\nGET",
        b"$",
        b'"',
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03",
        b"\x02",
    ]
)
streams = st.lists(
    st.one_of(commands, commands, oddities, st.binary(max_size=12)), max_size=12
).map(b"".join)
cuts = st.lists(st.integers(0, 400), max_size=12)


def chunks(data: bytes, at: list[int]) -> Iterator[bytes]:
    edges = sorted({min(cut, len(data)) for cut in at} | {0, len(data)})
    for start, end in itertools.pairwise(edges):
        yield data[start:end]


def read(
    pieces: Iterator[bytes], limits: LimitSettings, trusted: bool
) -> tuple[list[list[bytes]], str | None]:
    reader = CommandReader(limits)
    reader.trusted = trusted
    found: list[list[bytes]] = []
    try:
        for piece in pieces:
            reader.feed(piece)
            while True:
                found += reader.take()
                if reader.hungry:
                    break
    except ProtocolError as error:
        return found, str(error)
    return found, None


@given(streams, cuts, st.sampled_from([ROOMY, TIGHT]), st.booleans())
@example(b"*2\r\n$3\r\nGETxx+foo\r\n" * 2, [], ROOMY, True)
@example(b"*1\r\n$1\r\na\r\n|1\r\n+a\r\n+b\r\n", [], ROOMY, True)
@example(b"*1\r\n$1\r\na\r\n~0\r\n", [], ROOMY, True)
@example(b"*1\r\n$1\r\na\r\n:0\r\n", [], ROOMY, True)
@settings(max_examples=400)
def test_chunks_never_change_what_is_read(
    data: bytes, at: list[int], limits: LimitSettings, trusted: bool
) -> None:
    bytewise = read((data[i : i + 1] for i in range(len(data))), limits, trusted)
    assert read(chunks(data, at), limits, trusted) == bytewise
    assert read(iter([data]), limits, trusted) == bytewise


@given(st.lists(st.lists(st.binary(max_size=40), min_size=1, max_size=5), max_size=30), cuts)
def test_what_is_packed_is_read(said: list[list[bytes]], at: list[int]) -> None:
    data = b"".join(packed(*args) for args in said)
    assert read(chunks(data, at), ROOMY, True) == (said, None)


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_inline_arguments_survive_quoting(args: list[bytes]) -> None:
    line = b" ".join(b'"%b"' % b"".join(b"\\x%02x" % byte for byte in arg) for arg in args)
    assert split_inline(line) == args


# -- patterns against an obvious matcher


def obvious(pattern: bytes, key: bytes) -> bool:
    """Stars and question marks by trying everything."""
    if not pattern:
        return not key
    if pattern[:1] == b"*":
        return any(obvious(pattern[1:], key[i:]) for i in range(len(key) + 1))
    return bool(key) and pattern[:1] in (b"?", key[:1]) and obvious(pattern[1:], key[1:])


letters = st.text(alphabet="ab*?.", max_size=8).map(str.encode)


@given(letters, st.text(alphabet="ab.", max_size=8).map(str.encode))
def test_patterns_match_what_they_obviously_match(pattern: bytes, key: bytes) -> None:
    assert bool(matcher(pattern)(key)) == obvious(pattern, key)
    if matcher(pattern)(key):
        assert key.startswith(literal_prefix(pattern))


@given(st.binary(max_size=12), st.binary(max_size=12))
def test_no_pattern_breaks_anything(pattern: bytes, key: bytes) -> None:
    try:
        matcher(pattern)(key)
    except re.error as error:  # pragma: no cover
        pytest.fail(f"{pattern!r}: {error}")


# -- whole sessions


class Server:
    """An engine and a listener in a loop of their own, for many examples."""

    def __init__(self, home: Path) -> None:
        self._runner = asyncio.Runner()
        self.run: Callable[[Coroutine[Any, Any, T]], T] = self._runner.run
        limits = LimitSettings(multi_commands_max=QUEUED_MAX, pipeline_commands_max=8)
        self.engine = SmallEngine(home, settings_for(limits))
        self.run(self.engine.start())
        self.listener = Listener(self.engine, SmallAuth())

    def close(self) -> None:
        self.run(self.listener.stop())
        self.run(self.engine.stop())
        self._runner.close()

    def talk(self, data: bytes, at: list[int]) -> tuple[bytes, dict[bytes, bytes]]:
        """Everything a client gets for these bytes, and what the database holds then."""
        return self.run(self._talk(data, at))

    async def _talk(self, data: bytes, at: list[int]) -> tuple[bytes, dict[bytes, bytes]]:
        admin = await Wire(self.listener).login()
        for key in await admin.call("KEYS", "*"):
            await admin.call("DEL", key)
        wire = Wire(self.listener)
        for piece in chunks(data, at):
            wire.send(piece)
            await asyncio.sleep(0)
        wire.session.eof_received()
        got = await wire.closed()
        pairs = await admin.call("RANGE", "-", "+")
        await admin.call("QUIT")
        await admin.closed()
        return got, dict(zip(pairs[::2], pairs[1::2], strict=True))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("engine"))
    yield server
    server.close()


LOGON = packed("AUTH", "fred", "secret")
keys = st.sampled_from([b"a", b"b", b"c"])
numbers = st.integers(-(2**63) - 1, 2**63).map(lambda number: str(number).encode())
values = st.one_of(st.just(b"7"), numbers, st.binary(max_size=8))
said = st.one_of(
    st.tuples(st.just(b"GET"), keys),
    st.tuples(st.just(b"SET"), keys, values),
    st.tuples(st.just(b"SET"), keys, values, st.sampled_from([b"NX", b"XX", b"GET", b"EX"])),
    st.tuples(st.just(b"INCR"), keys),
    st.tuples(st.just(b"INCRBY"), keys, numbers),
    st.tuples(st.just(b"DECRBY"), keys, numbers),
    st.tuples(st.just(b"APPEND"), keys, values),
    st.tuples(st.just(b"DEL"), keys, keys),
    st.tuples(st.just(b"GETDEL"), keys),
    st.tuples(st.just(b"MSET"), keys, values, keys, values),
    st.tuples(st.just(b"MGET"), keys, keys),
    st.tuples(st.just(b"EXISTS"), keys, keys),
    st.tuples(st.just(b"STRLEN"), keys),
    st.tuples(st.just(b"KEYS"), st.just(b"*")),
    st.tuples(st.just(b"RANGE"), keys, keys),
    st.tuples(st.just(b"DBSIZE")),
    st.tuples(st.just(b"PING")),
    st.tuples(st.just(b"NONSENSE")),
    st.tuples(st.just(b"GET")),
    st.tuples(st.just(b"MULTI")),
    st.tuples(st.just(b"EXEC")),
    st.tuples(st.just(b"DISCARD")),
    st.tuples(st.just(b"WATCH"), keys),
    st.tuples(st.just(b"HELLO"), st.sampled_from([b"2", b"3"])),
)
transactions = st.lists(said, max_size=6).map(lambda some: [(b"MULTI",), *some, (b"EXEC",)])
sessions = st.lists(
    st.one_of(st.lists(said, min_size=3, max_size=8), transactions), min_size=1, max_size=5
).map(lambda parts: [args for part in parts for args in part])


@given(sessions, cuts, st.one_of(st.just(b""), oddities))
@settings(max_examples=40)
def test_chunks_never_change_what_is_answered(
    server: Server, said: list[tuple[bytes, ...]], at: list[int], last: bytes
) -> None:
    data = LOGON + b"".join(packed(*args) for args in said) + last
    whole, held = server.talk(data, [])
    # HELLO answers the number of the connection, which is another one each time
    number = re.compile(rb"(\$2\r\nid\r\n:)\d+")
    cut, held_too = server.talk(data, at)
    assert number.sub(rb"\1", cut) == number.sub(rb"\1", whole)
    assert held_too == held


# Where the keys are that a command may change.
WRITES = dict.fromkeys(
    (b"SET", b"INCR", b"INCRBY", b"DECRBY", b"APPEND", b"GETDEL"), slice(1, 2)
) | {b"DEL": slice(1, 3), b"MSET": slice(1, 5, 2)}


class Model:
    """What the commands above mean, in the simplest words."""

    def __init__(self) -> None:
        self.data: dict[bytes, bytes] = {}
        self.queued: list[tuple[bytes, ...]] | None = None
        self.broken = False
        self.watched: set[bytes] = set()
        self.dirty = False

    def answer(self, args: tuple[bytes, ...]) -> Value:
        name = args[0]
        if name == b"NONSENSE" or args == (b"GET",):
            return self.refuse(
                "ERR wrong number of arguments for 'get' command"
                if name == b"GET"
                else "ERR unknown command 'NONSENSE', with args beginning with: "
            )
        if name in (b"EXEC", b"DISCARD"):
            return self.end(name)
        if self.queued is None:
            if name == b"MULTI":
                self.queued, self.broken = [], False
            if name == b"WATCH":
                self.watched.add(args[1])
            return OK if name in (b"MULTI", b"WATCH") else self.run_alone(args)
        if name == b"MULTI":
            return CommandError("ERR MULTI calls can not be nested")
        if name == b"WATCH":
            return CommandError("ERR WATCH inside MULTI is not allowed")
        if name == b"DBSIZE":
            return self.refuse("ERR Command not allowed inside a transaction")
        if len(self.queued) == QUEUED_MAX:
            self.queued = []
            return self.refuse("ERR the transaction is too long for multi_commands_max, _bytes_max")
        self.queued.append(args)
        return QUEUED

    def refuse(self, message: str) -> CommandError:
        self.broken = self.broken or self.queued is not None
        return CommandError(message)

    def end(self, name: bytes) -> Value:
        queued, self.queued = self.queued, None
        if queued is None:
            return CommandError(f"ERR {name.decode()} without MULTI")
        dirty, self.dirty = self.dirty, False
        self.watched.clear()
        if name == b"DISCARD":
            return OK
        if self.broken:
            return CommandError("EXECABORT Transaction discarded because of previous errors.")
        return NULL_ARRAY if dirty else [self.run(args) for args in queued]

    def run_alone(self, args: tuple[bytes, ...]) -> Value:
        value = self.run(args)
        # What a command may change counts as changed, unless it is refused.
        if args[0] in WRITES and not isinstance(value, CommandError):
            self.dirty = self.dirty or not self.watched.isdisjoint(args[WRITES[args[0]]])
        return value

    def run(self, args: tuple[bytes, ...]) -> Value:
        data = self.data
        meanings: dict[bytes, Callable[..., Value]] = {
            b"GET": data.get,
            b"SET": self.set,
            b"INCR": lambda key: self.add(key, b"1", 1),
            b"INCRBY": lambda key, number: self.add(key, number, 1),
            b"DECRBY": lambda key, number: self.add(key, number, -1),
            b"APPEND": self.append,
            b"STRLEN": lambda key: len(data.get(key, b"")),
            b"DEL": lambda *keys: sum(data.pop(key, None) is not None for key in keys),
            b"GETDEL": lambda key: data.pop(key, None),
            b"MSET": lambda *pairs: (self.set(*pairs[:2]), self.set(*pairs[2:]))[0],
            b"MGET": lambda *keys: [data.get(key) for key in keys],
            b"EXISTS": lambda *keys: sum(key in data for key in keys),
            b"KEYS": lambda _star: sorted(data),
            b"RANGE": lambda low, high: [
                part for key in sorted(data) if low <= key <= high for part in (key, data[key])
            ],
            b"DBSIZE": lambda: len(data),
            b"PING": lambda: PONG,
        }
        return meanings[args[0]](*args[1:])

    def set(self, key: bytes, value: bytes, option: bytes = b"") -> Value:
        old = self.data.get(key)
        if option == b"EX":
            return CommandError("ERR SET option EX is not supported: keys here never expire")
        if (option == b"NX" and old is not None) or (option == b"XX" and old is None):
            return None
        self.data[key] = value
        return old if option == b"GET" else OK

    def append(self, key: bytes, value: bytes) -> Value:
        self.data[key] = self.data.get(key, b"") + value
        return len(self.data[key])

    def add(self, key: bytes, text: bytes, sign: int) -> Value:
        value = self.data.get(key, b"0")
        if not is_int64(text):
            return CommandError("ERR value is not an integer or out of range")
        if sign < 0 and int(text) == -(2**63):
            return CommandError("ERR decrement would overflow")
        if not is_int64(value):
            return CommandError("ERR value is not an integer or out of range")
        result = int(value) + sign * int(text)
        if not is_int64(b"%d" % result):
            return CommandError("ERR increment or decrement would overflow")
        self.data[key] = b"%d" % result
        return result


def is_int64(text: bytes) -> bool:
    return bool(re.fullmatch(rb"0|-?[1-9]\d*", text)) and -(2**63) <= int(text) < 2**63


@given(
    sessions.map(lambda said: [args for args in said if args[0] != b"HELLO"]), cuts, st.booleans()
)
@settings(max_examples=40)
def test_pipelines_do_what_they_say(
    server: Server, said: list[tuple[bytes, ...]], at: list[int], blocks: bool
) -> None:
    server.engine.would_block = blocks
    try:
        got, held = server.talk(LOGON + b"".join(packed(*args) for args in said), at)
    finally:
        server.engine.would_block = False
    model = Model()
    answers = [OK, *(model.answer(args) for args in said)]
    assert got == b"".join(encode(value, 2) for value in answers)
    assert held == model.data
