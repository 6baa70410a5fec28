"""Rolls back to a permitted place and to no other.

A site whose log goes on where the master's does not has to give that end up. The library compares
the two logs backwards, a VERIFY message at a time, and undoes what lies behind the first record
that both have, right away when that is found, or with the UPDATE message that follows. Left to
itself it does so without a word. With DB_REP_CONF_AUTOROLLBACK off it refuses instead, with
everything still there, and stays where it is until its environment is opened again.

So automatic rollback is off here but for the very message that leads to the place which was
permitted. Another master may have another place in mind: then the refusal comes again.

Source: `rep_set_config` (DB_REP_CONF_AUTOROLLBACK); the order of the messages was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from berkeleydb import db

from replication.messages import RepType
from replication.wire import LSN

AUTOROLLBACK: Final = 0x08  # DB_REP_CONF_AUTOROLLBACK, which the binding does not name
WOULD_ROLLBACK: Final = -30974

_VERIFY: Final = int(RepType.VERIFY)
COMPARING: Final = frozenset({int(RepType.VERIFY), int(RepType.UPDATE)})


class Rollback:
    """See the module's text. *Thread:* the apply thread's alone, but for `permitted` before it.

    Args:
        env: the library's handle.
        on_undone: called right after the library has rolled back, before it takes another message.

    Attributes:
        permitted: the last record both logs must have; None: nothing may be undone.
        compared: the record that the last VERIFY message was about.
    """

    def __init__(self, env: db.DBEnv, on_undone: Callable[[LSN], None]) -> None:
        self._env = env
        self._on_undone = on_undone
        self.permitted: LSN | None = None
        self.compared: LSN | None = None

    @contextmanager
    def around(self, control: bytes) -> Iterator[None]:
        """Let the library take a VERIFY or UPDATE message, and undo what is permitted.

        Args:
            control: the message's control part.
        """
        if control[19] == _VERIFY:
            self.compared = LSN(int.from_bytes(control[8:12]), int.from_bytes(control[12:16]))
        permitted = self.permitted
        if permitted is None or self.compared != permitted:
            yield
            return
        env = self._env
        end = _log_end(env)
        env.rep_set_config(AUTOROLLBACK, 1)
        try:
            yield
        finally:
            env.rep_set_config(AUTOROLLBACK, 0)
        if _log_end(env) < end:
            self.permitted = None
            self._on_undone(permitted)


def _log_end(env: db.DBEnv) -> LSN:
    stat = env.log_stat()
    return LSN(stat["cur_file"], stat["cur_offset"])
