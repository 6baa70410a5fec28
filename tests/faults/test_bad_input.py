"""Whatever strangers send to the two ports: an error or a closed connection, and nothing else.

After each abuse the same daemons still answer, replicate, and hold no more memory than before.
"""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import redis

from replication import wire
from replication.bodies import SiteAddress
from replication.handshake import encode_hello
from replication.messages import OwnCode
from replication.wire import FrameDecoder
from tests.faults.strangers import (
    connect,
    exchange,
    garbage,
    introduce,
    pour,
    read_to_end,
    reset,
    send_all,
)
from tests.support.sites import (
    PASSWORD,
    Site,
    fast_directory,
    running_sites,
    wait_caught_up,
    wait_for,
)
from ttserver.address import Address

pytestmark = pytest.mark.timeout(300)

SEED = 9
CLIENTS_MAX = 40
# Far above the noise of the allocator, far below what the abuses send.
GROWTH_BYTES_MAX = 96 * 2**20
FLOOD_BYTES = 256 * 2**20
VALUE = b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\nvalue\r\n"


@pytest.fixture(scope="module")
def group() -> Iterator[tuple[Site, Site]]:
    """A pair for all tests here: what one of them breaks, the next would see."""
    with fast_directory() as directory, running_sites(directory) as sites:
        master, replicant = sites("master"), sites("replicant")
        master.init("master", replicant)
        replicant.init("replicant", master)
        for site in (master, replicant):
            site.toml(
                client={"auth_timeout_s": 2, "max_clients": CLIENTS_MAX},
                limits={"bulk_bytes_max": 2**20, "frame_bytes_max": 2**21},
                storage={"durability": "write_nosync"},
            )
            site.run()
        master.put("warm")
        replicant.wait_key("warm")
        yield master, replicant


@pytest.fixture
def unharmed(group: tuple[Site, Site]) -> Iterator[tuple[Site, Site]]:
    """The pair, looked at again after the test."""
    master, replicant = group
    before = [site.rss_bytes() for site in group]
    yield group
    for site, rss in zip(group, before, strict=True):
        assert site.alive, site.tail()
        assert site.rss_bytes() - rss < GROWTH_BYTES_MAX
        assert site.now()["state"] == "running"
        assert "command_failed" not in site.log.read_text()
        assert site.count("alarm_raised") == 0, site.tail()
    wait_for("the replicant is connected", lambda: connected(master))
    value = f"{master.now()['lsn']}"
    with master.client() as client:
        wait_for("a write is answered OK", lambda: put(client, value))
    replicant.wait_key("after", value)
    wait_caught_up(master, replicant)


def put(client: redis.Redis, value: str) -> bool:
    try:
        return bool(client.set("after", value))
    except redis.ResponseError as error:
        if "PERMFAILED" not in str(error):
            raise
        return False


def told_since(site: Site, begun: int) -> str:
    """Read what the daemon logged behind this many bytes."""
    return site.log.read_bytes()[begun:].decode()


def connected(master: Site) -> bool:
    (site,) = master.now()["sites"]
    return bool(site["status"] == "connected")


# -- the client port


def logged_on(site: Site) -> socket.socket:
    """Connect and log on in the raw."""
    sock = connect(site.clients)
    words = [b"AUTH", b"tapemaster", PASSWORD.encode()]
    sock.sendall(b"*3\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words))
    assert sock.recv(100) == b"+OK\r\n"
    return sock


def test_garbage_from_strangers(unharmed: tuple[Site, Site]) -> None:
    master, _ = unharmed
    for number, data in enumerate(garbage(SEED, 300)):
        with connect(master.clients) as sock:
            send_all(sock, data)
            if number % 3 == 0:
                reset(sock)


def test_garbage_from_a_client_that_is_logged_on(unharmed: tuple[Site, Site]) -> None:
    master, _ = unharmed
    for data in garbage(SEED + 1, 150):
        with logged_on(master) as sock:
            send_all(sock, data)
            sock.shutdown(socket.SHUT_WR)
            read_to_end(sock)


def test_half_commands(unharmed: tuple[Site, Site]) -> None:
    master, _ = unharmed
    for length in range(len(VALUE)):
        with logged_on(master) as sock:
            sock.sendall(VALUE[:length])
            if length % 2:
                reset(sock)
            else:
                sock.shutdown(socket.SHUT_WR)
                assert read_to_end(sock) == b"", "half a command was answered"
    with master.client() as client:
        assert client.get("key") is None, "half a command was run"


HUGE = [
    b"*2147483647\r\n",
    b"*99999999999999999999\r\n",
    b"*1\r\n$2147483647\r\n",
    b"*1\r\n$99999999999999999999\r\n",
    b"*1\r\n$-2\r\n",
    b"*1\r\n$1048577\r\n",
    b"*3\r\n$1048576\r\n" + bytes(2**20) + b"\r\n$1048576\r\n",
    b"*1\r\n:5\r\n",
]


@pytest.mark.parametrize("data", HUGE, ids=lambda data: repr(data[:30]))
@pytest.mark.parametrize("known", [True, False], ids=["logged-on", "stranger"])
def test_huge_lengths(unharmed: tuple[Site, Site], data: bytes, *, known: bool) -> None:
    master, _ = unharmed
    with logged_on(master) if known else connect(master.clients) as sock:
        send_all(sock, data)
        answer = read_to_end(sock)
    assert answer.startswith(b"-ERR Protocol error"), answer
    assert answer.endswith(b"\r\n")


@pytest.mark.parametrize("known", [True, False], ids=["logged-on", "stranger"])
def test_a_line_without_an_end(unharmed: tuple[Site, Site], *, known: bool) -> None:
    master, _ = unharmed
    with logged_on(master) if known else connect(master.clients) as sock:
        taken = pour(sock, b"x" * 65536, FLOOD_BYTES)
        assert taken < FLOOD_BYTES / 8


@pytest.mark.parametrize("known", [True, False], ids=["logged-on", "stranger"])
def test_pipelines_without_an_end_that_nobody_reads_the_replies_of(
    unharmed: tuple[Site, Site], *, known: bool
) -> None:
    master, _ = unharmed
    with master.client() as client:
        wait_for("a long value is stored", lambda: put(client, "long"))
        client.set("long", b"x" * 500_000)
    chunk = b"*2\r\n$3\r\nGET\r\n$4\r\nlong\r\n" * 500 if known else b"PING\r\n" * 2000
    with ExitStack() as stack:
        socks = [
            stack.enter_context(logged_on(master) if known else connect(master.clients))
            for _ in range(8)
        ]
        threads = [threading.Thread(target=pour, args=(sock, chunk, FLOOD_BYTES)) for sock in socks]
        for thread in threads:
            thread.start()
        # The others are served meanwhile.
        with master.client() as client:
            for _ in range(20):
                assert client.ping()
        for thread in threads:
            thread.join()
        assert master.rss_bytes() < 400 * 2**20


def test_strangers_that_say_nothing_are_let_go(unharmed: tuple[Site, Site]) -> None:
    master, _ = unharmed
    with ExitStack() as stack:
        silent = [stack.enter_context(connect(master.clients)) for _ in range(10)]
        for number, sock in enumerate(silent):
            send_all(sock, VALUE[:number])
        for sock in silent:
            read_to_end(sock)


def test_more_clients_than_are_allowed(unharmed: tuple[Site, Site]) -> None:
    master, _ = unharmed
    with ExitStack() as stack:
        held = [stack.enter_context(connect(master.clients)) for _ in range(CLIENTS_MAX + 20)]
        refused = [read_to_end(sock) for sock in held[CLIENTS_MAX:]]
        assert set(refused) == {b"-ERR max number of clients reached\r\n"}
    wait_for("there is room again", lambda: exchange(master.clients, b"PING\r\n") == b"+PONG\r\n")


TLS_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(190)
HELLO = encode_hello(SiteAddress("192.0.2.99", 5010), 100)


@pytest.mark.parametrize(
    ("data", "spoke"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "http"),
        (TLS_HELLO, "tls"),
        (HELLO, "replication"),
    ],
)
def test_other_protocols_on_the_client_port(
    unharmed: tuple[Site, Site], data: bytes, spoke: str
) -> None:
    master, _ = unharmed
    begun = master.log.stat().st_size
    assert exchange(master.clients, data) == b""
    wait_for("the log names it", lambda: spoke in told_since(master, begun).lower())


def test_wrong_passwords_are_slowed_down_and_hurt_nobody_else(
    unharmed: tuple[Site, Site],
) -> None:
    master, _ = unharmed
    wrong = b"*3\r\n$4\r\nAUTH\r\n$10\r\ntapemaster\r\n$7\r\nwrong%02d\r\n"
    with ExitStack() as stack:
        guessers = [stack.enter_context(connect(master.clients, "127.0.0.9")) for _ in range(30)]
        for number, sock in enumerate(guessers):
            sock.sendall(wrong % number)
        answers = []
        # Meanwhile the right password, from where nobody guesses, is good at once.
        with master.client() as client:
            assert client.ping()
        for sock in guessers:
            sock.settimeout(60)
            answers.append(sock.recv(200).split()[0])
    assert set(answers) <= {b"-WRONGPASS", b"-TRYAGAIN"}
    # Thirty at once from one address: most are not even looked at.
    assert answers.count(b"-TRYAGAIN") > len(answers) / 2
    assert master.count("logon_throttled") > 0
    assert "wrong" not in "".join(line.facts.get("password", "") for line in master.events())


# -- the replication port


def test_garbage_on_the_replication_port(unharmed: tuple[Site, Site]) -> None:
    for site in unharmed:
        for number, data in enumerate(garbage(SEED + 2, 100)):
            with connect(site.replication) as sock:
                send_all(sock, data)
                if number % 3 == 0:
                    reset(sock)


def test_strangers_do_not_push_the_rest_out_of_the_journal(unharmed: tuple[Site, Site]) -> None:
    master, _ = unharmed
    before = len(master.events())
    for _ in range(400):
        assert exchange(master.replication, b"\xff") == b""
    assert len(master.events()) - before < 200


def test_half_handshakes(unharmed: tuple[Site, Site]) -> None:
    master, _ = unharmed
    for length in range(0, len(HELLO), 3):
        with connect(master.replication) as sock:
            sock.sendall(HELLO[:length])


FRAME_TYPES = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 255]


@pytest.mark.parametrize("frame_type", FRAME_TYPES)
def test_huge_lengths_on_the_replication_port(unharmed: tuple[Site, Site], frame_type: int) -> None:
    master, _ = unharmed
    header = struct.pack(">BII", frame_type, 0xFFFFFFFF, 0x7FFFFFFF)
    with connect(master.replication) as sock:
        send_all(sock, header)
        assert pour(sock, bytes(65536), FLOOD_BYTES) < FLOOD_BYTES / 8
        read_to_end(sock)


@pytest.mark.parametrize(
    ("data", "spoke"),
    [
        (b"*1\r\n$4\r\nPING\r\n", "RESP"),
        (b"PING\r\n", "RESP"),
        (b"GET / HTTP/1.1\r\n\r\n", "HTTP"),
        (TLS_HELLO, "TLS"),
    ],
)
def test_other_protocols_on_the_replication_port(
    unharmed: tuple[Site, Site], data: bytes, spoke: str
) -> None:
    master, _ = unharmed
    begun = master.log.stat().st_size
    assert exchange(master.replication, data) == b""
    # The journal names it as well, as long as there are not too many of them.
    wait_for("the log names it", lambda: f"speaks {spoke}" in told_since(master, begun))
    assert master.count("wrong_port") > 0


def test_an_unknown_site_is_rejected(unharmed: tuple[Site, Site]) -> None:
    master, replicant = unharmed
    stranger = Address("192.0.2.99", 5010)
    for site in (master, replicant):
        sock, peer = introduce(site.replication, stranger, priority=100)
        with sock:
            frames = FrameDecoder().feed(read_to_end(sock))
            assert [frame.word2 for frame in frames] == [OwnCode.CONNECT_REJECT]
        assert peer.local.address == SiteAddress(stranger.host, stranger.port)
        refused = site.wait_event("member_refused", why=f"{stranger} is no member")
        assert refused.facts["from"].startswith("127.0.0.1:")
    assert str(stranger) not in {site["site"] for site in master.now()["sites"]}


def test_many_strangers_at_once_do_not_keep_a_member_out(unharmed: tuple[Site, Site]) -> None:
    master, replicant = unharmed
    with ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(connect(master.replication)).sendall(HELLO[:5])
        assert replicant.stop() == 0
        replicant.run()


def test_somebody_who_passes_for_a_member_and_talks_nonsense(unharmed: tuple[Site, Site]) -> None:
    """It takes the place of the member's link; that comes back as soon as nonsense is heard."""
    master, replicant = unharmed
    for nonsense in (
        struct.pack(">BII", 9, 1, 1),
        struct.pack(">BII", 3, 0xFFFFFFF0, 0xFFFFFFF0),
        struct.pack(">BII", 8, 0, 4),
        wire.encode_ack(1, wire.LSN_MAX)[:-1] + bytes(2000),
    ):
        sock, peer = introduce(master.replication, replicant.replication)
        with sock:
            assert peer.ready
            send_all(sock, nonsense)
            read_to_end(sock)


def test_a_flood_without_a_handshake(unharmed: tuple[Site, Site]) -> None:
    master, _ = unharmed
    heartbeat = wire.encode_heartbeat(1, wire.LSN(1, 28)) * 1000
    with connect(master.replication) as sock:
        assert pour(sock, heartbeat, FLOOD_BYTES) < FLOOD_BYTES / 8
