"""One client's connection: the asyncio shell around `ttserver.dispatch`.

The shell moves bytes, keeps both directions bounded, and ends the connection. Replies are sent
after the bytes of all clients that were ready together: the first write wakes the clients' machine,
the others then cost half as much. Commands stop while
the client does not take its replies; its socket is not read while commands are stopped and bytes
pile up; a client that still lets replies pile up is disconnected.

One log line tells of a session, at its end.
"""

import asyncio
import socket
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final, Protocol, cast

import structlog

from ttserver.address import Address
from ttserver.commands.context import Client, Server, Store
from ttserver.dispatch import Dispatcher
from ttserver.resp import CommandReader

READ_AHEAD_BYTES_MAX: Final = 64 * 1024  # received while commands are stopped
# A dead peer is noticed within two minutes; the system's own default is two hours.
KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))

log = structlog.get_logger(__name__)


class Owner(Protocol):
    """Who keeps the sessions: the listener."""

    server: Server

    def admit(self, session: "ClientSession") -> int | str:
        """Give the newcomer its number, or the reason why it may not stay."""

    def leave(self, session: "ClientSession") -> None:
        """Forget a session that has ended."""

    def send_soon(self, session: "ClientSession") -> None:
        """Call `send` when the bytes of all clients that are ready now were looked at."""


class ClientSession(asyncio.Protocol):
    """A connection on the client port.

    Args:
        owner: the listener.
        store: the database as commands see it.
    """

    def __init__(self, owner: Owner, store: Store) -> None:
        self._owner = owner
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._time = self._loop.time
        self._transport: asyncio.Transport | None = None
        self._dispatcher: Dispatcher | None = None
        self._task: asyncio.Task[None] | None = None
        self._sends = False
        self._reading = True
        self._ending: str | None = None
        self.client: Client | None = None

    # -- called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the client in, or refuse it."""
        # No isinstance: uvloop's transports are not registered as asyncio's.
        transport = cast("asyncio.Transport", transport)
        number = self._owner.admit(self)
        if isinstance(number, str):
            transport.write(b"-ERR %b\r\n" % number.encode())
            transport.close()
            return
        self._transport = transport
        _keep_alive(transport)
        server = self._owner.server
        now = server.now()
        client = Client(
            id=number,
            server=server,
            peer=_address(transport.get_extra_info("peername")),
            local=_address(transport.get_extra_info("sockname")),
            since=now,
            end=self.close_soon,
            unknown_since=now,
            last_active=now,
        )
        sock = transport.get_extra_info("socket")
        client.fd = sock.fileno() if sock is not None else -1
        self.client = client
        self._dispatcher = Dispatcher(client, CommandReader(server.limits), self._store, self)
        server.clients[number] = client
        server.totals.connections += 1

    def data_received(self, data: bytes) -> None:
        """Run what came in; one write answers all that can be answered at once."""
        dispatcher, client = self._dispatcher, self.client
        if dispatcher is None or client is None or self._ending is not None:
            return
        client.bytes_in += len(data)
        client.last_active = self._time()
        dispatcher.receive(data)
        if not self._sends:
            self.wake()
        if dispatcher.stopped and dispatcher.buffered > READ_AHEAD_BYTES_MAX:
            self._read_on(on=False)

    def eof_received(self) -> bool:
        """The client sends no more: answer what it sent, then close."""
        if self._dispatcher is None:
            return False
        self._note_end("closed by the client")
        self.wake()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything, and tell about the session."""
        client = self.client
        if client is None:
            return
        self._transport = None
        if self._task is not None:
            self._task.cancel()
        client.unwatch()
        reason = self._ending
        if reason is None:
            reason = "closed by the client" if exc is None else f"connection lost: {exc}"
        self._owner.leave(self)
        _tell(client, reason, self._loop.time())

    def pause_writing(self) -> None:
        """The client does not take its replies: start no more commands."""
        if self._dispatcher is not None:
            self._dispatcher.hold()

    def resume_writing(self) -> None:
        """The client takes its replies again."""
        if self._dispatcher is not None and self._ending is None:
            self._dispatcher.resume()
            self.wake()

    # -- called by the dispatcher

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run what the client's next command waits for."""
        assert self._task is None or self._task.done() or self._task is asyncio.current_task()
        self._task = self._loop.create_task(self._guard(work), name="client-command")

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            if self._transport is not None:  # not our doing: its client would wait for ever
                self.end("internal error", at_once=True)
            raise
        except Exception as error:  # the edge of this task: a bug ends its client, not the server
            log.error("command_failed", exc_info=error)
            self.end("internal error", at_once=True)

    def again(self) -> None:
        """Give other clients their turn, then go on."""
        self._loop.call_soon(self._resume)

    def _resume(self) -> None:
        if self._dispatcher is not None and self._transport is not None:
            self._dispatcher.next_turn()
            self.wake()

    def wake(self) -> None:
        """Send soon: replies that become known close to each other go out in one write."""
        if not self._sends:
            self._sends = True
            self._owner.send_soon(self)

    def end(self, reason: str, *, at_once: bool) -> None:
        """Start nothing more; close now, or when what is under way is answered too."""
        self._note_end(reason)
        if self._dispatcher is not None:
            self._dispatcher.finish()
        if at_once:
            self._close()
        else:
            self.wake()

    # -- called by commands and by the listener

    def close_soon(self, reason: str) -> None:
        """QUIT, CLIENT KILL: close when the reply of the command under way is sent."""
        self._note_end(reason)
        if self._dispatcher is not None:
            self._dispatcher.finish()
        self._loop.call_soon(self._close)

    @property
    def answering(self) -> bool:
        """True while something under way still has to answer."""
        return self._dispatcher is not None and self._dispatcher.answering

    @property
    def ending(self) -> bool:
        """True once the end was decided."""
        return self._ending is not None

    def taken_bytes(self) -> int:
        """How much of its replies the client has taken from us."""
        if self._transport is None or self.client is None:
            return 0
        return self.client.bytes_out - self._transport.get_write_buffer_size()

    def abort(self, reason: str) -> None:
        """Drop the connection with whatever it still has to send."""
        self._note_end(reason)
        if self._transport is not None:
            self._transport.abort()

    def _note_end(self, reason: str) -> None:
        if self._ending is None:
            self._ending = reason

    def _close(self) -> None:
        self._write_ready()
        if self._transport is not None:
            self._transport.close()

    # -- output

    def send(self) -> None:
        """Send what is known; read on, or close, if that was waited for."""
        self._sends = False
        self._write_ready()
        dispatcher, transport = self._dispatcher, self._transport
        if dispatcher is None or transport is None:
            return
        if self._ending is not None:
            if dispatcher.finished:
                transport.close()
        elif not self._reading and not dispatcher.stopped:
            self._read_on(on=True)

    def _write_ready(self) -> None:
        dispatcher, transport, client = self._dispatcher, self._transport, self.client
        if dispatcher is None or transport is None or client is None:
            return
        ready = dispatcher.replies.ready
        if not ready:
            return
        data = ready[0] if len(ready) == 1 else b"".join(ready)
        ready.clear()
        client.bytes_out += len(data)
        transport.write(data)
        if dispatcher.held:
            self._check_pending(transport)

    def _check_pending(self, transport: asyncio.Transport) -> None:
        most = self._owner.server.limits.pending_output_bytes_max
        if transport.get_write_buffer_size() > most:
            self.abort(f"more than {most} bytes of replies not read")

    def _read_on(self, *, on: bool) -> None:
        if self._transport is None or self._transport.is_closing() or self._reading == on:
            return
        self._reading = on
        if on:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()


def _keep_alive(transport: asyncio.Transport) -> None:
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with suppress(OSError):  # the connection may be gone already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _address(name: object) -> str:
    if isinstance(name, tuple) and len(name) >= 2:
        return str(Address(str(name[0]), int(name[1])))
    return ""


def _tell(client: Client, reason: str, now: float) -> None:
    log.info(
        "client_session",
        client=client.id,
        peer=client.peer,
        user=client.user or None,
        name=client.name.decode("ascii", "replace") or None,
        library=client.library.decode("ascii", "replace") or None,
        commands=client.commands,
        writes=client.writes,
        errors=client.errors,
        bytes_in=client.bytes_in,
        bytes_out=client.bytes_out,
        seconds=round(now - client.since, 3),
        end=reason,
    )
