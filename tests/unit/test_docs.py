"""README.md and docs/*.md name only what exists: modules, links, commands, options, words.

That the commands do what the pages show is tested by tests/e2e/test_docs_commands.py.

`python -m tests.unit.test_docs` brings the map of the modules in docs/ARCHITECTURE.md up to date.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import os
import re
import shlex
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import typer.main

from replication.journal_line import EVENTS, parse_line
from storage.dbconfig_table import DIRECTIVES
from tests.e2e.test_docs_commands import stories
from ttserver.cli.main import app
from ttserver.client import Client
from ttserver.commands import TABLE
from ttserver.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MAP = ROOT / "docs" / "ARCHITECTURE.md"
PACKAGES = ("storage", "replication", "ttserver")
BEGIN, END = "<!-- begin modules -->", "<!-- end modules -->"

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


# -- what a page says


def prose(page: Path) -> str:
    """Leave the blocks out."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def code(page: Path) -> list[str]:
    """List what stands in back quotes."""
    return re.findall(r"`([^`\n]+)`", prose(page))


def command_lines(page: Path) -> Iterator[str]:
    """Yield every command, of blocks and of the text."""
    for story in stories(page):
        yield from (command.text for command in story.commands)
    yield from code(page)
    for block in re.findall(r"^```sh\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
        yield from block.splitlines()


def table(page: Path, heading: str) -> list[list[str]]:
    """Give the cells of the first table below a heading, without its head."""
    text = page.read_text().split(f"{heading}\n", 1)[1]
    rows = re.search(r"^\|.*\n\|[ -|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert rows is not None, heading
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in rows[1].split("\n")]


# -- what there is


@functools.cache
def modules() -> dict[str, ast.Module]:
    """Parse every module, by its path."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            found[str(path.relative_to(ROOT))] = ast.parse(path.read_text())
    return found


@functools.cache
def texts() -> frozenset[str]:
    """Collect every text constant of the program but its docstrings; f-strings give their parts."""
    found = set()
    for tree in modules().values():
        docs = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and id(node) not in docs:
                value = node.value
                if isinstance(value, bytes):
                    found.add(value.decode("latin-1"))
                elif isinstance(value, str):
                    found.add(value)
    return frozenset(found)


@functools.cache
def all_texts() -> str:
    return "\n".join(sorted(texts()))


@functools.cache
def words() -> frozenset[str]:
    return frozenset(re.findall(r"\w+", all_texts()))


def setting_keys() -> set[str]:
    return {
        f"{section}.{key}"
        for section in Settings.__struct_fields__
        for key in type(getattr(Settings(), section)).__struct_fields__
    }


def slug(heading: str) -> str:
    """Make the anchor of a heading the way the forges do."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


# -- modules


def first_sentence(tree: ast.Module) -> str:
    doc = ast.get_docstring(tree) or ""
    return " ".join(doc.split("\n\n")[0].split()).rstrip(".").replace("|", "\\|")


def module_rows(text: str) -> dict[str, str]:
    """Read the map: path -> what it says."""
    found: dict[str, str] = {}
    package = ""
    for line in text.split(BEGIN)[1].split(END, maxsplit=1)[0].splitlines():
        if heading := re.fullmatch(r"### (\w+)/", line):
            package = heading[1]
        elif row := re.fullmatch(r"\| `([\w/]+\.py)` \| (.*) \|", line):
            assert f"{package}/{row[1]}" not in found, f"{line}: twice"
            found[f"{package}/{row[1]}"] = row[2]
    return found


def mapped() -> dict[str, str]:
    """Say what the map has to say."""
    return {
        name: first_sentence(tree)
        for name, tree in modules().items()
        if name.count("/") > 1 or not name.endswith("__init__.py")
    }


def test_every_module_is_on_the_map_with_its_own_words() -> None:
    assert module_rows(MAP.read_text()) == mapped(), "run: python -m tests.unit.test_docs"


def bring_up_to_date() -> None:
    """Rewrite the map: rows keep their place, new modules go to the end of their package."""
    before, rest = MAP.read_text().split(BEGIN)
    inside, after = rest.split(END)
    wanted = mapped()
    packages = re.split(r"^(?=### )", inside, flags=re.MULTILINE)
    for number, part in enumerate(packages[1:], start=1):
        package = part[4:].split("/")[0]
        lines = []
        for line in part.rstrip().splitlines():
            row = re.match(r"\| `([\w/]+\.py)`", line)
            if row is None:
                lines.append(line)
            elif said := wanted.pop(f"{package}/{row[1]}", None):
                lines.append(f"| `{row[1]}` | {said} |")
        new = [name for name in wanted if name.startswith(f"{package}/")]
        lines += [f"| `{name.removeprefix(f'{package}/')}` | {wanted.pop(name)} |" for name in new]
        packages[number] = "\n".join(lines) + "\n\n"
    MAP.write_text(f"{before}{BEGIN}{''.join(packages)}{END}{after}")


@each_page
def test_files_and_tests_that_are_named_exist(page: Path) -> None:
    for name in code(page):
        if re.fullmatch(r"(storage|replication|ttserver|tests|conf|docs|script)/[\w./-]+", name):
            assert (ROOT / name).exists(), name
        if named := re.fullmatch(r"(tests/[\w/]+\.py)::(\w+)", name):
            assert re.search(rf"def {named[2]}\(", (ROOT / named[1]).read_text()), name
        if constant := re.fullmatch(r"((?:storage|replication|ttserver)[\w.]+)\.([A-Z_]+)", name):
            assert isinstance(
                getattr(importlib.import_module(constant[1]), constant[2]), int | float
            )


def test_the_decision_at_a_start_is_the_modules_own() -> None:
    doc = ast.get_docstring(modules()["replication/coldstart.py"])
    assert doc is not None
    assert textwrap.dedent(doc.split("\n\n")[2]) in MAP.read_text()


def test_the_threads_are_those_that_are_made() -> None:
    names = [re.findall("`([a-z-]+)`", row[0]) for row in table(MAP, "## Threads") if row[0]]
    assert len(names) > 10
    for (name,) in filter(None, names):
        assert name in texts() or f"{name}-" in texts(), name


# -- links


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        assert path.is_file(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE)
            assert anchor in map(slug, headings), target


# -- programs


@functools.cache
def program() -> object:
    return typer.main.get_command(app)


def ttserver_arguments(line: str) -> list[str] | None:
    """Take the arguments out of a line that runs ttserver; None for any other."""
    line = re.split(r" 2?>| # ", line.replace("\\\n", " "), maxsplit=1)[0]
    found = re.search(r"(?:^|\| |sudo -u \w+ )ttserver( [^|&<>#]*)?$", line)
    return None if found is None else shlex.split((found[1] or "").replace("…", ""))


@pytest.mark.parametrize(
    ("line", "arguments"),
    [
        ("ttserver --home db1 run 2>db1.log &", ["--home", "db1", "run"]),
        ("echo x | ttserver init \\\n      --role master", ["init", "--role", "master"]),
        ("sudo -u tape ttserver status  # exit 1", ["status"]),
        ("systemctl stop ttserver", None),
        ("ls /var/lib/ttserver", None),
    ],
)
def test_commands_are_found_in_lines(line: str, arguments: list[str] | None) -> None:
    assert ttserver_arguments(line) == arguments


@each_page
def test_commands_of_ttserver_and_their_options_exist(page: Path) -> None:
    for line in command_lines(page):
        command: object = program()
        given = ttserver_arguments(line)
        for word in given or ():
            commands = getattr(command, "commands", {})
            if word.startswith("-"):
                options = {o for p in getattr(command, "params", []) for o in p.opts}
                assert word in options | {"--help", "-h"}, f"{line}: {word}"
            elif re.fullmatch(r"[a-z]+", word) and commands:
                assert word in commands, f"{line}: {word}"
                command = commands[word]


@each_page
def test_scripts_that_are_named_can_be_run(page: Path) -> None:
    for line in command_lines(page):
        for name in re.findall(r"\b(?:script/\w+|bench/setup-peers)", line):
            assert os.access(ROOT / name, os.X_OK), name


# -- words


@each_page
def test_words_in_capitals_are_commands_or_said_by_the_server(page: Path) -> None:
    known = {command.name for command in TABLE}
    known |= {sub.decode() for command in TABLE for sub in command.subcommands}
    known = {word.upper() for name in known for word in re.split(r"[|.]", name)}
    known |= words() | {"RUNNING"}  # a state, shown so
    found = {name for name in code(page) if re.fullmatch("[A-Z]{4,}", name)}
    assert found - known == set()


# Programs of Berkeley DB.
TOOLS = {f"db_{name}" for name in ("archive", "dump", "hotbackup", "load", "stat", "verify")}
OF_PEERS = {"shared_buffers", "synchronous_commit"}  # PostgreSQL's


@each_page
def test_words_with_underscores_are_ours(page: Path) -> None:
    """Events, directives, options and keys: a name that does not exist helps nobody."""
    known = {*EVENTS, *DIRECTIVES, *TOOLS, *OF_PEERS, *words()}
    known |= {key.partition(".")[2] for key in setting_keys()}
    known |= {*dir(Client), *inspect.signature(Client).parameters, "_set"}
    found = {
        word
        for name in code(page)
        if "/" not in name
        for word in re.findall(r"(?<![\w.$-])[a-z]+(?:_[a-z]+)+(?![\w.:-])", name)
    }
    assert found - known == set()


@each_page
def test_keys_of_ttserver_toml_exist(page: Path) -> None:
    found = {
        f"{sectioned[1]}.{sectioned[2]}"
        for name in code(page)
        if (sectioned := re.match(r"\[(\w+)\] (\w+)\b", name))
    }
    sections = "|".join(Settings.__struct_fields__)
    found |= {name for name in code(page) if re.fullmatch(rf"({sections})\.[a-z_]+", name)}
    parts = {name.removesuffix(".py").replace("/", ".") for name in modules()}
    files = {name for name in found if name.endswith((".py", ".toml"))}
    assert found - setting_keys() - parts - files == set()


@each_page
def test_lines_of_the_journal_have_known_words(page: Path) -> None:
    for story in stories(page):
        for command in story.commands:
            for line in command.shown:
                if re.match(r"\d{4}-\d\d-\d\d ", line):
                    parsed = parse_line(line.removesuffix(" ..."))
                    assert parsed is not None, line
                    assert parsed.event in EVENTS, line


OPERATIONS = ROOT / "docs" / "OPERATIONS.md"
# Messages of the system and of other programs, and events, which have a test of their own.
NOT_OURS = {"connection refused", "address already in use"}


def test_reasons_to_wait_are_said_in_these_words() -> None:
    rows = [row for row in table(OPERATIONS, "### Start Pending, and its reason") if row[0]]
    assert len(rows) > 8
    for row in rows:
        said = [part in all_texts() for part in re.split(r"\s*…\s*", row[0])]
        assert all(said), row[0]


@pytest.mark.parametrize("heading", ["### Starting", "### Sites that do not find each other"])
def test_messages_are_said_in_these_words(heading: str) -> None:
    for row in table(OPERATIONS, heading):
        for message in re.findall("`([^`]+)`", row[0]):
            parts = re.split(r"\s*…\s*|\d+(?: s|: )?", message)
            said = [part in NOT_OURS or part.rstrip(":") in all_texts() for part in parts]
            assert all(said), message


if __name__ == "__main__":
    bring_up_to_date()
