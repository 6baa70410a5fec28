"""A command as it is asked for: its words, what its reply means, what a second time would do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any, Final, Generic, TypeAlias, TypeVar

import msgspec
from redis import RedisError

from ttserver.client.errors import ClientError, ServerError, UnexpectedReply, server_error

Word: TypeAlias = bytes | str | int | float | date
Words: TypeAlias = tuple[bytes, ...]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

TEXT_ERRORS: Final = "backslashreplace"  # what is no UTF-8 can be seen, not read back


class Call(Generic[T_co]):
    """One command.

    Args:
        words: the command and its arguments.
        decode: makes the result of the reply.
        write: only the master takes it.
        again: done twice it leaves and answers the same as once, so it may be repeated when its
            first outcome is not known.
        text: the reply is text; else bytes.
        timeout_s: how long the reply may take; None as long as the client waits for any.
    """

    __slots__ = ("again", "decode", "text", "timeout_s", "words", "write")

    def __init__(
        self,
        *words: Word,
        decode: Callable[[Any], T_co],
        write: bool = False,
        again: bool = False,
        text: bool = True,
        timeout_s: float | None = None,
    ) -> None:
        self.words: Words = tuple(map(as_bytes, words))
        self.decode = decode
        self.write = write
        self.again = again
        self.text = text
        self.timeout_s = timeout_s

    @property
    def name(self) -> str:
        """What it is called in errors; never its arguments, among which passwords may be."""
        return self.words[0].decode(errors="replace").upper()

    @property
    def repeatable(self) -> bool:
        return self.again or not self.write

    @property
    def commands(self) -> Sequence[Words]:
        """What is sent, on one connection."""
        return (self.words,)

    def outcome(self, replies: Sequence[Any]) -> Any:
        """Find what it came to: a reply, or the error of the server."""
        return replies[0]

    def result(self, outcome: Any) -> T_co:
        """Make the result of an outcome.

        Raises:
            ClientError: the outcome is an error, or a reply of another kind.
        """
        if isinstance(outcome, ClientError):
            raise outcome
        try:
            return self.decode(outcome)
        except (msgspec.ValidationError, TypeError, ValueError) as error:
            raise UnexpectedReply(
                f"reply to {self.name} is not understood: {error}",
                hint="the server may be of another version than this client.",
            ) from error


class Transaction(Call[list[Any]]):
    """Commands that are committed together or not at all: MULTI ... EXEC.

    A refusal of one of several is among the results, the others count, as in Redis.
    """

    __slots__ = ("calls",)

    def __init__(self, calls: Sequence[Call[Any]]) -> None:
        super().__init__(
            "MULTI",
            decode=self._results,
            write=any(call.write for call in calls),
            again=all(call.repeatable for call in calls),
            text=False,
        )
        self.calls = calls

    @property
    def commands(self) -> Sequence[Words]:
        return (self.words, *(call.words for call in self.calls), (b"EXEC",))

    def outcome(self, replies: Sequence[Any]) -> Any:
        # EXECABORT only says that something was refused; what, stands where it was queued.
        refused = (reply for reply in replies[:-1] if isinstance(reply, ServerError))
        return next(refused, replies[-1])

    def _results(self, replies: list[Any]) -> list[Any]:
        return [_one_of(*pair) for pair in zip(self.calls, replies, strict=True)]


class Listing(Generic[T]):
    """A command that answers a list page by page.

    Args:
        words: the command without its cursor.
        cursor_at: where the cursor belongs; -1 for `CURSOR n` at the end.
        decode: makes one result of one row.
        text: rows are text; else bytes.
    """

    __slots__ = ("_cursor_at", "_decode", "_text", "_words")

    def __init__(
        self, *words: Word, decode: Callable[[Any], T], cursor_at: int = 1, text: bool = True
    ) -> None:
        self._words = words
        self._cursor_at = cursor_at
        self._decode = decode
        self._text = text

    def page(self, cursor: str) -> Call[tuple[str, list[T]]]:
        """Ask for the page at a cursor, `0` for the first; gives its rows and the next cursor."""
        if self._cursor_at < 0:
            words = (*self._words, "CURSOR", cursor)
        else:
            words = (*self._words[: self._cursor_at], cursor, *self._words[self._cursor_at :])
        return Call(*words, decode=self._page, text=self._text)

    def _page(self, reply: Any) -> tuple[str, list[T]]:
        cursor, rows = reply
        return plain(cursor), [self._decode(row) for row in rows]


# -- words


def as_bytes(word: Word) -> bytes:
    """Encode one word of a command.

    Raises:
        TypeError: it is of another type; a bool, for one, has no one way to be written.
    """
    match word:
        case bytes():
            return word
        case str():
            return word.encode()
        case bool():
            pass
        case int() | float():
            return repr(word).encode()
        case date():
            return word.isoformat().encode()
    raise TypeError(f"{type(word).__name__} is no word of a command")


def options(given: Mapping[str, Any]) -> list[Word]:
    """Turn named values into words: max_media=3 is MAXMEDIA 3; what is None is left out."""
    words: list[Word] = []
    for name, value in given.items():
        if value is not None:
            text = ("yes" if value else "no") if isinstance(value, bool) else value
            words += [name.upper().replace("_", ""), text]
    return words


# -- replies


def as_is(reply: Any) -> Any:
    """Give a reply as it came."""
    return reply


def done(_reply: Any) -> None:
    """Forget an OK."""


def plain(reply: Any) -> str:
    """Read text, whether or not it was decoded already."""
    return reply.decode() if isinstance(reply, bytes) else str(reply)


def number(reply: Any) -> int:
    """Read a number.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(reply, int):
        raise TypeError(f"{type(reply).__name__} is no number")
    return reply


def shape(kind: type[T]) -> Callable[[Any], T]:
    """Make a decoder of maps that become `kind`."""

    def decode(reply: Any) -> T:
        return msgspec.convert(reply, kind)

    return decode


def shapes(kind: type[T]) -> Callable[[Any], list[T]]:
    """Make a decoder of lists of such maps."""

    def decode(reply: Any) -> list[T]:
        return msgspec.convert(reply, list[kind])  # type: ignore[valid-type]

    return decode


def _one_of(call: Call[T], reply: Any) -> T | ServerError | None:
    """Make one result of a transaction, whose replies all come as bytes."""
    if isinstance(reply, RedisError):
        return server_error(reply)
    return call.result(_text(reply) if call.text else reply)


def _text(reply: Any) -> Any:
    match reply:
        case bytes():
            return reply.decode(errors=TEXT_ERRORS)
        case list():
            return [_text(one) for one in reply]
        case dict():
            return {_text(name): _text(value) for name, value in reply.items()}
        case _:
            return reply
