"""USER, GROUP, PASSWD, WHOAMI: who may log on, and what they may do then.

Passwords are hashed on a thread before the write is queued. Whoever changes a user ends that user's
connections to this site: what a connection may do with plain keys is decided when it logs on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, Final, get_args

import msgspec

from storage.catalog.names import CatalogError, shown
from storage.groups import GroupRecord, checked_group
from storage.passwords import PasswordRefused, hash_password
from storage.rights import Grant, Right, RightName, key_rights, right_for
from storage.users import UserError, UserRecord, new_record
from ttserver.commands.catalog_jobs import write_now
from ttserver.commands.catalog_request import (
    Option,
    Options,
    Request,
    must,
    named,
    options,
    plain,
    read,
    refusal,
    request,
    word,
    write,
    yes_no,
)
from ttserver.commands.context import Client, Store
from ttserver.commands.table import Command, Kind
from ttserver.errors import TtserverError
from ttserver.replies import OK, CommandError, Value

if TYPE_CHECKING:
    from berkeleydb.db import DBTxn


def grants(value: str, _today: date) -> tuple[Grant, ...]:
    """Read `RIGHT:filter` pairs with blanks between them.

    Raises:
        CommandError: there is no such right.
    """
    found = []
    for pair in value.split():
        name, _, customers = pair.partition(":")
        right: RightName | None = next(
            (one for one in get_args(RightName) if one == name.upper()), None
        )
        if right is None or not customers:
            raise CommandError(
                f"INVALID grant {shown(pair)} refused: write READ:* or WRITE:US*, rights are"
                f" {', '.join(get_args(RightName))}"
            )
        found.append(Grant(customers, right))
    return tuple(found)


_GROUP: Final[Options] = {"ROLE": Option("role", plain), "GRANTS": Option("grants", grants)}
_USER: Final[Options] = {
    "GROUP": Option("group", plain),
    "DISABLED": Option("disabled", yes_no),
    "REVOKED": Option("revoked", yes_no),
}


def user_map(record: UserRecord) -> dict[str, Value]:
    """One user, without the hash."""
    return {
        "name": record.name,
        "role": record.role,
        "group": record.group or None,
        "created": record.created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "disabled": record.disabled,
        "revoked": record.revoked,
    }


def group_map(record: GroupRecord) -> dict[str, Value]:
    """One group."""
    return {
        "name": record.name,
        "role": record.role,
        "grants": [f"{grant.right}:{grant.customers}" for grant in record.grants],
    }


# -- groups


def group_add(store: Store, txn: DBTxn, asked: Request) -> Value:
    """GROUP.ADD name [ROLE text] [GRANTS grants]."""
    must(store, txn, asked, Right.SYSTEM, None)
    record = checked_group(GroupRecord(name=asked.name, **asked.given))
    store.groups.put(txn, record, new=True)
    return group_map(record)


def group_set(store: Store, txn: DBTxn, asked: Request) -> Value:
    """GROUP.SET name [ROLE text] [GRANTS grants]; the grants replace those before."""
    must(store, txn, asked, Right.SYSTEM, None)
    before = store.groups.existing(txn, asked.name)
    record = checked_group(msgspec.structs.replace(before, **asked.given))
    store.groups.put(txn, record, new=False)
    return group_map(record)


def group_get(store: Store, txn: DBTxn, asked: Request) -> Value:
    """GROUP.GET name."""
    must(store, txn, asked, Right.SYSTEM, None)
    return group_map(store.groups.existing(txn, asked.name))


def group_list(store: Store, txn: DBTxn, asked: Request) -> Value:
    """GROUP.LIST."""
    must(store, txn, asked, Right.SYSTEM, None)
    return [group_map(record) for record in store.groups.list(txn)]


def group_delete(store: Store, txn: DBTxn, asked: Request) -> Value:
    """GROUP.DEL name."""
    must(store, txn, asked, Right.SYSTEM, None)
    store.groups.remove(txn, asked.name, store.users)
    return OK


# -- users


def user_get(store: Store, txn: DBTxn, asked: Request) -> Value:
    """USER.GET name."""
    must(store, txn, asked, Right.SYSTEM, None)
    return user_map(store.users.existing(txn, asked.name))


def user_list(store: Store, txn: DBTxn, asked: Request) -> Value:
    """USER.LIST."""
    must(store, txn, asked, Right.SYSTEM, None)
    return [user_map(record) for record in store.users.list(txn)]


async def user_add(client: Client, args: Sequence[bytes]) -> Value:
    """USER.ADD name password GROUP group."""
    given = options(args[3:], {"GROUP": _USER["GROUP"]}, request(client).today)
    name, password = word(args[1]), word(args[2])
    await _allowed(client, Right.SYSTEM)
    record = await _off_the_loop(lambda: new_record(name, password))
    record = msgspec.structs.replace(record, group=given.get("group", ""))
    accounts = client.server.engine.accounts
    await _write_as_system(client, lambda txn: accounts.add(txn, record))
    client.server.engine.journal.write_seldom(
        "user_added", every_s=1.0, burst=100, user=name, role=record.role
    )
    return user_map(record)


async def user_set(client: Client, args: Sequence[bytes]) -> Value:
    """USER.SET name [GROUP group] [DISABLED yesno] [REVOKED no]."""
    given = options(args[2:], _USER, request(client).today)
    if given.get("revoked"):
        raise CommandError("INVALID REVOKED yes refused: close an account with DISABLED yes")
    name, by = word(args[1]), client.user
    accounts = client.server.engine.accounts
    record = await _write_as_system(client, lambda txn: accounts.change(txn, by, name, **given))
    _end_others(client, name)
    return user_map(record)


async def user_passwd(client: Client, args: Sequence[bytes]) -> Value:
    """USER.PASSWD name password."""
    name, password, by = word(args[1]), word(args[2]), client.user
    await _allowed(client, Right.SYSTEM)
    hashed = await _off_the_loop(lambda: hash_password(password, name))
    accounts = client.server.engine.accounts
    await _write_as_system(client, lambda txn: accounts.set_password(txn, by, name, hashed))
    _changed_password(client, name)
    return OK


async def user_delete(client: Client, args: Sequence[bytes]) -> Value:
    """USER.DEL name."""
    name = word(args[1])
    accounts = client.server.engine.accounts
    await _write_as_system(client, lambda txn: accounts.remove(txn, name))
    client.server.engine.journal.write_seldom("user_removed", every_s=1.0, burst=100, user=name)
    _end_others(client, name)
    return OK


async def passwd(client: Client, args: Sequence[bytes]) -> Value:
    """PASSWD old new: one's own."""
    old, new, name = word(args[1]), word(args[2]), client.user
    engine = client.server.engine
    await write_now(client, lambda _txn: None)  # says at once that this site takes no writes
    try:
        await client.server.auth.login(name, old, client.peer)
    except TtserverError as refused:
        if refused.code in ("LOADING", "TRYAGAIN", "MASTERDOWN"):
            raise
        raise CommandError("WRONGPASS the old password is wrong") from None
    hashed = await _off_the_loop(lambda: hash_password(new, name))
    await write_now(client, lambda txn: engine.accounts.set_password(txn, name, name, hashed))
    _changed_password(client, name)
    return OK


def whoami(store: Store, txn: DBTxn, asked: Request) -> Value:
    """WHOAMI."""
    store.catalog.store.files(txn)
    user = asked.actor.user
    record = store.users.get(txn, user)
    subject = None if record is None else store.access.subject_of(txn, record)
    return {
        "name": user,
        "role": None if record is None else record.role,
        "group": None if record is None else record.group or None,
        "grants": [
            f"{grant.right}:{grant.customers}"
            for grant in (() if subject is None else subject.grants)
        ],
        "everywhere": right_for(subject, None).name,
        "keys": sorted(key_rights(subject)),
    }


# -- steps


async def _allowed(client: Client, right: Right) -> None:
    """Refuse before a thread hashes for somebody who may not."""
    engine, user = client.server.engine, client.user
    await write_now(client, lambda _txn: None)
    try:
        await engine.read(lambda txn: engine.access.must(txn, user, right, None), limited=False)
    except CatalogError as error:
        raise refusal(error) from error


async def _write_as_system(client: Client, work: Callable[[DBTxn], Any]) -> Any:
    access, user = client.server.engine.access, client.user

    def checked(txn: DBTxn) -> Any:
        access.must(txn, user, Right.SYSTEM, None)
        return work(txn)

    return await write_now(client, checked)


async def _off_the_loop(call: Callable[[], Any]) -> Any:
    try:
        return await asyncio.to_thread(call)
    except PasswordRefused as error:
        raise CommandError(f"INVALID {error}") from error
    except UserError as error:
        raise refusal(error) from error


def _changed_password(client: Client, name: str) -> None:
    client.server.engine.journal.write_seldom("password_changed", every_s=1.0, burst=100, user=name)
    _end_others(client, name)


def _end_others(client: Client, name: str) -> None:
    for other in list(client.server.clients.values()):
        if other.user == name and other is not client:
            other.end("the user was changed")


def _waiting(
    name: str, arity: int, run: Callable[..., Any], usage: str, summary: str, **more: Any
) -> Command:
    return Command(
        name,
        arity,
        Kind.WAITING,
        run,
        summary,
        usage,
        group="accounts",
        in_multi=False,
        **more,
    )


COMMANDS: Final = (
    _waiting("user.add", -3, user_add, "name password [GROUP group]", "Makes a user."),
    _waiting(
        "user.set",
        -2,
        user_set,
        "name [GROUP group] [DISABLED yesno] [REVOKED yesno]",
        "Changes a user.",
    ),
    _waiting("user.passwd", 3, user_passwd, "name password", "Gives a user a new password."),
    _waiting("user.del", 2, user_delete, "name", "Deletes a user."),
    _waiting("passwd", 3, passwd, "old new", "Changes one's own password."),
    read(
        "user.get",
        2,
        run=user_get,
        usage="name",
        summary="Returns a user.",
        prepare=named({}),
        group="accounts",
    ),
    read(
        "user.list",
        1,
        run=user_list,
        usage="",
        summary="Returns all users.",
        prepare=lambda client, _args: request(client),
        group="accounts",
    ),
    write(
        "group.add",
        -2,
        run=group_add,
        usage="name [ROLE text] [GRANTS grants]",
        summary="Makes a group.",
        prepare=named(_GROUP),
        group="accounts",
    ),
    write(
        "group.set",
        -2,
        run=group_set,
        usage="name [ROLE text] [GRANTS grants]",
        summary="Changes a group.",
        prepare=named(_GROUP),
        group="accounts",
    ),
    write(
        "group.del",
        2,
        run=group_delete,
        usage="name",
        summary="Deletes a group that nobody is in.",
        prepare=named({}),
        group="accounts",
    ),
    read(
        "group.get",
        2,
        run=group_get,
        usage="name",
        summary="Returns a group.",
        prepare=named({}),
        group="accounts",
    ),
    read(
        "group.list",
        1,
        run=group_list,
        usage="",
        summary="Returns all groups.",
        prepare=lambda client, _args: request(client),
        group="accounts",
    ),
    read(
        "whoami",
        1,
        run=whoami,
        usage="",
        summary="Returns who is logged on, and with which rights.",
        prepare=lambda client, _args: request(client),
        group="accounts",
    ),
)
