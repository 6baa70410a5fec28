"""`script/setup` on machines that this one is not.

It runs for real, in a copy of its own in a path with spaces, on a PATH that holds only what the
test puts there; the package tools on it are small scripts that note how they were called. What it
does on this machine is tried by every run of the suite, which begins with it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("bash", "cat", "cut", "dirname", "env", "flock", "id", "rm", "sed", "sha256sum")
DEBIAN = 'ID=raspbian\nID_LIKE="debian"\n'
FEDORA = 'ID=fedora\nPRETTY_NAME="Fedora Linux 43"\n'


class Machine:
    """A checkout and a PATH to run `script/setup` with."""

    def __init__(self, folder: Path, os_release: str) -> None:
        self.checkout = folder / "a check out"
        self.bin = folder / "bin"
        self.calls = folder / "calls"
        self.os_release = folder / "os-release"
        self.os_release.write_text(os_release, encoding="utf-8")
        self.calls.touch()
        self.bin.mkdir()
        (self.checkout / "script").mkdir(parents=True)
        for name in ("script/setup", "pyproject.toml", "requirements.lock"):
            shutil.copy2(ROOT / name, self.checkout / name)
        for name in TOOLS:
            real = shutil.which(name)
            assert real is not None, f"{name} is not on this machine"
            (self.bin / name).symlink_to(real)
        (self.bin / "python3").symlink_to(sys.executable)

    def tool(self, name: str, body: str) -> None:
        """Put a tool on the PATH that notes its call, then does `body`."""
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>"{self.calls}"\n{body}\n', encoding="utf-8")
        path.chmod(0o755)

    def setup(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Run it from another directory, with somebody else's virtual environment active."""
        return subprocess.run(
            [self.bin / "bash", self.checkout / "script" / "setup", *args],
            env={
                "PATH": str(self.bin),
                "OS_RELEASE_FILE": str(self.os_release),
                "VIRTUAL_ENV": "/nowhere",
            },
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def called(self, name: str) -> list[str]:
        """List the calls of one tool, oldest first."""
        lines = self.calls.read_text(encoding="utf-8").splitlines()
        return [line.removeprefix(name).strip() for line in lines if line.split()[0] == name]


@pytest.fixture
def debian(tmp_path: Path) -> Machine:
    """Stand in for a Debian with none of our packages and no way to get them."""
    machine = Machine(tmp_path, DEBIAN)
    machine.tool("id", "echo 0")
    machine.tool("dpkg-query", "exit 1")
    machine.tool("apt-cache", 'echo "Package: $4"')
    machine.tool("apt-get", 'case "$*" in *install*) exit 100 ;; esac')
    return machine


def test_unknown_argument_is_a_usage_error(tmp_path: Path) -> None:
    done = Machine(tmp_path, DEBIAN).setup("--everything")

    assert done.returncode == 2
    assert "unknown argument: --everything" in done.stderr
    assert "HINT: " in done.stderr


def test_another_system_is_told_what_to_install(tmp_path: Path) -> None:
    machine = Machine(tmp_path, FEDORA)

    done = machine.setup("--dev")

    assert done.returncode == 2
    for part in ("C compiler", "Berkeley DB 5.3", "libdb-5.3", "db.h", "redis-cli", "HINT: "):
        assert part in done.stderr
    assert not (machine.checkout / ".venv").exists()


def test_another_system_needs_no_redis_tools_for_a_server(tmp_path: Path) -> None:
    done = Machine(tmp_path, FEDORA).setup()

    assert done.returncode == 2
    assert "redis-cli" not in done.stderr


def test_debian_packages_are_asked_for_by_name(debian: Machine) -> None:
    debian.tool("apt-cache", "exit 0")  # knows no package: the lists were never fetched

    done = debian.setup("--dev")

    assert done.returncode == 1
    assert "could not install" in done.stderr
    update, install = debian.called("apt-get")
    assert update.endswith("update")
    assert {"libdb5.3-dev", "db5.3-util", "gcc", "libc6-dev", "redis-tools"} <= set(install.split())
    assert not (debian.checkout / ".venv").exists()


def test_debian_lists_are_fetched_only_after_an_install_fails(debian: Machine) -> None:
    debian.setup()

    commands = [call.split()[3] for call in debian.called("apt-get")]
    assert commands == ["install", "update", "install"]
    assert "redis-tools" not in debian.called("apt-get")[0]


def test_debian_user_without_sudo_gets_the_command(debian: Machine) -> None:
    debian.tool("id", "echo 1000")

    done = debian.setup()

    assert done.returncode == 2
    assert "HINT: as root: apt-get install db5.3-util libdb5.3-dev gcc" in done.stderr
    assert debian.called("apt-get") == []


def test_debian_user_with_sudo_installs_through_it(debian: Machine) -> None:
    debian.tool("id", "echo 1000")
    debian.tool("sudo", 'exec "$@"')

    debian.setup()

    assert [" install " in call for call in debian.called("sudo")] == [True, False, True]
    assert all("DEBIAN_FRONTEND=noninteractive apt-get" in call for call in debian.called("sudo"))
