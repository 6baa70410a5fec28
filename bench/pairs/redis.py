"""Redis: a master and a replica, each of which flushes its append-only file at every write."""

from __future__ import annotations

import shutil
import signal
import subprocess
from functools import cached_property, partial

import hiredis

from bench.pairs.base import PairMissingError, Setting, Work, wait_for
from bench.pairs.resp import RespPair
from bench.pairs.servers import Server
from bench.trio import HOST, RespConnection
from ttserver.address import Address
from ttserver.demo.ports import reserved

SITES = 2
CONFIG = (
    *("--bind", HOST, "--save", "", "--appendonly", "yes", "--appendfsync", "always"),
    *("--daemonize", "no"),
)


class RedisPair(RespPair):
    """A write that has to be acknowledged is SET and WAIT 1, sent together."""

    name = "redis"

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        found = shutil.which("redis-server")
        if found is None:
            raise PairMissingError("redis-server is not installed: bench/setup-peers")
        self._program = found
        self._servers: list[Server] = []
        self._addresses: list[Address] = []

    @cached_property
    def version(self) -> str:
        told = subprocess.run(
            [self._program, "--version"], capture_output=True, text=True, check=True
        )
        return told.stdout.partition("v=")[2].partition(" ")[0]

    def open(self) -> None:
        self._addresses = [self.held.enter_context(reserved(HOST)) for _ in range(SITES)]
        master, replica = self._addresses
        for address in self._addresses:
            directory = self.setting.directory / str(address.port)
            directory.mkdir(parents=True)
            words = [self._program, "--port", str(address.port), "--dir", str(directory), *CONFIG]
            if address is replica:
                words += ["--replicaof", HOST, str(master.port)]
            server = Server(f"redis {address.port}", words, directory, signal.SIGTERM)
            self.held.callback(server.stop)
            self._servers.append(server)
            wait_for(f"{server.name} answers", partial(self._answers, address))
        wait_for("the Redis replica follows", self._follows)
        self.fill()
        connection = self.connect(master)
        connection.ask(b"WAIT", b"1", b"0")
        connection.close()

    def _answers(self, address: Address) -> bool:
        try:
            connection = self.connect(address)
        except OSError:
            return False
        answer = connection.ask(b"PING")
        connection.close()
        return not isinstance(answer, hiredis.ReplyError)

    def _follows(self) -> bool:
        connection = self.connect(self._addresses[1])
        answer = connection.ask(b"INFO", b"replication")
        connection.close()
        assert isinstance(answer, bytes), answer
        return b"master_link_status:up" in answer

    def pids(self) -> tuple[int, int]:
        master, replica = self._servers
        return master.pid, replica.pid

    def address(self, work: Work) -> Address:
        return self._addresses[0 if work.startswith("set") else 1]

    def connect(self, address: Address) -> RespConnection:
        return RespConnection(address, logon=False)

    def setup(self, work: Work) -> list[str]:  # noqa: ARG002
        return []
