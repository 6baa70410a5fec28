"""Does what the core decided: turns its effects into journal lines, frames, tasks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from replication import bodies, effects, wire
from replication.bodies import Standing
from replication.bridge import Bridge
from replication.core import Core
from replication.handover_work import HandoverWork
from replication.hub import Hub
from replication.journal import Journal
from replication.library_work import LibraryWork
from replication.membership_work import MembershipWork
from replication.memory import Memory
from replication.messages import OwnCode
from replication.outreach import Outreach
from replication.requests import Requests
from replication.tasks import Tasks
from replication.wire import LSN

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Means:
    """What effects are done with."""

    hub: Hub
    bridge: Bridge
    journal: Journal
    outreach: Outreach
    library: LibraryWork
    membership: MembershipWork
    handover: HandoverWork
    tasks: Tasks
    standing: Callable[[], Standing]
    save_memory: Callable[[Memory], None]


class Performer:
    """See the module's text.

    Args:
        core: whose effects are done.
        means: what with.
        on_changed: called after effects that changed roles or links.
    """

    def __init__(self, core: Core, means: Means, on_changed: Callable[[], None]) -> None:
        self._core = core
        self._means = means
        self._on_changed = on_changed
        self.requests = Requests()
        self._after: list[Callable[[], None]] = []
        self._running = False

    def run(self) -> None:
        """Do everything decided so far; what is decided meanwhile is done after it, in order."""
        if self._running:
            return  # called back from something done below, which goes on
        self._running = True
        try:
            while pending := self._core.take():
                changed = False
                for effect in pending:
                    changed = self._try(effect) or changed
                if changed:
                    self._on_changed()
                after, self._after = self._after, []
                for call in after:
                    call()
        finally:
            self._running = False

    def _try(self, effect: effects.Effect) -> bool:
        try:
            return self._do(effect)
        except Exception as error:  # noqa: BLE001 - those behind it must still be done
            self._means.tasks.report(error)
            return False

    def _do(self, effect: effects.Effect) -> bool:
        """Do one thing; True when roles or links changed."""
        match effect:
            case effects.RoleChanged():
                return True
            case effects.ReleaseLink(number):
                self._release(number)
                return True
            case effects.Note(event, facts):
                self._means.journal.write(event, **facts, **self._own_facts(event))
                log.info("replication %s %s", event, facts)
            case effects.SaveMemory(kept):
                self._means.save_memory(kept)
            case effects.Probe() | effects.Join() | effects.Dial():
                self._reach_out(effect)
            case (
                effects.CloseLink()
                | effects.RejectLink()
                | effects.SendOwn()
                | effects.SendStanding()
                | effects.SendHeartbeat()
                | effects.SendRound()
                | effects.Answer()
            ):
                self._do_on_link(effect)
            case (
                effects.PrepareHandover()
                | effects.HoldWrites()
                | effects.StepDown()
                | effects.ReleaseWrites()
                | effects.HandoverEnded()
            ):
                self._hand_over(effect)
            case _:
                self._do_in_library(effect)
        return False

    def _own_facts(self, event: str) -> dict[str, object]:
        """What the journal says of this site beside some events, and the core does not."""
        match event:
            case "election_called":
                return {"priority": self._core.settings.priority, "lsn": self._lsn()}
            case "election_won" | "became_master" | "new_master":
                return {"lsn": self._lsn()}
            case "master_lost":
                return {"generation": self._core.generation, "lsn": self._lsn()}
            case _:
                return {}

    def _lsn(self) -> LSN:
        return self._means.standing().last_lsn

    def _reach_out(self, effect: effects.Probe | effects.Join | effects.Dial) -> None:
        outreach, spawn = self._means.outreach, self._means.tasks.spawn
        match effect:
            case effects.Probe(address, timeout_s):
                spawn(outreach.probe(address, timeout_s))
            case effects.Join(address):
                spawn(outreach.join(address))
            case effects.Dial(address):
                spawn(outreach.dial(address))

    def _do_on_link(
        self,
        effect: effects.CloseLink
        | effects.RejectLink
        | effects.SendOwn
        | effects.SendStanding
        | effects.SendHeartbeat
        | effects.SendRound
        | effects.Answer,
    ) -> None:
        match effect:
            case effects.CloseLink(number, reason):
                if (link := self._means.hub.link(number)) is not None:
                    link.close(reason)
            case effects.RejectLink(number):
                if (link := self._means.hub.link(number)) is not None and link.peer.ready:
                    link.peer.reject(*self._core.group.rejection)
                    link.send_machine_output()
            case effects.SendOwn(number, code, body):
                self._write(number, wire.encode_own(code, body))
            case effects.SendStanding(number):
                body = bodies.encode_standing(self._means.standing())
                self._write(number, wire.encode_own(OwnCode.SITE_STANDING, body))
            case effects.SendRound(number, lease_s):
                body = bodies.encode_round(self._core.generation, number, lease_s)
                self._means.hub.tell(wire.encode_own(OwnCode.ROUND, body))
            case effects.SendHeartbeat(number):
                bridge = self._means.bridge
                frame = wire.encode_heartbeat(self._core.generation, bridge.last_permanent)
                if number is None:
                    bridge.broadcast(frame)
                else:
                    self._write(number, frame)
            case effects.Answer(request, code, body, reason):
                self.requests.answer(request, OwnCode(code), body, reason)

    def _hand_over(
        self,
        effect: effects.PrepareHandover
        | effects.HoldWrites
        | effects.StepDown
        | effects.ReleaseWrites
        | effects.HandoverEnded,
    ) -> None:
        work, spawn = self._means.handover, self._means.tasks.spawn
        match effect:
            case effects.PrepareHandover(eid, timeout_s):
                spawn(work.prepare(eid, timeout_s))
            case effects.HoldWrites(eid, timeout_s):
                spawn(work.hold_writes(eid, timeout_s))
            case effects.StepDown():
                spawn(work.step_down())
            case effects.ReleaseWrites():
                # Behind the news of the role, which comes when all effects are done.
                self._after.append(work.release)
            case effects.HandoverEnded(ended):
                self._after.append(lambda: work.end(ended))

    def _do_in_library(
        self,
        effect: effects.StartClient
        | effects.AskAgain
        | effects.SyncNow
        | effects.StartMaster
        | effects.AnnounceMaster
        | effects.Elect
        | effects.LoadMembership
        | effects.ChangeMembership,
    ) -> None:
        library, spawn = self._means.library, self._means.tasks.spawn
        match effect:
            case effects.StartClient():
                spawn(library.start_client())
            case effects.AskAgain():
                spawn(library.ask_again())
            case effects.SyncNow():
                spawn(library.sync_now())
            case effects.StartMaster(generation_above, holding):
                spawn(library.start_master(generation_above, holding))
            case effects.AnnounceMaster():
                spawn(library.announce_master())
            case effects.Elect():
                spawn(library.elect(effect))
            case effects.LoadMembership():
                spawn(self._means.membership.load())
            case effects.ChangeMembership(steps, request, forced):
                spawn(self._means.membership.change(steps, request, forced=forced))

    def _write(self, number: int, frame: bytes) -> None:
        if (link := self._means.hub.link(number)) is not None:
            link.write(frame)

    def _release(self, number: int) -> None:
        link = self._means.hub.link(number)
        state = self._core.sites.links.get(number)
        if link is not None and state is not None:
            link.eid = state.site.eid
            self._means.hub.release(link)
