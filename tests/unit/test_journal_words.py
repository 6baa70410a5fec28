"""The journal's vocabulary: docs/JOURNAL.md lists it, and the packages use no other word."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from replication.journal_line import EVENTS, parse_line

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "JOURNAL.md"
PACKAGES = ("replication", "storage", "ttserver")
ROW = re.compile(r"^\| `([a-z0-9_]+)` \| (.*?) \| (.*?) \|$")


def journal_calls(source: str) -> Iterator[tuple[str, set[str]]]:
    """Give the events and facts of `journal.write("x", fact=...)`, `_note("x")`, `Note("x")`."""
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and node.args):
            continue
        first = node.args[0]
        if not (isinstance(first, ast.Constant) and isinstance(first.value, str)):
            continue
        called = ast.unparse(node.func)
        if re.search(r"journal\.write(_seldom)?$|(^|[._])note$|(^|\.)Note$", called):
            facts = {keyword.arg.rstrip("_") for keyword in node.keywords if keyword.arg}
            yield first.value, facts - {"every_s", "burst"}


def test_the_guide_lists_every_word_with_its_meaning_group_by_group() -> None:
    rows: list[tuple[str, str, str, str]] = []
    group = ""
    for line in GUIDE.read_text(encoding="utf-8").split("## The words")[1].splitlines():
        if line.startswith("### "):
            group = line.removeprefix("### ")
        elif found := ROW.match(line):
            rows.append((group, found[1], found[2], found[3].replace("`", "")))
    assert rows == [
        (event.group, name, event.meaning, event.facts) for name, event in EVENTS.items()
    ]


def test_the_guides_examples_are_lines_with_known_words_and_facts() -> None:
    examples = re.findall(r"^2026-.*$", GUIDE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(examples) > 15
    for example in examples:
        line = parse_line(example)
        assert line is not None, example
        assert set(line.facts) <= set(EVENTS[line.event].facts.split()), example


@pytest.mark.parametrize("package", PACKAGES)
def test_the_packages_write_no_word_and_no_fact_that_is_not_listed(package: str) -> None:
    unlisted = [
        f"{path.relative_to(ROOT)}: {event} {' '.join(sorted(facts))}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for event, facts in journal_calls(path.read_text(encoding="utf-8"))
        if event not in EVENTS or not facts <= set(EVENTS[event].facts.split())
    ]
    assert unlisted == [], "list it in EVENTS of replication/journal_line.py and in the guide"


def test_the_search_for_words_finds_them() -> None:
    source = (
        'self.journal.write("a", from_=1)\nself._note("b", x=1, **more)\n'
        'effects.Note("c", {})\njournal.write_seldom("d", every_s=1, burst=2, y=3)\nfile.write("e")'
    )
    assert list(journal_calls(source)) == [
        ("a", {"from"}),
        ("b", {"x"}),
        ("c", set()),
        ("d", {"y"}),
    ]
