"""A folder has one owner at a time, whose lock goes with its process; temporary files of dead processes go too."""

import multiprocessing
import os
import re
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from causal_lm_router.files import locks
from causal_lm_router.files.locks import FolderHeldError, hold_folder, is_held, make_new_folder
from causal_lm_router.files.writing import remove_leftovers, temporary_folder, write_folder, write_text


@contextmanager
def held_elsewhere(folder: Path) -> Iterator[None]:
    """Have another thread, which counts as another process, hold a folder until the block ends."""
    begun, done = threading.Event(), threading.Event()

    def hold() -> None:
        with hold_folder(folder):
            begun.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert begun.wait(60)
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for a lock."""
    monkeypatch.setattr(locks, "_SHORT_WAIT_S", 0.0)


def test_a_folder_has_one_owner(tmp_path: Path, impatient: None) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").touch()
    with held_elsewhere(folder):
        assert is_held(folder)
        before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
        with pytest.raises(FolderHeldError) as error, hold_folder(folder, "output_dir"):
            raise AssertionError("the block must not run")
        assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert re.fullmatch(
        rf"output_dir must be a folder in which nobody works, got \S+: process {os.getpid()} on \S+ since "
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \(.*\) does; wait for its end, or choose another folder",
        str(error.value),
    )
    assert not is_held(folder)
    assert os.listdir(folder) == ["config.yaml"]


def test_blocks_of_one_owner_nest(tmp_path: Path) -> None:
    with hold_folder(tmp_path), hold_folder(tmp_path):
        assert is_held(tmp_path)
    assert not is_held(tmp_path)


def test_further_processes_of_a_distributed_run_hold_nothing(
    tmp_path: Path, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held_elsewhere(tmp_path):
        monkeypatch.setenv("LOCAL_RANK", "1")
        with hold_folder(tmp_path):
            pass


def test_a_folder_in_which_nothing_came_goes(tmp_path: Path) -> None:
    with hold_folder(tmp_path / "outputs" / "run"):
        assert (tmp_path / "outputs" / "run").is_dir()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyboardInterrupt), hold_folder(tmp_path / "outputs" / "run"):
        (tmp_path / "outputs" / "other").touch()
        raise KeyboardInterrupt
    assert os.listdir(tmp_path / "outputs") == ["other"]


def test_a_new_folder_is_nobody_elses(tmp_path: Path) -> None:
    made = [make_new_folder(tmp_path / "smoke" / "12-00-00").name for _ in range(3)]
    assert made == ["12-00-00", "12-00-00_2", "12-00-00_3"]


def hold_until_killed(place: Path, says: Connection) -> None:
    """In another process: hold a folder, a half-written folder and file in it, and a temporary one."""
    tempfile.tempdir = str(place)
    with hold_folder(place), write_folder(place / "adapter") as half, temporary_folder():
        (half / "weights").write_bytes(b"half")
        says.send("held")
        signal.pause()


@pytest.mark.slow
def test_a_killed_owner_leaves_nothing_that_the_next_one_does_not_take_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, impatient: None
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=hold_until_killed, args=(tmp_path, there))
    process.start()
    assert here.recv() == "held"
    # Of a living process nothing goes.
    remove_leftovers(tmp_path)
    with temporary_folder():
        pass
    assert len(list(tmp_path.glob(".*.tmp"))) == 2
    with pytest.raises(FolderHeldError, match=f"process {process.pid} on"), hold_folder(tmp_path):
        raise AssertionError("the block must not run")
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with hold_folder(tmp_path), write_folder(tmp_path / "adapter"):
        assert len(list(tmp_path.glob(".adapter.*.tmp"))) == 1
    with temporary_folder():
        assert len(list(tmp_path.glob(".*.tmp"))) == 1
    assert os.listdir(tmp_path) == ["adapter"]


@pytest.mark.parametrize(
    ("leave", "stays"),
    [
        (lambda path: path.mkdir(), False),
        (lambda path: path.touch(), False),
        (lambda path: path.symlink_to(path.parent), True),
    ],
)
def test_leftovers_go_and_links_stay(tmp_path: Path, leave: Callable[[Path], None], stays: bool) -> None:
    leave(tmp_path / ".a.json.0a1b2c3d4e5f.tmp")
    # Not ours, or of something else.
    (tmp_path / ".a.json.mine.tmp").touch()
    (tmp_path / ".b.json.0a1b2c3d4e5f.tmp").touch()
    write_text(tmp_path / "a.json", "{}")
    left = {".a.json.mine.tmp", ".b.json.0a1b2c3d4e5f.tmp", "a.json"}
    assert set(os.listdir(tmp_path)) == left | ({".a.json.0a1b2c3d4e5f.tmp"} if stays else set())
    remove_leftovers(tmp_path)
    assert ".b.json.0a1b2c3d4e5f.tmp" not in os.listdir(tmp_path)
    shutil.rmtree(tmp_path)
