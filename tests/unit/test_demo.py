"""The demo's sample data and its ports."""

import re
import socket
from collections import Counter
from datetime import date

import msgspec
import pytest

from ttserver.demo.ports import free, reserved
from ttserver.demo.volumes import COLUMNS, VOLUMES, Volume, from_csv, generate, to_csv
from ttserver.demo.walk import FIRST, THIRD

TODAY = date(2026, 3, 1)


@pytest.fixture(scope="module")
def volumes() -> list[Volume]:
    return list(generate(today=TODAY))


def test_the_volumes_have_names_of_their_own_that_obey_the_rules(volumes: list[Volume]) -> None:
    names = [volume.name for volume in volumes]
    assert len(set(names)) == len(names) == VOLUMES
    rule = re.compile(r"[A-Z0-9]{1,4}\.[A-Z0-9]{1,4}\.[A-Z0-9][A-Z0-9-]{0,9}")
    assert [name for name in names if not rule.fullmatch(name)] == []
    assert {FIRST, THIRD} <= set(names)


def test_the_same_seed_and_day_give_the_same_file(volumes: list[Volume]) -> None:
    assert to_csv(generate(today=TODAY)) == to_csv(volumes)
    assert to_csv(generate(today=TODAY, seed=21)) != to_csv(volumes)


@pytest.mark.parametrize("count", [0, 1, 7, 500])
def test_any_number_of_volumes_is_made_and_read_back(count: int) -> None:
    made = list(generate(count, today=TODAY))
    assert len(made) == count
    assert list(from_csv(to_csv(made).splitlines(keepends=True))) == made


def test_there_is_something_to_look_for(volumes: list[Volume]) -> None:
    backups = Counter(volume.description for volume in volumes)
    assert set(backups) == {"weekly_full", "monthly", "yearly_full", ""}
    assert backups["weekly_full"] > backups["monthly"] > backups["yearly_full"] > 0
    overdue = [v for v in volumes if v.date and date.fromisoformat(v.date) < TODAY]
    assert 0 < len(overdue) < VOLUMES / 4
    assert all(date.fromisoformat(volume.since) <= TODAY for volume in volumes)


def test_a_scratch_tape_has_no_move_date() -> None:
    value = msgspec.json.decode(Volume("ACME", "LTO", "000001L8", "SCRT", "", "x", "").value())
    assert value["date"] is None
    assert set(value) == set(COLUMNS)


@pytest.mark.parametrize(
    ("text", "line"),
    [("", "line 1"), ("volume\n", "line 1"), (",".join(COLUMNS) + "\na,b\n", "line 2")],
)
def test_a_file_that_is_not_such_a_csv_is_refused_by_its_line(text: str, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        list(from_csv(text.splitlines(keepends=True)))


def test_a_reserved_port_is_for_the_server_that_names_it() -> None:
    with reserved("127.0.0.1") as address:
        assert free(address)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address.host, address.port), timeout=5)
        with pytest.raises(OSError, match="in use"), socket.socket() as other:
            other.bind((address.host, address.port))
        with socket.create_server((address.host, address.port)):
            assert not free(address)
            socket.create_connection((address.host, address.port), timeout=5).close()
