"""DB_CONFIG: what each line means, what is refused and why, and the two files at a start."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.dbconfig import (
    ClockSkew,
    DbConfig,
    RepConfig,
    ReplicationTimeouts,
    RepLimit,
    RepRequest,
    SiteLine,
    generate,
    install,
    parse,
    read,
)
from storage.dbconfig_rules import REFUSED
from storage.errors import ConfigError

TWO_SITES = """\
repmgr_site db1 5010 db_local_site on db_group_creator on
repmgr_site db2 5010
"""


def errors_of(text: str, file: str = "DB_CONFIG") -> tuple[ConfigError, ...]:
    with pytest.raises(ConfigError) as caught:
        parse(text, file)
    return caught.value.all


def warnings_of(text: str) -> list[str]:
    return [str(warning) for warning in parse(text).warnings]


# -- the syntax -------------------------------------------------------------------------------


def test_nothing_written_is_a_lone_master_with_the_defaults() -> None:
    config = parse("# a comment\n\n   \t\n  # rep_set_priority 3\n")
    assert config == DbConfig()
    assert not config.replication
    assert config.local_site is None
    assert config.ack_policy_number == 7


def test_a_whole_file() -> None:
    config = parse(
        "# two sites\r\n"
        "\trepmgr_site  10.0.0.1\t5010 db_local_site on DB_GROUP_CREATOR On\r\n"
        "repmgr_site [fd00::2] 5100 db_bootstrap_helper on db_repmgr_peer 1 db_legacy off\r\n"
        "REPMGR_SET_ACK_POLICY DB_REPMGR_ACKS_ONE\r\n"
        "rep_set_priority 1\r\n"
        "rep_set_timeout db_rep_ack_timeout 500000\r\n"
        "rep_set_timeout db_rep_full_election_timeout 7000000\r\n"
        "rep_set_config db_rep_conf_bulk\r\n"
        "rep_set_config db_repmgr_conf_2site_strict off\r\n"
        "rep_set_limit 1 0\r\n"
        "rep_set_request 1000 2000\r\n"
        "rep_set_clockskew 102 100\r\n"
        "rep_set_nsites 3\r\n"
        "set_cachesize 0 1048576 1\r\n"
        "set_verbose db_verb_replication on\r\n"
        "set_flags db_auto_commit\r\n"
    )
    assert config.sites == (
        SiteLine(host="10.0.0.1", port=5010, local=True, group_creator=True, line=2),
        SiteLine(host="fd00::2", port=5100, helper=True, peer=True, line=3),
    )
    assert [site.address for site in config.sites] == ["10.0.0.1:5010", "[fd00::2]:5100"]
    assert (config.local_site, config.remote_sites) == (config.sites[0], config.sites[1:])
    assert (config.ack_policy, config.ack_policy_number) == ("ONE", 5)
    assert (config.priority, config.priority_set, config.replication) == (1, True, True)
    assert config.timeouts == ReplicationTimeouts(ack_s=0.5, full_election_s=7.0)
    assert config.rep_config == RepConfig(bulk=True, two_site_strict=False)
    assert config.rep_limit == RepLimit(1, 0)
    assert config.rep_request == RepRequest(1000, 2000)
    assert config.clockskew == ClockSkew(102, 100)
    assert config.nsites == 3
    assert config.verbose == ("db_verb_replication",)
    assert config.passthrough == (
        (14, "set_cachesize 0 1048576 1"),
        (15, "set_verbose db_verb_replication on"),
        (16, "set_flags db_auto_commit"),
    )
    assert config.warnings == ()


def test_a_directory_name_runs_to_the_end_of_the_line() -> None:
    config = parse("add_data_dir  my data\tfiles # here \n")
    assert config.directories == ((1, "add_data_dir", "my data\tfiles # here"),)


BAD_LINES = [
    (
        "rep-set-priority 1",
        "unknown directive rep-set-priority, did you mean rep_set_priority?",
        "write `rep_set_priority PRIORITY`.",
    ),
    (
        "SET_TX_MAX 5",  # the library knows simple names in lower case only
        "unknown directive SET_TX_MAX, did you mean set_tx_max?",
        "write `set_tx_max TRANSACTIONS`.",
    ),
    (
        "frobnicate 1",
        "unknown directive frobnicate",
        "remove the line, or put a # before it; docs/CONFIGURATION.md lists every name.",
    ),
    ("x" * 999, f"unknown directive {'x' * 60}...", None),
    (
        "db_rep_ack_timeout 5000",
        "db_rep_ack_timeout is not a directive, it belongs to rep_set_timeout",
        "write `rep_set_timeout db_rep_ack_timeout 5000`.",
    ),
    (
        "set_flags db_rep_conf_bulk",
        "set_flags: db_rep_conf_bulk belongs to rep_set_config",
        "write `rep_set_config db_rep_conf_bulk ...`.",
    ),
    (
        "rep_set_config db_rep_conf_bulc",
        "rep_set_config: unknown option db_rep_conf_bulc, did you mean db_rep_conf_bulk?",
        None,
    ),
    (
        "rep_set_config db_rep_conf_bulk yes",
        'rep_set_config: on or off is wanted, got "yes"',
        "write `rep_set_config OPTION [on|off]`.",
    ),
    ("set_tx_max", "set_tx_max: TRANSACTIONS is missing", "write `set_tx_max TRANSACTIONS`."),
    (
        "set_tx_max 5 # enough",
        'set_tx_max: there is too much on the line: "# enough"',
        "move the comment to a line of its own.",
    ),
    (
        "set_cachesize 0 256M 1",
        'set_cachesize: bytes must be 0..4294967295, got "256M"',
        "write a decimal number without a unit.",
    ),
    (
        "set_lk_partitions 0",
        "set_lk_partitions: partitions must be 1..100000, got 0",
        "choose a number from 1 to 100000.",
    ),
    (
        "set_lg_filemode 0640",
        "set_lg_filemode: 0640 would be read as a decimal number, not as octal",
        "write `set_lg_filemode 416` for the permissions 0640.",
    ),
    (
        "set_lg_filemode 640",
        "set_lg_filemode: mode must be 0..511, got 640",
        "permissions are a decimal number here: 384 is 0600.",
    ),
    (
        "set_mp_pagesize 5000",
        "set_mp_pagesize: bytes must be a power of two, got 5000",
        "write 8192.",
    ),
    (
        "set_intermediate_dir_mode 0750",
        'set_intermediate_dir_mode: the mode must be such as `rwxr-x---`, got "0750"',
        "write `set_intermediate_dir_mode MODE`.",
    ),
    ("set_lg_dir  ", "set_lg_dir: DIRECTORY is missing", "write `set_lg_dir DIRECTORY`."),
    (
        "set_tx_max \x015",
        "the line holds a control character (0x01)",
        "write the line anew.",
    ),
    (
        "set_lg_dir " + "x" * 250,
        "the line has more than 254 bytes, which Berkeley DB cannot read",
        "use a shorter path.",
    ),
    (
        "repmgr_site db1:5010 db_local_site on",
        "repmgr_site: host and port are two words, got db1:5010",
        "write `repmgr_site db1 5010 ...`.",
    ),
    (
        "repmgr_site db1 0 db_local_site on",
        "repmgr_site: port must be 1..65535, got 0",
        "choose a number from 1 to 65535.",
    ),
    (
        "repmgr_site db1 5010 db_local_site",
        "repmgr_site: db_local_site wants on or off after it",
        "write `db_local_site on`.",
    ),
    (
        "repmgr_site 10.0.0.300 5010 db_local_site on",
        "repmgr_site: 10.0.0.300 is not an IPv4 address",
        "write the name or address by which the other sites reach this one.",
    ),
    (
        "repmgr_site 0.0.0.0 5010 db_local_site on",
        "repmgr_site: 0.0.0.0 is no address that other sites can reach",
        "write the name or address by which the other sites reach this one.",
    ),
    (
        "repmgr_site fd00::xyz 5010 db_local_site on",
        "repmgr_site: fd00::xyz is not an IPv6 address",
        "write the name or address by which the other sites reach this one.",
    ),
    (
        "repmgr_site -db 5010 db_local_site on",
        "repmgr_site: -db is neither a host name nor an address",
        "write the name or address by which the other sites reach this one.",
    ),
    (
        "rep_set_timeout db_rep_ack_timeout 20",
        "db_rep_ack_timeout must be 1000..4294967295 us, got 20",
        "time-outs are microseconds: 1000000 is one second.",
    ),
    (
        "rep_set_timeout db_rep_heartbeat_send 20",
        "db_rep_heartbeat_send must be 0 or 1000..4294967295 us, got 20",
        "time-outs are microseconds: 1000000 is one second.",
    ),
    (
        "rep_set_request 2000 1000",
        "rep_set_request: the longest wait is below the shortest, got 2000 1000 us",
        "write `rep_set_request 40000 1280000`.",
    ),
    (
        "rep_set_clockskew 100 102",
        "rep_set_clockskew: the fast clock is below the slow one, got 100 102",
        "write `rep_set_clockskew 102 100` for two per cent.",
    ),
    (
        "set_create_dir data",
        "set_create_dir: data is not among the data directories before it",
        "write `add_data_dir data` on the line before.",
    ),
]


@pytest.mark.parametrize(("line", "message", "hint"), BAD_LINES, ids=[b[0][:40] for b in BAD_LINES])
def test_a_bad_line_is_named_with_its_number_and_a_remedy(
    line: str, message: str, hint: str | None
) -> None:
    (error,) = errors_of(f"# first\n\n{line}\n", "var/db/DB_CONFIG")
    assert str(error) == f"var/db/DB_CONFIG:3: {message}"
    assert (error.line, error.file) == (3, "var/db/DB_CONFIG")
    if hint is not None:
        assert error.hint == hint
    else:
        assert error.hint


def test_all_errors_are_collected_in_the_order_of_the_lines() -> None:
    text = "set_flags db_txn_nosync\nrep_set_priority x\nset_tx_max 1\nbad\n"
    assert [error.line for error in errors_of(text)] == [1, 2, 4]


def test_a_huge_file_is_refused_without_being_parsed() -> None:
    (error,) = errors_of("set_tx_max 1\n" * 100_000)
    assert "1300000 characters" in str(error)


# -- what counts ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "warning", "passed"),
    [
        (
            "rep_set_priority 1\nrep_set_priority 0\n",
            "DB_CONFIG:2: rep_set_priority was set in line 1 already; this one wins",
            [],
        ),
        (
            "set_tx_max 1\nset_lg_max 9\nset_tx_max 2\n",
            "DB_CONFIG:3: set_tx_max was set in line 1 already; this one wins",
            ["set_lg_max 9", "set_tx_max 2"],
        ),
        (
            "set_tas_spins 1\nmutex_set_tas_spins 2\n",
            "DB_CONFIG:2: mutex_set_tas_spins was set in line 1 already; this one wins",
            ["mutex_set_tas_spins 2"],
        ),
        (
            "set_flags db_dsync_log\nlog_set_config DB_LOG_DSYNC off\n",
            "DB_CONFIG:2: log_set_config db_log_dsync was set in line 1 already; this one wins",
            ["log_set_config DB_LOG_DSYNC off"],
        ),
        (
            "set_flags db_region_init\nset_region_init 0\n",
            "DB_CONFIG:2: set_flags db_region_init was set in line 1 already; this one wins",
            ["set_region_init 0"],
        ),
    ],
)
def test_the_last_of_two_lines_wins_with_a_warning(
    text: str, warning: str, passed: list[str]
) -> None:
    config = parse(text)
    assert [str(w) for w in config.warnings] == [warning]
    assert [line for _, line in config.passthrough] == passed
    assert config.priority == (0 if "priority" in text else 100)


def test_lines_for_different_options_and_data_directories_add_up() -> None:
    text = "set_flags db_auto_commit\nset_flags db_nommap\nadd_data_dir a\nadd_data_dir b\n"
    config = parse(text)
    assert len(config.passthrough) == 4
    assert not config.warnings


def test_a_refused_option_that_is_switched_back_by_a_later_line_is_no_error() -> None:
    config = parse("set_flags db_txn_nosync on\nset_flags db_txn_nosync off\n")
    assert config.passthrough == ()


@pytest.mark.parametrize(("name", "option"), REFUSED)
def test_refused_options_say_why_and_what_to_use_instead(name: str, option: str) -> None:
    refusal = REFUSED[name, option]
    value = "1000000" if name == "rep_set_timeout" else ("on" if refusal.when_on else "off")
    (error,) = errors_of(f"{name} {option.upper()} {value}\n")
    off = "" if refusal.when_on else " off"
    assert str(error) == f"DB_CONFIG:1: {option}{off} is refused: {refusal.reason}"
    assert (error.code, error.hint) == ("REFUSED", refusal.hint)
    if name != "rep_set_timeout":
        other_way = parse(f"{name} {option} {'off' if refusal.when_on else 'on'}\n")
        assert other_way.passthrough == ()


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("set_flags DB_LOG_AUTOREMOVE", True),
        ("log_set_config db_log_auto_remove on", True),
        ("set_flags db_log_autoremove off", False),
    ],
)
def test_log_removal_is_ours_and_not_passed_on(line: str, wanted: bool) -> None:
    config = parse(line)
    assert config.log_autoremove is wanted
    assert config.passthrough == ()


# -- sites ------------------------------------------------------------------------------------


def test_sites_without_a_local_one() -> None:
    (error,) = errors_of("repmgr_site db1 5010\nrepmgr_site db2 5010\n")
    assert str(error) == "DB_CONFIG:1: no repmgr_site line is marked as this site"


def test_two_local_sites() -> None:
    (error,) = errors_of(TWO_SITES + "repmgr_site db3 5010 db_local_site on\n")
    assert str(error) == "DB_CONFIG:3: a second local site, the first is in line 1"


def test_a_bad_site_line_does_not_make_the_good_ones_wrong_as_well() -> None:
    (error,) = errors_of("repmgr_site db1 x db_local_site on\nrepmgr_site db2 5010\n")
    assert error.line == 1


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("db1", "site db1:5010 is the one of line 1"),
        ("DB1.", "site DB1.:5010 is the one of line 1 (db1:5010) in another spelling"),
    ],
)
def test_the_same_site_twice(second: str, message: str) -> None:
    (error,) = errors_of(f"repmgr_site db1 5010 db_local_site on\nrepmgr_site {second} 5010\n")
    assert str(error) == f"DB_CONFIG:2: {message}"


def test_localhost_and_its_address_are_one_machine() -> None:
    (error,) = errors_of(
        "repmgr_site localhost 5010 db_local_site on\nrepmgr_site 127.0.0.1 5010\n"
    )
    assert "in another spelling" in str(error)
    mixed = "repmgr_site localhost 5010 db_local_site on\nrepmgr_site ::1 5011\n"
    (warning,) = warnings_of(mixed)
    assert warning.startswith("DB_CONFIG:2: localhost and ::1 are this machine in different")


def test_two_addresses_of_the_loopback_network_are_two_sites() -> None:
    two = "repmgr_site 127.0.0.1 5010 db_local_site on\nrepmgr_site 127.0.0.2 5010\n"
    assert warnings_of(two) == []


def test_a_loopback_site_among_others_is_warned_about() -> None:
    (warning,) = warnings_of(
        "repmgr_site localhost 5010 db_local_site on\nrepmgr_site 10.0.0.2 5010\n"
    )
    assert warning == (
        "DB_CONFIG:1: localhost:5010 is reachable from this machine only, and 10.0.0.2:5010 is"
        " elsewhere"
    )


def test_two_creators_are_warned_about() -> None:
    assert warnings_of(TWO_SITES + "repmgr_site db3 5010 db_group_creator on\n") == [
        "DB_CONFIG:3: a second site with db_group_creator on can found a second group"
    ]


# -- times ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("send_us", "monitor_us", "expected"),
    [
        (None, None, (0.2, 1.0)),
        (500_000, None, (0.5, 2.5)),
        (None, 500_000, (0.1, 0.5)),
        (0, None, (0.0, 0.0)),
        (None, 0, (0.0, 0.0)),
        (100_000, 150_000, (0.1, 0.15)),
    ],
)
def test_the_heartbeat_times_fit_each_other(
    send_us: int | None, monitor_us: int | None, expected: tuple[float, float]
) -> None:
    text = ""
    if send_us is not None:
        text += f"rep_set_timeout db_rep_heartbeat_send {send_us}\n"
    if monitor_us is not None:
        text += f"rep_set_timeout db_rep_heartbeat_monitor {monitor_us}\n"
    timeouts = parse(text).timeouts
    assert (timeouts.heartbeat_send_s, timeouts.heartbeat_monitor_s) == pytest.approx(expected)


def test_a_monitor_shorter_than_the_heartbeat_is_an_error() -> None:
    (error,) = errors_of(
        "rep_set_timeout db_rep_heartbeat_monitor 200000\n"
        "rep_set_timeout db_rep_heartbeat_send 200000\n"
    )
    assert str(error) == (
        "DB_CONFIG:1: db_rep_heartbeat_monitor (0.2 s) must be longer than"
        " db_rep_heartbeat_send (0.2 s)"
    )
    assert error.hint == "write `rep_set_timeout db_rep_heartbeat_monitor 1000000`."


# -- the generated file -----------------------------------------------------------------------


def generated_lines(text: str) -> list[str]:
    return generate(parse(text)).splitlines()[1:]


def test_replication_lines_do_not_reach_the_library() -> None:
    text = TWO_SITES + "rep_set_priority 1\nset_lg_dir logs\nset_flags db_log_autoremove\n"
    lines = generated_lines(text)
    assert lines[0] == "set_lg_dir logs"
    assert not [line for line in lines if "rep" in line or "autoremove" in line]


def test_the_first_line_says_where_it_comes_from_and_signs_the_rest() -> None:
    first, _, rest = generate(parse("set_tx_max 7\n")).partition("\n")
    digest = hashlib.sha256(rest.encode()).hexdigest()
    assert first == (f"# generated by ttserver from ../../DB_CONFIG sha256={digest}; edit that one")


def test_defaults_fill_in_for_names_that_are_not_set() -> None:
    everything = generated_lines("")
    assert "set_lk_detect db_lock_youngest" in everything
    assert "set_lg_max 33554432" in everything
    without = generated_lines("set_lk_detect DB_LOCK_OLDEST\n")
    assert [line for line in without if "lk_detect" in line] == ["set_lk_detect DB_LOCK_OLDEST"]


@pytest.mark.parametrize(
    ("given", "added"),
    [
        ("set_lg_max 1000000", "set_lg_bsize 250000"),
        ("set_lg_max 0", "set_lg_bsize 2621440"),  # 0 is the library's 10 MB
        ("set_lg_bsize 16777216", "set_lg_max 67108864"),
        ("set_lg_bsize 4294967295", "set_lg_max 4294967295"),
    ],
)
def test_the_log_sizes_fit_each_other(given: str, added: str) -> None:
    assert added in generated_lines(given)


def test_a_bound_on_memory_is_not_broken_by_defaults() -> None:
    names = {line.split()[0] for line in generated_lines("set_memory_max 0 100000000\n")}
    assert names == {"set_memory_max", "#", "set_lg_max", "set_lg_bsize", "set_lk_detect"}


def test_log_files_smaller_than_four_buffers_are_warned_about() -> None:
    (warning,) = warnings_of("set_lg_max 1000000\nset_lg_bsize 500000\n")
    assert warning.startswith("DB_CONFIG:2: set_lg_max (1000000 bytes) should be at least four")


# -- the two files ----------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "var" / "db").mkdir(parents=True)
    return tmp_path


def outer(home: Path) -> Path:
    return home / "DB_CONFIG"


def inner(home: Path) -> Path:
    return home / "var" / "db" / "DB_CONFIG"


def refused_start(home: Path) -> ConfigError:
    """Check that a start is refused, that `read` says the same, and that no file changed."""
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError) as by_read:
        read(home)
    with pytest.raises(ConfigError) as by_install:
        install(home)
    assert str(by_read.value) == str(by_install.value)
    assert by_install.value.hint
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before
    return by_install.value


def test_a_first_start_makes_the_directory_and_the_file(tmp_path: Path) -> None:
    outer(tmp_path).write_text(TWO_SITES)
    config = install(tmp_path)
    assert config == parse(TWO_SITES)
    assert inner(tmp_path).read_text() == generate(config)
    assert inner(tmp_path).parent.stat().st_mode & 0o777 == 0o700
    assert not list(tmp_path.rglob(".*"))


def test_reading_changes_nothing(tmp_path: Path) -> None:
    outer(tmp_path).write_text(TWO_SITES)
    assert read(tmp_path) == parse(TWO_SITES)
    assert list(tmp_path.iterdir()) == [outer(tmp_path)]


def test_no_file_at_all_is_a_lone_master(home: Path) -> None:
    assert install(home) == DbConfig()
    assert install(home) == DbConfig()
    assert "../../DB_CONFIG (absent)" in inner(home).read_text()


def test_an_unchanged_file_is_not_written_again(home: Path) -> None:
    outer(home).write_text(TWO_SITES)
    install(home)
    first = inner(home).stat()
    install(home)
    assert (inner(home).stat().st_ino, inner(home).stat().st_mtime_ns) == (
        first.st_ino,
        first.st_mtime_ns,
    )


def test_a_change_reaches_the_generated_file(home: Path) -> None:
    outer(home).write_text("set_tx_max 5\n")
    install(home)
    outer(home).write_text("set_tx_max 6\n")
    install(home)
    assert "set_tx_max 6\n" in inner(home).read_text()
    assert "set_tx_max 5\n" not in inner(home).read_text()


def test_a_hand_made_file_is_moved_up_and_reported(home: Path) -> None:
    text = TWO_SITES + "set_tx_max 5\nadd_data_dir caf\udce9\n"
    raw = text.encode("utf-8", "surrogateescape")
    (inner(home).parent / os.fsdecode(b"caf\xe9")).mkdir()
    inner(home).write_bytes(raw)
    config = install(home)
    assert str(config.warnings[0]) == (
        "DB_CONFIG: moved up from var/db/DB_CONFIG, where it was made by hand; edit it here"
    )
    assert outer(home).read_bytes() == raw
    assert b"add_data_dir caf\xe9\n" in inner(home).read_bytes()
    assert b"repmgr_site" not in inner(home).read_bytes()
    assert install(home).warnings == ()


def test_a_move_up_that_a_crash_cut_short_is_finished(home: Path) -> None:
    outer(home).write_text(TWO_SITES)
    inner(home).write_text(TWO_SITES)
    install(home)
    assert inner(home).read_text() == generate(parse(TWO_SITES))


def test_a_wrong_hand_made_file_is_not_moved(home: Path) -> None:
    inner(home).write_text("set_tx_max 5\nnonsense\n")
    error = refused_start(home)
    assert str(error) == "var/db/DB_CONFIG:2: unknown directive nonsense"


def test_two_hand_made_files_stop_the_start(home: Path) -> None:
    outer(home).write_text(TWO_SITES)
    inner(home).write_text("set_tx_max 5\n")
    error = refused_start(home)
    assert str(error) == (
        "var/db/DB_CONFIG: made by hand, and there is a DB_CONFIG in the home directory as well"
    )
    assert error.code == "TWO_FILES"


def edit(home: Path, change: Callable[[str], str]) -> None:
    inner(home).write_text(change(inner(home).read_text()))


def test_an_edited_generated_file_stops_the_start_and_names_the_lines(home: Path) -> None:
    outer(home).write_text("set_tx_max 5\nset_lg_max 33554432\n")
    install(home)
    edit(home, lambda text: text.replace("set_tx_max 5", "set_tx_max 6") + "set_lg_dir logs\n")
    last = len(inner(home).read_text().splitlines())
    error = refused_start(home)
    assert str(error) == (
        'var/db/DB_CONFIG:2: this generated file was edited: line 2 "set_tx_max 6" was added,'
        f' line {last} "set_lg_dir logs" was added, "set_tx_max 5" is missing'
    )
    assert error.hint == (
        "make the change in DB_CONFIG of the home directory and delete var/db/DB_CONFIG."
    )
    inner(home).unlink()  # the hint's way out
    install(home)
    assert "set_tx_max 5\n" in inner(home).read_text()


def test_lines_that_changed_places_are_an_edit_as_well(home: Path) -> None:
    install(home)
    edit(home, lambda text: "\n".join([text.split("\n")[0], *reversed(text.split("\n")[1:])]))
    assert "its lines changed places" in str(refused_start(home))


def test_a_lost_db_config_does_not_make_a_replicant_a_lone_master(home: Path) -> None:
    outer(home).write_text(TWO_SITES)
    install(home)
    outer(home).unlink()
    error = refused_start(home)
    assert error.code == "GONE"
    inner(home).unlink()
    assert install(home) == DbConfig()


def test_a_db_config_may_be_added_to_a_lone_master(home: Path) -> None:
    install(home)
    outer(home).write_text(TWO_SITES)
    assert install(home).local_site is not None
    assert "(absent)" not in inner(home).read_text()


def test_a_file_of_an_older_release_is_replaced(home: Path) -> None:
    body = "# not set there:\nset_something_old 1\n"
    digest = hashlib.sha256(body.encode()).hexdigest()
    inner(home).write_text(
        f"# generated by ttserver from ../../DB_CONFIG (absent) sha256={digest}; edit that one\n"
        + body
    )
    install(home)
    assert inner(home).read_text() == generate(DbConfig(), absent=True)


def test_directories_count_from_the_environment_and_must_exist(home: Path) -> None:
    outer(home).write_text("set_lg_dir ../logs\nset_tmp_dir nowhere\nadd_data_dir data\n")
    (home / "var" / "logs").mkdir()
    error = refused_start(home)
    assert [str(one) for one in error.all] == [
        "DB_CONFIG:2: set_tmp_dir: the directory nowhere does not exist",
        "DB_CONFIG:3: add_data_dir: the directory data does not exist",
    ]
    assert error.hint == f"make it: mkdir -p {home}/var/db/nowhere"


def test_a_home_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        install(tmp_path / "nowhere")
    assert caught.value.code == "NO_HOME"
    assert not (tmp_path / "nowhere").exists()


def test_a_db_config_that_is_no_file(home: Path) -> None:
    outer(home).mkdir()
    assert str(refused_start(home)) == "DB_CONFIG: cannot be read: Is a directory"


def test_what_a_crash_left_behind_does_not_hinder(home: Path) -> None:
    (inner(home).parent / ".DB_CONFIG.new").write_text("half a li")
    install(home)
    assert [path.name for path in inner(home).parent.iterdir()] == ["DB_CONFIG"]


def test_a_failed_write_keeps_the_old_file(home: Path) -> None:
    outer(home).write_text("set_tx_max 5\n")
    install(home)
    before = inner(home).read_text()
    outer(home).write_text("set_tx_max 6\n")
    (inner(home).parent / ".DB_CONFIG.new").mkdir()  # stands for a disk that cannot be written
    with pytest.raises(ConfigError) as caught:
        install(home)
    assert caught.value.code == "UNWRITABLE"
    assert "cannot be written: Is a directory" in str(caught.value)
    assert inner(home).read_text() == before


def test_a_file_where_a_directory_belongs(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("")
    error = refused_start(tmp_path)
    assert str(error) == "var/db/DB_CONFIG: cannot be read: Not a directory"
