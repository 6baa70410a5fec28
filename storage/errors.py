"""The errors of the storage package.

    StorageError        facts, a stable `code`, one `hint`
    +-- ConfigError     a line of a configuration file, or the file as a whole, that cannot be right

Errors that need more than this (the environment's, a watch's) are subclasses next to their code.
The text names its subject first; who prints it adds a line `HINT: ` with the hint.
"""

from collections.abc import Iterable
from typing import ClassVar


class StorageError(Exception):
    """Base of all expected errors of this package.

    Args:
        message: one sentence, subject first, lower case, values with their units.
        code: stable name for programs; the class's own when left out.
        hint: one thing to do, as a sentence; None when there is nothing to advise.
        **facts: the numbers and names the sentence was made of.
    """

    default_code: ClassVar[str] = "STORAGE"

    def __init__(
        self, message: str, *, code: str | None = None, hint: str | None = None, **facts: object
    ) -> None:
        super().__init__(message)
        self.code = code if code is not None else self.default_code
        self.hint = hint
        self.facts = facts


class ConfigError(StorageError):
    """A configuration file cannot be used (exit status 2).

    Args:
        message: the sentence without its place.
        file: the file's name as the operator knows it, such as `var/db/DB_CONFIG`.
        line: line of that file from 1; 0 when the whole file is meant.
        also: the further errors of the same file; the first one is this error.
    """

    default_code = "CONFIG"

    def __init__(
        self,
        message: str,
        *,
        file: str = "DB_CONFIG",
        line: int = 0,
        code: str | None = None,
        hint: str | None = None,
        also: Iterable["ConfigError"] = (),
        **facts: object,
    ) -> None:
        place = f"{file}:{line}" if line else file
        super().__init__(f"{place}: {message}", code=code, hint=hint, **facts)
        self.file = file
        self.line = line
        self.also = tuple(also)

    @property
    def all(self) -> tuple["ConfigError", ...]:
        """This error and the further ones, in the order of their lines."""
        return (self, *self.also)
