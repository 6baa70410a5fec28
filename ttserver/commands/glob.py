"""Patterns of KEYS, SCAN and CONFIG GET: Redis's `*`, `?`, `[a-c]`, `[^x]` and `\\`.

A pattern becomes a regular expression that never backtracks over a `*`: each run between two
stars is taken where it fits first (an atomic group), which is always right for such patterns. A
hostile pattern therefore costs no more than its length times the key's.

Source: Redis, `KEYS`; `stringmatchlen` in `util.c`.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

Matcher = Callable[[bytes], object]
_SPECIAL: Final = frozenset(b"*?[\\")


@lru_cache(maxsize=64)
def matcher(pattern: bytes) -> Matcher:
    """Compile a pattern; the result is true for a key that matches as a whole."""
    runs = _runs(pattern)
    if len(runs) == 1:
        return re.compile(runs[0] + rb"\Z", re.DOTALL).match
    middle = b"".join(b"(?>.*?" + run + b")" for run in runs[1:-1])
    return re.compile(runs[0] + middle + b".*" + runs[-1] + rb"\Z", re.DOTALL).match


def literal_prefix(pattern: bytes) -> bytes:
    """The bytes every matching key begins with."""
    prefix = bytearray()
    at = 0
    while at < len(pattern):
        byte = pattern[at]
        if byte == 0x5C and at + 1 < len(pattern):
            at += 1
            byte = pattern[at]
        elif byte in _SPECIAL:
            break
        prefix.append(byte)
        at += 1
    return bytes(prefix)


def _runs(pattern: bytes) -> list[bytes]:
    """Split at the stars; each run is a regular expression of fixed length."""
    runs = [b""]
    at = 0
    while at < len(pattern):
        byte = pattern[at]
        at += 1
        if byte == 0x2A:
            if runs[-1] or len(runs) == 1:  # "**" is "*"
                runs.append(b"")
        elif byte == 0x3F:
            runs[-1] += b"."
        elif byte == 0x5B:
            one, at = _class(pattern, at)
            runs[-1] += one
        else:
            if byte == 0x5C and at < len(pattern):
                byte = pattern[at]
                at += 1
            runs[-1] += _one_of({byte})
    return runs


def _class(pattern: bytes, at: int) -> tuple[bytes, int]:
    """Read what follows `[`; a class that is not closed ends with the pattern, as in Redis."""
    size = len(pattern)
    negated = at < size and pattern[at] == 0x5E
    at += negated
    members: set[int] = set()
    while at < size and pattern[at] != 0x5D:
        if pattern[at] == 0x5C and at + 1 < size:
            members.add(pattern[at + 1])
            at += 2
        elif at + 2 < size and pattern[at + 1] == 0x2D:
            low, high = sorted((pattern[at], pattern[at + 2]))
            members.update(range(low, high + 1))
            at += 3
        else:
            members.add(pattern[at])
            at += 1
    return _one_of(set(range(256)) - members if negated else members), min(at + 1, size)


def _one_of(members: set[int]) -> bytes:
    if not members:
        return b"(?!)"
    listed = b"".join(rb"\x%02x" % byte for byte in sorted(members))
    return listed if len(members) == 1 else b"[" + listed + b"]"
