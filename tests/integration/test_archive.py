"""`ttserver archive`: which log files of a running site may go."""

from __future__ import annotations

import json
from typing import Any

from tests.support.sites import Site, Sites, fast_path, sites, wait_for

__all__ = ["fast_path", "sites"]


def archive(site: Site, *arguments: str) -> dict[str, Any]:
    return dict(json.loads(site.must("archive", "--json", *arguments)))


def test_log_files_that_may_go_are_told_and_removed(sites: Sites) -> None:
    site = sites("alone")
    site.init("master")
    site.db_config("set_lg_bsize 65536", "set_lg_max 262144")
    site.toml(storage={"checkpoint_interval_s": 1, "log_budget": "2 GB"})
    site.run()

    def found() -> dict[str, Any] | None:
        for _ in range(5):
            site.put("key", value="x" * 50_000)
        seen = archive(site)
        return seen if seen["may_go_bytes"] else None

    seen = wait_for("a file that may go", found)
    assert seen is not None
    assert (seen["budget_bytes"], seen["auto_remove"]) == (2 * 10**9, False)
    assert seen["files"][0] | {"size_bytes": 0} == {
        "number": 1,
        "size_bytes": 0,
        "may_go": True,
        "why": [],
    }
    assert seen["files"][-1]["why"] == ["the log is written to it"]
    shown = site.must("archive")
    assert "log.0000000001" in shown
    assert "nobody needs it" in shown
    assert "of a budget of 2 GB" in shown
    gone = archive(site, "--remove")["removed"]
    assert gone[0] == 1
    assert archive(site)["files"][0]["number"] == gone[-1] + 1
    assert "none of it may go" in site.must("archive", "--remove")
    assert site.get("key") == "x" * 50_000
    refused = site.cli("sync")
    assert refused.returncode == 1
    assert "no sync waits to be begun: this site is the master" in refused.stderr


def test_without_a_daemon_it_says_so(sites: Sites) -> None:
    site = sites("alone")
    site.init("master")
    done = site.cli("archive")
    assert done.returncode == 1
    assert "HINT: " in done.stderr
