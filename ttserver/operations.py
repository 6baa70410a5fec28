"""What the control socket can ask of a running daemon; one handler a command.

Changes to users go the way of every write: through the group commit, to all sites. Passwords are
hashed here, off the event loop, before the write is queued.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from berkeleydb import db

from storage.passwords import hash_password
from storage.users import Role, UserRecord, is_user_name, new_record
from ttserver.compare_operation import CompareOperation
from ttserver.control import Handler, Send
from ttserver.control_client import ControlError
from ttserver.engine import Engine, WriteOutcome
from ttserver.group_operations import GroupOperations
from ttserver.log_operations import LogOperations
from ttserver.rollback_operations import RollbackOperations
from ttserver.status import Status


class Operations:
    """The handlers of one daemon.

    Args:
        engine: the site they work on.
        status: how it is; answers before the engine does.
        is_open: tells whether the engine has opened the environment.
    """

    def __init__(
        self, engine: Engine, status: Callable[[], Status], is_open: Callable[[], bool]
    ) -> None:
        self._engine = engine
        self._status_now = status
        self._is_open = is_open

    def handlers(self) -> Mapping[str, Handler]:
        """Give the commands by name."""
        return {
            "status": self._status,
            "sites": self._sites,
            **GroupOperations(self._engine, self._status_now, self._must_be_open).handlers(),
            **LogOperations(self._engine, self._must_be_open).handlers(),
            **CompareOperation(self._engine, self._must_be_open).handlers(),
            **RollbackOperations(self._engine, self._must_be_open).handlers(),
            "user-check": self._user_check,
            "user-add": self._user_add,
            "user-passwd": self._user_passwd,
            "user-remove": self._user_remove,
            "user-list": self._user_list,
        }

    async def _status(self, _request: dict[str, Any], _send: Send) -> object:
        return self._status_now()

    async def _sites(self, _request: dict[str, Any], _send: Send) -> object:
        return self._status_now().sites

    # -- users

    async def _user_list(self, _request: dict[str, Any], _send: Send) -> object:
        self._must_be_open("users cannot be listed")
        records = await self._engine.read(self._engine.users.list, limited=False)
        return [_public(record) for record in records]

    async def _user_check(self, request: dict[str, Any], _send: Send) -> object:
        """Refuse early what could only be refused after a password was typed."""
        self._must_be_master()
        name, new = _text(request, "name"), bool(request.get("new"))
        if new and not is_user_name(name):
            raise _bad_name(name)
        users = self._engine.users
        record = await self._engine.read(lambda txn: users.get(txn, name), limited=False)
        if new and record is not None:
            raise ControlError(
                f"user {name} exists already",
                code="USER_EXISTS",
                hint=f"change the password instead: ttserver user passwd {name}",
            )
        if not new and record is None:
            raise ControlError(
                f"user {name} does not exist",
                code="USER_UNKNOWN",
                hint="see who does: ttserver user list (capital letters count)",
            )
        return None

    async def _user_add(self, request: dict[str, Any], _send: Send) -> object:
        self._must_be_master()
        name, password, role = _text(request, "name"), _text(request, "password"), _role(request)
        group = _text(request, "group") if request.get("group") else ""
        record = await asyncio.to_thread(new_record, name, password, role)
        record = msgspec.structs.replace(record, group=group)
        users, groups = self._engine.users, self._engine.groups

        def work(txn: db.DBTxn) -> None:
            if group:
                groups.existing(txn, group)
            users.add_record(txn, record)

        outcome = await self._engine.write(work)
        return self._done(outcome, "user_added", user=name, role=role)

    async def _user_passwd(self, request: dict[str, Any], _send: Send) -> object:
        self._must_be_master()
        name, password = _text(request, "name"), _text(request, "password")
        hashed = await asyncio.to_thread(hash_password, password, name)
        users = self._engine.users
        outcome = await self._engine.write(lambda txn: users.set_password(txn, name, hashed))
        return self._done(outcome, "password_changed", user=name)

    async def _user_remove(self, request: dict[str, Any], _send: Send) -> object:
        self._must_be_master()
        name = _text(request, "name")
        users = self._engine.users
        outcome = await self._engine.write(lambda txn: users.remove(txn, name))
        return self._done(outcome, "user_removed", user=name)

    def _done(self, outcome: WriteOutcome, event: str, **facts: object) -> object:
        if outcome.error is not None:
            raise outcome.error
        self._engine.journal.write(event, **facts)
        # Committed here, and not confirmed elsewhere: the operator must know, as a client would.
        return {"warning": outcome.perm_failed}

    def _must_be_open(self, what: str) -> None:
        if not self._is_open():
            raise ControlError(
                f"{what}: the database is being opened",
                code="LOADING",
                hint="wait until it is open: ttserver status --watch",
            )

    def _must_be_master(self) -> None:
        status = self._status_now()
        if not status.read_only:
            return
        if status.master is not None and status.role == "replicant":
            host = status.master.rpartition(":")[0]
            raise ControlError(
                f"users are changed on the master: this site is a replicant of {status.master}",
                code="READONLY",
                hint=f"run the same command on {host}",
            )
        raise ControlError(
            f"users cannot be changed now: this site is {status.state}, role {status.role}",
            code="TRYAGAIN",
            hint="wait until there is a master: ttserver status",
        )


def _public(record: UserRecord) -> Mapping[str, object]:
    """Leave the hash where it is: not even the owner of HOME needs it on a screen."""
    return {
        "name": record.name,
        "role": record.role,
        "group": record.group,
        "created": record.created,
        "disabled": record.disabled,
        "revoked": record.revoked,
    }


def _bad_name(name: str) -> ControlError:
    return ControlError(
        f"user ID {name[:40]!r} refused: not 1 to 16 letters, digits, `.` and `-`",
        code="USER_NAME",
        hint="begin with a letter or a digit, and leave out blanks and accents",
    )


def _text(request: Mapping[str, Any], key: str) -> str:
    value = request.get(key)
    if not isinstance(value, str):
        raise _bad(f"request has no text {key!r}")
    return value


def _role(request: Mapping[str, Any]) -> Role:
    match _text(request, "role"):
        case "administrator":
            return "administrator"
        case "user":
            return "user"
        case other:
            raise _bad(f"role {other!r} is neither administrator nor user")


def _bad(text: str) -> ControlError:
    return ControlError(
        text, code="BADREQUEST", hint="use the ttserver program of the daemon's own version"
    )
