"""Fixtures of real daemons beside real native sites."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.native import Natives, native_sites
from tests.support.sites import fast_path, sites

__all__ = ["fast_path", "natives", "sites"]


@pytest.fixture
def natives(fast_path: Path) -> Iterator[Natives]:
    """Make native sites by name; pytest shows what they printed when the test fails."""
    with native_sites(fast_path) as make:
        yield make
