"""The secondary indexes of the volumes: one btree of keys without values.

A key is the index's letter, what it is looked up by, and the volume, with blanks between them; all
of it text that db_dump shows as it is. Each key of a media type begins with it, so a walk over
an index gives the volumes of one media type, in the order of their IDs:

    C US04.LTO.LIBR 123456L6            is in this repository
    T US04.LTO.OFFS 123456L6            is moving to it
    H US04.LTO.RACK 123456L6            belongs to it
    Fp US04.LTO 123456L6                has this flag; `F!` is not confirmed
    D US04.LTO 2025-12-02 123456L6      has this move date
    V US04.LTO 2025-12-09 123456L6      its move is overdue from this day on
    I US04.CONT.CT100100 US04.LTO.1     is in this container
    U 123456L6 US04.LTO                 all volumes by ID alone

    # US04.LTO                          how many volumes it has
    # US04.LTO.LIBR                     how many are in it, on their way to it, and from it

Only the last two have values. All of them are written in the transaction that writes the volume.
"""

from collections import Counter
from typing import Final

from storage.catalog.names import id_of, media_of
from storage.catalog.records import Volume

CURRENT: Final = "C"
TARGET: Final = "T"
HOME: Final = "H"
FLAG: Final = "F"
DATE: Final = "D"
OVERDUE: Final = "V"
CONTAINER: Final = "I"
UNIQUE: Final = "U"
COUNT: Final = "#"

UNCONFIRMED: Final = "!"
# Flags with an index: all that are stored, and of the derived ones those few volumes have.
INDEXED_FLAGS: Final = "ELlpUKarQhWMBc"

Key = tuple[str, int]  # what is counted, and which of its numbers


def index_keys(name: str, volume: Volume) -> set[bytes]:
    """All keys that stand for a volume in the indexes."""
    media, number = media_of(name), id_of(name)
    keys = [
        f"{CURRENT} {media}.{volume.current.repository} {number}",
        f"{UNIQUE} {number} {media}",
    ]
    flags = volume.flags
    if volume.moving:
        flags += "M"
        keys.append(f"{TARGET} {media}.{volume.target.repository} {number}")
        if (overdue_on := volume.overdue_on) is not None:
            keys.append(f"{OVERDUE} {media} {overdue_on.isoformat()} {number}")
    if volume.home:
        keys.append(f"{HOME} {media}.{volume.home} {number}")
    if volume.date is not None:
        keys.append(f"{DATE} {media} {volume.date.isoformat()} {number}")
    if volume.container:
        flags += "c"
        keys.append(f"{CONTAINER} {volume.container} {name}")
    if volume.contents:
        flags += "B"
    if not volume.confirmed:
        flags += UNCONFIRMED
    keys += [f"{FLAG}{flag} {media} {number}" for flag in flags]
    return {key.encode() for key in keys}


def counts_of(name: str, volume: Volume) -> Counter[Key]:
    """What a volume adds to the counts: of its media type, and of its repositories."""
    media = media_of(name)
    counts: Counter[Key] = Counter({(media, 0): 1})
    counts[f"{media}.{volume.current.repository}", 0] += 1
    if volume.moving:
        counts[f"{media}.{volume.target.repository}", 1] += 1
        counts[f"{media}.{volume.current.repository}", 2] += 1
    return counts


def history_key(name: str, number: int) -> bytes:
    """The key of a history record: records of one volume follow each other."""
    return f"{name} {number:010d}".encode()
