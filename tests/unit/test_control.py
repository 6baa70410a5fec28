"""The control socket with a real server, a real client and the kernel between them."""

import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from ttserver import control
from ttserver.control import ControlServer, Send
from ttserver.control_client import ControlClient, ControlError, NotRunningError
from ttserver.errors import TtserverError


async def _echo(request: dict[str, Any], send: Send) -> object:
    return request


async def _count(request: dict[str, Any], send: Send) -> object:
    for number in range(request["up_to"]):
        await send({"progress": number})
    return {"counted": request["up_to"]}


async def _refuse(request: dict[str, Any], send: Send) -> object:
    raise TtserverError("write refused: this site is a replicant", code="READONLY", hint="go there")


async def _break(request: dict[str, Any], send: Send) -> object:
    raise ZeroDivisionError("a bug")


HANDLERS = {"echo": _echo, "count": _count, "refuse": _refuse, "break": _break}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ControlServer]:
    made = ControlServer(tmp_path / "ttserver.sock", HANDLERS, idle_timeout_s=5.0)
    await made.start()
    yield made
    await made.stop()


async def in_thread(call: Callable[[ControlClient], Any], path: Path) -> Any:
    def run() -> Any:
        with ControlClient(path, timeout_s=10) as client:
            return call(client)

    return await asyncio.to_thread(run)


async def raw(path: Path, data: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        writer.write(data)
        writer.write_eof()
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


async def test_a_command_gets_its_result(server: ControlServer, tmp_path: Path) -> None:
    got = await in_thread(lambda c: c.ask("echo", name="a\nb"), tmp_path / "ttserver.sock")
    assert got == {"command": "echo", "name": "a\nb"}


async def test_lines_before_the_last_arrive_in_order(server: ControlServer, tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = []
    got = await in_thread(
        lambda c: c.ask("count", on_line=lines.append, up_to=3), tmp_path / "ttserver.sock"
    )
    assert got == {"counted": 3}
    assert [line["progress"] for line in lines] == [0, 1, 2]


async def test_one_connection_may_ask_again_after_a_refusal(
    server: ControlServer, tmp_path: Path
) -> None:
    def twice(client: ControlClient) -> tuple[ControlError, Any]:
        with pytest.raises(ControlError) as refused:
            client.ask("refuse")
        return refused.value, client.ask("echo")

    error, again = await in_thread(twice, tmp_path / "ttserver.sock")
    assert (str(error), error.code, error.hint) == (
        "write refused: this site is a replicant",
        "READONLY",
        "go there",
    )
    assert again == {"command": "echo"}


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"\xff\xfe\n", "BADREQUEST"),
        (b"[]\n", "BADREQUEST"),
        (b"{}\n", "BADREQUEST"),
        (b'{"command": 3}\n', "BADREQUEST"),
        (b'{"command": "nothing"}\n', "BADREQUEST"),
        (b'{"command": "count"}\n', "INTERNAL"),
        (b'{"command": "break"}\n', "INTERNAL"),
        (b"x" * (control.REQUEST_BYTES_MAX * 3), "BADREQUEST"),
    ],
)
async def test_a_bad_request_is_answered_and_the_server_lives(
    server: ControlServer, tmp_path: Path, line: bytes, code: str
) -> None:
    path = tmp_path / "ttserver.sock"
    answer = json.loads(await raw(path, line))
    assert answer["error"]["code"] == code
    assert answer["done"] is True
    assert await in_thread(lambda c: c.ask("echo"), path) == {"command": "echo"}


async def test_half_a_line_is_no_request(server: ControlServer, tmp_path: Path) -> None:
    assert await raw(tmp_path / "ttserver.sock", b'{"command": "echo"}') == b""


async def test_a_silent_connection_is_closed(tmp_path: Path) -> None:
    server = ControlServer(tmp_path / "s", HANDLERS, idle_timeout_s=0.05)
    await server.start()
    try:
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
    finally:
        await server.stop()


async def test_connections_are_bounded(
    server: ControlServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "CONNECTIONS_MAX", 1)
    path = tmp_path / "ttserver.sock"

    def nested(client: ControlClient) -> str:
        client.ask("echo")
        with ControlClient(path, timeout_s=10) as second, pytest.raises(ControlError) as busy:
            second.ask("echo")
        return busy.value.code

    assert await in_thread(nested, path) == "BUSY"


async def test_only_the_owner_and_root_are_served(
    server: ControlServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The test cannot be two users; the kernel's answer about the peer is read as another's.
    path = tmp_path / "ttserver.sock"
    real = control.peer_user
    assert await in_thread(lambda c: c.ask("echo"), path) == {"command": "echo"}
    monkeypatch.setattr(control, "peer_user", lambda c: (real(c)[0] + 1, real(c)[1]))
    reader, writer = await asyncio.open_unix_connection(str(path))
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()


async def test_the_file_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        server = ControlServer(tmp_path / "s", HANDLERS)
        await server.start()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600
    await server.stop()
    assert not (tmp_path / "s").exists()


async def test_the_socket_of_a_dead_daemon_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(NotRunningError):
        await in_thread(lambda c: c.ask("echo"), path)
    server = ControlServer(path, HANDLERS)
    await server.start()
    assert await in_thread(lambda c: c.ask("echo"), path) == {"command": "echo"}
    await server.stop()


async def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("mine")
    with pytest.raises(ControlError, match="another file has this name"):
        await ControlServer(path, HANDLERS).start()
    assert path.read_text() == "mine"


async def test_a_home_too_deep_for_the_kernel_still_works(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    server = ControlServer(deep / "ttserver.sock", HANDLERS)
    await server.start()
    got = await in_thread(lambda c: c.ask("echo"), deep / "ttserver.sock")
    await server.stop()
    assert got == {"command": "echo"}


def test_no_daemon_and_no_home_are_told_apart(tmp_path: Path) -> None:
    with (
        pytest.raises(NotRunningError, match="no daemon runs on") as idle,
        ControlClient(tmp_path / "ttserver.sock"),
    ):
        pass
    assert idle.value.hint == f"start it: ttserver --home {tmp_path} run"
    with (
        pytest.raises(NotRunningError, match="does not exist"),
        ControlClient(tmp_path / "none" / "ttserver.sock"),
    ):
        pass


async def test_stopping_drops_who_is_connected(server: ControlServer, tmp_path: Path) -> None:
    path = tmp_path / "ttserver.sock"
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(b'{"command": "echo"}\n')
    await asyncio.wait_for(reader.readline(), 10)
    await server.stop()
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()
    with pytest.raises(NotRunningError):
        await in_thread(lambda c: c.ask("echo"), path)


def test_a_daemon_that_hangs_is_reported(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as hung:
        hung.bind(str(tmp_path / "s"))
        hung.listen()
        late = pytest.raises(ControlError, match=r"did not answer status within 0.05 s")
        with ControlClient(tmp_path / "s", timeout_s=0.05) as client, late:
            client.ask("status")
