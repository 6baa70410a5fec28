"""`tt ping`: is a server there, and how quickly does it answer. No logon, like ping(8) to read.

One connection is used for all pings, so what is measured is a round trip and not a connection
being made. The server closes one that never logs on after a while; then another is made.
"""

import errno
import select
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import hiredis

from ttserver.errors import TtserverError
from ttserver.server_string import ServerString

PAYLOAD_BYTES: Final = 56  # as ping(8)
_RECEIVE_BYTES: Final = 4096
# A server of ours answers with less than this; something else may never stop talking.
_REPLY_BYTES_MAX: Final = 64 * 1024


class PingFailed(TtserverError):
    """One ping was not answered."""

    default_code = "NOREPLY"


@dataclass(frozen=True, slots=True)
class Reply:
    """One answered ping.

    Args:
        size_bytes: what came back of the payload.
        address: who answered, `address:port`.
        round_trip_s: from the last byte sent to the reply's last byte.
    """

    size_bytes: int
    address: str
    round_trip_s: float


@dataclass(slots=True)
class Summary:
    """What all pings together say."""

    server: str
    sent: int = 0
    times_s: list[float] = field(default_factory=list)
    elapsed_s: float = 0.0

    def lines(self) -> Iterator[str]:
        """Write it the way ping(8) does."""
        received = len(self.times_s)
        lost_percent = 100.0 * (self.sent - received) / self.sent if self.sent else 0.0
        yield f"--- {self.server} ping statistics ---"
        yield (
            f"{self.sent} sent, {received} received, {lost_percent:.3g}% lost, "
            f"time {self.elapsed_s * 1000:.0f} ms"
        )
        if received:
            times_ms = [second * 1000 for second in self.times_s]
            least, mean, most = min(times_ms), sum(times_ms) / received, max(times_ms)
            yield f"round trip min/avg/max = {least:.3f}/{mean:.3f}/{most:.3f} ms"


def run(
    server: ServerString,
    *,
    count: int | None,
    interval_s: float,
    timeout_s: float,
    out: Callable[[str], None],
    advise: Callable[[str], None],
) -> int:
    """Ping until `count` is reached or Ctrl-C is pressed, then print the summary.

    Args:
        server: where to.
        count: how many; None is until Ctrl-C.
        interval_s: from one ping to the next, seconds.
        timeout_s: for a connection, and again for a reply, seconds.
        out: takes each line for standard output.
        advise: takes a hint, once for each kind of failure.

    Returns:
        The exit status: 0 if any reply came, else 1.
    """
    summary = Summary(str(server))
    connection = PingConnection(server, timeout_s)
    given: set[str | None] = {None}
    out(f"PING {server}: {PAYLOAD_BYTES} bytes")
    begin_s = due_s = time.perf_counter()
    try:
        while count is None or summary.sent < count:
            time.sleep(max(0.0, due_s - time.perf_counter()))
            # After a long wait not all that was missed at once.
            due_s = max(due_s, time.perf_counter() - interval_s) + interval_s
            number = summary.sent + 1
            try:
                reply = connection.ping(number)
            except PingFailed as failed:
                summary.sent = number  # not before: one that Ctrl-C cut short is not lost
                out(f"no reply from {server}: seq={number} {failed}")
                if failed.hint is not None and failed.hint not in given:
                    advise(failed.hint)
                given.add(failed.hint)
            else:
                summary.sent = number
                summary.times_s.append(reply.round_trip_s)
                out(
                    f"{reply.size_bytes} bytes from {reply.address}: seq={number} "
                    f"time={reply.round_trip_s * 1000:.3f} ms"
                )
    except KeyboardInterrupt:
        out("")  # the terminal shows ^C where the cursor stood
    finally:
        connection.close()
    summary.elapsed_s = time.perf_counter() - begin_s
    for line in summary.lines():
        out(line)
    return 0 if summary.times_s else 1


class PingConnection:
    """A connection that is made when it is needed, and again when it was lost.

    Args:
        server: where to; user and password are not used.
        timeout_s: for a connection, and again for a reply, seconds.
    """

    def __init__(self, server: ServerString, timeout_s: float) -> None:
        self._server = server
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None

    def ping(self, number: int) -> Reply:
        """Send one ping and wait for its reply.

        Raises:
            PingFailed: with what went wrong, and what to do.
        """
        payload = f"tt ping {number} ".encode().ljust(PAYLOAD_BYTES, b".")
        used_before = self._still_open()
        try:
            try:
                return self._exchange(payload)
            except _Closed:
                # Closed by the server while it was idle, which is no trouble unless it comes twice.
                if not used_before:
                    raise
                self.close()
                return self._exchange(payload)
        except PingFailed:
            # A late reply must not be taken for the next one's.
            self.close()
            raise

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _still_open(self) -> bool:
        if self._socket is None:
            return False
        # Readable while nothing was asked: closed, or a farewell and then closed.
        if select.select([self._socket], [], [], 0)[0]:
            self.close()
            return False
        return True

    def _exchange(self, payload: bytes) -> Reply:
        open_socket = self._socket
        if open_socket is None:
            open_socket = self._socket = self._connect()
        try:
            host, port = open_socket.getpeername()[:2]
            address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            open_socket.settimeout(self._timeout_s)
            open_socket.sendall(b"*2\r\n$4\r\nPING\r\n$%d\r\n%b\r\n" % (len(payload), payload))
            sent_s = time.perf_counter()
            answer = self._receive(open_socket, sent_s + self._timeout_s)
            round_trip_s = time.perf_counter() - sent_s
        except TimeoutError:
            raise PingFailed(
                f"nothing came within {self._timeout_s:g} s",
                hint="see on the server what it is doing: ttserver status",
            ) from None
        except OSError as error:
            raise _Closed(_reason(error), hint=self._wrong_port()) from error
        if isinstance(answer, hiredis.HiredisError):
            raise PingFailed(f"the server answered: {answer}", hint=self._wrong_port())
        if answer != payload:
            raise PingFailed("the answer is not what was sent", hint=self._wrong_port())
        return Reply(len(payload), address, round_trip_s)

    def _receive(self, open_socket: socket.socket, deadline_s: float) -> object:
        reader = hiredis.Reader()
        received = 0
        while True:
            open_socket.settimeout(max(0.001, deadline_s - time.perf_counter()))
            data = open_socket.recv(_RECEIVE_BYTES)
            if not data:
                raise _Closed("the server closed the connection", hint=self._wrong_port())
            reader.feed(data)
            try:
                answer: object = reader.gets()
            except hiredis.ProtocolError:
                raise PingFailed(
                    "what answers is not a ttserver client port", hint=self._wrong_port()
                ) from None
            if answer is not False:
                return answer
            received += len(data)
            if received > _REPLY_BYTES_MAX:
                raise PingFailed("the answer does not end", hint=self._wrong_port())

    def _connect(self) -> socket.socket:
        host, port = self._server.host, self._server.port
        try:
            made = socket.create_connection((host, port), timeout=self._timeout_s)
        except socket.gaierror as error:
            raise PingFailed(
                f"{host} does not resolve: {(error.strerror or str(error)).lower()}",
                hint="check the server's name in -S or $TT_SERVER.",
            ) from error
        except ConnectionRefusedError as error:
            raise PingFailed(
                "connection refused",
                hint=f"nothing listens at {self._server}: start ttserver there, or name the port "
                "that `[client] listen` in its ttserver.toml says.",
            ) from error
        except TimeoutError as error:
            raise PingFailed(
                f"no connection within {self._timeout_s:g} s",
                hint=f"see whether {host} is up and a firewall lets port {port} through.",
            ) from error
        except OSError as error:
            raise PingFailed(
                _reason(error), hint=f"see whether this machine has a route to {host}."
            ) from error
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def _wrong_port(self) -> str:
        return (
            f"see whether {self._server.port} is the client port (5000); 5010 is for replication, "
            "5080 for the console."
        )


class _Closed(PingFailed):
    """The connection ended before the reply."""


def _reason(error: OSError) -> str:
    if error.errno in (errno.ECONNRESET, errno.EPIPE):
        return "the server closed the connection"
    return (error.strerror or str(error)).lower()
