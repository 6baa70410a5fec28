"""Logging on: one sentence for every refusal, guessing slowed down, thousands served by one check.

Real argon2, a real journal; only time is ours.
"""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import pytest

from replication.journal import Journal
from replication.journal_line import parse_line
from storage.passwords import hash_password, verify_password
from storage.users import UserRecord
from ttserver.auth import (
    CHECKS_WAITING_MAX,
    REFUSAL,
    REMEMBERED_MAX,
    REMEMBERED_S,
    Authenticator,
    Login,
    LoginRefused,
    address_of,
)
from ttserver.errors import TtserverError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

PASSWORD = "four random words"
PEER = "192.0.2.7:40001"


class Bench:
    """An authenticator with its users, its clock, and its work counted."""

    def __init__(self, path: Path, password_hash: str) -> None:
        self.users = {
            name: UserRecord(
                name=name,
                password_hash=password_hash,
                role="user",
                created=datetime(2026, 11, 23, tzinfo=UTC),
                disabled=name == "disabled",
                revoked=name == "revoked",
            )
            for name in ("fred", "anne", "disabled", "revoked")
        }
        self.path = path
        self.now_s = 1000.0
        self.journal = Journal(
            path, 1 << 20, 1, "db1:5010", capture_stdout=False, clock=lambda: self.now_s
        )
        self.slept: list[float] = []
        self.checks: list[str | None] = []
        self.threads: set[str] = set()
        self.hold = threading.Event()
        self.hold.set()
        self.lookups = 0
        self.auth = Authenticator(
            self.lookup,
            self.journal,
            clock=lambda: self.now_s,
            sleep=self.sleep,
            verify=self.verify,
        )

    async def lookup(self, user: str) -> UserRecord | None:
        self.lookups += 1
        await asyncio.sleep(0)
        return self.users.get(user)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds
        await asyncio.sleep(0)

    def verify(self, stored: str | None, password: str) -> bool:
        self.threads.add(threading.current_thread().name)
        assert self.hold.wait(30)
        self.checks.append(stored)
        return verify_password(stored, password)

    async def refused(self, user: str, password: str, peer: str = PEER) -> LoginRefused:
        with pytest.raises(LoginRefused) as caught:
            await self.auth.login(user, password, peer)
        return caught.value

    def told(self) -> list[dict[str, str]]:
        """What the journal says, event and facts of each line."""
        lines = [parse_line(text) for text in self.path.read_text().splitlines()]
        return [{"event": line.event} | line.facts for line in lines if line is not None]

    def change(self, user: str, **changes: object) -> None:
        self.users[user] = msgspec.structs.replace(self.users[user], **changes)


@pytest.fixture(scope="module")
def password_hash() -> str:
    return hash_password(PASSWORD)


@pytest.fixture
async def bench(tmp_path: Path, password_hash: str) -> AsyncIterator[Bench]:
    made = Bench(tmp_path / "journal", password_hash)
    yield made
    made.hold.set()
    made.auth.close()
    made.journal.close()


async def test_the_right_password_logs_on_and_says_who(bench: Bench) -> None:
    assert await bench.auth.login("fred", PASSWORD, PEER) == Login("fred", "user")
    assert bench.told() == []
    assert all(name.startswith("password") for name in bench.threads)


@pytest.mark.parametrize(
    ("user", "password", "reason"),
    [
        ("nobody", PASSWORD, "unknown_user"),
        ("FRED", PASSWORD, "unknown_user"),
        ("no user id\nat all", PASSWORD, "unknown_user"),
        ("", "", "unknown_user"),
        ("fred", "wrong password", "wrong_password"),
        ("fred", "", "wrong_password"),
        ("fred", "x" * 100_000, "wrong_password"),
        ("fred", "\udc80", "wrong_password"),
        ("disabled", PASSWORD, "disabled"),
        ("disabled", "wrong password", "disabled"),
        ("revoked", PASSWORD, "revoked"),
    ],
)
async def test_all_refusals_are_one_to_the_client_and_told_apart_in_the_journal(
    bench: Bench, user: str, password: str, reason: str
) -> None:
    refused = await bench.refused(user, password)
    assert (str(refused), refused.code, refused.hint) == (REFUSAL, "WRONGPASS", None)
    assert isinstance(refused, TtserverError)
    assert len(bench.checks) == 1  # the same work for all
    assert bench.told() == [
        {"event": "logon_refused", "user": user[:40], "from": PEER, "reason": reason}
    ]


async def test_a_damaged_hash_refuses_its_user_and_tells_the_operator(bench: Bench) -> None:
    bench.change("fred", password_hash="damaged")
    refused = await bench.refused("fred", PASSWORD)
    assert str(refused) == REFUSAL
    assert bench.told()[0]["reason"] == "record_unusable"


async def test_what_the_lookup_raises_passes_through(bench: Bench) -> None:
    async def loading(user: str) -> UserRecord | None:
        raise TtserverError("site is loading", code="LOADING")

    auth = Authenticator(loading, bench.journal)
    with pytest.raises(TtserverError, match="loading") as caught:
        await auth.login("fred", PASSWORD, PEER)
    assert caught.value.code == "LOADING"
    auth.close()


# -- many connections of one application


async def test_a_success_is_remembered_for_a_while(bench: Bench) -> None:
    for _ in range(50):
        await bench.auth.login("fred", PASSWORD, PEER)
    assert len(bench.checks) == 1
    await bench.auth.login("fred", PASSWORD, "198.51.100.1:1")
    assert len(bench.checks) == 1
    bench.now_s += REMEMBERED_S
    await bench.auth.login("fred", PASSWORD, PEER)
    assert len(bench.checks) == 2
    bench.auth.forget()
    await bench.auth.login("fred", PASSWORD, PEER)
    assert len(bench.checks) == 3


async def test_equal_attempts_at_one_moment_share_one_check(bench: Bench) -> None:
    logins = await asyncio.gather(
        *(bench.auth.login("fred", PASSWORD, f"192.0.2.7:{port}") for port in range(1000))
    )
    assert logins == [Login("fred", "user")] * 1000
    assert len(bench.checks) == 1
    assert bench.slept == []


async def test_wrong_passwords_do_not_use_what_is_remembered(bench: Bench) -> None:
    await bench.auth.login("fred", PASSWORD, PEER)
    await bench.refused("fred", PASSWORD + "x")
    await bench.refused("anne", "x" + PASSWORD)
    await bench.auth.login("anne", PASSWORD, PEER)  # same password and hash, another user
    assert len(bench.checks) == 4


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"disabled": True}, "disabled"),
        ({"revoked": True}, "revoked"),
        ({"password_hash": "new"}, "wrong_password"),
        (None, "unknown_user"),
    ],
)
async def test_a_changed_record_counts_at_once(
    bench: Bench, change: dict[str, object] | None, reason: str
) -> None:
    await bench.auth.login("fred", PASSWORD, PEER)
    if change is None:
        del bench.users["fred"]
    else:
        if "password_hash" in change:
            change = {"password_hash": hash_password("another password")}
        bench.change("fred", **change)
    assert (await bench.refused("fred", PASSWORD)).reason == reason
    assert len(bench.checks) == 2


async def test_a_changed_role_counts_at_once(bench: Bench) -> None:
    await bench.auth.login("fred", PASSWORD, PEER)
    bench.change("fred", role="administrator")
    assert await bench.auth.login("fred", PASSWORD, PEER) == Login("fred", "administrator")
    assert len(bench.checks) == 1


async def test_a_user_disabled_during_a_shared_check_is_refused(bench: Bench) -> None:
    bench.hold.clear()
    first = asyncio.create_task(bench.auth.login("fred", PASSWORD, PEER))
    await until(lambda: bool(bench.threads))
    bench.change("fred", disabled=True)
    second = asyncio.create_task(bench.auth.login("fred", PASSWORD, PEER))
    await until(lambda: bench.lookups == 2)
    bench.hold.set()
    assert await first == Login("fred", "user")
    with pytest.raises(LoginRefused) as caught:
        await second
    assert caught.value.reason == "disabled"


async def test_what_is_remembered_is_bounded(bench: Bench) -> None:
    for number in range(REMEMBERED_MAX + 10):
        bench.auth._remember(f"user{number}", b"proof")
    assert len(bench.auth._remembered) == REMEMBERED_MAX
    assert "user9" not in bench.auth._remembered


# -- guessing


async def test_guesses_one_after_the_other_take_longer_and_longer(bench: Bench) -> None:
    for number in range(10):
        await bench.refused("fred", f"guess {number}")
    assert bench.slept == [0.25, 0.5, 1, 2, 4, 5, 5]
    assert len(bench.checks) == 10
    # Another user at the same address is not slowed down yet, nor this one elsewhere.
    await bench.auth.login("anne", PASSWORD, PEER)
    await bench.auth.login("fred", PASSWORD, "198.51.100.1:1")
    assert len(bench.slept) == 7


async def test_users_that_do_not_exist_are_slowed_down_like_those_who_do(bench: Bench) -> None:
    for number in range(8):
        await bench.refused("nobody", f"guess {number}")
    assert bench.slept == [0.25, 0.5, 1, 2, 4]


async def test_the_right_password_ends_the_slowing_down(bench: Bench) -> None:
    for number in range(5):
        await bench.refused("fred", f"guess {number}")
    await bench.auth.login("fred", PASSWORD, PEER)
    slept = len(bench.slept)
    await bench.refused("fred", "guess")
    assert len(bench.slept) == slept


async def test_guesses_at_one_moment_do_not_slip_through_together(bench: Bench) -> None:
    async def guess(number: int) -> str:
        try:
            await bench.auth.login("fred", f"guess {number}", PEER)
        except LoginRefused as refused:
            return refused.code
        return "OK"

    bench.auth._sleep = never
    tasks = [asyncio.create_task(guess(number)) for number in range(200)]
    await until(lambda: sum(task.done() for task in tasks) + len(bench.auth._checks) >= 190)
    await until(lambda: not bench.auth._checks)
    codes = [task.result() for task in tasks if task.done()]
    assert codes.count("WRONGPASS") <= 4
    assert codes.count("TRYAGAIN") > 180
    assert len(bench.checks) <= 4
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert not bench.auth._guesses


async def test_what_is_remembered_does_not_help_a_guesser(bench: Bench) -> None:
    await bench.auth.login("fred", PASSWORD, PEER)
    for number in range(6):
        await bench.refused("fred", f"guess {number}")
    slept = len(bench.slept)
    # Even the right one waits its turn: otherwise its quick answer would tell.
    await bench.auth.login("fred", PASSWORD, PEER)
    assert len(bench.slept) == slept + 1


async def test_one_address_guessing_many_users_is_slowed_down_but_not_its_known_ones(
    bench: Bench,
) -> None:
    await bench.auth.login("fred", PASSWORD, PEER)
    for number in range(22):
        await bench.refused(f"user{number}", "guess")
    assert bench.slept == [0.25, 0.5]
    await bench.auth.login("fred", PASSWORD, PEER)
    assert len(bench.slept) == 2
    await bench.refused("fred", "guess")
    assert len(bench.slept) == 3


async def test_a_client_that_hangs_up_is_counted_all_the_same(bench: Bench) -> None:
    for number in range(4):
        bench.hold.clear()
        task = asyncio.create_task(bench.auth.login("fred", f"guess {number}", PEER))
        await until(lambda: len(bench.auth._checks) == 1)
        task.cancel()
        bench.hold.set()
        await until(lambda: not bench.auth._checks)
    assert bench.slept == [0.25]
    assert not bench.auth._guesses
    assert [line["reason"] for line in bench.told() if "reason" in line] == ["wrong_password"] * 4


async def test_only_so_many_checks_wait(bench: Bench) -> None:
    bench.hold.clear()
    tasks = [
        asyncio.create_task(bench.auth.login(f"user{number}", "guess", f"10.0.{number}.1:1"))
        for number in range(CHECKS_WAITING_MAX)
    ]
    await until(lambda: len(bench.auth._checks) == CHECKS_WAITING_MAX)
    refused = await bench.refused("fred", PASSWORD)
    assert (refused.code, refused.reason) == ("TRYAGAIN", "busy")
    assert len(bench.threads) <= 2
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_the_journal_is_not_flooded_by_those_turned_away(bench: Bench) -> None:
    await test_guesses_at_one_moment_do_not_slip_through_together(bench)
    assert [line["event"] for line in bench.told()].count("logon_throttled") == 1
    bench.now_s += 60.0
    bench.checks.clear()
    await test_guesses_at_one_moment_do_not_slip_through_together(bench)
    throttled = [line for line in bench.told() if line["event"] == "logon_throttled"]
    assert len(throttled) == 2
    assert int(throttled[1]["left_out"]) > 180


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("192.0.2.7:40001", "192.0.2.7"),
        ("[2001:db8:1:2:3:4:5:6]:40001", "2001:db8:1:2::/64"),
        ("[::1]:40001", "::/64"),
        ("[fe80::1%eth0]:40001", "fe80::/64"),
        ("[::ffff:192.0.2.7]:40001", "192.0.2.7"),
        ("db2:40001", "db2"),
    ],
)
def test_failures_are_counted_by_address(peer: str, address: str) -> None:
    assert address_of(peer) == address


async def never(_seconds: float) -> None:
    await asyncio.Event().wait()


async def until(condition: Callable[[], bool], deadline_s: float = 30.0) -> None:
    """Let the loop and its threads work until something is so."""
    async with asyncio.timeout(deadline_s):
        while not condition():  # noqa: ASYNC110 - threads and tasks alike are waited for
            await asyncio.sleep(0.001)
