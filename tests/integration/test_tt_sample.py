"""`tt sample` against a served port: an empty server gets a vault, a real one is left alone."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
import structlog

from tests.integration.client_port import served_port
from tests.support.catalog_client import add_users
from ttserver.tt import run

Tt = Callable[..., str]


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with served_port(tmp_path / "home", "small") as served:
        served.wait(add_users(served.engine))
        yield served.port
    structlog.reset_defaults()


@pytest.fixture
def tt(port: int, capsys: pytest.CaptureFixture[str]) -> Tt:
    def says(line: str, status: int = 0) -> str:
        assert run(["-S", f"tapemaster:secret@127.0.0.1:{port}", *line.split()]) == status, line
        out, err = capsys.readouterr()
        return err if status else out

    return says


def test_a_vault_is_put_into_an_empty_server_and_works(tt: Tt) -> None:
    assert tt("sample -n 500 --load") == "500 added, 0 there already, 0 bad\n"
    assert tt("volume count") == "500\n"
    # What is there is left alone.
    assert tt("sample -n 500 --load") == "0 added, 500 there already, 0 bad\n"
    assert json.loads(tt("sample -n 510 --seed 20 --load --json"))["added"] == 10
    assert json.loads(tt("repository get US04.LTO.OFFS --json"))["next"] == "SCRT"
    inside = json.loads(tt("volume list --container US04.CONT.CT100100 --json"))
    assert len(inside) == 10
    # Its move dates, its repositories and containers are such that the daily job has work.
    sent = json.loads(tt("expire --json"))
    assert sent["counts"]["moving"] > 10
    assert json.loads(tt("report library US04.LTO.LIBR --json"))["outgoing"] > 0


def test_what_is_printed_is_what_tt_load_reads(tt: Tt, tmp_path: Path) -> None:
    tt("sample -n 0 --load")
    file = tmp_path / "volumes.csv"
    file.write_text(tt("sample -n 300 --seed 7"))
    assert tt("sample -n 300 --seed 7") == file.read_text() != tt("sample -n 300")
    assert tt(f"load {file}") == "300 added, 0 there already, 0 bad\n"


def test_a_server_with_customers_of_its_own_is_left_alone(tt: Tt, port: int) -> None:
    with redis.Redis(port=port, username="tapemaster", password="secret") as client:
        client.execute_command("CUSTOMER.ADD", "US04", "DESCRIPTION", "tape vault")
    said = tt("sample -n 10 --load", status=1)
    assert said.startswith("tt: sample data refused: customer US04 of this server is a real one\n")
    assert tt("customer list").count("\n") == 2
    assert tt("volume count") == "0\n"
