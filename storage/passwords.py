"""Passwords: which are taken, how they are hashed, and a check that takes the same time for all.

The hash is argon2id with 19 MiB, two passes and one lane: the least that OWASP's Password Storage
Cheat Sheet advises, 40 to 50 ms on the two-core machines this was measured on. More memory (the 64
MiB of RFC 9106) would cost 200 ms there, and logons must not be a way to keep a small server busy.
For the same reason no more than `CHECKS_AT_ONCE` run at a time, whoever asks: at most 38 MiB and
two cores.

Nothing here may run on the event loop.

Source: RFC 9106 (argon2), RFC 8265 section 4 (preparation of passwords: NFC).
"""

import threading
import unicodedata
from typing import Final

import argon2
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError
from argon2.low_level import Type

from storage.errors import StorageError

PASSWORD_CHARS_MIN: Final = 8
PASSWORD_BYTES_MAX: Final = 1024
CHECKS_AT_ONCE: Final = 2

_TIME_COST: Final = 2
_MEMORY_KIB: Final = 19 * 1024
_LANES: Final = 1
# A record from another program must not make a logon eat the machine.
_TIME_COST_MAX: Final = 16
_MEMORY_KIB_MAX: Final = 256 * 1024
_LANES_MAX: Final = 16

# What systems like this one were delivered with, and what people type for want of an idea.
_KNOWN: Final = frozenset(
    {
        "administrator",
        "changeme",
        "letmein1",
        "passw0rd",
        "password",
        "password1",
        "qwertyui",
        "tapemaster",
        "tapetrack",
        "ttserver",
        "12345678",
        "123456789",
        "1234567890",
    }
)

_hasher: Final = argon2.PasswordHasher(
    time_cost=_TIME_COST, memory_cost=_MEMORY_KIB, parallelism=_LANES, type=Type.ID
)
# Belongs to no password: what is checked when there is no user, at the same cost.
_NOBODY: Final = (
    f"$argon2id$v=19$m={_MEMORY_KIB},t={_TIME_COST},p={_LANES}"
    "$bm8gdXNlciBoYXMgdGhpcw$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
)
_turns: Final = threading.BoundedSemaphore(CHECKS_AT_ONCE)


class PasswordRefused(StorageError):
    """The password is not good enough to be set."""

    default_code = "PASSWORD"


class HashUnusable(StorageError):
    """A stored hash cannot be checked; not even the right password opens this account."""

    default_code = "HASH"


def check_policy(password: str, user: str = "") -> None:
    """Refuse a password that should not be set; an old one that is refused now still works.

    Args:
        password: as typed.
        user: whose it will be.

    Raises:
        PasswordRefused: too short, too long, unprintable, or one that everybody tries first.
    """
    problem = _problem(password, user)
    if problem is not None:
        raise PasswordRefused(
            f"password refused: {problem}",
            hint=f"take at least {PASSWORD_CHARS_MIN} characters that nobody can guess, "
            "for example four random words.",
        )


def hash_password(password: str, user: str = "") -> str:
    """Hash a password for storing, after `check_policy`.

    Returns:
        The hash in the usual form `$argon2id$...`, with its salt and cost.

    Raises:
        PasswordRefused: see `check_policy`.

    *Thread:* any but the event loop's; takes about 50 ms, more when others are at it.
    """
    check_policy(password, user)
    secret = _prepared(password)
    assert secret is not None, "the policy lets no such password pass"
    with _turns:
        return _hasher.hash(secret)


def verify_password(stored: str | None, password: str) -> bool:
    """Tell whether a password fits a hash; takes equally long for every wrong answer.

    Args:
        stored: the user's hash, None when there is no such user.
        password: what was given, of any length and content.

    Raises:
        HashUnusable: the hash is damaged, costs too much or memory ran out.

    *Thread:* any but the event loop's; takes about 50 ms, more when others are at it.
    """
    secret = _prepared(password)
    problem = None if stored is None else _unusable(stored)
    possible = stored is not None and secret is not None and problem is None
    with _turns:
        try:
            _hasher.verify(stored if possible and stored else _NOBODY, secret or b"")
        except VerifyMismatchError:
            possible = False
        except VerificationError as error:
            problem, possible = str(error), False
    if problem is not None:
        raise HashUnusable(
            f"password hash cannot be checked: {problem}",
            hint="set the user's password again: ttserver user passwd NAME",
        )
    return possible


def needs_rehash(stored: str) -> bool:
    """Tell whether a hash was made at another cost than today's; a new password cures it."""
    try:
        return _hasher.check_needs_rehash(stored)
    except InvalidHashError:
        return True


def _problem(password: str, user: str) -> str | None:
    # The length first: normalising megabytes would take its time.
    if len(password) > PASSWORD_BYTES_MAX:
        return f"{len(password)} characters, {PASSWORD_BYTES_MAX} bytes is the most"
    if len(password) < PASSWORD_CHARS_MIN:
        return f"{len(password)} characters, {PASSWORD_CHARS_MIN} is the least"
    secret = _prepared(password)
    if secret is None:
        return f"it takes more than {PASSWORD_BYTES_MAX} bytes, or is not UTF-8"
    if any(unicodedata.category(char) == "Cc" for char in password):
        return "it contains control characters"
    plain = password.casefold()
    if plain in _KNOWN or len(set(plain)) == 1:
        return "it is among the first that are tried"
    if plain == user.casefold():
        return "it is the user's name"
    return None


def _prepared(password: str) -> bytes | None:
    """Give the bytes that are hashed; None for what can be nobody's password."""
    if len(password) > PASSWORD_BYTES_MAX:
        return None
    try:
        # One keyboard sends a letter and an accent, another one sign for both.
        secret = unicodedata.normalize("NFC", password).encode()
    except UnicodeEncodeError:
        return None
    return secret if len(secret) <= PASSWORD_BYTES_MAX else None


def _unusable(stored: str) -> str | None:
    try:
        cost = argon2.extract_parameters(stored)
    except InvalidHashError:
        return "it is not in the form $argon2id$..."
    if cost.type is not Type.ID:
        return "it is not argon2id"
    if (
        cost.memory_cost > _MEMORY_KIB_MAX
        or cost.time_cost > _TIME_COST_MAX
        or cost.parallelism > _LANES_MAX
    ):
        return f"it costs {cost.memory_cost} KiB and {cost.time_cost} passes"
    return None
