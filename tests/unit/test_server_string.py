"""`user:password@server:port` with any part left out, and never quoted in an error."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttserver.errors import ConfigurationError
from ttserver.server_string import ServerString, find_server, parse_server_string


@pytest.mark.parametrize(
    ("text", "user", "password", "host", "port"),
    [
        ("", None, None, "localhost", 5000),
        ("db1", None, None, "db1", 5000),
        ("db1:5001", None, None, "db1", 5001),
        (":5001", None, None, "localhost", 5001),
        ("db1:", None, None, "db1", 5000),
        ("fred@db1", "fred", None, "db1", 5000),
        ("fred@", "fred", None, "localhost", 5000),
        ("fred:@db1", "fred", None, "db1", 5000),
        ("fred:secret@db1:5001", "fred", "secret", "db1", 5001),
        ("fred:p@ss:w@rd@db1", "fred", "p@ss:w@rd", "db1", 5000),
        ("192.0.2.7:5001", None, None, "192.0.2.7", 5001),
        ("[::1]", None, None, "::1", 5000),
        ("fred:secret@[2001:db8::7]:5001", "fred", "secret", "2001:db8::7", 5001),
        ("fred@[fe80::1%eth0]", "fred", None, "fe80::1%eth0", 5000),
        (" db1.example.com \n", None, None, "db1.example.com", 5000),
    ],
)
def test_parts(text: str, user: str | None, password: str | None, host: str, port: int) -> None:
    assert parse_server_string(text) == ServerString(user, password, host, port)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("fred:secret", "port is not a number"),
        ("db1:0", "port is not a number"),
        ("db1:65536", "port is not a number"),
        ("db1:99999999999999999999", "port is not a number"),
        ("db1:\uff15\uff10\uff10\uff10", "port is not a number"),
        ("db1:00000500099999", "port is not a number"),
        ("::1", "IPv6 address must stand in brackets"),
        ("fe80::1:5000", "IPv6 address must stand in brackets"),
        ("[::1", "what follows"),
        ("[::1]5000", "what follows"),
        ("[db1]:5000", "only an IPv6 address"),
        ("[::g]", "neither a host name"),
        ("@db1", "user before the `@` is missing"),
        (":secret@db1", "user before the `@` is missing"),
        ("secret secret", "neither a host name"),
        ("10.1", "neither a host name"),
    ],
)
def test_what_is_wrong_is_said_without_quoting_it(text: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why) as refused:
        parse_server_string(text)
    assert refused.value.hint
    assert "secret" not in f"{refused.value} {refused.value.hint}"


def test_the_environment_fills_in() -> None:
    environment = {"TT_SERVER": "fred@db1", "TT_PASSWORD": "from the environment"}
    assert find_server(None, {}) == ServerString(None, None, "localhost", 5000)
    assert find_server(None, environment) == ServerString(
        "fred", "from the environment", "db1", 5000
    )
    assert find_server("anne:own@db2", environment).password == "own"
    assert find_server("anne@db2", environment).password == "from the environment"
    assert find_server("db2", {"TT_PASSWORD": ""}).password is None


def test_the_password_is_not_shown() -> None:
    server = parse_server_string("fred:secret@[::1]:5001")
    assert str(server) == "[::1]:5001"
    assert "secret" not in repr(server)


@given(st.text(max_size=40))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        server = parse_server_string(text)
    except ConfigurationError:
        return
    assert server.host
    assert 1 <= server.port <= 65535
