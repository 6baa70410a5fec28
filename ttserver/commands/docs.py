"""COMMAND INFO and COMMAND DOCS, made from the table.

The arguments of COMMAND DOCS are read out of the usage line, so that what people see and what
`redis-cli` completes cannot differ:

    key             an argument            [ ... ]     may be left out
    LIMIT           a word as it stands    A | B       one of them
    LIMIT limit     a word and its value   [key ...]   more of the same

Source: Redis, `COMMAND INFO`, `COMMAND DOCS`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from ttserver.commands.table import Command, Kind
from ttserver.replies import SetOf, Simple, Value

SINCE: Final = "0.1.0"
_WORD: Final = re.compile(r"\.\.\.|[\[\]|]|[^\s\[\]|]+")
_TYPES: Final = {
    "key": "key",
    "pattern": "pattern",
    "count": "integer",
    "limit": "integer",
    "increment": "integer",
    "decrement": "integer",
    "numreplicas": "integer",
    "timeout": "integer",
    "cursor": "integer",
    "index": "integer",
    "protover": "integer",
    "client-id": "integer",
    "seconds": "integer",
}


def flags_of(command: Command) -> list[str]:
    """Redis's flags of a command."""
    flags = []
    if command.kind is Kind.WRITE:
        flags.append("write")
    elif command.kind is Kind.READ:
        flags.append("readonly")
    else:
        flags += ["loading", "stale"]
    if command.complexity in ("O(1)", "O(log(N))"):
        flags.append("fast")
    if command.before_login:
        flags.append("no_auth")
    if not command.in_multi:
        flags.append("no_multi")
    if command.right == "system":
        flags.append("admin")
    return flags


def _categories(command: Command) -> list[str]:
    found = []
    if command.keys != (0, 0, 0) or command.kind in (Kind.READ, Kind.WRITE):
        found.append("@keyspace" if command.group == "generic" else f"@{command.group}")
    else:
        found.append("@transaction" if command.group == "transactions" else f"@{command.group}")
    if command.kind is Kind.READ:
        found.append("@read")
    if command.kind is Kind.WRITE:
        found.append("@write")
    if command.right == "system":
        found += ["@admin", "@dangerous"]
    found.append("@fast" if "fast" in flags_of(command) else "@slow")
    return found


def describe(command: Command) -> Value:
    """One entry of COMMAND INFO."""
    first, last, step = command.keys
    return [
        command.name,
        command.arity,
        SetOf(map(Simple, flags_of(command))),
        first,
        last,
        step,
        SetOf(map(Simple, _categories(command))),
        [],
        [_key_spec(command)] if first else [],
        [describe(sub) for sub in command.subcommands.values()],
    ]


def _key_spec(command: Command) -> Value:
    first, last, step = command.keys
    flags = ["RO", "access"] if command.kind is Kind.READ else ["RW", "update"]
    return {
        "flags": SetOf(map(Simple, flags)),
        "begin_search": {"type": "index", "spec": {"index": first}},
        "find_keys": {
            "type": "range",
            # Redis counts the last key from the first one
            "spec": {"lastkey": last if last < 0 else last - first, "keystep": step, "limit": 0},
        },
    }


def document(command: Command) -> Value:
    """One entry of COMMAND DOCS."""
    entry: dict[str, Value] = {
        "summary": command.summary,
        "since": SINCE,
        "group": command.group,
        "complexity": command.complexity,
    }
    arguments = parse_usage(command.usage)
    if arguments:
        entry["arguments"] = arguments
    if command.subcommands:
        entry["subcommands"] = {sub.name: document(sub) for sub in command.subcommands.values()}
    return entry


def parse_usage(usage: str) -> list[Value]:
    """Turn a usage line into the arguments of COMMAND DOCS."""
    return _Usage(_WORD.findall(usage)).sequence()


class _Usage:
    """A recursive reader of usage lines; they are ours, so mistakes are assertions."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words
        self._at = 0

    def _next(self) -> str | None:
        return self._words[self._at] if self._at < len(self._words) else None

    def sequence(self) -> list[Value]:
        """Read up to the end, a closing bracket or `...`."""
        items: list[Value] = []
        while (word := self._next()) is not None and word not in ("]", "..."):
            if word == "[":
                self._at += 1
                items = self._bracket(items)
            elif word == "|":
                self._at += 1
                items.append(_with_choice(items.pop(), self._one()))
            else:
                items.append(self._one())
        return items

    def _bracket(self, before: list[Value]) -> list[Value]:
        """Read `...]`: more of what stands before it, or something that may be left out."""
        inside = self.sequence()
        repeated = self._next() == "..."
        self._at += repeated
        assert self._next() == "]", f"usage line not understood: {' '.join(self._words)}"
        self._at += 1
        return _repeat(before, len(inside)) if repeated else [*before, *_optional(inside)]

    def _one(self) -> Value:
        word = self._words[self._at]
        self._at += 1
        if not word.isupper():
            return _plain(word)
        values: list[str] = []
        while (value := self._next()) is not None and value[0].islower():
            values.append(value)
            self._at += 1
        if not values:
            return {"name": word.lower(), "type": "pure-token", "token": word}
        if len(values) == 1:
            return {**_plain(values[0]), "token": word}
        return {
            "name": "-".join(values),
            "type": "block",
            "token": word,
            "arguments": [_plain(value) for value in values],
        }


def _plain(word: str) -> dict[str, Value]:
    return {"name": word, "type": _TYPES.get(word, "string"), "display_text": word}


def _with_choice(left: Value, right: Value) -> Value:
    if left["type"] == "oneof":
        return {**left, "arguments": [*left["arguments"], right]}
    return {"name": "condition", "type": "oneof", "arguments": [left, right]}


def _repeat(before: list[Value], count: int) -> list[Value]:
    """Mark the last `count` arguments as those that may come several times."""
    kept, repeated = before[:-count], before[-count:]
    multiple = SetOf([Simple("multiple")])
    if count == 1:
        return [*kept, {**repeated[0], "flags": multiple}]
    return [*kept, {"name": "data", "type": "block", "flags": multiple, "arguments": repeated}]


def _optional(items: list[Value]) -> list[Value]:
    marked = []
    for item in items:
        flags = SetOf([Simple("optional"), *item.get("flags", [])])
        marked.append({**item, "flags": flags})
    return marked
