"""The Unix socket in HOME by which the operator's program talks to a running daemon.

One request is one JSON line, `{"command": "status", ...}`; the answer is one or more JSON lines.
The last alone has `"done": true`, with either `result` or `error` (`code`, `message`, `hint`).
Requests on one connection are served one after another.

Nobody logs on here: the file's mode is 0600 and the kernel names the user at the other end.
"""

import asyncio
import contextlib
import os
import socket
import stat
import struct
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import structlog

from ttserver.control_client import ControlError, short_address
from ttserver.errors import TtserverError, hint_of

# A request names one thing to do; the longest one carries a name and a password.
REQUEST_BYTES_MAX = 64 * 1024
# One operator has a few windows open; scripts come one at a time.
CONNECTIONS_MAX = 32
# `status --watch` asks once a second; who is silent for longer has gone to lunch.
IDLE_TIMEOUT_S = 60.0
# How much of an oversized request is read so that its sender sees the answer.
READ_OUT_BYTES_MAX = 1024 * 1024
# An operator's program reads at once; who does not would hold our memory.
SEND_TIMEOUT_S = 10.0

Send = Callable[[Mapping[str, Any]], Awaitable[None]]
Handler = Callable[[dict[str, Any], Send], Awaitable[object]]

log = structlog.get_logger()


class ControlServer:
    """Serves the control socket of one HOME.

    Args:
        path: the socket's file; a stale one there is replaced, so the HOME lock must be held.
        handlers: what each command does. A handler gets the request and a `send` for lines
            before the last one; what it returns is the `result`; what it raises, the `error`.
        idle_timeout_s: how long a connection may be silent between two requests, in seconds.
    """

    def __init__(
        self,
        path: Path,
        handlers: Mapping[str, Handler],
        *,
        idle_timeout_s: float = IDLE_TIMEOUT_S,
    ) -> None:
        self._path = path
        self._handlers = handlers
        self._idle_timeout_s = idle_timeout_s
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen.

        Raises:
            ControlError: the socket's file cannot be made.
        """
        listening = _listen(self._path)
        self._server = await asyncio.start_unix_server(
            self._serve, sock=listening, limit=REQUEST_BYTES_MAX
        )

    async def stop(self) -> None:
        """Stop listening, drop every connection, remove the file.

        *Cancellation:* safe; what is left is removed by the next start.
        """
        if self._server is None:
            return
        self._server.close()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            if _peer_may_ask(writer.get_extra_info("socket")):
                await self._serve_requests(reader, writer)
        except (ConnectionError, TimeoutError) as error:
            log.debug("control_connection_dropped", reason=str(error) or type(error).__name__)
        except asyncio.CancelledError:
            # Only `stop` cancels, and it waits for the end; the streams module would log this.
            pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def _serve_requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        async def send(line: Mapping[str, Any]) -> None:
            writer.write(msgspec.json.encode(line) + b"\n")
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await writer.drain()

        while True:
            try:
                async with asyncio.timeout(self._idle_timeout_s):
                    line = await reader.readline()
            except ValueError:
                await send(_error_line(_bad_request(f"request exceeds {REQUEST_BYTES_MAX} bytes")))
                await self._read_out(reader)
                return
            if not line.endswith(b"\n"):
                return
            if len(self._connections) > CONNECTIONS_MAX:
                await send(_error_line(_busy()))
                return
            await send(await self._answer(line, send))

    async def _read_out(self, reader: asyncio.StreamReader) -> None:
        # Closing on unread bytes resets the connection, and the other side loses our answer.
        async with asyncio.timeout(self._idle_timeout_s):
            for _ in range(READ_OUT_BYTES_MAX // 65536):
                if not await reader.read(65536):
                    return

    async def _answer(self, line: bytes, send: Send) -> Mapping[str, Any]:
        async def send_early(early: Mapping[str, Any]) -> None:
            await send({**early, "done": False})

        try:
            request = _parse_request(line)
            handler = self._handlers.get(request["command"])
            if handler is None:
                raise _bad_request(f"command {request['command']!r} is not known")
            return {"result": await handler(request, send_early), "done": True}
        except ConnectionError:
            raise
        except Exception as error:  # the edge: it ends one bad request, not the daemon
            if hint_of(error) is None and not isinstance(error, TtserverError):
                log.exception("control_request_failed")
                return _error_line(_internal(error))
            return _error_line(error)


def _parse_request(line: bytes) -> dict[str, Any]:
    try:
        request = msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise _bad_request(f"request is not a JSON object: {error}") from None
    if not isinstance(request.get("command"), str):
        raise _bad_request("request names no command")
    return request


def _bad_request(text: str) -> ControlError:
    return ControlError(
        text, code="BADREQUEST", hint="use the ttserver program of the daemon's own version"
    )


def _internal(error: Exception) -> ControlError:
    return ControlError(
        f"daemon made a mistake: {type(error).__name__}: {error}",
        code="INTERNAL",
        hint="its log has the whole story; please report it",
    )


def _busy() -> ControlError:
    return ControlError(
        f"control socket is busy: {CONNECTIONS_MAX} connections are open",
        code="BUSY",
        hint="close other ttserver programs that watch this HOME",
    )


def _error_line(error: Exception) -> Mapping[str, Any]:
    return {
        "error": {
            "code": str(getattr(error, "code", "INTERNAL")),
            "message": str(error) or type(error).__name__,
            "hint": hint_of(error),
        },
        "done": True,
    }


def peer_user(connection: socket.socket) -> tuple[int, int]:
    """Ask the kernel for the user id and the process id at the other end."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _gid = struct.unpack("3i", raw)
    return uid, pid


def _peer_may_ask(connection: socket.socket) -> bool:
    # The mode of the file keeps others out; this holds even when somebody loosened it by hand.
    uid, pid = peer_user(connection)
    if uid in {0, os.geteuid()}:
        return True
    log.warning("control_peer_refused", uid=uid, pid=pid)
    return False


def _listen(path: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        # The kernel makes the file with the mode the socket itself has: 0600 from its first
        # moment, without a umask that the other threads of the process would share.
        os.fchmod(listening.fileno(), 0o600)
        with short_address(path) as address:
            listening.bind(address)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise ControlError(
            f"control socket {path} cannot be made: {os.strerror(error.errno or 0)}",
            hint=f"let the daemon's user write in {path.parent}",
        ) from error
    except ControlError:
        listening.close()
        raise
    return listening


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ControlError(
            f"control socket {path} cannot be made: another file has this name",
            hint="move that file away",
        )
    # Whoever starts holds the lock of HOME, so the one who made this socket is dead.
    path.unlink()
