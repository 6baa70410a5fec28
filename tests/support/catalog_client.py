"""Clients of the catalog's commands: users in groups, their rights, a small tree to work in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from storage.groups import GroupRecord
from storage.rights import Grant
from storage.users import UserRecord
from tests.support.wire import Error, Wire, real_listener, small_listener
from ttserver.listener import Listener

LISTENERS = {"small": small_listener, "real": real_listener}
TREE = """\
CUSTOMER.ADD US04 DESCRIPTION vault
CUSTOMER.ADD ACME
MEDIA.ADD US04.LTO DESCRIPTION tapes
MEDIA.ADD US04.CONT DESCRIPTION cases
MEDIA.ADD ACME.LTO DESCRIPTION tapes
REPOSITORY.ADD US04.LTO.LIBR DESCRIPTION library TYPE library
REPOSITORY.ADD US04.LTO.OFFS DESCRIPTION vault TYPE vault OFFSITE yes
REPOSITORY.ADD US04.LTO.SCRT DESCRIPTION blank TYPE scratch SCRATCH yes
REPOSITORY.SET US04.LTO.LIBR NEXT OFFS
REPOSITORY.SET US04.LTO.OFFS NEXT SCRT
REPOSITORY.ADD US04.CONT.LIBR DESCRIPTION library
REPOSITORY.ADD US04.CONT.OFFS DESCRIPTION vault OFFSITE yes
REPOSITORY.ADD ACME.LTO.LIBR DESCRIPTION library
MEDIA.SET US04.LTO DEFAULT LIBR"""
GROUPS = {
    "read": (Grant("*", "READ"),),
    "move": (Grant("US*", "WRITE"),),
    "add": (Grant("US04", "ALTER"),),
    "admin": (Grant("US04", "ADMIN"), Grant("ACME", "READ")),
    "system": (Grant("*", "SYSTEM"),),
}
# Each user but the administrator is in the group of its name; `fred` is in none.
USERS = ("fred", *GROUPS)


async def wrote(engine: Any, work: Callable[[Any], Any]) -> Any:
    """Write through the engine, and give what came of it."""
    done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    engine.submit(work, done.set_result)
    outcome = await done
    if outcome.error is not None:
        raise outcome.error
    return outcome.result


async def add_users(engine: Any) -> None:
    """Make the groups, the users, and the administrator."""
    made = datetime(2025, 12, 1, tzinfo=UTC)

    def user(name: str, **how: Any) -> UserRecord:
        return UserRecord(name=name, created=made, password_hash="x", **how)

    def work(txn: Any) -> None:
        for name, grants in GROUPS.items():
            engine.groups.put(txn, GroupRecord(name=name, grants=grants), new=True)
            engine.users.add_record(txn, user(name, role="user", group=name))
        engine.users.add_record(txn, user("fred", role="user"))
        engine.users.add_record(txn, user("tapemaster", role="administrator"))

    await wrote(engine, work)


@asynccontextmanager
async def catalog_listener(home: Path, kind: str) -> AsyncIterator[tuple[Listener, Any]]:
    """A listener whose users are there."""
    async with LISTENERS[kind](home) as (listener, engine):
        auth: Any = listener.server.auth
        auth.roles |= dict.fromkeys(USERS, "user")
        await add_users(engine)
        yield listener, engine


async def tree(wire: Wire) -> None:
    """Make the customers, media types and repositories."""
    for line in TREE.splitlines():
        reply = await wire.call(*line.split())
        assert not isinstance(reply, Error), f"{line}: {reply}"


def flat(reply: Any) -> Any:
    """Turn the flat arrays of RESP2 maps into dictionaries, by their first word."""
    if isinstance(reply, list) and reply and len(reply) % 2 == 0:
        keys = reply[::2]
        if keys[0] in (b"name", b"repository", b"on", b"customer"):
            pairs = zip(keys, reply[1::2], strict=True)
            return {key.decode(): flat(value) for key, value in pairs}
    if isinstance(reply, list):
        return [flat(one) for one in reply]
    return reply.decode() if type(reply) is bytes else reply
