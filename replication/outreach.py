"""Asking and dialling other sites: the core's Probe, Join and Dial, done over the hub."""

from __future__ import annotations

import asyncio

from replication import coldstart
from replication.bodies import SiteAddress
from replication.core import Core
from replication.errors import ReplicationError
from replication.hub import Hub
from replication.membership import Membership
from replication.messages import OwnCode
from replication.peer_events import Forwarded, Joined, RequestUnsupported, StandingReceived

JOIN_TIMEOUT_S = 10.0
BUG = "the attempt failed; the log of this site says why"


class Outreach:
    """Each method ends by telling the core what came of it, whatever that was."""

    def __init__(self, loop: asyncio.AbstractEventLoop, hub: Hub, core: Core) -> None:
        self._loop = loop
        self._hub = hub
        self._core = core

    async def probe(self, address: SiteAddress, timeout_s: float) -> None:
        """Ask a site what it holds. *Cancellation:* closes the connection."""
        answer = coldstart.Answer(address, reason=BUG)
        try:
            event = await self._hub.ask(address, OwnCode.SITE_QUERY, timeout_s)
            match event:
                case StandingReceived(standing):
                    answer = coldstart.Answer(address, standing)
                case RequestUnsupported():
                    answer = coldstart.Answer(address, native=True, reason="a native site")
                case _:
                    answer = coldstart.Answer(address, reason="it gave no answer")
        except ReplicationError as error:
            answer = coldstart.Answer(address, reason=str(error))
        finally:
            self._core.probe_done(self._loop.time(), answer)

    async def join(self, address: SiteAddress) -> None:
        """Ask a site to take this one into the group. *Cancellation:* closes the connection."""
        failure: str | None = BUG
        try:
            event = await self._hub.ask(address, OwnCode.JOIN_REQUEST, JOIN_TIMEOUT_S)
            match event:
                case Joined(sites):
                    self._core.belonging.joined(self._loop.time(), Membership.from_list(sites))
                    failure = None
                case Forwarded(to, generation):
                    self._core.belonging.forwarded(self._loop.time(), to, generation)
                    failure = None
                case _:
                    failure = f"{address} is not master and knows none"
        except ReplicationError as error:
            failure = str(error)
        finally:
            if failure is not None:
                self._core.belonging.failed(self._loop.time(), failure)

    async def dial(self, address: SiteAddress) -> None:
        """Open a link. *Cancellation:* closes it."""
        failure: str | None = BUG
        try:
            await self._hub.dial(address)
            failure = None
        except ReplicationError as error:
            failure = str(error)
        finally:
            if failure is not None:
                self._core.dial_failed(self._loop.time(), address, failure)
