"""What can go wrong for a client: no site answers, an outcome is not known, or the server refuses.

`ServerError` carries the server's own words; its `code` is the first of them, and each that a
program may want to tell apart has a class of its own.
"""

from __future__ import annotations

import os
import re
from typing import Final

import redis

from ttserver.errors import TtserverError

_CODE: Final = re.compile(r"([A-Z]{3,}) (?=\S)")
_TOKEN: Final = re.compile(r"committed here as ([0-9]+:[0-9]+:[0-9]+)")


class ClientError(TtserverError):
    """Base of all that a client raises."""

    default_code = "CLIENT"


class Unreachable(ClientError):
    """No site could be asked, or a list was broken off; nothing was written."""

    default_code = "UNREACHABLE"


class OutcomeUnknown(ClientError):
    """A write was sent and the connection broke before its reply: it was done, or it was not."""

    default_code = "UNKNOWN"


class UnexpectedReply(ClientError):
    """A reply that this version does not understand."""

    default_code = "REPLY"


class ServerError(ClientError):
    """The server's error reply: `code` is its first word, the text all others."""

    default_code = "ERR"


class LogonRefused(ServerError):
    """WRONGPASS, NOAUTH: not this user, or not with this password."""


class NotAllowed(ServerError):
    """NOPERM: the user lacks the right."""


class ReadOnlySite(ServerError):
    """READONLY: no master was found among the servers; the text names it where it is known."""


class NotNow(ServerError):
    """LOADING, TRYAGAIN, MASTERDOWN, NODATA, NOREPLICAS: nothing was done, later it may be."""


class NotAcknowledged(ServerError):
    """PERMFAILED: committed on the master, and too few sites have it.

    Attributes:
        token: names the write; whether it survived is what `waitfor` tells.
    """

    @property
    def token(self) -> str | None:
        found = _TOKEN.search(str(self))
        return None if found is None else found[1]


class WriteLost(ServerError):
    """TOKENLOST: a write that was acknowledged by too few was rolled back."""


class Invalid(ServerError):
    """INVALID: a value that cannot be."""


class NotFound(ServerError):
    """NOTFOUND: there is no such object."""


class AlreadyThere(ServerError):
    """EXISTS: there is one of this name."""


class InUse(ServerError):
    """INUSE: others belong to it or refer to it."""


class Locked(ServerError):
    """LOCKED: a lock of the volume, its media type or its customer."""


class LimitReached(ServerError):
    """LIMIT: it is full."""


class RuleBroken(ServerError):
    """REFUSED: a rule of the catalog, which the text names."""


_CLASSES: Final[dict[str, type[ServerError]]] = {
    "WRONGPASS": LogonRefused,
    "NOAUTH": LogonRefused,
    "NOPERM": NotAllowed,
    "READONLY": ReadOnlySite,
    "LOADING": NotNow,
    "TRYAGAIN": NotNow,
    "MASTERDOWN": NotNow,
    "NODATA": NotNow,
    "NOREPLICAS": NotNow,
    "PERMFAILED": NotAcknowledged,
    "TOKENLOST": WriteLost,
    "INVALID": Invalid,
    "NOTFOUND": NotFound,
    "EXISTS": AlreadyThere,
    "INUSE": InUse,
    "LOCKED": Locked,
    "LIMIT": LimitReached,
    "REFUSED": RuleBroken,
}


def server_error(error: redis.RedisError) -> ServerError | None:
    """Take the server's words out of an error of redis-py; None when the server said nothing."""
    text = str(error)
    # redis-py takes the first word off where it has a class for it.
    code = error.status_code
    if code is None:
        if not isinstance(error, redis.ResponseError):
            return None
        found = _CODE.match(text)
        code, text = (found[1], text[found.end() :]) if found else ("ERR", text)
    return _CLASSES.get(code, ServerError)(text, code=code)


def why_broken(error: Exception) -> str:
    """Say in few words why a connection could not be made, or broke."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, TimeoutError | redis.TimeoutError):
            return "no answer in time"
        if isinstance(seen, OSError) and seen.strerror:
            # asyncio writes a text of its own; the numbers of the resolver are below 0.
            number = seen.errno or 0
            text = os.strerror(number) if number > 0 else seen.strerror
            return text[:1].lower() + text[1:]
        seen = seen.__cause__ or seen.__context__
    return " ".join(str(error).split()).rstrip(".")


def unreachable(server: str, why: str) -> Unreachable:
    """The error of one server that cannot be asked."""
    return Unreachable(
        f"server {server} cannot be reached: {why}", hint="see whether it answers: tt ping"
    )
