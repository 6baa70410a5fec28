"""Work over many volumes: what is due is sent on its way, a repository is compared with a scan.

A job is done in steps of some volumes, each a transaction of its own, so that it holds up nobody.
Done again it changes nothing more. Each volume is judged inside the transaction that changes it,
and one that cannot be changed is an outcome, not an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

from storage.catalog.files import behind, keys_from
from storage.catalog.index import CURRENT
from storage.catalog.moves import AUDIT_FAILED, PENDING, PICKED_UP, SCANNED_OUT, Moves
from storage.catalog.moves import seen as seen_there
from storage.catalog.names import VOLUME_ID, CatalogError, media_of
from storage.catalog.records import Actor, Repository, Volume, with_flags
from storage.catalog.store import CatalogStore, Change
from storage.catalog.tree import Tree
from storage.catalog.volumes import Volumes

if TYPE_CHECKING:
    from berkeleydb import db

STEP_VOLUMES: Final = 100  # of one transaction, about 10 ms

Verdict: TypeAlias = Literal[
    "moving",  # sent on its way
    "pending",  # due, and somebody has to look at it
    "locked",  # nothing was changed
    "reconciled",  # it is where it was scanned
    "confirmed",  # it came there by this scan
    "missing",  # it should have been scanned
    "outgoing",  # not scanned, and on its way out
    "in container",  # not scanned, and nobody opened the container it is in
    "unknown",  # there is no such volume
    "wrong place",  # it belongs elsewhere
    "done",  # nothing was to be done
]


class Outcome(msgspec.Struct, frozen=True):
    """What a job made of one volume.

    Args:
        name: the volume, or what was scanned.
        verdict: see `Verdict`.
        place: where it is, a repository's ID.
        target: where it has to be.
        why: what stood in the way.
    """

    name: str
    verdict: Verdict
    place: str = ""
    target: str = ""
    why: str = ""


class Balance(msgspec.Struct, frozen=True):
    """What a repository has, and what is on its way.

    Args:
        inside: volumes in it.
        incoming: on their way to it.
        outgoing: of those in it, on their way from it.
        scratch: blank volumes elsewhere by repository, in the order they are to be used.
    """

    repository: str
    inside: int
    incoming: int
    outgoing: int
    scratch: tuple[tuple[str, int], ...]

    @property
    def difference(self) -> int:
        """Volumes it will have more than now; below 0 so many blank ones have to be brought."""
        return self.incoming - self.outgoing


class Jobs:
    """See the module's text.

    Args:
        store: where the records are.
        tree: gives the repositories.
        volumes: the rules.
        moves: the steps.
    """

    def __init__(self, store: CatalogStore, tree: Tree, volumes: Volumes, moves: Moves) -> None:
        self._store = store
        self._tree = tree
        self._volumes = volumes
        self._moves = moves

    # -- move dates

    def expire(
        self, txn: db.DBTxn, actor: Actor, names: Sequence[str], on: date, *, dry: bool = False
    ) -> list[Outcome]:
        """Send those of some volumes that are due to the repository that comes next.

        Args:
            txn: the transaction.
            actor: who.
            names: the volumes, at most `STEP_VOLUMES`.
            on: the day; volumes with this date or an earlier one are due.
            dry: tell only what would become of them.
        """
        outcomes: list[Outcome] = []
        for name in names:
            outcome, changes = self._expired(txn, actor, name, on)
            if changes and not dry:
                self._store.write(txn, actor, changes)
            outcomes.append(outcome)
        return outcomes

    def _expired(
        self, txn: db.DBTxn, actor: Actor, name: str, on: date
    ) -> tuple[Outcome, list[Change]]:
        volume = self._store.volume(txn, name)
        if volume is None or volume.date is None or volume.date > on or PENDING in volume.flags:
            return Outcome(name, "done"), []
        here, target = volume.current.repository, volume.target.repository
        try:
            self._volumes.unlocked(txn, name, "")
        except CatalogError as locked:
            return Outcome(name, "locked", here, target, str(locked)), []
        why = ""
        try:
            following = self._following(txn, name, volume)
            step = self._moves.bound_for(actor, following, PENDING)
            changes = self._moves.plan(txn, name, volume, "expire", step)
        except CatalogError as refused:
            why = str(refused)
        else:
            return Outcome(name, "moving", here, following), changes
        pending = msgspec.structs.replace(volume, flags=with_flags(volume.flags, PENDING))
        return Outcome(name, "pending", here, target, why), [
            Change(name, volume, pending, "expire")
        ]

    def _following(self, txn: db.DBTxn, name: str, volume: Volume) -> str:
        """Find where a due volume goes.

        Raises:
            CatalogError: it does not go by itself.
        """
        self._volumes.unlocked(txn, name, "l")
        place = f"{media_of(name)}.{volume.current.repository}"
        if volume.container:
            raise CatalogError(f"it is in container {volume.container}")
        if volume.moving:
            raise CatalogError(f"it is on its way to {volume.target.repository} already")
        following = self._store.the_repository(txn, place).next
        if not following:
            raise CatalogError(f"no repository comes next after {place}")
        return self._volumes.place_for(txn, name, following)

    # -- scans of a repository

    def present(self, txn: db.DBTxn, repository: str, after: str) -> list[str]:
        """Names of volumes in a repository behind `after`, some at a time; empty at the end."""
        prefix = f"{CURRENT} {repository} ".encode()
        start = behind(prefix + after.rpartition(".")[2].encode()) if after else prefix
        keys = keys_from(self._store.files(txn).index.handle(), txn, start, prefix, STEP_VOLUMES)
        media = media_of(repository)
        return [f"{media}.{key[len(prefix) :].decode()}" for key in keys]

    def reconcile(
        self,
        txn: db.DBTxn,
        actor: Actor,
        repository: str,
        names: Sequence[str],
        *,
        scanned: bool,
        dry: bool = False,
    ) -> list[Outcome]:
        """Compare some volumes with a scan of a repository.

        Args:
            txn: the transaction.
            actor: who.
            repository: its name.
            names: volumes of its media type, at most `STEP_VOLUMES`.
            scanned: they were seen there; else they were not.
            dry: tell only what would become of them.
        """
        outcomes: list[Outcome] = []
        for name in names:
            outcome, changes = (
                self._scanned(txn, actor, repository, name)
                if scanned
                else self._not_scanned(txn, repository, name)
            )
            if changes and not dry:
                self._store.write(txn, actor, changes)
            outcomes.append(outcome)
        return outcomes

    def _scanned(
        self, txn: db.DBTxn, actor: Actor, repository: str, name: str
    ) -> tuple[Outcome, list[Change]]:
        media, _, here = repository.rpartition(".")
        known = VOLUME_ID.fullmatch(name.removeprefix(f"{media}.")) is not None
        volume = self._store.volume(txn, name) if known else None
        if volume is None:
            return Outcome(name, "unknown"), []
        place, target = volume.current.repository, volume.target.repository
        try:
            if place == here:
                self._volumes.unlocked(txn, name, "")
                change = Change(name, volume, seen_there(actor, volume), "reconcile")
                return Outcome(name, "reconciled", place, target), [change]
            if target != here:
                return Outcome(name, "wrong place", place, target), []
            self._volumes.unlocked(txn, name, "l")
            changes = self._moves.plan_arrival(txn, actor, name, volume, "reconcile")
        except CatalogError as refused:
            return Outcome(name, "locked", place, target, str(refused)), []
        if volume.container:
            why = f"it moves with its container {volume.container}"
            return Outcome(name, "wrong place", place, target, why), []
        return Outcome(name, "confirmed", here, target), changes

    def _not_scanned(
        self, txn: db.DBTxn, repository: str, name: str
    ) -> tuple[Outcome, list[Change]]:
        volume = self._store.volume(txn, name)
        here = repository.rpartition(".")[2]
        if volume is None or volume.current.repository != here:
            return Outcome(name, "done"), []
        target = volume.target.repository
        if volume.moving and set(volume.flags) & {SCANNED_OUT, PICKED_UP}:
            return Outcome(name, "outgoing", here, target), []
        if volume.container:
            return Outcome(name, "in container", here, target, f"in {volume.container}"), []
        try:
            self._volumes.unlocked(txn, name, "")
        except CatalogError as locked:
            return Outcome(name, "missing", here, target, str(locked)), []
        if AUDIT_FAILED in volume.flags:
            return Outcome(name, "missing", here, target), []
        flags = with_flags(volume.flags, AUDIT_FAILED)
        after = msgspec.structs.replace(volume, flags=flags)
        return Outcome(name, "missing", here, target), [Change(name, volume, after, "reconcile")]

    # -- balance

    def balance(self, txn: db.DBTxn, repository: str) -> Balance:
        """Tell what a repository has, and what is on its way.

        Raises:
            CatalogError: NOTFOUND.
        """
        self._store.the_repository(txn, repository)
        inside, incoming, outgoing = self._store.counts(txn, repository)
        blank: list[tuple[int, str, int]] = []
        for name, record in self._tree.below(txn, media_of(repository)):
            if isinstance(record, Repository) and record.scratch and name != repository:
                blank.append((record.priority, name, self._store.counts(txn, name)[0]))
        return Balance(
            repository,
            inside,
            incoming,
            outgoing,
            tuple((name, count) for _, name, count in sorted(blank)),
        )
