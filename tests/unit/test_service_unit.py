"""The systemd unit: what systemd itself says of it, and the promises the daemon relies on."""

import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "conf" / "ttserver.service"


def directives() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if line and not line.startswith(("#", "[")):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_finds_nothing_wrong() -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(UNIT)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # Other units of the machine may be broken; only lines about ours count.
    about_ours = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert about_ours == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Type", "notify"),
        ("TimeoutStartSec", "infinity"),
        ("Restart", "on-failure"),
        ("RestartPreventExitStatus", "2"),
        ("ProtectSystem", "strict"),
        ("NoNewPrivileges", "true"),
        ("PrivateTmp", "true"),
        ("CapabilityBoundingSet", ""),
        ("UMask", "0077"),
    ],
)
def test_a_promise_of_the_unit(name: str, value: str) -> None:
    assert directives()[name] == [value]


def test_the_daemon_may_write_its_home_and_nothing_else() -> None:
    found = directives()
    (home,) = found["ReadWritePaths"]
    assert found["Environment"] == [f"TTSERVER_HOME={home}"]


def test_system_calls_are_a_short_list() -> None:
    assert directives()["SystemCallFilter"][0] == "@system-service"


def test_the_stop_is_given_more_time_than_the_daemon_takes() -> None:
    (stop,) = directives()["TimeoutStopSec"]
    assert int(stop) > 5
    assert int(directives()["WatchdogSec"][0]) >= 10
