"""The lines of the daemon's log as a terminal, a file and the systemd journal get them."""

import io
import logging
from collections.abc import Iterator

import pytest
import structlog

from ttserver import logs


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    yield
    root.handlers, root.level = before
    structlog.reset_defaults()


def lines(out: io.StringIO) -> list[str]:
    return out.getvalue().splitlines()


def test_a_file_gets_logfmt_with_the_time_first() -> None:
    out = io.StringIO()
    logs.configure(stream=out, environment={})
    structlog.get_logger().info("link_dropped", site="192.0.2.1:5010", reason="time out")
    (line,) = lines(out)
    assert line.startswith("timestamp=2")
    assert line.endswith(' level=info event=link_dropped site=192.0.2.1:5010 reason="time out"')


def test_the_journal_gets_its_priority_and_no_second_time() -> None:
    out = io.StringIO()
    logs.configure(stream=out, environment={"JOURNAL_STREAM": "8:1"})
    structlog.get_logger().error("disk_full", path="/x")
    assert lines(out) == ["<3>level=error event=disk_full path=/x"]


def test_a_terminal_gets_no_colour_when_asked() -> None:
    out = Terminal()
    logs.configure(stream=out, environment={"NO_COLOR": "1"})
    structlog.get_logger().warning("late")
    assert "late" in out.getvalue()
    assert "\x1b[" not in out.getvalue()


def test_what_libraries_log_is_one_event_name() -> None:
    out = io.StringIO()
    logs.configure(stream=out, environment={})
    logging.getLogger("asyncio").error("loop is %s", "slow")
    (line,) = lines(out)
    assert line.endswith(' level=error event=library_message text="loop is slow" source=asyncio')


def test_an_exception_stays_on_its_own_line() -> None:
    out = io.StringIO()
    logs.configure(stream=out, environment={})
    try:
        raise ValueError("x y")
    except ValueError:
        structlog.get_logger().exception("task_failed")
    (line,) = lines(out)
    assert "ValueError: x y" in line


def test_levels_below_the_chosen_one_are_left_out() -> None:
    out = io.StringIO()
    logs.configure(level="warning", stream=out, environment={})
    structlog.get_logger().info("quiet")
    assert lines(out) == []
