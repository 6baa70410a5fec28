"""The pairs of servers that `clients` compares, by name."""

from __future__ import annotations

from bench.pairs.base import Pair, Setting
from bench.pairs.postgresql import PostgresqlPair
from bench.pairs.redis import RedisPair
from bench.pairs.ttserver import TtserverPair

SUBJECT = "ttserver"
PAIRS: dict[str, type[Pair]] = {
    pair.name: pair for pair in (TtserverPair, RedisPair, PostgresqlPair)
}
NAMES = tuple(PAIRS)


def make_pair(name: str, setting: Setting) -> Pair:
    """Make a pair.

    Raises:
        PairMissingError: this machine does not have what it is made of.
    """
    return PAIRS[name](setting)
