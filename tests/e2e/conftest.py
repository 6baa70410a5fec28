"""Fixtures of real daemons."""

from tests.support.sites import fast_path, initialised, pair, sites

__all__ = ["fast_path", "initialised", "pair", "sites"]
