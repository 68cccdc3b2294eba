"""Damaged files are told when they are read, and caches are made anew."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from causal_lm_router.files.checksums import (
    CHECKSUMS,
    DamagedError,
    add_checksum,
    add_checksums,
    check_files,
    cut_to_checksum,
    drop_checksum,
    find_damage,
    make_cached,
    read_checked,
    write_checked,
)
from tests.conftest import Result
from tests.damage import DAMAGES, Damage


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two files, one of them in a folder below, and their checksums."""
    path = tmp_path / "weights"
    (path / "rows").mkdir(parents=True)
    (path / "a name.bin").write_bytes(bytes(range(1, 256)) * 9000)
    (path / "rows" / "b").write_bytes(b"123")
    add_checksums(path)
    return path


def test_whole_files_are_fine(folder: Path) -> None:
    check_files(folder)
    assert find_damage(folder.parent) == (2, [])
    assert (folder / CHECKSUMS).read_text().splitlines()[:2] == ["4f34e7ba 2295000 a name.bin", "884863d2 3 rows/b"]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["a name.bin", "rows/b"])
def test_every_damage_is_told(folder: Path, name: str, damage: Damage) -> None:
    check_files(folder)
    damage(folder / name)
    with pytest.raises(DamagedError, match=rf"^\S+/{name}: damaged: .*; throw it away$"):
        check_files(folder, "throw it away")
    number, (found,) = find_damage(folder.parent)
    assert number == 2
    assert found.startswith(f"{folder / name}: damaged: ")
    (folder / name).unlink()
    with pytest.raises(DamagedError, match=rf"{name}: damaged: it is missing; restore it"):
        check_files(folder)


def test_status_checks_a_whole_folder(main: Callable[..., Result], folder: Path) -> None:
    assert main("status", str(folder.parent), "--check") == Result(0, "2 files compared, 0 damaged\n", "")
    (folder / "rows" / "b").unlink()
    status, output, _ = main("status", str(folder.parent), "--check")
    assert status == 1
    assert output == f"{folder}/rows/b: damaged: it is missing\n2 files compared, 1 damaged\n"
    (folder / CHECKSUMS).unlink()
    status, _, errors = main("status", str(folder.parent), "--check")
    assert status == 1
    assert errors.startswith("error: --check must be given with a folder whose files have checksums, got ")


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checksums_are_told(folder: Path, damage: Damage) -> None:
    damage(folder / CHECKSUMS)
    with pytest.raises(DamagedError, match=r"^\S+checksums\.txt: damaged: [^\n]+$"):
        check_files(folder)


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_checked(path, "é\n")
    write_checked(path, "é!\n")
    assert read_checked(path) == "é!\n"
    path.write_text("é?\n")
    with pytest.raises(DamagedError, match=r"report\.json: damaged: its content is not .* remove .*checksums\.txt$"):
        read_checked(path)
    drop_checksum(path)
    assert read_checked(path) == "é?\n"
    path.write_bytes(b"\xff")
    with pytest.raises(DamagedError, match="damaged: it is not UTF-8 text at byte 0"):
        read_checked(path)
    with pytest.raises(FileNotFoundError):
        read_checked(tmp_path / "missing")


def test_a_cache_is_made_once_and_anew_where_it_is_damaged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder, made = tmp_path / "cache" / "encoded", []

    def make(temporary: Path) -> None:
        made.append(temporary)
        (temporary / "rows").write_text("rows")

    caplog.set_level(logging.INFO)
    for _ in range(2):
        make_cached(folder, make, "encoding")
    assert len(made) == 1
    assert caplog.messages == [f"encoding in {folder}"]
    for damage in DAMAGES:
        damage(folder / "rows")
        caplog.clear()
        make_cached(folder, make)
        assert (folder / "rows").read_text() == "rows"
        assert caplog.messages[0].endswith("; it is made anew")
    # One of an earlier version, without checksums.
    (folder / CHECKSUMS).unlink()
    make_cached(folder, make)
    assert len(made) == 2 + len(DAMAGES)
    assert [path.name for path in folder.parent.iterdir()] == ["encoded"]


def test_what_a_growing_file_held_is_compared(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("1\n2\n")
    add_checksum(path)
    path.write_text("1\n2\n3\n")
    assert read_checked(path) == "1\n2\n3\n"
    assert find_damage(tmp_path) == (1, [])
    cut_to_checksum(path)
    assert read_checked(path) == "1\n2\n"
    for text in ("1\n3\n3\n", "1\n"):
        path.write_text(text)
        with pytest.raises(DamagedError, match=r"metrics\.csv: damaged: "):
            read_checked(path)
