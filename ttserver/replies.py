"""What commands answer, and how it goes on the wire in RESP2 and RESP3 (sans-I/O).

A command returns plain Python values:

    bytes           bulk string           int      integer
    None            null                  list     array
    dict            map (RESP2: flat array)        bool, float  (RESP2: integer, bulk string)
    Simple          simple string         Verbatim text (RESP2: bulk string)
    SetOf           set (RESP2: array)    NULL_ARRAY    RESP2's other null
    CommandError    error; also raised

`ReplyQueue` keeps replies in the order of their commands when they become known in another one.

Source: Redis, "RESP protocol specification".
"""

from collections import deque
from collections.abc import Iterable
from functools import lru_cache, partial
from typing import Any, Final, TypeAlias

ERROR_BYTES_MAX: Final = 1000  # an error quotes what the client sent, but not all of it
KEPT: Final = 1024  # names and short texts, encoded
SHORT_CHARS: Final = 12

Value: TypeAlias = Any  # one of the above; a recursive union would only slow mypy down


class Simple:
    """A simple string, encoded once."""

    __slots__ = ("text", "wire")

    def __init__(self, text: str) -> None:
        self.text = text
        self.wire = b"+%b\r\n" % text.encode()

    def __repr__(self) -> str:
        return f"Simple({self.text!r})"


class Verbatim(bytes):
    """Text for people; RESP3 marks it so."""

    __slots__ = ()


class Encoded(bytes):
    """A value that is on the wire already, in the client's protocol."""

    __slots__ = ()


class SetOf(list[Any]):
    """An array that RESP3 marks as a set."""

    __slots__ = ()


class CommandError(Exception):
    """A command's error reply; the first word is its code.

    Raised before anything was written, or returned as one of several results.
    """

    @property
    def wire(self) -> bytes:
        """The reply: one line, whatever the text was made of."""
        text = str(self).encode("utf-8", "backslashreplace")[:ERROR_BYTES_MAX]
        return b"-%b\r\n" % text.replace(b"\r", b" ").replace(b"\n", b" ")


class _NullArray:
    __slots__ = ()


OK: Final = Simple("OK")
PONG: Final = Simple("PONG")
QUEUED: Final = Simple("QUEUED")
NULL_ARRAY: Final = _NullArray()


def encode(value: Value, protocol: int) -> bytes:
    """Encode one reply.

    Args:
        protocol: 2 or 3.
    """
    kind = type(value)
    if kind is bytes:
        return b"$%d\r\n%b\r\n" % (len(value), value)
    if kind is Simple or kind is CommandError:
        return value.wire  # type: ignore[no-any-return]
    if kind is int:
        return b":%d\r\n" % value
    if value is None:
        return b"_\r\n" if protocol == 3 else b"$-1\r\n"
    out: list[bytes] = []
    _append(out, value, protocol)
    return b"".join(out)


def _append(out: list[bytes], value: Value, protocol: int) -> None:
    kind = type(value)
    if kind is str:
        out.append(_text(value))
    elif kind is list or kind is SetOf:
        mark = b"~" if kind is SetOf and protocol == 3 else b"*"
        out.append(b"%b%d\r\n" % (mark, len(value)))
        for item in value:
            if type(item) is bytes:  # most replies with many parts are made of these
                out.append(b"$%d\r\n%b\r\n" % (len(item), item))
            else:
                _append(out, item, protocol)
    elif kind is dict:
        out.append(b"%%%d\r\n" % len(value) if protocol == 3 else b"*%d\r\n" % (2 * len(value)))
        scalar = _SCALARS[protocol]
        for name, item in value.items():
            out.append(_short(name) if type(name) is str else encode(name, protocol))
            kind = type(item)
            if kind is str:
                out.append(_short(item) if len(item) <= SHORT_CHARS else _text(item))
            elif kind in _SCALAR:
                out.append(scalar(item))
            else:
                _append(out, item, protocol)
    elif kind in _PLAIN:
        out.append(encode(value, protocol))
    else:
        out.append(_rare(value, protocol))


def _text(text: str) -> bytes:
    data = text.encode("utf-8", "backslashreplace")
    return b"$%d\r\n%b\r\n" % (len(data), data)


# The rows of a list have the same few names, and mostly the same words and small numbers.
_short: Final = lru_cache(maxsize=KEPT)(_text)


def _rare(value: Value, protocol: int) -> bytes:
    if isinstance(value, str):  # a subclass
        return _text(value)
    if isinstance(value, Encoded):
        return bytes(value)
    if isinstance(value, Verbatim):
        if protocol == 3:
            return b"=%d\r\ntxt:%b\r\n" % (len(value) + 4, value)
        return encode(bytes(value), protocol)
    if isinstance(value, bool):
        if protocol == 2:
            return encode(int(value), protocol)
        return b"#t\r\n" if value else b"#f\r\n"
    if isinstance(value, float):
        text = repr(value).encode()
        return b",%b\r\n" % text if protocol == 3 else encode(text, protocol)
    if value is NULL_ARRAY:
        return b"_\r\n" if protocol == 3 else b"*-1\r\n"
    if isinstance(value, CommandError):  # a subclass
        return value.wire
    raise TypeError(f"{type(value).__name__} is no reply")


_PLAIN: Final = frozenset({bytes, int, Simple, CommandError, type(None)})
_SCALAR: Final = frozenset({int, bool, type(None)})
# As keys True and 1 are the same, but for `typed`.
_SCALARS: Final = {
    protocol: lru_cache(maxsize=KEPT, typed=True)(partial(encode, protocol=protocol))
    for protocol in (2, 3)
}


class Slot:
    """The place of a reply that is not known yet."""

    __slots__ = ("data",)

    def __init__(self) -> None:
        self.data: bytes | None = None


class ReplyQueue:
    """Replies in the order of their commands.

    Attributes:
        ready: what may be sent now; whoever sends it empties the list.
        waiting: replies held back: those not known yet and those behind them.
    """

    __slots__ = ("ready", "waiting")

    def __init__(self) -> None:
        self.ready: list[bytes] = []
        self.waiting: deque[Slot] = deque()

    def push(self, data: bytes) -> None:
        """Add a reply that is known already."""
        if self.waiting:
            slot = Slot()
            slot.data = data
            self.waiting.append(slot)
        else:
            self.ready.append(data)

    def extend(self, replies: Iterable[bytes]) -> None:
        """Add replies that are known already."""
        if self.waiting:
            for data in replies:
                self.push(data)
        else:
            self.ready.extend(replies)

    def open(self, slot: Slot) -> None:
        """Keep a place for a reply that comes later."""
        self.waiting.append(slot)

    def fill(self, slot: Slot, data: bytes) -> None:
        """Give the reply for a place that was kept."""
        slot.data = data
        waiting = self.waiting
        while waiting and (known := waiting[0].data) is not None:
            self.ready.append(known)
            waiting.popleft()
