"""Frozen layers computed once: the same losses, nothing stale, and no base model that cannot be split."""

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from causal_lm_router.files.writing import cache_dir
from causal_lm_router.training.frozen_layers import HiddenStates, reuse_frozen_layers

Fit = Callable[..., dict[str, list[float]]]
LAST = ("lora.num_layers=1", "lora.lora_dropout=0")
PAD = 0


def files() -> set[Path]:
    return set((cache_dir() / "hidden_states").glob("*/states.bin"))


def test_the_losses_stay_the_same(fit_tiny: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAUSAL_LM_ROUTER_CACHE", str(tmp_path / "cache"))
    expected = fit_tiny(*LAST)["loss"]
    before = files()
    first = fit_tiny(*LAST, "trainer.reuse_frozen_layers=true")["loss"]
    (made,) = files() - before
    again = fit_tiny(*LAST, "trainer.reuse_frozen_layers=true")["loss"]
    # Rows are computed in other batches than in training, so they round otherwise; the first loss is before training.
    assert first[0] == pytest.approx(expected[0], rel=1e-4)
    assert first == pytest.approx(expected, rel=1e-2)
    assert again == first
    # What is there but belongs to other weights is made anew.
    made.write_bytes(bytes(made.stat().st_size))
    assert fit_tiny(*LAST, "trainer.reuse_frozen_layers=true")["loss"] == first


def test_targets_of_several_tokens_take_all_layers(fit_tiny: Fit) -> None:
    with pytest.raises(ValueError, match=r"trainer\.reuse_frozen_layers .* target\.kind is token"):
        fit_tiny(*LAST, "trainer.reuse_frozen_layers=true", "objective=soft")


def make_rows() -> datasets.Dataset:
    """Rows of 2 to 41 tokens."""
    ids = [[(7 * number + place) % 300 + 3 for place in range(number + 2)] for number in range(40)]
    columns = {"num_target_tokens": [1] * 40, "weight": [1.0] * 40, "utilities": [[]] * 40}
    return datasets.Dataset.from_dict({"input_ids": ids, "num_tokens": list(map(len, ids)), **columns})


def make_llama(dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 2, "num_key_value_heads": 1}
    return LlamaForCausalLM(LlamaConfig(vocab_size=320, num_hidden_layers=6, **sizes)).to(dtype).eval()


def split(model: torch.nn.Module, folder: Path, num_trained: int = 2) -> Any:
    return reuse_frozen_layers(model, make_rows(), PAD, num_trained, "test", folder)


# The largest difference: other processors round bfloat16 otherwise, by the shape of the batch.
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-3), (torch.bfloat16, 0.1)])
@pytest.mark.slow
def test_hidden_states_are_those_of_the_row_alone(tmp_path: Path, dtype: torch.dtype, error: float) -> None:
    model, rows = make_llama(dtype), make_rows()
    expected = []
    with torch.no_grad():
        for ids in rows["input_ids"]:
            # Before the upper two of six layers.
            expected.append(model(torch.tensor([ids]), output_hidden_states=True).hidden_states[4][0].float())
    with split(model, tmp_path) as states:
        for row in range(len(rows)):
            difference = states[row].float() - expected[row]
            assert difference.norm() <= error * expected[row].norm()


def test_the_file_has_all_its_room_before_it_is_written(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk, which a light test cannot have."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"trainer\.reuse_frozen_layers=true needs 0.4 MB in the cache folder"):
            split(make_llama(), tmp_path).__enter__()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.rglob("*.tmp")) == list(tmp_path.rglob("*.bin")) == []


class Rounded(HiddenStates):
    """Hidden states as another kernel would round them: off by 2% at every token."""

    def __getitem__(self, row: int) -> Tensor:
        states = super().__getitem__(row)
        noise = torch.randn(states.shape, generator=torch.Generator().manual_seed(row))
        return states + 0.02 * states.norm(dim=1, keepdim=True) * noise / noise.norm(dim=1, keepdim=True)


def test_rounding_is_no_reason_to_refuse_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("causal_lm_router.training.frozen_layers.HiddenStates", Rounded)
    with split(make_llama(), tmp_path) as states:
        assert states[0].shape == (2, 128)


def test_a_model_that_adds_positions_to_its_inputs_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=320, n_embd=64, n_layer=4, n_head=2)).eval()
    with pytest.raises(ValueError, match=r"trainer\.reuse_frozen_layers must be false .*GPT2LMHeadModel"):
        split(model, tmp_path).__enter__()


def test_a_model_whose_upper_layers_see_its_inputs_is_refused(tmp_path: Path) -> None:
    model = make_llama()
    inputs: list[Tensor] = []

    def keep_inputs(module: Any, arguments: Any, options: dict[str, Any]) -> None:
        embeds = options.get("inputs_embeds")
        inputs[:] = [model.model.embed_tokens(options["input_ids"]) if embeds is None else embeds]

    model.model.register_forward_pre_hook(keep_inputs, with_kwargs=True)
    model.model.layers[-1].register_forward_pre_hook(lambda module, arguments: (arguments[0] + inputs[0],))
    with pytest.raises(ValueError, match=r"trainer\.reuse_frozen_layers must be false .*LlamaForCausalLM"):
        split(model, tmp_path).__enter__()


def test_a_model_that_mixes_the_rows_of_a_batch_is_refused(tmp_path: Path) -> None:
    model = make_llama()
    model.model.layers[0].register_forward_hook(lambda module, inputs, output: output + output.mean(dim=0))
    with pytest.raises(ValueError, match=r"trainer\.reuse_frozen_layers must be false .*in a batch"):
        split(model, tmp_path).__enter__()
