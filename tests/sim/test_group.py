"""Simulated groups under a few seeds; `python -m tests.sim --seeds N` runs as many as asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.group import Group
from tests.sim.plan import plan

ROOT = Path(__file__).parents[2]
# Each once found something, as the code was then; the unit tests hold what it was.
FOUND = {
    13: "a master came back as none, and its followers went on believing in it",
    73: "sites that lacked acknowledged writes did not vote for those that had them",
    106: "a write of an earlier generation was confirmed by acknowledgements of a later one",
    188: "a master stepped down, and its followers took its bytes for life",
    274: "a copy under the same master was never complete",
}


@pytest.mark.parametrize("seed", [*range(1, 9), *FOUND])
def test_a_group_keeps_its_promises_and_recovers(seed: int) -> None:
    result = Group(plan(seed)).run()
    replay = f"python -m tests.sim --seed {seed} --transcript"
    assert result.failure is None, f"{result.failure}; replay it with `{replay}`"
    assert result.ok, "some writes were answered OK"


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
