"""House rules that no linter knows, checked on every file of the tree.

Each rule is a function from a tree to its breaches, so that it is also tried on a small tree that
breaks it: a rule that finds nothing anywhere says nothing.
"""

from __future__ import annotations

import ast
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
PACKAGES = ("ttserver", "replication", "storage", "bench")
# What builds, tools and running servers leave behind.
NOT_OURS = {".git", ".venv", "build", "dist", "home", "node_modules", "var-demo", "__pycache__"}

SANS_IO = (
    "replication/wire.py",
    "replication/messages.py",
    "replication/peer.py",
    "replication/acks.py",
    "replication/membership.py",
    "replication/election.py",
    "replication/compare.py",
    "replication/pauses.py",
    "replication/hold.py",
    "ttserver/resp.py",
)
NOT_SANS_IO = {"asyncio", "berkeleydb", "random", "select", "socket", "threading", "time", "uvloop"}
# Imports point down only; a package may import those it names here, and itself.
BELOW = {
    "ttserver": {"replication", "storage"},
    "replication": set[str](),
    "storage": set[str](),
    "bench": {"ttserver", "replication", "storage"},
}
NAMES_THAT_SAY_NOTHING = {"utils", "util", "common", "helpers", "helper", "misc"}
FUNCTION_LINES_MAX = 90
MODULE_LINES_MAX = 650
TEST_LINES_MAX = 1000  # cases of one module stay together
# One table of facts in one place is as long as it has rows.
TABLE_SUFFIX = "_table.py"
# Split, so that this file obeys the rule it holds.
MACHINE_PATHS = ("/wo" + "rk/", "/tmp/" + "venv", "/ro" + "ot/")


def files(root: Path, suffix: str = "") -> Iterator[Path]:
    """Yield the project's own files below `root` whose names end in `suffix`, in order."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(
            name
            for name in folders
            if name not in NOT_OURS and not name.endswith((".egg-info", "_cache", ".hypothesis"))
        )
        # In a linked work tree .git is a file, which names the machine's own directories.
        ours = (name for name in sorted(names) if name.endswith(suffix) and name not in NOT_OURS)
        yield from (Path(folder, name) for name in ours)


def imported(root: Path, path: Path) -> set[str]:
    """Name every module that `path` imports, with its dots; `from a import b` is a and a.b."""
    package = ".".join(path.relative_to(root).parent.parts)
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            # The linter forbids relative imports from a package further up.
            base = f"{package if node.level else ''}.{node.module or ''}".strip(".")
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return names


def module_file(root: Path, module: str) -> Path | None:
    """Find the file of one of our own modules, None for anybody else's."""
    parts = module.split(".")
    if parts[0] not in PACKAGES:
        return None
    path = root.joinpath(*parts)
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def machine_paths(root: Path) -> list[str]:
    found = []
    for path in files(root):
        text = path.read_bytes()
        found += [f"{path.relative_to(root)}: {p}" for p in MACHINE_PATHS if p.encode() in text]
    return found


def empty_names(root: Path) -> list[str]:
    return [
        str(path.relative_to(root))
        for path in files(root, ".py")
        if NAMES_THAT_SAY_NOTHING & {path.stem, path.parent.name}
    ]


def sans_io_breaches(root: Path) -> list[str]:
    """Follow each sans-I/O module's imports through our own modules to one that does I/O."""
    found = []
    for name in SANS_IO:
        if not (root / name).is_file():
            continue
        seen, queue = set[Path](), [root / name]
        while queue:
            path = queue.pop()
            if path in seen:
                continue
            seen.add(path)
            modules = imported(root, path)
            bad = {module.split(".")[0] for module in modules} & NOT_SANS_IO
            found += [f"{name}: {path.relative_to(root)} imports {module}" for module in bad]
            queue += [file for m in modules if (file := module_file(root, m)) is not None]
    return found


def upward_imports(root: Path) -> list[str]:
    found = []
    for package, below in BELOW.items():
        allowed = below | {package}
        for path in files(root / package, ".py"):
            tops = {module.split(".")[0] for module in imported(root, path)}
            bad = (tops & {*PACKAGES, "tests"}) - allowed
            found += [f"{path.relative_to(root)} imports {top}" for top in sorted(bad)]
    return found


def scripts_that_cannot_run(root: Path) -> list[str]:
    found = []
    for path in (*files(root / "script"), *files(root / ".ci")):
        name = str(path.relative_to(root))
        if not path.read_bytes().startswith(b"#!/usr/bin/env "):
            found.append(f"{name}: no shebang")
        if not path.stat().st_mode & stat.S_IXUSR:
            found.append(f"{name}: not executable")
    return found


def too_long(root: Path) -> list[str]:
    found = []
    for path in files(root, ".py"):
        name, text = str(path.relative_to(root)), path.read_text(encoding="utf-8")
        count = text.count("\n")
        most = TEST_LINES_MAX if name.startswith("tests/") else MODULE_LINES_MAX
        if count >= most and not name.endswith(TABLE_SUFFIX):
            found.append(f"{name}: {count} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                count = (node.end_lineno or node.lineno) - node.lineno + 1
                if count >= FUNCTION_LINES_MAX:
                    found.append(f"{name}: {node.name} has {count} lines")
    return found


# Each rule with the smallest file that breaks it, and what is then said.
RULES: list[tuple[Callable[[Path], list[str]], str, str, str]] = [
    (
        machine_paths,
        "docs/try.md",
        f"cd {MACHINE_PATHS[0]}main",
        f"docs/try.md: {MACHINE_PATHS[0]}",
    ),
    (empty_names, "storage/utils.py", "", "storage/utils.py"),
    (
        sans_io_breaches,
        "replication/acks.py",
        "from time import monotonic",
        "replication/acks.py: replication/acks.py imports time",
    ),
    (
        upward_imports,
        "replication/manager.py",
        "def f() -> None:\n    from storage import environment",
        "replication/manager.py imports storage",
    ),
    (scripts_that_cannot_run, "script/x", "#!/usr/bin/env bash", "script/x: not executable"),
    (scripts_that_cannot_run, ".ci/run", "echo", ".ci/run: no shebang"),
    (
        too_long,
        "bench/long.py",
        "def f() -> None:\n" + "    f()\n" * 89,
        "bench/long.py: f has 90 lines",
    ),
    (too_long, "bench/long.py", "x = 1\n" * 650, "bench/long.py: 650 lines"),
    (too_long, "tests/unit/test_long.py", "x = 1\n" * 1000, "tests/unit/test_long.py: 1000 lines"),
]


@pytest.mark.parametrize("rule", dict.fromkeys(rule for rule, *_ in RULES))
def test_tree_obeys(rule: Callable[[Path], list[str]]) -> None:
    assert rule(ROOT) == []


@pytest.mark.parametrize(("rule", "name", "text", "breach"), RULES)
def test_rule_finds_a_breach(
    rule: Callable[[Path], list[str]], name: str, text: str, breach: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")

    assert breach in rule(tmp_path)


def test_sans_io_rule_sees_through_our_own_modules(tmp_path: Path) -> None:
    (tmp_path / "replication").mkdir()
    (tmp_path / "replication/wire.py").write_text("from .clock import now\n", encoding="utf-8")
    (tmp_path / "replication/clock.py").write_text("import time\n", encoding="utf-8")

    assert sans_io_breaches(tmp_path) == ["replication/wire.py: replication/clock.py imports time"]
