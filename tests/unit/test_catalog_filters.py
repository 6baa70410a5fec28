"""Filters of names, and what they still ask of names whose beginning is known."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.catalog.filters import FILTER_CHARS_MAX, Rest, compile_filter
from storage.catalog.names import CatalogError


@pytest.mark.parametrize(
    ("text", "yes", "no"),
    [
        ("*", "US04.LTO.1 X", ""),
        ("US04.LTO.*", "US04.LTO.1 US04.LTO.A-B", "US04.LTO US04.LTOX.1 XUS04.LTO.1"),
        ("US*.LTO.*", "US04.LTO.1 US.LTO.9 US1.LTO.X", "USA.DL.1 ACME.LTO.1"),
        ("ACME.LTO.??????L[4-8]", "ACME.LTO.123456L4 ACME.LTO.123456L8", "ACME.LTO.123456L9"),
        ("ACME.LTO.??????L[4-8]", "ACME.LTO.AAAAAAL5", "ACME.LTO.12345L4 ACME.LTO.123456L44"),
        ("A[12]", "A1 A2", "A3 A12 A"),
        ("A[4|5]", "A4 A5", "A| A45"),
        ("A[!4-8]", "A3 A9 AX", "A4 A6 A8 A"),
        ("A[!1|2]", "A3", "A1 A2"),
        ("A[1-3X]", "A2 AX", "A4"),
        ("*L6", "L6 123456L6", "L66"),
        ("**A**", "A XAX", "B"),
        ("1?3", "123 1.3", "13 1233"),
        ("A.B", "A.B", "AXB"),
    ],
)
def test_a_filter_fits_whole_names(text: str, yes: str, no: str) -> None:
    found = compile_filter(text)
    assert all(found.matches(name) for name in yes.split())
    assert not any(found.matches(name) for name in no.split())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it has 0 characters"),
        ("x" * (FILTER_CHARS_MAX + 1), f"it has {FILTER_CHARS_MAX + 1} characters"),
        ("A[1", "a `[` without its `]`"),
        ("A[]", "a `[` without its `]`"),
        ("A[|]", "a `[...]` that nothing fits"),
        ("A[!]", "a `[...]` that nothing fits"),
        ("A[8-4]", "the range 8-4 runs backwards"),
        ("A\n", "it has a character that no name has"),
        ("Ä", "it has a character that no name has"),
    ],
)
def test_a_filter_that_cannot_be_says_why(text: str, why: str) -> None:
    with pytest.raises(CatalogError, match=re.escape(why)) as raised:
        compile_filter(text)
    assert raised.value.hint


@pytest.mark.parametrize(
    ("text", "beginning", "rest"),
    [
        ("*", "US04.LTO.", Rest("", everything=True)),
        ("US04.*", "US04.LTO.", Rest("", everything=True)),
        ("US04.LTO.*", "US04.LTO.", Rest("", everything=True)),
        ("US04.LTO.0001*", "US04.LTO.", Rest("0001", everything=True)),
        ("US04.LTO.0001??L6", "US04.LTO.", Rest("0001", everything=False)),
        ("US04.LTO.123456L6", "US04.LTO.", Rest("123456L6", everything=False)),
        ("*.*.123456L6", "US04.LTO.", Rest("123456L6", everything=False)),
        ("US*.LTO.*", "US04.LTO.", Rest("", everything=True)),
        ("US*.L*.1*", "US04.LTO.", Rest("1", everything=True)),
        ("*L6", "US04.LTO.", Rest("", everything=False)),
        ("US04.DL.*", "US04.LTO.", None),
        ("US0[1-3].*", "US04.LTO.", None),
        ("US04", "US04.LTO.", None),
        ("US04.LTO.", "US04.LTO.", None),
        ("US04.LTO", "US04.LTO.", None),
        ("?S04.LTO.[1]2*", "US04.LTO.", Rest("12", everything=True)),
    ],
)
def test_what_a_filter_asks_of_the_rest(text: str, beginning: str, rest: Rest | None) -> None:
    assert compile_filter(text).after(beginning) == rest


PATTERNS = st.lists(st.sampled_from(["*", "?", "A", "B", ".", "[AB]", "[!A]", "1"]), max_size=8)
NAMES = st.text("AB1", min_size=1, max_size=3)


@given(PATTERNS.map("".join).filter(bool), NAMES, NAMES, NAMES)
def test_the_rest_loses_no_name(text: str, one: str, two: str, three: str) -> None:
    found = compile_filter(text)
    matched = bool(found.matches(f"{one}.{two}.{three}"))
    rest = found.after(f"{one}.{two}.")
    if rest is None:
        assert not matched
    else:
        assert not matched or three.startswith(rest.literal)
        if rest.everything and three.startswith(rest.literal):
            assert matched
    if matched:
        assert found.after(f"{one}.", dots_left=1) is not None
        assert found.after("", dots_left=2) is not None


def test_no_filter_costs_more_than_its_length() -> None:
    found = compile_filter("*A" * (FILTER_CHARS_MAX // 2))
    began = time.process_time()
    assert not found.matches("A" * 49 + "B" * 2000)
    assert time.process_time() - began < 1.0  # backtracking would take longer than the sun has
