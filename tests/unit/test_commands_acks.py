"""ACKS, WAIT, LASTWRITE, WAITFOR at the client port."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from replication.generations import CommitToken
from replication.messages import AckPolicy
from replication.wire import LSN
from tests.support.engine import SmallAuth, SmallEngine
from tests.support.environments import soon
from tests.support.wire import Error, Wire, packed, small_listener
from ttserver.auth import Login
from ttserver.listener import Listener
from ttserver.write_waits import TokenLost

LOST = TokenLost("write 1:1:28 was rolled back: generation 2 began without it, at 1/20")
UNKNOWN = (
    "ERR unknown ack policy 'most': use ALL, ALL_AVAILABLE, ALL_PEERS, NONE, ONE, ONE_PEER, QUORUM"
    " or DEFAULT"
)
TOKENLOST = Error(f"TOKENLOST {LOST}")


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[Listener, SmallEngine]]:
    async with small_listener(tmp_path) as both:
        yield both


@pytest.fixture
def engine(served: tuple[Listener, SmallEngine]) -> SmallEngine:
    return served[1]


@pytest.fixture
async def client(served: tuple[Listener, SmallEngine]) -> Wire:
    return await Wire(served[0]).login()


def asked(engine: SmallEngine) -> tuple[AckPolicy | None, float | None]:
    """What the last write was submitted with."""
    return engine.asked_acks


# -- ACKS


async def test_a_connection_has_the_groups_policy_until_it_names_its_own(
    client: Wire, engine: SmallEngine
) -> None:
    assert await client.call("ACKS") == [b"QUORUM", 1000]
    await client.call("SET", "a", 1)
    assert asked(engine) == (None, None)
    assert await client.call("ACKS", "all", 250) == b"OK"
    assert await client.call("ACKS") == [b"ALL", 250]
    await client.call("SET", "a", 1)
    assert asked(engine) == (AckPolicy.ALL, 0.25)
    assert await client.call("ACKS", "DB_REPMGR_ACKS_ONE_PEER") == b"OK"
    assert await client.call("ACKS") == [b"ONE_PEER", 1000]
    await client.call("MULTI")
    await client.call("SET", "a", 1)
    await client.call("EXEC")
    assert asked(engine) == (AckPolicy.ONE_PEER, None)
    assert await client.call("ACKS", "default", 40) == b"OK"
    await client.call("SET", "a", 1)
    assert asked(engine) == (None, 0.04)


async def test_each_write_of_a_pipeline_has_the_policy_before_it(
    client: Wire, engine: SmallEngine
) -> None:
    asked: list[object] = []
    submit = engine.submit

    def watched(*args: object, **how: object) -> None:
        asked.append(how["policy"])
        submit(*args, **how)  # type: ignore[arg-type]

    engine.submit = watched  # type: ignore[method-assign]
    answers = await client.pipeline(
        ["SET", "a", 1], ["ACKS", "none"], ["SET", "a", 2], ["ACKS", "all"], ["SET", "a", 3]
    )
    assert answers == [b"OK"] * 5
    assert asked == [None, AckPolicy.NONE, AckPolicy.ALL]


async def test_another_connection_is_not_concerned(
    client: Wire, served: tuple[Listener, SmallEngine]
) -> None:
    await client.call("ACKS", "all", 250)
    other = await Wire(served[0]).login()
    assert await other.call("ACKS") == [b"QUORUM", 1000]


async def test_reset_goes_back_to_the_groups_policy(client: Wire) -> None:
    await client.call("ACKS", "all", 250)
    await client.call("RESET")
    await client.login()
    assert await client.call("ACKS") == [b"QUORUM", 1000]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("most",),
            UNKNOWN,
        ),
        (("all", "0"), "ERR ack time-out of 0 ms is out of range: 1 to 3600000 ms"),
        (("all", "3600001"), "ERR ack time-out of 3600001 ms is out of range: 1 to 3600000 ms"),
        (("all", "soon"), "ERR value is not an integer or out of range"),
        (("all", "1", "2"), "ERR syntax error: ACKS takes a policy and milliseconds"),
    ],
)
async def test_a_bad_policy_changes_nothing(
    client: Wire, arguments: tuple[str, ...], said: str
) -> None:
    await client.call("ACKS", "one", 77)
    assert await client.call("ACKS", *arguments) == Error(said)
    assert await client.call("ACKS") == [b"ONE", 77]


async def test_none_of_them_can_be_part_of_a_transaction(client: Wire) -> None:
    for command in (["ACKS"], ["LASTWRITE"], ["WAITFOR", "1:1:28", 0], ["WAIT", 1, 0]):
        await client.call("MULTI")
        assert isinstance(await client.call(*command), Error)
        assert (await client.call("EXEC")).startswith("EXECABORT")


# -- WAIT


async def test_wait_counts_the_sites(client: Wire, engine: SmallEngine) -> None:
    assert await client.call("WAIT", 1, 1) == 0
    engine.waits.holders = ["192.0.2.2:5010", "192.0.2.3:5010"]
    assert await client.pipeline(["SET", "a", 1], ["WAIT", 1, 0]) == [b"OK", 2]
    assert engine.waits.asked[-1] == CommitToken(1, LSN(1, 28))
    assert await client.call("WAIT", 1, -1) == Error("ERR timeout is negative")
    assert await client.call("WAIT", 1, "x") == Error(
        "ERR timeout is not an integer or out of range"
    )
    engine.waits.lost = LOST
    assert await client.call("WAIT", 1, 1) == TOKENLOST
    engine.role = "replicant"
    assert (await client.call("WAIT", 1, 1)).startswith("ERR WAIT cannot be used with replica")


# -- LASTWRITE


async def test_last_write_names_the_write_and_who_has_it(client: Wire, engine: SmallEngine) -> None:
    assert await client.call("LASTWRITE") is None
    engine.waits.holders = ["192.0.2.2:5010", "192.0.2.3:5010"]
    answers = await client.pipeline(["SET", "a", 1], ["LASTWRITE"])
    assert answers == [b"OK", [b"1:1:28", [b"192.0.2.2:5010", b"192.0.2.3:5010"]]]
    engine.perm_failed = "nobody acknowledged"
    engine.waits.holders = []
    assert isinstance(await client.call("SET", "a", 1), Error)
    assert await client.call("LASTWRITE") == [b"1:1:28", []], "committed here all the same"
    engine.waits.lost = LOST
    assert await client.call("LASTWRITE") == TOKENLOST


async def test_the_last_write_is_the_one_furthest_in_the_log(
    client: Wire, engine: SmallEngine
) -> None:
    def held(count: int) -> bool:
        return len(engine.held or []) == count

    engine.lsns = {"1": (1, 28), "2": (2, 500)}
    engine.held = []
    for times in (1, 2):
        client.send(packed("INCR", "a"))
        await soon("it is committed", partial(held, times))
    # Outcomes come in the order in which policies are met: here the second write's first.
    engine.release()
    assert await client.replies(2) == [1, 2]
    assert (await client.call("LASTWRITE"))[0] == b"1:2:500"


# -- WAITFOR


async def test_waitfor(client: Wire, engine: SmallEngine) -> None:
    assert await client.call("WAITFOR", "7:3:1500", 0) == 1
    assert engine.waits.asked == [CommitToken(7, LSN(3, 1500))]
    engine.waits.is_applied = False
    assert await client.call("WAITFOR", "7:3:1500", 1) == 0
    engine.waits.lost = LOST
    assert await client.call("WAITFOR", "7:3:1500", 1) == TOKENLOST


@pytest.mark.parametrize("token", ["", "7", "7:3", "7:3:1500:1", "a:3:1500", "7:-3:1500"])
async def test_waitfor_refuses_what_is_no_token(client: Wire, token: str) -> None:
    assert await client.call("WAITFOR", token, 1) == Error(
        f"ERR '{token}' is no token of the form generation:file:offset:"
        " three numbers with colons between them are needed"
    )


async def test_waitfor_refuses_a_bad_time(client: Wire) -> None:
    assert await client.call("WAITFOR", "7:3:1500", -1) == Error("ERR timeout is negative")
    assert isinstance(await client.call("WAITFOR", "7:3:1500", "x"), Error)


async def test_who_may_write_only_for_some_customers_asks_too(
    served: tuple[Listener, SmallEngine],
) -> None:
    class NoKeys(SmallAuth):
        """Nobody may do anything with plain keys."""

        async def login(self, user: str, password: str, peer: str) -> Login:
            return Login(user, "user", frozenset())

    served[0].server.auth = NoKeys()
    client = await Wire(served[0]).login()
    assert str(await client.call("GET", "a")).startswith("NOPERM")
    assert await client.call("LASTWRITE") is None
    assert await client.call("WAITFOR", "7:3:1500", 0) == 1
    assert await client.call("ACKS", "all") == b"OK"
    assert await client.call("WAIT", 0, 1) == 0
