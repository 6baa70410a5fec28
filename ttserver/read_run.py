"""Reads that follow each other in a pipeline, answered in one read transaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ttserver.commands.context import Client, Store
from ttserver.error_replies import error_reply
from ttserver.refused import Refused
from ttserver.replies import CommandError, Value, encode

if TYPE_CHECKING:
    from berkeleydb.db import DBTxn

RUN_BYTES_MAX: Final = 1024 * 1024  # replies made before they are sent

Call = tuple[Callable[..., Value], list[bytes]]  # a read's function and its arguments


class ReadRun:
    """A run of reads of one client.

    Attributes:
        replies: one for each call that was answered; shorter than `calls` when `read` was
            interrupted, or when there was enough to send.
    """

    __slots__ = ("_calls", "_client", "_store", "replies")

    def __init__(self, store: Store, client: Client, calls: list[Call]) -> None:
        self._store = store
        self._client = client
        self._calls = calls
        self.replies: list[bytes] = []

    def read(self, txn: DBTxn) -> None:
        """Answer what has no reply yet; may be called again after it was interrupted.

        *Thread:* the loop's or a reader's, one at a time.
        """
        store, client, replies = self._store, self._client, self.replies
        protocol = client.protocol
        add = replies.append
        size_bytes = 0
        for function, args in self._calls[len(replies) :] if replies else self._calls:
            try:
                value = function(store, txn, args)
            except CommandError as error:
                client.errors += 1
                value = error
            if type(value) is bytes:
                data = b"$%d\r\n%b\r\n" % (len(value), value)
            else:
                data = encode(value, protocol)
            add(data)
            size_bytes += len(data)
            if size_bytes > RUN_BYTES_MAX:
                return

    def fail(self, error: Exception) -> None:
        """Answer with an error what has no reply yet; all of it when the site refused to answer.

        Whether what was read may be answered is known only after it was read.
        """
        if isinstance(error, Refused):
            self.replies.clear()
        missing = len(self._calls) - len(self.replies)
        self._client.errors += missing
        self.replies.extend([error_reply(error).wire] * missing)

    def rest(self) -> list[list[bytes]]:
        """The commands that have no reply yet."""
        return [args for _, args in self._calls[len(self.replies) :]]
