"""The command table: name, arity, kind, flags, keys and help text of every command.

A command's function is chosen by its kind:

    READ    run(store, txn, args) -> value      in a read transaction, in the loop or on a thread
    WRITE   run(store, txn, args) -> value      in the group commit, perhaps more than once
    LOCAL   run(client, args) -> value          at once, in the loop
    EXEC    no function of its own: runs the queued commands as one READ or WRITE
    SETTLED as LOCAL, but after all earlier replies of the connection are known
    WAITING async run(client, args) -> value    as SETTLED; later commands wait for it

READ and WRITE functions check their arguments and raise `CommandError` before they write.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

from ttserver.replies import CommandError


class Kind(IntEnum):
    """How a command is run, see above."""

    READ = 0
    WRITE = 1
    LOCAL = 2
    SETTLED = 3
    WAITING = 4
    EXEC = 5


@dataclass(frozen=True, slots=True)
class Command:
    """One command, or one subcommand of a container such as CLIENT.

    Args:
        name: lower case; `client|list` for a subcommand.
        arity: as in Redis: so many arguments with the name, or at least -arity.
        summary: one sentence for COMMAND DOCS.
        usage: its arguments the way `redis-cli` shows them.
        keys: first key, last key (-1: to the end), step; (0, 0, 0) without keys.
        before_login: may be sent before AUTH.
        in_multi: may be queued in a transaction.
        right: what the user must be allowed, see `Login.may`.
        heavy: tells whether these arguments ask for more than a read in the loop may cost.
        values: tells whether the reply to these arguments holds stored values.
        prepare: READ, WRITE: in the loop before: prepare(client, args) makes what `run` gets.
        finish: READ only, in the loop after: finish(client, value) makes the reply.
    """

    name: str
    arity: int
    kind: Kind
    run: Callable[..., Any]
    summary: str
    usage: str = ""
    group: str = "generic"
    complexity: str = "O(1)"
    keys: tuple[int, int, int] = (0, 0, 0)
    before_login: bool = False
    in_multi: bool = True
    right: str | None = None
    heavy: Callable[[Sequence[bytes]], bool] | None = None
    prepare: Callable[[Any, Sequence[bytes]], Any] | None = None
    finish: Callable[[Any, Any], Any] | None = None
    values: Callable[[Sequence[bytes]], bool] | None = None
    subcommands: dict[bytes, "Command"] = field(default_factory=dict)
    simple: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        """Work out `simple`: a read that needs nothing but its arguments."""
        object.__setattr__(self, "simple", self.kind is Kind.READ and self.prepare is None)

    def fits(self, count: int) -> bool:
        """Tell whether `count` arguments, the name included, are a right number."""
        return count == self.arity if self.arity > 0 else count >= -self.arity

    def keys_of(self, args: Sequence[bytes]) -> Sequence[bytes]:
        """The keys among the arguments."""
        first, last, step = self.keys
        if first == 0:
            return ()
        if last == first:
            return (args[first],)
        return args[first : len(args) + last + 1 : step]

    def returns_value(self, args: Sequence[bytes]) -> bool:
        """Tell whether the reply may be as long as a stored value."""
        return self.values is not None and self.values(args)

    def refuse_count(self) -> CommandError:
        """The error for a wrong number of arguments."""
        return CommandError(f"ERR wrong number of arguments for '{self.name}' command")


COMMANDS_CACHED_MAX: Final = 4096  # spellings of names, "gEt" and so on


class Table:
    """Commands by the bytes a client sends for their name."""

    def __init__(self, commands: Sequence[Command]) -> None:
        self._by_name = {command.name.encode(): command for command in commands}
        assert len(self._by_name) == len(commands), "two commands of one name"
        self.spellings: dict[bytes, Command] = {}
        for name, command in self._by_name.items():
            for spelling in (name, name.upper(), name.capitalize()):
                self.spellings[spelling] = command

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[Command]:
        return iter(self._by_name.values())

    def find(self, name: bytes) -> Command | None:
        """Find a command by its name in any case.

        `spellings` is the first place to look; this remembers what it finds there.
        """
        command = self.spellings.get(name)
        if command is None:
            command = self._by_name.get(name.lower())
            if command is not None and len(self.spellings) < COMMANDS_CACHED_MAX:
                self.spellings[name] = command
        return command

    def resolve(self, args: Sequence[bytes]) -> Command:
        """Find the command, or the subcommand of a container, that these arguments call.

        Raises:
            CommandError: it does not exist, or has another number of arguments.
        """
        command = self.find(args[0])
        if command is None:
            raise unknown_command(args)
        if command.subcommands and len(args) > 1:
            inner = command.subcommands.get(args[1].lower())
            if inner is None:
                known = ", ".join(sorted(name.decode().upper() for name in command.subcommands))
                raise CommandError(
                    f"ERR unknown subcommand '{_quote(args[1])}': "
                    f"{command.name.upper()} has {known}"
                )
            command = inner
        if not command.fits(len(args)):
            raise command.refuse_count()
        return command


def unknown_command(args: Sequence[bytes]) -> CommandError:
    """The error for a name that is no command's; it shows how the client's words arrived."""
    shown = ""
    for arg in args[1:]:
        if len(shown) >= 128:
            break
        shown += f"'{_quote(arg)}' "
    return CommandError(
        f"ERR unknown command '{_quote(args[0])}', with args beginning with: {shown}"
    )


def _quote(word: bytes) -> str:
    return word[:128].decode("utf-8", "backslashreplace")
