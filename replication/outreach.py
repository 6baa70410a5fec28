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


class Outreach:
    """Each method ends by telling the core what came of it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, hub: Hub, core: Core) -> None:
        self._loop = loop
        self._hub = hub
        self._core = core

    async def probe(self, address: SiteAddress, timeout_s: float) -> None:
        """Ask a site what it holds. *Cancellation:* closes the connection."""
        try:
            event = await self._hub.ask(address, OwnCode.SITE_QUERY, timeout_s)
        except ReplicationError as error:
            answer = coldstart.Answer(address, reason=str(error))
        else:
            match event:
                case StandingReceived(standing):
                    answer = coldstart.Answer(address, standing)
                case RequestUnsupported():
                    answer = coldstart.Answer(address, native=True, reason="a native site")
                case _:
                    answer = coldstart.Answer(address, reason="it gave no answer")
        self._core.probe_done(self._loop.time(), answer)

    async def join(self, address: SiteAddress) -> None:
        """Ask a site to take this one into the group. *Cancellation:* closes the connection."""
        try:
            event = await self._hub.ask(address, OwnCode.JOIN_REQUEST, JOIN_TIMEOUT_S)
        except ReplicationError as error:
            self._core.join_failed(self._loop.time(), str(error))
            return
        match event:
            case Joined(sites):
                self._core.joined(self._loop.time(), Membership.from_list(sites))
            case Forwarded(to, generation):
                self._core.join_forwarded(self._loop.time(), to, generation)
            case _:
                self._core.join_failed(self._loop.time(), f"{address} is not master and knows none")

    async def dial(self, address: SiteAddress) -> None:
        """Open a link. *Cancellation:* closes it."""
        try:
            await self._hub.dial(address)
        except ReplicationError as error:
            self._core.dial_failed(self._loop.time(), address, str(error))
