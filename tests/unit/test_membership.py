"""The site list: its two-step changes, its database records, and the states that can't be made."""

from __future__ import annotations

from itertools import product

import pytest

from replication import membership
from replication.bodies import MembershipList, SiteAddress, SiteRecord, decode_membership_list
from replication.errors import MembershipError, RemoteProtocolError
from replication.membership import META_KEY, Member, Membership, keeps_outgoing
from replication.messages import SiteStatus

ADDING, DELETING, PRESENT = SiteStatus.ADDING, SiteStatus.DELETING, SiteStatus.PRESENT
STATUSES = (None, ADDING, DELETING, PRESENT)
A = SiteAddress("127.0.0.1", 17101)
B = SiteAddress("127.0.0.1", 17102)
STEPS: dict[str, dict[SiteStatus | None, SiteStatus | None]] = {
    "adding": {None: ADDING, ADDING: ADDING},
    "present": {ADDING: PRESENT, DELETING: PRESENT},
    "deleting": {PRESENT: DELETING, DELETING: DELETING},
    "removed": {DELETING: None, ADDING: None},
}
# Dump of a database that a native group of two had made, key -> data.
NATIVE_GMDB = {
    "000000000000": "0000000100000003",
    "0000000a3132372e302e302e310042cd": "00000004",
    "0000000a3132372e302e302e310042ce": "00000004",
}


def group(status: SiteStatus | None) -> Membership:
    """Return a list in which A is present and B has a status, or is absent."""
    members = (Member(*A), *([Member(*B, status)] if status else []))
    return Membership(7, 3, members)


class TestChanges:
    @pytest.mark.parametrize(
        ("step", "status"), list(product(STEPS, (None, ADDING, DELETING, PRESENT)))
    )
    def test_every_step_from_every_status(self, step: str, status: SiteStatus | None) -> None:
        before = group(status)
        if status not in STEPS[step]:
            with pytest.raises(MembershipError) as caught:
                getattr(before, step)(B)
            assert caught.value.code == "wrong_step"
            assert "version 7" in str(caught.value)
            return
        after: Membership = getattr(before, step)(B)
        found = after.find(B)
        assert (found.status if found else None) == STEPS[step][status]
        assert (after.version, after.generation) == (8, 3)
        assert before == group(status), "a list never changes"

    def test_the_life_of_a_member(self) -> None:
        sites = Membership.create(A, generation=5)
        assert (sites.version, sites.nsites, sites.is_present(A)) == (1, 1, True)
        sites = sites.adding(B)
        assert (sites.nsites, sites.is_present(B)) == (2, False)
        assert sites.unfinished == Member(*B, ADDING)
        sites = sites.present(B)
        assert sites.is_present(B)
        assert sites.unfinished is None
        assert sites.others(A) == (Member(*B),)
        sites = sites.deleting(B)
        assert not sites.is_present(B)
        sites = sites.removed(B)
        assert sites.find(B) is None
        assert sites.version == 5

    def test_the_last_member_stays(self) -> None:
        with pytest.raises(MembershipError) as caught:
            Membership.create(A, 1).deleting(A).removed(A)
        assert caught.value.code == "last_member"

    def test_one_spelling_is_one_site(self) -> None:
        sites = Membership.create(SiteAddress("localhost", 17101), 1)
        assert sites.find(A) is None

    @pytest.mark.parametrize(
        ("version", "members", "code"),
        [
            (1, (), "empty_list"),
            (0, (Member(*A),), "bad_version"),
            (1, (Member(*A), Member(*A, ADDING)), "duplicate_site"),
        ],
    )
    def test_lists_that_cannot_be_made(
        self, version: int, members: tuple[Member, ...], code: str
    ) -> None:
        with pytest.raises(MembershipError) as caught:
            Membership(version, 1, members)
        assert caught.value.code == code

    def test_order_of_members_does_not_matter(self) -> None:
        assert Membership(1, 1, (Member(*B), Member(*A))) == Membership(
            1, 1, (Member(*A), Member(*B))
        )


class TestAge:
    def test_generation_goes_before_version(self) -> None:
        ours = group(None)
        assert not ours.is_older_than(3, 7)
        assert ours.is_older_than(3, 8)
        assert ours.is_older_than(4, 1)
        assert not ours.is_older_than(2, 99)

    def test_newer(self) -> None:
        old, new = group(None), group(None).adding(B)
        assert old.newer(new) is new
        assert new.newer(old) is new
        assert old.newer(group(PRESENT)) is old, "of equal age nothing is adopted"
        assert new.newer(old.in_generation(4)).generation == 4


class TestTellingOthers:
    def test_present_members_are_told(self) -> None:
        sites = group(PRESENT)
        body = sites.share_for(B)
        assert Membership.from_list(decode_membership_list(body)) == sites

    @pytest.mark.parametrize("status", [None, ADDING, DELETING])
    def test_nobody_else_is(self, status: SiteStatus | None) -> None:
        """A native site's environment panics on a list that does not have it as present."""
        with pytest.raises(MembershipError) as caught:
            group(status).share_for(B)
        assert caught.value.code == "not_a_member"

    @pytest.mark.parametrize(
        "sites",
        [
            MembershipList(1, 1, ()),
            MembershipList(0, 1, (SiteRecord(*A, 4),)),
            MembershipList(1, 1, (SiteRecord(*A, 4), SiteRecord(*A, 4))),
            MembershipList(1, 1, (SiteRecord(*A, 3),)),
            MembershipList(1, 1, (SiteRecord(*A, 0),)),
        ],
        ids=["empty", "version 0", "twice", "status 3", "status 0"],
    )
    def test_a_list_from_outside_is_judged(self, sites: MembershipList) -> None:
        with pytest.raises(RemoteProtocolError) as caught:
            Membership.from_list(sites)
        assert caught.value.code == "bad_membership_list"


class TestDatabase:
    def test_a_native_database_is_read_and_written_the_same(self) -> None:
        items = [(bytes.fromhex(key), bytes.fromhex(data)) for key, data in NATIVE_GMDB.items()]
        sites = membership.decode_gmdb(reversed(items), generation=2)
        assert sites == Membership(3, 2, (Member("127.0.0.1", 17101), Member("127.0.0.1", 17102)))
        assert membership.encode_gmdb(sites) == items

    def test_the_meta_record_always_comes_first(self) -> None:
        sites = Membership(9, 1, tuple(Member(host, 1) for host in ("a", "~" * 255, "!")))
        records = membership.encode_gmdb(sites)
        assert records[0] == (META_KEY, bytes.fromhex("0000000100000009"))
        assert records == sorted(records)
        assert len(records) == 4

    @pytest.mark.parametrize("step", ["adding", "removed"])
    def test_a_transaction_writes_the_change_and_the_version(self, step: str) -> None:
        before = group(None) if step == "adding" else group(DELETING)
        after: Membership = getattr(before, step)(B)
        data = None if step == "removed" else membership.gmdb_value(ADDING)
        assert membership.gmdb_changes(before, after) == [
            (META_KEY, membership.gmdb_meta(8)),
            (membership.gmdb_key(B), data),
        ]

    def test_applying_the_changes_gives_the_new_list(self) -> None:
        sites = Membership.create(A, 1)
        stored: dict[bytes, bytes] = dict(membership.encode_gmdb(sites))
        for step in ("adding", "present", "deleting", "removed"):
            after: Membership = getattr(sites, step)(B)
            for key, data in membership.gmdb_changes(sites, after):
                if data is None:
                    del stored[key]
                else:
                    stored[key] = data
            assert membership.decode_gmdb(stored.items(), 1) == after
            sites = after

    def test_steps_cannot_be_put_together(self) -> None:
        before = group(None)
        for after in (before, before.adding(B).present(B)):
            with pytest.raises(MembershipError) as caught:
                membership.gmdb_changes(before, after)
            assert caught.value.code == "skipped_version"

    @pytest.mark.parametrize(
        ("items", "code"),
        [
            ([], "no_meta_record"),
            ([("0000000a3132372e302e302e310042cd", "00000004")], "no_meta_record"),
            ([("000000000000", "0000000100000003")], "empty_list"),
            ([("000000000000", "0000000200000003")], "unknown_format"),
            ([("000000000000", "00000001")], "bad_record"),
            ([("00000000", "00000004")], "bad_record"),
            ([("0000000a3132372e302e302e310042cd", "0004")], "bad_record"),
            ([("0000000a3132372e302e302e310042cd", "00000003")], "unknown_status"),
            ([("0000000a3132372e302e302e310042cdff", "00000004")], "bad_record"),
        ],
    )
    def test_a_broken_database_is_named(self, items: list[tuple[str, str]], code: str) -> None:
        with pytest.raises(MembershipError) as caught:
            membership.decode_gmdb(
                ((bytes.fromhex(key), bytes.fromhex(data)) for key, data in items), 1
            )
        assert caught.value.code == code


class TestCollision:
    @pytest.mark.parametrize(
        ("lower", "higher"),
        [
            (("127.0.0.1", 17101), ("127.0.0.1", 17102)),
            (("127.0.0.1", 9), ("127.0.0.1", 10)),
            (("a.example", 9), ("b.example", 1)),
            (("10.0.0.10", 1), ("10.0.0.9", 1)),
        ],
    )
    def test_what_the_lower_address_dialled_survives(
        self, lower: tuple[str, int], higher: tuple[str, int]
    ) -> None:
        low, high = SiteAddress(*lower), SiteAddress(*higher)
        assert keeps_outgoing(low, high)
        assert not keeps_outgoing(high, low)


def test_addresses_read_well() -> None:
    assert str(A) == "127.0.0.1:17101"
    assert str(SiteAddress("::1", 5010)) == "[::1]:5010"
