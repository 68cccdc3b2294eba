"""Packed rows against padded ones: values and gradients, over architectures."""

import random
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PretrainedConfig,
    Qwen3Config,
)

from causal_lm_router.models import packed_rows
from causal_lm_router.models.packed_rows import LEAST_SHARED, PACKED
from causal_lm_router.models.target_logprobs import target_logprobs
from causal_lm_router.prompting.token_trie import make_trie
from causal_lm_router.training.objective import completion_loss
from causal_lm_router.training.rows import MicroBatch, collate

SIZES = {
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
GROUPED = {**SIZES, "num_key_value_heads": 2, "head_dim": 8}
NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
ARCHITECTURES = {
    "llama": LlamaConfig(**GROUPED),
    "qwen3": Qwen3Config(**GROUPED),
    "gemma3": Gemma3TextConfig(**GROUPED, sliding_window=128),
    "window shorter than the rows": Gemma3TextConfig(**GROUPED, sliding_window=8),
    "absolute positions": GPT2Config(vocab_size=100, n_embd=32, n_layer=2, n_head=4, **NO_DROPOUT),
    "parallel layers": GPTNeoXConfig(**SIZES),
}
SHARED = list(range(20, 20 + LEAST_SHARED))
TRIE = make_trie([[71, 72, 2], [71, 73, 2], [90, 2]])


def batch(beginning: list[int]) -> MicroBatch:
    draw = random.Random(1)
    rows = [(7, 3, 1.0), (12, 2, 0.5), (4, 3, 1.0)]
    return collate(
        [
            {
                "input_ids": beginning + [draw.randrange(10, 90) for _ in range(length)],
                "num_target_tokens": num_target,
                "weight": weight,
                "utilities": [],
            }
            for length, num_target, weight in rows
        ],
        pad_token_id=0,
    )


def loss_and_gradient(model: Any, kernel: str, micro_batch: MicroBatch) -> tuple[float, torch.Tensor]:
    model.set_attn_implementation(kernel)
    model.zero_grad()
    logprobs_of_targets = target_logprobs(model, micro_batch.input_ids, micro_batch.attention_mask, TRIE)
    loss = completion_loss(model, micro_batch) - logprobs_of_targets.sum()
    loss.backward()
    gradients = [weight.grad.flatten() for weight in model.parameters() if weight.grad is not None]
    return loss.item(), torch.cat(gradients)


@pytest.mark.parametrize("beginning", [[], SHARED, SHARED[:-1]], ids=["nothing shared", "shared", "too short to share"])
@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_packed_rows_give_the_losses_and_gradients_of_padded_ones(
    architecture: PretrainedConfig, beginning: list[int]
) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(architecture).float().eval()
    micro_batch = batch(beginning)
    expected, expected_gradient = loss_and_gradient(model, "sdpa", micro_batch)
    loss, gradient = loss_and_gradient(model, PACKED, micro_batch)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert (gradient - expected_gradient).norm() < 1e-5 * expected_gradient.norm()


def test_a_shared_beginning_is_computed_once_and_padding_not_at_all() -> None:
    model = AutoModelForCausalLM.from_config(ARCHITECTURES["llama"])
    model.set_attn_implementation(PACKED)
    seen: list[tuple[int, ...]] = []
    model.model.layers[0].register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape)))
    completion_loss(model, batch(SHARED))
    assert seen == [(1, LEAST_SHARED + 7 + 12 + 4, 32)]


def test_equal_rows_keep_a_token_of_their_own() -> None:
    model = AutoModelForCausalLM.from_config(ARCHITECTURES["llama"]).eval()
    row = {"input_ids": SHARED * 2, "num_target_tokens": 0, "weight": 1.0, "utilities": []}
    micro_batch = collate([row, row], pad_token_id=0)
    found = {}
    for kernel in ("sdpa", PACKED):
        model.set_attn_implementation(kernel)
        with torch.no_grad():
            found[kernel] = target_logprobs(model, micro_batch.input_ids, micro_batch.attention_mask, TRIE)
    assert torch.allclose(found[PACKED], found["sdpa"], atol=1e-5)


@pytest.mark.parametrize("beginning", [[], SHARED], ids=["nothing shared", "shared"])
def test_attention_by_products_in_bfloat16_is_as_close_to_float32_as_the_kernel(
    beginning: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(ARCHITECTURES["llama"]).float().eval()
    micro_batch = batch(beginning)
    _, expected = loss_and_gradient(model, PACKED, micro_batch)
    model.bfloat16()
    errors = {}
    for most_scores in (0, packed_rows.MOST_SCORES):
        monkeypatch.setattr(packed_rows, "MOST_SCORES", most_scores)
        _, gradient = loss_and_gradient(model, PACKED, micro_batch)
        errors[most_scores] = (gradient.float() - expected).norm() / expected.norm()
    by_kernel, by_products = errors.values()
    assert by_products != by_kernel
    # Weights alone lose 0.4% by bfloat16.
    assert by_products < 2 * by_kernel + 0.01
