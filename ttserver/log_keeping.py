"""Which log files this site keeps: what the other sites need, what the operator decided."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from storage import log_retention
from storage.environment import Environment
from storage.log_retention import Logs, Need, Verdict, decide
from ttserver.status import LogsStatus

if TYPE_CHECKING:
    from replication.holdings import LogNeed
    from ttserver.config import ServerConfig


class LogFileStatus(msgspec.Struct, frozen=True):
    """One log file.

    Args:
        why: the reasons to keep it, empty when it may go.
    """

    number: int
    size_bytes: int
    may_go: bool
    why: tuple[str, ...]


class Archive(msgspec.Struct, frozen=True):
    """What `ttserver archive` shows.

    Args:
        files: oldest first.
        total_bytes, may_go_bytes: of all of them, of those that may go.
        budget_bytes: `[storage] log_budget`, 0 for none.
        auto_remove: those that may go are removed without being asked for.
        lost: sites that need a complete copy, because log they needed is gone.
        removed: numbers of the files that were removed just now.
    """

    files: list[LogFileStatus]
    total_bytes: int
    may_go_bytes: int
    budget_bytes: int
    auto_remove: bool
    lost: list[str]
    removed: list[int]


class LogKeeping:
    """Decides for the upkeep thread, and remembers what it saw for the status.

    Args:
        config: says what is removed, and the budget.
        needs: what the other sites may need; None while that is not known. *Thread:* any.

    Attributes:
        logs: the log files as they were seen last, None before the first look.
        verdict: what was decided then.
    """

    def __init__(
        self, config: ServerConfig, needs: Callable[[], tuple[LogNeed, ...] | None]
    ) -> None:
        self.auto_remove = config.db.log_autoremove
        self.budget_bytes = int(config.settings.storage.log_budget)
        self._needs = needs
        self.logs: Logs | None = None
        self.verdict = Verdict()

    def removable(self, logs: Logs) -> frozenset[int]:
        """The numbers of the log files that go now. *Thread:* upkeep."""
        verdict = self._decide(logs)
        self.logs, self.verdict = logs, verdict if verdict is not None else Verdict()
        return self.verdict.remove

    def archive(self, environment: Environment, *, remove: bool) -> Archive:
        """Look at every log file now. *Thread:* any of the environment's.

        Args:
            remove: remove those that may go.
        """
        logs = log_retention.look(environment)
        verdict = self._decide(logs)
        if verdict is None:
            why = ("what the other sites need is not known yet",)
            verdict = Verdict([(file, why) for file in logs.files])
        may_go = {file.number for file in verdict.may_go}
        removed = log_retention.remove(environment, may_go) if remove else []
        left = [(file, why) for file, why in verdict.kept if file.number not in removed]
        return Archive(
            [LogFileStatus(f.number, f.size_bytes, not why, why) for f, why in left],
            sum(file.size_bytes for file, _ in left),
            sum(file.size_bytes for file, why in left if not why),
            self.budget_bytes,
            self.auto_remove,
            [need.why for need in verdict.lost],
            removed,
        )

    def status(self) -> LogsStatus | None:
        """The figures for `status`; None before the first look."""
        if self.logs is None:
            return None
        return LogsStatus(
            len(self.logs.files),
            self.logs.total_bytes,
            sum(file.size_bytes for file in self.verdict.may_go),
            self.budget_bytes or None,
        )

    def _decide(self, logs: Logs) -> Verdict | None:
        needs = self._needs()
        if needs is None:
            return None
        return decide(
            logs,
            [Need(str(need.site), need.file, need.why) for need in needs],
            tidy=self.auto_remove,
            budget_bytes=self.budget_bytes,
        )
