"""Every command that README.md and docs/*.md print is run here, in the order it is printed.

How a page says what is to be run:

- `<!-- story: NAME -->` begins a story: an empty directory, shown as `/srv`, and a fresh shell. A
  story named `checkout ...` runs in the project's own directory.
- In a block of the kind `console`, `$ ` begins a command; what follows is what it prints. Lines
  may be left out, the others come in this order; `...` stands for anything within a line. A block
  of the kind `python` is a program.
- `# exit 1` behind a command is its exit status; without it, that is 0.
- Addresses stand for real ones: 192.0.2.N is 127.0.0.N here, the ports 5000 and 5010 are ports the
  kernel chose, in the commands and in every DB_CONFIG and ttserver.toml they make.
- A command that only looks is repeated until it shows what the page shows, as a reader would do.
  After `kill` the process is waited for, as long as a person needs for the next line.
- Times, amounts and positions in the log are compared by their form alone.
"""

from __future__ import annotations

import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.sites import DEADLINE_S, LOOK_S, wait_for
from ttserver.demo.ports import CLIENT_PORT, REPLICATION_PORT, reserved

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

LOOKS = re.compile(
    r"(ttserver|sudo -u ttserver ttserver)( --home \S+)? (status|sites|events|check|user list)\b"
    r"|redis-cli .*\b(GET|DBSIZE|PING|ROLE)\b|grep\b|tail\b|ls\b|db5\.3_(stat|dump|archive)\b"
)
KILL = re.compile(r"kill( -\w+)? \$\(cat (?P<lock>\S+/ttserver\.lock)\)$")
EXIT = re.compile(r"\s+# exit (\d+)$")
# Directories of a real machine that live in the story's directory here.
SYSTEM = ("/var/lib/ttserver", "/etc/systemd/system")
# What differs from run to run, and what it is compared as.
VARIES = [
    (re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d(\.\d+)?Z?)?"), "TIME"),
    (re.compile(r"\b\d+(\.\d+)? (ms|s|B|KB|MB|GB|TB)\b"), "AMOUNT"),
    (re.compile(r"\[\d+\]\[\d+\]|\b\d+/\d+\b"), "LSN"),
    (re.compile(r"\b(pid|pages|bytes|files|seconds|lsn|wait_s)=\S+"), r"\1=VALUE"),
    (re.compile(r"\bfrom=\S+:\d+"), "from=CALLER"),
    (re.compile(r"\bprocess \d+"), "process PID"),
    (re.compile(r"\s+"), " "),
]

# Stand-ins for what would change the machine; the unit's own command line is really run.
STAND_INS = {
    "sudo": 'shift 2\nexec "$@"',
    "useradd": "exit 0",
    "install": """
arguments=()
while [ $# -gt 0 ]; do
    case "$1" in -o | -g) shift 2 ;; *) arguments+=("$1") && shift ;; esac
done
exec /usr/bin/install "${arguments[@]}\"""",
    "systemctl": """
unit=$STORY/etc/systemd/system/ttserver.service
case "$1" in
daemon-reload) test -s "$unit" ;;
enable)
    export "$(sed -n 's/^Environment=//p' "$unit")"
    $(sed -n 's/^ExecStart=//p' "$unit") &
    ;;
stop) kill "$(cat "$STORY/var/lib/ttserver/ttserver.lock")" ;;
esac""",
}


@dataclass(slots=True)
class Command:
    """One command of a page.

    Args:
        line: its line in the page, from 1.
        shown: what the page says that it prints.
    """

    page: Path
    line: int
    text: str
    exit_status: int = 0
    shown: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Story:
    """Commands that belong together."""

    name: str
    commands: list[Command] = field(default_factory=list)


def stories(page: Path) -> list[Story]:
    """Read the stories of a page."""
    found: list[Story] = []
    kind = ""
    for number, line in enumerate(page.read_text().splitlines(), start=1):
        if begins := re.fullmatch(r"<!-- story: (.+) -->", line):
            found.append(Story(begins[1]))
        elif line.startswith("```"):
            kind = "" if kind else line[3:] or "plain"
            if kind == "python":
                found[-1].commands.append(Command(page, number, "python3 - <<'END'"))
            elif not kind and found and found[-1].commands:
                _close(found[-1].commands[-1])
        elif kind in {"console", "python"}:
            assert found, f"{page.name}:{number}: a command before the first story"
            _take(found[-1].commands, kind, page, number, line)
    return found


def _take(commands: list[Command], kind: str, page: Path, number: int, line: str) -> None:
    if kind == "python" or (commands and _goes_on(commands[-1].text)):
        commands[-1].text += f"\n{line}"
    elif line.startswith("$ "):
        text, status = line[2:], EXIT.search(line)
        if status:
            text = EXIT.sub("", text)
        commands.append(Command(page, number, text, int(status[1]) if status else 0))
    else:
        commands[-1].shown.append(line)


def _goes_on(text: str) -> bool:
    return text.endswith("\\") or ("<<'END'" in text and not text.endswith("\nEND"))


def _close(command: Command) -> None:
    if command.text.startswith("python3 - <<'END'") and not command.text.endswith("\nEND"):
        command.text += "\nEND"


class World:
    """Where a story takes place, and how its words are translated.

    Args:
        directory: the story's own.
        ports: the real ones by those in the text.
    """

    def __init__(self, directory: Path, ports: dict[int, int]) -> None:
        self.directory = directory
        self._ports = ports

    def real(self, text: str) -> str:
        """Turn a page's words into those of this machine."""
        text = re.sub(r"\b192\.0\.2\.(\d+)\b", r"127.0.0.\1", text)
        for shown, port in self._ports.items():
            text = re.sub(rf"\b{shown}\b", str(port), text)
        # Where a page leaves the port out, `tt` takes one that is another here.
        text = re.sub(r"(\btt -S [\w@.]+)(?=\s)", rf"\1:{self._ports[CLIENT_PORT]}", text)
        for path in SYSTEM:
            text = text.replace(path, f"{self.directory}{path}")
        return re.sub(r"(?<![\w/.])/srv\b", str(self.directory), text)

    def shown(self, text: str) -> str:
        """Turn this machine's words into those of a page."""
        for path in SYSTEM:
            text = text.replace(f"{self.directory}{path}", path)
        text = text.replace(str(self.directory), "/srv")
        for shown, port in self._ports.items():
            text = re.sub(rf"\b{port}\b", str(shown), text)
        return re.sub(r"\b127\.0\.0\.([123]0)\b", r"192.0.2.\1", text)

    def translate_files(self) -> None:
        """Give the files that commands made this machine's addresses."""
        for name in ("DB_CONFIG", "ttserver.toml", "ttserver.service"):
            for path in self.directory.rglob(name):
                if path.parent.name != "db":
                    before = path.read_text()
                    if str(self.directory) not in before and before != self.real(before):
                        path.write_text(self.real(before))


class Shell:
    """A shell that keeps its directory and its variables from command to command.

    Its daemons are of its process group and end with it; the kernel ends them when the test's own
    process is killed.
    """

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self._directory = directory
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "bash", "--noprofile", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=directory,
            env=environment,
            start_new_session=True,
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))

    def run(self, script: Path, deadline_s: float) -> tuple[int, list[str]]:
        """Run one script in this shell; give its exit status and what it printed."""
        assert self._process.stdin is not None
        mark = f"--- {os.urandom(8).hex()}"
        self._process.stdin.write(f". {script} </dev/null\nprintf '\\n%s %s\\n' '{mark}' $?\n")
        self._process.stdin.flush()
        printed: list[str] = []
        end_s = time.monotonic() + deadline_s
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, end_s - time.monotonic()))
            except queue.Empty:
                said = "\n".join(printed)
                pytest.fail(f"not within {deadline_s:g} s: {script.read_text()}\n{said}")
            if line.startswith(mark):
                return int(line.split()[-1]), printed
            printed.append(line)

    def end(self) -> None:
        """Kill the shell and all it started."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()  # to the end of the output: nobody else holds its other end
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


def plain(text: str) -> str:
    """Take out what differs from run to run."""
    for pattern, name in VARIES:
        text = pattern.sub(name, text)
    return text.strip()


def missing(shown: list[str], printed: list[str]) -> str | None:
    """Find the first line that a page shows and a command did not print after the one before."""
    rest = iter([plain(line) for line in printed])
    for line in shown:
        wanted = re.compile(".*".join(map(re.escape, plain(line).split("..."))))
        if not any(wanted.fullmatch(candidate) for candidate in rest):
            return line
    return None


class Player:
    """Plays a story.

    Args:
        directory: empty, its own.
        world: the addresses.
        shell: where its commands run.
    """

    def __init__(self, world: World, shell: Shell) -> None:
        self._world = world
        self._shell = shell
        self._script = world.directory / ".command"

    def play(self, command: Command) -> None:
        """Run a command and compare it with the page."""
        where = f"{command.page.name}:{command.line}: {command.text}"
        text = self._world.real(command.text)
        self._script.write_text(f"{text}\n")
        locks = {path: path.read_text() for path in self._world.directory.rglob("ttserver.lock")}
        end_s = time.monotonic() + (DEADLINE_S if LOOKS.match(command.text) else 0.0)
        while True:
            status, printed = self._shell.run(self._script, DEADLINE_S)
            printed = [self._world.shown(line) for line in printed]
            lacking = missing(command.shown, printed)
            if lacking is None and status == command.exit_status:
                break
            if time.monotonic() >= end_s:
                said = "\n".join(printed)
                what = f"it did not print: {lacking}" if lacking else f"exit status {status}"
                pytest.fail(f"{where}\n{what}\nit printed:\n{said}", pytrace=False)
            time.sleep(LOOK_S)
        self._world.translate_files()
        if killed := KILL.match(command.text):
            self._wait_for_end(int(locks[self._world.directory / killed["lock"]]))

    def _wait_for_end(self, pid: int) -> None:
        def gone() -> bool:
            try:
                return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
            except (FileNotFoundError, ProcessLookupError):
                return True

        wait_for(f"the end of process {pid}", gone)


@pytest.fixture
def world(fast_path: Path) -> Iterator[World]:
    """Give a story's place: its directory and ports that nobody else gets."""
    directory = fast_path / "story"
    for path in SYSTEM[1:]:
        Path(f"{directory}{path}").mkdir(parents=True)
    with ExitStack() as held:
        ports = {
            shown: held.enter_context(reserved("0.0.0.0")).port
            for shown in (CLIENT_PORT, REPLICATION_PORT)
        }
        yield World(directory, ports)


def programs(directory: Path) -> Path:
    """Make the commands `ttserver`, `tt` and `python3` of this checkout, and the stand-ins."""
    directory.mkdir()
    python = f'exec setpriv --pdeathsig KILL {sys.executable} "$@"'
    bodies = {
        "python3": python,
        "ttserver": python.replace('"$@"', '-m ttserver "$@"'),
        "tt": python.replace('"$@"', '-m ttserver.tt "$@"'),
        **STAND_INS,
    }
    for name, body in bodies.items():
        path = directory / name
        path.write_text(f"#!/usr/bin/env bash\n{body}\n")
        path.chmod(0o755)
    return directory


def all_stories() -> list[tuple[str, Story]]:
    return [(page.name, story) for page in PAGES for story in stories(page)]


@pytest.mark.skipif(shutil.which("redis-cli") is None, reason="redis-cli is not installed")
@pytest.mark.parametrize(
    "story", [pytest.param(story, id=f"{page}: {story.name}") for page, story in all_stories()]
)
def test_story(story: Story, world: World, fast_path: Path) -> None:
    path = programs(fast_path / "bin")
    environment = {
        "PATH": f"{path}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "STORY": str(world.directory),
        "COLUMNS": "200",
        "LANG": "C.UTF-8",
    }
    checkout = story.name.startswith("checkout")
    shell = Shell(ROOT if checkout else world.directory, environment)
    try:
        for command in story.commands:
            Player(world, shell).play(command)
    finally:
        shell.end()
        for log in sorted(world.directory.glob("*.log")):
            print(log.name, *log.read_text().splitlines()[-40:], sep="\n")
