"""EXPIRE, RECONCILE, LIBRARY.BALANCE: work over many volumes.

The first two are many transactions of some volumes each: others' writes come in between, a volume
is right at each moment, and the command can be sent again after it was interrupted.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from storage.catalog.filters import EVERYTHING, compile_filter
from storage.catalog.jobs import STEP_VOLUMES, Outcome
from storage.catalog.names import CatalogError, check_repository, customer_of, media_of
from storage.catalog.queries import Page, Query
from storage.rights import Right
from storage.users import UserError
from ttserver.commands.catalog_request import (
    Option,
    Options,
    Request,
    day,
    must,
    named,
    options,
    plain,
    read,
    refusal,
    request,
    word,
)
from ttserver.commands.catalog_views import balance_map, outcome_map
from ttserver.commands.context import Client, Store
from ttserver.commands.context import Outcome as WriteOutcome
from ttserver.commands.table import Command, Kind
from ttserver.error_replies import perm_failed_reply
from ttserver.replies import CommandError, Value

if TYPE_CHECKING:
    from berkeleydb.db import DBTxn

    from storage.catalog.tree import Sees

_EXPIRE: Final[Options] = {"ON": Option("on", day), "MATCH": Option("filter", plain)}


async def write_now(client: Client, work: Callable[[DBTxn], Any]) -> Any:
    """Have one write committed and acknowledged, for a command that makes several.

    Raises:
        CommandError: refused, or the ack policy was not met.
        TtserverError, StorageError: this site takes no writes, or nothing of it was written.

    *Cancellation:* the write may still happen.
    """
    done: asyncio.Future[WriteOutcome] = asyncio.get_running_loop().create_future()

    def finish(outcome: WriteOutcome) -> None:
        if not done.done():
            done.set_result(outcome)

    client.server.engine.submit(
        work, finish, policy=client.ack_policy, ack_timeout_s=client.ack_timeout_s
    )
    outcome = await done
    if isinstance(outcome.error, CatalogError | UserError):
        raise refusal(outcome.error)
    if outcome.error is not None:
        raise outcome.error
    client.writes += 1
    client.note_write(outcome)
    if outcome.perm_failed is not None:
        raise perm_failed_reply(outcome)
    return outcome.result


async def _run(
    client: Client, work: Callable[[DBTxn], list[Outcome]], *, dry: bool
) -> list[Outcome]:
    if dry:
        return await client.server.engine.read(work)
    found: list[Outcome] = await write_now(client, work)
    return found


def _reply(facts: dict[str, Value], outcomes: Sequence[Outcome]) -> Value:
    told = [outcome for outcome in outcomes if outcome.verdict not in ("done", "reconciled")]
    counts = Counter(outcome.verdict for outcome in outcomes if outcome.verdict != "done")
    return {**facts, "counts": dict(counts), "volumes": [outcome_map(one) for one in told]}


# -- EXPIRE


async def expire(client: Client, args: Sequence[bytes]) -> Value:
    """EXPIRE [ON date] [MATCH filter] [DRYRUN]."""
    words = list(args[1:])
    dry = bool(words) and words[-1].upper() == b"DRYRUN"
    given = options(words[:-1] if dry else words, _EXPIRE, request(client).today)
    asked = request(client, given=given)
    try:
        compile_filter(given.get("filter", EVERYTHING))
        outcomes = await _expire_all(client, asked, dry=dry)
    except CatalogError as error:
        raise refusal(error) from error
    return _reply({"on": given.get("on", asked.today).isoformat(), "dry": dry}, outcomes)


async def _expire_all(client: Client, asked: Request, *, dry: bool) -> list[Outcome]:
    engine = client.server.engine
    on = asked.given.get("on", asked.today)
    text = asked.given.get("filter", EVERYTHING)
    query = Query(today=asked.today, filter=text, due=on, without="p")
    user, jobs = asked.actor.user, engine.catalog.jobs

    def sees(txn: DBTxn) -> Sees:
        return engine.access.sees(txn, user, Right.WRITE)

    if not dry:
        await write_now(client, sees)  # says at once that this site takes no writes
    outcomes: list[Outcome] = []
    after: bytes | None = None
    while True:
        place = after

        def due(txn: DBTxn, place: bytes | None = place) -> Page:
            return engine.catalog.queries.page(txn, query, place, STEP_VOLUMES, sees(txn))

        page = await engine.read(due)
        names = [one.name for one in page.volumes]

        def step(txn: DBTxn, names: Sequence[str] = tuple(names)) -> list[Outcome]:
            may = sees(txn)
            allowed = [name for name in names if may(customer_of(name))]
            return jobs.expire(txn, asked.actor, allowed, on, dry=dry)

        if names:
            outcomes += await _run(client, step, dry=dry)
        if page.after is None:
            return outcomes
        after = page.after


# -- RECONCILE


async def reconcile(client: Client, args: Sequence[bytes]) -> Value:
    """RECONCILE repository [DRYRUN] IDS [id ...]."""
    dry = args[2].upper() == b"DRYRUN"
    at = 3 if dry else 2
    if len(args) <= at or args[at].upper() != b"IDS":
        raise CommandError("ERR the scanned IDs come after the word IDS")
    asked = request(client, name=word(args[1]))
    try:
        media = media_of(check_repository(asked.name))
        ids = [word(argument).strip() for argument in args[at + 1 :]]
        # A scanner reads a label twice now and then.
        scan = dict.fromkeys(one if "." in one else f"{media}.{one}" for one in ids if one)
        outcomes = await _reconcile_all(client, asked, list(scan), dry=dry)
    except CatalogError as error:
        raise refusal(error) from error
    return _reply({"repository": asked.name, "dry": dry, "scanned": len(scan)}, outcomes)


async def _reconcile_all(
    client: Client, asked: Request, scan: list[str], *, dry: bool
) -> list[Outcome]:
    engine = client.server.engine
    jobs, repository = engine.catalog.jobs, asked.name
    customer = customer_of(repository)

    def allow(txn: DBTxn) -> None:
        engine.access.must(txn, asked.actor.user, Right.WRITE, customer)
        engine.catalog.store.the_repository(txn, repository)

    def present(txn: DBTxn) -> list[str]:
        allow(txn)
        names: list[str] = []
        while step := jobs.present(txn, repository, names[-1] if names else ""):
            names += step
        return names

    if not dry:
        await write_now(client, allow)  # says at once that this site takes no writes
    there = await engine.read(present)
    seen = set(scan)
    missing = [name for name in there if name not in seen]
    outcomes: list[Outcome] = []
    for names, scanned in ((scan, True), (missing, False)):
        for at in range(0, len(names), STEP_VOLUMES):
            some = names[at : at + STEP_VOLUMES]

            def step(
                txn: DBTxn, some: Sequence[str] = some, scanned: bool = scanned
            ) -> list[Outcome]:
                allow(txn)
                return jobs.reconcile(txn, asked.actor, repository, some, scanned=scanned, dry=dry)

            outcomes += await _run(client, step, dry=dry)
    return outcomes


# -- LIBRARY.BALANCE


def balance(store: Store, txn: DBTxn, asked: Request) -> Value:
    """LIBRARY.BALANCE repository."""
    must(store, txn, asked, Right.READ, customer_of(check_repository(asked.name)))
    return balance_map(store.catalog.jobs.balance(txn, asked.name))


COMMANDS: Final = (
    Command(
        "expire",
        -1,
        Kind.WAITING,
        expire,
        "Sends volumes whose move date has come to where their repository sends them.",
        "[ON date] [MATCH filter] [DRYRUN]",
        group="catalog",
        complexity="O(N)",
        in_multi=False,
    ),
    Command(
        "reconcile",
        -3,
        Kind.WAITING,
        reconcile,
        "Compares a repository with what was scanned there.",
        "repository [DRYRUN] IDS id [id ...]",
        group="catalog",
        complexity="O(N)",
        in_multi=False,
    ),
    read(
        "library.balance",
        2,
        run=balance,
        usage="repository",
        summary="Returns what a repository has, what comes and goes, and blank volumes.",
        prepare=named({}),
    ),
)
