"""Adapters: what trains, what is saved, and that merging, saving and vLLM leave the router as it was trained."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from causal_lm_router.files.checksums import CHECKSUMS
from causal_lm_router.models.adapter import (
    ADAPTER_SETTINGS,
    ADAPTER_WEIGHTS,
    apply_lora,
    is_adapter,
    load_trained,
    merge_adapter,
    save_weights,
    vllm_serves,
)
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


def test_a_target_module_that_the_last_layers_lack_is_named(tiny_base: Any, tiny_config: Callable[..., Any]) -> None:
    config = tiny_config("lora.target_modules=[q_proj,embed_tokens]", "lora.num_layers=1").lora
    with pytest.raises(ValueError, match=r"lora\.target_modules must be layers of the last 1 .* got 'embed_tokens'"):
        make_model(tiny_base, config)


@pytest.mark.parametrize("target", ["embed_tokens", "lm_head"])
@pytest.mark.parametrize(("is_tied", "new_ids"), [(True, ()), (True, (5,)), (False, (5,))])
def test_what_cannot_be_merged_truly_is_refused_before_training(
    target: str,
    is_tied: bool,
    new_ids: tuple[int, ...],
    tiny_base: Any,
    tied_base: Any,
    tiny_config: Callable[..., Any],
) -> None:
    base = tied_base if is_tied else tiny_base
    config = tiny_config(f"lora.target_modules=[q_proj,{target}]").lora
    with pytest.raises(ValueError) as caught:
        apply_lora(load_base_model(base.path, base.config), config, 0, new_ids)
    told = str(caught.value)
    assert told.startswith("lora.target_modules must leave out embed_tokens and lm_head")
    assert ("new tokens" in told, told.endswith(f"got '{target}'")) == (bool(new_ids), True)


@pytest.fixture(scope="module")
def tied_base(tiny_base: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The tiny base model with a head that shares the embedding's weights."""
    folder = shutil.copytree(tiny_base.path, tmp_path_factory.mktemp("tied") / "base")
    settings = AutoConfig.from_pretrained(tiny_base.path)
    settings.tie_word_embeddings = True
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(settings).save_pretrained(folder)  # type: ignore[no-untyped-call]
    return dataclasses.replace(tiny_base, path=str(folder))


TARGETS = ["[q_proj]", "[all-linear]", "[v_proj,down_proj] lora.num_layers=1"]
ENDS = ["[embed_tokens]", "[lm_head]", "[q_proj,embed_tokens,lm_head]"]


@pytest.mark.parametrize("variant", ["lora.use_dora=false", "lora.use_dora=true", "lora.use_rslora=true"])
@pytest.mark.parametrize("adds_tokens", [False, True])
@pytest.mark.parametrize("is_tied", [False, True])
@pytest.mark.slow
def test_adapter_reloaded_and_merged_say_the_same(
    is_tied: bool,
    adds_tokens: bool,
    variant: str,
    tiny_base: Any,
    tied_base: Any,
    tiny_config: Callable[..., Any],
    tmp_path: Path,
) -> None:
    base = tied_base if is_tied else tiny_base
    # Ids of the vocabulary stand for new tokens: their rows train in the same way.
    new_ids = INPUT_IDS[0, :2].tolist() if adds_tokens else []
    choices = TARGETS if is_tied or adds_tokens else [*TARGETS, *ENDS]
    for number, targets in enumerate(choices):
        lora = tiny_config(variant, "lora.lora_dropout=0", *f"lora.target_modules={targets}".split()).lora
        model = apply_lora(load_base_model(base.path, base.config), lora, 0, new_ids).eval()
        disturb(model)
        expected, folder = logits(model), tmp_path / str(number)
        save_weights(model, base.tokenizer, folder)
        bare = load_base_model(base.path, base.config).eval()  # type: ignore[no-untyped-call]
        assert (logits(bare) - expected).abs().max() > 0.01, targets
        reloaded = peft.PeftModel.from_pretrained(bare, str(folder)).eval()
        merged = load_trained(base.path, base.config, folder).eval()  # type: ignore[no-untyped-call]
        for again in (reloaded, merged):
            assert (logits(again) - expected).abs().max() < 1e-4, targets
        assert merged.config.tie_word_embeddings == is_tied


@pytest.mark.parametrize("variant", ["lora=default", "lora.use_dora=true", "lora=none"])
@pytest.mark.slow
def test_a_merged_checkpoint_is_written_as_it_is_loaded(
    tiny_base: Any, tiny_config: Callable[..., Any], tmp_path: Path, variant: str
) -> None:
    config = tiny_config(variant).lora
    model = make_model(tiny_base, config)
    disturb(model)
    expected = logits(model)
    save_weights(model, tiny_base.tokenizer, tmp_path / "adapter")
    assert is_adapter(tmp_path / "adapter") == config.use_lora
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


def test_the_settings_of_an_adapter_name_the_base_model(
    tiny_base: Any, tiny_config: Callable[..., Any], tmp_path: Path
) -> None:
    model = make_model(tiny_base, tiny_config().lora)
    for folder, name in ((tmp_path / "a", None), (tmp_path / "b", "org/tiny")):
        save_weights(model, tiny_base.tokenizer, folder, name)
        settings = json.loads((folder / ADAPTER_SETTINGS).read_text(encoding="utf-8"))
        assert (settings["base_model_name_or_path"], settings["r"]) == (name or tiny_base.path, 16)


# Adapters from elsewhere


def cut_weights(folder: Path) -> None:
    weights = folder / ADAPTER_WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-10])


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / ADAPTER_WEIGHTS)
    change(tensors)
    save_file(tensors, folder / ADAPTER_WEIGHTS)


def change_settings(folder: Path, **changes: Any) -> None:
    path = folder / ADAPTER_SETTINGS
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


FIRST = "base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight"


@pytest.fixture(scope="module")
def saved_adapter(tiny_base: Any, tiny_config: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an adapter without checksums, like one from elsewhere."""
    folder = tmp_path_factory.mktemp("saved") / "adapter"
    save_weights(make_model(tiny_base, tiny_config().lora), tiny_base.tokenizer, folder)
    (folder / CHECKSUMS).unlink()
    return folder


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (cut_weights, "cannot be read: "),
        (lambda folder: (folder / ADAPTER_WEIGHTS).unlink(), "cannot be read: "),
        (lambda folder: (folder / ADAPTER_SETTINGS).write_text("{"), "cannot be read: "),
        (lambda folder: change_settings(folder, peft_type="SORCERY"), "cannot be read: "),
        (lambda folder: change_settings(folder, r=8), "cannot be read: "),
        # PEFT would go on with weights as they were drawn, which add nothing, and leave others out.
        (lambda folder: change_settings(folder, target_modules=["gate_proj"]), "differs in base_model.model"),
        (lambda folder: change_weights(folder, lambda tensors: tensors.pop(FIRST)), f"differs in {FIRST}"),
        (
            lambda folder: change_weights(folder, lambda tensors: tensors.update(a=tensors.pop(FIRST))),
            "differs in a",
        ),
        (lambda folder: change_settings(folder, target_modules=["no_layer"]), "cannot be read: Target modules"),
    ],
)
def test_an_adapter_that_does_not_fit_is_an_error_of_one_line(
    damage: Callable[[Path], None], told: str, tiny_base: Any, saved_adapter: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(saved_adapter, folder)
    damage(folder)
    with pytest.raises(ValueError) as caught:
        load_trained(tiny_base.path, tiny_base.config, folder)
    assert str(caught.value).startswith(str(folder))
    assert f"must be an adapter of the base model, got one that {told}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_settings_that_are_no_json_are_told_before_an_engine_starts(tmp_path: Path) -> None:
    (tmp_path / ADAPTER_SETTINGS).write_text("{", encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"adapter_config\.json must be an adapter of the base model, .* cannot be read"
    ):
        vllm_serves(tmp_path)


def test_an_adapter_on_a_tied_embedding_is_not_merged(
    tiny_base: Any, tied_base: Any, tiny_config: Callable[..., Any], tmp_path: Path
) -> None:
    """Earlier versions trained such adapters."""
    lora = tiny_config("lora.target_modules=[q_proj,embed_tokens]").lora
    model = apply_lora(load_base_model(tiny_base.path, tiny_base.config), lora, 0)
    save_weights(model, tiny_base.tokenizer, tmp_path / "adapter")
    with pytest.raises(ValueError, match=r"adapter_config\.json: target_modules must leave out embedding and head"):
        load_trained(tied_base.path, tied_base.config, tmp_path / "adapter")
