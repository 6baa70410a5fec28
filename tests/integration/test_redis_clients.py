"""Real Redis clients against the client port: redis-py, its asyncio half, redis-cli, the benchmark.

Each over both engines where the engine can matter.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.integration.client_port import DEADLINE_S, ServedPort, served_port
from tests.support.engine import Refusal, settings_for
from tests.support.wire import small_listener
from ttserver.address import Address
from ttserver.listener import ListenError
from ttserver.settings import ClientSettings, LimitSettings

CREDENTIALS: dict[str, Any] = {"username": "fred", "password": "secret"}


@pytest.fixture(params=["small", "real"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServedPort]:
    with served_port(tmp_path, request.param) as served:
        yield served


@pytest.fixture
def small(tmp_path: Path) -> Iterator[ServedPort]:
    with served_port(tmp_path, "small") as served:
        yield served


def connect(served: ServedPort, protocol: int = 2, **more: Any) -> redis.Redis:
    options: dict[str, Any] = {
        **CREDENTIALS,
        "socket_timeout": DEADLINE_S,
        "retry": Retry(NoBackoff(), 0),
    }
    return redis.Redis("127.0.0.1", served.port, protocol=protocol, **(options | more))


# -- redis-py


@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_py(server: ServedPort, protocol: int) -> None:
    with connect(server, protocol, client_name="tester") as client:
        assert client.set("volume:1", b"\x00\xff")
        assert client.get("volume:1") == b"\x00\xff"
        assert client.get("absent") is None
        assert client.set("volume:1", "x", nx=True) is None
        assert client.set("volume:1", "y", xx=True, get=True) == b"\x00\xff"
        assert client.mset({"a": 1, "b": 2})
        assert client.mget("a", "b", "c") == [b"1", b"2", None]
        assert client.incrby("a", 41) == 42
        assert client.append("b", "3") == 2
        assert client.strlen("b") == 2
        assert client.exists("a", "b", "c") == 2
        assert client.type("a") in (b"string", "string")
        assert client.getdel("b") == b"23"
        assert client.delete("a", "b") == 1
        assert client.dbsize() == 1
        assert list(client.scan_iter(match="vol*")) == [b"volume:1"]
        assert client.keys() == [b"volume:1"]
        assert client.execute_command("RANGE", "-", "+") == [b"volume:1", b"y"]
        assert client.ping()
        assert client.client_getname() in (b"tester", "tester")
        assert client.client_info()["user"] == "fred"
        assert client.client_info()["lib-name"].startswith("redis-py")
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.wait(0, 10) == 0
        assert len(client.time()) == 2


@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_py_reads_what_we_say_about_ourselves(server: ServedPort, protocol: int) -> None:
    with connect(server, protocol) as client:
        assert client.info("replication")["role"] == "master"
        everything = client.info("everything")
        assert everything["redis_mode"] == "standalone"
        assert "db0" not in everything
        assert client.role()[0] in (b"master", "master")
        commands = client.command()
        assert commands["get"]["arity"] == 2
        assert set(commands["mset"]["flags"]) >= {"write"} or b"write" in commands["mset"]["flags"]
        assert client.command_count() == len(commands)
        docs = client.execute_command("COMMAND DOCS", "get")
        assert docs


@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_py_transactions(server: ServedPort, protocol: int) -> None:
    with connect(server, protocol) as client, connect(server, protocol) as other:
        pipe = client.pipeline()
        pipe.set("a", 1).incr("a").get("a").get("absent")
        assert pipe.execute() == [True, 2, b"2", None]
        pipe = client.pipeline(transaction=False)
        pipe.set("b", "x").incr("b").get("b")
        first, error, third = pipe.execute(raise_on_error=False)
        assert (first, third) == (True, b"x")
        assert isinstance(error, redis.ResponseError)
        with client.pipeline() as watching:
            watching.watch("a")
            seen = int(watching.get("a"))
            other.incr("a")
            watching.multi()
            watching.set("a", seen + 10)
            with pytest.raises(redis.WatchError):
                watching.execute()
        assert client.get("a") == b"3"
        assert client.transaction(lambda p: p.multi() or p.incr("a"), "a") == [4]


async def test_redis_py_asyncio(server: ServedPort) -> None:
    for protocol in (2, 3):
        client: Any = redis.asyncio.Redis(port=server.port, protocol=protocol, **CREDENTIALS)
        async with client:
            assert await client.set("a", "1")
            async with asyncio.TaskGroup() as group:
                for _ in range(50):
                    group.create_task(client.incr("a"))
            assert int(await client.get("a")) == 51
            assert [key async for key in client.scan_iter()] == [b"a"]
            pipe = client.pipeline()
            pipe.set("b", 2).get("a")
            assert await pipe.execute() == [True, b"51"]
            await client.delete("a", "b")


def test_errors_are_the_libraries_own_classes(small: ServedPort) -> None:
    engine: Any = small.engine
    with connect(small) as client:
        engine.refuse_writes = Refusal("the master is db1:5000", code="READONLY")
        with pytest.raises(redis.ReadOnlyError, match="db1:5000"):
            client.set("a", 1)
        engine.refuse_writes = None
        client.execute_command("MULTI")
        with pytest.raises(redis.ResponseError, match="not allowed inside a transaction"):
            client.dbsize()
        with pytest.raises(redis.exceptions.ExecAbortError):
            client.execute_command("EXEC")
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.client_kill_filter(_id=1)
        engine.perm_failed = "0 of 1 acknowledged"
        said = "PERMFAILED committed here as 1:1:28, but 0 of 1"
        with pytest.raises(redis.ResponseError, match=said):
            client.set("a", 1)
        engine.refuse_reads = Refusal("no complete copy yet", code="LOADING")
        with pytest.raises(redis.BusyLoadingError):
            client.get("a")
    with pytest.raises(redis.AuthenticationError), connect(small, password="wrong") as client:
        client.ping()
    with pytest.raises(redis.AuthenticationError), connect(small, 3, password="wrong") as client:
        client.ping()
    with (
        pytest.raises(redis.AuthenticationError, match="needs a user and a password"),
        connect(small, username=None) as client,
    ):
        client.ping()


def test_many_clients_count_together(server: ServedPort) -> None:
    def work() -> None:
        with connect(server) as client:
            for _ in range(25):
                client.incr("n")
                pipe = client.pipeline(transaction=False)
                for _ in range(4):
                    pipe.incr("n")
                pipe.execute()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    with connect(server) as client:
        assert client.get("n") == b"1000"


def test_a_value_of_megabytes(server: ServedPort) -> None:
    value = bytes(range(256)) * 16_384
    with connect(server) as client:
        assert client.set("big", value)
        assert client.get("big") == value
        assert client.strlen("big") == len(value)


def test_a_client_that_reads_slowly_gets_everything(small: ServedPort) -> None:
    with connect(small) as client:
        client.set("a", "x" * 100_000)
    with socket.create_connection(("127.0.0.1", small.port), DEADLINE_S) as sock:
        sock.sendall(b"AUTH fred secret\r\n" + b"GET a\r\n" * 300 + b"QUIT\r\n")
        got = 0
        while data := sock.recv(4096):
            got += len(data)
    assert got == 5 + 300 * (100_000 + len(b"$100000\r\n\r\n")) + 5


# -- redis-cli and redis-benchmark


def run(program: str, served: ServedPort, *args: str, stdin: str | None = None) -> str:
    """Run one of Redis's programs, logged on."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed (Debian: redis-tools)")
    done = subprocess.run(
        [path, "-p", str(served.port), "--user", "fred", "-a", "secret", *args],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize("protocol", [["-2"], ["-3"]])
def test_redis_cli(server: ServedPort, protocol: list[str]) -> None:
    def cli(*args: str, stdin: str | None = None) -> str:
        return run("redis-cli", server, *protocol, *args, stdin=stdin)

    assert cli("SET", "a", "1") == "OK\n"
    assert cli("GET", "a") == "1\n"
    assert cli("--scan", "--pattern", "a*") == "a\n"
    assert "role:master" in cli("INFO", "replication")
    assert cli("-x", "SET", "b", stdin="from stdin") == "OK\n"
    assert cli("GET", "b") == "from stdin\n"
    assert cli(stdin="MULTI\nINCR a\nEXEC\n") == "OK\nQUEUED\n2\n"
    assert cli("EVAL", "return 1", "0").startswith("ERR unknown command 'EVAL'")
    assert "summary" in cli("COMMAND", "DOCS", "get")


def test_redis_cli_shows_help_made_from_our_table(small: ServedPort) -> None:
    shown = run("redis-cli", small, stdin="help range\nhelp set\n")
    shown = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert "RANGE start end [LIMIT limit] [REV]" in shown
    assert "Returns keys and values between two keys, in byte order." in shown
    assert "SET key value [NX|XX] [GET]" in shown


def test_redis_cli_mass_insertion(server: ServedPort) -> None:
    lines = "".join(
        f"*3\r\n$3\r\nSET\r\n$5\r\nk{number:04}\r\n$1\r\nv\r\n" for number in range(3000)
    )
    shown = run("redis-cli", server, "--pipe", stdin=lines)
    assert "errors: 0, replies: 3000" in shown
    with connect(server) as client:
        assert client.dbsize() == 3000


@pytest.mark.parametrize("pipeline", ["1", "16"])
def test_redis_benchmark(server: ServedPort, pipeline: str) -> None:
    shown = run(
        "redis-benchmark", server, "-t", "set,get", "-n", "2000", "-r", "100", "-q", "-P", pipeline
    )
    assert "SET: " in shown
    assert "GET: " in shown
    assert "rror" not in shown
    with connect(server) as client:
        assert 50 < client.dbsize() <= 100


# -- without a library


def talk(served: ServedPort, data: bytes) -> bytes:
    """Send bytes, close our side, and take all that comes."""
    with socket.create_connection(("127.0.0.1", served.port), DEADLINE_S) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        got = b""
        while chunk := sock.recv(65536):
            got += chunk
    return got


def test_telnet(small: ServedPort) -> None:
    assert talk(small, b"PING\r\nAUTH fred secret\nset 'a b' \"c\\x41\"\nGET 'a b'\nquit\n") == (
        b"+PONG\r\n+OK\r\n+OK\r\n$2\r\ncA\r\n+OK\r\n"
    )


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x02\x00\x00\x00\x0c\x00\x00\x00\x13",
    ],
)
def test_other_protocols_are_shown_the_door(small: ServedPort, data: bytes) -> None:
    assert talk(small, data) == b""
    assert talk(small, b"PING\r\n") == b"+PONG\r\n"


async def test_a_port_that_is_taken(small: ServedPort, tmp_path: Path) -> None:
    taken = settings_for(client=ClientSettings(listen=Address("127.0.0.1", small.port)))
    async with small_listener(tmp_path / "second", taken) as (listener, _):
        with pytest.raises(
            ListenError, match=f"client port 127.0.0.1:{small.port} cannot"
        ) as caught:
            await listener.start()
    assert caught.value.hint


def test_memory_stays_bounded_under_attack(tmp_path: Path) -> None:
    limits = LimitSettings(bulk_bytes_max=2**20, frame_bytes_max=2**21)
    with served_port(tmp_path, "small", settings_for(limits)) as served:
        attacks = (
            b"*1000000000\r\n",
            b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$9999999999\r\n",
            b"AUTH fred secret\r\n" + b"*1048576\r\n" * 1000,
            b"x" * 10_000_000,
            b"AUTH fred secret\r\n*3\r\n" + (b"$1000000\r\n" + b"x" * 1_000_000 + b"\r\n") * 3,
        )
        before = resident_bytes()
        for attack in attacks:
            for _ in range(3):
                with socket.create_connection(("127.0.0.1", served.port), DEADLINE_S) as sock:
                    try:
                        sock.sendall(attack)
                        while sock.recv(65536):
                            pass
                    except ConnectionError:
                        continue  # the server closed while we were still sending
        assert resident_bytes() - before < 64 * 2**20
        assert talk(served, b"PING\r\n") == b"+PONG\r\n"


def resident_bytes() -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")
