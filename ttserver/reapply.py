"""Writing again what was taken back: on the master of today, and nothing over anything.

A client's write is written again as a whole, or not at all: each of its keys must have the value
that it had before. So a write that builds on one that could not be written is not written either. A
write whose keys all have its values already counts as there.

    this site                                            the master
    Reapply.run: the ledger's writes, in chunks  ----->  Reapply.serve: one write of the group
                 outcome after each chunk        <-----  commit for each, in their order

Values of before travel as digests. Changes of users and of the tape catalog are not written again:
they have rules of their own, which a value put in place would break.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from enum import IntEnum
from itertools import groupby
from typing import TYPE_CHECKING, Final

import msgspec

from replication.errands import BODY_BYTES_MAX
from replication.errors import ReplicationError
from storage.dump import digest
from storage.errors import StorageError
from storage.ledger import Entry, Head, Outcome
from ttserver.errors import TtserverError
from ttserver.refused import Refused

if TYPE_CHECKING:
    from berkeleydb.db import DBTxn

    from storage.keyspace import Keyspace
    from ttserver.engine import Engine

CHUNK_WRITES: Final = 200
CHUNK_BYTES: Final = BODY_BYTES_MAX // 2
CHUNK_S: Final = 60.0
CONFLICTS_SHOWN_MAX: Final = 100
SHOWN_BYTES: Final = 100  # of a value of today; conflicts of a whole chunk must fit into an answer
EXPECTED: Final = (TtserverError, StorageError, ReplicationError)


class What(IntEnum):
    """What became of one write."""

    APPLIED = 0
    SAME = 1
    CONFLICT = 2


class Change(msgspec.Struct, frozen=True, array_like=True):
    """One key of a write: a digest of its value before (None: there was none), its value after."""

    file: str
    key: bytes
    before: bytes | None
    after: bytes | None


class Again(msgspec.Struct, frozen=True, array_like=True):
    """One write to be written again; the number is the ledger's."""

    number: int
    changes: list[Change]


class Request(msgspec.Struct, frozen=True, array_like=True):
    """What travels to the master."""

    ledger: str
    writes: list[Again]


class Result(msgspec.Struct, frozen=True, array_like=True):
    """What became of a write; of a conflict which change it is, and the value of today, cut."""

    number: int
    what: What
    at: int = 0
    now: bytes | None = None


class Conflict(msgspec.Struct, frozen=True):
    """A write that was not written again, and the key that has another value today."""

    write: int
    key: bytes
    now: bytes | None


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """What travels back.

    Args:
        error: why not all was done.
        perm_failed: all is written, but the ack policy was not met.
    """

    results: list[Result] = []
    error: str | None = None
    perm_failed: str | None = None


class Report(msgspec.Struct, kw_only=True):
    """What became of a ledger this time.

    Args:
        conflicts: the first of them.
        why_skipped: one sentence for each reason.
        left: the numbers of the writes that are not there.
        perm_failed: the last word on an ack policy that was not met.
    """

    ledger: str
    applied: int = 0
    same: int = 0
    conflict: int = 0
    skipped: int = 0
    conflicts: list[Conflict] = []
    why_skipped: list[str] = []
    left: list[int] = []
    perm_failed: str | None = None

    def skip(self, why: str) -> None:
        """Count a write that is not tried."""
        self.skipped += 1
        if why not in self.why_skipped:
            self.why_skipped.append(why)


_requests: Final = msgspec.msgpack.Decoder(Request)
_answers: Final = msgspec.msgpack.Decoder(Answer)


def work(keyspace: Keyspace, write: Again) -> Callable[[DBTxn], Result]:
    """Make the work that writes one write again, where nothing else was written since."""

    def run(txn: DBTxn) -> Result:
        last = {change.key: change.after for change in write.changes}
        now = {key: keyspace.get(txn, key) for key in last}
        if now == last:
            return Result(write.number, What.SAME)
        seen: set[bytes] = set()
        for at, change in enumerate(write.changes):
            value = now[change.key]
            is_first = change.key not in seen
            seen.add(change.key)
            if is_first and (None if value is None else digest(value)) != change.before:
                shown = None if value is None else value[:SHOWN_BYTES]
                return Result(write.number, What.CONFLICT, at, shown)
        for key, after in last.items():
            if after is None:
                keyspace.delete(txn, key)
            else:
                keyspace.put(txn, key, after)
        return Result(write.number, What.APPLIED)

    return run


def writes_of(entries: Iterator[Entry]) -> Iterator[Again]:
    """Put a ledger's entries together to writes."""
    for number, group in groupby(entries, key=lambda entry: entry.write):
        changes = [
            Change(
                entry.file,
                entry.key,
                None if entry.before is None else digest(entry.before),
                entry.after,
            )
            for entry in group
        ]
        yield Again(number, changes)


def chunks(writes: Iterator[Again]) -> Iterator[list[Again]]:
    """Cut a stream of writes into messages."""
    chunk: list[Again] = []
    size = 0
    for write in writes:
        if chunk and (len(chunk) == CHUNK_WRITES or size + size_of(write) > CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(write)
        size += size_of(write)
    if chunk:
        yield chunk


def size_of(write: Again) -> int:
    """How many bytes a write takes in a message, roughly and not less."""
    return sum(64 + len(each.key) + len(each.after or b"") for each in write.changes) + 64


class Reapply:
    """See the module's text. In the event loop.

    Args:
        engine: the site that holds the ledger, or that is master.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._running = False

    # -- where the ledger is -------------------------------------------------------------------

    async def run(self, head: Head, progress: Callable[[Report], None]) -> Report:
        """Write a ledger's writes again that are not there yet.

        Raises:
            TtserverError: it is under way already.
            ReplicationError: no master could be asked; what was done until then is kept.
            Refused: this site is master and takes no writes now.
            StorageError, OSError: the ledger cannot be read, or what became of it not be kept.

        *Cancellation:* what was done until then is kept.
        """
        if self._running:
            raise TtserverError(
                "writes are being written again already",
                code="BUSY",
                hint="wait until that is done.",
            )
        self._running = True
        try:
            return await self._run(head, progress)
        finally:
            self._running = False

    async def _run(self, head: Head, progress: Callable[[Report], None]) -> Report:
        writes = await asyncio.to_thread(self._writes, head)
        before = self._engine.rejoin.ledgers.outcome(head.id)
        report = Report(ledger=head.id)
        report.left = [write.number for write in writes] if before is None else before.left
        left = set(report.left)
        try:
            for chunk in chunks(self._possible(writes, left, report)):
                self._note(report, left, chunk, await self._have_done(head, chunk))
                progress(report)
        finally:
            report.left = sorted(left)
            await asyncio.to_thread(self._keep, report, before)
        return report

    def _writes(self, head: Head) -> list[Again]:
        return list(writes_of(self._engine.rejoin.ledgers.entries(head.id)))

    def _possible(self, writes: list[Again], left: set[int], report: Report) -> Iterator[Again]:
        """Those of the writes that are left and may be sent; the others are counted."""
        keyspace = self._engine.config.settings.storage.keyspace
        for write in writes:
            if write.number not in left:
                continue
            foreign = sorted({each.file for each in write.changes} - {keyspace})
            if foreign:
                report.skip(f"changes in {', '.join(foreign)} have to be made once more by hand")
            elif size_of(write) > CHUNK_BYTES and not self._engine.accepting:
                report.skip("a write is too long to be sent to the master")
            else:
                yield write

    async def _have_done(self, head: Head, chunk: list[Again]) -> Answer:
        request = Request(head.id, chunk)
        if self._engine.accepting:
            answer = await self._do(request)
        else:
            manager = self._engine.manager
            if manager is None:
                raise Refused("this site is not open", code="LOADING", hint="wait until it is.")
            body = msgspec.msgpack.encode(request)
            answer = _answers.decode(await manager.errands.ask_master(body, CHUNK_S))
        if answer.error is not None:
            raise Refused(answer.error, code="TRYAGAIN", hint="do it again a little later.")
        return answer

    def _note(self, report: Report, left: set[int], chunk: list[Again], answer: Answer) -> None:
        for write, result in zip(chunk, answer.results, strict=True):
            if result.what is What.CONFLICT:
                report.conflict += 1
                if len(report.conflicts) < CONFLICTS_SHOWN_MAX:
                    key = write.changes[result.at].key
                    report.conflicts.append(Conflict(write.number, key, result.now))
                continue
            report.applied += result.what is What.APPLIED
            report.same += result.what is What.SAME
            left.discard(write.number)
        report.perm_failed = answer.perm_failed or report.perm_failed

    def _keep(self, report: Report, before: Outcome | None) -> None:
        self._engine.rejoin.ledgers.write_outcome(
            report.ledger,
            Outcome(
                time=datetime.now(UTC).isoformat(timespec="milliseconds"),
                applied=report.applied + (before.applied if before is not None else 0),
                same=report.same + (before.same if before is not None else 0),
                left=report.left,
            ),
        )

    # -- on the master -------------------------------------------------------------------------

    async def serve(self, body: bytes) -> bytes:
        """Do what another site asks for; never raises."""
        try:
            answer = await self._do(_requests.decode(body))
        except msgspec.DecodeError as error:
            answer = Answer(error=f"the master does not understand the request: {error}")
        except EXPECTED as error:
            answer = Answer(error=str(error))
        return msgspec.msgpack.encode(answer)

    async def _do(self, request: Request) -> Answer:
        """Submit all of a chunk at once: they are committed in this order."""
        engine = self._engine
        keyspace = engine.config.settings.storage.keyspace
        if any(each.file != keyspace for write in request.writes for each in write.changes):
            return Answer(error=f"the master serves {keyspace} as its keyspace")
        outcomes = await asyncio.gather(
            *[
                engine.write(
                    work(engine.keyspace, write),
                    keys=[each.key for each in write.changes],
                    user=f"rollback {request.ledger}",
                )
                for write in request.writes
            ]
        )
        failed = next((each.error for each in outcomes if each.error is not None), None)
        if failed is not None:
            return Answer(error=str(failed))
        results: list[Result] = [each.result for each in outcomes]
        unmet = [each.perm_failed for each in outcomes if each.perm_failed is not None]
        return Answer(results, perm_failed=unmet[-1] if unmet else None)
