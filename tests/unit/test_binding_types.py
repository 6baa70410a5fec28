"""The typed stub of the Berkeley DB binding against the binding itself.

A type checker believes the stub, so a name or a shape that is wrong there shows nowhere but here.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from berkeleydb import db

if TYPE_CHECKING:
    from collections.abc import Iterator

STUB = Path(__file__).parents[2] / "typings" / "berkeleydb" / "db.pyi"
ENV_FLAGS = (
    db.DB_CREATE
    | db.DB_INIT_LOCK
    | db.DB_INIT_LOG
    | db.DB_INIT_MPOOL
    | db.DB_INIT_TXN
    | db.DB_INIT_REP
    | db.DB_THREAD
)


def _is_check_only(node: ast.ClassDef) -> bool:
    return any(isinstance(d, ast.Name) and d.id == "type_check_only" for d in node.decorator_list)


def _public(names: set[str]) -> set[str]:
    return {name for name in names if not name.startswith("_")}


STUB_BODY = ast.parse(STUB.read_text(encoding="utf-8")).body
STUB_CLASSES = {node.name: node for node in STUB_BODY if isinstance(node, ast.ClassDef)}
STUB_CONSTANTS = {
    node.target.id: ast.unparse(node.annotation)
    for node in STUB_BODY
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
}
STUB_FUNCTIONS = {node.name for node in STUB_BODY if isinstance(node, ast.FunctionDef)}


def _stub_members(class_name: str) -> set[str]:
    body = STUB_CLASSES[class_name].body
    return {node.name for node in body if isinstance(node, ast.FunctionDef)}


def _typed_dict(class_name: str) -> dict[str, str]:
    return {
        node.target.id: ast.unparse(node.annotation)
        for node in STUB_CLASSES[class_name].body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


@pytest.fixture
def env(tmp_path: Path) -> Iterator[db.DBEnv]:
    env = db.DBEnv()
    env.open(str(tmp_path), ENV_FLAGS)
    yield env
    env.close()


def _open_btree(env: db.DBEnv) -> db.DB:
    btree = db.DB(env)
    btree.open("t.db", None, db.DB_BTREE, db.DB_CREATE | db.DB_AUTO_COMMIT | db.DB_THREAD)
    return btree


def test_stub_declares_just_the_names_of_the_module() -> None:
    aliases = {name for name, kind in STUB_CONSTANTS.items() if kind == "TypeAlias"}
    classes = {name for name, node in STUB_CLASSES.items() if not _is_check_only(node)}
    declared = _public((set(STUB_CONSTANTS) - aliases) | STUB_FUNCTIONS | classes)

    assert declared == _public(set(dir(db)))


def test_constants_have_the_declared_type() -> None:
    kinds = {"Final[int]": int, "Final[str]": str, "str": str, "object": object}
    wrong = {
        name
        for name, kind in STUB_CONSTANTS.items()
        if kind != "TypeAlias" and not isinstance(getattr(db, name), kinds[kind])
    }

    assert wrong == set()


def test_errors_have_the_declared_bases() -> None:
    errors = {
        name: {ast.unparse(base) for base in node.bases}
        for name, node in STUB_CLASSES.items()
        if isinstance(getattr(db, name, None), type)
        and issubclass(getattr(db, name), BaseException)
    }

    assert len(errors) > 20
    for name, bases in errors.items():
        assert {base.__name__ for base in getattr(db, name).__bases__} == bases


@pytest.mark.parametrize("class_name", ["DBEnv", "DB", "DBSite", "DBSequence"])
def test_classes_have_just_the_declared_members(class_name: str) -> None:
    assert _public(_stub_members(class_name)) == _public(set(dir(getattr(db, class_name))))


def test_classes_of_values_have_just_the_declared_members(env: db.DBEnv) -> None:
    btree = _open_btree(env)
    txn = env.txn_begin()
    cursor = btree.cursor(txn)
    log_cursor = env.log_cursor()
    locker = env.lock_id()
    lock = env.lock_get(locker, b"thing", db.DB_LOCK_READ)
    try:
        for value in (txn, cursor, log_cursor, lock):
            name = type(value).__name__
            assert not hasattr(db, name), f"{name} is a module attribute after all"
            assert _public(_stub_members(name)) == _public(set(dir(value)))
    finally:
        env.lock_put(lock)
        env.lock_id_free(locker)
        log_cursor.close()
        cursor.close()
        txn.abort()
        btree.close()


@pytest.mark.parametrize("kind", ["rep", "txn"])
def test_statistics_have_just_the_declared_keys(env: db.DBEnv, kind: str) -> None:
    stat: dict[str, Any] = dict(env.rep_stat() if kind == "rep" else env.txn_stat())
    declared = _typed_dict(f"_{kind.capitalize()}Stat")

    assert {key: "int" if isinstance(stat[key], int) else "_Lsn" for key in stat} == declared


def test_reads_answer_the_declared_shapes(env: db.DBEnv) -> None:
    btree = _open_btree(env)
    # One is given by name, the other by place, as the stub allows.
    btree.put(b"a", b"1")
    btree.put(key=b"b", data=b"2", txn=None, flags=db.DB_NOOVERWRITE)
    cursor = btree.cursor()
    log_cursor = env.log_cursor()
    try:
        assert btree.get(b"a") == b"1"
        assert btree.get(b"none") is None
        assert btree.get(b"none", b"default") == b"default"
        assert cursor.first() == (b"a", b"1")
        assert cursor.get(b"b", db.DB_SET) == (b"b", b"2")
        assert cursor.next() is None
        assert cursor.set_range(b"c") is None
        assert cursor.count() == 1
        assert sum(btree.key_range(b"b")) == pytest.approx(1.0)
        assert btree.stat(db.DB_FAST_STAT)["pagesize"] > 0
        entry = log_cursor.last()
        assert entry is not None
        lsn, record = entry
        assert isinstance(record, bytes)
        env.log_flush(lsn)
        assert env.log_archive(db.DB_ARCH_LOG) == [Path(env.log_file(lsn)).name]
    finally:
        log_cursor.close()
        cursor.close()
        btree.close()


def test_missing_key_is_a_key_error_with_number_and_text(env: db.DBEnv) -> None:
    btree = _open_btree(env)
    with pytest.raises(KeyError) as caught:
        btree.delete(b"none")
    btree.close()

    assert isinstance(caught.value, db.DBNotFoundError)
    number, text = caught.value.args
    assert number == db.DB_NOTFOUND
    assert "DB_NOTFOUND" in text


def test_callbacks_get_the_declared_arguments(tmp_path: Path) -> None:
    sent: list[tuple[object, ...]] = []
    events: list[tuple[object, ...]] = []
    env = db.DBEnv()
    env.rep_set_transport(1, lambda *args: sent.append(args))
    env.set_event_notify(lambda *args: events.append(args))
    env.open(str(tmp_path), ENV_FLAGS)
    env.rep_start(db.DB_REP_MASTER)
    btree = _open_btree(env)
    btree.put(b"k", b"v")

    for source, control, record, lsn, eid, flags in sent:
        assert source is env
        assert isinstance(control, bytes)
        assert isinstance(record, bytes)
        assert isinstance(lsn, tuple)
        assert [type(part) for part in lsn] == [int, int]
        assert eid == db.DB_EID_BROADCAST
        assert isinstance(flags, int)
    assert any(record for _, _, record, *_ in sent)
    assert (env, db.DB_EVENT_REP_MASTER, None) in events
    btree.close()
    env.close()


def test_processed_message_answers_code_and_detail(tmp_path: Path) -> None:
    """One environment's messages, fed to another by hand, reach each kind of answer we rely on."""
    outbox: list[tuple[bytes, bytes]] = []
    master, client = db.DBEnv(), db.DBEnv()
    for env, name, eid in ((master, "master", 1), (client, "client", 2)):
        (tmp_path / name).mkdir()
        env.rep_set_transport(
            eid, lambda _e, control, record, *_rest: outbox.append((control, record))
        )
        env.open(str(tmp_path / name), ENV_FLAGS)
    client.rep_start(db.DB_REP_CLIENT, b"client's data")
    newsite = outbox.copy()
    outbox.clear()
    master.rep_start(db.DB_REP_MASTER)
    answers = [master.rep_process_message(*message, 2) for message in newsite]
    answers += [client.rep_process_message(*message, 1) for message in outbox.copy()]
    client.close()
    master.close()

    assert (db.DB_REP_NEWSITE, b"client's data") in answers
    assert (None, None) in answers
