"""The engines by name. Each lives in a module of its own, imported in the process that needs it."""

from __future__ import annotations

from bench.cases import SiteSpec
from bench.engines.base import Site

PAIRS = ("ttserver", "ttserver-single", "repmgr", "repmgr-nodelay")
ALONE = ("local", "local-group")
CEILING = "apply"
NAMES = (*PAIRS, *ALONE, CEILING)


def make_site(spec: SiteSpec) -> Site:
    """Make a site of an engine, not open yet."""
    match spec.engine:
        case "ttserver" | "ttserver-single" | "local-group":
            from bench.engines.ttserver import TtserverSite

            return TtserverSite(
                spec,
                batch_max=1 if spec.engine == "ttserver-single" else None,
                replication=spec.engine != "local-group",
            )
        case "repmgr" | "repmgr-nodelay":
            from bench.engines.repmgr import RepmgrSite

            return RepmgrSite(spec, nodelay=spec.engine == "repmgr-nodelay")
        case "local":
            from bench.engines.local import LocalSite

            return LocalSite(spec)
        case _:
            raise ValueError(f"no engine {spec.engine!r}")
