"""What lines of DB_CONFIG say together: sites, heartbeats, directories, log sizes."""

from collections.abc import Iterable

from storage.dbconfig_lines import Statement
from storage.dbconfig_types import ConfigWarning, SiteLine
from storage.errors import ConfigError
from storage.hosts import is_localhost, is_loopback

HEARTBEATS_A_MONITOR = 5  # when only one of the two times is given; as in the defaults

DIRECTORY_LISTS = ("add_data_dir", "set_data_dir", "db_data_dir", "set_metadata_dir")


class Report:
    """The errors and warnings of one file, as they are found."""

    def __init__(self, file: str, errors: Iterable[ConfigError] = ()) -> None:
        self.file = file
        self.errors = list(errors)
        self.warnings: list[ConfigWarning] = []

    def error(self, line: int, message: str, hint: str, code: str = "CONFIG") -> None:
        """Note what stops the start."""
        self.errors.append(ConfigError(message, file=self.file, line=line, hint=hint, code=code))

    def warn(self, line: int, text: str) -> None:
        """Note what is legal and odd."""
        self.warnings.append(ConfigWarning(line, text, self.file))


def check_sites(sites: list[SiteLine], report: Report) -> None:
    """Exactly one local site, none twice, names that can mean what they should."""
    _check_duplicates(sites, report)
    _check_spelling(sites, report)
    if report.errors:
        return  # a line may be missing from the list, so what follows would be guesses
    local = [site for site in sites if site.local]
    if sites and not local:
        report.error(
            sites[0].line,
            "no repmgr_site line is marked as this site",
            "add `db_local_site on` to the line of this site.",
        )
    for site in local[1:]:
        report.error(
            site.line,
            f"a second local site, the first is in line {local[0].line}",
            "keep `db_local_site on` on the line of this site only.",
        )
    for site in [site for site in sites if site.group_creator][1:]:
        report.warn(site.line, "a second site with db_group_creator on can found a second group")
    for site in local:
        if site.helper or site.peer:
            report.warn(
                site.line, "db_bootstrap_helper and db_repmgr_peer mean nothing for the local site"
            )
    if len(local) == 1:
        _check_reach(local[0], sites, report)


def _check_duplicates(sites: list[SiteLine], report: Report) -> None:
    seen: dict[tuple[str, int], SiteLine] = {}
    for site in sites:
        host = "localhost" if is_localhost(site.host) else site.host.lower().removesuffix(".")
        earlier = seen.setdefault((host, site.port), site)
        if earlier is site:
            continue
        how = "" if earlier.host == site.host else f" ({earlier.address}) in another spelling"
        report.error(
            site.line,
            f"site {site.address} is the one of line {earlier.line}{how}",
            "keep one of the two lines, with the options of both.",
        )


def _check_spelling(sites: list[SiteLine], report: Report) -> None:
    spellings = {site.host: site.line for site in sites if is_localhost(site.host)}
    if len(spellings) > 1:
        report.warn(
            max(spellings.values()),
            f"{' and '.join(spellings)} are this machine in different spellings; sites compare"
            " names byte by byte, so use one everywhere",
        )


def _check_reach(local: SiteLine, sites: list[SiteLine], report: Report) -> None:
    for site in sites:
        if site.local or is_loopback(site.host) == is_loopback(local.host):
            continue
        inner, outer = (local, site) if is_loopback(local.host) else (site, local)
        report.warn(
            inner.line,
            f"{inner.address} is reachable from this machine only, and {outer.address} is"
            " elsewhere",
        )


def check_heartbeats(
    timeouts: dict[str, float | None], lines: dict[str, int], report: Report
) -> None:
    """Keep the monitor longer than the heartbeat; derive the one that is not given.

    Args:
        timeouts: the fields of `ReplicationTimeouts` the file sets, seconds; completed here.
        lines: the line of each.
        report: gets what is wrong.
    """
    send, monitor = timeouts.get("heartbeat_send_s"), timeouts.get("heartbeat_monitor_s")
    if send is None and monitor is None:
        return
    if monitor is None:
        timeouts["heartbeat_monitor_s"] = (send or 0.0) * HEARTBEATS_A_MONITOR
    elif send is None:
        timeouts["heartbeat_send_s"] = monitor / HEARTBEATS_A_MONITOR
    elif 0 < monitor <= send:
        report.error(
            lines["heartbeat_monitor_s"],
            f"db_rep_heartbeat_monitor ({monitor:g} s) must be longer than"
            f" db_rep_heartbeat_send ({send:g} s)",
            "write `rep_set_timeout db_rep_heartbeat_monitor"
            f" {round(send * HEARTBEATS_A_MONITOR * 1_000_000)}`.",
        )
    elif send == 0 and monitor:
        report.warn(
            lines["heartbeat_send_s"],
            "a master without heartbeats is given up by its replicants when it is idle",
        )


def check_directories(passed: list[Statement], report: Report) -> None:
    """The library wants set_create_dir to name a data directory of an earlier line."""
    known: set[str] = set()
    for statement in passed:
        if statement.directive.name in DIRECTORY_LISTS:
            known.add(statement.word)
        elif statement.directive.name == "set_create_dir" and statement.word not in known:
            report.error(
                statement.line,
                f"set_create_dir: {statement.word} is not among the data directories before it",
                f"write `add_data_dir {statement.word}` on the line before.",
            )


def check_log_sizes(passed: list[Statement], report: Report) -> None:
    """Warn of a log file that a few log buffers fill: the manual's rule, which nobody enforces."""
    sizes = {s.directive.name: s for s in passed if s.numbers}
    log, buffer = sizes.get("set_lg_max"), sizes.get("set_lg_bsize")
    if log and buffer and 0 < log.numbers[0] < 4 * buffer.numbers[0]:
        report.warn(
            max(log.line, buffer.line),
            f"set_lg_max ({log.numbers[0]} bytes) should be at least four times set_lg_bsize"
            f" ({buffer.numbers[0]} bytes)",
        )
