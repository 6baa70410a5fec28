"""The core's wishes about the membership database, done in the library.

A change has two steps, each a transaction of its own. The second is not begun before enough other
sites have the first: else a master that is cut off, and does not know it yet, could take the others
out one by one and go on alone while they elect another. What is not acknowledged in time is taken
back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from berkeleydb import db

from replication import gmdb
from replication.acks import SiteAck, quorum_size
from replication.bridge import Bridge
from replication.core import Core
from replication.errors import ReplicationError
from replication.journal import Journal
from replication.library_work import Calls
from replication.membership import Membership
from replication.messages import SiteStatus
from replication.roster import Roster
from replication.wire import LSN

T = TypeVar("T")

ACK_LOOK_S: Final = 0.01  # between two looks at who acknowledged; people wait, not programs


def missing_acks(
    sites: Sequence[SiteAck], lsn: LSN, *, two_site_strict: bool = True
) -> list[SiteAck]:
    """Return who has to acknowledge the first step of a change; nobody when it is safe.

    As many electable sites as QUORUM asks for in the group as it was, whatever the ack policy of
    ordinary writes: then whoever elects a master knows of the change. The site that comes or goes
    has no say, and a site whose priority is not known may be electable.

    Args:
        sites: every other member, with the change of this step.
        lsn: of the step.
        two_site_strict: db_repmgr_conf_2site_strict.
    """
    before = [site for site in sites if site.status is not SiteStatus.ADDING]
    having_a_say = [s for s in before if s.counts and s.electable is not False]
    needed = quorum_size(len(before) + 1, two_site_strict=two_site_strict)
    behind = [site for site in having_a_say if site.acked is None or site.acked < lsn]
    if len(having_a_say) - len(behind) >= min(needed, len(having_a_say)):
        return []
    return behind


class MembershipWork:
    """Each method ends by telling the core what came of it.

    Args:
        env: the open library handle.
        calls: the thread for it.
        core: whom to tell.
        journal: `$DB_Msg.txt`.
        roster: who acknowledged how much.
        bridge: knows the last permanent LSN.
    """

    def __init__(
        self,
        env: db.DBEnv,
        calls: Calls,
        core: Core,
        journal: Journal,
        roster: Roster,
        bridge: Bridge,
    ) -> None:
        self._env = env
        self._calls = calls
        self._core = core
        self._journal = journal
        self._roster = roster
        self._bridge = bridge
        self._loop = asyncio.get_running_loop()

    async def _call(self, call: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self._calls.submit(call))

    async def load(self) -> None:
        """Read the membership database."""
        env, generation = self._env, self._core.generation
        try:
            members = await self._call(lambda: gmdb.read(env, generation))
        except (ReplicationError, db.DBError) as error:
            self._journal.write("membership_change_failed", reason=str(error))
            return
        self._core.membership_loaded(self._loop.time(), members)

    async def change(
        self, steps: tuple[Membership, ...], request: int | None, *, forced: bool
    ) -> None:
        """Commit site lists one after the other."""
        try:
            members, shortfall = await self._commit(steps, forced=forced)
        except Exception as error:
            self._core.membership_failed(request, str(error))
            if not isinstance(error, (ReplicationError, db.DBError)):
                raise
            return
        if shortfall is None:
            self._core.membership_changed(members, request)
        else:
            self._core.group.step_done(members)
            self._core.membership_failed(request, shortfall)

    async def _commit(
        self, steps: tuple[Membership, ...], *, forced: bool
    ) -> tuple[Membership, str | None]:
        """Returns the list that is there at the end, and why it is not the wanted one."""
        members: Membership | None = None
        for step in steps:
            members = await self._write(step)
            if step.unfinished is not None and step is not steps[-1]:
                self._core.group.step_done(members)
                self._roster.rebuild(self._core)
                shortfall = None if forced else await self._shortfall(self._bridge.last_permanent)
                if shortfall is not None:
                    return await self._write(_taken_back(step)), shortfall
        assert members is not None, "there is at least one step"
        return members, None

    async def _write(self, step: Membership) -> Membership:
        env, generation = self._env, self._core.generation
        return await self._call(lambda: gmdb.write(env, (step,), generation))

    async def _shortfall(self, lsn: LSN) -> str | None:
        """Wait until the step is safe; say who is missing when it is not in time."""
        settings = self._core.settings
        deadline_s = self._loop.time() + settings.ack_timeout_s
        while True:
            missing = missing_acks(
                self._roster.sites(), lsn, two_site_strict=settings.two_site_strict
            )
            if not missing:
                return None
            if self._loop.time() >= deadline_s or not self._core.is_master:
                names = ", ".join(map(str, missing))
                return f"not enough other sites acknowledged the change; missing: {names}"
            await asyncio.sleep(ACK_LOOK_S)


def _taken_back(step: Membership) -> Membership:
    """Return the list without the change that was begun."""
    member = step.unfinished
    assert member is not None, "a first step leaves a site half-way"
    if member.status is SiteStatus.ADDING:
        return step.removed(member.address)
    return step.present(member.address)
