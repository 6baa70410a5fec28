"""The sample data: names that obey the rules, and something to look for."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from storage.catalog.names import check_volume
from ttserver.sample import VOLUMES_MAX, SampleVolume, csv_lines, structure, volumes

COUNT = 10_000
DATE = re.compile(r"\*[+-][0-9]+")


@pytest.fixture(scope="module")
def made() -> list[SampleVolume]:
    return list(volumes(COUNT))


def test_the_names_obey_the_rules_and_differ(made: list[SampleVolume]) -> None:
    names = [check_volume(volume.name) for volume in made]
    assert len(set(names)) == len(names) == COUNT
    assert {"US04.LTO.000000L6", "US04.CONT.CT100100"} <= set(names)


def test_the_same_seed_gives_the_same_file(made: list[SampleVolume]) -> None:
    text = "".join(csv_lines(made))
    assert "".join(csv_lines(volumes(COUNT))) == text
    assert "".join(csv_lines(volumes(COUNT, seed=21))) != text


@pytest.mark.parametrize("count", [0, 1, 7, 500])
def test_any_number_is_made(count: int) -> None:
    assert len(list(volumes(count))) == count
    assert len(list(csv_lines(volumes(count)))) == 1 + count


def test_the_largest_media_type_has_names_enough() -> None:
    assert VOLUMES_MAX * 40 // 100 < 10**6


def test_every_place_is_one_that_the_structure_makes(made: list[SampleVolume]) -> None:
    named = {words[1] for words in structure()}
    places = {f"{one.customer}.{one.media}.{one.repository}" for one in made}
    assert places <= named
    assert {one.customer for one in made} == {"US01", "US02", "US04", "ACME", "1009"} <= named


def test_a_container_comes_before_what_is_in_it_and_is_where_that_is(
    made: list[SampleVolume],
) -> None:
    place: dict[str, str] = {}
    inside: Counter[str] = Counter()
    for volume in made:
        if volume.container:
            assert place[volume.container] == volume.repository
            inside[volume.container] += 1
        place[volume.name] = volume.repository
    assert len(inside) == COUNT // 100
    assert set(inside.values()) == {10}


def test_there_is_something_to_look_for(made: list[SampleVolume]) -> None:
    backups = Counter(one.description for one in made if one.media != "CONT")
    assert set(backups) == {"weekly_full", "monthly", "yearly_full", ""}
    assert backups["weekly_full"] > backups["monthly"] > backups["yearly_full"] > 0
    assert all(DATE.fullmatch(one.date) for one in made if one.date)
    due = [one for one in made if one.date.startswith(("*-", "*+0"))]
    assert 0 < len(due) < COUNT / 4
    assert all(not one.date and not one.description for one in made if one.repository == "SCRT")
