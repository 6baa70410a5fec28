"""`$DB_Msg.txt`, the writing side: nothing lost, nothing raised, whatever happens to the file."""

import os
import resource
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from replication.errors import ReplicationError
from replication.journal import Journal, rotated
from replication.journal_line import Line, parse_line

NOW_S = 1795417262.5
MakeJournal = Callable[..., Journal]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "$DB_Msg.txt"


@pytest.fixture
def make(path: Path) -> Iterator[MakeJournal]:
    made: list[Journal] = []

    def build(*, bytes_max: int = 1 << 20, files_max: int = 3) -> Journal:
        journal = Journal(
            path, bytes_max, files_max, "db1:5010", capture_stdout=False, now=lambda: NOW_S
        )
        made.append(journal)
        return journal

    yield build
    for journal in made:
        journal.close()


def lines_of(path: Path) -> list[Line]:
    """Parse a file; every line of it must be one of ours."""
    parsed = [parse_line(text) for text in path.read_text().splitlines()]
    assert None not in parsed
    return [line for line in parsed if line is not None]


def chain(path: Path) -> list[Line]:
    """Parse the rotated files, oldest first, and the current one."""
    names = sorted(
        path.parent.glob(f"{path.name}.*"), key=lambda name: -int(name.suffix.removeprefix("."))
    )
    return [line for name in [*names, path] for line in lines_of(name)]


@contextmanager
def file_size_limit(size_bytes: int) -> Iterator[None]:
    """Let this process's files grow no further than this: the kernel's own short writes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_line_is_in_the_file_when_write_returns(make: MakeJournal, path: Path) -> None:
    journal = make()
    journal.write("connection_accepted", from_="db2:5010")
    journal.set_role("master")
    journal.write("role_changed", to="master", generation=3)
    assert path.read_text() == (
        "2026-11-23 07:01:02.500Z none db1:5010 connection_accepted from=db2:5010\n"
        "2026-11-23 07:01:02.500Z master db1:5010 role_changed to=master generation=3\n"
    )


def test_a_flood_of_one_event_is_thinned_out_and_counted(path: Path) -> None:
    now_s = [100.0]
    journal = Journal(path, 1 << 20, 1, "db1:5010", capture_stdout=False, clock=lambda: now_s[0])
    for number in range(1000):
        journal.write_seldom("ack_failed", every_s=10.0, burst=3, number=number)
        now_s[0] += 0.01
    journal.write_seldom("logon_refused", every_s=10.0, burst=3, number=0)  # has its own allowance
    now_s[0] += 10.0
    journal.write_seldom("ack_failed", every_s=10.0, burst=3, number=1000)
    journal.close()
    assert [(line.event, line.facts) for line in lines_of(path)] == [
        *(("ack_failed", {"number": str(number)}) for number in range(3)),
        ("logon_refused", {"number": "0"}),
        ("ack_failed", {"number": "1000", "left_out": "997"}),
    ]


def test_rotation_keeps_the_newest_files_and_drops_whole_old_ones(
    make: MakeJournal, path: Path
) -> None:
    journal = make(bytes_max=1000, files_max=3)
    for number in range(200):
        journal.write("ack_failed", number=number)
    files = sorted(name.name for name in path.parent.iterdir())
    assert files == [f"{path.name}{end}" for end in ("", ".1", ".2", ".3")]
    assert all(name.stat().st_size <= 1000 for name in path.parent.iterdir())
    numbers = [int(line.facts["number"]) for line in chain(path) if line.event == "ack_failed"]
    assert numbers == list(range(numbers[0], 200))
    # Each file but the first ever begins by naming the one before it.
    first = lines_of(path)[0]
    assert (first.event, first.facts) == ("journal_continued", {"previous": f"{path.name}.1"})


def test_no_line_is_lost_when_several_threads_write_through_rotations(
    make: MakeJournal, path: Path
) -> None:
    journal = make(bytes_max=2000, files_max=1000)
    start = threading.Barrier(4)

    def work(thread: int) -> None:
        start.wait(10)
        for number in range(250):
            journal.write("event", thread=thread, number=number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    written = [line.facts for line in chain(path) if line.event == "event"]
    for n in range(4):
        mine = [int(facts["number"]) for facts in written if facts["thread"] == str(n)]
        assert mine == list(range(250))
    assert len(written) == 1000
    statistics = journal.statistics()
    assert statistics.rotations > 20
    assert statistics.lines_lost == 0
    assert statistics.lines == 1000 + statistics.rotations


def test_a_gap_in_the_rotated_files_is_filled_before_any_is_dropped(
    make: MakeJournal, path: Path
) -> None:
    journal = make(bytes_max=200, files_max=3)
    rotated(path, 1).write_text("one\n")
    rotated(path, 3).write_text("three\n")
    journal.write("event", text="x" * 150)
    journal.write("event")
    assert rotated(path, 2).read_text() == "one\n"
    assert rotated(path, 3).read_text() == "three\n"


def test_a_full_disk_costs_lines_but_never_raises_and_is_confessed_later(
    make: MakeJournal, path: Path
) -> None:
    journal = make()
    journal.write("event", number=0)
    # Room for a piece of the next line: the kernel takes it, then refuses the rest.
    with file_size_limit(path.stat().st_size + 10):
        journal.write("event", number=1)
        journal.write("event", number=2)
        journal.write("event", number=3)
    journal.write("event", number=4)
    journal.write("event", number=5)
    whole, torn, notice, *rest = path.read_text().splitlines()
    assert whole.endswith("number=0")
    assert torn == whole[:10]
    lost = parse_line(notice)
    assert lost is not None
    assert lost.event == "journal_lines_lost"
    assert lost.facts == {
        "lines": "3",
        "since": "2026-11-23 07:01:02.500Z",
        "why": "File too large",
    }
    assert [text.split()[-1] for text in rest] == ["number=4", "number=5"]
    assert journal.statistics().lines_lost == 3


def test_a_rotation_that_fails_keeps_writing_to_the_old_file(make: MakeJournal, path: Path) -> None:
    journal = make(bytes_max=300, files_max=1)
    blocker = rotated(path, 1)
    (blocker / "in the way").mkdir(parents=True)
    for number in range(10):
        journal.write("event", number=number)
    assert len(lines_of(path)) == 10
    (blocker / "in the way").rmdir()
    blocker.rmdir()
    journal.write("event", number=10)
    assert len(lines_of(blocker)) == 10
    assert [line.event for line in lines_of(path)] == ["journal_continued", "event"]


@pytest.mark.parametrize("fate", ["deleted", "renamed"])
def test_a_file_taken_away_by_somebody_else_is_made_again(
    make: MakeJournal, path: Path, fate: str
) -> None:
    journal = make()
    journal.write("event", number=0)
    if fate == "deleted":
        path.unlink()
    else:
        path.rename(path.with_suffix(".old"))
    journal.write("event", number=1)
    assert [line.facts for line in lines_of(path)] == [{"number": "1"}]


def test_a_line_cut_by_a_kill_does_not_swallow_the_next(make: MakeJournal, path: Path) -> None:
    path.write_text("2026-11-23 07:00:00.000Z master db1:50")
    make().write("event")
    assert path.read_text().splitlines()[1].endswith("db1:5010 event")
    make().write("event")
    assert len(path.read_text().splitlines()) == 3


def test_write_after_close_is_silent(make: MakeJournal, path: Path) -> None:
    journal = make()
    journal.close()
    journal.close()
    journal.write("event")
    journal.rotate_if_due()
    assert path.read_text() == ""


def test_a_journal_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    with pytest.raises(ReplicationError, match="cannot be written: No such file") as caught:
        Journal(tmp_path / "absent" / "j", 1000, 1, "db1:5010", capture_stdout=False)
    assert caught.value.code == "journal_unwritable"
    assert str(tmp_path / "absent") in caught.value.hint


# -- standard output: in a process of its own, for it is the process's


def run_script(script: str, path: Path, *, stdout_closed: bool = False) -> str:
    """Run a script with the journal's path as its argument; give its standard output."""
    shell = ["sh", "-c", 'exec "$@" >&-', "sh"] if stdout_closed else []
    done = subprocess.run(
        [*shell, sys.executable, "-c", textwrap.dedent(script), str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_librarys_verbose_messages_are_in_the_journal_through_rotations(path: Path) -> None:
    output = run_script(
        """
        import sys
        from pathlib import Path
        from berkeleydb import db
        from replication.journal import Journal

        path = Path(sys.argv[1])
        print("before")
        journal = Journal(path, 6000, 1000, "db1:5010", capture_stdout=True, role="master")
        home = path.parent / "env"
        home.mkdir()
        env = db.DBEnv()
        env.set_verbose(db.DB_VERB_REPLICATION, 1)
        env.rep_set_transport(1, lambda *arguments: 0)
        env.open(home, db.DB_CREATE | db.DB_THREAD | db.DB_INIT_LOG | db.DB_INIT_MPOOL
                 | db.DB_INIT_TXN | db.DB_INIT_LOCK | db.DB_INIT_REP)
        env.rep_start(db.DB_REP_MASTER)
        table = db.DB(env)
        txn = env.txn_begin()
        table.open("t.db", dbtype=db.DB_BTREE, flags=db.DB_CREATE, txn=txn)
        txn.commit()
        for number in range(100):
            txn = env.txn_begin()
            table.put(b"%d" % number, b"x", txn=txn)
            txn.commit()
            journal.write("event", number=number)
        table.close()
        env.close()
        journal.rotate_if_due()
        print("captured")
        journal.close()
        print("after")
        """,
        path,
    )
    assert output == "before\nafter\n"
    names = [path, *(rotated(path, n) for n in range(1, len(list(path.parent.glob("$*")))))]
    texts = [name.read_text() for name in reversed(names)]
    assert len(texts) > 3
    everything = "".join(texts)
    lines = [line for text in everything.splitlines() if (line := parse_line(text)) is not None]
    numbers = [int(line.facts["number"]) for line in lines if line.event == "event"]
    assert numbers == list(range(100))
    # The library tells each message it sends, in every one of the files: none went astray.
    assert everything.count("rep_send_message") >= 100
    assert all("rep_send_message" in text for text in texts[:-1])
    assert everything.endswith("captured\n")
    # A file is too large by no more than what the library prints between two of our lines.
    assert max(name.stat().st_size for name in names) < 6000 + 3000


def test_a_file_that_only_the_library_fills_is_rotated(path: Path) -> None:
    run_script(
        """
        import os, sys
        from pathlib import Path
        from replication.journal import Journal

        journal = Journal(Path(sys.argv[1]), 1000, 3, "db1:5010", capture_stdout=True)
        for number in range(3):
            os.write(1, b"x" * 1500 + b"%d\\n" % number)
            journal.rotate_if_due()
        journal.close()
        """,
        path,
    )
    found = [rotated(path, n).read_text().splitlines()[-1][-1] for n in (3, 2, 1)]
    assert found == ["0", "1", "2"]
    assert [line.event for line in lines_of(path)] == ["journal_continued"]


def test_a_process_without_standard_output_can_capture_it_too(path: Path) -> None:
    run_script(
        """
        import os, sys
        from pathlib import Path
        from replication.journal import Journal

        path = Path(sys.argv[1])
        journal = Journal(path, 10_000, 1, "db1:5010", capture_stdout=True)
        os.write(1, b"from the library\\n")
        journal.write("event")
        journal.close()
        os.write(1, b"into the void\\n")
        assert open(path).read().splitlines()[0] == "from the library"
        assert "void" not in open(path).read()
        """,
        path,
        stdout_closed=True,
    )
