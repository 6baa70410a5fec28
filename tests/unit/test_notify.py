"""What reaches a real notify socket, by path and in the abstract name space."""

import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from ttserver.notify import STATUS_CHARACTERS_MAX, Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A service manager's socket and the address it would put in $NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(5)
        if request.param == "path":
            address = str(tmp_path / "notify.sock")
            listening.bind(address)
        else:
            address = f"@ttserver-test-{uuid.uuid4()}"
            listening.bind("\0" + address[1:])
        yield listening, address


def test_every_message_is_one_datagram(manager: tuple[socket.socket, str]) -> None:
    listening, address = manager
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": address})
    assert notifier.enabled
    assert notifier.status("receiving pages:\n 3 of 9")
    assert notifier.ready()
    assert notifier.watchdog()
    assert notifier.stopping()
    got = [listening.recv(4096).decode() for _ in range(4)]
    assert got == ["STATUS=receiving pages: 3 of 9", "READY=1", "WATCHDOG=1", "STOPPING=1"]


def test_the_same_status_is_sent_once(manager: tuple[socket.socket, str]) -> None:
    listening, address = manager
    notifier = Notifier(address)
    assert notifier.status("a")
    assert not notifier.status("a")
    assert notifier.status("b" * 1000)
    assert listening.recv(4096) == b"STATUS=a"
    assert listening.recv(4096) == b"STATUS=" + b"b" * STATUS_CHARACTERS_MAX


@pytest.mark.parametrize("address", [None, "", "vsock:2:1234"])
def test_without_a_manager_nothing_is_sent(address: str | None) -> None:
    notifier = Notifier(address)
    assert not notifier.enabled
    assert not notifier.ready()


def test_a_manager_that_went_away_costs_nothing(tmp_path: Path) -> None:
    assert not Notifier(str(tmp_path / "gone")).ready()


def test_a_manager_that_does_not_read_never_blocks(tmp_path: Path) -> None:
    path = str(tmp_path / "slow.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(path)
        notifier = Notifier(path)
        # The kernel's queue holds net.unix.max_dgram_qlen datagrams; far more must still return.
        results = [notifier.watchdog() for _ in range(2_000)]
    assert results[0]
    assert not results[-1]


@pytest.mark.parametrize(
    ("env", "interval_s"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "77"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "78"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_served_at_half_its_time(
    env: dict[str, str], interval_s: float | None
) -> None:
    assert Notifier.from_environment(env, pid=77).watchdog_interval_s == interval_s
