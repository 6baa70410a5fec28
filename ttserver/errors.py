"""The errors of the daemon and its command lines; `storage` and `replication` have their own trees.

All three trees share one shape: the text is one sentence with its facts, `code` is stable for
programs, `hint` names one thing to do. The command lines print the sentence, then the hint.
"""

from typing import ClassVar


class TtserverError(Exception):
    """Base of all expected errors of this package.

    Args:
        message: one sentence, subject first, lower case, values with their units.
        code: stable name for programs; the class's own when left out.
        hint: one thing to do, as a sentence; None when there is nothing to advise.
    """

    default_code: ClassVar[str] = "ERROR"

    def __init__(self, message: str, *, code: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.code = code if code is not None else self.default_code
        self.hint = hint


class ConfigurationError(TtserverError):
    """What was asked for, on the command line or in a file, cannot be right (exit status 2)."""

    default_code = "CONFIG"


def hint_of(error: BaseException) -> str | None:
    """Give the advice an expected error of any of the three trees carries, else None."""
    hint = getattr(error, "hint", None)
    return hint if isinstance(hint, str) and hint else None
