"""DB_CONFIG to `DbConfig`: which line wins, what each handled directive means, what does not fit.

Source: API reference, the page of each method; the syntax is in `storage.dbconfig_lines`.
"""

from collections.abc import Callable, Iterable
from typing import Any

from storage.dbconfig_checks import (
    Report,
    check_directories,
    check_heartbeats,
    check_log_sizes,
    check_sites,
)
from storage.dbconfig_lines import Statement, read_lines
from storage.dbconfig_options import SAME_FLAG
from storage.dbconfig_rules import REFUSED
from storage.dbconfig_table import Text
from storage.dbconfig_types import (
    ClockSkew,
    DbConfig,
    RepConfig,
    ReplicationTimeouts,
    RepLimit,
    RepRequest,
    SiteLine,
)
from storage.errors import ConfigError
from storage.hosts import host_problem, is_wildcard

BYTES_MAX = 2**20  # of the whole file; a real one has a few lines

# db_rep_... -> (field of ReplicationTimeouts, may be 0)
TIMEOUT_FIELDS = {
    "db_rep_ack_timeout": ("ack_s", False),
    "db_rep_checkpoint_delay": ("checkpoint_delay_s", True),
    "db_rep_connection_retry": ("connection_retry_s", False),
    "db_rep_election_timeout": ("election_s", False),
    "db_rep_election_retry": ("election_retry_s", False),
    "db_rep_full_election_timeout": ("full_election_s", True),
    "db_rep_heartbeat_send": ("heartbeat_send_s", True),
    "db_rep_heartbeat_monitor": ("heartbeat_monitor_s", True),
}
TIMEOUT_US_MIN = 1000  # shorter than any answer over a network: surely a value in ms or s
CONFIG_FIELDS = {
    "db_rep_conf_autoinit": "autoinit",
    "db_rep_conf_autorollback": "autorollback",
    "db_rep_conf_bulk": "bulk",
    "db_rep_conf_delayclient": "delayclient",
    "db_rep_conf_nowait": "nowait",
    "db_repmgr_conf_2site_strict": "two_site_strict",
    "db_repmgr_conf_elections": "elections",
}
SITE_FIELDS = {
    "db_bootstrap_helper": "helper",
    "db_group_creator": "group_creator",
    "db_legacy": "legacy",
    "db_local_site": "local",
    "db_repmgr_peer": "peer",
}


def parse(text: str, file: str = "DB_CONFIG") -> DbConfig:
    """Read the text of a DB_CONFIG.

    Args:
        text: the whole file.
        file: its name for messages, as the operator knows it.

    Raises:
        ConfigError: the first line that is wrong; its `all` holds every one.
    """
    if len(text) > BYTES_MAX:
        raise ConfigError(
            f"the file has {len(text)} characters, the most is {BYTES_MAX}",
            file=file,
            hint="check that this is a DB_CONFIG.",
        )
    statements, errors = read_lines(text, file)
    report = Report(file, errors)
    config = _Parser(report).build(statements)
    if report.errors:
        first, *rest = sorted(report.errors, key=lambda error: error.line)
        first.also = tuple(rest)
        raise first
    return config


def setting_of(statement: Statement) -> tuple[str, str]:
    """Name the setting a line makes: lines with the same name replace each other."""
    directive = statement.directive
    name, option = directive.same_as or directive.name, ""
    if directive.repeat == "per option":
        option = SAME_FLAG.get(statement.option, statement.option)
        if statement.option in SAME_FLAG:
            name = "log_set_config"
    elif name == "set_region_init":
        name, option = "set_flags", "db_region_init"
    return name, option


class _Parser:
    """Collects what the statements say; what is wrong with them goes to the report."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.fields: dict[str, Any] = {}
        self.timeouts: dict[str, float | None] = {}
        self.timeout_lines: dict[str, int] = {}
        self.switches: dict[str, bool] = {}
        self.sites: list[SiteLine] = []
        self.handlers: dict[str, Callable[[Statement], None]] = {
            "rep_set_clockskew": self._clockskew,
            "rep_set_config": self._config,
            "rep_set_limit": self._limit,
            "rep_set_nsites": self._nsites,
            "rep_set_priority": self._priority,
            "rep_set_request": self._request,
            "rep_set_timeout": self._timeout,
            "repmgr_set_ack_policy": self._ack_policy,
            "repmgr_site": self._site,
        }

    def build(self, statements: list[Statement]) -> DbConfig:
        """Apply the lines in order, then look at what they say together."""
        passed: list[Statement] = []
        for statement in self._last_ones(statements):
            if self._refused(statement):
                continue
            handler = self.handlers.get(statement.directive.name)
            if handler is not None:
                handler(statement)
            elif setting_of(statement) == ("log_set_config", "db_log_auto_remove"):
                self.fields["log_autoremove"] = statement.on
            else:
                passed.append(statement)
        check_sites(self.sites, self.report)
        check_heartbeats(self.timeouts, self.timeout_lines, self.report)
        check_directories(passed, self.report)
        check_log_sizes(passed, self.report)
        return DbConfig(
            sites=tuple(self.sites),
            timeouts=ReplicationTimeouts(**self.timeouts),  # type: ignore[arg-type]
            rep_config=RepConfig(**self.switches),
            replication=any(s.directive.handled for s in statements),
            passthrough=tuple((s.line, s.text) for s in passed),
            verbose=tuple(s.option for s in passed if s.directive.name == "set_verbose" and s.on),
            directories=tuple(
                (s.line, s.directive.name, s.word)
                for s in passed
                if s.directive.arguments[0] == Text("directory")
            ),
            warnings=tuple(sorted(self.report.warnings, key=lambda warning: warning.line)),
            **self.fields,
        )

    # -- which lines count ------------------------------------------------------------------

    def _last_ones(self, statements: Iterable[Statement]) -> list[Statement]:
        """Drop what a later line replaces, with a warning."""
        kept: dict[tuple[str, ...], Statement] = {}
        for statement in statements:
            if statement.directive.repeat in ("list", "per site"):
                kept["line", str(statement.line)] = statement
                continue
            setting = setting_of(statement)
            earlier = kept.pop(setting, None)  # a new key goes to the end: the order of the file
            if earlier is not None:
                what = " ".join(filter(None, setting))
                self.report.warn(
                    statement.line, f"{what} was set in line {earlier.line} already; this one wins"
                )
            kept[setting] = statement
        return list(kept.values())

    def _refused(self, statement: Statement) -> bool:
        """Refuse what would break a promise; drop the same option when it is switched off."""
        refusal = REFUSED.get((statement.directive.name, statement.option))
        if refusal is None:
            return False
        if statement.on == refusal.when_on:
            self.report.error(
                statement.line,
                f"{statement.option}{'' if statement.on else ' off'} is refused: {refusal.reason}",
                refusal.hint,
                code="REFUSED",
            )
        return True

    # -- the handled directives -------------------------------------------------------------

    def _clockskew(self, statement: Statement) -> None:
        fast, slow = statement.numbers
        if (fast, slow) == (0, 0):  # the library's way to say: none
            fast = slow = 1
        if fast < slow or slow == 0:
            self.report.error(
                statement.line,
                f"rep_set_clockskew: the fast clock is below the slow one, got {fast} {slow}",
                "write `rep_set_clockskew 102 100` for two per cent.",
            )
        self.fields["clockskew"] = ClockSkew(fast, slow)

    def _config(self, statement: Statement) -> None:
        self.switches[CONFIG_FIELDS[statement.option]] = statement.on

    def _limit(self, statement: Statement) -> None:
        self.fields["rep_limit"] = RepLimit(*statement.numbers)

    def _nsites(self, statement: Statement) -> None:
        (self.fields["nsites"],) = statement.numbers

    def _priority(self, statement: Statement) -> None:
        (self.fields["priority"],) = statement.numbers
        self.fields["priority_set"] = True

    def _request(self, statement: Statement) -> None:
        low, high = statement.numbers
        if high < low:
            self.report.error(
                statement.line,
                f"rep_set_request: the longest wait is below the shortest, got {low} {high} us",
                "write `rep_set_request 40000 1280000`.",
            )
        self.fields["rep_request"] = RepRequest(low, high)

    def _timeout(self, statement: Statement) -> None:
        field, zero = TIMEOUT_FIELDS[statement.option]
        (value_us,) = statement.numbers
        if value_us < TIMEOUT_US_MIN and not (zero and value_us == 0):
            allowed = f"0 or {TIMEOUT_US_MIN}" if zero else str(TIMEOUT_US_MIN)
            self.report.error(
                statement.line,
                f"{statement.option} must be {allowed}..4294967295 us, got {value_us}",
                "time-outs are microseconds: 1000000 is one second.",
            )
        value_s = value_us / 1_000_000
        self.timeouts[field] = None if field == "full_election_s" and not value_us else value_s
        self.timeout_lines[field] = statement.line

    def _ack_policy(self, statement: Statement) -> None:
        self.fields["ack_policy"] = statement.option.removeprefix("db_repmgr_acks_").upper()
        self.fields["ack_policy_set"] = True

    def _site(self, statement: Statement) -> None:
        problem = host_problem(statement.word)
        if problem is None and is_wildcard(statement.word):
            problem = f"{statement.word} is no address that other sites can reach"
        if problem is not None:
            self.report.error(
                statement.line,
                f"repmgr_site: {problem}",
                "write the name or address by which the other sites reach this one.",
            )
            return
        self.sites.append(
            SiteLine(
                host=statement.word,
                port=statement.numbers[0],
                line=statement.line,
                **{SITE_FIELDS[option]: on for option, on in statement.pairs},
            )
        )
