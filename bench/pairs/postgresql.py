"""PostgreSQL: a primary and a standby by streaming replication, synchronous for `set-acked`.

The load is pgbench's, with prepared statements and one thread. The key is a bigint, the value
text of 200 bytes that is sent with each upsert.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from bench.pairs.base import (
    VALUE_BYTES,
    Load,
    Measured,
    Pair,
    PairError,
    PairMissingError,
    Setting,
    Work,
    wait_for,
)
from bench.pairs.servers import Server
from bench.trio import HOST, REPLY_TIMEOUT_S
from bench.workload import percentile
from ttserver.address import Address
from ttserver.demo.ports import reserved

DEBIAN = Path("/usr/lib/postgresql")
USER = "postgres"  # of the system, where this is root, and of the database
STANDBY = "standby"
COMMAND_TIMEOUT_S = 300.0
PROTOCOL = 3 << 16
UPSERT = """\
\\set key random(0, :keys - 1)
INSERT INTO kv VALUES (:key, :value) ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value;
"""
SELECT = """\
\\set key random(0, :keys - 1)
SELECT value FROM kv WHERE key = :key;
"""
TABLE = "CREATE TABLE kv (key bigint PRIMARY KEY, value text NOT NULL)"
ROWS = "INSERT INTO kv SELECT key, repeat('.', {size}) FROM generate_series(0, {last}) AS key"


class PostgresqlPair(Pair):
    """See the module's text."""

    name = "postgresql"

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._bin = _programs()
        self._user = USER if os.geteuid() == 0 else None  # it refuses to run as root
        self._addresses: list[Address] = []
        self._servers: list[Server] = []

    @cached_property
    def version(self) -> str:
        told = self._command("postgres", "--version")
        found = re.search(r"[0-9][0-9.]*", told)
        return found[0] if found else told.strip()

    def open(self) -> None:
        root = self.setting.directory
        root.mkdir(parents=True)
        if self._user is not None:
            shutil.chown(root, self._user, self._user)
            _must_be_reached(root)
        self._addresses = [self.held.enter_context(reserved(HOST)) for _ in range(2)]
        primary, standby = (root / "primary", root / "standby")
        self._command("initdb", "-D", primary, "-U", USER, "-A", "trust", "-E", "UTF8", "-N")
        with (primary / "postgresql.conf").open("a", encoding="utf-8") as config:
            config.write(self._config())
        self._start(primary, 0)
        self._sql(f"{TABLE}; {self._rows()}; VACUUM ANALYZE kv; CHECKPOINT")
        where = f"host={HOST} port={self._addresses[0].port} user={USER} application_name={STANDBY}"
        self._command("pg_basebackup", "-d", where, "-D", standby, "-R", "-c", "fast", "-N")
        self._start(standby, 1)
        state = "SELECT sync_state FROM pg_stat_replication"
        wait_for("the standby is synchronous", lambda: self._sql(state).strip() == "sync")

    def _config(self) -> str:
        """What differs from the packages' own; all flushing and checking stays on."""
        return (
            f"listen_addresses = '{HOST}'\n"
            "unix_socket_directories = ''\n"
            f"max_connections = {self.setting.clients_max}\n"
            f"shared_buffers = {self.setting.cache_mib}MB\n"
            f"synchronous_standby_names = '{STANDBY}'\n"
        )

    def _rows(self) -> str:
        return ROWS.format(size=VALUE_BYTES, last=self.setting.keys - 1)

    def _start(self, directory: Path, at: int) -> None:
        port = self._addresses[at].port
        words = [str(self._bin / "postgres"), "-D", str(directory), "-p", str(port)]
        name = f"postgresql {directory.name}"
        server = Server(name, words, directory, signal.SIGQUIT, self._user)
        self.held.callback(server.stop)
        self._servers.append(server)
        ready = [str(self._bin / "pg_isready"), "-q", "-h", HOST, "-p", str(port)]
        wait_for(
            f"{server.name} answers",
            lambda: subprocess.run(ready, check=False).returncode == 0,
        )

    def _command(self, name: str, *words: str | Path) -> str:
        """Run one of its programs to the end.

        Raises:
            PairError: it failed.
        """
        done = subprocess.run(
            [self._bin / name, *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_TIMEOUT_S,
            cwd="/",
            user=self._user,
            group=self._user,
            extra_groups=None if self._user is None else (),
            # Before there is a standby nobody could acknowledge.
            env={**os.environ, "PGOPTIONS": "-c synchronous_commit=local"},
        )
        if done.returncode != 0:
            raise PairError(f"{name} failed: {done.stderr.strip()}")
        return done.stdout

    def _sql(self, text: str) -> str:
        words = ["-XqAt", "-v", "ON_ERROR_STOP=1", "-h", HOST, "-U", USER]
        words += ["-p", str(self._addresses[0].port), "-d", "postgres"]
        each = [word for one in text.split("; ") for word in ("-c", one)]
        return self._command("psql", *words, *each)

    def can(self, work: Work) -> bool:
        return work != "get-pipelined"

    def run(self, load: Load) -> Measured:
        writes = load.work.startswith("set")
        script = self.setting.directory / f"{load.work}.sql"
        script.write_text(UPSERT if writes else SELECT, encoding="utf-8")
        log = self.setting.directory / "log"
        words = [
            *("-n", "-M", "prepared", "-j", "1", "-h", HOST, "-U", USER),
            *("-p", str(self._addresses[0 if writes else 1].port)),
            *("-c", str(load.connections), "-T", str(math.ceil(load.warmup_s + load.seconds))),
            *("-D", f"keys={self.setting.keys}", "-D", f"value={'x' * VALUE_BYTES}"),
            *("-f", str(script), "-l", "--log-prefix", str(log)),
            *("--random-seed", str(load.seed), "postgres"),
        ]
        level = "on" if load.work == "set-acked" else "local"
        done = subprocess.run(
            [self._bin / "pgbench", *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_TIMEOUT_S,
            env={**os.environ, "PGOPTIONS": f"-c synchronous_commit={level}"},
        )
        logs = list(log.parent.glob(f"{log.name}.*"))
        lines = [line for path in logs for line in path.read_text(encoding="ascii").splitlines()]
        for path in logs:
            path.unlink()
        if done.returncode != 0:
            raise PairError(f"pgbench failed: {done.stderr.strip()}")
        return _measured(lines, load)

    def lost(self, measured: Measured) -> int:  # noqa: ARG002
        return 0  # pgbench does not tell what it wrote last

    def pids(self) -> tuple[int, int]:
        primary, standby = self._servers
        return primary.pid, standby.pid

    def idle(self, work: Work) -> Callable[[], None]:
        address = self._addresses[0 if work.startswith("set") else 1]
        sock = socket.create_connection((address.host, address.port), REPLY_TIMEOUT_S)
        words = b"user\0%b\0database\0postgres\0\0" % USER.encode()
        sock.sendall(struct.pack("!II", len(words) + 8, PROTOCOL) + words)
        received = b""
        while not received.endswith(b"Z\0\0\0\5I"):  # ready for queries
            if not (data := sock.recv(4096)):
                raise PairError(f"{self.name} refused a connection: {received!r}")
            received += data
        return sock.close


def _measured(lines: Sequence[str], load: Load) -> Measured:
    """Read pgbench's log: client, number, microseconds, script, and the time of the end.

    Source: PostgreSQL, pgbench, "Per-Transaction Logging".
    """
    rows = [(int(w[2]), int(w[4]) * 1_000_000 + int(w[5])) for w in map(str.split, lines)]
    if not rows:
        raise PairError("pgbench did nothing")
    begin_us = min(end - took for took, end in rows) + load.warmup_s * 1e6
    end_us = begin_us + load.seconds * 1e6
    counted = sorted(took for took, end in rows if begin_us <= end < end_us)
    return Measured(
        operations=len(counted),
        sent=len(rows),
        p50_us=percentile(counted, 0.50),
        p99_us=percentile(counted, 0.99),
        max_us=counted[-1] if counted else 0.0,
    )


def _programs() -> Path:
    """Find the newest PostgreSQL's programs.

    Raises:
        PairMissingError: there is none.
    """
    # Debian's are not on the PATH: several versions may be installed beside each other.
    found = [path.parent for path in DEBIAN.glob("*/bin/postgres")]
    found.sort(key=lambda path: float(path.parent.name))
    if other := shutil.which("postgres"):
        found.append(Path(other).resolve().parent)
    for directory in reversed(found):
        if (directory / "pgbench").exists():
            return directory
    raise PairMissingError("PostgreSQL is not installed: bench/setup-peers")


def _must_be_reached(directory: Path) -> None:
    for parent in directory.parents:
        if not parent.stat().st_mode & 0o001:
            raise PairMissingError(f"the user {USER} cannot enter {parent}: name another --dir")
