"""The site list as the manager keeps it: who is a member, joins, leaves, sharing (no I/O).

A master takes sites in and out one at a time, each by two transactions on the membership database;
the others learn the new list by SHARING. It never goes to a site that it does not name: a native
one would panic. That one hears CONNECT_REJECT instead, and loses its links.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from replication import effects
from replication.bodies import SiteAddress
from replication.effects import Outbox
from replication.membership import Membership
from replication.messages import OwnCode, SiteStatus
from replication.sites import LinkState, Sites


@dataclass(frozen=True, slots=True)
class _Request:
    """A wish that waits for its turn."""

    number: int
    address: SiteAddress
    remove: bool = False
    forced: bool = False


class Group:
    """See the module's text.

    Args:
        local: this site.
        configured: the other sites of DB_CONFIG, which stand in for members while there is no
            membership database.
        membership: the membership database's contents, None without one.
        sites: the other sites.
        out: where effects go.
    """

    def __init__(
        self,
        local: SiteAddress,
        configured: Sequence[SiteAddress],
        membership: Membership | None,
        sites: Sites,
        out: Outbox,
    ) -> None:
        self.membership = membership
        self._local = local
        self._configured = configured
        self._sites = sites
        self._out = out
        self._changing = False
        self._requests: list[_Request] = []
        if membership is not None:
            self._learn(membership)

    def members(self) -> list[SiteAddress]:
        """The other members whatever their status; without a membership, those configured."""
        if self.membership is None:
            return list(self._configured)
        return [m.address for m in self.membership.others(self._local)]

    def names(self) -> str:
        """All members, for people."""
        members = self.membership.members if self.membership is not None else ()
        return ", ".join(str(m.address) for m in members)

    def is_present(self, address: SiteAddress) -> bool:
        """Tell whether the site is a full member."""
        return self.membership is not None and self.membership.is_present(address)

    def is_newer(self, membership: Membership) -> bool:
        """Tell whether a list would replace the one here."""
        mine = self.membership
        return mine is None or mine.is_older_than(membership.generation, membership.version)

    @property
    def changing(self) -> bool:
        """A change of the list is under way, or waits for its turn."""
        return self._changing or bool(self._requests)

    @property
    def rejection(self) -> tuple[int, int]:
        """(version, generation) that a rejected site is told."""
        if self.membership is None:
            return (0, 0)
        return (self.membership.version, self.membership.generation)

    def adopt(self, membership: Membership) -> None:
        """Take this list for the truth; links of those it does not name are closed."""
        self.membership = membership
        self._learn(membership)
        for link in list(self._sites.links.values()):
            if membership.find(link.site.address) is None:
                self._out.do(effects.RejectLink(link.number))

    def forget(self) -> None:
        """This site was removed: the list here says nothing any more."""
        self.membership = None

    def _learn(self, membership: Membership) -> None:
        for member in membership.others(self._local):
            self._sites.site(member.address)

    # -- as a master ---------------------------------------------------------------------------

    def take_over(self, loaded: Membership | None, generation: int) -> None:
        """A new master read its database: make the first list, or announce the one there is."""
        if self._changing:
            return  # what was read is older than what is being written
        if loaded is None:
            first = Membership.create(self._local, generation)
            self._out.note("group_created", members=str(self._local), version=first.version)
            self._change((first,))
            return
        self.adopt(loaded.in_generation(generation))
        if not self.is_present(self._local):
            self._change(self._steps_to_add(self._local))
        elif unfinished := self._steps_to_finish():
            self._change(unfinished)  # the master before this one stopped half-way
        else:
            self.share()

    def join_asked(self, request: int, address: SiteAddress) -> None:
        """A site asks to be taken in, or somebody asks for it."""
        if self.is_present(address):
            self._grant(request, address)
            return
        self._out.note("join_received", site=address)
        self._requests.append(_Request(request, address))
        self._next_change()

    def remove_asked(self, request: int, address: SiteAddress, *, forced: bool) -> None:
        """Somebody asks to take a site out.

        Args:
            forced: whether or not the other sites acknowledge it.
        """
        if address == self._local:
            reason = f"{address} is the master; hand over to another site first"
            self._out.do(effects.Answer(request, OwnCode.GM_FAILURE, reason=reason))
            return
        self._out.note("removal_received", site=address)
        self._requests.append(_Request(request, address, remove=True, forced=forced))
        self._next_change()

    def step_done(self, membership: Membership) -> None:
        """The first of two steps is committed: whom it is about counts for no policy now."""
        self.membership = membership
        self._learn(membership)
        self._out.do(effects.RoleChanged())

    def changed(self, membership: Membership, request: int | None) -> None:
        """The steps are committed: answer, tell all members."""
        self._changing = False
        self.adopt(membership)
        self._out.note("membership_changed", members=self.names(), version=membership.version)
        asked = self._drop(request)
        if asked is not None:
            self._satisfy(asked)
        self.share()
        self._out.do(effects.RoleChanged())
        self._next_change()

    def change_failed(self, request: int | None, reason: str) -> None:
        """The change was not committed, or was taken back."""
        self._changing = False
        self._out.note("membership_change_failed", reason=reason)
        if self._drop(request) is not None and request is not None:
            self._out.do(effects.Answer(request, OwnCode.GM_FAILURE, reason=reason))
        self._out.do(effects.RoleChanged())
        self._next_change()

    def stepped_down(self) -> None:
        """This site is master no longer: another one answers those who wait."""
        waiting, self._requests = self._requests, []
        for each in waiting:
            reason = "this site is no longer master"
            self._out.do(effects.Answer(each.number, OwnCode.GM_FAILURE, reason=reason))

    def share(self) -> None:
        """Send the list to every connected member."""
        for link in list(self._sites.links.values()):
            if link.released and not link.subordinate:
                self.share_with(link)

    def share_with(self, link: LinkState) -> None:
        """Send the list on one link, if it names the site there."""
        if self.membership is not None and self.membership.is_present(link.site.address):
            body = self.membership.share_for(link.site.address)
            self._out.do(effects.SendOwn(link.number, OwnCode.SHARING, body))

    def _next_change(self) -> None:
        while self._requests and not self._changing:
            first = self._requests[0]
            if self._is_as_wanted(first):  # it was asked for twice
                self._requests.pop(0)
                self._satisfy(first)
                continue
            wanted = self._steps_to_remove if first.remove else self._steps_to_add
            self._change(wanted(first.address), first.number, forced=first.forced)

    def _is_as_wanted(self, asked: _Request) -> bool:
        if asked.remove:
            return self.membership is None or self.membership.find(asked.address) is None
        return self.is_present(asked.address)

    def _satisfy(self, asked: _Request) -> None:
        if asked.remove:
            self._out.do(effects.Answer(asked.number, OwnCode.REMOVE_SUCCESS))
        else:
            self._grant(asked.number, asked.address)

    def _grant(self, request: int, address: SiteAddress) -> None:
        assert self.membership is not None, "somebody is present in it"
        body = self.membership.share_for(address)
        self._out.do(effects.Answer(request, OwnCode.JOIN_SUCCESS, body))

    def _steps_to_add(self, address: SiteAddress) -> tuple[Membership, ...]:
        assert self.membership is not None, "only a master with a list takes sites in"
        before, steps = self.membership, []
        member = before.find(address)
        if member is not None and member.status is SiteStatus.DELETING:
            before = before.removed(address)  # a removal that stopped half-way comes first
            steps.append(before)
        adding = before.adding(address)
        return (*steps, adding, adding.present(address))

    def _steps_to_remove(self, address: SiteAddress) -> tuple[Membership, ...]:
        assert self.membership is not None, "only a master with a list takes sites out"
        member = self.membership.find(address)
        if member is not None and member.status is SiteStatus.ADDING:
            return (self.membership.removed(address),)
        deleting = self.membership.deleting(address)
        return (deleting, deleting.removed(address))

    def _steps_to_finish(self) -> tuple[Membership, ...]:
        """The second steps that are missing: whoever was to come is in, who was to go is out."""
        assert self.membership is not None, "it was just read"
        now, steps = self.membership, []
        while (member := now.unfinished) is not None:
            coming = member.status is SiteStatus.ADDING
            now = now.present(member.address) if coming else now.removed(member.address)
            steps.append(now)
        return tuple(steps)

    def _change(
        self, steps: tuple[Membership, ...], request: int | None = None, *, forced: bool = False
    ) -> None:
        self._changing = True
        self._out.do(effects.ChangeMembership(steps, request, forced))

    def _drop(self, number: int | None) -> _Request | None:
        """Take a request out of the queue; None when it is not there (any more)."""
        asked = next((r for r in self._requests if r.number == number), None)
        if asked is not None:
            self._requests.remove(asked)
        return asked
