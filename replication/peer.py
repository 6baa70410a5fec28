"""One link between two sites, as a machine without input and output (sans-I/O).

The table is `replication.link_states.STATES`: a frame that has no entry is the other side's error,
a call that has none is ours.

    dialler              acceptor             what the shell does
    proposal ----------->
             <----------- confirmation
    parameters ---------> SiteIdentified      accept() a present member, else reject()
       or a request ----> RequestReceived     answer()

The shell moves bytes: `receive_data` and `receive_eof` give events, `data_to_send` gives bytes.
After every call it sends `data_to_send()`; when `closed` is true it flushes that, shuts its sending
side down and reads to the end before it closes: closing with unread bytes resets the connection,
and a CONNECT_REJECT still under way would be lost.

What the other side does wrong never raises: it is the last event, LinkFailed.  So what came before
it is not lost, and the events are the same however the bytes were cut into chunks.  What we do
wrong raises LocalProtocolError.

Only protocol 4 is spoken: an older peer gets a closed link and the log a reason, because without
group membership (5.2 and later) it could not be told apart from a stranger.

Source: the library's repmgr, version 4: version negotiation, parameters, one-shot requests.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from replication import bodies, handshake, wire
from replication.bodies import SiteAddress, SiteRecord
from replication.errors import LocalProtocolError, RemoteProtocolError
from replication.handshake import Parameters
from replication.link_states import (
    ANSWERS,
    END_REASONS,
    SHELL_DECIDES,
    STATES,
    Input,
    Role,
    State,
    limits_in,
)
from replication.messages import (
    ERROR_NO_SERVER,
    PROTOCOL_VERSION,
    TTSERVER_CODES_FROM,
    MessageType,
    OwnCode,
    ParamFlag,
)
from replication.mixup import check_first_bytes
from replication.peer_events import (
    Ack,
    AppRequest,
    Event,
    Forwarded,
    Generations,
    HandoverSaid,
    Heartbeat,
    Joined,
    LinkEnded,
    LinkFailed,
    MembershipShared,
    OwnMessage,
    ParametersChanged,
    Rejected,
    Removed,
    RequestFailed,
    RequestReceived,
    RequestUnsupported,
    RoundAnswered,
    RoundAsked,
    SiteIdentified,
    StableLsn,
    StandingAsked,
    StandingReceived,
)
from replication.wire import LSN, Frame, FrameDecoder, Limits

_BUG_HINT: Final = "report this as a bug of ttserver"
_REP_MESSAGE: Final = int(MessageType.REP_MESSAGE)

HELD_BYTES_MAX: Final = 1024 * 1024
"""How much may come in while the shell decides about a site; it should stop reading meanwhile."""


@dataclass(frozen=True, slots=True)
class LocalSite:
    """What this site says of itself on every link.

    Args:
        host: own host string exactly as it stands in the membership database.
        port: own replication port.
        priority: 0 = never master.
        ack_policy: AckPolicy number.
        flags: ParamFlag bits; ELECTABLE is added from the priority.
    """

    host: str
    port: int
    priority: int
    ack_policy: int
    flags: int = int(ParamFlag.TTSERVER_SITE)

    @property
    def address(self) -> SiteAddress:
        """The site's identity."""
        return SiteAddress(self.host, self.port)

    @property
    def parameters(self) -> Parameters:
        """The version 4 parameters."""
        electable = ParamFlag.ELECTABLE if self.priority > 0 else 0
        return Parameters(self.port, self.ack_policy, self.flags | electable)


class PeerStatistics(NamedTuple):
    """What went through a link so far."""

    bytes_received: int
    frames_received: int
    bytes_sent: int


class Peer:
    """The machine of one link.

    Args:
        role: who opened the connection.
        local: this site.
        expected: a dialler's idea of who answers; another site there is an error, because its acks
            would be counted as those of the expected one.
        request: makes a dialler's link a one-shot one; see `link_states.ANSWERS`.
        subject: the site the request is about; this site unless given.
        limits: lengths accepted on a ready link.

    Raises:
        LocalProtocolError: the arguments do not go together.
    """

    def __init__(
        self,
        role: Role,
        local: LocalSite,
        *,
        expected: SiteAddress | None = None,
        request: OwnCode | None = None,
        subject: SiteAddress | None = None,
        limits: Limits | None = None,
    ) -> None:
        if (role is Role.ACCEPTOR and (expected or request)) or (
            request is not None and request not in ANSWERS
        ):
            raise LocalProtocolError(
                f"link of role {role.value} can't expect {expected} and request {request!r}",
                code="bad_purpose",
                hint=_BUG_HINT,
            )
        self.role = role
        self.local = local
        self.remote: SiteIdentified | None = None
        if role is Role.ACCEPTOR:
            self._state = State.LISTEN
        else:
            self._state = State.DIAL if request is None else State.ASK
        self._expected = expected
        self._request = request
        self._subject = subject if subject is not None else local.address
        self._limits = limits if limits is not None else Limits()
        self._decoder = FrameDecoder(limits_in(State.READY, self._limits))
        self._held = bytearray()  # bytes of the handshake that are not a frame yet
        self._first_bytes_checked = False
        self._hello_priority: int | None = None
        self._served: OwnCode | None = None
        self._out: list[bytes] = []
        self._bytes_received = 0
        self._frames_received = 0
        self._bytes_sent = 0

    # --- what the shell looks at

    @property
    def state(self) -> State:
        """Where the link stands."""
        return self._state

    @property
    def ready(self) -> bool:
        """Whether replication messages may be sent."""
        return self._state is State.READY

    @property
    def closed(self) -> bool:
        """Whether the link is over: flush data_to_send() and close the socket."""
        return self._state is State.CLOSED

    @property
    def wants_data(self) -> bool:
        """Whether to go on reading; False while the shell itself owes a decision."""
        return self._state not in SHELL_DECIDES and self._state is not State.CLOSED

    @property
    def between_frames(self) -> bool:
        """Whether a ready link holds no part of a frame: the next byte begins one."""
        return self._state is State.READY and not self._decoder.buffered_bytes

    def statistics(self) -> PeerStatistics:
        """Return what went through so far."""
        return PeerStatistics(self._bytes_received, self._frames_received, self._bytes_sent)

    # --- what the shell calls

    def start(self) -> None:
        """Propose a version; the dialler speaks first."""
        self._step(Input.START)
        self._send(handshake.encode_hello(self.local.address, self.local.priority))

    def receive_data(self, data: bytes | bytearray | memoryview) -> list[Event]:
        """Take bytes that came in and return what they mean.

        Never raises for what the other side sent: its error is the last event, LinkFailed.
        """
        events: list[Event] = []
        self._bytes_received += len(data)
        if self._state is State.READY:
            self._receive_ready(data, events)
        elif self._state is not State.CLOSED:
            self._held += data
            self._receive_handshake(events)
        return events

    def receive_eof(self) -> list[Event]:
        """Take the end of the stream; a link that is over already has nothing to add."""
        if self._state is State.CLOSED:
            return []
        state = self._state
        partial_bytes = len(self._held) + self._decoder.buffered_bytes
        self._close()
        reason = "it broke off in the middle of a frame" if partial_bytes else END_REASONS[state]
        return [LinkEnded(state.value, partial_bytes, reason)]

    def data_to_send(self) -> bytes:
        """Return and forget the bytes to be sent."""
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        self._bytes_sent += len(data)
        return data

    def accept(self) -> list[Event]:
        """Take the identified site as a peer; returns what came in the meantime."""
        self._step(Input.ACCEPT)
        events: list[Event] = []
        self._become_ready(events)
        return events

    def reject(self, version: int, generation: int) -> None:
        """Tell the site that it is no member (as of this membership version) and end the link."""
        self._step(Input.REJECT)
        body = bodies.encode_connect_reject(version, generation)
        self._send(wire.encode_own(OwnCode.CONNECT_REJECT, body))
        self._close()

    def answer(self, code: OwnCode, body: bytes = b"") -> None:
        """Answer the one-shot request and end the link.

        Raises:
            LocalProtocolError: there is no request, or this is no answer to it.
        """
        if self._served is not None and code not in ANSWERS[self._served]:
            raise LocalProtocolError(
                f"{code.name} is no answer to {self._served.name}",
                code="wrong_answer",
                hint=_BUG_HINT,
            )
        self._step(Input.ANSWER)
        self._send(wire.encode_own(code, body))
        self._close()

    def send_rep_message(self, control: bytes, rec: bytes) -> None:
        """Send what the library gave for this site."""
        self.send_encoded(wire.encode_rep_message(control, rec))

    def send_ack(self, generation: int, lsn: LSN) -> None:
        """Acknowledge everything up to `lsn`."""
        self.send_encoded(wire.encode_ack(generation, lsn))

    def send_heartbeat(self, generation: int, lsn: LSN) -> None:
        """Say that the master lives, with its last permanent LSN."""
        self.send_encoded(wire.encode_heartbeat(generation, lsn))

    def send_parameters(self, local: LocalSite) -> None:
        """Tell the other site that ack policy or priority changed here."""
        self._step(Input.SEND)
        self.local = local
        body = bodies.encode_refresh(local.ack_policy, electable=local.priority > 0)
        self._send(wire.encode_own(OwnCode.PARM_REFRESH, body))

    def send_own(self, code: int, body: bytes) -> None:
        """Send an OWN message on a ready link.

        Raises:
            LocalProtocolError: not ready, or a code of ttserver's to a native site, which would
                close the link.
        """
        self._step(Input.SEND)
        assert self.remote is not None, "READY is entered with a remote site only"
        if code >= TTSERVER_CODES_FROM and self.remote.native:
            raise LocalProtocolError(
                f"OWN code {code:#x} can't be sent to {self.remote.address}: it is a native site",
                code="native_site",
                hint=_BUG_HINT,
            )
        self._send(wire.encode_own(code, body))

    def send_encoded(self, frame: bytes) -> None:
        """Send a frame encoded by `replication.wire`; a broadcast is encoded once for all links."""
        self._step(Input.SEND)
        self._send(frame)

    def close(self) -> None:
        """End the link from here, without a word to the other side."""
        self._close()

    # --- state

    def _step(self, what: Input) -> None:
        """Go on by a call of ours."""
        state = STATES.get((self._state, what))
        if state is None:
            raise LocalProtocolError(
                f"{what.value} is not allowed {self._state.value}",
                code="wrong_state",
                hint=_BUG_HINT,
                state=self._state.name,
                input=what.name,
            )
        self._state = state

    def _send(self, frame: bytes) -> None:
        self._out.append(frame)

    def _close(self) -> None:
        self._state = State.CLOSED
        self._held.clear()

    def _fail(self, error: RemoteProtocolError, events: list[Event]) -> None:
        self._close()
        events.append(LinkFailed(error))

    def _become_ready(self, events: list[Event]) -> None:
        rest = bytes(self._held)
        self._held.clear()
        self._receive_ready(rest, events)

    # --- handshake and one-shot links, a frame at a time: each decides what the next may be

    def _receive_handshake(self, events: list[Event]) -> None:
        try:
            if not self._first_bytes_checked:
                self._first_bytes_checked = check_first_bytes(self._held)
                if not self._first_bytes_checked:
                    return
            while self._state is not State.CLOSED and self._state not in SHELL_DECIDES:
                got = wire.decode_frame(self._held, limits_in(self._state, self._limits))
                if got is None:
                    return
                frame, length = got
                del self._held[:length]
                self._frames_received += 1
                self._on_handshake_frame(frame, events)
                if self._state is State.READY:
                    self._become_ready(events)
                    return
            self._check_held()
        except RemoteProtocolError as error:
            self._fail(error, events)

    def _on_handshake_frame(self, frame: Frame, events: list[Event]) -> None:
        state = self._state
        self._state = STATES[state, Input(MessageType(frame.type))]
        match state:
            case State.LISTEN:
                self._on_proposal(frame)
            case State.CONFIRMED if frame.type == MessageType.HANDSHAKE:
                events.append(self._on_introduction(frame))
            case State.CONFIRMED:
                events.append(self._on_request(frame))
            case State.ASKED:
                events.append(self._on_answer(frame))
            case _:
                self._on_confirmation(frame, events)

    def _check_held(self) -> None:
        if len(self._held) > HELD_BYTES_MAX:
            raise RemoteProtocolError(
                f"link closed {self._state.value}: {len(self._held)} bytes came meanwhile, the"
                f" limit is {HELD_BYTES_MAX} bytes",
                code="held_too_much",
                hint="report this as a bug of ttserver: reading should have been paused",
                bytes=len(self._held),
                limit=HELD_BYTES_MAX,
            )

    def _on_proposal(self, frame: Frame) -> None:
        hello = handshake.decode_hello(frame.control, frame.rec)
        lowest, highest = hello.versions or (1, 1)
        if not lowest <= PROTOCOL_VERSION <= highest:
            raise _version_error(hello.address, lowest, highest)
        self._hello_priority = hello.priority
        self._send(handshake.encode_confirmation(self.local.host, self.local.parameters))

    def _on_introduction(self, frame: Frame) -> SiteIdentified:
        site = handshake.decode_introduction(frame.control, frame.rec)
        return self._identify(site.address, site.parameters, self._hello_priority)

    def _on_confirmation(self, frame: Frame, events: list[Event]) -> None:
        site = handshake.decode_confirmation(frame.control, frame.rec)
        if site.version != PROTOCOL_VERSION:
            raise _version_error(site.address, site.version, site.version)
        remote = self._identify(site.address, site.parameters, None)
        if self._request is None:
            self._check_expected(remote)
            self._send(handshake.encode_introduction(self.local.host, self.local.parameters))
            events.append(remote)
            return
        events.append(remote)
        if self._request >= TTSERVER_CODES_FROM and remote.native:
            self._close()
            events.append(RequestUnsupported(self._request))
            return
        record = bodies.encode_site_record(SiteRecord(*self._subject))
        self._send(wire.encode_own(self._request, record))

    def _identify(
        self, address: SiteAddress, parameters: Parameters, priority: int | None
    ) -> SiteIdentified:
        if address == self.local.address:
            raise RemoteProtocolError(
                f"link refused: the other side calls itself {address}, which is this site",
                code="own_address",
                hint="give every site of the group its own address in DB_CONFIG",
                host=address.host,
                port=address.port,
            )
        self.remote = SiteIdentified(address, parameters.ack_policy, parameters.flags, priority)
        return self.remote

    def _check_expected(self, remote: SiteIdentified) -> None:
        if self._expected is not None and remote.address != self._expected:
            raise RemoteProtocolError(
                f"link refused: {remote.address} answered where {self._expected} was dialled",
                code="wrong_site",
                hint="use one spelling of each site's address in every DB_CONFIG of the group",
                expected=str(self._expected),
                found=str(remote.address),
            )

    def _on_request(self, frame: Frame) -> RequestReceived:
        if frame.word2 not in ANSWERS:
            raise _unexpected_own(frame.word2, State.CONFIRMED)
        self._served = OwnCode(frame.word2)
        return RequestReceived(self._served, bodies.decode_site_record(frame.control))

    def _on_answer(self, frame: Frame) -> Event:
        assert self._request is not None, "ASKED is entered with a request only"
        code = frame.word2
        if code not in ANSWERS[self._request]:
            raise _unexpected_own(code, State.ASKED)
        match code:
            case OwnCode.JOIN_SUCCESS:
                return Joined(bodies.decode_membership_list(frame.control))
            case OwnCode.GM_FORWARD:
                return Forwarded(*bodies.decode_forward(frame.control))
            case OwnCode.SITE_STANDING:
                return StandingReceived(bodies.decode_standing(frame.control))
            case OwnCode.REMOVE_SUCCESS:
                return Removed()
            case _:
                return RequestFailed()

    # --- ready link: the hot path

    def receive_acks(self, data: bytes) -> tuple[int, LSN] | None:
        """Take a chunk of nothing but acknowledgements; they add up, so the last one says it all.

        Returns:
            Generation and LSN; None when the chunk is anything else: give it to receive_data.
        """
        if (
            self._state is not State.READY
            or len(data) % wire.ACK_FRAME_BYTES
            or self._decoder.buffered_bytes
        ):
            return None
        ack = wire.last_ack(data)
        if ack is not None:
            self._bytes_received += len(data)
            self._frames_received += len(data) // wire.ACK_FRAME_BYTES
        return ack

    def _receive_ready(self, data: bytes | bytearray | memoryview, events: list[Event]) -> None:
        decoder = self._decoder
        frames = decoder.feed(data)
        self._frames_received += len(frames)
        try:
            for frame in frames:
                if frame[0] == _REP_MESSAGE:
                    events.append(frame)
                else:
                    self._on_ready_frame(frame, events)
                    if self._state is State.CLOSED:
                        return
        except RemoteProtocolError as error:
            self._fail(error, events)
            return
        if decoder.error is not None:
            self._fail(decoder.error, events)

    def _on_ready_frame(self, frame: Frame, events: list[Event]) -> None:
        match frame.type:
            case MessageType.PERMLSN:
                events.append(Ack(*wire.decode_ack(frame.control)))
            case MessageType.HEARTBEAT:
                if frame.control:  # the old form is a sign of life and no more
                    events.append(Heartbeat(*wire.decode_ack(frame.control)))
            case MessageType.OWN:
                events.append(self._on_own(frame.word2, frame.control))
            case _:
                events.append(self._on_app_message(frame))

    def _on_own(self, code: int, body: bytes) -> Event:
        assert self.remote is not None, "READY is entered with a remote site only"
        if code >= TTSERVER_CODES_FROM:
            if self.remote.native:
                raise _unexpected_own(code, State.READY)
            return _ttserver_event(code, body)
        match code:
            case OwnCode.CONNECT_REJECT:
                event = Rejected(*bodies.decode_connect_reject(body))
                self._close()
                return event
            case OwnCode.PARM_REFRESH:
                changed = ParametersChanged(*bodies.decode_refresh(body))
                flags = self.remote.flags & ~ParamFlag.ELECTABLE
                if changed.electable:
                    flags |= ParamFlag.ELECTABLE
                self.remote = replace(self.remote, ack_policy=changed.ack_policy, flags=flags)
                return changed
            case OwnCode.SHARING:
                return MembershipShared(bodies.decode_membership_list(body))
            case _:
                raise _unexpected_own(code, State.READY)

    def _on_app_message(self, frame: Frame) -> AppRequest:
        """Refuse a channel request with an answer: its sender would wait for its time-out."""
        tag, wants_answer = bodies.decode_app_metadata(frame.control)
        if wants_answer:
            self._send(wire.encode_resp_error(ERROR_NO_SERVER, tag))
        return AppRequest(tag, wants_answer)


def _ttserver_event(code: int, body: bytes) -> Event:
    match code:
        case OwnCode.SITE_QUERY:
            return StandingAsked(bodies.decode_site_record(body))
        case OwnCode.SITE_STANDING:
            return StandingReceived(bodies.decode_standing(body))
        case OwnCode.GENERATIONS:
            return Generations(bodies.decode_generations(body))
        case OwnCode.STABLE_LSN:
            return StableLsn(*bodies.decode_stable_lsn(body))
        case (
            OwnCode.HANDOVER_ASK
            | OwnCode.HANDOVER_READY
            | OwnCode.HANDOVER_REFUSED
            | OwnCode.HANDOVER_TAKE
        ):
            return HandoverSaid(code, bodies.decode_handover(body))
        case OwnCode.ROUND:
            return RoundAsked(*bodies.decode_round(body))
        case OwnCode.ROUND_ANSWER:
            return RoundAnswered(*bodies.decode_round_answer(body))
        case _:
            return OwnMessage(code, body)


def _unexpected_own(code: int, state: State) -> RemoteProtocolError:
    name = OwnCode(code).name if code in frozenset(OwnCode) else f"{code:#x}"
    return RemoteProtocolError(
        f"OWN message refused {state.value}: code {name} is not expected there",
        code="unexpected_message",
        hint="make sure that the other side speaks repmgr protocol 4",
        what=name,
        where=state.value,
    )


def _version_error(address: SiteAddress, lowest: int, highest: int) -> RemoteProtocolError:
    theirs = str(lowest) if lowest == highest else f"{lowest} to {highest}"
    return RemoteProtocolError(
        f"link refused: {address} speaks repmgr protocol {theirs}, this site speaks"
        f" {PROTOCOL_VERSION}",
        code="version_unsupported",
        hint="upgrade that site to Berkeley DB 5.2 or later, which speaks protocol 4",
        lowest=lowest,
        highest=highest,
    )
