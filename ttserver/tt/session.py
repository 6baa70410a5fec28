"""A logged-on session of `tt`: a client that asks for the password, and shows a notice once."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

from ttserver.client.base import CONNECT_TIMEOUT_S
from ttserver.client.blocking import Client
from ttserver.client.call import Call, Listing, as_is
from ttserver.client.errors import ClientError, Unreachable, unreachable, why_broken
from ttserver.errors import ConfigurationError
from ttserver.server_string import ServerString

# One flush of a busy disk may take seconds, and an acknowledgement its own time.
REPLY_TIMEOUT_S: Final = 120.0
# Somebody waits at a terminal: long enough for another master to be elected, no longer.
DEADLINE_S: Final = 15.0

_HINTS: Final = {
    "NOPERM": "see what you may do: tt whoami",
    "READONLY": "name the master, or all servers: -S user@db1,db2,db3",
    "LOADING": "wait until the server has its data: ttserver status, on its machine",
}

Command: TypeAlias = Sequence[Any]  # its words
Answer: TypeAlias = Any  # a reply, or a ClientError


class Session:
    """Connects when something is asked first; see `ttserver.client.Client` for whom it asks.

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
        self._opened: Client | None = None

    def close(self) -> None:
        """Hang up."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    # -- asking

    def read(self, *command: Any, timeout_s: float | None = None) -> Any:
        """Ask a server; any will do.

        Args:
            command: its words.
            timeout_s: how long the answer may take, where that is longer than usual.

        Raises:
            ServerError: the server's own error.
            ClientError: no server can be reached, or logged on to.
        """
        return self._one(_call(command, write=False, timeout_s=timeout_s))

    def write(self, *command: Any, timeout_s: float | None = None) -> Any:
        """Ask the master.

        Raises:
            ServerError, ClientError: as `read`; OutcomeUnknown when the connection broke.
        """
        return self._one(_call(command, write=True, timeout_s=timeout_s))

    def read_all(self, commands: Iterable[Command]) -> Iterator[Answer]:
        """Ask many things without waiting for each; refusals are among the answers.

        Raises:
            Unreachable: no server can be reached.
        """
        return self._many(_call(command, write=False) for command in commands)

    def write_all(self, commands: Iterable[Command]) -> Iterator[Answer]:
        """The same of the master."""
        return self._many(_call(command, write=True) for command in commands)

    def pages(self, *command: Any, cursor_at: int = 1) -> Iterator[dict[str, Any]]:
        """Read a list to its end.

        Args:
            command: without its cursor.
            cursor_at: where the cursor belongs; -1 for `CURSOR n` at the end.
        """
        with _hints():
            yield from self._client.rows(Listing(*command, decode=as_is, cursor_at=cursor_at))

    def _one(self, call: Call[Any]) -> Any:
        with _hints():
            return self._client.run(call)

    def _many(self, calls: Iterable[Call[Any]]) -> Iterator[Answer]:
        with _hints():
            for answer in self._client.many(calls):
                if isinstance(answer, Unreachable):
                    raise answer
                yield _with_hint(answer) if isinstance(answer, ClientError) else answer

    # -- logging on

    @property
    def _client(self) -> Client:
        if self._opened is None:
            self._opened = self._open()
        return self._opened

    def _open(self) -> Client:
        """Log on, and show what the first server that answers has to tell."""
        first = self._servers[0]
        if first.user is None:
            raise ConfigurationError(
                "user is missing: the server wants to know who you are",
                code="NOUSER",
                hint="write it before the server: -S user@server, or in $TT_SERVER",
            )
        password = first.password
        if password is None:
            password = self._ask(f"Password of {first.user} at {self._reachable()}")
        client = Client(
            ",".join(map(str, self._servers)),
            user=first.user,
            password=password,
            program="tt",
            deadline_s=DEADLINE_S,
            reply_timeout_s=REPLY_TIMEOUT_S,
        )
        try:
            notice = client.info().get("ttserver_notice")
        except ClientError:
            client.close()
            raise
        if notice:
            self._tell(notice)
        return client

    def _reachable(self) -> ServerString:
        """Find a server that is there: nobody types a password for nothing.

        Raises:
            Unreachable: none is.
        """
        failed: list[Unreachable] = []
        for server in self._servers:
            try:
                socket.create_connection((server.host, server.port), CONNECT_TIMEOUT_S).close()
                return server
            except OSError as error:
                failed.append(unreachable(str(server), why_broken(error)))
        raise failed[0]


def _call(command: Command, *, write: bool, timeout_s: float | None = None) -> Call[Any]:
    return Call(*command, decode=as_is, write=write, timeout_s=timeout_s)


@contextmanager
def _hints() -> Iterator[None]:
    """Add what to do to the server's words."""
    try:
        yield
    except ClientError as error:
        _with_hint(error)
        raise


def _with_hint(error: ClientError) -> ClientError:
    error.hint = error.hint or _HINTS.get(error.code)
    return error
