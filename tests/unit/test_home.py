"""Which directory is HOME, and that one process at a time has it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ttserver.errors import ConfigurationError, TtserverError
from ttserver.home import AlreadyRunningError, Home

_HOLD = """
import sys
from pathlib import Path
from ttserver.home import Home
with Home(Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_option_wins_over_the_variable_and_the_default() -> None:
    env = {"TTSERVER_HOME": "/srv/a"}
    assert Home.find(Path("/srv/b"), env).root == Path("/srv/b")
    assert Home.find(None, env).root == Path("/srv/a")
    assert Home.find(None, {}).root == Path.cwd() / "home"
    assert Home.find(None, {"TTSERVER_HOME": ""}).root == Path.cwd() / "home"


def test_a_second_process_is_told_the_first_ones_id(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(AlreadyRunningError) as held, Home(tmp_path).locked():
                pass
            assert str(held.value) == f"home {tmp_path} is in use by process {holder.pid}"
        finally:
            holder.kill()
    # The dead holder's file is still there; its lock is not.
    with Home(tmp_path).locked():
        assert (tmp_path / "ttserver.lock").exists()


def test_the_lock_can_be_taken_again_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Home(tmp_path).locked():
        raise ZeroDivisionError
    with Home(tmp_path).locked():
        pass


def test_a_missing_home_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        Home(tmp_path / "none").must_exist()


def test_a_home_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    # A directory where the file should be stands for any refusal of the system, for root too.
    (tmp_path / "ttserver.lock").mkdir()
    with pytest.raises(TtserverError, match="cannot be written"), Home(tmp_path).locked():
        pass


def test_a_full_disk_is_told_before_the_library_dies_of_it(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.environment.mkdir(parents=True)
    home.must_have_room(1)
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(TtserverError, match=r"^disk is full: \d+ MB are free under ") as full:
        home.must_have_room(2 * free)
    assert full.value.code == "DISKFULL"
