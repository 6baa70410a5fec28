"""The life of a volume: where it has to go, on its way, arrived, called back.

A container carries what is in it: one operation, one record of history for each volume. What is
inside a container moves with it and not by itself. It arrives with it, too, but only what was
scanned itself is confirmed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from storage.catalog.names import CatalogError, check_volume, media_of, repository_in
from storage.catalog.records import MOVED_BACK, Actor, Place, Volume, with_flags
from storage.catalog.store import CatalogStore, Change
from storage.catalog.volumes import Volumes

if TYPE_CHECKING:
    from berkeleydb import db

SCANNED_OUT: Final = "U"
PICKED_UP: Final = "K"
PENDING: Final = "p"
AUDIT_FAILED: Final = "a"

Step: TypeAlias = Callable[[Volume], Volume]  # makes a volume's next record of its last


class Moved(msgspec.Struct, frozen=True):
    """What an operation did.

    Args:
        name: the volume.
        volume: its record now.
        carried: volumes inside it that went along.
        warnings: what the user should know.
    """

    name: str
    volume: Volume
    carried: int = 0
    warnings: tuple[str, ...] = ()


class Moves:
    """See the module's text.

    Args:
        store: where the records are.
        volumes: the rules they obey.
    """

    def __init__(self, store: CatalogStore, volumes: Volumes) -> None:
        self._store = store
        self._volumes = volumes

    def move(self, txn: db.DBTxn, actor: Actor, name: str, repository: str) -> Moved:
        """Ask for a volume to be brought to a repository.

        Raises:
            CatalogError: INVALID, NOTFOUND, LOCKED, REFUSED.
        """
        volume = self._alone(txn, name)
        target = self._volumes.place_for(txn, name, repository)
        if target == volume.target.repository:
            doing = "is on its way to" if volume.moving else "is in"
            return Moved(name, volume, warnings=(f"volume {name} {doing} {target} already",))
        if target == volume.current.repository:
            return self._back(txn, actor, name, volume)
        return self._carry(txn, actor, name, volume, "move", self.bound_for(actor, target))

    def scan_out(self, txn: db.DBTxn, actor: Actor, name: str) -> Moved:
        """Note that a moving volume was scanned out of its repository.

        Raises:
            CatalogError: INVALID, NOTFOUND, LOCKED, REFUSED.
        """
        return self._mark(txn, actor, name, "scanout", SCANNED_OUT)

    def pick_up(self, txn: db.DBTxn, actor: Actor, name: str) -> Moved:
        """Note that a moving volume was picked up by whoever brings it.

        Raises:
            CatalogError: INVALID, NOTFOUND, LOCKED, REFUSED.
        """
        return self._mark(txn, actor, name, "pickup", PICKED_UP)

    def confirm(self, txn: db.DBTxn, actor: Actor, name: str, repository: str = "") -> Moved:
        """Note that a volume was scanned in at a repository, its target when none is named.

        A volume that is still at its repository is seen there, and goes on waiting for its move.

        Raises:
            CatalogError: INVALID, NOTFOUND, LOCKED, REFUSED.
        """
        volume = self._volumes.unlocked(txn, name, "")
        media = media_of(name)
        place = repository_in(media, repository) if repository else volume.target.repository
        if place == volume.current.repository:
            return self._seen(txn, actor, name, volume)
        if place != volume.target.repository:
            raise CatalogError(
                f"volume {name} is in the wrong place: scanned at {place}, it is at"
                f" {volume.current.repository} and bound for {volume.target.repository}",
                code="REFUSED",
                hint=f"move it there first: VOLUME.MOVE {name} {place}.",
            )
        self._alone(txn, name)
        changes = self.plan_arrival(txn, actor, name, volume, "confirm")
        return self._write(txn, actor, changes)

    def cancel(self, txn: db.DBTxn, actor: Actor, name: str) -> Moved:
        """Call a moving volume back to where it is.

        Raises:
            CatalogError: INVALID, NOTFOUND, LOCKED, REFUSED.
        """
        volume = self._moving(txn, name)
        return self._back(txn, actor, name, volume)

    # -- steps that jobs share

    @staticmethod
    def bound_for(actor: Actor, target: str, add: str = "") -> Step:
        """The step to a new target."""

        def step(volume: Volume) -> Volume:
            return msgspec.structs.replace(
                volume,
                target=actor.place(target),
                flags=with_flags(volume.flags, add, SCANNED_OUT + PICKED_UP + MOVED_BACK),
            )

        return step

    def plan(self, txn: db.DBTxn, name: str, volume: Volume, what: str, step: Step) -> list[Change]:
        """Plan a step of a volume and of all that is in it.

        Raises:
            CatalogError: NOTFOUND, LOCKED, REFUSED: one of its contents cannot go along.
        """
        changes = [Change(name, volume, step(volume), what)]
        if not volume.contents:
            return changes
        for inner, inside in self._volumes.contents(txn, name):
            self._volumes.unlocked(txn, inner, "l")
            after = step(inside)
            self._volumes.place_for(txn, inner, after.target.repository)
            changes.append(Change(inner, inside, after, what))
        return changes

    def plan_arrival(
        self, txn: db.DBTxn, actor: Actor, name: str, volume: Volume, what: str
    ) -> list[Change]:
        """Plan that a volume was scanned at its target, as `plan`."""

        def step(one: Volume) -> Volume:
            return arrived(actor, one)

        first, *carried = self.plan(txn, name, volume, what, step)
        for at, change in enumerate(carried):
            assert change.before is not None
            assert change.after is not None
            after = msgspec.structs.replace(change.after, scanned=change.before.scanned)
            carried[at] = Change(change.name, change.before, after, what)
        return [first, *carried]

    def _carry(
        self,
        txn: db.DBTxn,
        actor: Actor,
        name: str,
        volume: Volume,
        what: str,
        step: Step,
        warnings: tuple[str, ...] = (),
    ) -> Moved:
        return self._write(txn, actor, self.plan(txn, name, volume, what, step), warnings)

    def _write(
        self,
        txn: db.DBTxn,
        actor: Actor,
        changes: list[Change],
        warnings: tuple[str, ...] = (),
    ) -> Moved:
        self._store.write(txn, actor, changes)
        after = changes[0].after
        assert after is not None, "a step deletes nothing"
        return Moved(changes[0].name, after, len(changes) - 1, warnings)

    # -- rules

    def _alone(self, txn: db.DBTxn, name: str) -> Volume:
        """Find a volume that may be moved by itself."""
        volume = self._volumes.unlocked(txn, check_volume(name), "l")
        if volume.container:
            raise CatalogError(
                f"volume {name} moves with its container {volume.container}",
                code="REFUSED",
                hint="move the container, or take the volume out: VOLUME.SET name CONTAINER ''.",
            )
        return volume

    def _moving(self, txn: db.DBTxn, name: str) -> Volume:
        volume = self._alone(txn, name)
        if not volume.moving:
            raise CatalogError(
                f"volume {name} is not moving: it is in {volume.current.repository}",
                code="REFUSED",
                hint=f"say where it has to go first: VOLUME.MOVE {name} repository.",
            )
        return volume

    def _mark(self, txn: db.DBTxn, actor: Actor, name: str, what: str, flag: str) -> Moved:
        volume = self._moving(txn, name)

        def step(one: Volume) -> Volume:
            return msgspec.structs.replace(one, flags=with_flags(one.flags, flag))

        return self._carry(txn, actor, name, volume, what, step)

    def _seen(self, txn: db.DBTxn, actor: Actor, name: str, volume: Volume) -> Moved:
        """Scanned where it is; what is in a container is not seen with it."""
        after = seen(actor, volume)
        self._store.write(txn, actor, [Change(name, volume, after, "confirm")])
        warnings: tuple[str, ...] = ()
        if volume.moving:
            warnings = (f"volume {name} is still bound for {volume.target.repository}",)
        return Moved(name, after, warnings=warnings)

    def _back(self, txn: db.DBTxn, actor: Actor, name: str, volume: Volume) -> Moved:
        warnings: tuple[str, ...] = ()
        if self._store.the_media(txn, media_of(name)).warn_back:
            here, there = volume.current.repository, volume.target.repository
            warnings = (
                f"volume {name} was moved back to {here} before it was confirmed at {there}",
            )

        def step(one: Volume) -> Volume:
            return msgspec.structs.replace(
                one,
                target=actor.place(one.current.repository),
                flags=with_flags(one.flags, MOVED_BACK, SCANNED_OUT + PICKED_UP),
            )

        return self._carry(txn, actor, name, volume, "cancel", step, warnings)


def arrived(actor: Actor, volume: Volume) -> Volume:
    """The record of a volume that came to its target.

    The date that was the reason for the move has been met.
    """
    here: Place = actor.place(volume.target.repository)
    met = PENDING in volume.flags
    cleared = SCANNED_OUT + PICKED_UP + AUDIT_FAILED + MOVED_BACK + PENDING
    return msgspec.structs.replace(
        volume,
        current=here,
        scanned=here,
        date=None if met else volume.date,
        flags=with_flags(volume.flags, remove=cleared),
    )


def seen(actor: Actor, volume: Volume) -> Volume:
    """The record of a volume that was scanned where it is."""
    return msgspec.structs.replace(
        volume,
        scanned=actor.place(volume.current.repository),
        flags=with_flags(volume.flags, remove=AUDIT_FAILED),
    )
