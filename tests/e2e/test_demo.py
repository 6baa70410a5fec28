"""`script/server`: what a stranger runs first."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.sites import wait_for

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parents[2]
STEPS = (
    "make two sites",
    "start the master",
    "load the sample data",
    "start the replicant",
    "initial sync",
    "read on the replicant",
    "write on the replicant",
    "move tapes on the master, see them on the replicant",
    "write on the master, read on the replicant",
    "journal of the master",
    "journal of the replicant",
    "stop both",
)


@contextmanager
def script(directory: Path, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """Run script/server with this interpreter; it does not outlive the context."""
    process = subprocess.Popen(
        [ROOT / "script" / "server", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=directory,
        env={**os.environ, "TTSERVER_PYTHON": sys.executable, "TMPDIR": str(directory)},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=60)


def test_smoke_does_every_step_and_cleans_up(fast_path: Path) -> None:
    with script(fast_path, "--smoke") as server:
        said, _ = server.communicate(timeout=240)
        assert server.returncode == 0, said
    lines = said.splitlines()
    assert [line.partition(":")[0] for line in lines] == [f"ok    {step}" for step in STEPS]
    assert "10000 volumes" in lines[2]
    assert "10000 volumes; US04.LTO.000000L6 monthly is in RACK" in lines[5]
    assert "refused: READONLY" in lines[6]
    assert "5 on their way there" in lines[7]
    assert lines[7].endswith("add, move, confirm")
    assert list(fast_path.iterdir()) == []


def test_smoke_says_which_step_failed_and_shows_the_logs(fast_path: Path) -> None:
    (fast_path / "kept" / "master").mkdir(parents=True)
    (fast_path / "kept" / "master" / "DB_CONFIG").write_text("rep-set-priority 1\n")
    with script(fast_path, "--smoke", "kept") as server:
        said, _ = server.communicate(timeout=240)
    assert server.returncode == 1
    lines = said.splitlines()
    assert lines[0].startswith("FAIL  make two sites: DB_CONFIG:1: ")
    assert lines[1].startswith("HINT: ")
    assert f"---- master: {fast_path}/kept/master.log" in lines
    assert lines[-1] == f"kept  {fast_path}/kept"


def paste(directory: Path, lines: list[str], number: int) -> tuple[int, str] | None:
    """Run a line of the screen if it is one of our commands; gives its status and what it said."""
    line = lines[number].strip()
    if not re.match(r"\S+(/tt|/ttserver| -m ttserver(\.tt)?) -", line):
        return None
    exports = [text.strip() for text in lines[:number] if text.strip().startswith("export ")]
    done = subprocess.run(
        ["bash", "-c", "\n".join([*exports, line])],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_runs_until_it_is_told_to_stop(fast_path: Path, how: signal.Signals) -> None:
    with script(fast_path, "here") as server:
        assert server.stdout is not None
        lines: list[str] = []
        for line in server.stdout:
            lines.append(line.rstrip())
            # The last thing before it only looks on: both sites as they are.
            if " replicant running" in line:
                break
        pids = [
            int((fast_path / "here" / name / "ttserver.lock").read_text())
            for name in ("master", "replicant")
        ]
        pasted = [paste(fast_path, lines, number) for number in range(len(lines))]
        server.send_signal(how)
        rest, _ = server.communicate(timeout=120)
        assert server.returncode == 0, rest
    password = (fast_path / "here" / "password").read_text().strip()
    assert any(f"export REDISCLI_AUTH={password}" in line for line in lines)
    assert sum("redis-cli -h 127.0.0." in line for line in lines) >= 5
    said = [done for done in pasted if done is not None]
    assert len(said) >= 11
    # All a reader is told to try does what is said; the replicant takes no update.
    assert [text for status, text in said if status != 0] == [
        text for _, text in said if "is a replicant (master is" in text
    ]
    assert sum(status != 0 for status, _ in said) == 1
    assert "both are stopped" in rest
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_its_sites_end_with_it_when_it_is_killed(fast_path: Path) -> None:
    with script(fast_path, "here") as server:
        lock = fast_path / "here" / "master" / "ttserver.lock"
        pid = wait_for("the master runs", lambda: lock.exists() and lock.read_text().strip())
        server.kill()
    wait_for("the master has ended", lambda: not Path(f"/proc/{pid}").exists())
