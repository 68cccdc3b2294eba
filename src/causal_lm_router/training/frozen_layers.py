"""Layers below the lowest adapted one: what they say of every training row is computed once and kept in the cache.

They never change, so each epoch, seed and objective over the same rows would compute the same again. With
`lora.num_layers=10` of 30 that is two thirds of a step.
"""

import contextlib
import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from filelock import FileLock
from torch import Tensor, nn

from causal_lm_router.terminal import progress_bar
from causal_lm_router.training.rows import collate

logger = logging.getLogger(__name__)
ROWS = 32  # of a forward pass


class HiddenStates:
    """For every row the input of the lowest layer that is not frozen: [tokens of the row, width], memory-mapped."""

    def __init__(self, path: Path, lengths: Sequence[int], width: int, dtype: torch.dtype) -> None:
        self._ends = np.cumsum(lengths)
        self._lengths = lengths
        size = int(self._ends[-1]) * width
        self._values = torch.from_file(str(path), shared=False, size=size, dtype=dtype).view(-1, width)

    def __getitem__(self, row: int) -> Tensor:
        end = int(self._ends[row])
        return self._values[end - self._lengths[row] : end]


@contextlib.contextmanager
def reuse_frozen_layers(
    model: nn.Module, rows: datasets.Dataset, pad_token_id: int, num_trained: int, identity: str, cache: Path
) -> Iterator[HiddenStates]:
    """Yield the hidden states below the last `num_trained` layers; inside the block the model has those layers alone.

    `identity` names base model, revision and dtype. What is in the cache already is checked on the first row and made
    anew where it does not hold. Raises ValueError for an architecture whose layers do not work like this.
    """
    num_frozen = len(decoder_layers(model)) - num_trained
    lengths = rows["num_tokens"][:]
    rows = rows.with_format("numpy")
    path = cache / "hidden_states" / f"{_content_hash(rows, identity, num_frozen)}.bin"
    path.parent.mkdir(parents=True, exist_ok=True)
    first = _lower_output(model, collate([rows[0]], pad_token_id), num_frozen)[0]
    with FileLock(f"{path}.lock"):
        states = _open(path, lengths, first)
        if states is None:
            logger.info("computing the hidden states of the frozen layers for %d rows, once", len(rows))
            _write(path, model, rows, lengths, pad_token_id, num_frozen)
            states = _open(path, lengths, first)
    if states is None:
        raise ValueError(
            "trainer.reuse_frozen_layers=true: the frozen layers give other values in a batch, allowed is false"
        )
    whole = _logits(model, collate([rows[0]], pad_token_id))
    with _skip_layers(model, range(num_frozen)):
        upper = _logits(model, collate([{**rows[0], "hidden": states[0]}], pad_token_id))
        if not torch.allclose(whole, upper, atol=0.05 * float(whole.std())):
            raise ValueError(
                f"trainer.reuse_frozen_layers=true: the layers of {type(model).__name__} cannot be run apart, allowed "
                "is false"
            )
        yield states


def _content_hash(rows: datasets.Dataset, identity: str, num_frozen: int) -> str:
    """A hash of all that the states follow from: they are the same whatever the rows teach."""
    digest = hashlib.sha256(f"{identity} {num_frozen}".encode())
    for row in rows.select_columns("input_ids"):
        digest.update(row["input_ids"].tobytes() + b"\0")
    return digest.hexdigest()[:32]


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """Return the base model's list of layers. Raises ValueError where there is none of the configured length."""
    num_layers = int(model.config.num_hidden_layers)  # type: ignore[union-attr, arg-type]
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == num_layers:
            return module
    raise ValueError(
        f"trainer.reuse_frozen_layers=true: no list of {num_layers} layers in the base model, allowed is false"
    )


def model_inputs(micro_batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what the model starts from: token ids, or the hidden states below the lowest adapted layer."""
    if "hidden_BTD" in micro_batch:
        return {"inputs_embeds": micro_batch["hidden_BTD"]}
    return {"input_ids": micro_batch["input_ids_BT"]}


class _IdentityLayer(nn.Module):
    def forward(self, hidden_states: Tensor, *arguments: Any, **options: Any) -> Tensor:
        return hidden_states


@contextlib.contextmanager
def _skip_layers(model: nn.Module, numbers: Sequence[int] | range) -> Iterator[None]:
    """Put layers that do nothing in the places of some; their neighbours keep their names."""
    layers = decoder_layers(model)
    kept = {number: layers[number] for number in numbers}
    try:
        for number in kept:
            layers[number] = _IdentityLayer()
        yield
    finally:
        for number, layer in kept.items():
            layers[number] = layer


@torch.no_grad()
def _lower_output(model: nn.Module, micro_batch: Mapping[str, Tensor], num_frozen: int) -> Tensor:
    """The output of the frozen layers [B, T, D]."""
    found: list[Tensor] = []
    layers = decoder_layers(model)
    handle = layers[num_frozen - 1].register_forward_hook(
        lambda module, inputs, output: found.append(output[0] if isinstance(output, tuple) else output)
    )
    try:
        with _skip_layers(model, range(num_frozen, len(layers))):
            _logits(model, micro_batch)
    finally:
        handle.remove()
    return found[0]


@torch.no_grad()
def _logits(model: nn.Module, micro_batch: Mapping[str, Tensor]) -> Tensor:
    device = next(model.parameters()).device
    batch = {name: value.to(device) for name, value in micro_batch.items()}
    logits: Tensor = model(
        **model_inputs(batch),
        attention_mask=batch["attention_mask_BT"],
        position_ids=batch["position_ids_BT"],
        logits_to_keep=1,
        use_cache=False,
    ).logits
    return logits.float()


def _write(
    path: Path, model: nn.Module, rows: datasets.Dataset, lengths: Sequence[int], pad_token_id: int, num_frozen: int
) -> None:
    """Write the rows' states one after another, in the order of the rows, computed in batches of like lengths."""
    order = np.argsort(lengths, kind="stable").tolist()
    ends = np.cumsum(lengths)
    temporary = path.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    written: Tensor | None = None
    bar = progress_bar(name="frozen layers", unit="queries", total=len(order))
    for start in range(0, len(order), ROWS):
        part = order[start : start + ROWS]
        output = _lower_output(model, collate([rows[index] for index in part], pad_token_id), num_frozen).cpu()
        if written is None:
            width, dtype = output.shape[-1], output.dtype
            size = int(ends[-1]) * width
            written = torch.from_file(str(temporary), shared=True, size=size, dtype=dtype).view(-1, width)
        for number, index in enumerate(part):
            written[ends[index] - lengths[index] : ends[index]] = output[number, -lengths[index] :]
        bar.update(len(part))
    bar.close()
    temporary.replace(path)


def _open(path: Path, lengths: Sequence[int], first: Tensor) -> HiddenStates | None:
    """The states in a file, or None where it is missing or holds something else."""
    width, dtype = first.shape[-1], first.dtype
    if not path.is_file() or path.stat().st_size != sum(lengths) * width * first.element_size():
        return None
    states = HiddenStates(path, lengths, width, dtype)
    is_same = torch.allclose(states[0].float(), first.cpu().float(), atol=0.05 * float(first.float().std()))
    return states if is_same else None
