"""`tt ping` against real sockets: what it prints, what it advises, its exit status."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ttserver import __version__
from ttserver.tt import run

ROOT = Path(__file__).parents[2]
# What a handler does with one connection; the next connection gets the next handler.
Handler = Callable[[socket.socket], None]


class Server:
    """Listens on loopback; each connection is served by the next handler, the last one for good."""

    def __init__(self, *handlers: Handler) -> None:
        self.handlers = list(handlers)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.connections: list[socket.socket] = []
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            number = min(len(self.connections), len(self.handlers) - 1)
            self.connections.append(connection)
            threading.Thread(
                target=self.handle, args=(self.handlers[number], connection), daemon=True
            ).start()

    @staticmethod
    def handle(handler: Handler, connection: socket.socket) -> None:
        with connection:
            try:
                handler(connection)
            except OSError:
                return

    def close(self) -> None:
        # Without the shutdown the accept would keep the port.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(10)
        for connection in self.connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


def echo(connection: socket.socket, times: int = 1 << 30) -> None:
    """Answer PING with its payload, so many times, as a server before logon does."""
    for _ in range(times):
        request = connection.recv(4096)
        if not request:
            return
        found = re.fullmatch(rb"\*2\r\n\$4\r\nPING\r\n(\$56\r\n.{56}\r\n)", request, re.DOTALL)
        assert found is not None, request
        connection.sendall(found[1])


def say(answer: bytes) -> Handler:
    """Answer the first request with these bytes, then wait for the other side to leave."""

    def handler(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(answer)
        while connection.recv(4096):
            pass

    return handler


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    made: list[Server] = []

    def build(*handlers: Handler) -> Server:
        made.append(Server(*handlers))
        return made[-1]

    yield build
    for server in made:
        server.close()


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TT_SERVER", raising=False)
    monkeypatch.delenv("TT_PASSWORD", raising=False)


def ping(server: Server, *arguments: str) -> int:
    return run(["ping", "-S", f"127.0.0.1:{server.port}", "-i", "0", *arguments])


def test_one_line_a_reply_and_a_summary(
    serve: Callable[..., Server], capsys: pytest.CaptureFixture[str]
) -> None:
    server = serve(echo)
    assert ping(server, "-c", "3") == 0
    out, err = capsys.readouterr()
    place = f"127.0.0.1:{server.port}"
    head, *replies, summary, counts, times = out.splitlines()
    assert head == f"PING {place}: 56 bytes"
    assert len(replies) == 3
    for number, reply in enumerate(replies, 1):
        assert re.fullmatch(
            rf"56 bytes from {place}: seq={number} time=[0-9]+\.[0-9]{{3}} ms", reply
        )
    assert summary == f"--- {place} ping statistics ---"
    assert re.fullmatch(r"3 sent, 3 received, 0% lost, time [0-9]+ ms", counts)
    found = re.fullmatch(r"round trip min/avg/max = ([0-9.]+)/([0-9.]+)/([0-9.]+) ms", times)
    assert found is not None
    assert float(found[1]) <= float(found[2]) <= float(found[3])
    assert err == ""
    assert len(server.connections) == 1


@pytest.mark.parametrize("where", ["before", "after", "environment"])
def test_the_server_may_be_named_in_three_places(
    serve: Callable[..., Server], where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"fred:secret@127.0.0.1:{serve(echo).port}"
    if where == "environment":
        monkeypatch.setenv("TT_SERVER", text)
    before = ["-S", text] if where == "before" else []
    after = ["-S", text] if where == "after" else []
    assert run([*before, "ping", "-c", "1", *after]) == 0


def test_a_closed_port_has_a_hint_once(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert run(["ping", "-S", f"127.0.0.1:{port}", "-c", "2", "-i", "0"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[1] == f"no reply from 127.0.0.1:{port}: seq=1 connection refused"
    assert "2 sent, 0 received, 100% lost" in out
    assert "round trip" not in out
    assert err.count("HINT: ") == 1
    assert "start ttserver" in err


def test_a_name_that_does_not_resolve_has_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ping", "-S", "no-such-host.invalid", "-c", "1"]) == 1
    out, err = capsys.readouterr()
    assert "no-such-host.invalid does not resolve" in out
    assert err.startswith("HINT: check the server's name")


def hang_up(connection: socket.socket) -> None:
    connection.recv(4096)


@pytest.mark.parametrize(
    ("handler", "why"),
    [
        (hang_up, "the server closed the connection"),
        (say(b"-ERR max number of clients reached\r\n"), "answered: ERR max number of clients"),
        (say(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "not a ttserver client port"),
        (say(b"$56\r\n" + b"x" * 56 + b"\r\n"), "the answer is not what was sent"),
        (say(b"$100000\r\n" + b"x" * 90_000), "the answer does not end"),
        (say(b""), "nothing came within 0.2 s"),
    ],
)
def test_what_is_no_reply_is_said_and_advised(
    serve: Callable[..., Server],
    capsys: pytest.CaptureFixture[str],
    handler: Handler,
    why: str,
) -> None:
    assert ping(serve(handler), "-c", "1", "-W", "0.2") == 1
    out, err = capsys.readouterr()
    assert why in out
    assert err.startswith("HINT: ")


def test_a_connection_closed_while_idle_is_made_again_without_a_word(
    serve: Callable[..., Server], capsys: pytest.CaptureFixture[str]
) -> None:
    server = serve(lambda connection: echo(connection, 1))
    assert ping(server, "-c", "3") == 0
    out, err = capsys.readouterr()
    assert "3 sent, 3 received, 0% lost" in out
    assert err == ""
    assert len(server.connections) == 3


def test_a_late_reply_is_not_taken_for_the_next(
    serve: Callable[..., Server], capsys: pytest.CaptureFixture[str]
) -> None:
    server = serve(say(b""), echo)
    assert ping(server, "-c", "2", "-W", "0.2") == 0
    out, _ = capsys.readouterr()
    assert "seq=1 nothing came within 0.2 s" in out
    assert "seq=2 time=" in out
    assert "2 sent, 1 received, 50% lost" in out


def test_ctrl_c_prints_the_summary(serve: Callable[..., Server]) -> None:
    server = serve(echo)
    arguments = ["ping", "-S", f"127.0.0.1:{server.port}", "-i", "60"]
    process = subprocess.Popen(
        [sys.executable, "-c", "from ttserver.tt import main; main()", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("PING ")
        assert "seq=1 time=" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert "1 sent, 1 received, 0% lost" in out
    assert "round trip min/avg/max" in out
    assert err == ""
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ping", "-S", "fred:secret"], "tt: server string cannot be used"),
        (["ping", "-c", "0"], "tt: invalid value for '-c'"),
        (["ping", "-c", "x"], "tt: invalid value for '-c'"),
        (["pong"], "tt: no such command 'pong'"),
    ],
)
def test_usage_errors_are_two_lines_and_status_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    error, hint = err.splitlines()
    assert error.lower().startswith(said)
    assert hint.startswith("HINT: ")
    assert out == ""


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"tt {__version__}\n"
    assert run([]) == 2
    assert "ping" in capsys.readouterr().out
