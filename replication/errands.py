"""What a replicant has its master do: a request on the link between the two, and its answer.

The one errand there is: writing again what was taken back (`ttserver.reapply`). What travels is the
program's own; here it is bytes.

    ERRAND, to the master    number u32, then the request
    ERRAND_DONE, back        number u32, then the answer
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from replication import wire
from replication.core import Core
from replication.errors import ReplicationError
from replication.hub import Hub
from replication.link import Link
from replication.messages import OwnCode

CODES: Final = frozenset({OwnCode.ERRAND, OwnCode.ERRAND_DONE})
# What another site sends must fit into one message of `replication.wire.Limits.own_bytes_max`.
BODY_BYTES_MAX: Final = 1_000_000
SERVED_MAX: Final = 8  # errands of all sites at once; another one waits for its time-out
LOOK_S: Final = 0.5
_NUMBER: Final = struct.Struct(">I")

Serve = Callable[[bytes], Awaitable[bytes]]


class Errands:
    """See the module's text. Runs in the event loop.

    Args:
        core: who is master.
        hub: the links.
        spawn: starts a task that is owned by the manager.
        serve: does an errand on the master; must not raise.
    """

    def __init__(
        self,
        core: Core,
        hub: Hub,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        serve: Serve,
    ) -> None:
        self._core = core
        self._hub = hub
        self._spawn = spawn
        self._serve = serve
        self._asked: dict[int, asyncio.Future[bytes]] = {}
        self._next = 1
        self._served = 0

    async def ask_master(self, body: bytes, timeout_s: float) -> bytes:
        """Have the master do something.

        Args:
            body: at most `BODY_BYTES_MAX`.
            timeout_s: how long that may take.

        Raises:
            ReplicationError: there is no master that could, or it did not answer in time.

        *Cancellation:* the master may still do it.
        """
        link = self._master_link()
        number, self._next = self._next, (self._next + 1) % 2**32
        done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._asked[number] = done
        try:
            link.write(wire.encode_own(OwnCode.ERRAND, _NUMBER.pack(number) + body))
            async with asyncio.timeout(timeout_s):
                while not (await asyncio.wait([done], timeout=LOOK_S))[0]:
                    if link.is_closed:
                        raise _no_answer("the link to the master broke")
                return done.result()
        except TimeoutError:
            raise _no_answer(f"the master did not answer in {timeout_s:.0f} s") from None
        finally:
            del self._asked[number]

    def _master_link(self) -> Link:
        state = self._core.master_link
        link = self._hub.link(state.number) if state is not None else None
        if link is None or link.peer.remote is None:
            raise ReplicationError(
                "this site has no master now",
                code="no_master",
                hint="wait until there is one: ttserver status",
            )
        if link.peer.remote.native:
            raise ReplicationError(
                f"the master {self._core.master} is a native site, which takes no such request",
                code="native_master",
                hint="do it by a program of your own on that machine.",
            )
        return link

    def hears(self) -> dict[int, Callable[[Link, int, bytes], None]]:
        """Say which messages come here."""
        return dict.fromkeys(CODES, self.heard)

    def heard(self, link: Link, code: int, body: bytes) -> None:
        """A site sent one of `CODES`; what is no member's is let go."""
        if not link.released or len(body) < _NUMBER.size:
            return
        (number,) = _NUMBER.unpack_from(body)
        rest = body[_NUMBER.size :]
        if code == OwnCode.ERRAND_DONE:
            done = self._asked.get(number)
            if done is not None and not done.done():
                done.set_result(rest)
        elif self._served < SERVED_MAX:
            self._served += 1
            self._spawn(self._do(link, number, rest))

    async def _do(self, link: Link, number: int, body: bytes) -> None:
        try:
            answer = await self._serve(body)
            link.write(wire.encode_own(OwnCode.ERRAND_DONE, _NUMBER.pack(number) + answer))
        finally:
            self._served -= 1


def _no_answer(reason: str) -> ReplicationError:
    return ReplicationError(
        f"{reason}; what was asked for may be done or not",
        code="no_answer",
        hint="do it again when the site follows a master: ttserver status",
    )
