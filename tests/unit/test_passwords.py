"""Which passwords are taken, and that a check costs the same whoever asks for whomever."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import argon2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import storage.passwords
from storage.passwords import (
    CHECKS_AT_ONCE,
    HashUnusable,
    PasswordRefused,
    check_policy,
    hash_password,
    needs_rehash,
    verify_password,
)

GOOD = "four random words"


@pytest.fixture(scope="module")
def stored() -> str:
    return hash_password(GOOD)


class Counting:
    """The real hasher, with its work counted."""

    def __init__(self) -> None:
        self.real = storage.passwords._hasher
        self.checked: list[str] = []
        self.inside = self.most_inside = 0
        self.lock = threading.Lock()

    @contextmanager
    def count(self) -> Iterator[None]:
        with self.lock:
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
        try:
            yield
        finally:
            with self.lock:
                self.inside -= 1

    def verify(self, stored: str, password: bytes) -> bool:
        with self.count():
            self.checked.append(stored)
            return self.real.verify(stored, password)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    hasher = Counting()
    monkeypatch.setattr(storage.passwords, "_hasher", hasher)
    return hasher


@pytest.mark.parametrize(
    ("password", "user", "why"),
    [
        ("", "", "0 characters, 8 is the least"),
        ("1234567", "", "7 characters, 8 is the least"),
        ("x" * 1025, "", "1025 characters, 1024 bytes is the most"),
        ("€" * 400, "", "more than 1024 bytes"),
        ("with\nlinefeed", "", "control characters"),
        ("with\0nul byte", "", "control characters"),
        ("broken \udc80 text", "", "not UTF-8"),
        ("PassWord", "", "first that are tried"),
        ("TapeMaster", "", "first that are tried"),
        ("zzzzzzzzzz", "", "first that are tried"),
        ("FRED.SMITH", "fred.smith", "the user's name"),
    ],
)
def test_policy_refuses_and_says_why(password: str, user: str, why: str) -> None:
    with pytest.raises(PasswordRefused, match=why) as refused:
        hash_password(password, user)
    assert refused.value.hint
    assert password not in str(refused.value) or password == ""


@pytest.mark.parametrize("password", ["12345679", "pass phrase", "x" * 1023 + "y", "péché mortel"])
def test_policy_takes(password: str) -> None:
    check_policy(password, "fred")


def test_hash_is_argon2id_at_the_documented_cost_and_salted(stored: str) -> None:
    cost = argon2.extract_parameters(stored)
    assert (cost.type, cost.memory_cost, cost.time_cost, cost.parallelism) == (
        argon2.Type.ID,
        19 * 1024,
        2,
        1,
    )
    assert hash_password(GOOD) != stored


def test_verify(stored: str) -> None:
    assert verify_password(stored, GOOD)
    assert not verify_password(stored, GOOD + " ")
    assert not verify_password(stored, GOOD.upper())


def test_an_accent_typed_either_way_is_the_same_password() -> None:
    assert verify_password(hash_password("p\u00e9ch\u00e9 mortel"), "pe\u0301che\u0301 mortel")


@pytest.mark.parametrize("password", ["", GOOD, "x" * 5000, "€" * 400, "\udc80" * 8, "\0" * 8])
@pytest.mark.parametrize("known", [True, False])
def test_every_wrong_answer_costs_one_hash_at_the_full_price(
    counting: Counting, stored: str, password: str, known: bool
) -> None:
    right = known and password == GOOD
    assert verify_password(stored if known else None, password) is right
    (checked,) = counting.checked
    assert argon2.extract_parameters(checked) == argon2.extract_parameters(stored)


@pytest.mark.parametrize(
    ("damaged", "why"),
    [
        ("", "not in the form"),
        ("5f4dcc3b5aa765d61d8327deb882cf99", "not in the form"),
        ("$argon2i$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA", "not argon2id"),
        ("$argon2id$v=19$m=4194304,t=2,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA", "4194304 KiB"),
        ("$argon2id$v=19$m=19456,t=999,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA", "999 passes"),
    ],
)
def test_a_damaged_hash_is_told_apart_and_costs_no_less_and_no_more(
    counting: Counting, damaged: str, why: str
) -> None:
    with pytest.raises(HashUnusable, match=why):
        verify_password(damaged, GOOD)
    (checked,) = counting.checked
    assert argon2.extract_parameters(checked).memory_cost == 19 * 1024


def test_only_so_many_checks_run_at_once(counting: Counting, stored: str) -> None:
    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(lambda _: verify_password(stored, GOOD), range(6)))
    assert len(counting.checked) == 6
    assert counting.most_inside <= CHECKS_AT_ONCE


def test_needs_rehash(stored: str) -> None:
    assert not needs_rehash(stored)
    assert needs_rehash(stored.replace("t=2", "t=1"))
    assert needs_rehash("damaged")


@given(password=st.text(min_size=8, max_size=40), user=st.text(max_size=16))
@settings(max_examples=200)
def test_the_policy_answers_for_any_text(password: str, user: str) -> None:
    try:
        check_policy(password, user)
    except PasswordRefused:
        return
    assert len(password.encode()) <= 1024
    assert not any(ord(char) < 32 for char in password)
