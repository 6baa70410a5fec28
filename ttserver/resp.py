"""Commands out of a client's byte stream (sans-I/O): RESP arrays and inline lines.

Two readers that agree on every byte:

- the quick one gives hiredis whole frames: as many as end within one piece of the stream. That
  the piece ended exactly at a frame's end is proved by a marker fed behind it: it comes out as a
  value of its own only then.
- the careful one walks frame by frame, keeps unfinished ones, judges every announced length
  before a byte of it is waited for, and names what is wrong.

hiredis makes a list as long as any array header claims and keeps whatever a bulk header
announces, so it never sees a header that is longer than the limits allow, nor half a frame.

As in Redis, the two bytes behind a bulk string are not looked at, and an empty array is nothing.
An argument may also be a simple string, a big number or a verbatim string, the way hiredis reads
them; anything else (null, integer, nested array) is a protocol error.

Source: Redis, "RESP protocol specification"; `networking.c` for the limits and the error texts.
"""

import re
from itertools import chain
from typing import Final, Protocol

import hiredis

PIECE_BYTES: Final = 8192  # some 200 commands: a few milliseconds of work at most
SLOW_COMMANDS: Final = 64  # commands the careful reader hands out at a time
SLOW_STEPS: Final = 1024  # headers, lines and arguments it looks at for them
HEADER_BYTES_MAX: Final = 32  # "*" and "$" lines; a 64-bit number has 20 digits
UNTRUSTED_ARGS_MAX: Final = 10  # before the logon, as in Redis
UNTRUSTED_BULK_BYTES_MAX: Final = 16384
_MARKER: Final = b":0\r\n"
_NUMBER: Final = re.compile(rb"(?:0|-?[1-9][0-9]{0,18})\Z")
_HTTP_LINE: Final = re.compile(rb"[A-Za-z]+ \S* ?HTTP/[0-9]")


class Limits(Protocol):
    """What one client may send; the `[limits]` of ttserver.toml."""

    @property
    def bulk_bytes_max(self) -> int:
        """Longest argument."""

    @property
    def frame_bytes_max(self) -> int:
        """Longest command, all its arguments and their headers."""

    @property
    def args_max(self) -> int:
        """Most arguments of one command, its name included."""

    @property
    def inline_bytes_max(self) -> int:
        """Longest inline line."""


class ProtocolError(Exception):
    """The client broke the protocol: it gets this text, then the connection ends."""


class ForeignProtocolError(ProtocolError):
    """The other side speaks another protocol: the connection ends without an answer.

    Args:
        speaker: `http`, `tls` or `replication`.
        hint: where that program should connect to.
    """

    def __init__(self, speaker: str, hint: str) -> None:
        super().__init__(f"Protocol error: this is the client port, you speak {speaker}")
        self.speaker = speaker
        self.hint = hint


class CommandReader:
    """Bytes in, commands out.

    The same bytes give the same commands and the same error however they were cut.

    Attributes:
        trusted: set after the logon; before, commands are short and come one at a time, because
            what follows an AUTH must be judged by the limits that hold after it.
        hungry: True when only more bytes can bring more commands.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._buffer = bytearray()
        self._error: ProtocolError | None = None
        self._hiredis = hiredis.Reader()
        self._args: list[bytes] = []
        self._missing = 0  # arguments the frame under way still needs
        self._frame_bytes = 0
        self._first = True
        self._piece_bytes = min(
            PIECE_BYTES,
            limits.bulk_bytes_max,
            limits.frame_bytes_max,
            limits.inline_bytes_max,
        )
        # Headers with fewer digits than this are always allowed; longer ones go the careful way.
        digits = min(len(str(limits.args_max)), 5)
        self._search_long_header = re.compile(rb"\*[0-9]{%d}" % digits).search
        self.trusted = False
        self.hungry = True

    @property
    def buffered(self) -> int:
        """Bytes received and not yet handed out."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Add received bytes; nothing that follows an error is kept."""
        if self._error is None:
            self._buffer += data
            self.hungry = False

    def take(self) -> list[list[bytes]]:
        """Hand out the next commands, a bounded number of them; see `hungry` when none come.

        Raises:
            ProtocolError: once everything before the offending bytes was handed out.
        """
        buffer = self._buffer
        if self.trusted and not self._missing and buffer and buffer[0] == 0x2A:
            commands = self._take_quick()
            if commands:
                return commands
        if self._error is not None:
            raise self._error
        if not buffer:
            self.hungry = True
            return []
        if self._first:
            self._check_first_byte()
        return self._take_slow(SLOW_COMMANDS if self.trusted else 1)

    def _check_first_byte(self) -> None:
        self._first = False
        first = self._buffer[0]
        if first == 0x16:
            self._error = ForeignProtocolError("tls", "switch TLS off in that client, or on here.")
        elif 1 <= first <= 8:
            self._error = ForeignProtocolError(
                "replication", "give that site this site's replication address (port 5010)."
            )
        if self._error is not None:
            raise self._error

    # -- the quick reader

    def _take_quick(self) -> list[list[bytes]]:
        buffer = self._buffer
        size = len(buffer)
        if size <= self._piece_bytes and buffer.endswith(b"\r\n"):
            commands = self._parse(bytes(buffer))
            if commands:
                buffer.clear()
                self.hungry = True
                return commands
        # Perhaps only the last frame is unfinished; a wrong guess is found out by the marker.
        cut = buffer.rfind(b"\r\n*", 0, self._piece_bytes + 1) + 2
        if cut < 3 or cut == size:
            return []
        commands = self._parse(bytes(buffer[:cut]))
        if commands:
            del buffer[:cut]
        return commands

    def _parse(self, piece: bytes) -> list[list[bytes]]:
        """Give the commands of `piece`, none when it is not whole frames of plain arguments."""
        # Sets ("~") and attributes ("|") come out of hiredis as lists and could pass for commands.
        if b"~" in piece or b"|" in piece or self._search_long_header(piece) is not None:
            return []
        reader = self._hiredis
        get = reader.gets
        try:
            reader.feed(piece)
            reader.feed(_MARKER)
            commands = []
            item = get()
            while type(item) is list:
                commands.append(item)
                item = get()
            if type(item) is int and item == 0 and not reader.has_data():
                b"".join(chain.from_iterable(commands))  # a TypeError for all but bytes
                return commands if all(commands) else [c for c in commands if c]
        except (hiredis.ProtocolError, TypeError):
            pass
        self._hiredis = hiredis.Reader()
        return []

    # -- the careful reader

    def _take_slow(self, count: int) -> list[list[bytes]]:
        commands: list[list[bytes]] = []
        position = 0
        try:
            for _ in range(SLOW_STEPS):
                step = self._argument if self._missing else self._begin
                after = step(position, commands)
                if after is None:
                    self.hungry = True
                    break
                position = after
                if len(commands) == count:
                    break
        except ProtocolError as error:
            self._error = error
            self._buffer.clear()
            if not commands:
                raise
            return commands
        del self._buffer[:position]
        return commands

    def _begin(self, at: int, commands: list[list[bytes]]) -> int | None:
        """Read an array's header or an inline line; answers where the next thing starts."""
        if at >= len(self._buffer):
            return None
        if self._buffer[at] != 0x2A:
            return self._inline(at, commands)
        header = self._header(at, "invalid multibulk length", "too big mbulk count string")
        if header is None:
            return None
        length, after = header
        if length > self._limits.args_max:
            raise ProtocolError("Protocol error: invalid multibulk length")
        if length > UNTRUSTED_ARGS_MAX and not self.trusted:
            raise ProtocolError("Protocol error: unauthenticated multibulk length")
        if length > 0:
            self._missing = length
            self._args = []
            self._frame_bytes = after - at
        return after

    def _argument(self, at: int, commands: list[list[bytes]]) -> int | None:
        buffer = self._buffer
        if at >= len(buffer):
            return None
        kind = buffer[at]
        if kind == 0x24 or kind == 0x3D:  # "$" and "=": a length, then so many bytes
            header = self._header(at, "invalid bulk length", "too big bulk count string")
            if header is None:
                return None
            length, start = header
            self._check_bulk(length, start - at)
            after = start + length + 2
            if after > len(buffer):
                return None
            value = (
                bytes(buffer[start : start + length])
                if kind == 0x24
                else self._as_hiredis_reads(at, after)
            )
        elif kind == 0x2B or kind == 0x28:  # "+" and "(": a line
            end = self._line_end(at, "too big line argument")
            if end is None:
                return None
            after = end + 2
            value = self._as_hiredis_reads(at, after)
        else:
            raise ProtocolError(f"Protocol error: expected '$', got {_shown(kind)}")
        self._frame_bytes += after - at
        if self._frame_bytes > self._limits.frame_bytes_max:
            raise self._frame_too_long()
        self._args.append(value)
        self._missing -= 1
        if not self._missing:
            commands.append(self._args)
            self._args = []
        return after

    def _check_bulk(self, length: int, header_bytes: int) -> None:
        if length < 0 or length > self._limits.bulk_bytes_max:
            raise ProtocolError("Protocol error: invalid bulk length")
        if length > UNTRUSTED_BULK_BYTES_MAX and not self.trusted:
            raise ProtocolError("Protocol error: unauthenticated bulk length")
        if self._frame_bytes + header_bytes + length + 2 > self._limits.frame_bytes_max:
            raise self._frame_too_long()

    def _frame_too_long(self) -> ProtocolError:
        return ProtocolError(
            f"Protocol error: command longer than {self._limits.frame_bytes_max} bytes"
        )

    def _header(self, at: int, invalid: str, too_long: str) -> tuple[int, int] | None:
        """Read the number behind a type byte; answers it and where the line behind it starts."""
        end = self._buffer.find(b"\r\n", at, at + HEADER_BYTES_MAX)
        if end < 0:
            if len(self._buffer) - at >= HEADER_BYTES_MAX:
                raise ProtocolError(f"Protocol error: {too_long}")
            return None
        digits = bytes(self._buffer[at + 1 : end])
        if _NUMBER.match(digits) is None:
            raise ProtocolError(f"Protocol error: {invalid}")
        return int(digits), end + 2

    def _line_end(self, at: int, too_long: str) -> int | None:
        limit = self._limits.inline_bytes_max
        end = self._buffer.find(b"\r\n", at, at + limit)
        if end < 0 and len(self._buffer) - at >= limit:
            raise ProtocolError(f"Protocol error: {too_long}")
        return None if end < 0 else end

    def _as_hiredis_reads(self, start: int, end: int) -> bytes:
        reader = hiredis.Reader()
        try:
            reader.feed(bytes(self._buffer[start:end]))
            value = reader.gets()
        except hiredis.ProtocolError:
            value = None
        if not isinstance(value, bytes):
            kind = self._buffer[start]
            raise ProtocolError(f"Protocol error: expected '$', got {_shown(kind)}")
        return value

    def _inline(self, at: int, commands: list[list[bytes]]) -> int | None:
        limit = self._limits.inline_bytes_max
        end = self._buffer.find(b"\n", at, at + limit)
        if end < 0:
            if len(self._buffer) - at >= limit:
                raise ProtocolError("Protocol error: too big inline request")
            return None
        line = bytes(self._buffer[at:end])
        _refuse_http(line)
        args = split_inline(line)
        if len(args) > UNTRUSTED_ARGS_MAX and not self.trusted:
            raise ProtocolError("Protocol error: unauthenticated multibulk length")
        if args:
            commands.append(args)
        return end + 1


def _shown(byte: int) -> str:
    return f"'{chr(byte)}'" if 32 <= byte < 127 else f"byte 0x{byte:02x}"


def _refuse_http(line: bytes) -> None:
    """Stop at what only HTTP says, so that no web page can be tricked into sending commands."""
    lowered = line[:5].lower()
    if lowered == b"host:" or lowered == b"post " or _HTTP_LINE.match(line):
        raise ForeignProtocolError("http", "browsers and probes belong on the console port (5080).")


_ESCAPES: Final = {0x6E: 10, 0x72: 13, 0x74: 9, 0x62: 8, 0x61: 7}  # n r t b a
_HEX: Final = frozenset(b"0123456789abcdefABCDEF")
_SPACES: Final = frozenset(b" \t\r\n\v\f\0")


def split_inline(line: bytes) -> list[bytes]:
    """Split a line into arguments, with the quoting of redis-cli.

    Double quotes know \\n \\r \\t \\b \\a \\xHH, single quotes only \\'; a closing quote ends
    its argument.

    Raises:
        ProtocolError: quotes that are not closed, or closed within a word.
    """
    args: list[bytes] = []
    at, size = 0, len(line)
    while True:
        while at < size and line[at] in _SPACES:
            at += 1
        if at == size:
            return args
        word = bytearray()
        while at < size and line[at] not in _SPACES:
            if line[at] in b"\"'":
                at = _quoted(line, at, word)
                if at < size and line[at] not in _SPACES:
                    raise ProtocolError("Protocol error: unbalanced quotes in request")
                break
            word.append(line[at])
            at += 1
        args.append(bytes(word))


def _quoted(line: bytes, at: int, word: bytearray) -> int:
    """Append what stands between the quotes to `word`; answers where the text goes on."""
    quote, size = line[at], len(line)
    at += 1
    while at < size:
        byte = line[at]
        if byte == quote:
            return at + 1
        if byte != 0x5C or at + 1 == size:
            word.append(byte)
            at += 1
            continue
        escaped = line[at + 1]
        if quote == 0x27:  # single quotes
            word += b"'" if escaped == quote else b"\\"
            at += 2 if escaped == quote else 1
        elif escaped == 0x78 and at + 3 < size and {line[at + 2], line[at + 3]} <= _HEX:
            word.append(int(line[at + 2 : at + 4], 16))
            at += 4
        else:
            word.append(_ESCAPES.get(escaped, escaped))
            at += 2
    raise ProtocolError("Protocol error: unbalanced quotes in request")
