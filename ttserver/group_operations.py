"""What the control socket can ask about the group: which sites belong to it, and who leads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from replication import succession
from replication.bodies import SiteAddress
from replication.manager import Manager
from replication.promotion import judge, must_be_possible
from replication.site_changes import Changed
from replication.switchover import CATCH_UP_S
from ttserver.address import parse_address
from ttserver.control import Handler, Send
from ttserver.control_client import ControlError
from ttserver.engine import Engine
from ttserver.status import Status
from ttserver.summary import one_line

# A site that was invited asks around, joins and dials; each takes at most some seconds.
JOIN_WAIT_S: Final = 20.0
# A role change takes two calls into the library; it is locked out while others are inside.
PROMOTE_TIMEOUT_S: Final = 20.0
PROGRESS_S: Final = 0.5
LOOK_S: Final = 0.05


class GroupOperations:
    """The handlers of one daemon.

    Args:
        engine: the site they work on.
        status: how it is.
        must_be_open: raises unless the engine has opened the environment.
    """

    def __init__(
        self, engine: Engine, status: Callable[[], Status], must_be_open: Callable[[str], None]
    ) -> None:
        self._engine = engine
        self._status_now = status
        self._must_be_open = must_be_open

    def handlers(self) -> Mapping[str, Handler]:
        """Give the commands by name."""
        return {
            "site-add": self._site_add,
            "site-remove": self._site_remove,
            "switchover": self._switchover,
            "promote-plan": self._promote_plan,
            "promote": self._promote,
        }

    async def _site_add(self, request: dict[str, Any], _send: Send) -> object:
        site = _site(request)
        changes = self._manager("sites cannot be added").site_changes
        return _told(await changes.add(site, JOIN_WAIT_S, forced=bool(request.get("force"))))

    async def _site_remove(self, request: dict[str, Any], _send: Send) -> object:
        site = _site(request)
        changes = self._manager("sites cannot be removed").site_changes
        return _told(await changes.remove(site, forced=bool(request.get("force"))))

    async def _switchover(self, request: dict[str, Any], send: Send) -> object:
        manager = self._manager("switchover refused")
        wanted = _site(request) if request.get("site") is not None else None
        timeout_s = float(request.get("timeout_s") or CATCH_UP_S)
        if (native := succession.native_master(manager.core)) is not None:
            succession.must_be_possible(manager.core, native, wanted)
            return await self._succeed(manager, native, send, timeout_s)
        self._must_be_master()
        switchover = manager.switchover
        target = switchover.target(wanted)
        before = {"master": str(manager.master), "generation": manager.generation}
        await send({"before": before, "target": str(target)})
        ended = switchover.begin(target, timeout_s)
        while not (await asyncio.wait([ended], timeout=PROGRESS_S))[0]:
            await send({"progress": f"until now {manager.core.handover.stage.value}"})
        outcome = switchover.outcome(ended.result())
        return {
            "before": before,
            "after": {"master": str(outcome.target), "generation": outcome.generation},
            "held_ms": round(outcome.held_s * 1000, 1),
        }

    async def _succeed(
        self, manager: Manager, native: SiteAddress, send: Send, timeout_s: float
    ) -> object:
        """Take over from a native master that is stopped: by election, else by this command."""
        core = manager.core
        before = {"master": str(native), "generation": manager.generation}
        await send({"before": before, "target": str(core.settings.local)})
        deadline_s = time.monotonic() + timeout_s
        while (status := self._status_now()).read_only:
            if core.master not in (None, core.settings.local):
                raise ControlError(
                    f"{core.master} is master now",
                    code="SWITCHOVER_FAILED",
                    hint="see `ttserver sites`; the highest priority wins among equals.",
                )
            if time.monotonic() > deadline_s:
                raise ControlError(
                    f"this site is not master after {timeout_s:g} s: {status.why or status.state}",
                    code="TIMEOUT",
                    hint="see `ttserver status`; `ttserver promote` needs no election.",
                )
            if succession.leads_without_vote(core):
                manager.promote()
            await asyncio.sleep(LOOK_S)
        after = {"master": str(manager.master), "generation": manager.generation}
        return {"before": before, "after": after, "held_ms": None}

    async def _promote_plan(self, request: dict[str, Any], _send: Send) -> object:
        """Say what a promotion would cost; nothing is changed."""
        manager = self._manager("site cannot be promoted")
        must_be_possible(manager.core, over_native=bool(request.get("over_native")))
        said = judge(await manager.survey())
        better = str(said.better) if said.better is not None else None
        return {"facts": said.facts, "losses": said.losses, "better": better}

    async def _promote(self, request: dict[str, Any], send: Send) -> object:
        manager = self._manager("site cannot be promoted")
        manager.promote(over_native=bool(request.get("over_native")))
        deadline_s = time.monotonic() + PROMOTE_TIMEOUT_S
        while (status := self._status_now()).read_only:
            if time.monotonic() > deadline_s:
                why = status.why or status.state
                raise ControlError(
                    f"site is not master after {PROMOTE_TIMEOUT_S:g} s: {why}",
                    code="TIMEOUT",
                    hint="look at the journal: ttserver events",
                )
            await send({"progress": one_line(msgspec.to_builtins(status))})
            await asyncio.sleep(PROGRESS_S)
        return status

    def _must_be_master(self) -> None:
        master = self._engine.master
        if self._engine.role == "replicant" and master is not None:
            raise ControlError(
                f"switchover refused: this site is a replicant of {master}",
                code="READONLY",
                hint=f"run the same command on {master.rpartition(':')[0]}, which is master",
            )

    def _manager(self, what: str) -> Manager:
        self._must_be_open(what)
        manager = self._engine.manager
        if manager is None:
            raise ControlError(
                f"{what}: replication is off",
                hint="start the daemon without --no-replication",
            )
        return manager


def _told(changed: Changed) -> dict[str, object]:
    return {
        "site": str(changed.site),
        "members": changed.members,
        "version": changed.version,
        "connected": changed.connected,
        "note": changed.note,
    }


def _site(request: Mapping[str, Any]) -> SiteAddress:
    try:
        address = parse_address(str(request.get("site")))
    except ValueError as error:
        raise ControlError(
            f"site {error}", code="USAGE", hint="write it as `ttserver sites` shows it"
        ) from None
    return SiteAddress(address.host, address.port)
