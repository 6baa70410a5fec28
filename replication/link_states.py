"""The table of a link: (state, input) -> state, and what else depends on the state alone.

Three kinds of link:

    replication, dialling    DIAL  -> DIAL_PROPOSED -> READY
    one-shot, dialling       ASK   -> ASK_PROPOSED  -> ASKED -> CLOSED
    accepting                LISTEN -> CONFIRMED -> IDENTIFIED -> READY     (accept, reject)
                                                 -> SERVING -> CLOSED      (answer)

`replication.peer` is the machine that follows it.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from replication.messages import MessageType, OwnCode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replication.wire import Limits


class Role(Enum):
    """Who opened the connection."""

    DIALLER = "dialler"
    ACCEPTOR = "acceptor"


class State(Enum):
    """Where a link stands; the value says it in words."""

    DIAL = "before dialling"
    DIAL_PROPOSED = "while waiting for the confirmation"
    ASK = "before asking"
    ASK_PROPOSED = "while waiting for the confirmation of a one-shot link"
    ASKED = "while waiting for the answer"
    LISTEN = "while waiting for a version proposal"
    CONFIRMED = "while waiting for parameters or a request"
    IDENTIFIED = "before the site was accepted or rejected"
    SERVING = "before the request was answered"
    READY = "on a ready link"
    CLOSED = "after the end of the link"


class Input(Enum):
    """What may happen to a link: a frame of each type, or a call of ours."""

    PERMLSN = MessageType.PERMLSN
    HANDSHAKE = MessageType.HANDSHAKE
    REP_MESSAGE = MessageType.REP_MESSAGE
    HEARTBEAT = MessageType.HEARTBEAT
    APP_MESSAGE = MessageType.APP_MESSAGE
    APP_RESPONSE = MessageType.APP_RESPONSE
    RESP_ERROR = MessageType.RESP_ERROR
    OWN = MessageType.OWN
    START = "start"
    ACCEPT = "accept"
    REJECT = "reject"
    ANSWER = "answer"
    SEND = "send"


STATES: Final[dict[tuple[State, Input], State]] = {
    (State.DIAL, Input.START): State.DIAL_PROPOSED,
    (State.DIAL_PROPOSED, Input.HANDSHAKE): State.READY,
    (State.ASK, Input.START): State.ASK_PROPOSED,
    (State.ASK_PROPOSED, Input.HANDSHAKE): State.ASKED,
    (State.ASKED, Input.OWN): State.CLOSED,
    (State.LISTEN, Input.HANDSHAKE): State.CONFIRMED,
    (State.CONFIRMED, Input.HANDSHAKE): State.IDENTIFIED,
    (State.CONFIRMED, Input.OWN): State.SERVING,
    (State.IDENTIFIED, Input.ACCEPT): State.READY,
    (State.IDENTIFIED, Input.REJECT): State.CLOSED,
    (State.SERVING, Input.ANSWER): State.CLOSED,
    (State.READY, Input.REP_MESSAGE): State.READY,
    (State.READY, Input.PERMLSN): State.READY,
    (State.READY, Input.HEARTBEAT): State.READY,
    (State.READY, Input.APP_MESSAGE): State.READY,
    (State.READY, Input.OWN): State.READY,
    (State.READY, Input.SEND): State.READY,
    (State.READY, Input.REJECT): State.CLOSED,
}
"""All that is allowed.  Besides: end of stream, an error of the other side, CONNECT_REJECT on a
ready link and `close` end in CLOSED from any state."""

ANSWERS: Final[dict[OwnCode, frozenset[OwnCode]]] = {
    OwnCode.JOIN_REQUEST: frozenset({OwnCode.JOIN_SUCCESS, OwnCode.GM_FORWARD, OwnCode.GM_FAILURE}),
    OwnCode.REMOVE_REQUEST: frozenset(
        {OwnCode.REMOVE_SUCCESS, OwnCode.GM_FORWARD, OwnCode.GM_FAILURE}
    ),
    OwnCode.SITE_QUERY: frozenset({OwnCode.SITE_STANDING}),
    OwnCode.INVITE: frozenset({OwnCode.SITE_STANDING}),
}
"""The one-shot requests and what may answer each."""

END_REASONS: Final[Mapping[State, str]] = MappingProxyType(
    {
        State.DIAL_PROPOSED: "it is no replication site, or speaks no protocol 4",
        State.ASK_PROPOSED: "it is no replication site, or speaks no protocol 4",
        State.ASKED: "it could not serve the request",
        State.LISTEN: "the port was only probed",
        State.CONFIRMED: "it refused our parameters or gave up",
        State.IDENTIFIED: "it gave up before it was accepted",
        State.SERVING: "it did not wait for the answer",
        State.READY: "it stopped, or replaced this link by another",
    }
)
"""What the end of the stream most likely means, by the state it came in."""

STRANGER_OWN_BYTES_MAX: Final = 1024
"""A one-shot request is one site record: who is not known yet gets no more room than that."""

SHELL_DECIDES: Final = frozenset({State.IDENTIFIED, State.SERVING})
"""States in which nothing is read until the shell calls accept, reject or answer."""


def limits_in(state: State, limits: Limits) -> Limits:
    """Return what a state accepts: the frame types the table names, and little from strangers."""
    types = frozenset(
        int(what.value)
        for at, what in STATES
        if at is state and isinstance(what.value, MessageType)
    )
    own_bytes_max = limits.own_bytes_max
    if state is State.CONFIRMED:
        own_bytes_max = min(own_bytes_max, STRANGER_OWN_BYTES_MAX)
    return replace(limits, types=types, own_bytes_max=own_bytes_max, where=state.value)
