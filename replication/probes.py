"""One round of asking every other site what it holds (no I/O)."""

from collections.abc import Iterable

from replication import effects
from replication.bodies import SiteAddress
from replication.coldstart import Answer
from replication.effects import Outbox


class Probes:
    """Asks, and collects the answers until all are there.

    Args:
        timeout_s: how long one site may take.
        out: where effects go.
    """

    def __init__(self, timeout_s: float, out: Outbox) -> None:
        self._timeout_s = timeout_s
        self._out = out
        self._awaited: set[SiteAddress] = set()
        self._answers: dict[SiteAddress, Answer] = {}

    def begin(self, addresses: Iterable[SiteAddress]) -> None:
        """Ask these sites; answers of an earlier round are forgotten."""
        self._answers.clear()
        self._awaited = set(addresses)
        for address in sorted(self._awaited):
            self._out.do(effects.Probe(address, self._timeout_s))

    def done(self, answer: Answer) -> None:
        """One site answered, or did not."""
        self._answers[answer.address] = answer
        self._awaited.discard(answer.address)

    @property
    def complete(self) -> bool:
        """Nobody is waited for."""
        return not self._awaited

    @property
    def answers(self) -> list[Answer]:
        """What was answered so far."""
        return list(self._answers.values())

    def native(self) -> SiteAddress | None:
        """A native site that answered, if there is one."""
        return next((answer.address for answer in self.answers if answer.native), None)
