"""Three sites: nothing that was answered OK at QUORUM is lost, whatever happens to one of them."""

from pathlib import Path

import pytest

from tests.faults.trio import trio

pytestmark = pytest.mark.timeout(600)

SEED = 3
ROUNDS = 5


def test_kills_freezes_and_cuts_under_load(fast_path: Path) -> None:
    """Replay a longer one: python -m tests.faults --sites 3 --rounds N --seed S."""
    with trio(fast_path, SEED) as group:
        group.run(ROUNDS)
