"""What `ttserver check` reports: one finding a line."""

from enum import StrEnum

import msgspec


class Level(StrEnum):
    """How well a finding is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"
    SKIP = "skip"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the report.

    Args:
        topic: what was looked at, one or two words.
        text: what was seen.
        hint: what to do about it, for `warn` and `FAIL`.
        configuration: the cause is in a configuration file.
    """

    topic: str
    level: Level
    text: str
    hint: str | None = None
    configuration: bool = False


def ok(topic: str, text: str) -> Finding:
    """Report what is well."""
    return Finding(topic=topic, level=Level.OK, text=text)


def skip(topic: str, text: str) -> Finding:
    """Report what could not be looked at."""
    return Finding(topic=topic, level=Level.SKIP, text=text)


def warn(topic: str, text: str, hint: str) -> Finding:
    """Report what works, but perhaps not as the operator thinks."""
    return Finding(topic=topic, level=Level.WARN, text=text, hint=hint)


def fail(topic: str, text: str, hint: str) -> Finding:
    """Report what keeps the site from working."""
    return Finding(topic=topic, level=Level.FAIL, text=text, hint=hint)
