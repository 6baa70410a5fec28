"""The table of directives against the real library: what we pass on, it accepts."""

from pathlib import Path

import pytest
from berkeleydb import db

from storage.dbconfig import install, parse
from storage.dbconfig_rules import DEFAULTS, REFUSED
from storage.dbconfig_table import DIRECTIVES, Option
from storage.errors import ConfigError

FLAGS = (
    db.DB_CREATE
    | db.DB_INIT_LOCK
    | db.DB_INIT_LOG
    | db.DB_INIT_MPOOL
    | db.DB_INIT_REP
    | db.DB_INIT_TXN
    | db.DB_RECOVER
    | db.DB_THREAD
)

# One good line for every name that is passed on; options are tried one by one besides.
SAMPLES = {
    "add_data_dir": "add_data_dir data",
    "db_data_dir": "db_data_dir data",
    "db_log_dir": "db_log_dir data",
    "db_tmp_dir": "db_tmp_dir data",
    "log_set_config": "log_set_config db_log_zero off",
    "mutex_set_align": "mutex_set_align 64",
    "mutex_set_increment": "mutex_set_increment 100",
    "mutex_set_init": "mutex_set_init 1000",
    "mutex_set_max": "mutex_set_max 500000",
    "mutex_set_tas_spins": "mutex_set_tas_spins 10",
    "set_cache_max": "set_cache_max 0 134217728",
    "set_cachesize": "set_cachesize 0 2097152 1",
    "set_create_dir": "add_data_dir data\nset_create_dir data",
    "set_data_dir": "set_data_dir data",
    "set_data_len": "set_data_len 50",
    "set_flags": "set_flags db_nommap",
    "set_intermediate_dir": "Set_Intermediate_Dir 448",
    "set_intermediate_dir_mode": "set_intermediate_dir_mode rwxr-x---",
    "set_lg_bsize": "set_lg_bsize 65536",
    "set_lg_dir": "set_lg_dir data",
    "set_lg_filemode": "set_lg_filemode 384",
    "set_lg_max": "set_lg_max 1048576",
    "set_lg_regionmax": "set_lg_regionmax 200000",
    "set_lk_detect": "set_lk_detect db_lock_oldest",
    "set_lk_max_lockers": "set_lk_max_lockers 2000",
    "set_lk_max_locks": "set_lk_max_locks 2000",
    "set_lk_max_objects": "set_lk_max_objects 2000",
    "set_lk_partitions": "set_lk_partitions 4",
    "set_lk_tablesize": "set_lk_tablesize 1000",
    "set_lock_timeout": "set_lock_timeout 1000000",
    "set_memory_init": "set_memory_init DB_MEM_LOCK 1000",
    "set_memory_max": "set_memory_max 0 100000000\nset_cachesize 0 2097152 1",
    "set_metadata_dir": "set_metadata_dir data",
    "set_mp_max_openfd": "set_mp_max_openfd 10",
    "set_mp_max_write": "set_mp_max_write 10 100",
    "set_mp_mmapsize": "set_mp_mmapsize 0",
    "set_mp_mtxcount": "set_mp_mtxcount 10",
    "set_mp_pagesize": "set_mp_pagesize 4096",
    "set_open_flags": "set_open_flags db_thread on",
    "set_reg_timeout": "set_reg_timeout 1000000",
    "set_region_init": "set_region_init 0",
    "set_shm_key": "set_shm_key 12",
    "set_tas_spins": "set_tas_spins 10",
    "set_thread_count": "set_thread_count 100",
    "set_tmp_dir": "set_tmp_dir data",
    "set_tx_max": "set_tx_max 100",
    "set_txn_timeout": "set_txn_timeout 1000000",
    "set_verbose": "set_verbose db_verb_recovery off",
}


def open_environment(home: Path) -> db.DBEnv:
    environment = db.DBEnv()
    environment.open(str(home / "var" / "db"), FLAGS)
    return environment


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "var" / "db" / "data").mkdir(parents=True)
    return tmp_path


def test_every_name_that_is_passed_on_has_a_sample() -> None:
    passed = {name for name, directive in DIRECTIVES.items() if not directive.handled}
    assert set(SAMPLES) == passed


@pytest.mark.parametrize("name", SAMPLES)
def test_the_library_takes_what_we_pass_on(home: Path, name: str) -> None:
    text = f"# a sample\n\t{SAMPLES[name]}\n"
    (home / "DB_CONFIG").write_text(text)
    assert install(home) == parse(text)
    open_environment(home).close()


@pytest.mark.parametrize("switch", ["on", "off"])
def test_the_library_takes_every_option(home: Path, switch: str) -> None:
    # set_lk_detect allows one policy an environment, so each gets its own.
    lines = [
        f"{name} {option} {'1000' if name == 'set_memory_init' else switch}"
        for name, directive in DIRECTIVES.items()
        if not directive.handled and isinstance(directive.arguments[0], Option)
        for option in directive.options
        if (name, option) not in REFUSED and name != "set_lk_detect"
        if not (option.startswith("db_verb") and switch == "on")  # much noise
    ]
    assert len(lines) >= 20
    (home / "DB_CONFIG").write_text("\n".join(lines) + "\n")
    install(home)
    open_environment(home).close()


@pytest.mark.parametrize("policy", DIRECTIVES["set_lk_detect"].options)
def test_the_library_takes_every_deadlock_policy(home: Path, policy: str) -> None:
    (home / "DB_CONFIG").write_text(f"set_lk_detect {policy}\n")
    install(home)
    environment = open_environment(home)
    assert environment.get_lk_detect() == getattr(db, policy.upper())
    environment.close()


def test_the_defaults_are_in_force(home: Path) -> None:
    install(home)
    environment = open_environment(home)
    numbers = {
        name: int(value) for name, value in ((d.name, d.value) for d in DEFAULTS) if value.isdigit()
    }
    for name, value in numbers.items():
        assert getattr(environment, f"get_{name[4:]}")() == value, name
    assert environment.get_lk_detect() == db.DB_LOCK_YOUNGEST
    gbytes, size_bytes, caches = environment.get_cachesize()
    # The library adds a quarter, and something more, for its own tables.
    assert (gbytes, caches) == (0, 1)
    assert size_bytes >= 67108864
    environment.close()


@pytest.mark.parametrize(
    "text",
    [
        "SET_TX_MAX 5",
        "set_tx_max 0x10",
        "set_tx_max 5 # c",
        "set_tx_max 4294967296",
        "set_create_dir data",
        "set_intermediate_dir_mode ---------",
        "set_lg_regionmax 1000",
        "mutex_set_align 3",
        "set_flags db_rep_conf_bulk",
        "set_lk_detect off",
        "set_lg_dir nowhere",
        "set_flags db_nommap yes",
    ],
)
def test_what_the_library_refuses_is_refused_before(home: Path, text: str) -> None:
    (home / "DB_CONFIG").write_text(f"{text}\n")
    with pytest.raises(ConfigError):
        install(home)
    (home / "var" / "db" / "DB_CONFIG").write_text(f"{text}\n")
    with pytest.raises(db.DBError):
        open_environment(home)


def test_an_environment_with_our_file_takes_the_base_api(home: Path) -> None:
    (home / "DB_CONFIG").write_text(
        "repmgr_site 127.0.0.1 5010 db_local_site on\n"
        "repmgr_set_ack_policy db_repmgr_acks_one\n"
        "rep_set_config db_repmgr_conf_2site_strict off\n"
        "rep_set_timeout db_rep_heartbeat_send 100000\n"
    )
    install(home)
    environment = db.DBEnv()
    environment.rep_set_transport(1, lambda *_: None)
    environment.open(str(home / "var" / "db"), FLAGS)
    environment.rep_start(db.DB_REP_MASTER)
    environment.close()
