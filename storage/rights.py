"""Who may do what: one pure decision.

Rights are levels, each with those before it:

    READ     see a customer's inventory         ADMIN    its media types and repositories, itself
    WRITE    move, confirm, mark, describe      SYSTEM   users, groups, the server, its sites
    ALTER    add and delete volumes

A group grants a level for the customers that a filter names. What belongs to no customer, the
plain keys and the server itself, is granted by the filter `*` alone: whoever has READ or WRITE
there reads or writes plain keys, whoever has SYSTEM runs the server.

    administrator           everything
    in a group              what the group grants; the highest level that any filter gives counts
    in no group             plain keys, and nothing of the catalog
    disabled, revoked       nothing
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, Literal, TypeAlias

import msgspec

from storage.catalog.filters import EVERYTHING, compile_filter

RightName: TypeAlias = Literal["READ", "WRITE", "ALTER", "ADMIN", "SYSTEM"]


class Right(IntEnum):
    """A level; see the module's text."""

    NONE = 0
    READ = 1
    WRITE = 2
    ALTER = 3
    ADMIN = 4
    SYSTEM = 5


RIGHTS: Final = tuple(right.name for right in Right if right)


class Grant(msgspec.Struct, frozen=True):
    """A level for some customers.

    Args:
        customers: a filter of customer IDs; `*` is all there are, and what belongs to none.
        right: the level.
    """

    customers: str
    right: RightName


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """Whoever wants something, as far as it decides.

    Args:
        administrator: may do everything.
        may_log_on: neither disabled nor revoked.
        grouped: is in a group.
        grants: of that group.
    """

    administrator: bool = False
    may_log_on: bool = True
    grouped: bool = False
    grants: tuple[Grant, ...] = ()


def right_for(subject: Subject | None, customer: str | None) -> Right:
    """Decide what somebody may do.

    Args:
        subject: who; None is nobody.
        customer: with whose objects; None is what belongs to no customer.

    Returns:
        The highest level.
    """
    if subject is None or not subject.may_log_on:
        return Right.NONE
    if subject.administrator:
        return Right.SYSTEM
    if not subject.grouped:
        return Right.WRITE if customer is None else Right.NONE
    return max(
        (Right[grant.right] for grant in subject.grants if _covers(grant, customer)),
        default=Right.NONE,
    )


def key_rights(subject: Subject | None) -> frozenset[str]:
    """What somebody may do with plain keys and the server: some of `read`, `write`, `system`."""
    level = right_for(subject, None)
    found = {"read"} if level >= Right.READ else set()
    if level >= Right.WRITE:
        found.add("write")
    if level >= Right.SYSTEM:
        found.add("system")
    return frozenset(found)


def _covers(grant: Grant, customer: str | None) -> bool:
    if customer is None:
        return grant.customers == EVERYTHING
    return bool(compile_filter(grant.customers).matches(customer))
