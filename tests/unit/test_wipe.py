"""What a wipe takes and what it leaves."""

from pathlib import Path

import pytest

from ttserver import wipe


def fill(directory: Path) -> None:
    directory.mkdir()
    for name in (
        "DB_CONFIG",
        "keys.db",
        "log.0000000001",
        "log.0000000002",
        "__db.001",
        "__db.rep.gen",
        "$DB_Msg.txt",
        "$DB_Msg.txt.1",
        "users.db",
        "leftover",
    ):
        (directory / name).write_bytes(b"12345")
    (directory / "extra").mkdir()
    (directory / "extra" / "file").write_bytes(b"1234567")


def test_everything_but_db_config_goes(tmp_path: Path) -> None:
    fill(tmp_path / "db")
    planned = wipe.plan(tmp_path / "db")
    assert planned.size_bytes == 9 * 5 + 7
    assert planned.kinds() == {
        "journal file": 2,
        "region file": 2,
        "other file": 2,
        "database": 2,
        "log file": 2,
    }
    wipe.remove(planned)
    assert [path.name for path in (tmp_path / "db").iterdir()] == ["DB_CONFIG"]


def test_a_missing_environment_is_an_empty_one(tmp_path: Path) -> None:
    planned = wipe.plan(tmp_path / "db")
    assert planned.names == ()
    wipe.remove(planned)


def test_a_wipe_cut_short_never_leaves_a_log_without_its_databases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "db")
    removed: list[str] = []
    real = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if not path.name.startswith("log."):
            raise OSError(5, "Input/output error", str(path))
        removed.append(path.name)
        real(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    with pytest.raises(wipe.WipeError, match="Input/output error"):
        wipe.remove(wipe.plan(tmp_path / "db"))
    assert removed == ["log.0000000002", "log.0000000001"]
    monkeypatch.undo()
    wipe.remove(wipe.plan(tmp_path / "db"))
    assert [path.name for path in (tmp_path / "db").iterdir()] == ["DB_CONFIG"]


def test_a_link_is_removed_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    (tmp_path / "db" / "link").symlink_to(outside)
    wipe.remove(wipe.plan(tmp_path / "db"))
    assert (outside / "precious").exists()
    assert list((tmp_path / "db").iterdir()) == []
