"""Errands: a request on a link to the master and its answer, by function calls."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from replication import errands, wire
from replication.errands import CODES, SERVED_MAX, Errands
from replication.errors import ReplicationError
from replication.messages import OwnCode


@dataclass
class OneLink:
    """A link whose frames are heard at once by the other end."""

    released: bool = True
    is_closed: bool = False
    native: bool = False
    other: Errands | None = None
    back: OneLink | None = None
    sent: list[tuple[int, bytes]] = field(default_factory=list)

    @property
    def peer(self) -> Any:
        return SimpleNamespace(remote=SimpleNamespace(native=self.native))

    def write(self, frame: bytes) -> None:
        code, body = int.from_bytes(frame[5:9]), frame[wire.HEADER_BYTES :]
        self.sent.append((code, body))
        if self.other is not None:
            self.other.heard(self.back, code, body)  # type: ignore[arg-type]


def make(link: OneLink | None, serve: errands.Serve, tasks: list[Any] | None = None) -> Errands:
    def spawn(work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        if tasks is not None:
            tasks.append(task)

    core = SimpleNamespace(
        master="192.0.2.1:5010",
        master_link=None if link is None else SimpleNamespace(number=1),
    )
    hub = SimpleNamespace(link=lambda _number: link)
    return Errands(core, hub, spawn, serve)  # type: ignore[arg-type]


async def nothing(_body: bytes) -> bytes:
    return b""


async def test_each_gets_its_own_answer() -> None:
    gates = {b"first": asyncio.Event(), b"second": asyncio.Event()}

    async def serve(body: bytes) -> bytes:
        await gates[body].wait()
        return b"done " + body

    there, back = OneLink(), OneLink()
    replicant, master = make(there, nothing), make(None, serve)
    there.other, there.back = master, back
    back.other, back.back = replicant, there
    first = asyncio.create_task(replicant.ask_master(b"first", 30))
    second = asyncio.create_task(replicant.ask_master(b"second", 30))
    gates[b"second"].set()
    assert await second == b"done second"
    assert not first.done()
    gates[b"first"].set()
    assert await first == b"done first"
    assert {code for code, _ in (*there.sent, *back.sent)} == CODES


@pytest.mark.parametrize(
    ("link", "code"), [(None, "no_master"), (OneLink(native=True), "native_master")]
)
async def test_nobody_to_be_asked(link: OneLink | None, code: str) -> None:
    with pytest.raises(ReplicationError) as raised:
        await make(link, nothing).ask_master(b"x", 30)
    assert raised.value.code == code


async def test_an_answer_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands, "LOOK_S", 0.01)
    link = OneLink()
    asked = make(link, nothing)
    with pytest.raises(ReplicationError, match="did not answer in"):
        await asked.ask_master(b"x", 0.02)
    link.is_closed = True
    with pytest.raises(ReplicationError, match="the link to the master broke"):
        await asked.ask_master(b"x", 30)
    (_, late), _ = link.sent
    asked.heard(link, OwnCode.ERRAND_DONE, late)  # type: ignore[arg-type]


async def test_strangers_nonsense_and_too_much_are_let_go() -> None:
    gate = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []

    async def serve(_body: bytes) -> bytes:
        await gate.wait()
        return b""

    link, stranger = OneLink(), OneLink(released=False)
    master = make(None, serve, tasks)
    master.heard(stranger, OwnCode.ERRAND, bytes(4))  # type: ignore[arg-type]
    master.heard(link, OwnCode.ERRAND, bytes(3))  # type: ignore[arg-type]
    master.heard(link, OwnCode.ERRAND_DONE, bytes(4))  # type: ignore[arg-type]
    assert tasks == []
    for number in range(SERVED_MAX + 3):
        master.heard(link, OwnCode.ERRAND, number.to_bytes(4))  # type: ignore[arg-type]
    assert len(tasks) == SERVED_MAX
    gate.set()
    await asyncio.gather(*tasks)
    assert len(link.sent) == SERVED_MAX
    master.heard(link, OwnCode.ERRAND, bytes(4))  # type: ignore[arg-type]
    assert len(tasks) == SERVED_MAX + 1
    await tasks[-1]
