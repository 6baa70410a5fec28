"""A logged-on connection of `tt`: to any of the servers for reads, to the master for updates."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, TypeAlias

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ttserver.errors import ConfigurationError, TtserverError
from ttserver.server_string import ServerString

# One flush of a busy disk may take seconds, and an acknowledgement its own time.
REPLY_TIMEOUT_S: Final = 120.0
CONNECT_TIMEOUT_S: Final = 5.0
PIPELINE: Final = 200  # commands under way: the server commits them together

_CODE: Final = re.compile(r"[A-Z]{3,}\s")
_HINTS: Final = {
    "NOPERM": "see what you may do: tt whoami",
    "READONLY": "name the master, or all servers: -S user@db1,db2,db3",
    "LOADING": "wait until the server has its data: ttserver status, on its machine",
}

Command: TypeAlias = Sequence[object]
Answer: TypeAlias = "Any | Refusal"


class Refusal(TtserverError):
    """What the server answered instead; `code` is its first word."""

    default_code = "ERR"


class Session:
    """Connects when something is asked first.

    Args:
        servers: where to try, in this order.
        ask: asks for a password; takes the question.
        tell: shows a notice.
    """

    def __init__(
        self,
        servers: Sequence[ServerString],
        ask: Callable[[str], str],
        tell: Callable[[str], None],
    ) -> None:
        self._servers = list(servers)
        self._ask = ask
        self._tell = tell
        self._password: str | None = servers[0].password
        self._client: redis.Redis | None = None
        self._read_only = False
        self._told = False

    def close(self) -> None:
        """Hang up."""
        if self._client is not None:
            self._client.close()
            self._client = None

    # -- asking

    def read(self, *command: object) -> Any:
        """Ask a server; any will do.

        Raises:
            Refusal: the server's own error.
            TtserverError: no server can be reached, or logged on to.
        """
        return self._one(self._connected(), command)

    def write(self, *command: object) -> Any:
        """Ask the master.

        Raises:
            Refusal, TtserverError: as `read`.
        """
        return self._one(self._master(), command)

    def read_all(self, commands: Iterable[Command]) -> Iterator[Answer]:
        """Ask many things without waiting for each; refusals are among the answers.

        Raises:
            TtserverError: no server can be reached, or the connection broke.
        """
        return self._many(self._connected(), commands)

    def write_all(self, commands: Iterable[Command]) -> Iterator[Answer]:
        """The same of the master."""
        return self._many(self._master(), commands)

    def pages(self, *command: object, cursor_at: int = 1) -> Iterator[dict[str, Any]]:
        """Read a list to its end.

        Args:
            command: without its cursor.
            cursor_at: where the cursor belongs; -1 for `CURSOR n` at the end.
        """
        cursor = "0"
        while True:
            words = list(command)
            if cursor_at < 0:
                words += ["CURSOR", cursor]
            else:
                words.insert(cursor_at, cursor)
            cursor, rows = self.read(*words)
            yield from rows
            if cursor == "0":
                return

    # -- connections

    def _connected(self) -> redis.Redis:
        if self._client is None:
            self._client = self._first()
        return self._client

    def _first(self) -> redis.Redis:
        failed: TtserverError | None = None
        for server in self._servers:
            try:
                client, self._read_only = self._open(server)
                return client
            except Unreachable as error:
                failed = failed or error
        assert failed is not None, "there is a server to try"
        raise failed

    def _master(self) -> redis.Redis:
        """Find the master among several servers; a single one answers for itself."""
        client = self._connected()
        if not self._read_only or len(self._servers) == 1:
            return client
        for server in self._servers:
            try:
                other, read_only = self._open(server)
            except Unreachable:
                continue
            if not read_only:
                client.close()
                self._client, self._read_only = other, False
                return other
            other.close()
        return client

    def _open(self, server: ServerString) -> tuple[redis.Redis, bool]:
        """Log on; tells whether this server takes no updates."""
        user = self._servers[0].user
        if user is None:
            raise ConfigurationError(
                "user is missing: the server wants to know who you are",
                code="NOUSER",
                hint="write it before the server: -S user@server, or in $TT_SERVER",
            )
        if self._password is None:
            self._reachable(server)  # nobody types a password for nothing
            self._password = self._ask(f"Password of {user} at {server}")
        client = _client(server, user, self._password)
        try:
            facts: Any = client.info("replication")
        except redis.RedisError as error:
            client.close()
            raise _translated(error, server) from error
        notice = facts.get("ttserver_notice")
        if notice and not self._told:
            self._told = True
            self._tell(str(notice))
        return client, bool(notice) or facts.get("role") != "master"

    def _reachable(self, server: ServerString) -> None:
        try:
            socket.create_connection((server.host, server.port), CONNECT_TIMEOUT_S).close()
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise _unreachable(f"server {server}", why) from error

    def _one(self, client: redis.Redis, command: Command) -> Any:
        try:
            return client.execute_command(*command)  # type: ignore[no-untyped-call]
        except redis.ResponseError as error:
            raise refusal(error) from error
        except redis.RedisError as error:
            raise _translated(error, None) from error

    def _many(self, client: redis.Redis, commands: Iterable[Command]) -> Iterator[Answer]:
        rest = iter(commands)
        while batch := list(islice(rest, PIPELINE)):
            with client.pipeline(transaction=False) as pipeline:
                for command in batch:
                    pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
                try:
                    answers = pipeline.execute(raise_on_error=False)
                except redis.RedisError as error:
                    raise _translated(error, None) from error
            for answer in answers:
                if isinstance(answer, redis.ResponseError):
                    yield refusal(answer)
                elif isinstance(answer, redis.RedisError):
                    raise _translated(answer, None) from answer
                else:
                    yield answer


class Unreachable(TtserverError):
    """A server does not answer, or the connection broke."""

    default_code = "UNREACHABLE"


def _client(server: ServerString, user: str, password: str) -> redis.Redis:
    client = redis.Redis(
        host=server.host,
        port=server.port,
        username=user,
        password=password,
        protocol=3,
        decode_responses=True,
        client_name="tt",
        socket_timeout=REPLY_TIMEOUT_S,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        # An update that was sent must not be sent again by itself.
        retry=Retry(NoBackoff(), 0),
        single_connection_client=False,
    )
    # Of Redis's own EXPIRE the library makes a yes or no.
    client.set_response_callback("EXPIRE", lambda answer, **_: answer)
    return client


def refusal(error: redis.ResponseError) -> Refusal:
    """The server's error, its first word apart."""
    text = str(error)
    code = _error_code(error)
    found = _CODE.match(text)
    if found is not None:
        code, text = found[0].strip(), text[found.end() :]
    return Refusal(text, code=code, hint=_HINTS.get(code))


def _error_code(error: redis.ResponseError) -> str:
    """The word that the library took off the text and made a class of."""
    if isinstance(error, redis.ReadOnlyError):
        return "READONLY"
    if isinstance(error, redis.exceptions.NoPermissionError):
        return "NOPERM"
    if isinstance(error, redis.exceptions.TryAgainError):
        return "TRYAGAIN"
    return "ERR"


def _translated(error: redis.RedisError, server: ServerString | None) -> TtserverError:
    who = "server" if server is None else f"server {server}"
    if isinstance(error, redis.AuthenticationError):
        text = f"logon at {server} refused: wrong password, or the user may not log on"
        return TtserverError(
            str(error) if server is None else text,
            code="WRONGPASS",
            hint="capital letters count; ask whoever runs the server",
        )
    if isinstance(error, redis.BusyLoadingError):
        return Unreachable(f"{who} has no data yet: {error}", hint=_HINTS["LOADING"])
    if isinstance(error, redis.ResponseError):
        return refusal(error)
    return _unreachable(who, " ".join(str(error).split()).rstrip("."))


def _unreachable(who: str, why: str) -> Unreachable:
    return Unreachable(f"{who} cannot be reached: {why}", hint="see whether it answers: tt ping")
