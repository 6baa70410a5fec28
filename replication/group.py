"""The site list as the manager keeps it: who is a member, joins, sharing (no I/O).

A master takes sites in one at a time, each by two transactions on the membership database; the
others learn the new list by SHARING. It never goes to a site that it does not name: a native one
would panic.
"""

from collections.abc import Sequence

from replication import effects
from replication.bodies import SiteAddress
from replication.effects import Outbox
from replication.membership import Membership
from replication.messages import OwnCode, SiteStatus
from replication.sites import LinkState, Sites


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
        self._requests: list[tuple[int, SiteAddress]] = []
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
    def rejection(self) -> tuple[int, int]:
        """(version, generation) that a rejected site is told."""
        if self.membership is None:
            return (0, 0)
        return (self.membership.version, self.membership.generation)

    def adopt(self, membership: Membership) -> None:
        """Take this list for the truth."""
        self.membership = membership
        self._learn(membership)

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
            self._change((first,), None)
            return
        self.adopt(loaded.in_generation(generation))
        if self.is_present(self._local):
            self.share()
        else:
            self._change(self._steps_to_add(self._local), None)

    def join_asked(self, request: int, address: SiteAddress) -> None:
        """A site asks to be taken in."""
        if self.is_present(address):
            self._grant(request, address)
            return
        self._out.note("join_received", site=address)
        self._requests.append((request, address))
        self._next_change()

    def changed(self, membership: Membership, request: int | None) -> None:
        """The steps are committed: answer, tell all members."""
        self._changing = False
        self.adopt(membership)
        self._out.note("membership_changed", members=self.names(), version=membership.version)
        if request is not None:
            address = next(r[1] for r in self._requests if r[0] == request)
            self._drop(request)
            self._grant(request, address)
        self.share()
        self._out.do(effects.RoleChanged())
        self._next_change()

    def change_failed(self, request: int | None, reason: str) -> None:
        """The change was not committed."""
        self._changing = False
        self._out.note("membership_change_failed", reason=reason)
        if request is not None:
            self._drop(request)
            self._out.do(effects.Answer(request, OwnCode.GM_FAILURE))
        self._next_change()

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
            request, address = self._requests[0]
            if self.is_present(address):  # it asked twice
                self._drop(request)
                self._grant(request, address)
            else:
                self._change(self._steps_to_add(address), request)

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

    def _change(self, steps: tuple[Membership, ...], request: int | None) -> None:
        self._changing = True
        self._out.do(effects.ChangeMembership(steps, request))

    def _drop(self, request: int) -> None:
        self._requests = [r for r in self._requests if r[0] != request]
