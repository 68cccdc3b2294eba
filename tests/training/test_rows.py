"""Micro-batches written out: what is padded, masked and taught, and what Lightning's precisions make of them."""

import pytest
import torch
from pytorch_lightning.plugins.precision import HalfPrecision

from causal_lm_router.training.batches import Step
from causal_lm_router.training.rows import MicroBatch, collate

PAD, EOS = 0, 2


def test_collate_masks_prompts_and_padding() -> None:
    rows = [
        {"input_ids": [11, 12, 13, 21, EOS], "num_target_tokens": 2, "weight": 1.0, "utilities": []},
        {"input_ids": [14, 22, 23, EOS], "num_target_tokens": 3, "weight": 1.0, "utilities": []},
        {"input_ids": [24, EOS], "num_target_tokens": 2, "weight": 1.0, "utilities": []},
    ]
    batch = {name: tensor.tolist() for name, tensor in collate(rows, PAD)._asdict().items() if tensor is not None}
    assert batch == {
        "input_ids": [[11, 12, 13, 21, EOS], [PAD, 14, 22, 23, EOS], [PAD, PAD, PAD, 24, EOS]],
        "attention_mask": [[1, 1, 1, 1, 1], [0, 1, 1, 1, 1], [0, 0, 0, 1, 1]],
        "position_ids": [[0, 1, 2, 3, 4], [0, 0, 1, 2, 3], [0, 0, 0, 0, 1]],
        "weights": [1.0, 1.0, 1.0],
        "labels": [[-100, 21, EOS], [22, 23, EOS], [-100, 24, EOS]],
        "utilities": [[], [], []],
    }
    *numbers, weights, utilities, hidden_states = collate(rows, PAD)
    assert {tensor.dtype for tensor in numbers} == {torch.long}
    assert weights.dtype == utilities.dtype == torch.float32
    assert hidden_states is None


def test_padding_that_equals_eos_hides_no_target() -> None:
    rows = [
        {"input_ids": [11, 12, 21, EOS], "num_target_tokens": 2, "weight": 1.0, "utilities": []},
        {"input_ids": [24, EOS], "num_target_tokens": 2, "weight": 1.0, "utilities": []},
    ]
    batch = collate(rows, EOS)
    assert batch.input_ids.tolist() == [[11, 12, 21, EOS], [EOS, EOS, 24, EOS]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1], [0, 0, 1, 1]]
    assert batch.labels.tolist() == [[21, EOS], [24, EOS]]


def test_hidden_states_are_padded_as_the_tokens_are_and_take_their_place() -> None:
    rows = [{"input_ids": [11] * length, "num_target_tokens": 1, "weight": 1.0, "utilities": []} for length in (3, 2)]
    assert collate(rows, PAD).model_inputs().keys() == {"input_ids", "attention_mask", "position_ids"}
    states = [{**row, "hidden_states": torch.full((len(row["input_ids"]), 4), 0.5)} for row in rows]
    batch = collate(states, PAD)
    assert batch.hidden_states is not None
    assert batch.hidden_states.sum(dim=2).tolist() == [[2, 2, 2], [0, 2, 2]]
    assert batch.model_inputs().keys() == {"inputs_embeds", "attention_mask", "position_ids"}


@pytest.mark.parametrize("with_states", [False, True])
def test_lightnings_reduced_precision_finds_the_tensors_of_a_step(with_states: bool) -> None:
    row = {"input_ids": [11, EOS], "num_target_tokens": 1, "weight": 1.0, "utilities": [0.5]}
    if with_states:
        row["hidden_states"] = torch.ones(2, 4)
    step = HalfPrecision("bf16-true").convert_input(Step([collate([row], PAD)], 1.0))
    assert isinstance(step, Step)
    (batch,) = step.micro_batches
    assert isinstance(batch, MicroBatch)
    assert batch.input_ids.dtype == torch.long
    assert batch.weights.dtype == torch.bfloat16
    assert (batch.hidden_states is not None) == with_states
    moved = batch.to(torch.device("meta"))
    assert all(field is None or field.is_meta for field in moved)
