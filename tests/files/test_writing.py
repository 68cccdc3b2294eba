"""Files and folders appear whole or not at all, and nothing is left beside them."""

import csv
import os
from pathlib import Path

import pytest

from causal_lm_router.files.source_code import code_alone
from causal_lm_router.files.writing import open_atomic, refuse_links, write_bytes, write_folder, write_text


def test_text_and_bytes_are_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_text(path, "é\r\n")
    assert path.read_bytes() == b"\xc3\xa9\r\n"
    write_bytes(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert os.listdir(tmp_path) == ["report.json"]


def test_the_earlier_file_is_replaced_not_overwritten(tmp_path: Path) -> None:
    path, still_open = tmp_path / "report.json", tmp_path / "link"
    write_text(path, "old")
    still_open.hardlink_to(path)
    write_text(path, "new")
    assert (path.read_text(), still_open.read_text()) == ("new", "old")


def test_a_failure_leaves_the_earlier_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    write_text(path, "old")
    with pytest.raises(KeyboardInterrupt), open_atomic(path) as file:
        file.write("half of the new")
        raise KeyboardInterrupt
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["metrics.csv"]


def test_the_file_appears_only_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    with open_atomic(path) as file:
        csv.writer(file).writerow(["a", "b"])
        assert not path.exists()
        (temporary,) = tmp_path.iterdir()
        assert temporary.name.startswith(".rows.csv.")
        assert temporary.name.endswith(".tmp")
    assert path.read_bytes() == b"a,b\r\n"


def test_files_get_the_permissions_of_any_other_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    write_text(tmp_path / "atomic", "")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_other_modes_and_missing_folders_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mode must be w or wb, got 'a'"):
        open_atomic(tmp_path / "x", "a")  # type: ignore[call-overload]
    with pytest.raises(FileNotFoundError):
        write_text(tmp_path / "missing" / "x", "")
    assert not any(tmp_path.iterdir())


def test_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "adapter"
    with write_folder(target) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "weights").write_bytes(b"123")
        assert not target.exists()
        assert folder.parent == tmp_path
    assert (target / "sub" / "weights").read_bytes() == b"123"
    assert os.listdir(tmp_path) == ["adapter"]


def test_folder_takes_the_place_of_an_empty_one(tmp_path: Path) -> None:
    target = tmp_path / "adapter"
    target.mkdir()
    with write_folder(target) as folder:
        (folder / "weights").touch()
    assert os.listdir(target) == ["weights"]


def test_a_failed_folder_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), write_folder(tmp_path / "adapter") as folder:
        (folder / "half").touch()
        raise KeyboardInterrupt
    assert not any(tmp_path.iterdir())


def test_an_occupied_place_is_refused_before_and_after(tmp_path: Path) -> None:
    target = tmp_path / "adapter"
    with pytest.raises(FileExistsError, match="not an empty folder"), write_folder(target):
        target.mkdir()
        (target / "of another process").touch()
    with pytest.raises(FileExistsError, match="not an empty folder"), write_folder(target):
        raise AssertionError("the block must not run")
    assert os.listdir(tmp_path) == ["adapter"]
    assert os.listdir(target) == ["of another process"]
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError), write_folder(tmp_path / "file"):
        raise AssertionError("the block must not run")


def test_code_alone_has_no_comments_and_docstrings_but_every_number() -> None:
    source = """def area(side):
    'The area (m2).'
    # A square.
    return side**2


class Box:
    side: int = 3
    "Length of an edge."
"""
    code = code_alone(source)
    assert code == code_alone("def area(side):\n    return side**2\nclass Box:\n  side: int = 3")
    assert "square" not in code
    assert code_alone(source.replace("**2", "**3")) != code
    assert code_alone(source.replace("int = 3", "int = 4")) != code
    assert code_alone("x = 'a text'") != code_alone("x = 'another'")


def test_links_that_lead_out_of_a_folder_are_refused(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    (folder / "wandb" / "offline-run-1" / "logs").mkdir(parents=True)
    elsewhere.mkdir()
    # As W&B leaves them: inside the folder, and in the folders of its runs to its own logs.
    (folder / "wandb" / "latest-run").symlink_to("offline-run-1")
    (folder / "wandb" / "offline-run-1" / "logs" / "debug-core.log").symlink_to(elsewhere / "core.log")
    (folder / "gone").symlink_to("nowhere")
    refuse_links(folder)
    refuse_links(tmp_path)
    (folder / "wandb" / "data").symlink_to(elsewhere)
    with pytest.raises(ValueError, match=r"run/wandb/data: must lie in .*run itself, got a link to .*elsewhere"):
        refuse_links(folder)
    refuse_links(folder, deep=False)
    refuse_links(tmp_path)
    (tmp_path / "sibling").symlink_to(tmp_path.with_name(f"{tmp_path.name}-2"))
    with pytest.raises(ValueError, match="sibling: must lie in"):
        refuse_links(tmp_path, deep=False)
