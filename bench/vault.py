"""A tape vault of any size, written in bulk: sample volumes with ten records of history each.

Through the commands a million volumes and their history would take hours. Here each record is made
from the same structs, by the same functions for keys, counts and differences, and put into the
databases in transactions of many volumes. What comes of it is what the commands would have left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from typing import Final

import msgspec
from berkeleydb import db

from storage.catalog.files import CatalogFiles
from storage.catalog.index import COUNT, Key, counts_of, history_key, index_keys
from storage.catalog.moves import PICKED_UP, SCANNED_OUT, arrived
from storage.catalog.records import Actor, HistoryRecord, Volume, custody_of, with_flags
from storage.catalog.store import COUNTS, difference, time_key
from storage.environment import Environment
from ttserver.sample import SampleVolume, volumes

HISTORY_EACH: Final = 10
MOVING_ONE_IN: Final = 20
BATCH: Final = 500  # volumes of a transaction: some 13,000 records
CHECKPOINT_BATCHES: Final = 20
ROUND_DAYS: Final = 20  # between two records of a volume
MARKS: Final = {"scanout": SCANNED_OUT, "pickup": PICKED_UP}
USERS: Final = ("anne", "fred", "tapemaster", "vault-7")

_encode: Final = msgspec.json.Encoder().encode
Event = tuple[str, Volume]  # what was done, and the record of the volume then


def fill(
    environment: Environment,
    files: CatalogFiles,
    count: int,
    today: date,
    progress: Callable[[int], None],
) -> None:
    """Put `count` volumes into a catalog that has the structure of the sample data and none yet.

    Args:
        environment: open, used by nobody else.
        files: the catalog's databases in it.
        count: how many volumes.
        today: their move dates are reckoned from it; their history ends there.
        progress: told after each batch how many there are.
    """
    contents = Counter(one.container for one in volumes(count) if one.container)
    counted: Counter[Key] = Counter()
    done, made = 0, volumes(count)
    while batch := list(islice(made, BATCH)):
        txn = environment.env.txn_begin()
        for number, one in enumerate(batch, start=done):
            record, told = life(one, contents[one.name], number, count, today)
            _put(files, txn, one.name, record, told)
            counted.update(counts_of(one.name, record))
        txn.commit(db.DB_TXN_NOSYNC)
        done += len(batch)
        if done // BATCH % CHECKPOINT_BATCHES == 0:
            environment.env.txn_checkpoint(0, 0)
            environment.env.log_archive(db.DB_ARCH_REMOVE)
        progress(done)
    txn = environment.env.txn_begin()
    for key, numbers in _counters(counted):
        files.index.handle().put(key, _encode(numbers), txn)
    txn.commit(db.DB_TXN_SYNC)
    environment.env.txn_checkpoint(0, 0)


def life(
    sample: SampleVolume, contents: int, number: int, count: int, today: date
) -> tuple[Volume, list[tuple[bytes, HistoryRecord]]]:
    """Make up what happened to a volume: brought to and fro, and perhaps on its way now.

    Args:
        sample: the volume.
        contents: how many volumes are in it.
        number: which one of all it is.
        count: how many there are.
        today: the day its history ends.

    Returns:
        Its record, and its history with the keys.
    """
    end = datetime(today.year, today.month, today.day, tzinfo=UTC)
    # Day by day in the order of the volumes: a batch of tapes is handled together.
    share_s = 86_400 * ROUND_DAYS * number // count
    actors = [
        Actor(
            USERS[(number + at) % len(USERS)],
            "tt",
            end - timedelta(days=ROUND_DAYS * (HISTORY_EACH - at)) + timedelta(seconds=share_s),
        )
        for at in range(HISTORY_EACH)
    ]
    told = []
    before: Mapping[str, object] = {}
    record: Volume | None = None
    for at, (what, record) in enumerate(_events(sample, contents, number, actors, today), start=1):
        after = custody_of(record)
        changed = difference(before, after)
        actor, before = actors[at - 1], after
        told.append(
            (
                history_key(sample.name, at),
                HistoryRecord(
                    at=actor.at,
                    by=actor.user,
                    via=actor.program,
                    what=what,
                    before=changed[0],
                    after=changed[1],
                ),
            )
        )
    assert record is not None
    return msgspec.structs.replace(record, changes=len(told)), told


def _events(
    sample: SampleVolume, contents: int, number: int, actors: Sequence[Actor], today: date
) -> Iterator[Event]:
    """Added elsewhere, moved home, away and home again; some have not arrived yet."""
    home = sample.repository
    away = "LIBR" if home != "LIBR" else "OFFS"
    fixed = not contents and not sample.container
    moving = fixed and number % MOVING_ONE_IN == 0
    place = actors[0].place(away)
    days = sample.date.removeprefix("*")
    volume = Volume(
        current=place,
        target=place,
        scanned=place,
        description=sample.description,
        date=today + timedelta(days=int(days)) if days else None,
        container=sample.container,
        contents=contents,
        overdue_days=7,
    )
    yield "add", volume
    targets = iter((home, away, home))
    last = ("scanout", "pickup") if moving else ("pickup", "confirm")
    steps = ("move", "pickup", "confirm", "move", "pickup", "confirm", "move", *last)
    for what, actor in zip(steps, actors[1:], strict=True):
        if what == "move":
            volume = msgspec.structs.replace(volume, target=actor.place(next(targets)))
        elif what == "confirm":
            volume = arrived(actor, volume)
        else:
            volume = msgspec.structs.replace(volume, flags=with_flags(volume.flags, MARKS[what]))
        yield what, volume


def _put(
    files: CatalogFiles,
    txn: db.DBTxn,
    name: str,
    record: Volume,
    told: list[tuple[bytes, HistoryRecord]],
) -> None:
    files.volumes.handle().put(name.encode(), _encode(record), txn)
    index = files.index.handle()
    for key in index_keys(name, record):
        index.put(key, b"", txn)
    history, times = files.history.handle(), files.times.handle()
    for key, one in told:
        history.put(key, _encode(one), txn)
        times.put(time_key(one.at, key), b"", txn)


def _counters(counted: Counter[Key]) -> Iterator[tuple[bytes, list[int]]]:
    sums: dict[str, list[int]] = {}
    for (name, place), number in counted.items():
        sums.setdefault(name, [0] * COUNTS)[place] += number
    for name, numbers in sums.items():
        yield f"{COUNT} {name}".encode(), numbers
