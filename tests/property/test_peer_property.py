"""The link machine under any bytes, any chunks and any order of calls."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from replication import bodies, handshake, wire
from replication.bodies import SiteAddress, SiteRecord
from replication.errors import LocalProtocolError
from replication.link_states import Role, State
from replication.messages import AckPolicy, OwnCode, ParamFlag
from replication.peer import LocalSite, Peer
from replication.peer_events import Event, LinkFailed, RequestReceived, SiteIdentified
from replication.wire import LSN, Frame

HERE = LocalSite("here", 5010, 100, AckPolicy.ONE)
THERE = LocalSite("there", 5010, 0, AckPolicy.ONE)
RECORD = bodies.encode_site_record(SiteRecord("there", 5010))
CONTROL = struct.pack(">9I", 7, 19, 1, 28, 11, 1, 0, 0, 0)

hellos = st.sampled_from(
    [
        handshake.encode_hello(THERE.address, 7),
        handshake.encode_hello(THERE.address, 7, (1, 4)),
        handshake.encode_hello(THERE.address, 7, (1, 3)),
        handshake.encode_confirmation("there", THERE.parameters),
        b"PING\r\n",
        b"GET / HTTP/1.1\r\n",
        b"",
    ]
)
seconds = st.sampled_from(
    [
        handshake.encode_introduction("there", THERE.parameters),
        handshake.encode_introduction("here", HERE.parameters),
        handshake.encode_introduction("there", handshake.Parameters(5010, 5, 4)),
        wire.encode_own(OwnCode.JOIN_REQUEST, RECORD),
        wire.encode_own(OwnCode.SITE_QUERY, RECORD),
        b"",
    ]
)
traffic = st.sampled_from(
    [
        wire.encode_rep_message(CONTROL, b"record"),
        wire.encode_rep_message(CONTROL, b""),
        wire.encode_ack(1, LSN(1, 2)),
        wire.encode_heartbeat(1, LSN(1, 2)),
        wire.Header(4, 0, 0).encode(),
        wire.encode_own(OwnCode.PARM_REFRESH, bodies.encode_refresh(7, electable=True)),
        wire.encode_own(OwnCode.SHARING, bodies.encode_connect_reject(2, 1)),
        wire.encode_own(OwnCode.STABLE_LSN, bodies.encode_stable_lsn(1, LSN(1, 2))),
        wire.encode_own(OwnCode.ROUND, bodies.encode_round(1, 2, 1.0)),
        wire.encode_own(OwnCode.ROUND_ANSWER, b"short"),
        wire.encode_own(OwnCode.CONNECT_REJECT, bodies.encode_connect_reject(2, 1)),
        wire.encode_own(OwnCode.JOIN_SUCCESS, b""),
        wire.Header(5, 16, 1).encode() + b"data" + struct.pack(">III", 9, 0, 2),
        wire.encode_resp_error(1, 2),
        wire.Header(3, 36, 0xFFFFFFFF).encode(),
        b"\0",
    ]
)
streams = st.tuples(
    hellos, seconds, st.lists(st.one_of(traffic, st.binary(max_size=12)), max_size=10)
).map(lambda parts: parts[0] + parts[1] + b"".join(parts[2]))


def said(event: Event) -> object:
    """Make failures comparable: an exception equals only itself."""
    if isinstance(event, LinkFailed):
        return (event.error.code, str(event.error))
    return (type(event), event)


def run(
    role: Role, request: OwnCode | None, chunks: list[bytes]
) -> tuple[list[object], bytes, State]:
    """Feed a link, answering like a shell that accepts everybody; end it with EOF."""
    peer = Peer(role, HERE, request=request)
    if role is Role.DIALLER:
        peer.start()
    events: list[Event] = []
    sent = peer.data_to_send()
    for chunk in chunks:
        came = peer.receive_data(chunk)
        while came:
            events += came
            last, came = came[-1], []
            if peer.state is State.IDENTIFIED and isinstance(last, SiteIdentified):
                came = peer.accept()
            elif isinstance(last, RequestReceived):
                standing = last.code is OwnCode.SITE_QUERY
                peer.answer(OwnCode.SITE_STANDING if standing else OwnCode.GM_FAILURE)
        sent += peer.data_to_send()
    state = peer.state
    events += peer.receive_eof()
    return [said(event) for event in events], sent, state


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(
        [
            (Role.ACCEPTOR, None),
            (Role.DIALLER, None),
            (Role.DIALLER, OwnCode.JOIN_REQUEST),
            (Role.DIALLER, OwnCode.SITE_QUERY),
        ]
    ),
    streams,
    st.lists(st.integers(0, 300), max_size=6),
)
def test_chunks_never_change_what_a_link_says_and_does(
    kind: tuple[Role, OwnCode | None], stream: bytes, cuts: list[int]
) -> None:
    role, request = kind
    whole = run(role, request, [stream])
    assert run(role, request, [bytes([byte]) for byte in stream]) == whole
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    chunks = [stream[a:b] for a, b in itertools.pairwise(edges)]
    assert run(role, request, chunks) == whole


@settings(deadline=None, max_examples=100)
@given(st.lists(st.binary(max_size=300), max_size=20))
def test_replication_messages_arrive_whole_and_in_order(records: list[bytes]) -> None:
    dialler, acceptor = Peer(Role.DIALLER, THERE), Peer(Role.ACCEPTOR, HERE)
    dialler.start()
    acceptor.receive_data(dialler.data_to_send())
    dialler.receive_data(acceptor.data_to_send())
    for record in records:
        dialler.send_rep_message(CONTROL, record)
    acceptor.receive_data(dialler.data_to_send())
    got = [event for event in acceptor.accept() if isinstance(event, Frame)]
    assert [frame.rec for frame in got] == records
    assert {frame.control for frame in got} <= {CONTROL}


class TwoEnds(RuleBasedStateMachine):
    """Two machines back to back under any order of calls: what both do right never fails."""

    def __init__(self) -> None:
        super().__init__()
        flags = int(ParamFlag.TTSERVER_SITE)
        self.dialler = Peer(Role.DIALLER, HERE, expected=SiteAddress("there", 5010))
        self.acceptor = Peer(Role.ACCEPTOR, LocalSite("there", 5010, 5, AckPolicy.ALL, flags))
        self.wires = {self.dialler: b"", self.acceptor: b""}
        self.events: list[Event] = []
        self.sent = 0

    def _flush(self) -> None:
        self.wires[self.acceptor] += self.dialler.data_to_send()
        self.wires[self.dialler] += self.acceptor.data_to_send()

    @rule(count=st.integers(1, 60), to_dialler=st.booleans())
    def move(self, count: int, to_dialler: bool) -> None:
        self._flush()
        end = self.dialler if to_dialler else self.acceptor
        data, self.wires[end] = self.wires[end][:count], self.wires[end][count:]
        self.events += end.receive_data(data)

    @precondition(lambda self: self.dialler.state is State.DIAL)
    @rule()
    def start(self) -> None:
        self.dialler.start()

    @precondition(lambda self: self.acceptor.state is State.IDENTIFIED)
    @rule()
    def accept(self) -> None:
        self.events += self.acceptor.accept()

    @precondition(lambda self: self.dialler.ready)
    @rule(size=st.integers(0, 100))
    def replicate(self, size: int) -> None:
        self.dialler.send_rep_message(CONTROL, bytes(size))
        self.sent += 1

    @precondition(lambda self: self.acceptor.ready)
    @rule()
    def acknowledge(self) -> None:
        self.acceptor.send_ack(1, LSN(1, 2))
        self.acceptor.send_parameters(THERE)

    @rule(both=st.booleans())
    def misuse(self, both: bool) -> None:
        """A call that the state forbids changes nothing."""
        for end in (self.dialler, self.acceptor) if both else (self.acceptor,):
            state = end.state
            with pytest.raises(LocalProtocolError):
                end.answer(OwnCode.GM_FAILURE)
            assert end.state is state

    @invariant()
    def nobody_fails(self) -> None:
        assert not [event for event in self.events if isinstance(event, LinkFailed)]
        assert State.CLOSED not in (self.dialler.state, self.acceptor.state)
        received = sum(isinstance(event, Frame) for event in self.events)
        assert received <= self.sent

    def teardown(self) -> None:
        for _ in range(4):
            for to_dialler in (False, True):
                self.move(1 << 20, to_dialler)
            if self.acceptor.state is State.IDENTIFIED:
                self.accept()
        assert sum(isinstance(event, Frame) for event in self.events) == self.sent


TwoEnds.TestCase.settings = settings(deadline=None, max_examples=40, stateful_step_count=25)
TestTwoEnds = TwoEnds.TestCase
