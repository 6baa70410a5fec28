"""Simulated groups under a few seeds, sound and with bugs planted.

`python -m tests.sim --seeds N` runs as many seeds as asked for.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.group import Group
from tests.sim.plan import plan
from tests.sim.plants import BY_NAME, SEEDS_MAX, seek

ROOT = Path(__file__).parents[2]
SEEDS = range(1, SEEDS_MAX + 1)  # those with which planted bugs are looked for


@pytest.mark.parametrize("seed", SEEDS)
def test_a_group_keeps_its_promises_and_recovers(seed: int) -> None:
    result = Group(plan(seed)).run()
    replay = f"python -m tests.sim --seed {seed} --transcript"
    assert result.failure is None, f"{result.failure}; replay it with `{replay}`"
    assert result.ok, "some writes were answered OK"


@pytest.mark.parametrize("name", BY_NAME)
def test_a_planted_bug_is_caught(name: str) -> None:
    planted = BY_NAME[name]
    found = seek(planted, SEEDS)
    assert found is not None, f"no seed of {SEEDS} caught it: {planted.bug}"
    assert found.failure is not None
    assert planted.catches(found.failure), f"something else: {found.failure}"


def test_a_seed_replays_bit_by_bit() -> None:
    command = [sys.executable, "-m", "tests.sim", "--seed", "3", "--seeds", "2"]

    def told(hash_seed: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        ).stdout

    one, other = told("1"), told("2")
    assert one == other
    assert one.count("digest") == 2
