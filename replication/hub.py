"""All links of this site: accepting, dialling, one-shot requests, handshake time-outs.

The hub moves bytes between sockets and the link machines and passes their events on; what they
mean is the manager's business.
"""

import asyncio
import contextlib
import itertools
import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from replication import network
from replication.bodies import SiteAddress
from replication.errors import ReplicationError
from replication.link import Link
from replication.link_states import Role
from replication.messages import OwnCode
from replication.peer import LocalSite, Peer
from replication.peer_events import (
    Event,
    LinkEnded,
    LinkFailed,
    Rejected,
    RequestReceived,
    SiteIdentified,
)
from replication.wire import LSN, Frame

log = logging.getLogger(__name__)

HANDSHAKE_TIMEOUT_S: Final = 5.0
STRANGERS_MAX: Final = 64  # connections that have not said who they are; more are turned away
# Of a link that is not released yet: its site says what it holds in its first bytes.
HELD_FRAMES_MAX: Final = 4096
HELD_BYTES_MAX: Final = 4 * 1024 * 1024


class Handler(Protocol):
    """What the hub tells the manager, all in the event loop."""

    def admits(self, site: SiteIdentified) -> bool:
        """Whether the site that dialled in is a member."""

    def rejection(self) -> tuple[int, int]:
        """(version, generation) for a site that is not."""

    def ready(self, link: Link, site: SiteIdentified, *, outgoing: bool) -> None:
        """A link finished its handshake."""

    def event(self, link: Link, event: Event) -> None:
        """A ready link said something that is no replication message."""

    def acked(self, link: Link, generation: int, lsn: LSN) -> None:
        """A released link brought an acknowledgement."""

    def frames(self, link: Link, frames: Sequence[Frame], size: int) -> None:
        """Replication messages of a released link."""

    def idle(self, link: Link) -> None:
        """A released link is between two frames; it may be lent."""

    def request(self, link: Link, request: RequestReceived) -> None:
        """A one-shot request; answer it on the link's machine."""

    def closed(self, link: Link, reason: str) -> None:
        """A link that was ready is gone."""

    def refused(self, where: str, reason: str, code: str) -> None:
        """A caller was turned away before its link was ready."""


@dataclass(slots=True, eq=False)
class _Open:
    """A connection in the hub's books."""

    link: Link
    outgoing: bool
    timer: asyncio.TimerHandle | None = None
    ready: bool = False
    held: list[Frame] = field(default_factory=list)
    held_bytes: int = 0
    outcome: "asyncio.Future[Event] | None" = None
    reason: str = ""


class Hub:
    """See the module's text.

    Args:
        loop: the event loop.
        local: what this site says of itself.
        listen: where to listen; port 0 lets the kernel choose.
        handler: whom to tell.
        handshake_timeout_s: how long a caller may take to say who it is.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        local: LocalSite,
        listen: SiteAddress,
        handler: Handler,
        handshake_timeout_s: float = HANDSHAKE_TIMEOUT_S,
    ) -> None:
        self._loop = loop
        self._local = local
        self._handler = handler
        self._listener = network.Listener(loop, listen, self._on_socket)
        self._numbers = itertools.count(1)
        self._open: dict[int, _Open] = {}
        self._ready: tuple[Link, ...] = ()
        self._handshake_timeout_s = handshake_timeout_s
        self._strangers = 0
        self._stopped = False

    async def start(self) -> None:
        """Listen.

        Raises:
            ReplicationError: the address cannot be bound.
        """
        await self._listener.start()

    def stop(self) -> None:
        """Close the listener and every link."""
        self._stopped = True
        self._listener.close()
        for entry in list(self._open.values()):
            entry.link.close("this site is stopping")

    def links(self) -> tuple[Link, ...]:
        """The links that are ready. *Thread:* any: the tuple is replaced, never changed."""
        return self._ready

    @property
    def strangers(self) -> int:
        """How many callers have not said who they are."""
        return self._strangers

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._listener.port

    def tell(self, frame: bytes) -> None:
        """Send a message of ttserver's own to every ttserver site."""
        for link in self._ready:
            if link.released and link.peer.remote is not None and not link.peer.remote.native:
                link.write(frame)

    def link(self, number: int) -> Link | None:
        """A link by its number, None when it is gone."""
        entry = self._open.get(number)
        return entry.link if entry else None

    # -- dialling ------------------------------------------------------------------------------

    async def dial(self, address: SiteAddress) -> None:
        """Open a replication link; `Handler.ready` is called before this returns.

        Raises:
            ReplicationError: not reached, or the other side is not that site. That it does not
                take this site for a member comes later, as an event of the ready link.
        """
        sock = await self._connect(address)
        peer = Peer(Role.DIALLER, self._local, expected=address)
        entry = self._add(sock, peer, outgoing=True)
        entry.outcome = self._loop.create_future()
        peer.start()
        entry.link.send_machine_output()
        entry.link.start_reading()
        await entry.outcome

    async def ask(
        self,
        address: SiteAddress,
        request: OwnCode,
        timeout_s: float,
        subject: SiteAddress | None = None,
    ) -> Event:
        """Make a one-shot request and return its answer.

        Raises:
            ReplicationError: not reached, no answer in time, or a broken protocol.
        """
        try:
            async with asyncio.timeout(timeout_s):
                sock = await self._connect(address)
                peer = Peer(Role.DIALLER, self._local, request=request, subject=subject)
                entry = self._add(sock, peer, outgoing=True)
                entry.outcome = self._loop.create_future()
                try:
                    peer.start()
                    entry.link.send_machine_output()
                    entry.link.start_reading()
                    return await entry.outcome
                finally:
                    entry.link.close("the request is over")
        except TimeoutError as error:
            raise ReplicationError(
                f"{address} did not answer in {timeout_s:.1f} s",
                code="timeout",
                hint="check that the site runs and the network between the two.",
            ) from error

    async def _connect(self, address: SiteAddress) -> socket.socket:
        try:
            return await network.connect(self._loop, address)
        except (OSError, UnicodeError) as error:  # the latter: a name that no resolver takes
            raise ReplicationError(
                f"{address} cannot be reached: {error}",
                code="unreachable",
                hint="check that the site runs, and that its port is open: `ttserver check`.",
            ) from error

    # -- accepting -----------------------------------------------------------------------------

    def _on_socket(self, sock: socket.socket) -> None:
        if self._stopped or self._strangers >= STRANGERS_MAX:
            sock.close()
            return
        entry = self._add(sock, Peer(Role.ACCEPTOR, self._local), outgoing=False)
        self._strangers += 1
        entry.link.start_reading()

    def _add(self, sock: socket.socket, peer: Peer, *, outgoing: bool) -> _Open:
        if self._stopped:
            sock.close()
            raise ReplicationError("this site is stopping", code="stopping", hint="nothing to do.")
        number = next(self._numbers)
        link = Link(self._loop, sock, peer, number, self._on_data, self._on_closed)
        entry = _Open(link, outgoing)
        timeout_s = self._handshake_timeout_s
        entry.timer = self._loop.call_later(
            timeout_s, link.close, f"no handshake in {timeout_s:g} s"
        )
        self._open[number] = entry
        return entry

    # -- events --------------------------------------------------------------------------------

    def _on_data(self, link: Link, data: bytes) -> None:
        entry = self._open.get(link.number)
        if entry is None:
            return
        if link.released and data:
            ack = link.peer.receive_acks(data)
            if ack is not None:
                self._handler.acked(link, *ack)
                return
        events = link.peer.receive_data(data) if data else link.peer.receive_eof()
        try:
            self._dispatch(entry, events, len(data))
        except Exception:
            # A bug of ours: events behind it are lost, so the link must begin anew.
            log.exception("replication_link_failed from=%s", link.remote_name)
            entry.reason = "an internal error of this site; its log says more"
            link.close(entry.reason)
        if not link.is_closed:
            link.send_machine_output()
            if link.released and link.peer.between_frames:
                self._handler.idle(link)

    def _dispatch(self, entry: _Open, events: Sequence[Event], size: int) -> None:
        frames: list[Frame] = []
        for event in events:
            if isinstance(event, Frame):
                frames.append(event)
                continue
            if frames:
                passed = _size(frames)
                size = max(0, size - passed)
                self._pass_frames(entry, frames, passed)
                frames = []
            self._on_event(entry, event)
            if entry.link.is_closed:
                return
        if frames or entry.ready:
            self._pass_frames(entry, frames, size)

    def _pass_frames(self, entry: _Open, frames: list[Frame], size: int) -> None:
        if entry.link.released:
            if frames:
                self._handler.frames(entry.link, frames, size)
            return
        entry.held.extend(frames)
        entry.held_bytes += size
        if len(entry.held) > HELD_FRAMES_MAX or entry.held_bytes > HELD_BYTES_MAX:
            entry.link.close("it sent messages before it said what it holds")

    def release(self, link: Link) -> None:
        """Let the link's messages through, those held first."""
        entry = self._open.get(link.number)
        if entry is None:
            return
        link.released = True
        held, entry.held = entry.held, []
        entry.held_bytes = 0
        if held:
            self._handler.frames(link, held, _size(held))

    def _on_event(self, entry: _Open, event: Event) -> None:
        link = entry.link
        match event:
            case SiteIdentified():
                self._on_identified(entry, event)
            case RequestReceived():
                self._handler.request(link, event)
            case LinkFailed():
                entry.reason = str(event.error)
                link.close(str(event.error))
                if not entry.ready and not entry.outgoing:
                    self._handler.refused(link.remote_name, entry.reason, event.error.code)
            case LinkEnded():
                entry.reason = event.reason
                link.close(event.reason)
            case Rejected():
                if entry.ready:
                    self._handler.event(link, event)
                link.close("the other site does not take this one for a member")
            case _ if entry.ready:
                self._handler.event(link, event)
            case _:
                self._resolve(entry, event)

    def _on_identified(self, entry: _Open, site: SiteIdentified) -> None:
        link = entry.link
        if entry.outgoing:
            if link.peer.ready:
                self._become_ready(entry, site)
            return  # a one-shot link: its answer follows
        if not self._handler.admits(site):
            self._handler.refused(link.remote_name, f"{site.address} is no member", "not_a_member")
            link.peer.reject(*self._handler.rejection())
            return
        more = link.peer.accept()
        self._become_ready(entry, site)
        self._dispatch(entry, more, 0)

    def _become_ready(self, entry: _Open, site: SiteIdentified) -> None:
        entry.ready = True
        self._ready = (*self._ready, entry.link)
        self._forget_timer(entry)
        # What the machine still has to say must be out before anything of ours.
        entry.link.send_machine_output()
        self._handler.ready(entry.link, site, outgoing=entry.outgoing)
        self._resolve(entry, site)

    def _resolve(self, entry: _Open, event: Event) -> None:
        if entry.outcome is not None and not entry.outcome.done():
            entry.outcome.set_result(event)

    def _forget_timer(self, entry: _Open) -> None:
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None
            if not entry.outgoing:
                self._strangers -= 1

    def _on_closed(self, link: Link, reason: str) -> None:
        entry = self._open.pop(link.number, None)
        if entry is None:
            return
        self._forget_timer(entry)
        self._ready = tuple(other for other in self._ready if other is not link)
        reason = entry.reason or reason
        if entry.outcome is not None and not entry.outcome.done():
            entry.outcome.set_exception(
                ReplicationError(reason, code="link", hint="see $DB_Msg.txt of the other site.")
            )
        if entry.ready:
            self._handler.closed(link, reason)


def _size(frames: Sequence[Frame]) -> int:
    return sum(len(frame.control) + len(frame.rec) for frame in frames)


def later(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *args: object) -> None:
    """Call in the loop from any thread; a loop that is closed needs nothing any more."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(call, *args)
