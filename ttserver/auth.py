"""Who may log on: passwords checked off the event loop, guessing slowed down, nothing written.

What a client sees of a refusal is always the same sentence, after the same amount of work; the log
and the journal say why it was refused. A client that is only being slowed down is told so, for it
learns nothing by that about the user or the password.

Two things keep a thousand connections of one application cheap. Equal attempts at the same moment
share one check. And a success is remembered for a minute: per user the HMAC, under a key of this
process, of name, password and stored hash. Nobody can compute or reverse it without that key, and
a changed password does not match it; disabling a user counts at once too, because the record is
read at every logon. The memory never helps a guesser: where wrong passwords make a user wait at an
address, it waits before the memory is asked.
"""

import asyncio
import hmac
import ipaddress
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, Protocol, TypeAlias

import structlog

from storage.errors import StorageError
from storage.passwords import CHECKS_AT_ONCE, verify_password
from storage.users import UserRecord, is_user_name
from ttserver.errors import TtserverError
from ttserver.throttle import Throttle

# One person mistypes three times; a host with many users a little more often.
_FREE_BY_USER: Final = 3
_FREE_BY_ADDRESS: Final = 20
# Two threads work off some 40 a second: who came last waits about two seconds.
CHECKS_WAITING_MAX: Final = 64
REMEMBERED_S: Final = 60.0
REMEMBERED_MAX: Final = 1024
# A guesser must not fill the journal: the log has them all.
_TELL_EVERY_S: Final = 1.0
_TELL_BURST: Final = 100
_SLOWED_EVERY_S: Final = 60.0
_NAME_CHARS_TOLD: Final = 40

REFUSAL: Final = "invalid username-password pair or user is disabled."

Reason: TypeAlias = Literal[
    "unknown_user", "wrong_password", "disabled", "revoked", "record_unusable", "throttled", "busy"
]
Lookup: TypeAlias = Callable[[str], Awaitable[UserRecord | None]]
Pair: TypeAlias = tuple[str, str]  # user and address

log = structlog.get_logger(__name__)


class JournalLike(Protocol):
    """Where refusals are written: `replication.journal.Journal`."""

    def write_seldom(
        self, event: str, /, *, every_s: float, burst: int, **facts: object
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Login:
    """Who logged on.

    Args:
        user: the user ID.
        role: of the user's record.
        rights: with plain keys and the server, see `storage.rights.key_rights`; None leaves them
            to the role.
    """

    user: str
    role: str
    rights: frozenset[str] | None = None


class LoginRefused(TtserverError):
    """Nobody was logged on. The text and the code are for the client, `reason` is not.

    Codes: WRONGPASS, always with the same text; TRYAGAIN, the attempt was not looked at.
    """

    default_code = "WRONGPASS"

    def __init__(self, reason: Reason, message: str = REFUSAL, *, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.reason: Reason = reason


@dataclass(slots=True)
class _Remembered:
    proof: bytes
    until_s: float


@dataclass(frozen=True, slots=True)
class _Guess:
    """One password for one user from one address; equal ones count once."""

    pair: Pair
    digest: bytes


@dataclass(frozen=True, slots=True)
class _Claim:
    """Who wants to log on."""

    user: str
    peer: str
    guess: _Guess


class Authenticator:
    """Checks passwords, on threads of its own.

    Args:
        lookup: finds a user's record on this site; what it raises (LOADING) passes through.
        journal: where refusals are told.
        rights: finds what a user may do.
        on_result: told how a password was judged: why it was refused, None for a success.
        clock: seconds that only go forward.
        sleep: waits so many seconds.
        verify: tells whether a password fits a hash (None: no such user); runs on a thread.
    """

    def __init__(
        self,
        lookup: Lookup,
        journal: JournalLike,
        *,
        rights: Callable[[UserRecord], Awaitable[frozenset[str]]] | None = None,
        on_result: Callable[[str, Reason | None], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        verify: Callable[[str | None, str], bool] = verify_password,
    ) -> None:
        self._lookup = lookup
        self._journal = journal
        self._rights = rights
        self._on_result = on_result
        self._clock = clock
        self._sleep = sleep
        self._verify = verify
        self._threads = ThreadPoolExecutor(CHECKS_AT_ONCE, thread_name_prefix="password")
        self._by_user: Throttle[Pair] = Throttle(free=_FREE_BY_USER)
        self._by_address: Throttle[str] = Throttle(free=_FREE_BY_ADDRESS)
        self._key = secrets.token_bytes(32)
        self._remembered: OrderedDict[str, _Remembered] = OrderedDict()
        self._guesses: dict[_Guess, int] = {}  # under way, and by how many connections
        self._checks: dict[tuple[_Guess, bytes], asyncio.Future[Reason | None]] = {}

    async def login(self, user: str, password: str, peer: str) -> Login:
        """Check a user's password.

        Args:
            user, password: as the client sent them, of any length.
            peer: `host:port` of the client.

        Raises:
            LoginRefused: always with the same text, whatever was wrong with them; or TRYAGAIN.
            Exception: what `lookup` raises.

        *Cancellation:* the check goes on, and a failure counts all the same.
        """
        known = is_user_name(user)
        # Names that cannot exist share one place: a flood of them must not push out the others.
        pair = (user if known else "", address_of(peer))
        wait_s = self._by_user.reserve(pair, self._clock())
        self._grant(wait_s, user, peer)
        # Counted before anything is awaited: of guesses at one moment only the first few pass.
        guess = self._guess(pair, password)
        self._enter(guess)
        try:
            if wait_s:
                await self._sleep(wait_s)
            return await self._look_up_and_check(_Claim(user, peer, guess), known, password)
        finally:
            self._leave(guess)

    async def _look_up_and_check(self, claim: _Claim, known: bool, password: str) -> Login:
        record = await self._lookup(claim.user) if known else None
        proof = self._proof(claim.guess, record)
        if record is not None and record.may_log_on and self._is_remembered(claim.user, proof):
            self._by_user.forgive(claim.guess.pair)
            return await self._logged_on(record)
        if (claim.guess, proof) not in self._checks:
            wait_s = self._by_address.reserve(claim.guess.pair[1], self._clock())
            self._grant(wait_s, claim.user, claim.peer)
            if wait_s:
                await self._sleep(wait_s)
        check = self._checks.get((claim.guess, proof))
        if check is None:
            check = self._start(claim, record, proof, password)
        refused = await asyncio.shield(check)
        if refused is None and record is not None and record.may_log_on:
            return await self._logged_on(record)
        # A shared check was made with the record of whoever came first; ours may be newer.
        raise LoginRefused(refused or "disabled")

    async def _logged_on(self, record: UserRecord) -> Login:
        rights = None if self._rights is None else await self._rights(record)
        return Login(record.name, record.role, rights)

    def forget(self) -> None:
        """Forget the remembered successes; the next logons are checked in full."""
        self._remembered.clear()

    def close(self) -> None:
        """Let go of the threads; a check under way ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    # -- one check

    def _start(
        self, claim: _Claim, record: UserRecord | None, proof: bytes, password: str
    ) -> asyncio.Future[Reason | None]:
        """Begin to check a password; the future tells why it was refused, None when it was not."""
        if len(self._checks) >= CHECKS_WAITING_MAX:
            self._tell_slowed(claim.user, claim.peer, None)
            raise LoginRefused(
                "busy", "too many passwords are being checked; try again", code="TRYAGAIN"
            )
        loop = asyncio.get_running_loop()
        check: asyncio.Future[Reason | None] = loop.create_future()
        self._checks[claim.guess, proof] = check
        self._enter(claim.guess)
        stored = None if record is None else record.password_hash
        work = loop.run_in_executor(self._threads, self._verify, stored, password)
        # Not after an await in login: a client that hangs up must not save itself the failure.
        work.add_done_callback(partial(self._settle, claim, record, proof, check))
        return check

    def _settle(
        self,
        claim: _Claim,
        record: UserRecord | None,
        proof: bytes,
        check: asyncio.Future[Reason | None],
        work: asyncio.Future[bool],
    ) -> None:
        del self._checks[claim.guess, proof]
        self._leave(claim.guess)
        if check.done():
            return  # the loop is being torn down
        if work.cancelled():
            check.cancel()
            return
        error = work.exception()
        if error is not None and not isinstance(error, StorageError):
            check.set_exception(error)
            return
        if error is not None:
            log.error("password_unchecked", user=claim.user, error=str(error), hint=error.hint)
        refused = "record_unusable" if error is not None else _reason(record, work.result())
        if refused is None:
            log.debug("logon", user=claim.user, peer=claim.peer)
            self._by_user.forgive(claim.guess.pair)
            self._remember(claim.user, proof)
        else:
            self._count(claim, refused)
        if self._on_result is not None:
            self._on_result(claim.user, refused)
        check.set_result(refused)

    # -- guessing

    def _enter(self, guess: _Guess) -> None:
        self._guesses[guess] = self._guesses.get(guess, 0) + 1
        if self._guesses[guess] == 1:
            self._by_user.started(guess.pair, self._clock())

    def _leave(self, guess: _Guess) -> None:
        self._guesses[guess] -= 1
        if not self._guesses[guess]:
            del self._guesses[guess]
            self._by_user.finished(guess.pair)

    def _grant(self, wait_s: float | None, user: str, peer: str) -> None:
        if wait_s != 0.0:
            self._tell_slowed(user, peer, wait_s)
        if wait_s is None:
            raise LoginRefused(
                "throttled",
                "too many wrong passwords; wait some seconds before the next try",
                code="TRYAGAIN",
            )

    def _count(self, claim: _Claim, refused: Reason) -> None:
        now_s = self._clock()
        self._by_user.failed(claim.guess.pair, now_s)
        self._by_address.failed(claim.guess.pair[1], now_s)
        name = claim.user[:_NAME_CHARS_TOLD]
        log.warning("logon_refused", user=name, peer=claim.peer, reason=refused)
        self._journal.write_seldom(
            "logon_refused",
            every_s=_TELL_EVERY_S,
            burst=_TELL_BURST,
            user=name,
            from_=claim.peer,
            reason=refused,
        )

    def _tell_slowed(self, user: str, peer: str, wait_s: float | None) -> None:
        name = user[:_NAME_CHARS_TOLD]
        log.debug("logon_throttled", user=name, peer=peer, wait_s=wait_s)
        self._journal.write_seldom(
            "logon_throttled",
            every_s=_SLOWED_EVERY_S,
            burst=1,
            user=name,
            from_=peer,
            wait_s=wait_s,
        )

    # -- remembered successes

    def _guess(self, pair: Pair, password: str) -> _Guess:
        # Passwords are not kept, and not compared as they are: a digest nobody else can compute.
        secret = f"{pair[0]}\0{password}".encode("utf-8", "surrogatepass")
        return _Guess(pair, hmac.digest(self._key, secret, "sha256"))

    def _proof(self, guess: _Guess, record: UserRecord | None) -> bytes:
        # The digest has a fixed length, so no two pairs run together to the same text.
        stored = b"" if record is None else record.password_hash.encode()
        return hmac.digest(self._key, guess.digest + stored, "sha256")

    def _is_remembered(self, user: str, proof: bytes) -> bool:
        found = self._remembered.get(user)
        if found is None or self._clock() >= found.until_s:
            return False
        return hmac.compare_digest(found.proof, proof)

    def _remember(self, user: str, proof: bytes) -> None:
        self._remembered[user] = _Remembered(proof, self._clock() + REMEMBERED_S)
        self._remembered.move_to_end(user)
        if len(self._remembered) > REMEMBERED_MAX:
            self._remembered.popitem(last=False)


def _reason(record: UserRecord | None, matched: bool) -> Reason | None:
    if record is None:
        return "unknown_user"
    if not record.may_log_on:
        # Said whatever the password was: it is what the operator has to know.
        return "disabled" if record.disabled else "revoked"
    return None if matched else "wrong_password"


def address_of(peer: str) -> str:
    """Take what failures are counted by from `host:port`: an address, for IPv6 its /64 network.

    A host has a whole IPv6 network to choose its address from.
    """
    host = peer.rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), 64), strict=False))
