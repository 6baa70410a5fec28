"""The client port: who may connect, for how long, and how all of them are let go.

Every second all sessions are looked at: those that did not log on in time, idle ones, and those
that do not go although they were told to.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from storage.rights import key_rights
from storage.users import UserRecord
from ttserver import __version__
from ttserver.address import Address
from ttserver.auth import Authenticator
from ttserver.commands.context import Authenticator as AuthenticatorLike
from ttserver.commands.context import Client, EngineLike, Server, Store
from ttserver.errors import TtserverError
from ttserver.revocation import Revocation
from ttserver.session import ClientSession

LOOK_S: Final = 1.0
LINGER_LOOKS: Final = 5  # so often a client that has to go may be seen taking no reply
BACKLOG: Final = 512

log = structlog.get_logger(__name__)


class ListenError(TtserverError):
    """The client port could not be opened."""

    default_code = "LISTEN"


class Listener:
    """Serves clients of one engine.

    Args:
        engine: the database; its configuration says where to listen and what the limits are.
        auth: checks passwords; made from the engine's users when left out.
    """

    def __init__(self, engine: EngineLike, auth: AuthenticatorLike | None = None) -> None:
        settings = engine.config.settings
        self._settings = settings.client
        self._own_auth: Authenticator | None = None
        if auth is None:
            revocation = Revocation(engine, engine.accounts, settings.client.revoke_after)
            auth = self._own_auth = Authenticator(
                _lookup(engine), engine.journal, rights=_rights(engine), on_result=revocation.note
            )
        self.server = Server(
            engine=engine,
            auth=auth,
            settings=engine.config.in_force,
            limits=settings.limits,
            now=time.monotonic,
            wall=time.time,
            started=time.monotonic(),
            version=__version__,
            clients_max=settings.client.max_clients,
        )
        self._store = Store(
            engine.keyspace,
            settings.limits,
            engine.catalog,
            engine.users,
            engine.groups,
            engine.access,
        )
        self._sessions: dict[int, ClientSession] = {}
        self._last_number = 0
        self._refused_told = 0
        self._to_send: list[ClientSession] = []
        self._lingering: dict[int, tuple[int, int]] = {}
        self._listening: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()
        self._empty.set()
        self._stopping = False

    @property
    def addresses(self) -> list[Address]:
        """Where it listens; the kernel may have chosen the port."""
        if self._listening is None:
            return []
        return [Address(*sock.getsockname()[:2]) for sock in self._listening.sockets]

    async def start(self) -> None:
        """Open the port.

        Raises:
            ListenError: the address is in use, not of this machine, or not permitted.
        """
        address = self._settings.listen
        loop = asyncio.get_running_loop()
        try:
            self._listening = await loop.create_server(
                self.connect,
                address.host or None,
                address.port,
                backlog=BACKLOG,
            )
        except OSError as error:
            raise ListenError(
                f"client port {address} cannot be opened: {error.strerror or error}",
                hint="end the program that uses it, or set another one: [client] listen in "
                "ttserver.toml.",
            ) from error
        self.server.port = self.addresses[0].port
        self._timer = loop.call_later(LOOK_S, self._on_timer)
        log.info("client_port_open", addresses=[str(one) for one in self.addresses])

    async def stop(self) -> None:
        """Close the port, answer what is under way, close all sessions.

        *Cancellation:* the sessions that are left are dropped.
        """
        self._stopping = True
        if self._timer is not None:
            self._timer.cancel()
        if self._listening is not None:
            self._listening.close()
        try:
            for session in list(self._sessions.values()):
                session.end("the server stops", at_once=False)
            await self._empty.wait()
        finally:
            for session in list(self._sessions.values()):
                session.abort("the server stops")
            if self._own_auth is not None:
                self._own_auth.close()

    def connect(self) -> ClientSession:
        """Make the session of a new connection."""
        return ClientSession(self, self._store)

    # -- called by the sessions

    def admit(self, session: ClientSession) -> int | str:
        """Give the newcomer its number, or the reason why it may not stay."""
        if self._stopping:
            return "the server stops"
        if len(self._sessions) >= self.server.clients_max:
            self.server.totals.refused += 1
            return "max number of clients reached"
        self._last_number += 1
        self._sessions[self._last_number] = session
        self._empty.clear()
        return self._last_number

    def leave(self, session: ClientSession) -> None:
        """Forget a session that has ended; its counts go into the totals."""
        client = session.client
        assert client is not None
        del self._sessions[client.id]
        self._lingering.pop(client.id, None)
        del self.server.clients[client.id]
        self.server.cursors.forget(client.id)
        self._add_up(client)
        if not self._sessions:
            self._empty.set()

    def send_soon(self, session: ClientSession) -> None:
        """Have `send` called after the bytes of all clients that are ready now were looked at."""
        if not self._to_send:
            asyncio.get_running_loop().call_soon(self._send)
        self._to_send.append(session)

    def _send(self) -> None:
        sessions, self._to_send = self._to_send, []
        for session in sessions:
            session.send()

    def _add_up(self, client: Client) -> None:
        totals = self.server.totals
        totals.commands += client.commands
        totals.writes += client.writes
        totals.errors += client.errors
        totals.bytes_in += client.bytes_in
        totals.bytes_out += client.bytes_out

    # -- every second

    def _on_timer(self) -> None:
        self.look()
        self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._on_timer)

    def look(self) -> None:
        """Let go of who did not log on in time, idles, or takes no last replies."""
        now = self.server.now()
        for session in list(self._sessions.values()):
            self._look_at(session, now)
        refused = self.server.totals.refused
        if refused > self._refused_told:
            log.warning(
                "clients_refused",
                count=refused - self._refused_told,
                clients_max=self.server.clients_max,
                hint="raise [client] max_clients, or find out who opens so many.",
            )
            self._refused_told = refused

    def _look_at(self, session: ClientSession, now: float) -> None:
        client = session.client
        if client is None or session.answering:
            return
        idle_s, logon_s = self._settings.idle_timeout_s, self._settings.auth_timeout_s
        if session.ending:
            self._look_at_ending(session, client.id)
        elif client.login is None:
            if now - client.unknown_since > logon_s:
                session.end(f"no logon within {logon_s:g} s", at_once=True)
        elif idle_s and now - client.last_active > idle_s:
            session.end(f"idle for {idle_s:g} s", at_once=True)

    def _look_at_ending(self, session: ClientSession, number: int) -> None:
        """Last replies are worth waiting for as long as the client goes on taking them."""
        taken, looks = self._lingering.get(number, (-1, 0))
        looks = looks + 1 if session.taken_bytes() == taken else 0
        self._lingering[number] = (session.taken_bytes(), looks)
        if looks >= LINGER_LOOKS:
            session.abort("last replies not read")


def _lookup(engine: EngineLike) -> Callable[[str], Awaitable[UserRecord | None]]:
    async def lookup(name: str) -> UserRecord | None:
        return await engine.read(lambda txn: engine.users.get(txn, name), limited=False)

    return lookup


def _rights(engine: EngineLike) -> Callable[[UserRecord], Awaitable[frozenset[str]]]:
    async def rights(record: UserRecord) -> frozenset[str]:
        subject = await engine.read(
            lambda txn: engine.access.subject_of(txn, record), limited=False
        )
        return key_rights(subject)

    return rights
