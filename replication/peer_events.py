"""What a link's machine tells its shell (see `replication.peer`).

    when                          event
    a site said who it is         SiteIdentified
    a one-shot request came       RequestReceived
    our one-shot request ended    Joined  Removed  Forwarded  RequestFailed  RequestUnsupported
                                  StandingReceived
    on a ready link               Frame (a replication message)  Ack  Heartbeat
                                  ParametersChanged  MembershipShared  Rejected  AppRequest
    between ttserver sites        StandingAsked  StandingReceived  StableLsn  HandoverSaid
                                  Generations  RoundAsked  RoundAnswered  OwnMessage
    last event of a link          LinkFailed  LinkEnded  Rejected, or the end of a one-shot request

Events are values: equal when their facts are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from replication.messages import OwnCode, ParamFlag
from replication.wire import LSN, Frame

if TYPE_CHECKING:
    from replication.bodies import HandoverWord, MembershipList, SiteAddress, SiteRecord, Standing
    from replication.errors import RemoteProtocolError
    from replication.generations import Beginning

RepMessage: TypeAlias = Frame
"""A replication message is passed on as the frame it came in: `control` and `rec`."""


@dataclass(frozen=True, slots=True)
class SiteIdentified:
    """The other side said who it is.  An acceptor's link waits for accept() or reject().

    Args:
        address: its identity.
        ack_policy: its policy, which tells whether it wants acks when it is master.
        flags: ParamFlag bits.
        priority: as far as it said it: only a dialler does.
    """

    address: SiteAddress
    ack_policy: int
    flags: int
    priority: int | None = None

    @property
    def electable(self) -> bool:
        """Whether its priority is above 0."""
        return bool(self.flags & ParamFlag.ELECTABLE)

    @property
    def native(self) -> bool:
        """Whether it is no ttserver site and must not get OWN codes from 0x100."""
        return not self.flags & ParamFlag.TTSERVER_SITE

    @property
    def subordinate(self) -> bool:
        """Whether this is an extra link: read from it, send acks on it, nothing else."""
        return bool(self.flags & ParamFlag.SUBORDINATE)

    @property
    def app_channel(self) -> bool:
        """Whether this link carries application messages only."""
        return bool(self.flags & ParamFlag.APP_CHANNEL)


@dataclass(frozen=True, slots=True)
class RequestReceived:
    """A one-shot request came (`link_states.ANSWERS` has them all).  answer() it."""

    code: OwnCode
    site: SiteRecord


@dataclass(frozen=True, slots=True)
class Joined:
    """JOIN_REQUEST was granted."""

    sites: MembershipList


@dataclass(frozen=True, slots=True)
class Removed:
    """REMOVE_REQUEST was done, or the site was no member."""


@dataclass(frozen=True, slots=True)
class Forwarded:
    """The request must go to that site, if its generation is above the last one followed."""

    address: SiteAddress
    generation: int


@dataclass(frozen=True, slots=True)
class RequestFailed:
    """The site asked can't do it now: it knows no master, or the change was not acknowledged."""


@dataclass(frozen=True, slots=True)
class RequestUnsupported:
    """The site asked is a native one, which knows no such request; nothing was sent."""

    code: OwnCode


@dataclass(frozen=True, slots=True)
class Ack:
    """The other site holds everything up to `lsn` of that generation."""

    generation: int
    lsn: LSN


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The master lives; its last permanent LSN shows whether something is missing here."""

    generation: int
    lsn: LSN


@dataclass(frozen=True, slots=True)
class ParametersChanged:
    """The other site's ack policy or electability changed."""

    ack_policy: int
    electable: bool


@dataclass(frozen=True, slots=True)
class MembershipShared:
    """A site list came; adopt it if it is newer."""

    sites: MembershipList


@dataclass(frozen=True, slots=True)
class Rejected:
    """The other site does not take us for a member; the link is closed.

    If (generation, version) is newer than our site list we were removed, else we come back later.
    """

    version: int
    generation: int


@dataclass(frozen=True, slots=True)
class StandingAsked:
    """A ttserver site wants to know what this one holds: send_own(SITE_STANDING, ...)."""

    site: SiteRecord


@dataclass(frozen=True, slots=True)
class StandingReceived:
    """What the other ttserver site holds."""

    standing: Standing


@dataclass(frozen=True, slots=True)
class StableLsn:
    """Everything up to `lsn` was answered OK by the master of that generation."""

    generation: int
    lsn: LSN


@dataclass(frozen=True, slots=True)
class HandoverSaid:
    """A word about handing the master's role over; `code` says which."""

    code: int
    word: HandoverWord


@dataclass(frozen=True, slots=True)
class Generations:
    """Where the generations of the master's log begin, and what was kept of the one before."""

    beginnings: tuple[Beginning, ...]


@dataclass(frozen=True, slots=True)
class RoundAsked:
    """A master asks whether it is followed, and not to call an election for `lease_s`."""

    generation: int
    number: int
    lease_s: float


@dataclass(frozen=True, slots=True)
class RoundAnswered:
    """A site follows this master, and gave its word."""

    generation: int
    number: int


@dataclass(frozen=True, slots=True)
class OwnMessage:
    """An OWN message of a later ttserver, unknown here; to be ignored."""

    code: int
    body: bytes


@dataclass(frozen=True, slots=True)
class AppRequest:
    """An application message came; no channels are served, a request was answered so."""

    tag: int
    refused: bool


@dataclass(frozen=True, slots=True)
class LinkFailed:
    """The other side broke the protocol; the link is closed."""

    error: RemoteProtocolError


@dataclass(frozen=True, slots=True)
class LinkEnded:
    """The other side ended the stream.

    Args:
        where: the state it ended in, in words (`State.value`).
        partial_bytes: how much of an incomplete frame had come.
        reason: what that most likely means, for the journal.
    """

    where: str
    partial_bytes: int
    reason: str


Event: TypeAlias = (
    Frame
    | Ack
    | Heartbeat
    | SiteIdentified
    | RequestReceived
    | Joined
    | Removed
    | Forwarded
    | RequestFailed
    | RequestUnsupported
    | ParametersChanged
    | MembershipShared
    | Rejected
    | StandingAsked
    | StandingReceived
    | StableLsn
    | HandoverSaid
    | Generations
    | RoundAsked
    | RoundAnswered
    | OwnMessage
    | AppRequest
    | LinkFailed
    | LinkEnded
)
