"""What the manager's core wants done: plain values, executed in order by the asyncio shell.

The core decides and never acts, so that a simulation can run many of them under one clock.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from replication.bodies import SiteAddress
from replication.membership import Membership
from replication.memory import Memory
from replication.wire import LSN

if TYPE_CHECKING:
    from replication.handover import Ended


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask a site what it holds (one-shot); answer with `Core.probe_done`."""

    address: SiteAddress
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Join:
    """Ask a site to take this one into the group (one-shot); answer with `joined`,
    `join_forwarded` or `join_failed`."""

    address: SiteAddress


@dataclass(frozen=True, slots=True)
class Dial:
    """Open a link; answer with `link_ready` or `dial_failed`."""

    address: SiteAddress


@dataclass(frozen=True, slots=True)
class CloseLink:
    """Close a link; `link_closed` follows."""

    link: int
    reason: str


@dataclass(frozen=True, slots=True)
class RejectLink:
    """Tell the site there that it is no member, then close the link; `link_closed` follows."""

    link: int


@dataclass(frozen=True, slots=True)
class ReleaseLink:
    """Messages of this link may go to the library from now on (they were held until then)."""

    link: int


@dataclass(frozen=True, slots=True)
class SendOwn:
    """Send an OWN message on a link."""

    link: int
    code: int
    body: bytes


@dataclass(frozen=True, slots=True)
class SendStanding:
    """Send SITE_STANDING with what this site holds now on a link."""

    link: int


@dataclass(frozen=True, slots=True)
class SendHeartbeat:
    """Send a heartbeat with the last permanent LSN on one link; None: to every site."""

    link: int | None = None


@dataclass(frozen=True, slots=True)
class SendRound:
    """Ask every ttserver site whether it follows this master; see `replication.contact`."""

    number: int
    lease_s: float


@dataclass(frozen=True, slots=True)
class StartClient:
    """Call the library's rep_start as a client; a repeat looks for the master."""


@dataclass(frozen=True, slots=True)
class AskAgain:
    """Have the library ask its master for what it misses; nothing to answer."""


@dataclass(frozen=True, slots=True)
class SyncNow:
    """Have the library begin the sync that it delays, if it does; nothing to answer."""


@dataclass(frozen=True, slots=True)
class StartMaster:
    """Become master with a generation above this one.

    Answer with `became_master` or `takeover_failed`.

    Args:
        holding: first apply all that was received, and fail unless the log reaches this LSN.
    """

    generation_above: int = 0
    holding: LSN | None = None


@dataclass(frozen=True, slots=True)
class AnnounceMaster:
    """As master, say again that this site is one; nothing to answer."""


@dataclass(frozen=True, slots=True)
class Elect:
    """Hold the log (`replication.hold`), then an election; answer with `election_over`.

    Args:
        timeout_s: longest wait for votes.
        counted_s: how long a vote may be counted elsewhere after this call.
    """

    nsites: int
    nvotes: int
    timeout_s: float
    counted_s: float


@dataclass(frozen=True, slots=True)
class LoadMembership:
    """Read the membership database; answer with `membership_loaded`."""


@dataclass(frozen=True, slots=True)
class ChangeMembership:
    """Commit these site lists one after the other; answer with `membership_changed`.

    Args:
        steps: each the next version of the one before.
        request: who asked for it.
        forced: do not wait until enough other sites have the first step.
    """

    steps: tuple[Membership, ...]
    request: int | None = None
    forced: bool = False


@dataclass(frozen=True, slots=True)
class PrepareHandover:
    """Begin no checkpoint any more and wait until the site is nearly in step.

    Answer with `Handover.prepared` or `failed`.
    """

    eid: int
    timeout_s: float


@dataclass(frozen=True, slots=True)
class HoldWrites:
    """Begin no write any more and wait until the site has acknowledged the last one.

    Answer with `Handover.in_step` or `failed`.
    """

    eid: int
    timeout_s: float


@dataclass(frozen=True, slots=True)
class StepDown:
    """Make the library a client again; answer with `Handover.stepped_down` or `failed`."""


@dataclass(frozen=True, slots=True)
class ReleaseWrites:
    """Writes and checkpoints may begin again."""


@dataclass(frozen=True, slots=True)
class HandoverEnded:
    """Tell whoever asked for a handover how it went."""

    ended: "Ended"


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer a request of another site, or of the operator here.

    Args:
        reason: why it failed; only the operator gets it, the wire has no room for it.
    """

    request: int
    code: int
    body: bytes = b""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """Write a line into the journal."""

    event: str
    facts: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SaveMemory:
    """Keep this beside the environment."""

    memory: Memory


@dataclass(frozen=True, slots=True)
class RoleChanged:
    """The role, the master or the generation is another one now."""


Effect: TypeAlias = (
    Probe
    | Join
    | Dial
    | CloseLink
    | RejectLink
    | ReleaseLink
    | SendOwn
    | SendStanding
    | SendHeartbeat
    | SendRound
    | StartClient
    | AskAgain
    | SyncNow
    | StartMaster
    | AnnounceMaster
    | Elect
    | LoadMembership
    | ChangeMembership
    | PrepareHandover
    | HoldWrites
    | StepDown
    | ReleaseWrites
    | HandoverEnded
    | Answer
    | Note
    | SaveMemory
    | RoleChanged
)


class Outbox:
    """Collects effects, in order, until the shell takes them."""

    def __init__(self) -> None:
        self._effects: list[Effect] = []

    def do(self, effect: Effect) -> None:
        """Add an effect."""
        self._effects.append(effect)

    def note(self, event: str, **facts: object) -> None:
        """Add a line for the journal."""
        self.do(Note(event, facts))

    def take(self) -> list[Effect]:
        """Return what is to be done, in order, and forget it."""
        pending, self._effects = self._effects, []
        return pending
