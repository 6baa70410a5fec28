"""One link's asyncio shell: a socket, the machine of `replication.peer`, a bounded queue.

Reading is done by the event loop. Writing may be done by any thread: the library calls the send
callback on whichever thread commits, and that thread puts frames into the queue and sends what the
socket takes at once, without waiting; the loop sends the rest when the socket has room. So a frame
needs no change of thread on its way out, and nobody ever blocks in the callback. Another thread
can read for a while (`lend`, see `replication.direct`; `borrow`, see `replication.ack_reader`).

The queue is bounded by what the others do about it: a committer waits while a link is over its
high mark, requests of a site are not served while its own are (see `replication.bridge`).
"""

import asyncio
import contextlib
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from math import inf
from typing import Final, TypeVar

from replication.peer import Peer

T = TypeVar("T")

# From 128 KiB on the C library may map memory for each read, which costs more than the read itself.
READ_BYTES = 64 * 1024
SEND_BYTES_MAX = 256 * 1024  # one send call; more would only copy twice
KEEPALIVE_IDLE_S = 5
KEEPALIVE_INTERVAL_S = 2
KEEPALIVE_PROBES = 3
# struct tcp_info of Linux: eight bytes, then 32-bit numbers; tcpi_last_ack_recv is the thirteenth.
TCP_INFO_BYTES = 104
LAST_ACK_RECEIVED_AT = 8 + 12 * 4
LAST_ACK_RECEIVED = struct.Struct("=I")
_READABLE: Final = select.EPOLLIN | select.EPOLLRDHUP
LINGER_S = 1.0  # how long a link that is over waits for the other side to close
USER_TIMEOUT_MS = 10_000  # unacknowledged bytes for so long: the other host is gone


def prepare(sock: socket.socket) -> None:
    """Set what every replication socket needs."""
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)


class Link:
    """See the module's text.

    Args:
        loop: the event loop that reads.
        sock: connected and prepared.
        peer: the link's machine.
        number: its number, unique in this process.
        on_data: called in the loop with the link and each chunk received.
        on_closed: called once in the loop with the reason.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        peer: Peer,
        number: int,
        on_data: "Callable[[Link, bytes], None]",
        on_closed: "Callable[[Link, str], None]",
    ) -> None:
        self.loop = loop
        self.peer = peer
        self.number = number
        self.eid = 0
        self.released = False
        self.over_since_s: float | None = None
        self.bytes_in = 0
        self.bytes_out = 0
        self._sock = sock
        # What the loop waits on in place of the socket. uvloop drops a socket that was reset
        # without a word, and its end would never be noticed; of an epoll it sees only that
        # there is something to be looked at.
        self._watch = select.epoll()
        self._watch.register(sock.fileno(), _READABLE)
        self._on_data = on_data
        self._on_closed = on_closed
        self._lock = threading.Lock()
        self._live: deque[bytes] = deque()
        self._asked: deque[bytes] = deque()
        self._rest = b""  # of the last send call; goes out first
        self._live_bytes = 0
        self._asked_bytes = 0
        self._writer_added = False
        self._reading = False
        self._paused = False
        self._closed = False
        self._lingering = False
        self._reader_lock = threading.Lock()  # held by who reads
        self._reader: object | None = None  # who reads in place of the loop
        self._watched = True  # the loop is told of what comes
        self._quickack = True
        self._halfway = False  # the loop is not done with what it read last
        self._linger_timer: asyncio.TimerHandle | None = None
        self._close_when_sent: str | None = None
        self.remote_name = _name(sock)

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait for the socket."""
        return len(self._rest) + self._live_bytes + self._asked_bytes

    @property
    def live_bytes(self) -> int:
        """Bytes of live log (and of what is no log) that wait."""
        return self._live_bytes

    @property
    def asked_bytes(self) -> int:
        """Bytes that the site asked for and that wait."""
        return self._asked_bytes

    @property
    def is_paused(self) -> bool:
        """True while nothing is read, so that silence means nothing."""
        return self._paused

    @property
    def is_closed(self) -> bool:
        return self._closed

    def confirmed_ago_s(self) -> float:
        """How long ago the other host confirmed that it received something; inf if that is unknown.

        It does so for a process that stands still as well.
        """
        try:
            info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
        except OSError:
            return inf
        (ago_ms,) = LAST_ACK_RECEIVED.unpack_from(info, LAST_ACK_RECEIVED_AT)
        return float(ago_ms) / 1000

    # -- writing: any thread -------------------------------------------------------------------

    def put(self, frame: bytes, *, asked: bool = False) -> None:
        """Queue a frame without sending. *Thread:* any.

        Args:
            asked: the site asked for it (log, pages). It has a queue of its own, and both go out
                in turns: a site that syncs neither holds up live log nor is starved by it. The
                library does not mind the order.
        """
        with self._lock:
            if self._closed or self._lingering:
                return  # nobody reads it; its site catches up from the log
            if asked:
                self._asked.append(frame)
                self._asked_bytes += len(frame)
            else:
                self._live.append(frame)
                self._live_bytes += len(frame)

    def write(self, frame: bytes) -> None:
        """Queue a frame and send what the socket takes. *Thread:* any."""
        with self._lock:
            if not (self._waits() or self._closed or self._lingering):
                self._rest = frame  # the usual case: nothing to be put in front of it
                frame = b""
        if frame:
            self.put(frame)
        self.flush()

    def flush(self) -> None:
        """Send what the socket takes now; the loop sends the rest. *Thread:* any."""
        with self._lock:
            if self._writer_added or self._closed or not self._waits():
                return
            if self._send_some():
                return
            self._writer_added = True
        with contextlib.suppress(RuntimeError):  # the loop is closed: so is this link soon
            self.loop.call_soon_threadsafe(self._watch_writable)

    def _send_some(self) -> bool:
        """Send once; True when nothing is left. Holds the lock."""
        data = self._rest or self._next_data()
        try:
            sent = self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            # The reader learns the same and closes; keep the queue's count right until then.
            self._forget()
            return True
        self.bytes_out += sent
        self._rest = data[sent:]
        return not self._waits()

    def _waits(self) -> bool:
        return bool(self._rest or self._live or self._asked)

    def _next_data(self) -> bytes:
        """Take what one send call carries: half of it live, half asked for, when both wait."""
        if self._live_bytes <= SEND_BYTES_MAX and not self._asked:
            data = b"".join(self._live)
            self._live.clear()
            self._live_bytes = 0
            return data
        parts: list[bytes] = []
        share = SEND_BYTES_MAX // 2 if self._live and self._asked else SEND_BYTES_MAX
        self._live_bytes -= _take(self._live, parts, share)
        self._asked_bytes -= _take(self._asked, parts, share)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _forget(self) -> None:
        self._live.clear()
        self._asked.clear()
        self._rest = b""
        self._live_bytes = self._asked_bytes = 0

    def _watch_writable(self) -> None:
        if not self._closed:
            self.loop.add_writer(self._sock.fileno(), self._on_writable)

    def _on_writable(self) -> None:
        with self._lock:
            if self._closed or not self._waits() or self._send_some():
                self._writer_added = False
                done = True
            else:
                done = False
        if done and not self._closed:
            self.loop.remove_writer(self._sock.fileno())
            if self._close_when_sent is not None:
                self._linger(self._close_when_sent)

    # -- reading: the loop ---------------------------------------------------------------------

    def start_reading(self) -> None:
        """Begin to read. *Thread:* the loop."""
        if not (self._reading or self._paused or self._closed):
            self._reading = True
            self.loop.add_reader(self._watch.fileno(), self._on_readable)

    def pause_reading(self) -> None:
        """Stop reading until `resume_reading`: TCP holds the other side back."""
        self._paused = True
        if self._reading and not self._closed:
            self._reading = False
            self.loop.remove_reader(self._watch.fileno())

    def resume_reading(self) -> None:
        """Go on reading."""
        if self._paused:
            self._paused = False
            self.start_reading()

    def _wants_quickack(self) -> bool:
        """Whether to acknowledge at once what TCP brings.

        The kernel switches that off again and again. A native site without TCP_NODELAY waits for
        it before it sends the rest, and is some hundred times faster when each read asks for it.
        """
        if self._quickack and (remote := self.peer.remote) is not None:
            self._quickack = remote.native
        return self._quickack

    def _on_readable(self) -> None:
        failure: str | None = None
        with self._reader_lock:
            if not self._watched:
                return  # since the loop was told: lent, or on its way back with what comes before
            try:
                data = self._receive()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                failure = error.strerror or str(error)
            else:
                self._halfway = True
        if failure is not None:
            self.close(failure)
            return
        if not self._lingering:
            self._on_data(self, data)
        if not data:
            self.close("the other site closed the connection")
        self._halfway = not self.peer.between_frames

    def _receive(self) -> bytes:
        """Take what the socket has, once. Holds the reader's lock."""
        if self._wants_quickack():
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        data = self._sock.recv(READ_BYTES)
        self.bytes_in += len(data)
        return data

    # -- reading: another thread, for a while --------------------------------------------------

    def is_lent(self, to: object | None = None) -> bool:
        """Whether another thread reads this link, or a certain reader does. *Thread:* any."""
        return self._reader is not None and to in (None, self._reader)

    @property
    def fileno(self) -> int:
        """The socket's number, -1 once it is closed."""
        return self._sock.fileno()

    def lend(self, to: object) -> bool:
        """Have this reader read, on another thread; False when the link is not to be lent.

        *Thread:* the loop, when it has passed on all that came.
        """
        with self._reader_lock:
            return self._lend(to)

    def borrow(self, to: object) -> bool:
        """`lend`, while the loop is not busy with what came before. *Thread:* any."""
        with self._reader_lock:
            return not self._halfway and self._lend(to)

    def _lend(self, to: object) -> bool:
        if self._reader is not None or not (self._watched and self._reading):
            return False
        if self._closed or self._close_when_sent is not None:
            return False
        self._reader = to
        self._watched = False
        self._watch.unregister(self._sock.fileno())
        return True

    def take_back(self, of: object | None = None) -> bool:
        """Read in the loop again; True if the link was lent, to this reader if one is named.

        The other thread may still be busy with what it read: what comes now is queued behind it.
        *Thread:* any.
        """
        with self._reader_lock:
            lent = self.is_lent(of)
            if lent:
                self._reader = None
                self._watch_again()
        return lent

    def read_borrowed(self, by: object, cut: Callable[[bytes], tuple[T, int]]) -> T | None:
        """Read what is there, once; None when there is nothing, or another reads by now.

        Args:
            by: the reader this link was lent to. *Thread:* its.
            cut: takes what it knows off the start of the data. If anything is left, or the stream
                is at its end, the link goes back to the loop together with that.
        """
        with self._reader_lock:
            if self._reader is not by:
                return None
            try:
                data = self._receive()
            except (BlockingIOError, InterruptedError):
                return None
            except OSError:
                data = b""  # the loop will find the end of the stream, too
            found, taken = cut(data)
            if taken < len(data) or not data:
                self._reader = None
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody needs it
                    self.loop.call_soon_threadsafe(self._given_back, data[taken:])
            return found

    def _given_back(self, rest: bytes) -> None:
        if rest and not self._closed and not self._lingering:
            self._on_data(self, rest)
        self._halfway = not self.peer.between_frames
        with self._reader_lock:
            self._watch_again()

    def _watch_again(self) -> None:
        """Have the loop told of what comes. Holds the reader's lock."""
        if not (self._watched or self._closed):
            self._watched = True
            self._watch.register(self._sock.fileno(), _READABLE)

    # -- the end -------------------------------------------------------------------------------

    def send_machine_output(self) -> None:
        """Send what the machine has to say; close when it is over. *Thread:* the loop."""
        data = self.peer.data_to_send()
        if data:
            self.write(data)
        if self.peer.closed and not self._closed:
            self.close_after_sending("the exchange is over")

    def close_after_sending(self, reason: str) -> None:
        """Close once the other side has everything.

        The sending side is shut down when the queue is empty; then the link reads to the end, for
        `LINGER_S` at most: closing with unread bytes would reset the connection, and what the
        kernel still holds for the other side would be lost.
        """
        if self._closed or self._lingering or self._close_when_sent is not None:
            return
        self.flush()
        if self.queued_bytes == 0:
            self._linger(reason)
        else:
            self._close_when_sent = reason

    def _linger(self, reason: str) -> None:
        with self._lock:
            if self._closed or self._lingering:
                return
            self._lingering = True
            self._close_when_sent = reason  # and not what the other side does then
            self._forget()
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close(reason)
            return
        self._linger_timer = self.loop.call_later(LINGER_S, self.close, reason)
        self._paused = False
        self.take_back()
        self.start_reading()

    def abort(self, reason: str) -> None:
        """Close with a reset, dropping what the kernel still holds."""
        if not self._closed:
            with contextlib.suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close(reason)

    def close(self, reason: str) -> None:
        """Close now. *Thread:* the loop."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._forget()
        if self._linger_timer is not None:
            self._linger_timer.cancel()
        fileno = self._sock.fileno()
        self.loop.remove_reader(self._watch.fileno())
        self.loop.remove_writer(fileno)
        with self._reader_lock:
            self._watch.close()
            # Not while another thread reads: the number could be another socket's by then. One
            # that sleeps on it would keep the connection open, so it is woken.
            if self._reader is not None:
                self._reader = None
                with contextlib.suppress(OSError):
                    self._sock.shutdown(socket.SHUT_RDWR)
            self._sock.close()
        self._on_closed(self, self._close_when_sent or reason)

    def over_for_s(self, mark: int) -> float | None:
        """How long the queue of live log has been over `mark` bytes, seconds; None: it is not."""
        if self._live_bytes <= mark:
            self.over_since_s = None
            return None
        now_s = time.monotonic()
        if self.over_since_s is None:
            self.over_since_s = now_s
        return now_s - self.over_since_s


def _take(queue: deque[bytes], parts: list[bytes], limit: int) -> int:
    """Move frames from a queue to `parts` until `limit` bytes are reached; returns the bytes."""
    size = 0
    while queue and size < limit:
        part = queue.popleft()
        parts.append(part)
        size += len(part)
    return size


def _name(sock: socket.socket) -> str:
    try:
        host, port = sock.getpeername()[:2]
    except OSError:
        return "a closed connection"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
