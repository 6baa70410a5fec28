"""Filters of names: `ACME.LTO.??????L[4-8]`, `US*.LTO.*`.

    *       any run of characters      [12] [4|5]   one of these
    ?       one character              [4-8] [!4-8] one of a range, or none of it

The whole name has to match. A filter compiles to a regular expression that never backtracks over
a `*` (each run between two stars is taken where it fits first), so no filter is a costly one.

`Filter.after` tells what a filter still asks of names that begin in a known way. By it a walk goes
to the media types that can match and, inside each, to the volumes that can.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

from storage.catalog.names import CatalogError, shown

FILTER_CHARS_MAX: Final = 100
EVERYTHING: Final = "*"

Token: TypeAlias = frozenset[str] | None  # the characters that fit, None for `*`
_ALL: Final = frozenset(map(chr, range(32, 127)))


@dataclass(frozen=True, slots=True)
class Rest:
    """What a filter asks of the end of names whose beginning is known.

    Args:
        literal: how every end begins that matches.
        everything: any end matches.
    """

    literal: str
    everything: bool


class Filter:
    """One compiled filter; made by `compile_filter`.

    Attributes:
        text: as it was written.
        matches: tells whether a whole name matches.
    """

    __slots__ = ("_dots", "_tokens", "matches", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._tokens = _tokens(text)
        # How many dots are still to come at least, for each place in the filter.
        self._dots = [0] * (len(self._tokens) + 1)
        for at in range(len(self._tokens) - 1, -1, -1):
            self._dots[at] = self._dots[at + 1] + (self._tokens[at] == frozenset("."))
        matching = _expression(self._tokens).fullmatch
        self.matches: Callable[[str], object] = matching

    def after(self, beginning: str, *, dots_left: int = 0) -> Rest | None:
        """Tell what is asked of the rest of a name.

        Args:
            beginning: how the name begins.
            dots_left: dots in its rest; 0 for a volume whose media type is known.

        Returns:
            None when no name that begins so can match.
        """
        places = self._closed({0})
        for character in beginning:
            stepped = set()
            for place in places:
                if place < len(self._tokens):
                    token = self._tokens[place]
                    if token is None:
                        stepped.add(place)
                    elif character in token:
                        stepped.add(place + 1)
            places = self._closed(stepped)
            if not places:
                return None
        places = {place for place in places if self._dots[place] <= dots_left}
        if not places:
            return None
        tokens, last = self._tokens, len(self._tokens) - 1
        if last in places and tokens[last] is None:
            return Rest("", everything=True)
        if places == {len(tokens)}:
            return None  # it ends here, and a name does not
        if len(places) > 1:
            return Rest("", everything=False)
        (place,) = places
        literal = ""
        while place <= last and (token := tokens[place]) is not None and len(token) == 1:
            (character,) = token
            literal += character
            place += 1
        return Rest(literal, everything=place == last and tokens[place] is None)

    def _closed(self, places: set[int]) -> set[int]:
        """Add the places that a `*` of no characters leads to."""
        closed = set(places)
        for place in places:
            at = place
            while at < len(self._tokens) and self._tokens[at] is None:
                at += 1
                closed.add(at)
        return closed


@lru_cache(maxsize=256)
def compile_filter(text: str) -> Filter:
    """Compile a filter.

    Raises:
        CatalogError: INVALID.
    """
    return Filter(text)


def _tokens(text: str) -> list[Token]:
    if not text or len(text) > FILTER_CHARS_MAX:
        raise CatalogError(
            f"filter refused: it has {len(text)} characters, not 1 to {FILTER_CHARS_MAX}",
            hint="`*` matches everything.",
        )
    tokens: list[Token] = []
    at = 0
    while at < len(text):
        character = text[at]
        at += 1
        if character == "*":
            if not tokens or tokens[-1] is not None:
                tokens.append(None)
        elif character == "?":
            tokens.append(_ALL)
        elif character == "[":
            end = text.find("]", at + 1)
            if end < 0:
                raise _wrong(text, "a `[` without its `]`")
            tokens.append(_class(text, text[at:end]))
            at = end + 1
        elif character not in _ALL:
            raise _wrong(text, "it has a character that no name has")
        else:
            tokens.append(frozenset(character))
    return tokens


def _class(text: str, inside: str) -> frozenset[str]:
    negated = inside.startswith("!")
    members: set[str] = set()
    at = int(negated)
    while at < len(inside):
        if at + 2 < len(inside) and inside[at + 1] == "-":
            low, high = inside[at], inside[at + 2]
            if low > high:
                raise _wrong(text, f"the range {low}-{high} runs backwards")
            members.update(map(chr, range(ord(low), ord(high) + 1)))
            at += 3
        else:
            if inside[at] != "|":
                members.add(inside[at])
            at += 1
    chosen = _ALL - members if negated else members & _ALL
    if not members or not chosen:
        raise _wrong(text, "a `[...]` that nothing fits")
    return frozenset(chosen)


def _expression(tokens: list[Token]) -> re.Pattern[str]:
    runs = [""]
    for token in tokens:
        if token is None:
            runs.append("")
        else:
            runs[-1] += "[" + "".join(f"\\x{ord(one):02x}" for one in sorted(token)) + "]"
    if len(runs) == 1:
        return re.compile(runs[0])
    middle = "".join(f"(?>.*?{run})" for run in runs[1:-1])
    return re.compile(f"{runs[0]}{middle}.*{runs[-1]}")


def _wrong(text: str, why: str) -> CatalogError:
    return CatalogError(
        f"filter {shown(text)} refused: {why}",
        hint="`*` any run, `?` one character, `[4-8]` or `[4|5]` one of these, `[!...]` none.",
    )
