"""Adapters: what trains, what is saved, and that merging, saving and vLLM leave the router as it was trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from causal_lm_router.models.adapter import apply_lora, is_adapter, load_trained, merge_adapter, save_weights
from causal_lm_router.models.base_model import load_base_model, load_tokenizer

INPUT_IDS = torch.tensor([[313, 91, 28, 260, 223, 68, 33, 201, 201, 264, 281, 315, 28]])


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
