"""Which log files may go: by needs and budget, and what each site is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from berkeleydb import db
from hypothesis import given
from hypothesis import strategies as st

from storage.environment import Environment
from storage.log_retention import (
    WARN_SHARE,
    LogFile,
    Logs,
    Need,
    Verdict,
    decide,
    look,
    remove,
)
from tests.support.environments import Open, environments, fast

__all__ = ["environments", "fast"]

MB = 10**6


def logs(first: int, last: int, *, recovery_from: int | None = None, size: int = MB) -> Logs:
    files = [LogFile(number, size) for number in range(first, last + 1)]
    return Logs(files, last if recovery_from is None else recovery_from)


def need(site: str, file: int | None) -> Need:
    return Need(site, file, f"{site} has the log up to {file}")


def verdict(found: Logs, *needs: Need, tidy: bool = True, budget: int = 0) -> Verdict:
    return decide(found, needs, tidy=tidy, budget_bytes=budget)


def test_nothing_to_decide() -> None:
    assert decide(Logs((), 0), [], tidy=True, budget_bytes=1) == Verdict()


def test_what_nobody_needs_goes() -> None:
    found = verdict(logs(3, 9, recovery_from=8), need("a", 7), need("b", 5))
    assert found.remove == {3, 4}
    assert [file.number for file in found.may_go] == [3, 4]
    assert (found.short, found.lost, found.over_bytes) == ([], [], 0)


def test_each_file_that_stays_has_its_reasons() -> None:
    found = verdict(logs(1, 5, recovery_from=4), need("a", 3), need("b", 2))
    a, b = "a has the log up to 3", "b has the log up to 2"
    assert [why for _, why in found.kept] == [
        (),
        (b,),
        (a, b),
        ("recovery here needs it", a, b),
        ("the log is written to it", a, b),
    ]


def test_without_tidying_nothing_goes_by_itself() -> None:
    found = verdict(logs(1, 5), need("a", 4), tidy=False)
    assert found.remove == frozenset()
    assert [file.number for file in found.may_go] == [1, 2, 3]


def test_alone_only_recovery_counts() -> None:
    assert verdict(logs(1, 5, recovery_from=4)).remove == {1, 2, 3}


def test_a_site_of_which_nothing_is_known_may_need_all() -> None:
    assert verdict(logs(1, 5), need("a", 0)).remove == frozenset()


def test_a_site_that_takes_a_copy_anyway_needs_nothing() -> None:
    assert verdict(logs(1, 5), need("a", None)).remove == {1, 2, 3, 4}


def test_a_site_whose_log_is_gone_is_named_and_keeps_nothing() -> None:
    found = verdict(logs(5, 9), need("late", 4), need("a", 8))
    assert found.remove == {5, 6, 7}
    assert [lost.site for lost in found.lost] == ["late"]


def test_over_the_budget_the_oldest_go_whoever_needs_them() -> None:
    found = verdict(logs(1, 9), need("late", 2), need("a", 9), tidy=False, budget=6 * MB)
    assert found.remove == {1, 2, 3}
    assert [lost.site for lost in found.lost] == ["late"]


def test_files_that_nobody_needs_go_first_and_may_be_enough() -> None:
    found = verdict(logs(1, 9), need("late", 4), tidy=False, budget=7 * MB)
    assert found.remove == {1, 2}
    assert found.lost == []


def test_recovery_goes_before_the_budget() -> None:
    found = verdict(logs(1, 9, recovery_from=4), budget=2 * MB)
    assert found.remove == {1, 2, 3}
    assert found.over_bytes == 4 * MB


def test_a_site_is_named_before_its_log_goes() -> None:
    def short(newest: int) -> list[tuple[str, int]]:
        found = verdict(logs(1, newest), need("late", 1), need("a", newest), budget=10 * MB)
        assert found.lost == []
        return [(item.need.site, item.room_bytes) for item in found.short]

    assert short(8) == []
    assert short(9) == [("late", MB)]
    assert short(10) == [("late", 0)]
    assert WARN_SHARE > 1 - 9 / 10


def test_what_recovery_needs_as_well_is_not_short() -> None:
    assert verdict(logs(1, 9, recovery_from=3), need("a", 3), budget=5 * MB).short == []


@given(
    st.lists(st.integers(0, 100), min_size=1, max_size=12),
    st.integers(0, 12),
    st.lists(st.one_of(st.none(), st.integers(0, 14)), max_size=4),
    st.booleans(),
    st.integers(0, 600),
)
def test_the_rules_hold_for_every_log(
    sizes: list[int], recovery: int, firsts: list[int | None], tidy: bool, budget: int
) -> None:
    files = [LogFile(number, size) for number, size in enumerate(sizes, start=2)]
    found = Logs(files, min(recovery + 2, files[-1].number))
    needs = [Need(f"site{number}", first, "it does") for number, first in enumerate(firsts)]
    decided = decide(found, needs, tidy=tidy, budget_bytes=budget)
    numbers = [file.number for file in files]
    left = [number for number in numbers if number not in decided.remove]
    # What stays has no gap, and recovery has all it needs.
    assert left == numbers[len(numbers) - len(left) :]
    assert found.recovery_from in left
    assert all(number < found.recovery_from for number in decided.remove)
    in_use = [n.file or 2 for n in needs if n.file is not None and (n.file or 2) >= 2]
    wanted = [number for number in numbers if any(first <= number for first in in_use)]
    needless = {number for number in numbers if number < found.recovery_from} - set(wanted)
    assert {file.number for file in decided.may_go} == needless
    if not budget:
        assert decided.remove == (needless if tidy else set())
    else:
        kept_bytes = sum(file.size_bytes for file in files if file.number in left)
        assert kept_bytes - decided.over_bytes <= budget
        assert not decided.over_bytes or left[0] == found.recovery_from
        removed_needed = decided.remove & set(wanted)
        # Nothing that is needed goes unless it must.
        if removed_needed:
            assert kept_bytes + sizes[left[0] - 3] > budget
    lost = {item.site for item in decided.lost}
    for item in needs:
        if item.file is not None:
            assert (item.site in lost) == ((item.file or 2) < left[0])


# -- real log files --------------------------------------------------------------------------------


def test_a_site_without_any_record_has_no_files_to_look_at(tmp_path: Path) -> None:
    site = Environment(tmp_path / "env", lambda env: env.rep_set_transport(1, lambda *_: None))
    site.open()
    try:
        site.env.rep_start(db.DB_REP_CLIENT)
        assert not decide(look(site), [], tidy=True, budget_bytes=1).remove
        assert remove(site, [2]) == []
    finally:
        site.close(30.0)


def test_a_real_log_is_looked_at_and_its_oldest_files_removed(environments: Open) -> None:
    opened = environments()
    for _ in range(30):
        opened.put(b"key", value=b"x" * 100_000)
    opened.env.txn_checkpoint(0, 0)
    found = look(opened.environment)
    numbers = [file.number for file in found.files]
    assert numbers == list(range(1, numbers[-1] + 1))
    assert found.recovery_from == numbers[-1]
    assert remove(opened.environment, {2, 1, 99}) == [1, 2]
    assert [file.number for file in look(opened.environment).files] == numbers[2:]


def test_a_file_that_cannot_be_removed_leaves_no_gap(environments: Open) -> None:
    opened = environments()
    for _ in range(30):
        opened.put(b"key", value=b"x" * 100_000)
    opened.env.txn_checkpoint(0, 0)
    first = opened.environment.home / "log.0000000001"
    first.unlink()
    first.mkdir()
    with pytest.raises(IsADirectoryError):
        remove(opened.environment, {1, 2})
    assert (opened.environment.home / "log.0000000002").exists()
    first.rmdir()
