"""A site's process: `python -m bench.site SPEC`, driven by its parent, `bench.process`."""

from __future__ import annotations

import sys
import time
from typing import Any

import msgspec
from berkeleydb import db

from bench import child
from bench.cases import Load, Lsn, SiteSpec
from bench.engines import make_site
from bench.engines.apply import repeat
from bench.engines.base import Site
from bench.environments import wait_applied
from bench.workload import drive, present


class Request(msgspec.Struct, kw_only=True):
    """What the parent wants; the fields that a request does not need are left out.

    Args:
        do: open, load, applied, check, counters, repeat or close.
    """

    do: str
    load: Load | None = None
    lsn: Lsn = (0, 0)
    timeout_s: float = 0.0
    by_writer: list[int] = []
    order: list[int] = []
    batches: list[int] = []


def answer(spec: SiteSpec, site: Site | None, request: Request) -> Any:
    """Do what one request says."""
    load = request.load
    if site is None:
        if request.do == "close":
            return None
        assert load is not None, "there is something to repeat"
        return repeat(spec, load, request.order, request.batches)
    match request.do:
        case "open":
            return site.open()
        case "prepare":
            return site.prepare()
        case "load":
            assert load is not None, "a load says what to write"
            return site.finish(drive(load, site.write, site.log_end))
        case "applied":
            flushed = spec.case.durability == "sync"
            timeout_s = request.timeout_s
            return wait_applied(site.env, request.lsn, flushed=flushed, timeout_s=timeout_s)
        case "check":
            assert load is not None, "what was written"
            return check(site, load, request.by_writer)
        case "counters":
            return {**site.counters(), "cpu_us": round(time.process_time() * 1e6)}
        case "close":
            return site.close()
        case _:
            raise ValueError(f"no request {request.do!r}")


def check(site: Site, load: Load, by_writer: list[int]) -> list[tuple[int, int]]:
    """Count each writer's writes here; see `bench.workload.present`."""

    def begin() -> db.DBTxn:
        return site.env.txn_begin()

    site.open_for_reading()
    return [
        present(site.keyspace, begin, load, writer, most + 1)
        for writer, most in enumerate(by_writer)
    ]


def main() -> None:
    """Run; the one argument is the spec as JSON."""
    spec = msgspec.json.decode(sys.argv[1], type=SiteSpec)
    site = None if spec.engine == "apply" else make_site(spec)
    child.serve(lambda line: answer(spec, site, msgspec.json.decode(line, type=Request)))


if __name__ == "__main__":
    main()
