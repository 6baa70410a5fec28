"""The network of a simulation: TCP connections between hosts that can be cut off.

A connection delivers its bytes in order. While the way between two hosts is cut they wait, as TCP
sends them again and again; when they waited for too long, the sender's end breaks. A process that
dies closes its connections, a host that loses its power says nothing, and whoever sends to a
connection that the other side no longer knows is told so.
"""

from __future__ import annotations

import asyncio
import errno
import random
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from replication.bodies import SiteAddress
from replication.link import USER_TIMEOUT_MS
from replication.network import CONNECT_TIMEOUT_S
from tests.sim.agenda import Agenda
from tests.sim.loop import ProcessTime, SimulatedLoop

LATENCY_S: Final = 0.0002
JITTER_S: Final = 0.0008
RESEND_S: Final = 0.2  # TCP tries again about so often
WINDOW_BYTES: Final = 256 * 1024
USER_TIMEOUT_S: Final = USER_TIMEOUT_MS / 1000
FIN: Final = b"FIN"  # compared by identity
RST: Final = b"RST"


@dataclass(eq=False)
class Host:
    """A machine, or its end of the network.

    Args:
        name: its site's address.
        time: of the process that runs there now.
        accept: called there with a new connection; None while nobody listens.
        powered: without power it says nothing.
        heard_s: when something of each other host came in last while its process went on.
    """

    name: SiteAddress
    time: ProcessTime
    loop: SimulatedLoop
    accept: Callable[[SimulatedSocket], None] | None = None
    powered: bool = True
    sockets: dict[int, SimulatedSocket] = field(default_factory=dict)
    heard_s: dict[SiteAddress, float] = field(default_factory=dict)


class SimulatedSocket:
    """One end of a connection, with the methods of a non-blocking socket that links use."""

    def __init__(self, network: Network, host: Host, number: int) -> None:
        self.host = host
        self.loop = host.loop
        self.time = host.time
        self.other: SimulatedSocket
        self.number = number
        self._network = network
        self._received = bytearray()
        self._ended = False
        self._broken: int | None = None
        self._resets = False
        self.closed = False
        self.sends = True
        self.in_flight_bytes = 0
        self.stalled: deque[bytes] = deque()
        self.stalled_since_s: float | None = None
        self.arrives_s = 0.0
        self._looks = False

    # -- what links call -------------------------------------------------------------------------

    def fileno(self) -> int:
        return -1 if self.closed else self.number

    def getpeername(self) -> tuple[str, int]:
        return self.other.host.name.host, 40_000 + self.number

    def setsockopt(self, _level: int, option: int, _value: Any) -> None:
        self._resets = self._resets or option == socket.SO_LINGER

    def send(self, data: bytes) -> int:
        if self._broken is not None:
            raise OSError(self._broken, "broken")
        if self.in_flight_bytes >= WINDOW_BYTES:
            raise BlockingIOError
        self._network.transmit(self, data)
        return len(data)

    def recv(self, size: int) -> bytes:
        if self._received:
            data = bytes(self._received[:size])
            del self._received[:size]
            self.other.read(len(data))
            self.look()
            return data
        if self._broken is not None:
            raise OSError(self._broken, errno.errorcode[self._broken])
        if self._ended:
            return b""
        raise BlockingIOError

    def shutdown(self, _how: int) -> None:
        if self._broken is not None:
            raise OSError(self._broken, "broken")
        if self.sends:
            self.sends = False
            self._network.transmit(self, FIN)

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self.host.sockets.pop(self.number, None)
        if self._resets or self._received:
            self._network.transmit(self, RST)
        elif self.sends:
            self.sends = False
            self._network.transmit(self, FIN)

    # -- what the network does -------------------------------------------------------------------

    def read(self, count: int) -> None:
        """The other side took bytes of this end's."""
        self.in_flight_bytes -= count
        self.look()

    def arrived(self, data: bytes) -> None:
        """Something came."""
        if self.closed or not self.time.alive:
            if data is not RST:
                self._network.transmit(self, RST)
            return
        if data is FIN:
            self._ended = True
        elif data is RST:
            self.break_(errno.ECONNRESET)
        else:
            self._received += data
            if not self.time.is_stopped:
                self.host.heard_s[self.other.host.name] = self.time.now()
        self.look()

    def break_(self, why: int) -> None:
        """This end is of no use any more."""
        if self._broken is None and not self.closed:
            self._broken = why
            self.look()

    def look(self) -> None:
        """Have the process look at this socket, if there is something to see."""
        if not self._looks:
            self._looks = True
            self.time.call_later(0.0, self._look)

    def _look(self) -> None:
        self._looks = False
        if self.closed:
            return
        readable = self._received or self._ended or self._broken is not None
        reader = self.loop.readers.get(self.number)
        if readable and reader is not None:
            self.loop.enter(reader)
            self.look()  # until it has read everything or closed
        writer = self.loop.writers.get(self.number)
        writable = self.in_flight_bytes < WINDOW_BYTES or self._broken is not None
        if writable and writer is not None and not self.closed:
            self.loop.enter(writer)


class Network:
    """See the module's text.

    Args:
        agenda: simulated time.
        dice: where chance comes from.

    Attributes:
        cuts: pairs (from, to) between which nothing passes.
        slow_s: what the way between a pair takes longer.
    """

    def __init__(self, agenda: Agenda, dice: random.Random) -> None:
        self.cuts: set[tuple[SiteAddress, SiteAddress]] = set()
        self.slow_s: dict[tuple[SiteAddress, SiteAddress], float] = {}
        self.hosts: dict[SiteAddress, Host] = {}
        self._agenda = agenda
        self._dice = dice
        self._numbers = 100

    def is_cut(self, sender: Host, to: Host) -> bool:
        return not to.powered or (sender.name, to.name) in self.cuts

    def _delay_s(self, sender: Host, to: Host) -> float:
        slow_s = self.slow_s.get((sender.name, to.name), 0.0)
        return LATENCY_S + self._dice.random() * (JITTER_S + slow_s)

    # -- connecting --------------------------------------------------------------------------------

    async def connect(self, loop: SimulatedLoop, address: SiteAddress) -> SimulatedSocket:
        """Stand in for `replication.network.connect`."""
        host = next(h for h in self.hosts.values() if h.loop is loop)
        connected: asyncio.Future[SimulatedSocket] = loop.create_future()
        self._agenda.call_later(
            RESEND_S * self._dice.random() * 0.01,
            lambda: self._try_to_connect(host, address, connected),
        )
        try:
            return await asyncio.wait_for(connected, CONNECT_TIMEOUT_S)
        except TimeoutError:
            raise OSError(f"{address.host}: no answer in {CONNECT_TIMEOUT_S:.0f} s") from None

    def _try_to_connect(
        self, host: Host, address: SiteAddress, connected: asyncio.Future[SimulatedSocket]
    ) -> None:
        if connected.done() or not host.time.alive:
            return
        to = self.hosts.get(address)
        if to is None or self.is_cut(host, to) or self.is_cut(to, host):
            self._agenda.call_later(
                RESEND_S, lambda: self._try_to_connect(host, address, connected)
            )
            return
        delay_s = self._delay_s(host, to)
        if to.accept is None or not to.time.alive:
            host.time.call_later(delay_s, lambda: _refuse(connected))
            return
        ours, theirs = self._pair(host, to)
        accept = to.accept
        to.time.call_later(delay_s, lambda: to.loop.enter(lambda: accept(theirs)))
        host.time.call_later(2 * delay_s, lambda: _hand_over(connected, ours))

    def _pair(self, one: Host, two: Host) -> tuple[SimulatedSocket, SimulatedSocket]:
        ends = []
        for host in (one, two):
            self._numbers += 1
            end = SimulatedSocket(self, host, self._numbers)
            host.sockets[end.number] = end
            ends.append(end)
        ends[0].other, ends[1].other = ends[1], ends[0]
        return ends[0], ends[1]

    # -- carrying ----------------------------------------------------------------------------

    def transmit(self, end: SimulatedSocket, data: bytes) -> None:
        """Carry bytes, or the end of the connection, to the other side."""
        if data is not FIN and data is not RST:
            end.in_flight_bytes += len(data)
        if end.stalled:
            end.stalled.append(data)
            return
        now = self._agenda.now()
        # Never before what was sent earlier.
        end.arrives_s = max(end.arrives_s, now + self._delay_s(end.host, end.other.host))
        self._agenda.call_at(end.arrives_s, lambda: self._arrive(end, data))

    def _arrive(self, end: SimulatedSocket, data: bytes) -> None:
        if end.stalled or self.is_cut(end.host, end.other.host):
            if not end.stalled:
                end.stalled_since_s = self._agenda.now()
                self._agenda.call_later(RESEND_S, lambda: self._resend(end))
            end.stalled.append(data)
            return
        end.other.arrived(data)

    def _resend(self, end: SimulatedSocket) -> None:
        assert end.stalled_since_s is not None, "something waits"
        waited_s = self._agenda.now() - end.stalled_since_s
        if not self.is_cut(end.host, end.other.host):
            waiting, end.stalled = end.stalled, deque()
            for data in waiting:
                end.other.arrived(data)
        elif waited_s < USER_TIMEOUT_S and end.host.powered:
            self._agenda.call_later(RESEND_S, lambda: self._resend(end))
        else:
            end.stalled.clear()
            end.break_(errno.ETIMEDOUT)

    # -- the end of processes ------------------------------------------------------------------

    def process_died(self, host: Host) -> None:
        """The kernel closes what a process left open, if the machine is still there."""
        host.accept = None
        for end in list(host.sockets.values()):
            if host.powered:
                end.close()
            else:
                end.closed = True
        host.sockets.clear()

    def reset_links(self, one: SiteAddress, two: SiteAddress) -> int:
        """Break every connection between two hosts; returns how many there were."""
        ends = [e for e in self.hosts[one].sockets.values() if e.other.host.name == two]
        for end in ends:
            end.break_(errno.ECONNRESET)
            end.other.break_(errno.ECONNRESET)
        return len(ends)


class Listener:
    """Stands in for `replication.network.Listener`."""

    def __init__(
        self,
        network: Network,
        loop: SimulatedLoop,
        on_socket: Callable[[SimulatedSocket], None],
    ) -> None:
        self._host = next(h for h in network.hosts.values() if h.loop is loop)
        self._on_socket = on_socket

    @property
    def port(self) -> int:
        return self._host.name.port

    async def start(self) -> None:
        self._host.accept = self._on_socket

    def close(self) -> None:
        self._host.accept = None


def _refuse(connected: asyncio.Future[SimulatedSocket]) -> None:
    if not connected.done():
        connected.set_exception(OSError(errno.ECONNREFUSED, "connection refused"))


def _hand_over(connected: asyncio.Future[SimulatedSocket], end: SimulatedSocket) -> None:
    if connected.done():
        end.close()
    else:
        connected.set_result(end)
