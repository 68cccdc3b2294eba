"""Base models: what is prepared, what is loaded, and errors that tell the way out."""

import dataclasses
import json
import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch

from causal_lm_router.config import BaseModelOrigin
from causal_lm_router.models import tiny_model
from causal_lm_router.models.base_model import load_base_model, load_tokenizer, prepare_base_model
from causal_lm_router.models.hub import hub_answers
from causal_lm_router.models.tiny_model import make_tiny_model


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CAUSAL_LM_ROUTER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_preparing_again_changes_nothing(tiny_base: Any, cache: Path) -> None:
    path = Path(prepare_base_model(tiny_base.config))
    assert re.fullmatch("tiny-llama-[0-9a-f]{12}", path.name)
    assert path.parent == cache / "base_models"
    stamps = {file.name: file.stat().st_mtime_ns for file in path.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= stamps.keys()
    assert prepare_base_model(tiny_base.config) == str(path)
    assert {file.name: file.stat().st_mtime_ns for file in path.iterdir()} == stamps
    assert [folder.name for folder in path.parent.iterdir()] == [path.name]


def test_the_tiny_base_model_is_always_the_same(tiny_base: Any, tmp_path: Path) -> None:
    torch.manual_seed(7)
    make_tiny_model(tmp_path)
    for name in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / name).read_bytes() == (Path(tiny_base.path) / name).read_bytes()


def test_a_failing_conversion_leaves_nothing(tiny_base: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(tiny_model, "make_tiny_model", fail)
        with pytest.raises(OSError, match="disk full"):
            prepare_base_model(tiny_base.config)
    assert list((cache / "base_models").iterdir()) == []
    assert load_base_model(prepare_base_model(tiny_base.config), tiny_base.config).config.vocab_size == 320


def test_another_process_may_come_first(tiny_base: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Path(prepare_base_model(tiny_base.config))
    shutil.rmtree(other)

    def make_twice(folder: Path) -> None:
        make_tiny_model(folder)
        shutil.copytree(folder, other)
        (other / "first").touch()

    monkeypatch.setattr(tiny_model, "make_tiny_model", make_twice)
    path = Path(prepare_base_model(tiny_base.config))
    assert (path / "first").exists()
    assert list((cache / "base_models").iterdir()) == [path]


@pytest.mark.parametrize(
    ("package", "message"),
    [
        ("no_such_package", r"base_model\.package must be an installed package, got 'no_such_package'"),
        ("causal_lm_router", r"base_model\.gguf_file must match one file in .*, got '\*\.gguf', which matches 0"),
    ],
)
def test_a_packaged_model_that_is_not_there(tiny_base: Any, cache: Path, package: str, message: str) -> None:
    packaged = {"origin": BaseModelOrigin.packaged, "package": package, "gguf_file": "*.gguf"}
    with pytest.raises(ValueError, match=message):
        prepare_base_model(dataclasses.replace(tiny_base.config, **packaged))
    assert not cache.exists()


@pytest.mark.parametrize("load", [load_tokenizer, load_base_model])
def test_offline_the_hub_is_not_asked_and_the_error_names_the_way_out(
    tiny_base: Any, monkeypatch: pytest.MonkeyPatch, load: Callable[..., Any]
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    hub_answers.cache_clear()
    name = "meta-llama/Llama-2-7b-hf"
    config = dataclasses.replace(tiny_base.config, name=name, origin=BaseModelOrigin.hub)

    def connect(*arguments: Any, **options: Any) -> None:
        raise AssertionError("the hub is asked")

    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(ValueError, match=rf"base_model\.name must be .*, got '{name}' .*experiment=quickstart"):
        load(prepare_base_model(config), config)
    hub_answers.cache_clear()


@pytest.mark.parametrize("kernel", ["flash_attention_2", "kernels-community/flash-attn2", "no_such_kernel"])
@pytest.mark.slow
def test_an_attention_kernel_that_is_not_there_is_told_in_one_line(tiny_base: Any, kernel: str) -> None:
    config = dataclasses.replace(tiny_base.config, attn_implementation=kernel)
    with pytest.raises(ValueError) as caught:
        load_base_model(tiny_base.path, config)
    assert str(caught.value).startswith("base_model.attn_implementation must be auto, packed, sdpa, eager or a kernel ")
    assert f"got {kernel!r} (" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_base_model_with_code_of_its_own_needs_a_permission(tiny_base: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_base.path, tmp_path / "base"))
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    settings |= {"model_type": "mine", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "own.py").write_text("raise SystemExit('it ran')", encoding="utf-8")
    config = dataclasses.replace(tiny_base.config, name="org/mine", trust_remote_code=False)
    with pytest.raises(ValueError, match=r"^base_model\.trust_remote_code must be true for 'org/mine', .* got false$"):
        load_base_model(str(folder), config)


def test_a_folder_without_a_tokenizer_is_told_in_one_line(tiny_base: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^base_model\.name must be .* got 'tiny-llama' \(") as caught:
        load_tokenizer(str(tmp_path), tiny_base.config)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_without_padding_pads_with_eos(tiny_base: Any, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(change_tokenizer(tiny_base, tmp_path, "pad_token"), tiny_base.config)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 2


def test_a_tokenizer_without_eos_is_refused(tiny_base: Any, tmp_path: Path) -> None:
    folder = change_tokenizer(tiny_base, tmp_path, "eos_token")
    with pytest.raises(
        ValueError, match=r"base_model\.name must have a fast tokenizer with an end token, got 'tiny-llama'"
    ):
        load_tokenizer(folder, tiny_base.config)


def change_tokenizer(tiny_base: Any, folder: Path, without: str) -> str:
    """Copy the tiny tokenizer without one of its special tokens."""
    shutil.copy(Path(tiny_base.path) / "tokenizer.json", folder)
    settings = json.loads((Path(tiny_base.path) / "tokenizer_config.json").read_text())
    del settings[without]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return str(folder)
