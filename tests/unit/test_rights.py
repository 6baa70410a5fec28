"""Who may do what: the whole decision as a table, and where it is looked up."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.access import Access
from storage.catalog.names import CatalogError
from storage.database import Database
from storage.groups import GRANTS_MAX, GroupRecord, Groups, checked_group
from storage.rights import Grant, Right, RightName, Subject, right_for
from storage.users import UserError, UserRecord, Users
from tests.support.environments import Open, Opened, environments, fast

__all__ = ["environments", "fast"]

US: Grant = Grant("US*", "WRITE")
ACME: Grant = Grant("ACME", "ALTER")
ALL: Grant = Grant("*", "READ")
SYSTEM: Grant = Grant("*", "SYSTEM")


def of(*grants: Grant, **how: Any) -> Subject:
    return Subject(grouped=True, grants=grants, **how)


TABLE: list[tuple[Subject | None, str | None, Right]] = [
    (None, None, Right.NONE),
    (None, "US04", Right.NONE),
    (Subject(administrator=True), None, Right.SYSTEM),
    (Subject(administrator=True), "US04", Right.SYSTEM),
    (Subject(administrator=True, may_log_on=False), None, Right.NONE),
    (Subject(administrator=True, may_log_on=False), "US04", Right.NONE),
    # in no group: plain keys alone
    (Subject(), None, Right.WRITE),
    (Subject(), "US04", Right.NONE),
    (Subject(may_log_on=False), None, Right.NONE),
    # in a group that grants nothing
    (of(), None, Right.NONE),
    (of(), "US04", Right.NONE),
    # by customer
    (of(US), "US04", Right.WRITE),
    (of(US), "US1", Right.WRITE),
    (of(US), "ACME", Right.NONE),
    (of(US), "XUS", Right.NONE),
    (of(US), None, Right.NONE),
    (of(US, may_log_on=False), "US04", Right.NONE),
    (of(Grant("[!U]*", "READ")), "US04", Right.NONE),
    (of(Grant("[!U]*", "READ")), "ACME", Right.READ),
    # the highest counts, in any order
    (of(US, ACME, ALL), "US04", Right.WRITE),
    (of(ALL, ACME, US), "ACME", Right.ALTER),
    (of(ALL, US, ACME), "1009", Right.READ),
    (of(Grant("US*", "READ"), Grant("US04", "ADMIN")), "US04", Right.ADMIN),
    (of(Grant("US04", "ADMIN"), Grant("US*", "READ")), "US04", Right.ADMIN),
    # what belongs to no customer asks for `*` itself
    (of(ALL), None, Right.READ),
    (of(Grant("????", "SYSTEM")), None, Right.NONE),
    (of(Grant("**", "SYSTEM")), None, Right.NONE),
    (of(SYSTEM), None, Right.SYSTEM),
    (of(SYSTEM), "US04", Right.SYSTEM),
]


@pytest.mark.parametrize(("subject", "customer", "right"), TABLE)
def test_the_decision(subject: Subject | None, customer: str | None, right: Right) -> None:
    assert right_for(subject, customer) is right


NAMES: list[RightName] = ["READ", "WRITE", "ALTER", "ADMIN", "SYSTEM"]
grants = st.builds(
    Grant,
    st.sampled_from(["*", "US*", "US04", "????", "[!A]*", "ACME"]),
    st.sampled_from(NAMES),
)


@given(st.lists(grants, max_size=4), grants, st.sampled_from([None, "US04", "ACME", "1009"]))
def test_a_grant_more_takes_nothing_away(
    some: list[Grant], more: Grant, customer: str | None
) -> None:
    assert right_for(of(*some, more), customer) >= right_for(of(*some), customer)


def test_each_right_includes_those_before() -> None:
    assert [right.name for right in sorted(Right)] == ["NONE", *NAMES]


class Directory:
    """Users and groups in a real environment."""

    def __init__(self, opened: Opened) -> None:
        self.opened = opened
        self.files = [Database(opened.environment, name) for name in ("users.db", "groups.db")]
        users, groups = self.files
        self.users = Users(users.handle, users.create)
        self.groups = Groups(groups.handle, groups.create)
        self.access = Access(self.users, self.groups)

    def user(self, name: str, group: str = "", **how: Any) -> None:
        made = datetime(2025, 12, 1, tzinfo=UTC)
        given = {"role": "user", "password_hash": "x", **how}
        record = UserRecord(name=name, created=made, group=group, **given)
        with self.opened.txn() as txn:
            self.users.add_record(txn, record)

    def group(self, name: str, *granted: Grant, new: bool = True) -> None:
        with self.opened.txn() as txn:
            self.groups.put(txn, GroupRecord(name=name, grants=granted), new=new)


@pytest.fixture
def directory(environments: Open) -> Iterator[Directory]:
    made = Directory(environments())
    yield made
    for file in made.files:
        file.close()


def test_what_a_user_may_do_is_looked_up_each_time(directory: Directory) -> None:
    def refused(user: str, right: Right, customer: str | None) -> str:
        with directory.opened.txn() as txn, pytest.raises(CatalogError) as raised:
            directory.access.must(txn, user, right, customer)
        assert raised.value.hint
        return f"{raised.value.code} {raised.value}"

    def allowed(user: str, right: Right, customer: str | None) -> bool:
        with directory.opened.txn() as txn:
            directory.access.must(txn, user, right, customer)
            return directory.access.sees(txn, user, right)(customer or "")

    nobody = "NOPERM user fred lacks the right READ for customer US04"
    assert refused("fred", Right.READ, "US04") == nobody
    directory.group("ops", US)
    directory.user("fred", "ops")
    directory.user("tapemaster", role="administrator")
    assert allowed("fred", Right.WRITE, "US04")
    assert refused("fred", Right.ALTER, "US04").endswith("ALTER for customer US04")
    assert refused("fred", Right.READ, None).endswith("READ for all customers (filter *)")
    assert allowed("tapemaster", Right.SYSTEM, "US04")
    directory.group("ops", ALL, new=False)
    assert refused("fred", Right.WRITE, "US04").endswith("WRITE for customer US04")
    assert allowed("fred", Right.READ, "US04")
    directory.user("eve", "gone")
    assert refused("eve", Right.READ, "US04").startswith("NOPERM user eve lacks")


def test_groups_are_made_changed_and_deleted(directory: Directory) -> None:
    def refused(work: Any, code: str) -> None:
        with directory.opened.txn() as txn, pytest.raises(UserError) as raised:
            work(txn)
        assert (raised.value.code, bool(raised.value.hint)) == (code, True)

    groups, users = directory.groups, directory.users
    with directory.opened.txn() as txn:
        assert groups.list(txn) == ()
        assert groups.get(txn, "ops") is None
    directory.group("ops", US, ACME)
    directory.group("all", ALL)
    with directory.opened.txn() as txn:
        assert [one.name for one in groups.list(txn)] == ["all", "ops"]
        assert groups.get(txn, "ops") == GroupRecord(name="ops", grants=(US, ACME))
    record = GroupRecord(name="ops")
    refused(lambda txn: groups.put(txn, record, new=True), "GROUP_EXISTS")
    refused(lambda txn: groups.put(txn, GroupRecord(name="x"), new=False), "GROUP_UNKNOWN")
    refused(lambda txn: groups.remove(txn, "x", users), "GROUP_UNKNOWN")
    directory.user("fred", "ops")
    refused(lambda txn: groups.remove(txn, "ops", users), "GROUP_USED")
    with directory.opened.txn() as txn:
        users.remove(txn, "fred")
        groups.remove(txn, "ops", users)
        assert groups.get(txn, "ops") is None


@pytest.mark.parametrize(
    ("record", "code"),
    [
        (GroupRecord(name=""), "GROUP_NAME"),
        (GroupRecord(name="a" * 11), "GROUP_NAME"),
        (GroupRecord(name="a-b"), "GROUP_NAME"),
        (GroupRecord(name="ops", role="x" * 41), "INVALID"),
        (GroupRecord(name="ops", grants=(ALL,) * (GRANTS_MAX + 1)), "GROUP_GRANTS"),
        (GroupRecord(name="ops", grants=(Grant("[", "READ"),)), "INVALID"),
    ],
)
def test_a_group_that_cannot_be(record: GroupRecord, code: str) -> None:
    with pytest.raises((UserError, CatalogError)) as raised:
        checked_group(record)
    assert raised.value.code == code
    longest = GroupRecord(name="Ops1", role="x" * 40, grants=(ALL,) * GRANTS_MAX)
    assert checked_group(longest) is longest


def test_a_record_that_is_none_is_named(directory: Directory) -> None:
    with directory.opened.txn() as txn:
        directory.files[1].create().put(b"ops", b"{", txn)
        with pytest.raises(UserError, match=r"groups\.db record ops cannot be read") as raised:
            directory.groups.get(txn, "ops")
    assert raised.value.code == "GROUP_RECORD"
