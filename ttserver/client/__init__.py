"""A client of ttserver for Python: `Client`, and `AsyncClient` for asyncio.

See docs/CLIENTS.md, "From Python".
"""

from ttserver.client import calls
from ttserver.client.awaiting import AsyncClient
from ttserver.client.blocking import Client
from ttserver.client.errors import (
    AlreadyThere,
    ClientError,
    InUse,
    Invalid,
    LimitReached,
    Locked,
    LogonRefused,
    NotAcknowledged,
    NotAllowed,
    NotFound,
    NotNow,
    OutcomeUnknown,
    ReadOnlySite,
    RuleBroken,
    ServerError,
    UnexpectedReply,
    Unreachable,
    WriteLost,
)

__all__ = [
    "AlreadyThere",
    "AsyncClient",
    "Client",
    "ClientError",
    "InUse",
    "Invalid",
    "LimitReached",
    "Locked",
    "LogonRefused",
    "NotAcknowledged",
    "NotAllowed",
    "NotFound",
    "NotNow",
    "OutcomeUnknown",
    "ReadOnlySite",
    "RuleBroken",
    "ServerError",
    "UnexpectedReply",
    "Unreachable",
    "WriteLost",
    "calls",
]
