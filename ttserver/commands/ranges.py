"""Walking the keys in their order: SCAN, KEYS and RANGE.

Keys are in byte order, which Redis does not have. So SCAN comes back in order too, and a pattern
with a fixed beginning (`vol:*`) only touches the keys that begin so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from ttserver.commands.arguments import integer, positive, syntax_error, unsigned
from ttserver.commands.context import Client, Store
from ttserver.commands.glob import Matcher, literal_prefix, matcher
from ttserver.commands.keys import reply_too_long
from ttserver.commands.table import Command, Kind
from ttserver.replies import CommandError, Value

if TYPE_CHECKING:
    from berkeleydb.db import DBTxn

PAGE_KEYS: Final = 1024
PAGE_PAIRS_MIN: Final = 16  # values may be long: pages of pairs start small, see range_
PAGE_PAIRS_MAX: Final = 1024
PAGE_BYTES: Final = 256 * 1024
SCAN_COUNT: Final = 10  # as in Redis
SCAN_COUNT_MAX: Final = 100_000
IN_LOOP_MAX: Final = 128  # keys a read in the loop may walk over


@dataclass(frozen=True, slots=True)
class Scan:
    """One SCAN call, its arguments read and its place found.

    Args:
        cursor: 0 from the start.
        after: go on behind this key; None from the start. Filled in from the cursor.
    """

    cursor: int
    pattern: bytes | None = None
    count: int = SCAN_COUNT
    nothing: bool = False  # TYPE asks for what does not exist here
    after: bytes | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """What one SCAN call found, and behind which key the next one goes on (None: the end)."""

    keys: list[bytes]
    after: bytes | None


def parse_scan(args: Sequence[bytes]) -> Scan:
    """Read the arguments of SCAN.

    Raises:
        CommandError: they make no sense.
    """
    cursor = unsigned(args[1], "ERR invalid cursor")
    pattern, count, nothing = None, SCAN_COUNT, False
    if len(args) % 2:
        raise syntax_error()
    for option, value in zip(args[2::2], args[3::2], strict=True):
        match option.upper():
            case b"MATCH":
                pattern = value
            case b"COUNT":
                count = min(positive(value), SCAN_COUNT_MAX)
            case b"TYPE":
                nothing = value.lower() != b"string"
            case _:
                raise syntax_error()
    return Scan(cursor, pattern, count, nothing)


def scan_page(store: Store, txn: DBTxn, scan: Scan) -> Page:
    """Walk over at most `scan.count` keys."""
    if scan.nothing:
        return Page([], None)
    prefix = b"" if scan.pattern is None else literal_prefix(scan.pattern)
    found = _from(store, txn, prefix, scan.after, scan.count)
    inside = _with_prefix(found, prefix)
    more = len(found) == scan.count and len(inside) == len(found)
    after = found[-1] if more else None
    return Page(_matching(inside, scan.pattern), after)


def scan_reply(client: Client, page: Page) -> Value:
    """Make the reply, and the cursor that goes on from there."""
    if page.after is None:
        return [b"0", page.keys]
    cursor = client.server.cursors.add(client.id, client.user, page.after)
    return [b"%d" % cursor, page.keys]


def prepare_scan(client: Client, args: Sequence[bytes]) -> Scan:
    """Read the arguments and find where the cursor goes on.

    Raises:
        CommandError: they make no sense, or the cursor is unknown or was given up.
    """
    scan = parse_scan(args)
    if scan.cursor == 0:
        return scan
    after = client.server.cursors.place(scan.cursor, client.user)
    if after is None:
        raise CommandError("ERR this cursor has expired or is not yours: start again with SCAN 0")
    return replace(scan, after=after)


def keys(store: Store, txn: DBTxn, args: Sequence[bytes]) -> list[bytes]:
    """KEYS pattern."""
    pattern = args[1]
    prefix = literal_prefix(pattern)
    result: list[bytes] = []
    left = store.limits.reply_bytes_max
    after: bytes | None = None
    while True:
        found = _from(store, txn, prefix, after, PAGE_KEYS)
        inside = _with_prefix(found, prefix)
        chosen = _matching(inside, pattern)
        left -= sum(map(len, chosen)) + 16 * len(chosen)
        if left < 0:
            raise reply_too_long(store)
        result += chosen
        if len(found) < PAGE_KEYS or len(inside) < len(found):
            return result
        after = found[-1]


def _from(store: Store, txn: DBTxn, prefix: bytes, after: bytes | None, count: int) -> list[bytes]:
    """Give the next `count` keys, beginning with those that start with `prefix`."""
    if after is not None or not prefix:
        return store.keyspace.keys(txn, after, count)
    # "greater than the prefix" leaves out the key that is the prefix itself
    first = [prefix] if store.keyspace.exists(txn, prefix) else []
    return first + store.keyspace.keys(txn, prefix, count - len(first))


def _with_prefix(found: list[bytes], prefix: bytes) -> list[bytes]:
    if not prefix or not found or found[-1].startswith(prefix):
        return found
    return [key for key in found if key.startswith(prefix)]


def _matching(found: list[bytes], pattern: bytes | None) -> list[bytes]:
    if pattern is None or pattern == b"*":
        return found
    match: Matcher = matcher(pattern)
    return [key for key in found if match(key)]


@dataclass(frozen=True, slots=True)
class Bounds:
    """The arguments of RANGE; None is an open end or no limit."""

    start: bytes | None
    end: bytes | None
    limit: int | None
    reverse: bool


def parse_range(args: Sequence[bytes]) -> Bounds:
    """Read the arguments of RANGE.

    Raises:
        CommandError: they make no sense.
    """
    limit, reverse = None, False
    at = 3
    while at < len(args):
        option = args[at].upper()
        if option == b"LIMIT" and at + 1 < len(args):
            limit = integer(args[at + 1])
            if limit < 0:
                raise CommandError("ERR LIMIT must not be negative")
            at += 2
        elif option == b"REV":
            reverse = True
            at += 1
        else:
            raise syntax_error()
    return Bounds(
        None if args[1] == b"-" else args[1],
        None if args[2] == b"+" else args[2],
        limit,
        reverse,
    )


def range_(store: Store, txn: DBTxn, args: Sequence[bytes]) -> list[bytes]:
    """RANGE start end [LIMIT n] [REV]: keys and values in turn, both ends included.

    `-` as start and `+` as end are the open ends. `start` is the lower end with REV too, which
    only turns the order round.
    """
    bounds = parse_range(args)
    result: list[bytes] = []
    left = store.limits.reply_bytes_max
    after: bytes | None = None
    wanted = bounds.limit
    page = PAGE_PAIRS_MIN
    while wanted is None or wanted > 0:
        limit = page if wanted is None else min(page, wanted)
        found = store.keyspace.range(
            txn, bounds.start, bounds.end, limit=limit, reverse=bounds.reverse, after=after
        )
        size = 0
        for key, value in found:
            size += len(key) + len(value) + 32
            result.append(key)
            result.append(value)
        left -= size
        if left < 0:
            raise reply_too_long(store)
        if len(found) < limit:
            break
        after = found[-1][0]
        wanted = None if wanted is None else wanted - limit
        page = min(page * 2, PAGE_PAIRS_MAX) if size < PAGE_BYTES else PAGE_PAIRS_MIN
    return result


def _range_is_heavy(args: Sequence[bytes]) -> bool:
    try:
        limit = parse_range(args).limit
    except CommandError:
        return False
    return limit is None or limit > IN_LOOP_MAX


def _scan_is_heavy(args: Sequence[bytes]) -> bool:
    try:
        return parse_scan(args).count > IN_LOOP_MAX
    except CommandError:
        return False


def _always(_args: Sequence[bytes]) -> bool:
    return True


COMMANDS: Final = (
    Command(
        "scan",
        -2,
        Kind.READ,
        scan_page,
        "Walks over the keys in byte order, some at a time.",
        "cursor [MATCH pattern] [COUNT count] [TYPE type]",
        complexity="O(log(N)+M) for M keys walked over",
        right="read",
        prepare=prepare_scan,
        finish=scan_reply,
        heavy=_scan_is_heavy,
        values=_always,
    ),
    Command(
        "keys",
        2,
        Kind.READ,
        keys,
        "Returns all keys that match a pattern.",
        "pattern",
        complexity="O(N) with N keys that begin like the pattern",
        right="read",
        heavy=_always,
        values=_always,
    ),
    Command(
        "range",
        -3,
        Kind.READ,
        range_,
        "Returns keys and values between two keys, in byte order.",
        "start end [LIMIT limit] [REV]",
        complexity="O(log(N)+M) for M keys returned",
        right="read",
        heavy=_range_is_heavy,
        values=_always,
    ),
)
