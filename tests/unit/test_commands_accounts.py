"""Users, groups and passwords on the client port, with the real logon behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from storage.passwords import hash_password
from storage.users import UserRecord
from tests.support.catalog_client import flat, tree, wrote
from tests.support.engine import Refusal, SmallEngine, settings_for
from tests.support.environments import soon
from tests.support.wire import Error, Wire
from ttserver.listener import Listener
from ttserver.settings import ClientSettings

PASSWORD = "four random words"
WRONG = "WRONGPASS invalid username-password pair or user is disabled."
REVOKE_AFTER = 3


class Server:
    """A server with its administrator.

    Attributes:
        master: the administrator's client.
    """

    def __init__(self, engine: SmallEngine, listener: Listener) -> None:
        self.engine = engine
        self.listener = listener
        self.master: Wire

    async def logon(self, user: str, password: str = PASSWORD) -> Any:
        """Log on; gives the client, or the refusal."""
        wire = Wire(self.listener)
        reply = await wire.call("AUTH", user, password)
        return reply if isinstance(reply, Error) else wire

    async def ask(self, *words: object) -> Any:
        return flat(await self.master.call(*words))


@pytest.fixture(scope="module")
def password_hash() -> str:
    return hash_password(PASSWORD)


@pytest.fixture
async def server(tmp_path: Path, password_hash: str) -> AsyncIterator[Server]:
    client = ClientSettings(listen=settings_for().client.listen, revoke_after=REVOKE_AFTER)
    engine = SmallEngine(tmp_path, settings_for(client=client))
    await engine.start()
    listener = Listener(engine)
    try:
        record = UserRecord(
            name="tapemaster",
            role="administrator",
            password_hash=password_hash,
            created=datetime(2025, 12, 1, tzinfo=UTC),
        )
        await wrote(engine, lambda txn: engine.users.add_record(txn, record))
        made = Server(engine, listener)
        made.master = await made.logon("tapemaster")
        await tree(made.master)
        for line in ("GROUP.ADD ops GRANTS WRITE:US*", "GROUP.ADD sys GRANTS SYSTEM:*"):
            await made.ask(*line.split())
        for user, group in (("fred", "ops"), ("sue", "sys")):
            one = msgspec.structs.replace(record, name=user, role="user", group=group)
            await wrote(engine, partial(engine.users.add_record, record=one))
        yield made
    finally:
        await listener.stop()
        await engine.stop()


async def test_groups(server: Server) -> None:
    ask = server.ask
    given = ("ROLE", "moves tapes", "GRANTS", "read:* ALTER:US0[1-4]")
    made = await ask("GROUP.ADD", "Vault1", *given)
    assert made == {
        "name": "Vault1",
        "role": "moves tapes",
        "grants": ["READ:*", "ALTER:US0[1-4]"],
    }
    assert await ask("GROUP.GET", "Vault1") == made
    changed = await ask("GROUP.SET", "Vault1", "GRANTS", "")
    assert (changed["role"], changed["grants"]) == ("moves tapes", [])
    assert [one["name"] for one in await ask("GROUP.LIST")] == ["Vault1", "ops", "sys"]
    assert await ask("GROUP.DEL", "Vault1") == "OK"
    for words, said in {
        ("GROUP.GET", "Vault1"): "NOTFOUND group 'Vault1' does not exist",
        ("GROUP.SET", "Vault1"): "NOTFOUND group 'Vault1' does not exist",
        ("GROUP.DEL", "Vault1"): "NOTFOUND group 'Vault1' does not exist",
        ("GROUP.ADD", "ops"): "EXISTS group ops exists already",
        ("GROUP.ADD", "a-b"): "INVALID group 'a-b' refused: not 1 to 10 letters and digits",
        ("GROUP.ADD", "x", "GRANTS", "MOVE:*"): "INVALID grant 'MOVE:*' refused: write READ:*",
        ("GROUP.ADD", "x", "GRANTS", "READ"): "INVALID grant 'READ' refused: write READ:*",
        ("GROUP.ADD", "x", "GRANTS", "READ:["): "INVALID filter '[' refused",
        ("GROUP.ADD", "x", "ROLE", "y" * 41): "INVALID role 'yyy",
        ("GROUP.DEL", "ops"): "INUSE group ops stays: 1 users are in it, fred for one",
    }.items():
        assert str(await ask(*words)).startswith(said), words


async def test_users_are_made_changed_and_deleted(server: Server) -> None:
    ask = server.ask
    made = await ask("USER.ADD", "anne", PASSWORD, "GROUP", "ops")
    assert (made["name"], made["role"], made["group"]) == ("anne", "user", "ops")
    assert made.keys() == {"name", "role", "group", "created", "disabled", "revoked"}
    assert await ask("USER.GET", "anne") == made
    assert [one["name"] for one in await ask("USER.LIST")] == ["anne", "fred", "sue", "tapemaster"]
    anne = await server.logon("anne")
    assert await anne.call("PING") == b"PONG"
    assert (await ask("USER.SET", "anne", "DISABLED", "yes"))["disabled"] == 1
    # Her connection is ended, and she comes in no more.
    assert await anne.closed() == b""
    assert await server.logon("anne") == WRONG
    await ask("USER.SET", "anne", "DISABLED", "no", "GROUP", "sys")
    assert await ask("USER.PASSWD", "anne", "other random words") == "OK"
    assert isinstance(await server.logon("anne", "other random words"), Wire)
    assert await ask("USER.DEL", "anne") == "OK"
    assert await server.logon("anne", "other random words") == WRONG
    for words, said in {
        ("USER.ADD", "anne", PASSWORD, "GROUP", "none"): "NOTFOUND group 'none' does not exist",
        ("USER.ADD", "anne", PASSWORD, "GROUP", ""): "INVALID user anne refused: a user has to be",
        ("USER.ADD", "fred", PASSWORD, "GROUP", "ops"): "EXISTS user fred exists already",
        ("USER.ADD", "-a", PASSWORD, "GROUP", "ops"): "INVALID user ID '-a' refused",
        ("USER.ADD", "anne", "short", "GROUP", "ops"): "INVALID password refused",
        ("USER.ADD", "anne", PASSWORD): "INVALID user anne refused: a user has to be",
        ("USER.ADD", "anne"): "ERR wrong number of arguments",
        ("USER.GET", "anne"): "NOTFOUND user anne does not exist",
        ("USER.SET", "anne"): "NOTFOUND user anne does not exist",
        ("USER.PASSWD", "anne", PASSWORD): "NOTFOUND user anne does not exist",
        ("USER.DEL", "anne"): "NOTFOUND user anne does not exist",
        ("USER.SET", "fred", "GROUP", "none"): "NOTFOUND group 'none' does not exist",
        ("USER.SET", "fred", "GROUP", ""): "INVALID user fred refused: a user has to be in a",
        ("USER.SET", "fred", "REVOKED", "yes"): "INVALID REVOKED yes refused",
    }.items():
        assert str(await ask(*words)).startswith(said), words
    events = [event for event, _ in server.engine.journal.lines]
    assert {"user_added", "user_removed", "password_changed"} <= set(events)


async def test_the_built_in_administrator_cannot_be_locked_out_by_others(server: Server) -> None:
    sue = await server.logon("sue")
    for words in (
        ("USER.SET", "tapemaster", "DISABLED", "yes"),
        ("USER.SET", "tapemaster", "GROUP", "ops"),
        ("USER.PASSWD", "tapemaster", "mine is better"),
        ("USER.DEL", "tapemaster"),
    ):
        said = await sue.call(*words)
        assert str(said).startswith("REFUSED user tapemaster is the built-in administrator"), words
    for words in (
        ("USER.SET", "tapemaster", "DISABLED", "yes"),
        ("USER.SET", "tapemaster", "GROUP", "ops"),
        ("USER.DEL", "tapemaster"),
    ):
        said = await server.ask(*words)
        assert str(said).startswith("REFUSED user tapemaster is the built-in administrator"), words
    # Nor by wrong passwords, from another address than its own.
    for _ in range(REVOKE_AFTER):
        await server.logon("tapemaster", "wrong password")
    assert (await server.ask("USER.GET", "tapemaster"))["revoked"] == 0
    assert await server.ask("USER.PASSWD", "tapemaster", "other random words") == "OK"
    assert isinstance(await server.logon("tapemaster", "other random words"), Wire)


async def test_only_who_has_the_right_sees_and_changes_users(server: Server) -> None:
    fred, sue = await server.logon("fred"), await server.logon("sue")
    for line in (
        "USER.LIST",
        "USER.GET fred",
        f"USER.ADD anne {PASSWORD.replace(' ', '_')} GROUP ops",
        "USER.SET fred GROUP sys",
        "USER.PASSWD sue my_own_words",
        "USER.DEL sue",
        "GROUP.LIST",
        "GROUP.GET ops",
        "GROUP.ADD mine GRANTS SYSTEM:*",
        "GROUP.SET ops GRANTS SYSTEM:*",
        "GROUP.DEL sys",
    ):
        said = await fred.call(*line.split())
        assert said == "NOPERM user fred lacks the right SYSTEM for all customers (filter *)", line
    assert len(await sue.call("USER.LIST")) == 3
    assert not isinstance(await sue.call("GROUP.ADD", "more"), Error)


async def test_ones_own_password(server: Server) -> None:
    fred, other = await server.logon("fred"), await server.logon("fred")
    assert await fred.call("PASSWD", "wrong password", "new random words") == (
        "WRONGPASS the old password is wrong"
    )
    assert str(await fred.call("PASSWD", PASSWORD, "short")).startswith("INVALID password refused")
    assert await fred.call("PASSWD", PASSWORD, "new random words") == b"OK"
    # The others of the same user have to log on anew.
    assert await other.closed() == b""
    assert await fred.call("PING") == b"PONG"
    assert await server.logon("fred") == WRONG
    assert isinstance(await server.logon("fred", "new random words"), Wire)


async def test_who_am_i(server: Server) -> None:
    fred = await server.logon("fred")
    assert flat(await fred.call("WHOAMI")) == {
        "name": "fred",
        "role": "user",
        "group": "ops",
        "grants": ["WRITE:US*"],
        "everywhere": "NONE",
        "keys": [],
    }
    told = await server.ask("WHOAMI")
    assert (told["everywhere"], told["keys"]) == ("SYSTEM", ["read", "system", "write"])


@pytest.mark.parametrize(
    ("grants", "allowed"),
    [
        ("WRITE:US*", ""),
        ("READ:*", "GET"),
        ("READ:* ADMIN:US*", "GET"),
        ("WRITE:*", "GET SET"),
        ("ADMIN:*", "GET SET"),
        ("SYSTEM:*", "GET SET CLIENT"),
    ],
)
async def test_plain_keys_belong_to_no_customer(server: Server, grants: str, allowed: str) -> None:
    await server.ask("GROUP.SET", "ops", "GRANTS", grants)
    fred = await server.logon("fred")
    replies = {
        "GET": await fred.call("GET", "key"),
        "SET": await fred.call("SET", "key", "value"),
        "CLIENT": await fred.call("CLIENT", "KILL", "ID", "999999"),
    }
    may = [name for name, reply in replies.items() if not isinstance(reply, Error)]
    assert may == allowed.split()
    for name in set(replies) - set(may):
        assert replies[name].startswith("NOPERM User fred has no permissions")


async def test_a_user_is_revoked_after_wrong_passwords(server: Server) -> None:
    for _ in range(REVOKE_AFTER - 1):
        assert await server.logon("fred", "wrong password") == WRONG
    fred = await server.logon("fred")
    assert isinstance(fred, Wire)  # and the count begins anew
    assert not isinstance(await fred.call("VOLUME.COUNT"), Error)
    for _ in range(REVOKE_AFTER):
        assert await server.logon("fred", "wrong password") == WRONG
    lines = server.engine.journal.lines
    await soon("told", lambda: ("user_revoked", {"user": "fred", "wrong": 3}) in lines)
    assert (await server.ask("USER.GET", "fred"))["revoked"] == 1
    assert await server.logon("fred") == WRONG
    # Who is logged on already has no right left, either.
    said = await fred.call("VOLUME.GET", "US04.LTO.1")
    assert said == "NOPERM user fred lacks the right READ for customer US04"
    reasons = [facts["reason"] for event, facts in lines if event == "logon_refused"]
    assert reasons.count("wrong_password") == 2 * REVOKE_AFTER - 1
    assert reasons[-1] == "revoked"
    assert (await server.ask("USER.SET", "fred", "REVOKED", "no"))["revoked"] == 0
    assert isinstance(await server.logon("fred"), Wire)


async def test_a_logon_on_a_replicant_writes_nothing(server: Server) -> None:
    engine = server.engine
    fred = await server.logon("fred")
    engine.role = "replicant"
    said = "write refused: this site is a replicant (master is 192.0.2.1:5010, generation 1)"
    engine.refuse_writes = Refusal(said, code="READONLY", hint="go there")
    before = engine.environment.log_end()
    assert isinstance(await server.logon("fred"), Wire)
    for _ in range(REVOKE_AFTER):
        assert await server.logon("fred", "wrong password") == WRONG
    assert engine.environment.log_end() == before
    # It is slowed down all the same: the fourth guess is told to wait, or waits.
    assert (await server.ask("USER.GET", "fred"))["revoked"] == 0
    for words in (
        ("PASSWD", PASSWORD, "new random words"),
        ("USER.ADD", "anne", PASSWORD, "GROUP", "ops"),
        ("USER.SET", "fred", "DISABLED", "yes"),
        ("USER.PASSWD", "fred", "new random words"),
        ("USER.DEL", "fred"),
        ("GROUP.ADD", "more"),
    ):
        asker = fred if words[0] == "PASSWD" else server.master
        assert await asker.call(*words) == f"READONLY {said}", words
