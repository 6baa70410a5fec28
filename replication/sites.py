"""The other sites of the group and the links to them, as far as decisions need it (no I/O)."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf

from replication.bodies import SiteAddress, Standing

DIAL_PAUSE_FIRST_S = 0.1
FIRST_EID = 2  # this site is 1


@dataclass(slots=True, eq=False)
class LinkState:
    """One connection to a site, as far as decisions need it.

    Args:
        released: its messages may go to the library.
        since_s: when it was ready.
        monitored: the generation of the last heartbeat that came on it, 0 for none; a master that
            sent one is lost when it is silent.
    """

    number: int
    site: "SiteState"
    outgoing: bool
    native: bool
    subordinate: bool
    released: bool = False
    since_s: float = 0.0
    heard_s: float = 0.0
    bytes_in: int = 0
    monitored: int = 0


@dataclass(slots=True, eq=False)
class SiteState:
    """Another site of the group.

    Args:
        dialling: a dial is under way.
        standing: what it last said it holds; None for a native site or one never heard.
        heard_s: when anything last came from it, None for never.
        contact_s: the same, as far as it is certain that it was sent just before.
        answered_s: when the last round that it answered was sent; see `replication.contact`.
        last_error: why the last attempt to reach it failed, empty when it did not.
    """

    address: SiteAddress
    eid: int
    links: list[LinkState] = field(default_factory=list)
    dialling: bool = False
    next_dial_s: float = 0.0
    dial_pause_s: float = DIAL_PAUSE_FIRST_S
    electable: bool = False
    native: bool = False
    standing: Standing | None = None
    heard_s: float | None = None
    contact_s: float = -inf
    answered_s: float = -inf
    last_error: str = ""

    @property
    def link(self) -> LinkState | None:
        """The connection messages go out on: the first that was released."""
        for link in self.links:
            if link.released and not link.subordinate:
                return link
        return None


class Sites:
    """Every other site ever heard of, by address and by EID, and all links by number.

    An EID stays with its site for the life of the environment, as the library wants it.
    """

    def __init__(self) -> None:
        self.links: dict[int, LinkState] = {}
        self._by_address: dict[SiteAddress, SiteState] = {}
        self._by_eid: dict[int, SiteState] = {}

    def values(self) -> Iterable[SiteState]:
        """All sites."""
        return self._by_address.values()

    def get(self, address: SiteAddress | None) -> SiteState | None:
        """A site, None for one never heard of."""
        return None if address is None else self._by_address.get(address)

    def by_eid(self, eid: int) -> SiteState | None:
        """A site by the number the library knows it by."""
        return self._by_eid.get(eid)

    def site(self, address: SiteAddress) -> SiteState:
        """A site; a new one gets the next EID."""
        state = self._by_address.get(address)
        if state is None:
            state = SiteState(address, FIRST_EID + len(self._by_address))
            self._by_address[address] = self._by_eid[state.eid] = state
        return state

    def connected(self) -> int:
        """How many sites messages can go to."""
        return sum(1 for state in self.values() if state.link is not None)
