"""ttserver.toml, the configuration of a site as a whole, the samples in conf/, the reference."""

import re
import subprocess
from pathlib import Path

import pytest

from storage.dbconfig import CONFIG_FIELDS, TIMEOUT_FIELDS, DbConfig, install, parse
from storage.dbconfig_options import ACK_POLICIES, SITE_OPTIONS
from storage.dbconfig_rules import DEFAULTS
from storage.dbconfig_table import DIRECTIVES
from storage.errors import ConfigError
from ttserver import reference
from ttserver.address import Address, parse_address
from ttserver.config import load
from ttserver.errors import ConfigurationError
from ttserver.home import Home
from ttserver.settings import ClientSettings, Settings
from ttserver.settings_file import parse_settings

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"


def errors_of(text: str) -> tuple[ConfigError, ...]:
    with pytest.raises(ConfigError) as caught:
        parse_settings(text.encode())
    return caught.value.all


# -- ttserver.toml ----------------------------------------------------------------------------


def test_an_empty_file_is_all_defaults_on_loopback() -> None:
    settings = parse_settings(b"")
    assert settings == Settings()
    assert settings.client.listen == Address("127.0.0.1", 5000)
    assert settings.replication.listen is None


def test_every_form_of_a_key() -> None:
    text = """\
        client.max_clients = 7
        [storage]
        durability = "nosync"   # a comment
        checkpoint_interval_s = 5
        [replication]
        "listen" = "[::1]:5010"
        link_stall_s = 0.5
    """
    settings = parse_settings(text.encode())
    assert settings.client.max_clients == 7
    assert settings.storage.durability == "nosync"
    assert settings.storage.checkpoint_interval_s == 5.0
    assert isinstance(settings.storage.checkpoint_interval_s, float)
    assert settings.replication.listen == Address("::1", 5010)
    assert settings.replication.link_stall_s == 0.5


BAD_FILES = [
    (
        "[client]\n\nmax_clients = 0\n",
        "ttserver.toml:3: client.max_clients must be 1..100000, got 0",
        "the default is 1000.",
    ),
    (
        "[client]\nmax_clients = 1.5\n",
        "ttserver.toml:2: client.max_clients must be a whole number, got 1.5",
        "the default is 1000.",
    ),
    (
        "[client]\nmax_clients = true\n",
        "ttserver.toml:2: client.max_clients must be a whole number, got true",
        "the default is 1000.",
    ),
    (
        "[client]\nmax_stale_s = nan\n",
        "ttserver.toml:2: client.max_stale_s must be 0..31536000, got nan",
        "the default is 0.",
    ),
    (
        "client.max-clients = 5\n",
        "ttserver.toml:1: unknown key client.max-clients, did you mean client.max_clients?",
        "write max_clients.",
    ),
    (
        "[ client ]\nkeyspace = 'x'\n",
        "ttserver.toml:2: unknown key client.keyspace",
        "keyspace belongs to [storage].",
    ),
    (
        "[clients]\n",
        "ttserver.toml:1: unknown section clients, did you mean client?",
        "write client.",
    ),
    (
        "[tls]\ncert = 'x'\n",
        "ttserver.toml:1: unknown section tls",
        "known here: client, replication, storage, limits, status, journal.",
    ),
    (
        "max_clients = 5\n",
        "ttserver.toml:1: unknown section max_clients",
        "max_clients belongs to [client].",
    ),
    (
        "client = 3\n",
        "ttserver.toml:1: client must be a section",
        "write [client] above its keys.",
    ),
    (
        "[[client]]\nmax_clients = 3\n",
        "ttserver.toml:1: client must be a section",
        "write [client] above its keys.",
    ),
    (
        "[client]\nlisten = 'db1'\n",
        'ttserver.toml:2: client.listen must be HOST:PORT, got "db1"',
        "the default is 127.0.0.1:5000.",
    ),
    (
        "[replication]\nlisten = 5010\n",
        'ttserver.toml:2: replication.listen must be "HOST:PORT", got 5010',
        "leave it out for the default.",
    ),
    (
        "[storage]\ndurability = 'never'\n",
        "ttserver.toml:2: storage.durability must be one of nosync, sync, write_nosync, got never",
        "the default is sync.",
    ),
    (
        "[storage]\nkeyspace = '../keys.db'\n",
        (
            "ttserver.toml:2: storage.keyspace must be a plain file name that the library does not"
            ' use, got "../keys.db"'
        ),
        "the default is keys.db.",
    ),
    (
        "[client]\nlisten = 127.0.0.1:5000\n",
        "ttserver.toml:2: expected newline or end of document after a statement in column 15",
        'a line is `key = value`; text stands in quotes: listen = "127.0.0.1:5000".',
    ),
    (
        "[client]\nmax_clients =",
        "ttserver.toml:2: invalid value at the end of the file",
        'a line is `key = value`; text stands in quotes: listen = "127.0.0.1:5000".',
    ),
]


@pytest.mark.parametrize(("text", "message", "hint"), BAD_FILES)
def test_an_error_names_its_line_and_a_remedy(text: str, message: str, hint: str) -> None:
    (error,) = errors_of(text)
    assert (str(error), error.hint) == (message, hint)


@pytest.mark.parametrize("name", ["__db.001", "log.0000000001", ".hidden", "a/b", "a\nb", ""])
def test_a_keyspace_name_that_the_library_uses_is_refused(name: str) -> None:
    (error,) = errors_of(f"[storage]\nkeyspace = {name!r}\n".replace("'", '"'))
    assert "storage.keyspace must be a plain file name" in str(error)


def test_all_errors_of_a_file_are_collected_in_order() -> None:
    text = "[limits]\nkey_bytes_max = 1\n[nonsense]\n[client]\nmax_clients = 0\nlisten = 'x'\n"
    assert [error.line for error in errors_of(text)] == [2, 3, 5, 6]


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_settings(b"[client]\n# caf\xe9\n")
    assert str(caught.value) == "ttserver.toml:2: byte 14 is not UTF-8"


def test_a_huge_file_is_refused_without_being_parsed() -> None:
    with pytest.raises(ConfigError, match="1048577 bytes"):
        parse_settings(b"#" * (2**20 + 1))


# -- addresses --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("db1:5010", Address("db1", 5010)),
        ("192.0.2.1:65535", Address("192.0.2.1", 65535)),
        ("[fd00::1]:5010", Address("fd00::1", 5010)),
        ("[::]:0", Address("::", 0)),
    ],
)
def test_an_address_reads_and_shows_the_same(text: str, address: Address) -> None:
    assert parse_address(text, port_min=0) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "db1", "db1:", ":5010", "db1:0", "db1:65536", "db1:5o", "::1:5010", "[::1]5010"),
        *("a b:1", "db1:+5", "10.1:5010", "[db1]:5010", "db1:\N{ARABIC-INDIC DIGIT FIVE}"),
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        parse_address(text)


# -- a site as a whole ------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_an_empty_home_is_a_lone_master(home: Home) -> None:
    config = load(home)
    assert config.db == DbConfig()
    assert config.settings == Settings()
    assert config.local == config.replication_listen == Address("127.0.0.1", 5010)
    assert not list(home.root.iterdir())


def test_the_local_site_says_where_to_listen(home: Home) -> None:
    home.db_config.write_text("repmgr_site db1 5100 db_local_site on\n")
    config = load(home)
    assert config.local == config.replication_listen == Address("db1", 5100)


def test_listening_elsewhere_does_not_change_the_name(home: Home) -> None:
    home.db_config.write_text("repmgr_site db1 5010 db_local_site on\n")
    home.toml.write_text('[replication]\nlisten = "0.0.0.0:5010"\n')
    config = load(home)
    assert config.local == Address("db1", 5010)
    assert config.replication_listen == Address("0.0.0.0", 5010)


@pytest.mark.parametrize("listen", ["0.0.0.0:5010", "[::]:5010", "127.0.0.1:0"])
def test_a_lone_master_needs_a_name(home: Home, listen: str) -> None:
    home.toml.write_text(f'[replication]\nlisten = "{listen}"\n')
    with pytest.raises(ConfigError, match="this site has no name") as caught:
        load(home)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("client", "collides"),
    [("10.0.0.1:5010", True), ("0.0.0.0:5010", True), ("10.0.0.2:5010", False)],
)
def test_both_ports_on_one_address(home: Home, client: str, collides: bool) -> None:
    home.db_config.write_text("repmgr_site 10.0.0.1 5010 db_local_site on\n")
    home.toml.write_text(f'[client]\nlisten = "{client}"\n')
    if collides:
        with pytest.raises(ConfigError, match="are the same"):
            load(home)
    else:
        assert str(load(home).settings.client.listen) == client


def test_the_command_line_goes_before_the_file(home: Home) -> None:
    home.toml.write_text('[client]\nlisten = "127.0.0.1:1"\nmax_clients = 5\n')
    settings = load(home, {"client.listen": "[::1]:2"}).settings
    assert settings.client == ClientSettings(listen=Address("::1", 2), max_clients=5)


def test_a_wrong_command_line_says_so(home: Home) -> None:
    with pytest.raises(ConfigError) as caught:
        load(home, {"client.listen": "nowhere"})
    assert str(caught.value) == 'command line: client.listen must be HOST:PORT, got "nowhere"'


def test_only_a_start_writes(home: Home) -> None:
    home.db_config.write_text("set_tx_max 5\n")
    load(home)
    assert not home.environment.exists()
    load(home, install=True)
    assert (home.environment / "DB_CONFIG").exists()


def test_warnings_of_both_files_come_together(home: Home) -> None:
    home.db_config.write_text("rep_set_priority 1\nrep_set_priority 2\n")
    home.toml.write_text("[limits]\nframe_bytes_max = 1024\n")
    assert [str(w).partition(":")[0] for w in load(home).warnings] == ["DB_CONFIG", "ttserver.toml"]


def test_a_home_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        load(Home(tmp_path / "nowhere"))


def test_a_toml_that_is_a_directory(home: Home) -> None:
    home.toml.mkdir()
    with pytest.raises(ConfigError, match=r"ttserver\.toml: cannot be read: Is a directory"):
        load(home)


def test_what_is_in_force_can_be_shown(home: Home) -> None:
    home.db_config.write_text(
        "repmgr_site db1 5010 db_local_site on\n"
        "rep_set_priority 3\n"
        "rep_set_timeout db_rep_ack_timeout 1500000\n"
        "rep_set_config db_rep_conf_bulk\n"
    )
    named = load(home).in_force()
    assert named["client.listen"] == "127.0.0.1:5000"
    assert named["replication.listen"] == "db1:5010"
    assert named["storage.durability"] == "sync"
    assert named["rep_set_priority"] == "3"
    assert named["repmgr_set_ack_policy"] == "db_repmgr_acks_quorum"
    assert named["rep_set_timeout.db_rep_ack_timeout"] == "1500000"
    assert named["rep_set_timeout.db_rep_full_election_timeout"] == "0"
    assert named["rep_set_config.db_rep_conf_bulk"] == "true"


# -- the samples ------------------------------------------------------------------------------


def uncommented(name: str, expression: str) -> str:
    """Run the sed command an operator would run."""
    return subprocess.run(
        ["sed", expression, str(CONF / name)], check=True, capture_output=True, text=True
    ).stdout


@pytest.mark.parametrize("name", ["DB_CONFIG.master", "DB_CONFIG.replicant"])
def test_a_sample_as_it_is_changes_nothing(name: str) -> None:
    assert parse((CONF / name).read_text()) == DbConfig()


@pytest.mark.parametrize("expression", [r"s/^#re/re/", r"s/^#\([a-z]\)/\1/"])
def test_the_uncommented_samples_make_a_master_and_its_replicant(expression: str) -> None:
    master = parse(uncommented("DB_CONFIG.master", expression))
    replicant = parse(uncommented("DB_CONFIG.replicant", expression))
    assert master.warnings == replicant.warnings == ()
    assert (master.priority, replicant.priority) == (1, 0)
    assert master.ack_policy == replicant.ack_policy == "ONE"
    assert master.local_site is not None
    assert master.local_site.group_creator
    assert replicant.local_site is not None
    assert [site.address for site in master.remote_sites] == [replicant.local_site.address]
    assert [site.address for site in replicant.remote_sites] == [master.local_site.address]
    assert replicant.remote_sites[0].helper
    # The lines that only repeat a default must not go stale.
    assert master.timeouts == replicant.timeouts == DbConfig().timeouts


def test_the_samples_name_the_command_that_uncomments_them() -> None:
    for name in ("DB_CONFIG.master", "DB_CONFIG.replicant"):
        assert "sed -i 's/^#re/re/' HOME/DB_CONFIG" in (CONF / name).read_text()


def test_the_three_sites_know_each_other() -> None:
    configs = [parse((CONF / "three-sites" / f"DB_CONFIG.site{n}").read_text()) for n in (1, 2, 3)]
    addresses = {frozenset(site.address for site in config.sites) for config in configs}
    assert len(addresses) == 1
    assert len({c.local_site.address for c in configs if c.local_site}) == 3
    assert [config.priority for config in configs] == [3, 2, 1]
    assert [bool(c.local_site and c.local_site.group_creator) for c in configs] == [True, 0, 0]
    assert not any(config.warnings for config in configs)


def test_an_uncommented_sample_is_installed(tmp_path: Path) -> None:
    expression = r"s/^#\([a-z]\)/\1/"
    (tmp_path / "DB_CONFIG").write_text(uncommented("DB_CONFIG.master", expression))
    assert install(tmp_path).log_autoremove
    assert "set_cachesize 0 268435456 1\n" in (tmp_path / "var/db/DB_CONFIG").read_text()


def test_the_sample_of_ttserver_toml_holds_every_key_with_its_default() -> None:
    text = uncommented("ttserver.toml", r"s/^#\([a-z_]* = \)/\1/")
    settings = parse_settings(text.encode())
    # Those without a default.
    assert settings.replication.listen == Address("192.0.2.10", 5010)
    assert settings.replication.preferred_master == Address("192.0.2.10", 5010)
    without = re.sub(r'(listen|preferred_master) = "192.*', "", text)
    assert parse_settings(without.encode()) == Settings()


# -- the reference ----------------------------------------------------------------------------


def test_the_reference_is_up_to_date() -> None:
    """When this fails: python -m ttserver.reference."""
    page = (ROOT / reference.PAGE).read_text()
    assert reference.filled(page) == page
    assert reference.sample() == (ROOT / reference.SAMPLE).read_text()


def test_every_name_is_explained() -> None:
    page = (ROOT / reference.PAGE).read_text()
    rows = {m for line in page.splitlines() for m in re.findall(r"^\| `([a-z_0-9]+)", line)}
    names = {*DIRECTIVES, *SITE_OPTIONS, *ACK_POLICIES, *TIMEOUT_FIELDS, *CONFIG_FIELDS}
    assert names <= rows
    every_option = {option for directive in DIRECTIVES.values() for option in directive.options}
    assert not [option for option in every_option if f"`{option}`" not in page]


def test_the_defaults_on_the_page_are_the_real_ones() -> None:
    page = (ROOT / reference.PAGE).read_text()
    defaults = DbConfig()
    for option, (field, _) in TIMEOUT_FIELDS.items():
        value_us = round((getattr(defaults.timeouts, field) or 0) * 1_000_000)
        assert f"| `{option}` | {value_us} |" in page
    for option, field in CONFIG_FIELDS.items():
        switch = {True: "on", False: "off", None: "-"}[getattr(defaults.rep_config, field)]
        assert f"| `{option}` | {switch} |" in page
    assert DIRECTIVES["rep_set_priority"].default == str(defaults.priority)
    limit, request = defaults.rep_limit, defaults.rep_request
    assert DIRECTIVES["rep_set_limit"].default == f"{limit.gbytes} {limit.bytes}"
    assert DIRECTIVES["rep_set_request"].default == f"{request.min_us} {request.max_us}"
    for default in DEFAULTS:
        assert DIRECTIVES[default.name].default == default.value
