"""Sites taken into the group and out of it at the operator's word.

Only the master changes the list. On another site the same request goes to the master, the way a
joining site's own does, and so to a native master as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from replication.bodies import SiteAddress
from replication.core import Core
from replication.errors import ReplicationError
from replication.hub import Hub
from replication.messages import OwnCode
from replication.peer_events import (
    Event,
    Forwarded,
    Joined,
    Removed,
    RequestUnsupported,
    StandingReceived,
)
from replication.performer import Performer
from replication.phase import Phase

ANSWER_TIMEOUT_S: Final = 15.0  # two flushed transactions, and the acknowledgements of the first
INVITE_TIMEOUT_S: Final = 3.0
FORWARDS_MAX: Final = 5
LOOK_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Changed:
    """How the group stands after a change.

    Args:
        site: whom it was about.
        members: all sites of the list, whatever their status, as far as this site knows it.
        version: of the list.
        connected: the site can be reached.
        note: what the operator should know besides, empty for nothing.
    """

    site: SiteAddress
    members: int
    version: int
    connected: bool
    note: str = ""


class SiteChanges:
    """See the module's text. Everything runs in the event loop.

    Args:
        core: whom to ask for a change when this site is master.
        hub: other sites are asked through it.
        performer: does what the core decides.
    """

    def __init__(self, core: Core, hub: Hub, performer: Performer) -> None:
        self._core = core
        self._hub = hub
        self._performer = performer

    async def add(self, site: SiteAddress, timeout_s: float, *, forced: bool) -> Changed:
        """Take a site into the group and wait for it.

        Args:
            site: as the others write it; this site itself joins (again).
            timeout_s: how long to wait until it is connected.
            forced: also one that does not answer now.

        Raises:
            ReplicationError: it was not taken in.

        *Cancellation:* the change may still happen.
        """
        core = self._core
        if site == core.settings.local:
            return await self._join_again(timeout_s)
        note = await self._look_at(site, forced=forced)
        await self._change(OwnCode.JOIN_REQUEST, site)
        if not note:
            note = await self._invite(site)
        if not note:
            await self._wait(timeout_s, lambda: self._knows(site) and self._connected(site))
        return self._changed(site, note)

    async def remove(self, site: SiteAddress, *, forced: bool) -> Changed:
        """Take a site out of the group.

        Args:
            site: as `ttserver sites` shows it.
            forced: do not wait until the other sites know it.

        Raises:
            ReplicationError: it is still in.

        *Cancellation:* the change may still happen.
        """
        core = self._core
        known = core.membership is None or core.membership.find(site) is not None
        if forced and not core.is_master:
            raise ReplicationError(
                f"{site} cannot be removed by force here: this site is not master",
                code="not_master",
                hint="run it on the master.",
            )
        await self._change(OwnCode.REMOVE_REQUEST, site, forced=forced)
        await self._wait(ANSWER_TIMEOUT_S, lambda: not self._knows(site))
        return self._changed(site, "" if known else f"{site} was no member")

    # -- the change ----------------------------------------------------------------------------

    async def _change(self, request: OwnCode, site: SiteAddress, *, forced: bool = False) -> None:
        core = self._core
        if not core.is_master:
            await self._ask_master(request, site)
            return
        number, answered = self._performer.requests.here()
        if request is OwnCode.JOIN_REQUEST:
            core.requests.join(number, site)
        else:
            core.requests.remove(number, site, forced=forced)
        self._performer.run()
        try:
            outcome = await asyncio.wait_for(answered, ANSWER_TIMEOUT_S)
        except TimeoutError:
            raise _failed(site, "it was not done in time", "see $DB_Msg.txt.") from None
        if outcome.code not in (OwnCode.JOIN_SUCCESS, OwnCode.REMOVE_SUCCESS):
            hint = "start the sites it names; if they are gone for good: `site remove --force`."
            raise _failed(site, outcome.reason, hint if "acknowledge" in outcome.reason else "")

    async def _ask_master(self, request: OwnCode, site: SiteAddress) -> None:
        """Ask the master, and whomever it names, as long as the generation grows."""
        asked, generation = self._core.master, -1
        for _ in range(FORWARDS_MAX):
            if asked is None:
                raise _failed(site, "no master is known", "see `ttserver status`.")
            answer: Event = await self._hub.ask(asked, request, ANSWER_TIMEOUT_S, site)
            match answer:
                case Joined() | Removed():
                    return
                case Forwarded(to, newer) if newer > generation:
                    asked, generation = to, newer
                case _:
                    break
        raise _failed(site, f"{asked} refused it", f"see $DB_Msg.txt on {asked}, or run it there.")

    async def _look_at(self, site: SiteAddress, *, forced: bool) -> str:
        """See that the site can become a member: one that never comes makes each quorum harder.

        Returns:
            What the operator should know, empty for nothing.

        Raises:
            ReplicationError: it does not answer, or holds the data of another group.
        """
        if self._connected(site):
            return ""
        try:
            answer = await self._hub.ask(site, OwnCode.SITE_QUERY, INVITE_TIMEOUT_S)
        except ReplicationError as error:
            if forced:
                return f"{error}; it counts as a member all the same: start it"
            hint = "start it first; or add it as it is: `site add --force`."
            raise _failed(site, str(error), hint) from error
        mine = self._core.memory.group_id
        if isinstance(answer, RequestUnsupported):
            return "it is a native site: it joins when its own program asks for it"
        if isinstance(answer, StandingReceived) and answer.standing.group_id not in (0, mine):
            theirs = f"{answer.standing.group_id:016x}"
            hint = "run `ttserver wipe` there and remove its var/replication.json, then add it."
            raise _failed(site, f"it belongs to another group ({theirs})", hint)
        return ""

    async def _invite(self, site: SiteAddress) -> str:
        """Tell the site that it is wanted; say why not if it cannot be told."""
        if self._connected(site):
            return ""
        self._core.connections.dial_soon(asyncio.get_running_loop().time(), [site])
        try:
            await self._hub.ask(site, OwnCode.INVITE, INVITE_TIMEOUT_S)
        except ReplicationError as error:
            return f"{error}; it counts as a member all the same: start it"
        return ""

    async def _join_again(self, timeout_s: float) -> Changed:
        core = self._core
        if core.phase not in (Phase.FOLLOWING, Phase.MASTER):
            core.belonging.rejoin(asyncio.get_running_loop().time())
            self._performer.run()
        await self._wait(timeout_s, lambda: core.is_master or core.master_link is not None)
        if not core.is_master and core.master_link is None:
            raise ReplicationError(
                f"this site has not joined the group: {core.why or core.phase.value}",
                code="not_joined",
                hint=core.hint or "see `ttserver status`.",
            )
        return self._changed(core.settings.local, "")

    # -- how it stands -------------------------------------------------------------------------

    def _knows(self, site: SiteAddress) -> bool:
        membership = self._core.membership
        return membership is not None and membership.find(site) is not None

    def _connected(self, site: SiteAddress) -> bool:
        state = self._core.sites.get(site)
        return site == self._core.settings.local or (state is not None and state.link is not None)

    async def _wait(self, timeout_s: float, until: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        while not until() and loop.time() < deadline_s:  # noqa: ASYNC110 - many things change it
            await asyncio.sleep(LOOK_S)

    def _changed(self, site: SiteAddress, note: str) -> Changed:
        members = self._core.membership
        count, version = (members.nsites, members.version) if members is not None else (0, 0)
        return Changed(site, count, version, self._connected(site), note)


def _failed(site: SiteAddress, why: str, hint: str) -> ReplicationError:
    return ReplicationError(
        f"the group stays as it was; {site}: {why}",
        code="membership_change_failed",
        hint=hint or "see `ttserver sites`.",
    )
