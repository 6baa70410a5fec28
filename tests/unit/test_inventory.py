"""Which databases of an application could be served: every kind the library has."""

from pathlib import Path

from berkeleydb import db

from storage.inventory import Inventoried, take

FLAGS = db.DB_CREATE | db.DB_INIT_MPOOL | db.DB_INIT_TXN | db.DB_INIT_LOG | db.DB_INIT_LOCK


def make(env: db.DBEnv, file: str, kind: int, *, name: str | None = None, flags: int = 0) -> None:
    handle = db.DB(env)
    handle.set_flags(flags)
    if kind == db.DB_QUEUE:
        handle.set_re_len(10)
    handle.open(file, dbname=name, dbtype=kind, flags=db.DB_CREATE | db.DB_AUTO_COMMIT)
    handle.close()


def test_every_kind_of_database_is_told(tmp_path: Path) -> None:
    env = db.DBEnv()
    env.open(str(tmp_path), FLAGS | db.DB_THREAD)
    try:
        make(env, "btree.db", db.DB_BTREE)
        make(env, "counted.db", db.DB_BTREE, flags=db.DB_RECNUM)
        make(env, "duplicates.db", db.DB_BTREE, flags=db.DB_DUP)
        make(env, "sorted.db", db.DB_BTREE, flags=db.DB_DUPSORT)
        make(env, "hash", db.DB_HASH)
        make(env, "queue", db.DB_QUEUE)
        make(env, "recno", db.DB_RECNO)
        make(env, "several.db", db.DB_BTREE, name="first")
        make(env, "several.db", db.DB_BTREE, name="second")
        (tmp_path / "notes.txt").write_text("no database\n")
        (tmp_path / "empty").touch()
        (tmp_path / "DB_CONFIG").touch()
        assert take(env, tmp_path) == [
            Inventoried("btree.db", "btree", ""),
            Inventoried("counted.db", "btree", ""),
            Inventoried("duplicates.db", "btree", "it holds several values of one key"),
            Inventoried("hash", "hash", "it is a hash, not a btree"),
            Inventoried("queue", "queue", "it is a queue, not a btree"),
            Inventoried("recno", "recno", "it is a recno, not a btree"),
            Inventoried("several.db", "btree", "it holds several databases by name"),
            Inventoried("sorted.db", "btree", "it holds several values of one key"),
        ]
    finally:
        env.close()
