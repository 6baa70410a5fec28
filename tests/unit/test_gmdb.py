"""The membership database in a real environment: bytes that a native site can read."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from berkeleydb import db

from replication import gmdb
from replication.bodies import SiteAddress
from replication.errors import MembershipError
from replication.membership import GMDB_DATABASE, GMDB_FILE, Membership
from tests.support.replicated import environment

A = SiteAddress("127.0.0.1", 17101)
B = SiteAddress("127.0.0.1", 17102)
GENERATION = 3


@pytest.fixture
def env(tmp_path: Path) -> Iterator[db.DBEnv]:
    with environment(tmp_path / "env") as opened:
        opened.rep_start(db.DB_REP_MASTER)
        yield opened


def steps_of_two() -> tuple[Membership, ...]:
    first = Membership.create(A, GENERATION)
    adding = first.adding(B)
    return (first, adding, adding.present(B))


def raw(env: db.DBEnv) -> dict[bytes, bytes]:
    handle = db.DB(env)
    try:
        handle.open(GMDB_FILE, dbname=GMDB_DATABASE, dbtype=db.DB_BTREE, flags=db.DB_RDONLY)
        return dict(handle.items())
    finally:
        handle.close()


def test_there_is_none_at_first(env: db.DBEnv) -> None:
    assert gmdb.read(env, GENERATION) is None


def test_what_is_written_is_read(env: db.DBEnv) -> None:
    written = gmdb.write(env, steps_of_two(), GENERATION)
    assert written == steps_of_two()[-1]
    assert gmdb.read(env, GENERATION) == written
    read = gmdb.read(env, 9)
    assert read is not None
    assert read.generation == 9, "it is not stored"


def test_the_bytes_are_those_of_a_native_group(env: db.DBEnv) -> None:
    gmdb.write(env, steps_of_two(), GENERATION)
    assert raw(env) == {
        bytes(6): bytes.fromhex("0000000100000003"),
        bytes.fromhex("0000000a3132372e302e302e310042cd"): bytes.fromhex("00000004"),
        bytes.fromhex("0000000a3132372e302e302e310042ce"): bytes.fromhex("00000004"),
    }


def test_the_librarys_own_dump_program_reads_it(tmp_path: Path) -> None:
    home = tmp_path / "env"
    with environment(home) as env:
        env.rep_start(db.DB_REP_MASTER)
        gmdb.write(env, steps_of_two(), GENERATION)
    dump = subprocess.run(
        ["db5.3_dump", "-s", GMDB_DATABASE, str(home / GMDB_FILE)],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    ).stdout.splitlines()
    assert "db_pagesize=1024" in dump or "db_pagesize=4096" in dump
    assert dump[dump.index("HEADER=END") + 1] == " 000000000000", "the meta record sorts first"
    assert dump[dump.index("HEADER=END") + 2] == " 0000000100000003"


def test_a_removed_site_is_gone(env: db.DBEnv) -> None:
    two = gmdb.write(env, steps_of_two(), GENERATION)
    leaving = two.deleting(B)
    gmdb.write(env, (leaving, leaving.removed(B)), GENERATION)
    read = gmdb.read(env, GENERATION)
    assert read is not None
    assert [member.address for member in read.members] == [A]
    assert read.version == 5
    assert len(raw(env)) == 2


def test_what_is_written_outlives_a_crash_although_the_environment_flushes_nothing(
    tmp_path: Path,
) -> None:
    with environment(tmp_path / "env") as env:
        env.rep_start(db.DB_REP_MASTER)
        written = gmdb.write(env, steps_of_two(), GENERATION)
        # As it is on disk now; the regions of a crashed process are of no use to recovery.
        shutil.copytree(
            tmp_path / "env", tmp_path / "crashed", ignore=shutil.ignore_patterns("__db.0*")
        )
    with environment(tmp_path / "crashed") as env:
        assert gmdb.read(env, GENERATION) == written


def test_a_version_must_not_be_skipped(env: db.DBEnv) -> None:
    first, _adding, last = steps_of_two()
    gmdb.write(env, (first,), GENERATION)
    with pytest.raises(MembershipError, match="from version 1 to 3"):
        gmdb.write(env, (last,), GENERATION)
    assert gmdb.read(env, GENERATION) == first, "nothing of it was written"
    gmdb.write(env, steps_of_two()[1:], GENERATION)


def test_a_new_database_begins_at_version_1(env: db.DBEnv) -> None:
    with pytest.raises(MembershipError, match="is missing"):
        gmdb.write(env, (steps_of_two()[-1],), GENERATION)
    assert gmdb.read(env, GENERATION) is None


def test_damage_is_an_error_and_not_an_empty_group(env: db.DBEnv) -> None:
    gmdb.write(env, steps_of_two(), GENERATION)
    handle = db.DB(env)
    handle.open(GMDB_FILE, dbname=GMDB_DATABASE, dbtype=db.DB_BTREE)
    handle.put(b"\0\0\0\xffx", b"")
    handle.close()
    with pytest.raises(MembershipError):
        gmdb.read(env, GENERATION)


def test_no_handle_stays_open(env: db.DBEnv) -> None:
    gmdb.write(env, steps_of_two(), GENERATION)
    gmdb.read(env, GENERATION)
    env.dbremove(GMDB_FILE, GMDB_DATABASE)  # would wait for ever, or fail, with one open
    assert gmdb.read(env, GENERATION) is None


def test_a_client_cannot_write_it(tmp_path: Path) -> None:
    with environment(tmp_path / "env") as env:
        env.rep_start(db.DB_REP_CLIENT)
        with pytest.raises((db.DBError, MembershipError)):
            gmdb.write(env, steps_of_two(), GENERATION)
