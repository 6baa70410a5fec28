"""`ttserver.client` against a served port: methods, types, errors; both clients alike."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog

from tests.integration.client_port import DEADLINE_S, ServedPort, served_port
from tests.support.catalog_client import TREE, USERS, add_users
from tests.support.engine import Refusal
from ttserver.client import (
    AlreadyThere,
    AsyncClient,
    Client,
    ClientError,
    Invalid,
    LogonRefused,
    NotAcknowledged,
    NotAllowed,
    NotFound,
    NotNow,
    ReadOnlySite,
    RuleBroken,
    ServerError,
    UnexpectedReply,
    Unreachable,
    calls,
)
from ttserver.client.call import Call
from ttserver.client.methods import Methods
from ttserver.client.records import Customer, MovedVolume, Place, Volume
from ttserver.commands import TABLE
from ttserver.errors import ConfigurationError

ONE, TWO = "US04.LTO.000001L6", "US04.LTO.000002L6"
CLOSED = "127.0.0.1:1"  # tcpmux: nobody listens there


class Waiting:
    """An `AsyncClient` with the face of a `Client`."""

    def __init__(self, client: AsyncClient, runner: asyncio.Runner) -> None:
        self._client = client
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        return self._wait(found) if callable(found) else found

    def __setattr__(self, name: str, value: object) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            setattr(self._client, name, value)

    def _wait(self, method: Callable[..., Any]) -> Callable[..., Any]:
        async def rows(found: AsyncIterator[Any]) -> list[Any]:
            return [row async for row in found]

        async def answer(found: Any) -> Any:
            return await found

        def run(*args: Any, **kwargs: Any) -> Any:
            found = method(*args, **kwargs)
            if inspect.isawaitable(found):
                return self._runner.run(answer(found))
            return iter(self._runner.run(rows(found)))

        return run


Connect = Callable[..., Any]


@pytest.fixture(params=[Client, AsyncClient])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Make clients of either kind, used alike."""
    with asyncio.Runner() as runner:
        made: list[Any] = []

        def make(*ports: ServedPort | str, user: str = "tapemaster", **how: Any) -> Any:
            servers = ",".join(p if isinstance(p, str) else f"127.0.0.1:{p.port}" for p in ports)
            how = {"password": "secret", "deadline_s": DEADLINE_S, **how}
            client = request.param(servers, user=user, **how)
            made.append(client)
            return client if request.param is Client else Waiting(client, runner)

        yield make
        for client in made:
            if isinstance(client, AsyncClient):
                runner.run(client.aclose())
            else:
                client.close()


@pytest.fixture
def port(tmp_path: Path) -> Iterator[ServedPort]:
    with served_port(tmp_path / "home", "small") as served:
        prepare(served)
        yield served


@pytest.fixture
def real(tmp_path: Path) -> Iterator[ServedPort]:
    """One whose engine knows which write is where."""
    home = tmp_path / "real"
    home.mkdir()
    with served_port(home, "real") as served:
        prepare(served)
        yield served


@pytest.fixture(autouse=True)
def no_log() -> Iterator[None]:
    """The server in this process writes nothing between what pytest shows."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


def prepare(served: ServedPort) -> None:
    """Make the users, and the tree of customers."""
    served.call(lambda: served.listener.server.auth.roles.update(dict.fromkeys(USERS, "user")))  # type: ignore[attr-defined]
    served.wait(add_users(served.engine))
    with Client(f"127.0.0.1:{served.port}", user="tapemaster", password="secret") as client:
        lines = [line.split() for line in TREE.splitlines()]
        for made in client.many(Call(*words, decode=str, write=True) for words in lines):
            assert not isinstance(made, ClientError), made


def test_every_command_of_the_catalog_has_a_method() -> None:
    names = {c.name.replace(".", "_") for c in TABLE if c.group in ("catalog", "accounts")}
    assert len(names) > 40
    assert names - set(dir(Methods)) == set()


def test_keys(port: ServedPort, connect: Connect) -> None:
    client = connect(port)
    assert client.ping() is None
    assert client.get("a") is None
    assert client.set("a", b"\x00\xff") is True
    assert client.get("a") == b"\x00\xff"
    assert client.set("a", "x", nx=True) is False
    assert client.set("a", "é", xx=True) is True
    assert client.getdel("a") == "é".encode()
    assert client.mset({"a": 1, "b": 2.5}) is None
    assert client.mget("a", "b", "c") == [b"1", b"2.5", None]
    assert client.incr("a", 41) == 42
    assert client.incr("a") == 43
    assert client.append("b", "0") == 4
    assert client.strlen("b") == 4
    assert client.exists("a", "b", "c") == 2
    assert client.delete("a", "c") == 1
    client.mset({f"k{number:04}": number for number in range(1200)})
    assert len(list(client.scan("k*"))) == 1200
    assert list(client.scan("b")) == [b"b"]
    assert client.range("k0001", "k0002") == [(b"k0001", b"1"), (b"k0002", b"2")]
    assert client.range(limit=1, rev=True) == [(b"k1199", b"1199")]
    assert client.dbsize() == 1201
    assert client.execute("GET", "b", write=False) == b"2.50"
    assert client.info()["role"] == "master"
    assert client.info("server")["redis_mode"] == "standalone"


def test_the_tree(port: ServedPort, connect: Connect) -> None:
    client = connect(port)
    made = client.customer_add("1009", description="sample", max_media=3, lock=True)
    assert made == Customer(
        name="1009", description="sample", contact="", locked=True, unique="none", media_max=3
    )
    assert client.customer_set("1009", lock=False, unique="customer").unique == "customer"
    assert client.customer_get("1009").locked is False
    assert [one.name for one in client.customer_list("*0*")] == ["1009", "US04"]
    assert client.customer_del("1009") is None
    assert client.media_set("US04.LTO", max_volumes=9, warn_back=False).warn_back is False
    client.media_add("US04.DL", description="tapes", filter="??????", max_repositories=2)
    assert client.media_get("US04.DL").filter == "??????"
    assert client.media_del("US04.DL") is None
    assert [one.media for one in client.media_list("US04.*")] == ["CONT", "LTO"]
    made = client.repository_add(
        "US04.LTO.RACK", description="rack", type="rack", next="OFFS", offsite=True, priority=2
    )
    assert (made.next, made.offsite, made.priority, made.deletes) == ("OFFS", True, 2, True)
    assert client.repository_set("US04.LTO.RACK", scratch=True, deletes=False).scratch is True
    assert client.repository_get("US04.LTO.LIBR").type == "library"
    assert client.repository_del("US04.LTO.RACK") is None
    assert len(list(client.repository_list("US04.LTO.*"))) == 3


def test_the_life_of_a_volume(port: ServedPort, connect: Connect) -> None:
    client = connect(port, program="robot")
    checked = client.volume_check(ONE, in_="LIBR")
    assert (checked.name, client.volume_count()) == (ONE, 0)
    day = date(2031, 1, 7)
    volume = client.volume_add(ONE, description="weekly_full", date=day, flags="E", overdue=3)
    assert isinstance(volume, Volume)
    assert (volume.customer, volume.media, volume.volume) == ("US04", "LTO", "000001L6")
    assert (volume.date, volume.overdue_days, volume.encrypted) == (day, 3, True)
    assert (volume.flags, volume.moving, volume.scanned) == ("CDE", False, volume.current)
    assert isinstance(volume.current, Place)
    assert (volume.current.repository, volume.current.by) == ("LIBR", "tapemaster")
    assert volume.current.via == "robot"
    assert timedelta(0) <= datetime.now(UTC) - volume.current.at < timedelta(minutes=5)
    moved = client.volume_move(ONE, "OFFS")
    assert isinstance(moved, MovedVolume)
    assert (moved.moving, moved.carried, moved.warnings) == (True, 0, [])
    assert "U" in client.volume_scanout(ONE).flags
    assert "K" in client.volume_pickup(ONE).flags
    assert client.volume_confirm(ONE, at="OFFS").current.repository == "OFFS"
    client.volume_move(ONE, "LIBR")
    assert "was moved back to OFFS" in client.volume_cancel(ONE).warnings[0]
    assert client.volume_setdate(ONE, "none").date is None
    assert client.volume_flag(ONE, "+Q", "-E").flags == "COQW"
    assert client.volume_set(ONE, notes="dented", home="LIBR").home == "LIBR"
    assert client.volume_get(ONE).notes == "dented"
    assert client.volume_del(ONE) is None
    whats = [record.what for record in client.volume_history(ONE)]
    assert whats[:5] == ["add", "move", "scanout", "pickup", "confirm"]
    assert whats[-1] == "delete"
    soon = datetime.now(UTC) + timedelta(hours=1)
    assert [r.what for r in client.volume_history("*", since=date(2025, 1, 1), until=soon)] == whats
    assert list(client.volume_history("*", since=soon)) == []
    with pytest.raises(ValueError, match="time zone"):
        client.volume_history("*", since=datetime(2025, 1, 1))  # noqa: DTZ001 - what is refused


def test_lists_and_jobs(port: ServedPort, connect: Connect) -> None:
    client = connect(port)
    names = [f"US04.LTO.{number:06d}L6" for number in range(1100)]
    added = list(client.many(calls.volume_add(name, date="*") for name in names))
    assert [volume.name for volume in added] == names
    assert [volume.name for volume in client.volume_list(match="US04.*")] == names
    assert client.volume_count(in_="LIBR", flags="D", without="M") == 1100
    client.volume_move(ONE, "OFFS")
    assert [one.name for one in client.volume_list(to="US04.LTO.OFFS")] == [ONE]
    assert client.volume_count(due=date(2000, 1, 1)) == 0
    some = "US04.LTO.00000?L6"
    report = client.expire(match=some, dry=True)
    assert (report.dry, report.counts) == (True, {"moving": 9, "pending": 1})
    assert client.expire(match=some).counts == report.counts
    assert {one.target for one in report.volumes} == {"OFFS"}
    found = client.reconcile("US04.LTO.OFFS", ["000001L6", TWO, "NEW"])
    assert (found.scanned, found.counts) == (3, {"confirmed": 2, "unknown": 1})
    assert found.volumes[-1].verdict == "unknown"
    balance = client.library_balance("US04.LTO.LIBR")
    assert (balance.volumes, balance.outgoing, balance.deficit) == (1098, 8, 8)
    assert balance.scratch[0].repository == "US04.LTO.SCRT"


def test_users(port: ServedPort, connect: Connect) -> None:
    client = connect(port)
    group = client.group_add("ops2", role="movers", grants=["READ:*", "WRITE:ACME"])
    assert group.grants == ["READ:*", "WRITE:ACME"]
    assert client.group_set("ops2", grants=["READ:*"]).role == "movers"
    assert client.group_get("ops2").grants == ["READ:*"]
    assert client.user_add("anne", "four random words", group="ops2") is None
    assert client.user_set("anne", disabled=True).disabled is True
    assert client.user_get("anne").group == "ops2"
    assert client.user_passwd("anne", "other random words") is None
    assert {user.name for user in client.user_list()} >= {"anne", "tapemaster"}
    client.user_del("anne")
    client.group_del("ops2")
    assert "ops2" not in {one.name for one in client.group_list()}
    assert client.whoami().role == "administrator"
    fred = connect(port, user="fred")
    assert fred.whoami().keys == ["read", "write"]
    with pytest.raises(LogonRefused, match="the old password is wrong"):
        fred.passwd("wrong password", "four random words")
    assert fred.passwd("secret", "four random words") is None


def test_errors_have_classes_and_carry_the_servers_words(
    port: ServedPort, connect: Connect
) -> None:
    client = connect(port)
    client.volume_add(ONE)
    with pytest.raises(AlreadyThere, match=f"^volume {ONE} exists already$") as there:
        client.volume_add(ONE)
    assert there.value.code == "EXISTS"
    with pytest.raises(NotFound, match=f"^volume {TWO} does not exist$"):
        client.volume_get(TWO)
    with pytest.raises(Invalid, match="not 1 to 10 of A-Z"):
        client.volume_get("US04.LTO.bad")
    with pytest.raises(RuleBroken, match="is not moving"):
        client.volume_cancel(ONE)
    with pytest.raises(NotAllowed, match="lacks the right WRITE"):
        connect(port, user="read").volume_move(ONE, "OFFS")
    with pytest.raises(ServerError, match="unknown command") as unknown:
        client.execute("EVAL", "x")
    assert unknown.value.code == "ERR"
    with pytest.raises(LogonRefused, match="wrong password"):
        connect(port, password="wrong").ping()
    with pytest.raises(UnexpectedReply, match="reply to ECHO is not understood"):
        client.run(Call("ECHO", "x", decode=calls.incr("x").decode))
    with pytest.raises(TypeError, match="bool is no word"):
        client.set("a", True)
    with pytest.raises(ConfigurationError, match="user or password is missing"):
        Client("db1")


def test_a_write_that_others_did_not_acknowledge(port: ServedPort, connect: Connect) -> None:
    port.call(lambda: setattr(port.engine, "perm_failed", "nobody acknowledged"))
    client = connect(port, read_your_writes=True)
    with pytest.raises(NotAcknowledged, match="nobody acknowledged") as late:
        client.set("a", 1)
    assert late.value.token == client.token
    assert late.value.token is not None


def test_many_and_transactions(port: ServedPort, connect: Connect) -> None:
    client = connect(port)
    first, second, third = client.many([calls.set_("a", "x"), calls.incr("a"), calls.get("a")])
    assert (first, third) == (True, b"x")
    assert isinstance(second, ServerError)
    assert client.transaction(calls.set_("a", 1), calls.incr("a"), calls.get("b")) == [
        True,
        2,
        None,
    ]
    volume, refused = client.transaction(calls.volume_add(ONE), calls.volume_get(TWO))
    assert volume.name == ONE
    assert isinstance(refused, NotFound)
    with pytest.raises(ServerError, match="unknown command"):
        client.transaction(calls.set_("a", 5), Call("EVAL", "x", decode=str))
    with pytest.raises(ServerError, match="not allowed inside a transaction"):
        client.transaction(calls.set_("a", 5), calls.dbsize())
    assert client.get("a") == b"2"
    assert list(client.many([])) == []


def refuses(served: ServedPort, code: str, *, reads: bool = False) -> None:
    """Have a site answer like one that is not ready, or no master."""
    refusal = Refusal(f"refused: {code}", code=code)
    which = "refuse_reads" if reads else "refuse_writes"
    served.call(lambda: setattr(served.engine, which, refusal))


@pytest.fixture
def other(tmp_path: Path) -> Iterator[ServedPort]:
    with served_port(tmp_path / "other", "small") as served:
        prepare(served)
        yield served


def test_writes_find_the_master_and_reads_the_first_that_can(
    port: ServedPort, other: ServedPort, connect: Connect
) -> None:
    client = connect(CLOSED, port, other)
    refuses(port, "READONLY")
    assert client.get("a") is None  # from the first that answers, which stays that
    assert client.set("a", "there") is True
    assert client.get("a") is None
    refuses(port, "LOADING", reads=True)
    assert client.get("a") == b"there"
    refuses(other, "READONLY")
    port.call(lambda: setattr(port.engine, "refuse_writes", None))
    port.call(lambda: setattr(port.engine, "refuse_reads", None))
    made = list(client.many([calls.set_("a", 1), calls.volume_add(ONE), calls.get("a")]))
    assert made[0] is True
    assert made[2] == b"1"
    assert client.transaction(calls.incr("a")) == [2]
    assert [volume.name for volume in client.volume_list(match="US04.*")] == []  # of the other one
    with connect_to(port) as direct:
        assert direct.get("a") == b"2"


def connect_to(served: ServedPort) -> Client:
    return Client(f"127.0.0.1:{served.port}", user="tapemaster", password="secret")


def test_it_waits_for_a_master_until_the_deadline(
    port: ServedPort, other: ServedPort, connect: Connect
) -> None:
    refuses(port, "READONLY")
    refuses(other, "TRYAGAIN")
    late = threading.Timer(0.3, lambda: setattr(other.engine, "refuse_writes", None))
    late.start()
    assert connect(port, other).set("a", 1) is True
    late.join()
    refuses(other, "READONLY")
    with pytest.raises(ReadOnlySite, match="refused: READONLY"):
        connect(port, other, deadline_s=0.2).set("a", 1)
    # A single one that is no master says so at once.
    with pytest.raises(ReadOnlySite):
        connect(port).set("a", 1)
    refuses(port, "LOADING", reads=True)
    with pytest.raises(NotNow, match="refused: LOADING") as loading:
        connect(port, deadline_s=0.2).get("a")
    assert loading.value.code == "LOADING"


def test_what_never_could_be_reached_is_said_at_once(connect: Connect) -> None:
    with pytest.raises(Unreachable, match=f"^server {CLOSED} cannot be reached: connection refus"):
        connect(CLOSED).get("a")
    with pytest.raises(Unreachable, match=f"server {CLOSED} .*; server no.such.host.invalid:5000 "):
        connect(CLOSED, "no.such.host.invalid").get("a")


def test_reads_wait_for_own_writes(real: ServedPort, connect: Connect) -> None:
    client = connect(real, read_your_writes=True)
    assert not client.token
    client.set("a", 1)
    token = client.token
    assert client.waitfor(token, 0.0) is True
    client.volume_add(ONE)
    assert client.token != token
    assert client.get("a") == b"1"
    # A right for customers is enough: nobody has to have one for plain keys.
    mover = connect(real, user="move", read_your_writes=True)
    mover.volume_move(ONE, "OFFS")
    assert mover.token is not None
    assert mover.volume_get(ONE).target.repository == "OFFS"
    # Whoever gets the token waits for the same write.
    connect(real, read_your_writes=True).token = mover.token


def test_threads_and_tasks_share_a_client(port: ServedPort) -> None:
    with connect_to(port) as client:
        threads = [
            threading.Thread(target=lambda: [client.incr("n") for _ in range(20)]) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE_S)

        async def count() -> None:
            server = f"tapemaster:secret@127.0.0.1:{port.port}"
            async with AsyncClient(server) as other, asyncio.TaskGroup() as group:
                for _ in range(100):
                    group.create_task(other.run(calls.incr("n")))

        asyncio.run(count())
        assert client.get("n") == b"260"


async def test_a_cancelled_call_leaves_nothing_behind(real: ServedPort) -> None:
    """Its reply is not taken for the next one's."""
    async with AsyncClient(f"tapemaster:secret@127.0.0.1:{real.port}") as client:
        await client.set("a", "x")
        token = "9:1:1"  # never comes
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await client.waitfor(token, 1.0)
            assert await client.get("a") == b"x"
