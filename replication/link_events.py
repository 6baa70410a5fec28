"""What other sites say on their links, passed on to the core and the apply thread."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from replication import bodies, wire
from replication.apply import Applier
from replication.bodies import MembershipList, Standing
from replication.confirmations import Confirmations
from replication.core import Core
from replication.errors import RemoteProtocolError
from replication.generations import History
from replication.hub import Hub, later
from replication.journal import Journal
from replication.link import Link
from replication.membership import Membership
from replication.messages import PROTOCOL_VERSION, OwnCode
from replication.peer_events import (
    Ack,
    AppRequest,
    Event,
    Generations,
    HandoverSaid,
    Heartbeat,
    MembershipShared,
    OwnMessage,
    ParametersChanged,
    Rejected,
    RequestReceived,
    RoundAnswered,
    RoundAsked,
    SiteIdentified,
    StableLsn,
    StandingAsked,
    StandingReceived,
)
from replication.performer import Performer
from replication.wire import LSN, Frame

log = logging.getLogger(__name__)

TELL_EVERY_S: Final = 1.0
TELL_BURST: Final = 100
_REFUSALS = {"version_unsupported": "version_refused", "not_a_member": "member_refused"}

HearsOwn = Callable[[Link, int, bytes], None]


class LinkEvents:
    """The hub's handler; everything is called in the event loop.

    Args:
        on_acked: told (eid, LSN) when a site got further. *Thread:* any.
        on_wiped: told the EID of a site that no longer has what it acknowledged.
        on_generations: told where a master's generations begin.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        core: Core,
        confirmations: Confirmations,
        applier: Applier,
        journal: Journal,
        standing: Callable[[], Standing],
        on_acked: Callable[[int, LSN], None],
        on_wiped: Callable[[int], None],
        on_generations: Callable[[History], None],
    ) -> None:
        self._loop = loop
        self._core = core
        self._confirmations = confirmations
        self._table = confirmations.table
        self._applier = applier
        self._journal = journal
        self._standing = standing
        self._on_acked = on_acked
        self._on_wiped = on_wiped
        self._on_generations = on_generations
        self._hub: Hub
        self._own: Mapping[int, HearsOwn] = {}
        self._performer: Performer
        self._stopping = False
        self._early: dict[int, tuple[int, LSN]] = {}

    def attach(self, hub: Hub, performer: Performer, own: Mapping[int, HearsOwn]) -> None:
        """Give it the parts that are made after it.

        Args:
            own: who hears the messages of ttserver sites among themselves, by their codes.
        """
        self._hub = hub
        self._own = own
        self._performer = performer

    def stop(self) -> None:
        """Links that close from now on mean nothing."""
        self._stopping = True

    # -- the hub's handler ---------------------------------------------------------------------

    def admits(self, site: SiteIdentified) -> bool:
        """Whether the site that dialled in is a member."""
        return self._core.group.is_present(site.address)

    def rejection(self) -> tuple[int, int]:
        """What a site is told that is no member."""
        return self._core.group.rejection

    def ready(self, link: Link, site: SiteIdentified, *, outgoing: bool) -> None:
        """A link finished its handshake."""
        if site.app_channel:
            return  # it replicates nothing: the core would take it for a better link to that site
        if not outgoing:
            self._journal.write("connection_accepted", from_=link.remote_name)
        self._journal.write("version_agreed", site=site.address, version=PROTOCOL_VERSION)
        self._core.link_ready(
            self._loop.time(),
            link.number,
            site.address,
            outgoing=outgoing,
            native=site.native,
            electable=site.electable,
            subordinate=site.subordinate,
            priority=site.priority,
        )
        if self._core.group.is_present(site.address):
            version, _generation = self._core.group.rejection
            self._journal.write(
                "member_confirmed",
                site=site.address,
                members=len(self._core.members()) + 1,
                version=version,
            )
        self._performer.run()

    def frames(self, link: Link, frames: Sequence[Frame], size: int) -> None:
        """Replication messages of a released link."""
        if not (self._core.client_started or self._core.is_master):
            return  # the library takes none before it has a role; they are asked for again
        if self._applier.put(link.eid, frames, size):
            for each in self._hub.links():
                each.pause_reading()

    def idle(self, link: Link) -> None:
        """What a replicant hears of its master goes straight to the apply thread."""
        if self._may_lend(link):
            self._applier.lend(link)

    def _may_lend(self, link: Link) -> bool:
        core = self._core
        master = core.master_link
        return (
            master is not None
            and master.number == link.number
            and core.client_started
            and not core.syncing
        )

    def take_back(self) -> None:
        """Roles or links changed: read again what the apply thread is not to read."""
        for link in self._hub.links():
            if link.is_lent() and not self._may_lend(link):
                self._applier.take_back(link)

    def tick(self) -> None:
        """While the apply thread is held up, the loop hears what else a master says."""
        if self._applier.is_stuck:
            for link in self._hub.links():
                self._applier.take_back(link)

    def request(self, link: Link, request: RequestReceived) -> None:
        """A one-shot request."""
        match request.code:
            case OwnCode.SITE_QUERY:
                link.peer.answer(OwnCode.SITE_STANDING, bodies.encode_standing(self._standing()))
            case OwnCode.JOIN_REQUEST:
                number = self._performer.requests.of_link(link)
                self._core.requests.join(number, request.site.address)
                self._performer.run()
            case OwnCode.REMOVE_REQUEST:
                number = self._performer.requests.of_link(link)
                self._core.requests.remove(number, request.site.address)
                self._performer.run()
            case OwnCode.INVITE:
                self._core.belonging.invited(self._loop.time(), request.site.address)
                link.peer.answer(OwnCode.SITE_STANDING, bodies.encode_standing(self._standing()))
                self._performer.run()
            case _:
                link.peer.answer(OwnCode.GM_FAILURE)

    def closed(self, link: Link, reason: str) -> None:
        """A link that was ready is gone."""
        if not self._stopping:
            self._core.link_closed(self._loop.time(), link.number, reason)
            self._performer.run()

    def refused(self, where: str, reason: str, code: str) -> None:
        """A caller was turned away."""
        if code.startswith("mixup"):
            self._tell_refused("wrong_port", from_=where, spoke=reason)
        elif code in _REFUSALS:
            self._tell_refused(_REFUSALS[code], from_=where, why=reason)
        else:
            self._tell_refused("connection_refused", from_=where, reason=reason)
        log.warning("replication_connection_refused from=%s reason=%s", where, reason)

    def _tell_refused(self, event: str, **facts: object) -> None:
        # Anybody may call as often as he likes: that must not push the rest out of the journal.
        self._journal.write_seldom(event, every_s=TELL_EVERY_S, burst=TELL_BURST, **facts)

    def event(self, link: Link, event: Event) -> None:
        """A ready link said something that is no replication message."""
        now_s = self._loop.time()
        match event:
            case Ack(generation, lsn):
                self._on_ack(link.eid, generation, lsn)
                return
            case StableLsn() | Generations():
                self._on_masters_word(event)
                return
            case Heartbeat(generation, lsn):
                self._core.heartbeat(now_s, link.number, generation, lsn, self._applier.applied)
            case RoundAsked() | RoundAnswered():
                self._on_round(now_s, link, event)
            case StandingReceived(standing):
                self._on_standing(link, standing)
            case StandingAsked():
                body = bodies.encode_standing(self._standing())
                link.write(wire.encode_own(OwnCode.SITE_STANDING, body))
            case ParametersChanged(_, electable):
                self._core.parameters_changed(link.number, electable=electable)
            case _:
                self._on_group_event(now_s, link, event)
        self._performer.run()

    def _on_group_event(self, now_s: float, link: Link, event: Event) -> None:
        """What is said about who belongs to the group and who leads it."""
        match event:
            case MembershipShared(sites):
                self._on_shared(link, sites)
            case Rejected(version, generation):
                state = self._core.sites.links.get(link.number)
                if state is not None:
                    self._core.belonging.rejected(now_s, state.site.address, version, generation)
            case HandoverSaid(code, word):
                self._core.handover.heard(now_s, link.number, code, word)
            case _:
                self._on_other(link, event)

    def _on_other(self, link: Link, event: Event) -> None:
        if isinstance(event, OwnMessage) and (hears := self._own.get(event.code)) is not None:
            hears(link, event.code, event.body)
        elif isinstance(event, AppRequest):
            asked = link.peer.remote.address if link.peer.remote else link.remote_name
            self._tell_refused("channel_refused", site=asked, answered=event.refused)
        else:
            log.info("own_message_ignored from=%s event=%s", link.remote_name, event)

    def _on_masters_word(self, event: StableLsn | Generations) -> None:
        if isinstance(event, Generations):
            self._on_generations(History(event.beginnings))
        elif event.generation == self._core.generation:
            self._core.stable(event.lsn)

    def _on_shared(self, link: Link, sites: MembershipList) -> None:
        try:
            self._core.membership_shared(Membership.from_list(sites))
        except RemoteProtocolError as error:
            link.close(str(error))

    def _on_round(self, now_s: float, link: Link, event: RoundAsked | RoundAnswered) -> None:
        rounds = self._core.rounds
        if isinstance(event, RoundAsked):
            rounds.asked(now_s, link.number, event.generation, event.number, event.lease_s)
        else:
            rounds.answered(link.number, event.generation, event.number)

    def acked(self, link: Link, generation: int, lsn: LSN) -> None:
        """A released link brought an acknowledgement, the most frequent message of all."""
        self._on_ack(link.eid, generation, lsn)

    def _on_ack(self, eid: int, generation: int, lsn: LSN) -> None:
        if not eid:
            return  # its link is not released: it cannot have applied anything of it
        if self._confirmations.acked(eid, generation, lsn):
            self._on_acked(eid, lsn)
        elif generation > self._table.generation:
            self._early[eid] = (generation, lsn)

    def ack_read(self, eid: int, generation: int, lsn: LSN) -> None:
        """A thread that waits for an acknowledgement read one itself. *Thread:* any."""
        if self._confirmations.acked(eid, generation, lsn):
            self._on_acked(eid, lsn)
        else:
            later(self._loop, self._on_ack, eid, generation, lsn)

    def early_ack(self, eid: int) -> tuple[int, LSN] | None:
        """What a site acknowledged last of a later generation than the one here as master."""
        return self._early.get(eid)

    def began_generation(self, generation: int) -> None:
        """This site became master: count what was acknowledged before the library returned."""
        early, self._early = self._early, {}
        for eid, (of_generation, lsn) in early.items():
            if of_generation == generation:
                self._on_ack(eid, generation, lsn)

    def _on_standing(self, link: Link, standing: Standing) -> None:
        state = self._core.sites.links.get(link.number)
        if state is not None:
            self._journal.write(
                "generation_confirmed",
                site=state.site.address,
                generation=standing.generation,
                lsn=standing.last_lsn,
            )
            acked = self._table.acked(state.site.eid)
            if acked is not None and standing.last_lsn < acked:
                self._on_wiped(state.site.eid)
        self._core.standing(self._loop.time(), link.number, standing)
