"""Cursors of SCAN: a number stands for the key behind which the next call goes on.

The numbers are random, so one from before a restart, or from another site, is unknown here and
never means another place. A cursor belongs to a user, not to a connection, because connection
pools send the next SCAN over whichever connection is free; but each connection may leave only so
many behind, and they go when it goes.
"""

import secrets
from collections import OrderedDict
from typing import Final

CURSORS_PER_CLIENT_MAX: Final = 64


class Cursors:
    """All live cursors of the server."""

    def __init__(self) -> None:
        self._places: dict[int, tuple[str, bytes]] = {}
        self._by_client: dict[int, OrderedDict[int, None]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def add(self, client: int, user: str, after: bytes) -> int:
        """Remember a place; the client's oldest one is forgotten when it has too many."""
        own = self._by_client.setdefault(client, OrderedDict())
        number = 0
        while not number or number in self._places:
            # 63 bits: some client libraries keep a cursor in a signed integer.
            number = secrets.randbits(63)
        self._places[number] = (user, after)
        own[number] = None
        while len(own) > CURSORS_PER_CLIENT_MAX:
            oldest, _ = own.popitem(last=False)
            del self._places[oldest]
        return number

    def place(self, number: int, user: str) -> bytes | None:
        """Give the key behind which `number` goes on, None when it is not this user's or gone."""
        found = self._places.get(number)
        return found[1] if found is not None and found[0] == user else None

    def forget(self, client: int) -> None:
        """Drop the cursors of a client that left."""
        for number in self._by_client.pop(client, ()):
            del self._places[number]
