"""Where a site is in the group's log, for the question whether a commit is part of its own."""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple

from replication.apply import Applier
from replication.core import Core
from replication.wire import LSN


class Source(Enum):
    """How a site gets to know where the present generation begins."""

    OWN = auto()  # it is master
    TOLD = auto()  # its master says it
    NATIVE = auto()  # its master is a native site, which says nothing
    NONE = auto()  # it has no master now


class Where(NamedTuple):
    """Where a site is.

    Args:
        applied: the last permanent LSN here.
        reached: the generation in which that was applied.
        generation: the last one known to have a master.
        source: see `Source`.
    """

    applied: LSN
    reached: int
    generation: int
    source: Source


def where_is(core: Core, applier: Applier, written: LSN, at_start: LSN) -> Where:
    """Tell where this site is.

    Args:
        written: the last permanent LSN it wrote as master.
        at_start: the last commit in its log when the environment was opened.
    """
    if core.is_master:
        return Where(written, core.generation, core.generation, Source.OWN)
    source = Source.NONE
    if core.master_link is not None:
        source = Source.NATIVE if core.master_link.site.native else Source.TOLD
    if applier.applied_generation:
        at = applier.applied, applier.applied_generation
    else:
        # Until something came from a master, the end of the log may be recovery's own.
        at = at_start, core.own.generation
    return Where(*at, core.generation, source)
