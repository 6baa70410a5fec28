"""The operator's program at its end of the control socket; blocking, as a command line may be."""

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from ttserver.errors import TtserverError

# sun_path holds 108 bytes and the last is NUL (unix(7)).
SOCKET_PATH_BYTES_MAX = 107
# A status of a thousand sites stays well below; what is longer is not an answer of ours.
REPLY_BYTES_MAX = 16 * 1024 * 1024


class ControlError(TtserverError):
    """The daemon could not be asked, or it refused."""

    default_code = "CONTROL"


class NotRunningError(ControlError):
    """No daemon serves this HOME."""

    default_code = "NOTRUNNING"


class ControlClient:
    """Asks a running daemon; blocking, for the command line.

    Use as a context manager; one client may ask several times.

    Args:
        path: the socket's file in HOME.
        timeout_s: how long one line of an answer may take, in seconds.
    """

    def __init__(self, path: Path, *, timeout_s: float = 30.0) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None
        self._buffer = b""

    def __enter__(self) -> "ControlClient":
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(self._timeout_s)
            with short_address(self._path) as address:
                self._socket.connect(address)
        except OSError as error:
            self._socket.close()
            raise _connect_error(self._path, error) from error
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def ask(
        self,
        command: str,
        *,
        on_line: Callable[[dict[str, Any]], None] | None = None,
        **arguments: object,
    ) -> Any:
        """Send one request and wait for its last line.

        Args:
            command: the name of a handler.
            on_line: called with each line before the last one.
            **arguments: further members of the request.

        Raises:
            NotRunningError: the daemon went away.
            ControlError: the daemon refused; `code` and `hint` are the daemon's.
        """
        assert self._socket is not None
        request = msgspec.json.encode({"command": command, **arguments}) + b"\n"
        try:
            self._socket.sendall(request)
            while not (line := self._read_line()).get("done"):
                if on_line is not None:
                    on_line(line)
        except TimeoutError as error:
            raise ControlError(
                f"daemon did not answer {command} within {self._timeout_s:g} s",
                code="TIMEOUT",
                hint="look at the daemon's log; a blocked disk is the usual cause",
            ) from error
        except OSError as error:
            raise _gone(self._path) from error
        if (refusal := line.get("error")) is not None:
            raise ControlError(refusal["message"], code=refusal["code"], hint=refusal["hint"])
        return line.get("result")

    def _read_line(self) -> dict[str, Any]:
        assert self._socket is not None
        while b"\n" not in self._buffer:
            if len(self._buffer) > REPLY_BYTES_MAX:
                raise ControlError(
                    f"answer is longer than {REPLY_BYTES_MAX} bytes",
                    hint="use the ttserver program of the daemon's own version",
                )
            chunk = self._socket.recv(65536)
            if not chunk:
                raise _gone(self._path)
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return msgspec.json.decode(line, type=dict[str, Any])


def _connect_error(path: Path, error: OSError) -> ControlError:
    home = path.parent
    if error.errno in {errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR}:
        if not home.is_dir():
            return NotRunningError(
                f"home {home} does not exist",
                hint="name it with --home DIR or in $TTSERVER_HOME, or make it: ttserver init",
            )
        return NotRunningError(
            f"no daemon runs on {home}", hint=f"start it: ttserver --home {home} run"
        )
    if error.errno in {errno.EACCES, errno.EPERM}:
        return ControlError(
            f"control socket {path} is not yours to use",
            code="NOPERM",
            hint=f"run this as the user that owns {home}, or as root",
        )
    return ControlError(
        f"control socket {path} does not answer: {error.strerror or error}",
        hint="look at the daemon's log",
    )


def _gone(path: Path) -> NotRunningError:
    return NotRunningError(
        f"daemon of {path.parent} closed the connection",
        hint=f"look at its log, then start it: ttserver --home {path.parent} run",
    )


@contextlib.contextmanager
def short_address(path: Path) -> Iterator[str]:
    """Give an address of the socket's file that fits the kernel's 107 bytes."""
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX:
        yield str(path)
        return
    # A path through an open directory is short however deep that directory lies.
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
