"""What the service manager is told: sd_notify(3) datagrams, without a library.

Source: sd_notify(3), sd_watchdog_enabled(3).
"""

import os
import socket
from collections.abc import Mapping

# A status is one line of a service manager's screen; longer ones are cut there anyway.
STATUS_CHARACTERS_MAX = 256


class Notifier:
    """Sends state to the service manager named by $NOTIFY_SOCKET; without one, does nothing.

    Nothing here may stop the daemon: a manager that went away costs a False, not an exception.

    Args:
        address: a path, or `@name` for a socket in the abstract name space; None for no manager.
        watchdog_interval_s: how often `watchdog` has to be called, in seconds; None for never.
    """

    def __init__(
        self, address: str | None = None, *, watchdog_interval_s: float | None = None
    ) -> None:
        self._address = _socket_address(address)
        self._last_status: str | None = None
        self.watchdog_interval_s = watchdog_interval_s

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] | None = None, *, pid: int | None = None
    ) -> "Notifier":
        """Make the notifier that the service manager asked for.

        Args:
            environment: the process's environment, or what a test puts in its place.
            pid: this process's id; $WATCHDOG_PID names the one process the watchdog is meant for.
        """
        env = os.environ if environment is None else environment
        return cls(
            env.get("NOTIFY_SOCKET"),
            watchdog_interval_s=_watchdog_interval_s(env, os.getpid() if pid is None else pid),
        )

    @property
    def enabled(self) -> bool:
        """Whether somebody listens."""
        return self._address is not None

    def ready(self) -> bool:
        """Say that the start is complete."""
        return self._send("READY=1")

    def stopping(self) -> bool:
        """Say that the orderly stop has begun."""
        return self._send("STOPPING=1")

    def watchdog(self) -> bool:
        """Say that the event loop still turns."""
        return self._send("WATCHDOG=1")

    def status(self, text: str) -> bool:
        """Show one line of text to the operator; the same text twice is sent once."""
        line = " ".join(text.split())[:STATUS_CHARACTERS_MAX]
        if line == self._last_status or not self._send(f"STATUS={line}"):
            return False
        self._last_status = line
        return True

    def _send(self, message: str) -> bool:
        if self._address is None:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                # The event loop calls this: a full queue at the manager must not hold it up.
                sender.setblocking(False)
                sender.sendto(message.encode(), self._address)
        except OSError:
            return False
        return True


def _socket_address(address: str | None) -> str | None:
    if not address:
        return None
    if address.startswith("@"):
        return "\0" + address[1:]
    # vsock: addresses exist for virtual machines; a daemon on this machine never meets one.
    return address if address.startswith("/") else None


def _watchdog_interval_s(env: Mapping[str, str], pid: int) -> float | None:
    try:
        watchdog_us = int(env.get("WATCHDOG_USEC", ""))
        meant_for = int(env.get("WATCHDOG_PID", str(pid)))
    except ValueError:
        return None
    if watchdog_us <= 0 or meant_for != pid:
        return None
    # Half the limit, as the manual advises: one late turn of the loop is not a dead daemon.
    return watchdog_us / 2 / 1_000_000
