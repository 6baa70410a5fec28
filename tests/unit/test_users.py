"""Users in a real btree: what is stored, what is refused, and the first one's way in."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import pytest
from berkeleydb import db

from storage.library import DatabaseMissing
from storage.passwords import PasswordRefused
from storage.users import (
    UserError,
    UserRecord,
    Users,
    discard_first_user,
    encode_record,
    is_user_name,
    new_record,
    read_first_user,
    write_first_user,
)

if TYPE_CHECKING:
    from pathlib import Path

CREATED = datetime(2026, 11, 23, 7, 1, 2, 999, UTC)
PASSWORD = "four random words"


class Site:
    """An environment with a users.db."""

    def __init__(self, home: Path) -> None:
        self.env = db.DBEnv()
        self.env.open(
            home,
            db.DB_CREATE
            | db.DB_PRIVATE
            | db.DB_INIT_MPOOL
            | db.DB_INIT_TXN
            | db.DB_INIT_LOCK
            | db.DB_INIT_LOG,
        )
        self.file = db.DB(self.env)
        self.file.open("users.db", dbtype=db.DB_BTREE, flags=db.DB_CREATE | db.DB_AUTO_COMMIT)
        self.users = Users(lambda: self.file)

    @contextmanager
    def txn(self) -> Iterator[db.DBTxn]:
        txn = self.env.txn_begin()
        try:
            yield txn
        except BaseException:
            txn.abort()  # raises, should a refusal leave a cursor open
            raise
        txn.commit()

    def names(self) -> list[str]:
        with self.txn() as txn:
            return [record.name for record in self.users.list(txn)]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    home = tmp_path / "env"
    home.mkdir()
    made = Site(home)
    yield made
    made.file.close()
    made.env.close()


@pytest.fixture(scope="module")
def fred() -> UserRecord:
    return new_record("fred", PASSWORD, created=CREATED)


@pytest.fixture(scope="module")
def tapemaster() -> UserRecord:
    return new_record("tapemaster", PASSWORD, "administrator", created=CREATED)


def renamed(record: UserRecord, name: str, **changes: object) -> UserRecord:
    return msgspec.structs.replace(record, name=name, **changes)


@pytest.mark.parametrize("name", ["a", "7", "fred", "Fred.Smith-2", "A" * 16, "0.-"])
def test_user_names(name: str) -> None:
    assert is_user_name(name)


@pytest.mark.parametrize(
    "name", ["", ".fred", "-fred", "A" * 17, "fred smith", "fred\n", "frédéric", "a_b", "a\0"]
)
def test_no_user_names(name: str) -> None:
    assert not is_user_name(name)
    with pytest.raises(UserError) as refused:
        new_record(name, PASSWORD)
    assert refused.value.code == "USER_NAME"


def test_a_new_user_needs_a_good_password() -> None:
    with pytest.raises(PasswordRefused, match="user's name"):
        new_record("fred.smith", "Fred.Smith")


def test_what_is_stored_is_json_another_program_can_read(site: Site, fred: UserRecord) -> None:
    with site.txn() as txn:
        site.users.add_record(txn, fred)
    stored = site.file.get(b"fred")
    assert stored is not None
    assert json.loads(stored) == {
        "name": "fred",
        "password_hash": fred.password_hash,
        "role": "user",
        "created": "2026-11-23T07:01:02Z",
        "group": "",
        "disabled": False,
        "revoked": False,
    }


def test_get_list_and_names_are_case_sensitive(site: Site, fred: UserRecord) -> None:
    with site.txn() as txn:
        for name in ("fred", "Fred", "10"):
            site.users.add_record(txn, renamed(fred, name))
        assert site.users.get(txn, "fred") == fred
        assert site.users.get(txn, "FRED") is None
        assert site.users.get(txn, "no such\nname") is None
        assert site.users.count(txn) == 3
    assert site.names() == ["10", "Fred", "fred"]


def test_a_user_is_added_once(site: Site, fred: UserRecord) -> None:
    with site.txn() as txn:
        site.users.add_record(txn, fred)
    with pytest.raises(UserError, match="fred exists") as refused, site.txn() as txn:
        site.users.add_record(txn, renamed(fred, "fred", role="administrator"))
    assert refused.value.code == "USER_EXISTS"
    with site.txn() as txn:
        assert site.users.get(txn, "fred") == fred


def test_a_new_password_replaces_the_old_and_ends_a_revocation(
    site: Site, fred: UserRecord
) -> None:
    fresh = Users.hash_password("another four words", "fred")
    with site.txn() as txn:
        site.users.add_record(txn, renamed(fred, "fred", revoked=True, disabled=True))
        site.users.set_password(txn, "fred", fresh)
    with site.txn() as txn:
        record = site.users.get(txn, "fred")
    assert record is not None
    assert Users.verify(record, "another four words")
    assert not Users.verify(record, PASSWORD)
    assert (record.revoked, record.disabled, record.may_log_on) == (False, True, False)
    assert not Users.needs_rehash(record)


def test_verify_without_a_user() -> None:
    assert Users.verify(None, PASSWORD) is False


@pytest.mark.parametrize("method", ["set_password", "remove"])
def test_changing_nobody(site: Site, method: str) -> None:
    change: Callable[[db.DBTxn], object] = {
        "set_password": lambda txn: site.users.set_password(txn, "fred", "x"),
        "remove": lambda txn: site.users.remove(txn, "fred"),
    }[method]
    with pytest.raises(UserError, match="does not exist") as refused, site.txn() as txn:
        change(txn)
    assert refused.value.code == "USER_UNKNOWN"


def test_remove(site: Site, fred: UserRecord, tapemaster: UserRecord) -> None:
    with site.txn() as txn:
        site.users.add_record(txn, fred)
        site.users.add_record(txn, tapemaster)
        site.users.remove(txn, "fred")
    assert site.names() == ["tapemaster"]


@pytest.mark.parametrize("other", [{}, {"disabled": True}, {"revoked": True}, {"role": "user"}])
def test_an_administrator_stays_until_another_can_log_on(
    site: Site, tapemaster: UserRecord, other: dict[str, object]
) -> None:
    with site.txn() as txn:
        site.users.add_record(txn, tapemaster)
        site.users.add_record(txn, renamed(tapemaster, "other", **other))
    if other:
        with pytest.raises(UserError, match="last administrator") as refused, site.txn() as txn:
            site.users.remove(txn, "tapemaster")
        assert refused.value.code == "USER_LAST"
        assert site.names() == ["other", "tapemaster"]
    else:
        with site.txn() as txn:
            site.users.remove(txn, "tapemaster")
        assert site.names() == ["other"]


@pytest.mark.parametrize("missing", ["none", "raises"])
def test_a_site_without_the_file_has_no_users_until_the_master_makes_it(
    site: Site, fred: UserRecord, missing: str
) -> None:
    def handle() -> db.DB | None:
        if missing == "none":
            return None
        raise DatabaseMissing("users.db does not exist on this site yet")

    with site.txn() as txn:
        replicants = Users(handle)
        assert replicants.get(txn, "fred") is None
        assert replicants.list(txn) == ()
        with pytest.raises(DatabaseMissing):
            replicants.add_record(txn, fred)
        Users(handle, create=lambda: site.file).add_record(txn, fred)
    assert site.names() == ["fred"]


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b'{"name": 7}', "another's"])
def test_a_record_that_cannot_be_read_is_named(
    site: Site, fred: UserRecord, data: bytes | str
) -> None:
    with site.txn() as txn:
        raw = data if isinstance(data, bytes) else encode_record(renamed(fred, "anne"))
        site.file.put(b"fred", raw, txn)
    for read in (lambda txn: site.users.get(txn, "fred"), site.users.list):
        with pytest.raises(UserError, match="fred cannot be read") as failed, site.txn() as txn:
            read(txn)
        assert failed.value.code == "USER_RECORD"


def test_no_hash_in_what_is_logged(fred: UserRecord) -> None:
    assert "argon2" not in repr(fred)
    assert "fred" in repr(fred)


# -- the first user


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "first-user.json"


def test_the_first_user_comes_in_once(site: Site, path: Path, tapemaster: UserRecord) -> None:
    write_first_user(path, tapemaster)
    assert path.stat().st_mode & 0o777 == 0o600
    for _ in range(2):  # the committer may run the work again
        txn = site.env.txn_begin()
        assert site.users.take_first_user(path, txn) == tapemaster
        txn.abort()
    with site.txn() as txn:
        assert site.users.take_first_user(path, txn) == tapemaster
    discard_first_user(path)
    discard_first_user(path)
    with site.txn() as txn:
        assert site.users.take_first_user(path, txn) is None
    assert site.names() == ["tapemaster"]
    assert list(path.parent.glob("first-user*")) == []


def test_a_user_who_is_there_keeps_the_password(
    site: Site, path: Path, tapemaster: UserRecord
) -> None:
    with site.txn() as txn:
        site.users.add_record(txn, renamed(tapemaster, "tapemaster", password_hash="kept"))
    write_first_user(path, tapemaster)
    with site.txn() as txn:
        assert site.users.take_first_user(path, txn) is None
        kept = site.users.get(txn, "tapemaster")
    assert kept is not None
    assert kept.password_hash == "kept"


@pytest.mark.parametrize("spoil", ["text", "name", "mode", "link", "directory"])
def test_a_first_user_that_cannot_be_trusted_is_refused(
    site: Site, path: Path, tapemaster: UserRecord, spoil: str
) -> None:
    write_first_user(path, tapemaster)
    match spoil:
        case "text":
            path.write_text("{}")
        case "name":
            path.write_bytes(encode_record(renamed(tapemaster, "../x")))
        case "mode":
            path.chmod(0o622)
        case "link":
            path.symlink_to(path.rename(path.with_suffix(".elsewhere")))
        case _:
            path.unlink()
            path.mkdir()
    with pytest.raises(UserError) as refused, site.txn() as txn:
        site.users.take_first_user(path, txn)
    assert refused.value.code == "FIRST_USER"
    assert refused.value.hint
    assert site.names() == []


def test_a_first_user_is_written_over_a_draft_of_a_crash(
    path: Path, tapemaster: UserRecord
) -> None:
    path.with_name("first-user.json.new").write_text("half")
    write_first_user(path, tapemaster)
    assert read_first_user(path) == tapemaster
