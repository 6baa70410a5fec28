"""What both clients have: the servers, who logs on, limits, and how an error is told.

No waiting here: that is the difference between them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, ClassVar, Final, TypeVar

from redis import RedisError
from redis.maint_notifications import MaintNotificationsConfig

from replication.generations import CommitToken
from ttserver.client.call import TEXT_ERRORS, Call, Word, as_is
from ttserver.client.errors import (
    ClientError,
    LogonRefused,
    server_error,
    unreachable,
    why_broken,
)
from ttserver.client.finder import Exchanged, Finder
from ttserver.client.methods import Methods
from ttserver.errors import ConfigurationError
from ttserver.server_string import ServerString, find_servers

T = TypeVar("T")

CONNECT_TIMEOUT_S: Final = 5.0
# Threads or tasks that ask at the same time; others wait for a connection of theirs.
CONNECTIONS_MAX: Final = 64
BATCH: Final = 200  # calls of `many` under way: the server commits them together


class BaseClient(Methods):
    """See `Client`."""

    _pool_class: ClassVar[Any]

    def __init__(
        self,
        servers: str,
        *,
        user: str | None = None,
        password: str | None = None,
        program: str = "python",
        read_your_writes: bool = False,
        deadline_s: float = 30.0,
        reply_timeout_s: float = 60.0,
    ) -> None:
        found = find_servers(servers, {})
        self._user = user if user is not None else found[0].user
        self._password = password if password is not None else found[0].password
        if self._user is None or self._password is None:
            raise ConfigurationError(
                "user or password is missing: the server wants to know who you are",
                code="NOUSER",
                hint="give both: user=..., password=...",
            )
        self._program = program
        self._names = [str(server) for server in found]
        self._deadline_s = deadline_s
        self._reply_timeout_s = reply_timeout_s
        self._finder = Finder(
            self._names,
            deadline_s=deadline_s,
            now=time.monotonic,
            read_your_writes=read_your_writes,
        )
        self._pools: list[Any] = [self._pool(server) for server in found]

    @property
    def token(self) -> str | None:
        """This client's last write, with `read_your_writes`: `generation:file:offset`.

        Set on another client, it lets that one's reads wait for this write, too.
        """
        found = self._finder.token
        return None if found is None else str(found)

    @token.setter
    def token(self, text: str | None) -> None:
        self._finder.token = None if text is None else CommitToken.parse(text)

    def _pool(self, server: ServerString) -> Any:
        return self._pool_class(
            host=server.host,
            port=server.port,
            username=self._user,
            password=self._password,
            client_name=self._program,
            protocol=3,
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
            decode_responses=True,
            encoding_errors=TEXT_ERRORS,
            socket_timeout=self._reply_timeout_s,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_keepalive=True,
            max_connections=CONNECTIONS_MAX,
            timeout=self._deadline_s,
        )

    def _timeout_s(self, asked_s: float | None) -> float:
        return self._reply_timeout_s if asked_s is None else asked_s

    # -- what an error means

    def _not_sent(self, site: int, error: Exception) -> Exchanged:
        return Exchanged(error=self._connect_error(site, error), sent=False)

    def _connect_error(self, site: int, error: Exception) -> ClientError:
        name = self._names[site]
        refused = server_error(error) if isinstance(error, RedisError) else None
        if refused is None:
            return unreachable(name, why_broken(error))
        if isinstance(refused, LogonRefused):
            return LogonRefused(
                f"logon at {name} refused: wrong password, or the user may not log on",
                code=refused.code,
                hint="capital letters count; ask whoever runs the server",
            )
        return refused

    def _broken(self, site: int, replies: list[Any], error: Exception) -> Exchanged:
        return Exchanged(replies, unreachable(self._names[site], why_broken(error)))

    @staticmethod
    def _result(call: Call[T], outcome: Any) -> T | ClientError:
        try:
            return call.result(outcome)
        except ClientError as error:
            return error


def raw_call(words: tuple[Word, ...], *, write: bool, again: bool) -> Call[Any]:
    """Make a call of any command, whose reply is given as it is: bytes, numbers, lists, maps."""
    return Call(*words, decode=as_is, write=write, again=again, text=False)


def batches(calls: Iterable[Call[T]]) -> Iterator[list[Call[T]]]:
    """Cut calls into batches."""
    rest = iter(calls)
    while batch := list(islice(rest, BATCH)):
        yield batch
