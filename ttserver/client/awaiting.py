"""The client for programs on asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any, TypeVar

from redis import RedisError
from redis.asyncio import BlockingConnectionPool

from ttserver.client.base import BaseClient, batches, raw_call
from ttserver.client.call import Call, Listing, Transaction, Word
from ttserver.client.errors import ClientError, server_error
from ttserver.client.finder import Exchange, Exchanged, Pause, Steps

T = TypeVar("T")


class AsyncClient(BaseClient):
    """What `Client` is, for asyncio: methods are awaited, lists are asynchronous iterators.

    *Cancellation:* of a call that reads is safe. A write that is cancelled may have been done.
    """

    _pool_class = BlockingConnectionPool

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Hang up."""
        for pool in self._pools:
            await pool.disconnect()

    # -- asking

    async def run(self, call: Call[T]) -> T:
        """Have one call answered.

        Raises:
            ClientError: as `Client.run`.

        *Cancellation:* a write may have been done.
        """
        _, [outcome] = await self._drive(self._finder.ask([call]))
        return call.result(outcome)

    async def execute(self, *words: Word, write: bool = True, again: bool = False) -> Any:
        """Have any command answered, the reply as it is; see `Client.execute`.

        *Cancellation:* a write may have been done.
        """
        return await self.run(raw_call(words, write=write, again=again))

    async def many(self, calls: Iterable[Call[T]]) -> AsyncIterator[T | ClientError]:
        """Have many calls answered without waiting for each; see `Client.many`.

        *Cancellation:* of those that were sent, some may have been done.
        """
        for batch in batches(calls):
            _, outcomes = await self._drive(self._finder.ask(batch))
            for result in map(self._result, batch, outcomes):
                yield result

    async def transaction(self, *calls: Call[Any]) -> list[Any]:
        """Have calls committed together or not at all; see `Client.transaction`.

        *Cancellation:* it may have been done.
        """
        return await self.run(Transaction(calls))

    async def rows(self, listing: Listing[T]) -> AsyncIterator[T]:
        """Read a list to its end; see `Client.rows`.

        *Cancellation:* safe.
        """
        cursor, site = "0", None
        while True:
            page = listing.page(cursor)
            site, [outcome] = await self._drive(self._finder.ask([page], site))
            cursor, rows = page.result(outcome)
            for row in rows:
                yield row
            if cursor == "0":
                return

    # -- waiting

    async def _drive(self, steps: Steps) -> tuple[int, list[Any]]:
        done: Exchanged | None = None
        while True:
            try:
                step = steps.send(done)
            except StopIteration as end:
                found: tuple[int, list[Any]] = end.value
                return found
            match step:
                case Pause():
                    await asyncio.sleep(step.seconds)
                    done = None
                case Exchange():
                    done = await self._exchange(step)

    async def _exchange(self, asked: Exchange) -> Exchanged:
        pool = self._pools[asked.site]
        try:
            connection = await pool.get_connection()
        except (RedisError, OSError) as error:
            return self._not_sent(asked.site, error)
        whole = False
        try:
            done = await self._talk(connection, asked)
            whole = done.error is None
            return done
        finally:
            if not whole:
                await connection.disconnect(nowait=True)
            await pool.release(connection)
            if not whole:
                await pool.disconnect(inuse_connections=False)

    async def _talk(self, connection: Any, asked: Exchange) -> Exchanged:
        replies: list[Any] = []
        wait_s = self._timeout_s(asked.timeout_s)
        try:
            packed = connection.pack_commands(words for words, _ in asked.commands)
            await connection.send_packed_command(packed, check_health=False)
            for _, text in asked.commands:
                try:
                    reply = await connection.read_response(
                        disable_decoding=not text, timeout=wait_s, disconnect_on_error=False
                    )
                except RedisError as error:
                    reply = server_error(error)
                    if reply is None:
                        raise
                replies.append(reply)
        except (RedisError, OSError) as error:
            return self._broken(asked.site, replies, error)
        return Exchanged(replies)
