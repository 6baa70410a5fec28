"""The client for programs and threads that wait."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from redis import BlockingConnectionPool, RedisError

from ttserver.client.base import BaseClient, batches, raw_call
from ttserver.client.call import Call, Listing, Transaction, Word
from ttserver.client.errors import ClientError, server_error
from ttserver.client.finder import Exchange, Exchanged, Pause, Steps

T = TypeVar("T")


class Client(BaseClient):
    """A client of the group: writes go to its master, reads to any site.

    Its methods are those of `ttserver.client.methods.Methods`. It connects when something is asked
    first, and as often as threads ask at the same time. Close it, or use it in a `with` block.

    A write whose outcome is not known (`OutcomeUnknown`) is never repeated by itself, unless it is
    one of those that leave and answer the same when they are done twice: `set` without `nx` and
    `xx`, `mset`, `volume_setdate`, `user_passwd`, and what ends in `_set`. A repeated one may come
    after somebody else's write of the same.

    Args:
        servers: `db1:5000,db2`, or `user:password@db1:5000,db2`; the port is 5000 when left out.
        user, password: instead of those in `servers`.
        program: what history notes as the program; without blanks.
        read_your_writes: reads wait until the site that answers has this client's last write.
        deadline_s: how long to look for a site that answers, or takes writes.
        reply_timeout_s: how long a reply may take before the site is taken for lost.

    Raises:
        ConfigurationError: the servers cannot be taken apart, or user or password is missing.

    *Thread:* any number at once.
    """

    _pool_class = BlockingConnectionPool

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        for pool in self._pools:
            pool.disconnect()

    # -- asking

    def run(self, call: Call[T]) -> T:
        """Have one call answered.

        Raises:
            ServerError: the server's own error.
            OutcomeUnknown: the connection broke before the reply to a write.
            Unreachable: no site answers within the deadline.
        """
        _, [outcome] = self._drive(self._finder.ask([call]))
        return call.result(outcome)

    def execute(self, *words: Word, write: bool = True, again: bool = False) -> Any:
        """Have any command answered, the reply as it is.

        Args:
            words: the command and its arguments.
            write: only the master takes it.
            again: it may be repeated when its outcome is not known.

        Raises:
            ClientError: as `run`.
        """
        return self.run(raw_call(words, write=write, again=again))

    def many(self, calls: Iterable[Call[T]]) -> Iterator[T | ClientError]:
        """Have many calls answered without waiting for each; errors are among the results.

        Each is a transaction of its own. All go to the master if one of them writes.
        """
        for batch in batches(calls):
            _, outcomes = self._drive(self._finder.ask(batch))
            yield from map(self._result, batch, outcomes)

    def transaction(self, *calls: Call[Any]) -> list[Any]:
        """Have calls committed together or not at all; gives their results.

        A refusal of one of several is among the results, the others count.

        Raises:
            ClientError: as `run`; nothing was written but with OutcomeUnknown, NotAcknowledged.
        """
        return self.run(Transaction(calls))

    def rows(self, listing: Listing[T]) -> Iterator[T]:
        """Read a list to its end; all pages come from the same site.

        Raises:
            ClientError: as `run`; when that site is lost on the way, ask for the list anew.
        """
        cursor, site = "0", None
        while True:
            page = listing.page(cursor)
            site, [outcome] = self._drive(self._finder.ask([page], site))
            cursor, rows = page.result(outcome)
            yield from rows
            if cursor == "0":
                return

    # -- waiting

    def _drive(self, steps: Steps) -> tuple[int, list[Any]]:
        done: Exchanged | None = None
        while True:
            try:
                step = steps.send(done)
            except StopIteration as end:
                found: tuple[int, list[Any]] = end.value
                return found
            match step:
                case Pause():
                    time.sleep(step.seconds)
                    done = None
                case Exchange():
                    done = self._exchange(step)

    def _exchange(self, asked: Exchange) -> Exchanged:
        pool = self._pools[asked.site]
        try:
            connection = pool.get_connection()
        except (RedisError, OSError) as error:
            return self._not_sent(asked.site, error)
        whole = False
        try:
            done = self._talk(connection, asked)
            whole = done.error is None
            return done
        finally:
            if not whole:
                connection.disconnect()
            pool.release(connection)
            if not whole:
                pool.disconnect(inuse_connections=False)  # they lead to where nobody answers

    def _talk(self, connection: Any, asked: Exchange) -> Exchanged:
        replies: list[Any] = []
        wait_s = self._timeout_s(asked.timeout_s)
        try:
            packed = connection.pack_commands(words for words, _ in asked.commands)
            connection.send_packed_command(packed, check_health=False)
            for _, text in asked.commands:
                try:
                    reply = connection.read_response(
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
