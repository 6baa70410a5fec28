"""`local`: the same transactions without replication, one a write, straight into the library."""

from __future__ import annotations

from bench.engines.base import NativeSite


class LocalSite(NativeSite):
    """The library alone."""

    def counters(self) -> dict[str, int]:
        return {}
