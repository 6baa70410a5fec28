"""Three sites for a benchmark: real daemons, QUORUM, and one prober at each client port."""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import hiredis

from storage.users import ADMINISTRATOR, new_record
from ttserver.address import Address
from ttserver.demo.ports import reserved
from ttserver.demo.site import SiteProcess
from ttserver.init import Role, make_plan, write

HOST = "127.0.0.1"
NAMES = ("one", "two", "three")
PASSWORD = secrets.token_urlsafe()
ASK_AGAIN_S = 0.001  # where no writes are taken
CONNECT_AGAIN_S = 0.005
REPLY_TIMEOUT_S = 30.0
IN_STEP_TIMEOUT_S = 120.0
LOOK_S = 0.02


class RespConnection:
    """A blocking connection to a client port.

    Args:
        address: of the port.
        logon: as the administrator.

    Raises:
        OSError: it is not reached, or broke.
        hiredis.ReplyError: the logon was refused.
    """

    def __init__(self, address: Address, *, logon: bool = True) -> None:
        self._socket = socket.create_connection((address.host, address.port), REPLY_TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader()
        if not logon:
            return
        answer = self.ask(b"AUTH", ADMINISTRATOR.encode(), PASSWORD.encode())
        if isinstance(answer, hiredis.ReplyError):
            self.close()
            raise answer

    def ask(self, *words: bytes) -> object:
        """Send a command; an error of the server comes back as a value."""
        self._socket.sendall(hiredis.pack_command(words))  # type: ignore[arg-type] # any length
        while (answer := self._reader.gets()) is False:
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionResetError("the server closed the connection")
            self._reader.feed(data)
        return answer

    def close(self) -> None:
        """Close it."""
        self._socket.close()


@dataclass(frozen=True, slots=True)
class Acked:
    """A write that was answered OK.

    Args:
        at_s: the monotonic clock then.
        site: whose client port answered.
        key: of the write; each is written once.
    """

    at_s: float
    site: int
    key: bytes


class Prober(threading.Thread):
    """Writes at one site's client port all the time; elsewhere than at the master it is refused.

    So the time until writes are taken again holds no search of a client for the new master.
    """

    def __init__(self, site: int, address: Address) -> None:
        super().__init__(name=f"prober-{site}", daemon=True)
        self.acked: list[Acked] = []
        self.unmet = 0
        self._site = site
        self._address = address
        self._ended = threading.Event()
        self._number = 0

    def end(self) -> None:
        """Stop after the write under way."""
        self._ended.set()

    def run(self) -> None:
        while not self._ended.is_set():
            try:
                connection = RespConnection(self._address)
            except (OSError, hiredis.HiredisError):
                self._ended.wait(CONNECT_AGAIN_S)
                continue
            with suppress(OSError, hiredis.HiredisError):
                self._probe(connection)
            connection.close()

    def _probe(self, connection: RespConnection) -> None:
        while not self._ended.is_set():
            self._number += 1
            key = b"%d:%09d" % (self._site, self._number)
            answer = connection.ask(b"SET", key, b"x" * 100)
            if answer == b"OK":
                self.acked.append(Acked(time.monotonic(), self._site, key))
                continue
            if str(answer).startswith("PERMFAILED"):
                self.unmet += 1
            self._ended.wait(ASK_AGAIN_S)


@dataclass(slots=True)
class Trio:
    """Three sites of priority 3, 2 and 1, Running, and their probers."""

    sites: Sequence[SiteProcess]
    addresses: Sequence[Address]
    clients: Sequence[Address]
    probers: list[Prober] = field(default_factory=list)

    def acked(self) -> list[Acked]:
        """All writes answered OK until now, in their order."""
        every = [acked for prober in self.probers for acked in list(prober.acked)]
        return sorted(every, key=lambda acked: acked.at_s)

    def start_probers(self) -> None:
        """Begin to write."""
        self.probers = [Prober(at, address) for at, address in enumerate(self.clients)]
        for prober in self.probers:
            prober.start()

    def end_probers(self) -> None:
        """Write no more."""
        for prober in self.probers:
            prober.end()
        for prober in self.probers:
            prober.join(REPLY_TIMEOUT_S)

    def master(self) -> int:
        """Wait until one site is master and the two others follow it; give its number."""
        end_s = time.monotonic() + IN_STEP_TIMEOUT_S
        while True:
            statuses = [site.status() for site in self.sites]
            masters = [
                at
                for at, status in enumerate(statuses)
                if status is not None and status["role"] == "master" and not status["read_only"]
            ]
            if len(masters) == 1:
                follow = [
                    status["role"] == "replicant"
                    and status["state"] == "running"
                    and status["master"] == str(self.addresses[masters[0]])
                    for at, status in enumerate(statuses)
                    if status is not None and at != masters[0]
                ]
                if follow == [True, True]:
                    return masters[0]
            if time.monotonic() > end_s:
                raise TimeoutError(f"no master that two sites follow: {statuses}")
            time.sleep(LOOK_S)

    def missing(self) -> int:
        """Count the acknowledged writes that any site lacks, once all are in step."""
        self.master()
        wanted = {acked.key for prober in self.probers for acked in prober.acked}
        lacking = 0
        for address in self.clients:
            end_s = time.monotonic() + IN_STEP_TIMEOUT_S
            while lacks := wanted - self._keys(address):
                if time.monotonic() > end_s:
                    break
                time.sleep(LOOK_S)
            lacking += len(lacks)
        return lacking

    def _keys(self, address: Address) -> set[bytes]:
        connection = RespConnection(address)
        try:
            flat = connection.ask(b"RANGE", b"-", b"+")
        finally:
            connection.close()
        assert isinstance(flat, list), flat
        return set(flat[::2])


@contextmanager
def trio(directory: Path) -> Iterator[Trio]:
    """Run three sites below `directory`; they end with the context."""
    administrator = new_record(ADMINISTRATOR, PASSWORD, "administrator")
    with ExitStack() as held:
        places = [
            (held.enter_context(reserved(HOST)), held.enter_context(reserved(HOST))) for _ in NAMES
        ]
        sites = [SiteProcess(name, directory / name, directory / f"{name}.log") for name in NAMES]
        try:
            for at, site in enumerate(sites):
                role: Role = "replicant" if at else "master"
                others = [
                    str(replication) for replication, _ in places if places[at][0] != replication
                ]
                plan = make_plan(site.home, role, str(places[at][0]), others, len(NAMES) - at)
                write(plan, None if at else administrator)
                site.home.toml.write_text(f'[client]\nlisten = "{places[at][1]}"\n')
                site.start()
            group = Trio(sites, [place[0] for place in places], [place[1] for place in places])
            group.master()
            group.start_probers()
            try:
                yield group
            finally:
                group.end_probers()
        finally:
            for site in sites:
                site.stop()
