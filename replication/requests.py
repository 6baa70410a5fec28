"""Who asked the manager for something and waits for its answer: another site, or the operator."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass

from replication.link import Link
from replication.messages import OwnCode


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer to a request that was made here.

    Args:
        code: what another site would be answered.
        reason: why it failed, empty when it did not.
    """

    code: OwnCode
    reason: str = ""


class Requests:
    """Requests under way, by number."""

    def __init__(self) -> None:
        self._links: dict[int, Link] = {}
        self._here: dict[int, asyncio.Future[Outcome]] = {}
        self._numbers = itertools.count(-1, -1)  # links have those above 0

    def of_link(self, link: Link) -> int:
        """Keep a one-shot link until its answer; returns the request's number."""
        self._links[link.number] = link
        return link.number

    def here(self) -> tuple[int, asyncio.Future[Outcome]]:
        """Begin a request of the operator here; returns its number and what will be answered."""
        number = next(self._numbers)
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._here[number] = answer
        return number, answer

    def answer(self, number: int, code: OwnCode, body: bytes, reason: str) -> None:
        """Answer a request; one whose asker is gone needs none."""
        here = self._here.pop(number, None)
        if here is not None:
            if not here.done():
                here.set_result(Outcome(code, reason))
            return
        link = self._links.pop(number, None)
        if link is not None and not link.is_closed:
            link.peer.answer(code, body)
            link.send_machine_output()
