"""Handing the master's role over to another site, on purpose and without a vote (no I/O).

    the master                                         the target
    PREPARING    no checkpoint is under way, the
                 target is nearly in step
    HOLDING      no write is begun any more; the
                 target acknowledged the last one
    ASKING       HANDOVER_ASK  --------------------->  follows this master, complete, electable
                 <---------------------  HANDOVER_READY, or HANDOVER_REFUSED with the reason
    LEAVING      the library steps down
    HANDED_OVER  HANDOVER_TAKE --------------------->  drains, takes over, no vote
                 <-------------- NEWMASTER of the library: over
                 <--------------------  HANDOVER_REFUSED: RETAKING

Up to LEAVING whatever goes wrong leaves the old master what it was; writes that waited go on. After
it, a refusal makes it master again at once, with a generation above the target's. When the target
says nothing any more, nobody can tell whether it took over: then an election decides, as after a
lost master; in a group of two, where there is nobody else to vote, the old master goes on.

The others see only that their master steps down. They wait for the new one as long as taking over
may take, and call an election then, or as soon as somebody else does: one at once would come in the
way of the target.

A write is never lost: the target had them all before the old master stepped down, and the old one
takes none until it knows how it ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from replication import bodies, effects
from replication.bodies import HandoverWord
from replication.messages import OwnCode
from replication.phase import Phase
from replication.wire import LSN, LSN_ZERO

if TYPE_CHECKING:
    from replication.bodies import SiteAddress
    from replication.core import Core
    from replication.effects import Outbox
    from replication.sites import SiteState

ANSWER_S: Final = 1.0  # the target answers from memory
TAKEOVER_S: Final = 5.0  # the library's change of role, which may wait for readers there


class Stage(Enum):
    """How far it is; the value completes "while ..."."""

    IDLE = "nothing was handed over"
    PREPARING = "the target was not yet nearly in step"
    HOLDING = "the last writes were on their way to the target"
    ASKING = "the target was asked"
    LEAVING = "this site stepped down"
    HANDED_OVER = "the target took over"
    RETAKING = "this site became master again"


# The old master's clients wait meanwhile; they are not told that it is none.
KEEPS_CLIENTS: Final = frozenset(
    {Stage.HOLDING, Stage.ASKING, Stage.LEAVING, Stage.HANDED_OVER, Stage.RETAKING}
)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a handover ended.

    Args:
        target: who was to take over.
        reason: why it did not, empty when it did.
        generation: the new master's.
        held_s: how long writes were held up here.
    """

    target: SiteAddress
    reason: str
    generation: int
    held_s: float


class Handover:
    """See the module's text.

    Args:
        core: which this is a part of.
        out: where effects go.

    Attributes:
        took_from: this site is master because that one handed over, and it was not away since.
    """

    def __init__(self, core: Core, out: Outbox) -> None:
        self.stage = Stage.IDLE
        self.target: SiteAddress | None = None
        self._core = core
        self._out = out
        self._permanent = LSN_ZERO
        self._deadline_s = 0.0
        self._prepare_until_s = 0.0
        self._held_since_s: float | None = None
        self._reason = ""
        self._taking_from: SiteAddress | None = None
        self._left_until_s: float | None = None
        self.took_from: SiteAddress | None = None

    @property
    def keeps_clients(self) -> bool:
        """Writes wait here for how it ends."""
        return self.stage in KEEPS_CLIENTS

    @property
    def busy(self) -> bool:
        """The role is being handed over, or taken."""
        return self.stage is not Stage.IDLE or self._taking_from is not None

    # -- as the old master ---------------------------------------------------------------------

    def candidates(self) -> list[SiteState]:
        """Sites that could take over, the best one first: priority, then how far it is."""
        core = self._core
        fit = [s for s in core.sites.values() if self.obstacle(s.address) is None]

        def rank(state: SiteState) -> tuple[int, LSN]:
            known = state.standing
            return (known.priority, known.last_lsn) if known is not None else (0, LSN_ZERO)

        return sorted(fit, key=rank, reverse=True)

    def obstacle(self, target: SiteAddress) -> str | None:
        """Say why this site cannot hand over to that one now; None: it can."""
        core = self._core
        if not core.is_master:
            return "this site is not master"
        if self.busy:
            return f"a handover to {self.target or self._taking_from} is under way"
        if core.group.changing:
            return "the list of sites is being changed"
        if target == core.settings.local:
            return f"{target} is the master already"
        state = core.sites.get(target)
        if state is None or not core.group.is_present(target):
            return f"{target} is no member of the group"
        if state.link is None:
            return f"{target} is not connected"
        if state.native:
            return f"{target} is a native site, which knows no handover; stop this site instead"
        if not state.electable:
            return f"{target} has priority 0 and never becomes master"
        return None

    def begin(self, now_s: float, target: SiteAddress, timeout_s: float) -> str | None:
        """Begin to hand over.

        Args:
            timeout_s: how long the target may take to be nearly in step; writes go on meanwhile.

        Returns:
            Why not; None when it began: a `HandoverEnded` will say how it went.
        """
        reason = self.obstacle(target)
        if reason is not None:
            return reason
        self.target, self._reason, self._held_since_s = target, "", None
        self._prepare_until_s = now_s + timeout_s
        self._out.note("switchover_started", to=target, generation=self._core.generation)
        self._enter(Stage.PREPARING, now_s, timeout_s)
        self._out.do(effects.PrepareHandover(self._core.site(target).eid, timeout_s))
        return None

    def prepared(self, now_s: float) -> None:
        """No checkpoint is under way, and the target is nearly in step."""
        if self.stage is Stage.PREPARING:
            self._held_since_s = now_s
            timeout_s = self._core.settings.ack_timeout_s
            self._enter(Stage.HOLDING, now_s, 2 * timeout_s)
            eid = self._core.site(self._must_have_target()).eid
            self._out.do(effects.HoldWrites(eid, timeout_s))

    def in_step(self, now_s: float, permanent: LSN) -> None:
        """No write is under way, and the target acknowledged the last one."""
        if self.stage is Stage.HOLDING:
            self._permanent = permanent
            self._enter(Stage.ASKING, now_s, ANSWER_S)
            self._say(OwnCode.HANDOVER_ASK)

    def stepped_down(self, now_s: float) -> None:
        """The library is a client now."""
        if self.stage is not Stage.LEAVING:
            return
        core = self._core
        core.phase, core.master, core.client_started = Phase.HANDING_OVER, None, True
        self._enter(Stage.HANDED_OVER, now_s, TAKEOVER_S)
        self._out.note("switchover_stepped_down", to=self.target, lsn=self._permanent)
        if self._say(OwnCode.HANDOVER_TAKE):
            self._out.do(effects.RoleChanged())
        else:
            self._retake(now_s, f"{self.target} is not connected any more")

    def new_master(self, now_s: float, master: SiteAddress | None, generation: int) -> None:
        """The library follows somebody: it is over."""
        self._left_until_s = None
        if self.stage in (Stage.HANDED_OVER, Stage.RETAKING):
            reason = "" if master == self.target else f"{master} became master instead"
            self._end(now_s, reason, generation)

    def became_master(self, now_s: float, generation: int) -> None:
        """The library made this site master: again, or in the place of another one."""
        self._left_until_s = None
        if self.stage is Stage.RETAKING:
            self._end(now_s, self._reason, generation)
        self.took_from, self._taking_from = self._taking_from, None

    def failed(self, now_s: float, reason: str) -> None:
        """A step on this site did not succeed."""
        if self.stage in (Stage.PREPARING, Stage.HOLDING, Stage.ASKING, Stage.LEAVING):
            self._end(now_s, reason, self._core.generation)

    def link_closed(self, now_s: float, address: SiteAddress) -> None:
        """The last link to a site is gone."""
        if address == self.took_from:
            self.took_from = None
        if address != self.target or self.stage is Stage.IDLE:
            return
        if self.stage is Stage.HANDED_OVER:
            self._unknown(now_s, f"the link to {address} broke after it was told to take over")
        elif self.stage in (Stage.PREPARING, Stage.HOLDING, Stage.ASKING):
            self.failed(now_s, f"the link to {address} broke while {self.stage.value}")

    def tick(self, now_s: float) -> None:
        """The clock."""
        if self._left_until_s is not None and now_s >= self._left_until_s:
            self._give_up(now_s, "it stepped down, and no other took over")
        if self.stage is Stage.IDLE or now_s < self._deadline_s:
            return
        if self.stage is Stage.HANDED_OVER:
            self._unknown(now_s, f"{self.target} did not take over in {TAKEOVER_S:g} s")
        elif self.stage in (Stage.PREPARING, Stage.HOLDING, Stage.ASKING):
            self.failed(now_s, f"it took too long while {self.stage.value}")
        # The library answers for LEAVING and RETAKING, if it takes a while.

    def _unknown(self, now_s: float, reason: str) -> None:
        """The target may be master or not."""
        core = self._core
        if len(core.members()) == 1:
            # The other one alone cannot have made a write permanent under a policy that waits for
            # somebody. If it leads, it hears of the higher generation and steps down.
            self._retake(now_s, reason)
            return
        core.phase = Phase.FOLLOWING
        self._end(now_s, f"{reason}; an election decides", core.generation)
        core.elections.call_at(now_s)

    def _retake(self, now_s: float, reason: str) -> None:
        self._reason = reason
        self._enter(Stage.RETAKING, now_s, TAKEOVER_S)
        # The target's would be one above this site's.
        self._core.take_over(self._core.generation + 1)
        self._core.rounds.elected = True

    def _end(self, now_s: float, reason: str, generation: int) -> None:
        target, since_s = self._must_have_target(), self._held_since_s
        held_s = 0.0 if since_s is None else now_s - since_s
        self.stage, self.target = Stage.IDLE, None
        if reason:
            self._out.note("switchover_failed", to=target, reason=reason, held_s=round(held_s, 4))
        else:
            self._out.note(
                "switchover_done", to=target, generation=generation, held_s=round(held_s, 4)
            )
        # First the role, then the writes: those of a master no longer are refused, not tried.
        self._out.do(effects.RoleChanged())
        self._out.do(effects.ReleaseWrites())
        self._out.do(effects.HandoverEnded(Ended(target, reason, generation, held_s)))

    def _enter(self, stage: Stage, now_s: float, timeout_s: float) -> None:
        self.stage = stage
        self._deadline_s = now_s + timeout_s

    def _must_have_target(self) -> SiteAddress:
        assert self.target is not None, "a stage other than IDLE has one"
        return self.target

    def _say(self, code: OwnCode, reason: str = "") -> bool:
        """Send a word to the target; False when there is no link."""
        state = self._core.sites.get(self.target)
        if state is None or state.link is None:
            return False
        self._send(state.link.number, code, reason)
        return True

    def _send(self, number: int, code: OwnCode, reason: str = "") -> None:
        word = HandoverWord(self._core.generation, self._permanent, reason)
        self._out.do(effects.SendOwn(number, code, bodies.encode_handover(word)))

    # -- as any other site ---------------------------------------------------------------------

    def master_left(self, now_s: float) -> None:
        """The master stepped down: to hand over, most likely."""
        if self._left_until_s is None and self._taking_from is None:
            self._left_until_s = now_s + TAKEOVER_S

    def others_elect(self, now_s: float) -> None:
        """Another site called an election."""
        if self._left_until_s is not None:
            self._give_up(now_s, "it stepped down, and another site wants an election")

    def _give_up(self, now_s: float, reason: str) -> None:
        self._left_until_s = None
        core = self._core
        if core.phase is Phase.FOLLOWING and core.master is not None:
            core.master_gone(now_s, core.master, reason)

    # -- what the other side says --------------------------------------------------------------

    def heard(self, now_s: float, number: int, code: int, word: HandoverWord) -> None:
        """A word about a handover came on a link."""
        link = self._core.sites.links.get(number)
        if link is None:
            return
        who = link.site.address
        match code:
            case OwnCode.HANDOVER_ASK:
                self._asked(number, who, word)
            case OwnCode.HANDOVER_TAKE:
                self._take(number, who, word)
            case OwnCode.HANDOVER_READY if who == self.target and self.stage is Stage.ASKING:
                if word.generation == self._core.generation:
                    self._enter(Stage.LEAVING, now_s, TAKEOVER_S)
                    self._out.do(effects.StepDown())
            case OwnCode.HANDOVER_REFUSED if who == self.target:
                self._refused(now_s, f"{who} refused: {word.reason}")

    def _refused(self, now_s: float, reason: str) -> None:
        if self.stage is Stage.HANDED_OVER:
            self._retake(now_s, reason)
        else:
            self.failed(now_s, reason)

    # -- as the target -------------------------------------------------------------------------

    def _unfit(self, word: HandoverWord) -> str | None:
        """Say why this site does not take over; None: it can."""
        core = self._core
        if core.settings.priority == 0:
            return "it has priority 0"
        if core.phase is not Phase.FOLLOWING or core.electing:
            return f"it is {core.phase.value}"
        if word.generation != core.generation:
            return f"it is in generation {core.generation}, not {word.generation}"
        if core.syncing or not core.complete:
            return "it has no complete copy"
        return None

    def _asked(self, number: int, who: SiteAddress, word: HandoverWord) -> None:
        reason = self._unfit(word)
        if reason is None and who != self._core.master:
            reason = f"it follows {self._core.master or 'nobody'}"
        self._permanent = word.lsn
        self._out.note("switchover_asked", by=who, lsn=word.lsn, refused=reason)
        code = OwnCode.HANDOVER_READY if reason is None else OwnCode.HANDOVER_REFUSED
        self._send(number, code, reason or "")

    def _take(self, number: int, who: SiteAddress, word: HandoverWord) -> None:
        reason = self._unfit(word)
        self._permanent = word.lsn
        if reason is not None:
            self._send(number, OwnCode.HANDOVER_REFUSED, reason)
            return
        self._taking_from = who
        self._core.take_over(word.generation, holding=word.lsn)
        self._core.rounds.elected = True

    def takeover_failed(self, now_s: float, reason: str) -> bool:
        """The library did not make this site master; True when the old one was told so."""
        if self.stage is Stage.RETAKING:
            self._end(now_s, f"{self._reason}; and this site could not go on: {reason}", 0)
            return False
        who, self._taking_from = self._taking_from, None
        state = self._core.sites.get(who)
        if state is None:
            return False
        if state.link is not None:
            self._send(state.link.number, OwnCode.HANDOVER_REFUSED, reason)
        self._core.follow(now_s)
        return True
