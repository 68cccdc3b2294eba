"""What is made of a base model follows the content of its files, not their name."""

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from causal_lm_router.config import BaseModelOrigin
from causal_lm_router.files.writing import cache_dir
from causal_lm_router.models import version
from causal_lm_router.models.base_model import base_model_source, prepare_base_model
from causal_lm_router.models.version import hash_files, model_version


@pytest.fixture
def folder(tiny_base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A base model of the user's, and an empty cache."""
    monkeypatch.setenv("CAUSAL_LM_ROUTER_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(tiny_base.path, tmp_path / "mine"))


def change(folder: Path) -> None:
    """Change one weight, and leave size and modification time as they are."""
    path = folder / "model.safetensors"
    weights, times = load_file(path), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    weights["model.embed_tokens.weight"][7, 7] += 1
    save_file(weights, path, metadata={"format": "pt"})
    os.utime(path, ns=times)


def test_a_base_model_changed_at_the_same_path_is_extended_anew(tiny_base: Any, folder: Path) -> None:
    config = dataclasses.replace(tiny_base.config, origin=BaseModelOrigin.hub, name=str(folder))
    first = Path(base_model_source(config, {"<one>": "one"}))
    assert base_model_source(config, {"<one>": "one"}) == str(first)
    change(folder)
    second = Path(base_model_source(config, {"<one>": "one"}))
    assert second != first
    rows = [load_file(path / "model.safetensors")["model.embed_tokens.weight"] for path in (first, second)]
    assert torch.count_nonzero(rows[1] - rows[0]) == 1
    # The same content elsewhere is the same base model.
    moved = Path(shutil.copytree(folder, folder.with_name("moved")))
    assert base_model_source(dataclasses.replace(config, name=str(moved)), {"<one>": "one"}) == str(second)


def test_a_file_is_read_again_only_where_it_has_changed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = Path("model.safetensors")
    # Right after a change the file's times cannot tell of another one, so nothing is kept.
    first = hash_files(folder, [name])
    assert not list((cache_dir() / "file_hashes").glob("*"))
    monkeypatch.setattr(version, "_STILL_S", -1.0)
    assert hash_files(folder, [name]) == first
    (record,) = (cache_dir() / "file_hashes").glob("*.json")
    kept = record.read_text()
    record.write_text(kept.replace(kept.split('"')[-2], "known"))
    known = hash_files(folder, [name])
    assert known != first, "the kept hash is used"
    change(folder)
    assert hash_files(folder, [name]) not in (first, known)
    # A damaged record is made anew.
    second = hash_files(folder, [name])
    record.write_bytes(bytes(10))
    assert hash_files(folder, [name]) == second
    assert hash_files(folder, []) != second


def test_a_model_of_this_package_is_known_by_its_checksums(tiny_base: Any, folder: Path) -> None:
    made = Path(prepare_base_model(tiny_base.config))
    assert made.is_relative_to(cache_dir())
    known = model_version(str(made))
    change(made)
    assert model_version(str(made)) == known, "damage is found when it is loaded"
    (folder / ".git").mkdir()
    before = model_version(str(folder))
    (folder / ".git" / "index").touch()
    assert model_version(str(folder)) == before
    (folder / "config.json").write_text("{}")
    assert model_version(str(folder)) != before
