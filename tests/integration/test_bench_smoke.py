"""The bench at its smallest size: order and loss, never speed.

Real processes, real Berkeley DB, its own Replication Manager included.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from berkeleydb import db

import bench.clients
from bench.cases import Case, Load, Result
from bench.environments import NativeStore
from bench.log_shipping import Plan, Report, ratios
from bench.pairs import NAMES as PAIR_NAMES
from bench.pairs import SUBJECT
from bench.pairs.base import Measured
from bench.pairs.resp import compile_load
from bench.workload import WriteOne, drive, key_of, present, value_of
from storage.keyspace import Keyspace

ROOT = Path(__file__).parents[2]
SMOKE_TIMEOUT_S = 110.0
SMOKE_WRITES = 400
LOAD = Load(run=3, threads=2, seconds=30.0, count=600, value_size=40)


def test_failover_loses_nothing(tmp_path: Path) -> None:
    report_file = tmp_path / "report.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "bench", "failover", "--smoke", "--dir", str(tmp_path)),
            *("--json", str(report_file)),
        ],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SMOKE_TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(report_file.read_bytes())
    assert {mode: len(gaps) for mode, gaps in report["gaps_ms"].items()} == {
        "kill": 1,
        "freeze": 1,
        "switchover": 1,
    }
    assert report["acked"] > 60
    assert report["lost"] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_catalog_answers_right(tmp_path: Path) -> None:
    report_file = tmp_path / "report.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "bench", "catalog", "--smoke", "--dir", str(tmp_path)),
            *("--json", str(report_file)),
        ],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SMOKE_TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (result,) = json.loads(report_file.read_bytes())["results"]
    assert (result["volumes"], result["history"], result["wrong"]) == (300, 3000, [])
    both = {"get", "history", "move", "confirm", *(f"page: {name}" for name in result["rows"])}
    assert set(result["client"]) == both | {"set", "ping", "ping beside pages"}
    assert set(result["work"]) == both | {"commit"}
    assert all(rows > 0 for rows in result["rows"].values())
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


@pytest.fixture(scope="module")
def clients_report() -> dict[str, Any]:
    """Run `clients` once, in the system's own temporary directory: others may pass through it."""
    with tempfile.TemporaryDirectory() as place:
        report_file = Path(place) / "report.json"
        command = [sys.executable, "-m", "bench", "clients", "--smoke", "--json", str(report_file)]
        done = subprocess.run(
            command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=SMOKE_TIMEOUT_S
        )
        assert done.returncode == 0, done.stdout + done.stderr
        report: dict[str, Any] = json.loads(report_file.read_bytes())
    return report


@pytest.mark.parametrize("pair", PAIR_NAMES)
def test_clients_answer_right(clients_report: dict[str, Any], pair: str) -> None:
    if why := clients_report["skipped"].get(pair):
        assert pair != SUBJECT
        pytest.skip(why)
    runs = [run for run in clients_report["results"] if run["pair"] == pair]
    cases = clients_report["plan"]["cases"]
    if pair == "postgresql":
        cases = [case for case in cases if case["work"] != "get-pipelined"]
    assert [run["case"] for run in runs] == cases
    for run in runs:
        assert run["measured"]["operations"] > 0, run
        assert (run["measured"]["errors"], run["lost"]) == (0, 0), run
        assert 0 < run["measured"]["p50_us"] <= run["measured"]["p99_us"], run
        assert (run["idle_kib"] is None) == (run["case"]["idle"] == 0), run
        if pair != "postgresql" and run["case"]["work"].startswith("set"):
            assert len(run["measured"]["last"]) == run["case"]["connections"], run


def test_clients_report_counts_what_is_lost() -> None:
    case = bench.clients.Case(work="set", connections=8)
    measured = Measured(operations=5, sent=5, p50_us=1, p99_us=1, max_us=1)
    bad = msgspec.structs.replace(measured, errors=2, error="-ERR no", operations=0)
    cpu = dict.fromkeys(("master_cpu_us", "replicant_cpu_us", "load_cpu_us"), 1.0)
    facts: dict[str, Any] = {"case": case, "seconds": 1.0, "idle_kib": None, **cpu}
    plan = bench.clients.Plan(
        pairs=(SUBJECT,),
        cases=(case,),
        rounds=1,
        seconds=1.0,
        warmup_s=0.0,
        keys=200,
        cache_mib=8,
        directory="",
    )
    results = [
        bench.clients.Result(pair=SUBJECT, round=0, measured=measured, lost=3, **facts),
        bench.clients.Result(pair="redis", round=0, measured=bad, lost=0, **facts),
    ]
    report = bench.clients.Report(plan=plan, machine={}, versions={}, skipped={}, results=results)

    where = "round 0, SET, flushed at the master; 8 connections"
    assert report.failures() == [
        f"ttserver, {where}: 3 acknowledged writes are not on the replicant",
        f"redis, {where}: 2 errors: -ERR no",
        f"redis, {where}: nothing was answered in time",
    ]
    assert bench.clients.ratios(results, case, "redis") == []


def test_load_tells_an_answer_that_is_wrong(tmp_path: Path) -> None:
    """The load against a server that answers everything with PONG, and a wait with 0 sites."""
    load = compile_load(tmp_path)
    for work, answers in (
        ("set", [b"+PONG\r\n"]),
        ("set-wait", [b"+OK\r\n:0\r\n"]),
        ("get", [b"$5\r\nshort\r\n"]),
        ("get", [b"$-1\r\n"]),
        ("set-wait", [b"+O", b"K\r\n:1\r\n"]),
        ("get", [b"$40\r\n" + b"x" * 40, b"\r\n"]),
    ):
        good = answers[-1].endswith(b":1\r\n") or len(answers[0]) > 40
        with answering(answers) as port:
            done = subprocess.run(
                [str(load), str(port), work, *("1", "1", "100", "40", "0", "0.2", "1")],
                check=True,
                capture_output=True,
                timeout=SMOKE_TIMEOUT_S,
            )
        measured = msgspec.json.decode(done.stdout, type=Measured)
        assert measured.operations > 0
        assert measured.errors == (0 if good else measured.sent), measured


@contextmanager
def answering(parts: list[bytes]) -> Iterator[int]:
    """Answer one connection's every command with the same parts; gives the port."""

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            while connection.recv(65536):
                for part in parts:
                    connection.sendall(part)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        thread.join()


def test_smoke_loses_nothing_and_keeps_the_order(tmp_path: Path) -> None:
    report_file, picture = tmp_path / "report.json", tmp_path / "report.png"

    done = subprocess.run(
        [
            *(sys.executable, "-m", "bench", "log-shipping", "--smoke", "--dir", str(tmp_path)),
            *("--json", str(report_file), "--plot", str(picture)),
        ],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SMOKE_TIMEOUT_S,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(report_file.read_bytes())
    runs = [run for of_case in report["results"] for run in of_case]
    assert {run["engine"] for run in runs} == set(report["plan"]["engines"])
    for run in runs:
        assert run["lost"] == 0, run
        assert run["paused"] or run["writes"] == SMOKE_WRITES, run
        assert run["end_to_end_s"] is not None, run
        if run["engine"].startswith("ttserver"):
            assert (run["dropped"], run["requested"], run["perm_failed"]) == (0, 0, 0), run
    assert [run["engine"] for run in runs if run["paused"]].count("ttserver") == 2
    assert report["machine"]["file_system"] != "unknown"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.png"]


def writing(store: NativeStore) -> WriteOne:
    def write(_: int, key: bytes, value: bytes) -> bool:
        store.write(key, value)
        return True

    return write


@pytest.fixture
def store(tmp_path: Path) -> Iterator[NativeStore]:
    """Hold what two writers wrote."""
    opened = NativeStore(tmp_path, Case(durability="nosync"))
    opened.open()
    opened.open_keys(create=True)
    drive(LOAD, writing(opened), lambda: (1, 28))
    yield opened
    opened.close()


def held(store: NativeStore, writer: int) -> tuple[int, int]:
    return present(Keyspace(store.handle), store.env.txn_begin, LOAD, writer, LOAD.count)


def test_check_finds_all_that_is_there(store: NativeStore) -> None:
    assert [held(store, writer) for writer in (0, 1)] == [(300, 0), (300, 0)]


def test_check_finds_a_missing_write_and_those_behind_it(store: NativeStore) -> None:
    store.handle().delete(key_of(LOAD.run, 1, 250))

    assert [held(store, writer) for writer in (0, 1)] == [(300, 0), (250, 49)]


def test_check_finds_a_wrong_value(store: NativeStore) -> None:
    store.handle().put(key_of(LOAD.run, 0, 299), value_of(298, LOAD.value_size))

    assert held(store, 0) == (299, 1)


def test_writers_tell_what_went_wrong(store: NativeStore) -> None:
    store.close()

    with pytest.raises(db.DBError):
        drive(LOAD, writing(store), lambda: (1, 28))


def result(engine: str, number: int = 0, **facts: Any) -> Result:
    fields = {"paused": False, "threads": 1, "writes": 1000, "bytes": 1000, "master_s": 1.0}
    return Result(engine=engine, round=number, **{**fields, "end_to_end_s": 1.0, **facts})


def report_of(*results: Result) -> Report:
    plan = Plan(
        engines=("ttserver", "repmgr"),
        cases=(Case(),),
        threads=(1,),
        rounds=1,
        seconds=1.0,
        count=0,
        pause=False,
        directory="",
    )
    return Report(plan=plan, machine={}, results=[list(results)], skipped={})


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"lost": 2}, "2 writes missing or out of order"),
        ({"dropped": 1, "requested": 0}, "messages 1 dropped, 0 requested again"),
        ({"dropped": 0, "requested": 7}, "messages 0 dropped, 7 requested again"),
        ({"perm_failed": 3}, "3 writes not acknowledged in time"),
        ({"end_to_end_s": None}, "the last write was not applied"),
    ],
)
def test_report_fails_for(bad: dict[str, Any], said: str) -> None:
    failures = report_of(result("ttserver"), result("ttserver", paused=True, **bad)).failures()

    assert failures == [f"ttserver, round 0, 1 writers, replicant paused: {said}"]


def test_peer_that_drops_is_no_failure_but_one_that_loses_is() -> None:
    dropping, losing = result("repmgr", dropped=5, requested=5), result("repmgr", lost=1)

    assert report_of(dropping).failures() == []
    assert len(report_of(dropping, losing).failures()) == 1


def test_ratios_compare_runs_of_the_same_round() -> None:
    results = [
        result("ttserver", 0, master_s=1.0),
        result("repmgr", 1, master_s=1.0),
        result("ttserver", 1, master_s=0.5),
        result("repmgr", 0, master_s=4.0),
        result("ttserver", 1, master_s=9.0, paused=True),
        result("ttserver", 2, master_s=1.0),
    ]

    assert ratios(results, 1, "ttserver", "repmgr", lambda r: r.master_rate) == [4.0, 2.0]
