"""The RESP reader and the encoder: what is a command, what is refused, and in which words."""

from __future__ import annotations

import tracemalloc

import pytest

from tests.support.wire import packed
from ttserver.replies import (
    NULL_ARRAY,
    OK,
    CommandError,
    ReplyQueue,
    SetOf,
    Simple,
    Slot,
    Value,
    Verbatim,
    encode,
)
from ttserver.resp import (
    HEADER_BYTES_MAX,
    SLOW_COMMANDS,
    CommandReader,
    ForeignProtocolError,
    ProtocolError,
    split_inline,
)
from ttserver.settings import LimitSettings

LIMITS = LimitSettings(
    bulk_bytes_max=100_000, frame_bytes_max=200_000, args_max=2000, inline_bytes_max=1000
)
Result = tuple[list[list[bytes]], str | None]


def read(data: bytes, size: int = 0, *, trusted: bool = True) -> Result:
    """Feed the bytes in chunks of `size` (0: whole); gives all commands, and the error."""
    reader = CommandReader(LIMITS)
    reader.trusted = trusted
    commands: list[list[bytes]] = []
    step = size or max(1, len(data))
    try:
        for at in range(0, len(data), step):
            reader.feed(data[at : at + step])
            while True:
                commands += reader.take()
                if reader.hungry:
                    break
    except ProtocolError as error:
        return commands, str(error)
    return commands, None


GET = packed("GET", "a")
STREAMS: dict[str, tuple[bytes, list[list[bytes]], str | None]] = {
    "one": (GET, [[b"GET", b"a"]], None),
    "many": (GET * 700, [[b"GET", b"a"]] * 700, None),
    "an unfinished one at the end": (GET * 3 + GET[:-3], [[b"GET", b"a"]] * 3, None),
    "cut behind the array's header": (GET + b"*2\r\n", [[b"GET", b"a"]], None),
    "cut between two arguments": (GET + b"*2\r\n$3\r\nGET\r\n", [[b"GET", b"a"]], None),
    "an argument that looks like commands": (
        packed("SET", "a", GET * 2) + GET,
        [[b"SET", b"a", GET * 2], [b"GET", b"a"]],
        None,
    ),
    "an argument that looks like a header at the end": (
        packed("SET", "a", b"\r\n*2\r\n") + packed("SET", "a", b"x\r\n*"),
        [[b"SET", b"a", b"\r\n*2\r\n"], [b"SET", b"a", b"x\r\n*"]],
        None,
    ),
    "empty arguments": (packed("SET", "", ""), [[b"SET", b"", b""]], None),
    "any byte": (packed(bytes(range(256))), [[bytes(range(256))]], None),
    "a bar": (packed("GET", "a|b") * 2, [[b"GET", b"a|b"]] * 2, None),
    "no command but lines": (
        GET + b"~0\r\n" + GET + b"|1\r\n+a\r\n+b\r\n" + GET + b"%0\r\n>0\r\n:0\r\n" + GET,
        [
            [b"GET", b"a"],
            [b"~0"],
            [b"GET", b"a"],
            [b"|1"],
            [b"+a"],
            [b"+b"],
            [b"GET", b"a"],
            [b"%0"],
            [b">0"],
            [b":0"],
            [b"GET", b"a"],
        ],
        None,
    ),
    "a line that looks like the marker": (
        GET + b":0\r\n",
        [[b"GET", b"a"], [b":0"]],
        None,
    ),
    "a long argument": (packed("SET", "a", b"x" * 50_000), [[b"SET", b"a", b"x" * 50_000]], None),
    "many arguments": (packed(*["x"] * 2000), [[b"x"] * 2000], None),
    "empty arrays and lines mean nothing": (
        b"*0\r\n*-1\r\n\r\n\n" + GET + b"*0\r\n" + GET,
        [[b"GET", b"a"]] * 2,
        None,
    ),
    "lines and arrays in turn": (
        b"PING\r\n" + GET + b"  set  a 'b c' \n" + GET,
        [[b"PING"], [b"GET", b"a"], [b"set", b"a", b"b c"], [b"GET", b"a"]],
        None,
    ),
    "strings of other kinds": (
        b"*3\r\n+SET\r\n=7\r\ntxt:abc\r\n(123\r\n",
        [[b"SET", b"abc", b"123"]],
        None,
    ),
    "the bytes behind an argument are not looked at": (
        b"*2\r\n$3\r\nGETxx$1\r\na\r\n",
        [[b"GET", b"a"]],
        None,
    ),
    # -- refused
    "too many arguments": (
        GET + b"*2001\r\n",
        [[b"GET", b"a"]],
        "Protocol error: invalid multibulk length",
    ),
    "a billion arguments": (
        GET + b"*1000000000\r\n$1\r\n",
        [[b"GET", b"a"]],
        "Protocol error: invalid multibulk length",
    ),
    "a header without an end": (
        GET + b"*" + b"1" * 100,
        [[b"GET", b"a"]],
        "Protocol error: too big mbulk count string",
    ),
    "a header that is no number": (b"*2x\r\n", [], "Protocol error: invalid multibulk length"),
    "a number with a leading zero": (
        b"*1\r\n$03\r\nGET\r\n",
        [],
        "Protocol error: invalid bulk length",
    ),
    "too long an argument": (
        GET + b"*2\r\n$9999999999\r\n",
        [[b"GET", b"a"]],
        "Protocol error: invalid bulk length",
    ),
    "a negative length": (b"*1\r\n$-1\r\n", [], "Protocol error: invalid bulk length"),
    "a length without an end": (
        b"*1\r\n$" + b"1" * 100,
        [],
        "Protocol error: too big bulk count string",
    ),
    "all arguments together too long": (
        b"*3\r\n" + (b"$90000\r\n" + b"x" * 90_000 + b"\r\n") * 2 + b"$90000\r\n",
        [],
        "Protocol error: command longer than 200000 bytes",
    ),
    "nested arrays": (
        GET + b"*1\r\n*1\r\n",
        [[b"GET", b"a"]],
        "Protocol error: expected '$', got '*'",
    ),
    "deeply nested arrays": (b"*1\r\n" * 10_000, [], "Protocol error: expected '$', got '*'"),
    "an integer": (b"*1\r\n:1\r\n", [], "Protocol error: expected '$', got ':'"),
    "an unprintable type": (b"*1\r\n\xff", [], "Protocol error: expected '$', got byte 0xff"),
    "a big number that is none": (b"*1\r\n(x\r\n", [], "Protocol error: expected '$', got '('"),
    "a line without an end": (
        GET + b"x" * 1001,
        [[b"GET", b"a"]],
        "Protocol error: too big inline request",
    ),
    "quotes without an end": (
        GET + b'SET a "b\r\n',
        [[b"GET", b"a"]],
        "Protocol error: unbalanced quotes in request",
    ),
}


@pytest.mark.parametrize("size", [0, 1, 2, 7, 4096])
@pytest.mark.parametrize(("data", "commands", "error"), STREAMS.values(), ids=STREAMS)
def test_streams(data: bytes, commands: list[list[bytes]], error: str | None, size: int) -> None:
    assert read(data, size) == (commands, error)


@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize(
    ("data", "error"),
    [
        (packed(*["x"] * 11), "Protocol error: unauthenticated multibulk length"),
        (b"x " * 11 + b"\r\n", "Protocol error: unauthenticated multibulk length"),
        (packed("x" * 16385), "Protocol error: unauthenticated bulk length"),
    ],
)
def test_strangers_have_less_room(data: bytes, error: str, size: int) -> None:
    assert read(data, size, trusted=False) == ([], error)
    assert read(data, size, trusted=True)[1] is None


def test_strangers_get_one_command_at_a_time() -> None:
    reader = CommandReader(LIMITS)
    reader.feed(packed("AUTH", "fred", "secret") + packed("SET", "a", "x" * 20_000))
    assert reader.take() == [[b"AUTH", b"fred", b"secret"]]
    reader.trusted = True
    assert reader.take() == [[b"SET", b"a", b"x" * 20_000]]


@pytest.mark.parametrize(
    ("data", "speaker"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00", "tls"),
        (b"\x02\x00\x00\x00\x0c", "replication"),
        (b"\x01\x00\x00\x00\x0c", "replication"),
        (b"\x08\x00\x00\x00\x0c", "replication"),
        (b"GET / HTTP/1.1\r\n", "http"),
        (b"GET /a b HTTP/1.1\r\nHost: x\r\n", "http"),
        (b"POST / HTTP/1.1\r\n", "http"),
        (b"post /\r\n", "http"),
        (b"PING\r\nHost: x\r\n", "http"),
        (b"OPTIONS * HTTP/1.0\r\n", "http"),
    ],
)
@pytest.mark.parametrize("size", [0, 1])
def test_other_protocols_are_named(data: bytes, speaker: str, size: int) -> None:
    reader = CommandReader(LIMITS)
    with pytest.raises(ForeignProtocolError) as caught:  # noqa: PT012
        for at in range(0, len(data), size or len(data)):
            reader.feed(data[at : at + (size or len(data))])
            while True:
                reader.take()
                if reader.hungry:
                    break
    assert caught.value.speaker == speaker
    assert caught.value.hint.endswith(".")


def test_a_get_of_a_path_is_no_browser() -> None:
    assert read(b"GET /etc/motd\r\n") == ([[b"GET", b"/etc/motd"]], None)


def test_an_error_stays_and_nothing_behind_it_is_read() -> None:
    reader = CommandReader(LIMITS)
    reader.trusted = True
    reader.feed(GET + b"*x\r\n" + GET)
    assert reader.take() == [[b"GET", b"a"]]
    for _ in range(2):
        with pytest.raises(ProtocolError):
            reader.take()
        reader.feed(GET)


@pytest.mark.parametrize(
    "attack",
    [
        b"*1000000000\r\n",
        b"*1999\r\n" * 100_000,
        b"*2\r\n$9999999999\r\n",
        b"x" * 1_000_000,
        b"*1\r\n$" + b"9" * 1_000_000,
        GET + b"*9999999\r\n",
        b"*1000\r\n" + b"$90000\r\n" + b"x" * 1_000_000,
    ],
)
def test_announced_sizes_cost_no_memory(attack: bytes) -> None:
    tracemalloc.start()
    try:
        for size in (0, 10_000):
            read(attack, size)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * LIMITS.frame_bytes_max + 4 * len(attack)


def test_the_buffer_is_empty_after_an_error() -> None:
    reader = CommandReader(LIMITS)
    reader.feed(b"*x\r\n" + b"y" * 1000)
    with pytest.raises(ProtocolError):
        reader.take()
    assert reader.buffered == 0


def test_work_is_handed_out_in_portions() -> None:
    reader = CommandReader(LIMITS)
    reader.trusted = True
    reader.feed(b"PING\r\n" * 1000)
    assert len(reader.take()) == SLOW_COMMANDS
    assert not reader.hungry
    reader = CommandReader(LIMITS)
    reader.trusted = True
    reader.feed(b"*0\r\n" * 10_000)
    assert reader.take() == []
    assert not reader.hungry
    reader = CommandReader(LIMITS)
    reader.trusted = True
    reader.feed(GET * 10_000)
    assert 0 < len(reader.take()) < 1000


def test_a_header_may_be_as_long_as_any_number() -> None:
    assert len(f"*{2**63}\r\n") < HEADER_BYTES_MAX


# -- inline


@pytest.mark.parametrize(
    ("line", "args"),
    [
        (b"", []),
        (b"  \t ", []),
        (b"a  b\tc", [b"a", b"b", b"c"]),
        (b'"a b" c', [b"a b", b"c"]),
        (b'""', [b""]),
        (b"''", [b""]),
        (b"'it\\'s' '\\n'", [b"it's", b"\\n"]),
        (b'"\\n\\r\\t\\b\\a\\x41\\xfg\\"\\\\"', [b'\n\r\t\b\aAxfg"\\']),
        (b"\xff\xfe", [b"\xff\xfe"]),
        (b"a\0b", [b"a", b"b"]),
    ],
)
def test_quoting(line: bytes, args: list[bytes]) -> None:
    assert split_inline(line) == args


@pytest.mark.parametrize("line", [b'"', b'"a', b"'a", b'"a"b', b"'a'b", b'"a\\"', b'"\\'])
def test_quotes_that_do_not_fit(line: bytes) -> None:
    with pytest.raises(ProtocolError, match="unbalanced quotes"):
        split_inline(line)


# -- replies


@pytest.mark.parametrize(
    ("value", "in_2", "in_3"),
    [
        (b"ab", b"$2\r\nab\r\n", None),
        (b"", b"$0\r\n\r\n", None),
        (7, b":7\r\n", None),
        (-(2**63), b":-9223372036854775808\r\n", None),
        (OK, b"+OK\r\n", None),
        (None, b"$-1\r\n", b"_\r\n"),
        (NULL_ARRAY, b"*-1\r\n", b"_\r\n"),
        ([], b"*0\r\n", None),
        ([b"a", 1, None], b"*3\r\n$1\r\na\r\n:1\r\n$-1\r\n", b"*3\r\n$1\r\na\r\n:1\r\n_\r\n"),
        ([[b"a"], [OK]], b"*2\r\n*1\r\n$1\r\na\r\n*1\r\n+OK\r\n", None),
        ({b"a": 1}, b"*2\r\n$1\r\na\r\n:1\r\n", b"%1\r\n$1\r\na\r\n:1\r\n"),
        ({}, b"*0\r\n", b"%0\r\n"),
        (
            {"é": "ü", b"b": {"é": [None, "x"]}, 3: True},
            b"*6|$2|\xc3\xa9|$2|\xc3\xbc|$1|b|*2|$2|\xc3\xa9|*2|$-1|$1|x|:3|:1|".replace(
                b"|", b"\r\n"
            ),
            b"%3|$2|\xc3\xa9|$2|\xc3\xbc|$1|b|%1|$2|\xc3\xa9|*2|_|$1|x|:3|#t|".replace(
                b"|", b"\r\n"
            ),
        ),
        ("\ud800", b"$6\r\n\\ud800\r\n", None),
        (SetOf([Simple("x")]), b"*1\r\n+x\r\n", b"~1\r\n+x\r\n"),
        (True, b":1\r\n", b"#t\r\n"),
        (False, b":0\r\n", b"#f\r\n"),
        (1.5, b"$3\r\n1.5\r\n", b",1.5\r\n"),
        ("é", b"$2\r\n\xc3\xa9\r\n", None),
        (Verbatim(b"hi"), b"$2\r\nhi\r\n", b"=6\r\ntxt:hi\r\n"),
        (CommandError("ERR a\r\nb"), b"-ERR a  b\r\n", None),
        ([CommandError("ERR a")], b"*1\r\n-ERR a\r\n", None),
    ],
)
def test_replies_in_both_protocols(value: Value, in_2: bytes, in_3: bytes | None) -> None:
    assert encode(value, 2) == in_2
    assert encode(value, 3) == (in_2 if in_3 is None else in_3)


def test_what_is_no_reply_is_a_bug() -> None:
    with pytest.raises(TypeError, match="object is no reply"):
        encode([object()], 2)


def test_an_error_quotes_no_more_than_so_much() -> None:
    assert len(CommandError("ERR " + "x" * 10_000).wire) < 1100


def test_replies_wait_for_those_before_them() -> None:
    queue = ReplyQueue()
    first, third = Slot(), Slot()
    queue.push(b"0")
    queue.open(first)
    queue.push(b"2")
    queue.open(third)
    queue.extend([b"4", b"5"])
    assert queue.ready == [b"0"]
    queue.fill(third, b"3")
    assert queue.ready == [b"0"]
    queue.fill(first, b"1")
    assert queue.ready == [b"0", b"1", b"2", b"3", b"4", b"5"]
    assert not queue.waiting
    queue.extend([b"6"])
    assert queue.ready[-1] == b"6"
