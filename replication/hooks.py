"""What the manager needs of the program around it: the environment's owner, and whom to tell."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from berkeleydb import db

from replication.handover_work import Writers
from replication.library_work import Calls
from replication.wire import LSN


class Stoppable(Protocol):
    """A thread of the environment."""

    def stop(self) -> None: ...
    def join(self, timeout: float | None = None) -> None: ...
    def is_alive(self) -> bool: ...


class Library(Protocol):
    """What the manager needs of the environment's owner (storage.environment.Environment)."""

    @property
    def env(self) -> db.DBEnv: ...
    def worker(self, name: str) -> Calls: ...
    def adopt(self, thread: Stoppable) -> None: ...


@dataclass(slots=True)
class Hooks:
    """Whom the manager tells, in the event loop.

    Args:
        role_changed: role, master, generation, state or serving may be another one.
        handles_died: databases must be opened again.
        confirmed: (token, None) when a write's policy held, (token, text) when it did not.
            *Thread:* any.
        acked: a site acknowledged more than before. *Thread:* any.
        permanent: (LSN) a permanent record was written. *Thread:* the one that commits.
        panicked: the library needs recovery. *Thread:* any.
        writers: who has to stand still while the master's role is handed over.
        would_roll_back: (LSN) the master lacks what lies behind that record here; nothing is
            undone before `Manager.permitted_rollback` names it and the environment is opened again.
        rolled_back: (LSN) it is undone, and the database is as it was there. *Thread:* apply, which
            takes no other message until this returns.
        errand: does what another site asks of this one as master; must not raise.
        in_step: (whether the whole copy was replaced) the log here is that of the master.
    """

    role_changed: Callable[[], None]
    handles_died: Callable[[], None]
    confirmed: Callable[[Any, str | None], None]
    acked: Callable[[], None]
    permanent: Callable[[tuple[int, int]], None]
    panicked: Callable[[Exception], None]
    writers: Writers
    would_roll_back: Callable[[LSN], None]
    rolled_back: Callable[[LSN], None]
    errand: Callable[[bytes], Awaitable[bytes]]
    in_step: Callable[[bool], None]
