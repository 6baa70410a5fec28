"""Commands on plain keys: values, counters, several keys at once.

Keys and values are any bytes; the empty key is a key like any other (Berkeley DB allows it).
Every value is a string, so TYPE answers `string` or `none` and WRONGTYPE never comes.

Source: Redis, the command reference of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from ttserver.commands.arguments import INT64_MAX, INT64_MIN, integer, syntax_error, text
from ttserver.commands.context import Store
from ttserver.commands.table import Command, Kind
from ttserver.replies import OK, CommandError, Simple, Value

if TYPE_CHECKING:
    from berkeleydb.db import DBTxn

KEYS_IN_LOOP_MAX: Final = 64  # a read of more keys goes to a reader thread
_OTHER_SET_OPTIONS: Final = frozenset({b"EX", b"PX", b"EXAT", b"PXAT", b"KEEPTTL"})
_STRING: Final = Simple("string")
_NONE: Final = Simple("none")


def get(store: Store, txn: DBTxn, args: Sequence[bytes]) -> bytes | None:
    """GET key."""
    return store.keyspace.get(txn, args[1])


def set_(store: Store, txn: DBTxn, args: Sequence[bytes]) -> Value:
    """SET key value [NX | XX] [GET]."""
    if len(args) == 3:
        store.keyspace.put(txn, args[1], args[2])
        return OK
    options = _set_options(args)
    key, value = args[1], args[2]
    wants_old = b"GET" in options
    old = store.keyspace.get(txn, key) if wants_old else None
    if b"NX" in options or b"XX" in options:
        there = old is not None if wants_old else store.keyspace.exists(txn, key)
        if there != (b"XX" in options):
            return old if wants_old else None
    store.keyspace.put(txn, key, value)
    return old if wants_old else OK


def _set_options(args: Sequence[bytes]) -> set[bytes]:
    options: set[bytes] = set()
    for word in args[3:]:
        option = word.upper()
        if option in _OTHER_SET_OPTIONS:
            raise CommandError(
                f"ERR SET option {text(option)} is not supported: keys here never expire"
            )
        if option not in (b"NX", b"XX", b"GET"):
            raise syntax_error()
        options.add(option)
    if {b"NX", b"XX"} <= options:
        raise syntax_error()
    return options


def setnx(store: Store, txn: DBTxn, args: Sequence[bytes]) -> int:
    """SETNX key value."""
    if store.keyspace.exists(txn, args[1]):
        return 0
    store.keyspace.put(txn, args[1], args[2])
    return 1


def getdel(store: Store, txn: DBTxn, args: Sequence[bytes]) -> bytes | None:
    """GETDEL key."""
    value = store.keyspace.get(txn, args[1])
    if value is not None:
        store.keyspace.delete(txn, args[1])
    return value


def delete(store: Store, txn: DBTxn, args: Sequence[bytes]) -> int:
    """DEL key [key ...]."""
    return sum(store.keyspace.delete(txn, key) for key in args[1:])


def exists(store: Store, txn: DBTxn, args: Sequence[bytes]) -> int:
    """EXISTS key [key ...]; a key named twice counts twice."""
    return sum(store.keyspace.exists(txn, key) for key in args[1:])


def mget(store: Store, txn: DBTxn, args: Sequence[bytes]) -> list[bytes | None]:
    """MGET key [key ...]."""
    values: list[bytes | None] = []
    left = store.limits.reply_bytes_max
    for key in args[1:]:
        value = store.keyspace.get(txn, key)
        left -= 16 if value is None else len(value) + 16
        if left < 0:
            raise reply_too_long(store)
        values.append(value)
    return values


def reply_too_long(store: Store) -> CommandError:
    """The error instead of a reply that would not fit; a part would look like all."""
    most = store.limits.reply_bytes_max
    return CommandError(f"ERR the reply would be longer than {most} bytes: ask for less at once")


def mset(store: Store, txn: DBTxn, args: Sequence[bytes]) -> Value:
    """MSET key value [key value ...]: all or none."""
    if len(args) % 2 == 0:
        raise CommandError("ERR wrong number of arguments for 'mset' command")
    for at in range(1, len(args), 2):
        store.keyspace.put(txn, args[at], args[at + 1])
    return OK


def append(store: Store, txn: DBTxn, args: Sequence[bytes]) -> int:
    """APPEND key value."""
    value = (store.keyspace.get(txn, args[1]) or b"") + args[2]
    if len(value) > store.limits.bulk_bytes_max:
        raise CommandError("ERR string exceeds maximum allowed size (bulk_bytes_max)")
    store.keyspace.put(txn, args[1], value)
    return len(value)


def strlen(store: Store, txn: DBTxn, args: Sequence[bytes]) -> int:
    """STRLEN key."""
    return store.keyspace.length(txn, args[1])


def type_(store: Store, txn: DBTxn, args: Sequence[bytes]) -> Simple:
    """TYPE key."""
    return _STRING if store.keyspace.exists(txn, args[1]) else _NONE


def incr(store: Store, txn: DBTxn, args: Sequence[bytes]) -> int:
    """INCR key."""
    return _add(store, txn, args[1], 1)


def decr(store: Store, txn: DBTxn, args: Sequence[bytes]) -> int:
    """DECR key."""
    return _add(store, txn, args[1], -1)


def incrby(store: Store, txn: DBTxn, args: Sequence[bytes]) -> int:
    """INCRBY key increment."""
    return _add(store, txn, args[1], integer(args[2]))


def decrby(store: Store, txn: DBTxn, args: Sequence[bytes]) -> int:
    """DECRBY key decrement."""
    decrement = integer(args[2])
    if decrement == INT64_MIN:  # its opposite is no 64-bit integer
        raise CommandError("ERR decrement would overflow")
    return _add(store, txn, args[1], -decrement)


def _add(store: Store, txn: DBTxn, key: bytes, difference: int) -> int:
    value = store.keyspace.get(txn, key)
    number = (0 if value is None else integer(value)) + difference
    if not INT64_MIN <= number <= INT64_MAX:
        raise CommandError("ERR increment or decrement would overflow")
    store.keyspace.put(txn, key, b"%d" % number)
    return number


def _many(args: Sequence[bytes]) -> bool:
    return len(args) > KEYS_IN_LOOP_MAX


def _always(_args: Sequence[bytes]) -> bool:
    return True


def _asks_for_old(args: Sequence[bytes]) -> bool:
    return len(args) > 3  # SET with options, perhaps GET


_ONE: Final = (1, 1, 1)
_ALL: Final = (1, -1, 1)
_PAIRS: Final = (1, -1, 2)


def _read(
    name: str, arity: int, run: Callable[..., Value], usage: str, summary: str, **more: Any
) -> Command:
    keys = more.setdefault("keys", _ONE)
    return Command(
        name,
        arity,
        Kind.READ,
        run,
        summary,
        usage,
        group="string" if name in ("get", "mget", "strlen") else "generic",
        complexity="O(log(N))" if keys == _ONE else "O(M*log(N)) for M keys",
        right="read",
        heavy=None if keys == _ONE else _many,
        **more,
    )


def _write(
    name: str, arity: int, run: Callable[..., Value], usage: str, summary: str, **more: Any
) -> Command:
    keys = more.setdefault("keys", _ONE)
    return Command(
        name,
        arity,
        Kind.WRITE,
        run,
        summary,
        usage,
        group="generic" if name == "del" else "string",
        complexity="O(log(N))" if keys == _ONE else "O(M*log(N)) for M keys",
        right="write",
        **more,
    )


COMMANDS: Final = (
    _read("get", 2, get, "key", "Returns the value of a key.", values=_always),
    _read("strlen", 2, strlen, "key", "Returns the length of a value."),
    _read("type", 2, type_, "key", "Tells whether a key exists: string or none."),
    _read("exists", -2, exists, "key [key ...]", "Counts which of the keys exist.", keys=_ALL),
    _read(
        "mget",
        -2,
        mget,
        "key [key ...]",
        "Returns the values of several keys.",
        keys=_ALL,
        values=_always,
    ),
    _write(
        "set",
        -3,
        set_,
        "key value [NX | XX] [GET]",
        "Sets the value of a key.",
        values=_asks_for_old,
    ),
    _write("setnx", 3, setnx, "key value", "Sets a key that does not exist yet."),
    _write(
        "getdel", 2, getdel, "key", "Returns the value of a key and deletes it.", values=_always
    ),
    _write("del", -2, delete, "key [key ...]", "Deletes keys.", keys=_ALL),
    _write(
        "mset",
        -3,
        mset,
        "key value [key value ...]",
        "Sets several keys, all or none.",
        keys=_PAIRS,
    ),
    _write("append", 3, append, "key value", "Appends to a value; makes the key if needed."),
    _write("incr", 2, incr, "key", "Adds one to the integer at a key."),
    _write("decr", 2, decr, "key", "Subtracts one from the integer at a key."),
    _write("incrby", 3, incrby, "key increment", "Adds to the integer at a key."),
    _write("decrby", 3, decrby, "key decrement", "Subtracts from the integer at a key."),
)
