"""Base models and adapters: what trains, what is saved, what merging leaves, and errors that tell the way out."""

import dataclasses
import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from causal_lm_router.config import BaseModelOrigin
from causal_lm_router.models import base_model
from causal_lm_router.models.base_model import (
    apply_lora,
    is_adapter,
    load_base_model,
    load_tokenizer,
    load_trained,
    merge_adapter,
    prepare_base_model,
    save_weights,
)
from causal_lm_router.models.hub import hub_answers
from causal_lm_router.models.tiny_model import make_tiny_model

INPUT_IDS = torch.tensor([[313, 91, 28, 260, 223, 68, 33, 201, 201, 264, 281, 315, 28]])


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CAUSAL_LM_ROUTER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def make_model(tiny_base: Any, lora: Any, seed: int = 0) -> Any:
    return apply_lora(load_base_model(tiny_base.path, tiny_base.config), lora, seed).eval()


def disturb(model: Any) -> None:
    """Give the trained weights values as after training; a fresh adapter changes nothing."""
    generator = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data += 0.05 * torch.randn(weight.shape, generator=generator)


@torch.inference_mode()
def logits(model: Any) -> torch.Tensor:
    return model(input_ids=INPUT_IDS).logits  # type: ignore[no-any-return]


def test_preparing_again_changes_nothing(tiny_base: Any, cache: Path) -> None:
    path = Path(prepare_base_model(tiny_base.config))
    assert path == cache / "base_models" / "tiny-llama"
    stamps = {file.name: file.stat().st_mtime_ns for file in path.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= stamps.keys()
    assert prepare_base_model(tiny_base.config) == str(path)
    assert {file.name: file.stat().st_mtime_ns for file in path.iterdir()} == stamps
    assert [folder.name for folder in path.parent.iterdir()] == ["tiny-llama"]


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
        patch.setattr(base_model, "make_tiny_model", fail)
        with pytest.raises(OSError, match="disk full"):
            prepare_base_model(tiny_base.config)
    assert list((cache / "base_models").iterdir()) == []
    assert load_base_model(prepare_base_model(tiny_base.config), tiny_base.config).config.vocab_size == 320


def test_another_process_may_come_first(tiny_base: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def make_twice(folder: Path) -> None:
        make_tiny_model(folder)
        shutil.copytree(folder, cache / "base_models" / "tiny-llama")
        (cache / "base_models" / "tiny-llama" / "first").touch()

    monkeypatch.setattr(base_model, "make_tiny_model", make_twice)
    path = Path(prepare_base_model(tiny_base.config))
    assert (path / "first").exists()
    assert list((cache / "base_models").iterdir()) == [path]


@pytest.mark.parametrize(
    ("package", "message"),
    [
        ("no_such_package", r"base_model\.package='no_such_package': not installed"),
        ("causal_lm_router", r"base_model\.gguf_file='\*\.gguf': matches 0 files"),
    ],
)
def test_a_packaged_model_that_is_not_there(tiny_base: Any, cache: Path, package: str, message: str) -> None:
    packaged = {"origin": BaseModelOrigin.packaged, "package": package, "gguf_file": "*.gguf"}
    with pytest.raises(ValueError, match=message):
        prepare_base_model(dataclasses.replace(tiny_base.config, **packaged))
    assert list((cache / "base_models").iterdir()) == []


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
    with pytest.raises(ValueError, match=rf"base_model\.name='{name}': .*experiment=quickstart"):
        load(prepare_base_model(config), config)
    hub_answers.cache_clear()


def test_a_tokenizer_without_padding_pads_with_eos(tiny_base: Any, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(change_tokenizer(tiny_base, tmp_path, "pad_token"), tiny_base.config)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 2


def test_a_tokenizer_without_eos_is_refused(tiny_base: Any, tmp_path: Path) -> None:
    folder = change_tokenizer(tiny_base, tmp_path, "eos_token")
    with pytest.raises(ValueError, match=r"base_model\.name='tiny-llama': needs a fast tokenizer with an eos token"):
        load_tokenizer(folder, tiny_base.config)


def change_tokenizer(tiny_base: Any, folder: Path, without: str) -> str:
    """Copy the tiny tokenizer without one of its special tokens."""
    shutil.copy(Path(tiny_base.path) / "tokenizer.json", folder)
    settings = json.loads((Path(tiny_base.path) / "tokenizer_config.json").read_text())
    del settings[without]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return str(folder)


def test_only_adapter_weights_train(tiny_base: Any, tiny_config: Callable[..., Any]) -> None:
    model = make_model(tiny_base, tiny_config().lora)
    trained = {name: weight.shape for name, weight in model.named_parameters() if weight.requires_grad}
    # 128 hidden units, 64 of keys and of values, rank 16.
    outputs = {"q_proj": 128, "k_proj": 64, "v_proj": 64, "o_proj": 128}
    expected: dict[str, tuple[int, int]] = {}
    for layer in range(2):
        for name, size in outputs.items():
            path = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            expected |= {f"{path}.lora_A.default.weight": (16, 128), f"{path}.lora_B.default.weight": (size, 16)}
    assert trained == expected
    assert sum(shape.numel() for shape in trained.values()) == 28_672


@pytest.mark.parametrize(
    ("group", "num_trained"),
    # all_linear adds 3 x 16 x (128 + 256) per layer; none is every weight of embedding, head, layers and norms.
    [("default", 28_672), ("all_linear", 65_536), ("none", 2 * 320 * 128 + 2 * 147_712 + 128)],
)
@pytest.mark.slow
def test_how_many_weights_train(tiny_base: Any, tiny_config: Callable[..., Any], group: str, num_trained: int) -> None:
    model = make_model(tiny_base, tiny_config(f"lora={group}").lora)
    assert sum(weight.numel() for weight in model.parameters() if weight.requires_grad) == num_trained


@pytest.mark.slow
def test_initialisation_follows_from_the_seed_alone(tiny_base: Any, tiny_config: Callable[..., Any]) -> None:
    def weights(seed: int) -> dict[str, torch.Tensor]:
        torch.rand(seed + 3)
        return make_model(tiny_base, tiny_config().lora, seed).state_dict()  # type: ignore[no-any-return]

    first, again, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("targets", ["[no_such_layer]", "[q_proj,no_such_layer]"])
@pytest.mark.slow
def test_a_wrong_target_module_is_named(tiny_base: Any, tiny_config: Callable[..., Any], targets: str) -> None:
    with pytest.raises(ValueError, match=r"lora\.target_modules must be all-linear or .* q_proj.*'no_such_layer'"):
        make_model(tiny_base, tiny_config(f"lora.target_modules={targets}").lora)


VARIANTS = ["default", "lora.use_dora=true", "lora.use_rslora=true", "lora=all_linear", "lora=none"]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.slow
def test_saved_and_merged_weights_give_the_same_logits(
    tiny_base: Any, tiny_config: Callable[..., Any], tmp_path: Path, variant: str
) -> None:
    config = tiny_config(*([] if variant == "default" else [variant])).lora
    model = make_model(tiny_base, config)
    disturb(model)
    expected = logits(model)
    bare = load_base_model(tiny_base.path, tiny_base.config)
    assert (logits(bare) - expected).abs().max() > 0.01
    save_weights(model, tiny_base.tokenizer, tmp_path / "adapter")
    assert is_adapter(tmp_path / "adapter") == config.use_lora
    if config.use_lora:
        reloaded = peft.PeftModel.from_pretrained(bare, str(tmp_path / "adapter")).eval()
        assert torch.allclose(logits(reloaded), expected, atol=1e-5)
    merged = load_trained(tiny_base.path, tiny_base.config, tmp_path / "adapter")
    assert (logits(merged) - expected).abs().max() < 1e-4
    merge_adapter(tiny_base.path, tiny_base.config, tmp_path / "adapter", tmp_path / "merged")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    for name, weight in merged.state_dict().items():
        assert torch.equal(plain.state_dict()[name], weight), name
    assert plain.config.use_cache
    assert load_tokenizer(str(tmp_path / "merged"), tiny_base.config).get_vocab() == tiny_base.tokenizer.get_vocab()


@pytest.mark.slow
def test_variants_are_what_they_are_called(tiny_base: Any, tiny_config: Callable[..., Any]) -> None:
    def first_layer(*overrides: str) -> Any:
        model = make_model(tiny_base, tiny_config(*overrides).lora)
        return model.base_model.model.model.layers[0].self_attn.q_proj

    assert first_layer().scaling["default"] == 32 / 16
    assert first_layer("lora.use_rslora=true").scaling["default"] == 32 / 4
    assert "default" in first_layer("lora.use_dora=true").lora_magnitude_vector
    assert "default" not in first_layer().lora_magnitude_vector


def test_saving_fails_whole(
    tiny_base: Any, tiny_config: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(tiny_base.tokenizer, "save_pretrained", fail)
    with pytest.raises(OSError, match="disk full"):
        save_weights(make_model(tiny_base, tiny_config().lora), tiny_base.tokenizer, tmp_path / "adapter")
    assert list(tmp_path.iterdir()) == []
