"""What a site makes when it becomes master: its databases, and on a new one the first user."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog
from berkeleydb import db

from replication.messages import AckPolicy
from storage.errors import StorageError
from storage.users import Users, discard_first_user
from ttserver.writes import WriteOutcome, set_outcome

if TYPE_CHECKING:
    from pathlib import Path

    from ttserver.open_site import OpenSite

log = structlog.get_logger(__name__)


async def make_databases(site: OpenSite, users: Users, first_user: Path) -> None:
    """Create what is missing, and take in the administrator that `ttserver init` left.

    Args:
        site: open, and master.
        users: of this site.
        first_user: the file with the administrator's record; it is removed once stored.

    Raises:
        StorageError: it could not be done now.
    """

    def create() -> bool:
        site.keys.create()
        site.catalog.create()
        if not first_user.exists():
            return False
        site.users.create()
        return True

    try:
        there = await site.reads.call(create)
    except db.DBError as error:
        raise StorageError(
            f"the databases cannot be made now: {error.args[-1]}", hint="it is tried again."
        ) from error
    if not there:
        return
    done: asyncio.Future[WriteOutcome] = asyncio.get_running_loop().create_future()
    # Nobody waits for this one: whoever does not have it yet gets it with the log.
    site.writes.submit(
        lambda txn: users.take_first_user(first_user, txn),
        set_outcome(done),
        policy=AckPolicy.NONE,
    )
    refused = (await done).error
    if refused is None:
        await site.reads.call(lambda: discard_first_user(first_user))
        return
    log.error("first_user_not_taken", error=str(refused))
    if isinstance(refused, StorageError) and refused.code == "TRYAGAIN":
        raise refused
