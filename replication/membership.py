"""The site list of a group: its records, its changes and who may be told of it (pure).

A site becomes a member, or stops being one, in two steps, each a transaction of its own that counts
the version up by one:

    now         adding()    present()   deleting()  removed()
    absent      adding      -           -           -
    adding      adding      present     -           absent (taken back)
    present     -           -           deleting    -
    deleting    -           present     deleting    absent
                            (taken back)

    -  raises MembershipError

Version and generation say which of two lists is newer, the generation first.

Some lists and databases make the environment of a native site panic.  They can't be made here:

    a database without the meta record, or without a member     encode_gmdb, gmdb_changes
    a change without a new version, or of two versions at once  gmdb_changes
    a list shared with a site that is not present in it         share_for

Membership database (`__db.membership` in `__db.rep.system`, a btree): key = host length u32 (with
NUL), host NUL, port u16; data = status u32.  The meta record, key six zero bytes, sorts first; its
data is format u32 = 1, version u32.  All big-endian.

Source: the library's group membership database, format 1; repmgr protocol 4 SHARING.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from replication.bodies import (
    MembershipList,
    SiteAddress,
    SiteRecord,
    decode_host_port,
    encode_host_port,
    encode_membership_list,
)
from replication.errors import MembershipError, RemoteProtocolError
from replication.messages import GMDB_FORMAT, SiteStatus

if TYPE_CHECKING:
    from collections.abc import Iterable

GMDB_FILE: Final = "__db.rep.system"
GMDB_DATABASE: Final = "__db.membership"
META_KEY: Final = bytes(6)

_U32: Final = struct.Struct(">I")
_META: Final = struct.Struct(">II")
_STATUSES: Final = frozenset(SiteStatus)


@dataclass(frozen=True, slots=True, order=True)
class Member:
    """A site in the list."""

    host: str
    port: int
    status: SiteStatus = SiteStatus.PRESENT

    @property
    def address(self) -> SiteAddress:
        """The site's identity."""
        return SiteAddress(self.host, self.port)


@dataclass(frozen=True, slots=True)
class Membership:
    """A site list at one version; every change makes a new one.

    Args:
        version: counts changes, from 1.
        generation: the replication generation in which this list was read or changed.
        members: sorted by address, each address once, at least one.
    """

    version: int
    generation: int
    members: tuple[Member, ...]

    def __post_init__(self) -> None:
        addresses = [member.address for member in self.members]
        if not addresses:
            raise _error("site list without a member", "empty_list")
        if self.version < 1:
            raise _error(f"site list of version {self.version}, the first is 1", "bad_version")
        if len(set(addresses)) != len(addresses):
            raise _error("site list names a site twice", "duplicate_site")
        object.__setattr__(self, "members", tuple(sorted(self.members)))

    @classmethod
    def create(cls, creator: SiteAddress, generation: int) -> Membership:
        """Return the list of a new group: its creator alone, version 1."""
        return cls(1, generation, (Member(*creator),))

    @classmethod
    def from_list(cls, sites: MembershipList) -> Membership:
        """Judge a list that came over the wire.

        Raises:
            RemoteProtocolError: it names a site twice, none at all, or an unknown status.
        """
        try:
            members = tuple(_member(record.address, record.status) for record in sites.sites)
            return cls(sites.version, sites.generation, members)
        except MembershipError as error:
            raise RemoteProtocolError(
                f"shared {error}",
                code="bad_membership_list",
                hint="compare the site lists of the group (ttserver sites)",
            ) from error

    # --- looking things up

    def find(self, site: SiteAddress) -> Member | None:
        """Return the record of a site, None if it is not in the list."""
        return next((member for member in self.members if member.address == site), None)

    def is_present(self, site: SiteAddress) -> bool:
        """Tell whether a site is a full member, the only kind whose link is accepted."""
        member = self.find(site)
        return member is not None and member.status is SiteStatus.PRESENT

    def others(self, local: SiteAddress) -> tuple[Member, ...]:
        """Return everybody but this site."""
        return tuple(member for member in self.members if member.address != local)

    @property
    def nsites(self) -> int:
        """Group size for elections and quorums: members of any status."""
        return len(self.members)

    @property
    def unfinished(self) -> Member | None:
        """Return a site whose change stopped after the first step; finish it before another."""
        return next(
            (member for member in self.members if member.status is not SiteStatus.PRESENT), None
        )

    # --- changes, one step each

    def adding(self, site: SiteAddress) -> Membership:
        """First step of adding; again if it was begun before and not finished."""
        return self._changed(site, SiteStatus.ADDING, allowed=(None, SiteStatus.ADDING))

    def present(self, site: SiteAddress) -> Membership:
        """Second step of adding; also takes back a removal that was not finished."""
        return self._changed(
            site, SiteStatus.PRESENT, allowed=(SiteStatus.ADDING, SiteStatus.DELETING)
        )

    def deleting(self, site: SiteAddress) -> Membership:
        """First step of removing; again if it was begun before and not finished."""
        return self._changed(
            site, SiteStatus.DELETING, allowed=(SiteStatus.PRESENT, SiteStatus.DELETING)
        )

    def removed(self, site: SiteAddress) -> Membership:
        """Second step of removing; also takes back an addition that was not finished."""
        return self._changed(site, None, allowed=(SiteStatus.DELETING, SiteStatus.ADDING))

    def _changed(
        self,
        site: SiteAddress,
        status: SiteStatus | None,
        allowed: tuple[SiteStatus | None, ...],
    ) -> Membership:
        member = self.find(site)
        now = member.status if member is not None else None
        if now not in allowed:
            raise _error(
                f"{site} can't become {_name(status)}: it is {_name(now)} in the site list of"
                f" version {self.version}",
                "wrong_step",
                site=str(site),
            )
        rest = tuple(other for other in self.members if other.address != site)
        if status is None and not rest:
            raise _error(f"{site} can't be removed: it is the only member", "last_member")
        members = rest if status is None else (*rest, Member(*site, status))
        return replace(self, version=self.version + 1, members=members)

    def in_generation(self, generation: int) -> Membership:
        """Return the same list as of another generation, as a new master announces it."""
        return replace(self, generation=generation)

    # --- older and newer

    def is_older_than(self, generation: int, version: int) -> bool:
        """Tell whether a list with these numbers would replace this one."""
        return (self.generation, self.version) < (generation, version)

    def newer(self, other: Membership) -> Membership:
        """Return the newer of two lists; this one if they are of equal age."""
        return other if self.is_older_than(other.generation, other.version) else self

    # --- telling others

    def share_for(self, receiver: SiteAddress) -> bytes:
        """Return the body of SHARING or JOIN_SUCCESS for one receiver.

        Raises:
            MembershipError: the receiver is not present in the list.  A native site's environment
                panics when it is told so; drop its link and let it learn by CONNECT_REJECT.
        """
        if not self.is_present(receiver):
            raise _error(
                f"site list of version {self.version} can't be shared with {receiver}: it is no"
                " present member",
                "not_a_member",
                site=str(receiver),
            )
        return encode_membership_list(self.to_list())

    def to_list(self) -> MembershipList:
        """Return the list as it travels."""
        records = tuple(SiteRecord(m.host, m.port, int(m.status)) for m in self.members)
        return MembershipList(self.version, self.generation, records)


# --- membership database -----------------------------------------------------------------------


def gmdb_key(site: SiteAddress) -> bytes:
    """Return the key of a site's record."""
    return encode_host_port(site)


def gmdb_value(status: SiteStatus) -> bytes:
    """Return the data of a site's record."""
    return _U32.pack(status)


def gmdb_meta(version: int) -> bytes:
    """Return the data of the meta record, whose key is META_KEY."""
    return _META.pack(GMDB_FORMAT, version)


def encode_gmdb(sites: Membership) -> list[tuple[bytes, bytes]]:
    """Return all records of a new membership database in the order of their keys."""
    records = [(gmdb_key(member.address), gmdb_value(member.status)) for member in sites.members]
    return [(META_KEY, gmdb_meta(sites.version)), *sorted(records)]


def gmdb_changes(old: Membership, new: Membership) -> list[tuple[bytes, bytes | None]]:
    """Return what one transaction must write to get from `old` to `new`; None deletes the key.

    Raises:
        MembershipError: `new` is not the very next version of `old`.
    """
    if new.version != old.version + 1:
        raise _error(
            f"site list can't go from version {old.version} to {new.version} in one transaction",
            "skipped_version",
        )
    before = {member.address: member.status for member in old.members}
    after = {member.address: member.status for member in new.members}
    changes: list[tuple[bytes, bytes | None]] = [(META_KEY, gmdb_meta(new.version))]
    changes += [
        (gmdb_key(site), gmdb_value(status))
        for site, status in after.items()
        if before.get(site) is not status
    ]
    changes += [(gmdb_key(site), None) for site in before.keys() - after.keys()]
    return changes


def decode_gmdb(items: Iterable[tuple[bytes, bytes]], generation: int) -> Membership:
    """Read the records of a membership database, native or ours.

    Args:
        items: all keys and data, in any order.
        generation: the generation the database belongs to; it is not stored in it.

    Raises:
        MembershipError: no meta record, another format, no site, or a record that makes no sense.
    """
    version: int | None = None
    members = []
    for key, data in items:
        if key == META_KEY:
            version = _decode_meta(data)
            continue
        try:
            site = decode_host_port("membership key", key)
        except RemoteProtocolError as error:
            raise _error(f"membership database: {error}", "bad_record") from error
        if len(data) != _U32.size:
            raise _error(f"membership database: {site} has {len(data)} bytes", "bad_record")
        members.append(_member(site, _U32.unpack(data)[0]))
    if version is None:
        raise _error("membership database without meta record", "no_meta_record")
    return Membership(version, generation, tuple(members))


def _decode_meta(data: bytes) -> int:
    if len(data) != _META.size:
        raise _error(f"membership database: meta record of {len(data)} bytes", "bad_record")
    format_, version = _META.unpack(data)
    if format_ != GMDB_FORMAT:
        raise _error(
            f"membership database of format {format_}, this program knows {GMDB_FORMAT}",
            "unknown_format",
        )
    return int(version)


# --- two connections between the same sites ----------------------------------------------------


def keeps_outgoing(local: SiteAddress, peer: SiteAddress) -> bool:
    """Tell whether this site keeps its own connection when the peer's arrives beside it.

    The connection dialled by the site with the lower address survives: the other side closes what
    it dialled.  Compared by host bytes, then port.  A native site may keep both when the hosts
    differ, so two live links to one site must do no harm.
    """
    return (local.host.encode(), local.port) < (peer.host.encode(), peer.port)


def _member(site: SiteAddress, status: int) -> Member:
    if status not in _STATUSES:
        raise _error(f"site list gives {site} the status {status}", "unknown_status")
    return Member(*site, SiteStatus(status))


def _name(status: SiteStatus | None) -> str:
    return "absent" if status is None else status.name.lower()


def _error(text: str, code: str, **facts: object) -> MembershipError:
    return MembershipError(
        text, code=code, hint="compare the site lists of the group (ttserver sites)", **facts
    )
