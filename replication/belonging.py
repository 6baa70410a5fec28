"""Whether this site belongs to the group: it joins, is removed, joins again (no input or output).

    JOINING -> FOLLOWING -> REMOVED -> (asked to) PROBING -> JOINING ...

A site that was removed says so and asks nobody any more, also after a restart; it goes on serving
the copy it has. It joins again when the operator asks for it, here or on a member, which then
invites it.

Being rejected is not being removed: a group whose list was made anew, or lost its last change with
its last master, takes this site in again without a word. What tells them apart is the version: a
removal counts it up.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from replication import effects
from replication.phase import Phase

if TYPE_CHECKING:
    from replication.bodies import SiteAddress
    from replication.core import Core
    from replication.effects import Outbox
    from replication.membership import Membership
    from replication.probes import Probes
    from replication.remembered import Remembered


class Belonging:
    """See the module's text.

    Args:
        core: which this is a part of.
        out: where effects go.
        remembered: what outlives the environment.
        probes: the answers of the other sites.
    """

    def __init__(self, core: Core, out: Outbox, remembered: Remembered, probes: Probes) -> None:
        self._core = core
        self._out = out
        self._remembered = remembered
        self._probes = probes
        self._forward_generation = 0

    # -- joining -------------------------------------------------------------------------------

    def join(self, master: SiteAddress | None) -> None:
        """Ask to be taken in; whoever is asked and is not master forwards the request."""
        core = self._core
        core.phase = Phase.JOINING
        self._forward_generation = 0
        if master is None:
            master = self._probes.native() or min(core.others())
        self._out.note("join_requested", to=master)
        self._out.do(effects.Join(master))

    def joined(self, now_s: float, membership: Membership) -> None:
        """The group took this site in; its database will come with the data."""
        core = self._core
        if core.phase is not Phase.JOINING:
            return  # promoted meanwhile
        self._remembered.removed(False)
        core.adopt(membership)
        core.own = replace(core.own, has_membership=True, removed=False)
        self._out.note("joined_group", members=core.group.names(), version=membership.version)
        core.follow(now_s)

    def forwarded(self, now_s: float, to: SiteAddress, generation: int) -> None:
        """The site asked is not master and names another; followed while the generation grows."""
        core = self._core
        if core.phase is not Phase.JOINING:
            return
        if generation > self._forward_generation and to != core.settings.local:
            self._forward_generation = generation
            self._out.do(effects.Join(to))
        else:
            self.failed(now_s, f"the sites forward each other's request (last to {to})")

    def failed(self, now_s: float, reason: str) -> None:
        """The request was refused or nobody answered; ask around again later."""
        if self._core.phase is not Phase.JOINING:
            return
        self._core.wait(
            now_s,
            f"this site was not taken into the group: {reason}",
            "see $DB_Msg.txt on the master; it must be running and reach this site's address.",
        )

    # -- being removed -------------------------------------------------------------------------

    def rejected(self, now_s: float, address: SiteAddress, version: int, generation: int) -> None:
        """A site does not take this one for a member."""
        core = self._core
        core.connections.rejected(now_s, address, version, generation)
        mine = core.membership
        newer = mine is None or mine.is_older_than(generation, version)
        if not newer or not (version or generation) or core.is_master:
            return
        if core.phase is Phase.REMOVED:
            return
        self.left_out(now_s, version)

    def left_out(self, now_s: float, version: int) -> None:
        """There is a newer list, of this version, and it does not name this site."""
        core = self._core
        mine = core.membership
        if mine is not None and version > mine.version:
            self.removed(version)
            return
        # The group's list was made anew: ask around (the answers tell whether following that group
        # would lose this site's copy), then join again.
        core.own = replace(core.own_now(), has_membership=False)
        core.group.forget()
        core.probe(now_s)

    def removed(self, version: int | None = None) -> None:
        """This site is no member any more; nothing is tried until somebody asks for it.

        Args:
            version: of the list that does not name it; None when that is not known any more.
        """
        core = self._core
        core.own = replace(core.own_now(), has_membership=False, removed=True)
        core.phase = Phase.REMOVED
        core.master = None
        core.elections.call_at(None)
        core.group.forget()
        self._remembered.removed(True)
        for link in list(core.sites.links.values()):
            self._out.do(effects.CloseLink(link.number, "this site was removed from the group"))
        core.why = "this site was removed from the group"
        core.hint = (
            f"to take it in again run `ttserver site add {core.settings.local}` here or on a"
            " member; if it is to stay away, stop it."
        )
        self._out.note("removed_from_group", version=version)
        self._out.do(effects.RoleChanged())

    # -- joining again -------------------------------------------------------------------------

    def rejoin(self, now_s: float) -> None:
        """The operator wants this site in the group: ask around and join."""
        core = self._core
        if core.phase not in (Phase.REMOVED, Phase.WAITING):
            return  # it belongs to a group, or is about to
        self._out.note("rejoin_asked")
        core.why = core.hint = None
        core.probe(now_s)

    def invited(self, now_s: float, by: SiteAddress) -> None:
        """A member's operator wants this site in the group."""
        if self._core.phase in (Phase.REMOVED, Phase.WAITING):
            self._core.site(by)
            self._core.inviters.add(by)
            self._out.note("invited", by=by)
            self.rejoin(now_s)
