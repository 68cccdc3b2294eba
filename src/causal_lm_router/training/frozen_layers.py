"""Frozen layers: their output is computed once for every training row and kept in the cache.

The layers below the lowest adapted one never change, so each epoch, seed and objective over the same rows would compute
the same hidden states again. With `lora.num_layers=10` of 30 that is two thirds of a step.

Shape suffixes: B rows of a batch, T positions, D width of the base model.
"""

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from filelock import FileLock
from torch import Tensor, nn

from causal_lm_router.files.checksums import make_cached
from causal_lm_router.files.writing import remove_folder
from causal_lm_router.training.rows import MicroBatch, collate

logger = logging.getLogger(__name__)
STATES = "states.bin"
ROWS = 32
"""Rows of a forward pass through the frozen layers."""
SAME_SHAPE_TOLERANCE = 1e-3
"""Largest error of logits, relative to their spread, between two computations of the same shapes. These agree bit for
bit on most machines, in every number format; an architecture that cannot be split is far off."""
OTHER_SHAPE_TOLERANCE = 0.1
"""Largest error of a token's hidden state, relative to its norm, between a row alone and the same row in a batch.
Kernels round by shape: measured up to 0.02 in bfloat16 (20 layers of SmolLM2-135M, AMX) and 2e-6 in float32."""
NOT_POSSIBLE = "trainer.reuse_frozen_layers must be false for this base model, got true"


class HiddenStates:
    """The input of the lowest adapted layer for every training row: [tokens of the row, D], memory-mapped."""

    def __init__(self, path: Path, lengths: Sequence[int], width: int, dtype: torch.dtype) -> None:
        # The file holds the tokens of all rows one after another.
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
    """Yield the hidden states of the frozen layers; inside the block the model has its last `num_trained` layers alone.

    `identity` stands for the content and number format of the base model. Hidden states from the cache are checked on
    the first row, and computed again where they are wrong.

    Raises:
        ValueError: the base model's layers cannot be run apart, or do not treat the rows of a batch separately.
    """
    num_frozen = len(decoder_layers(model)) - num_trained
    lengths = rows["num_tokens"][:]
    rows = rows.with_format("numpy")
    first_row = collate([rows[0]], pad_token_id)
    first_BTD = _frozen_output(model, first_row, num_frozen)
    _check_split(model, first_row, first_BTD, num_frozen)
    folder = cache / "hidden_states" / _content_hash(rows, identity, num_frozen)

    def make(temporary: Path) -> None:
        logger.info("computing the hidden states of the frozen layers for %d rows, once", len(rows))
        _write(temporary / STATES, model, rows, lengths, pad_token_id, num_frozen)

    def open_states() -> HiddenStates | None:
        make_cached(folder, make)
        return _open(folder / STATES, lengths, first_BTD[0])

    folder.parent.mkdir(parents=True, exist_ok=True)
    # Several jobs of a sweep may want the same states; the first one writes them.
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        is_there = folder.is_dir()
        states = open_states()
        if states is None and is_there:
            remove_folder(folder)
            states = open_states()
    if states is None:
        raise ValueError(f"{NOT_POSSIBLE}: its frozen layers compute other values for a row in a batch than alone")
    with _skip_layers(model, range(num_frozen)):
        yield states


def _check_split(model: nn.Module, row: MicroBatch, frozen_BTD: Tensor, num_frozen: int) -> None:
    """Raise ValueError unless the upper layers give the whole model's logits from the frozen layers' output.

    A model may use more of the input than the hidden states: GPT-2 adds its positions to them a second time.
    """
    whole = _logits(model, row)
    # Everything has the same shape as in the whole model, so rounding is the same too.
    with _skip_layers(model, range(num_frozen)):
        split = _logits(model, row._replace(hidden_states=frozen_BTD))
    error = (whole - split).square().mean().sqrt()
    # Written so that NaN is refused.
    if not error <= SAME_SHAPE_TOLERANCE * whole.std():
        raise ValueError(f"{NOT_POSSIBLE}: the layers of {type(model).__name__} cannot be run apart")


def _content_hash(rows: datasets.Dataset, identity: str, num_frozen: int) -> str:
    """Return a hash of all that the hidden states follow from; labels and weights are no part of it."""
    digest = hashlib.sha256(f"{identity} {num_frozen}".encode())
    for row in rows.select_columns("input_ids"):
        # The end of a row counts: the same ids cut elsewhere are other rows.
        digest.update(row["input_ids"].tobytes() + b"\0")
    return digest.hexdigest()[:32]


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """Return the base model's list of layers.

    Raises:
        ValueError: it has no list of the configured length.
    """
    num_layers = int(model.config.num_hidden_layers)  # type: ignore[union-attr, arg-type]
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == num_layers:
            return module
    raise ValueError(f"{NOT_POSSIBLE}: it has no list of {num_layers} layers")


class _IdentityLayer(nn.Module):
    """A layer that passes the hidden states on and ignores its other arguments."""

    def forward(self, hidden_states: Tensor, *arguments: Any, **options: Any) -> Tensor:
        return hidden_states


@contextlib.contextmanager
def _skip_layers(model: nn.Module, numbers: Sequence[int] | range) -> Iterator[None]:
    """Put layers that do nothing in the places of some; the names of all other layers stay."""
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
def _frozen_output(model: nn.Module, micro_batch: MicroBatch, num_frozen: int) -> Tensor:
    """Return the output of the last frozen layer [B, T, D]."""
    found: list[Tensor] = []
    layers = decoder_layers(model)
    # Layers return a tensor, in some versions of transformers a tuple that begins with it.
    handle = layers[num_frozen - 1].register_forward_hook(
        lambda module, inputs, output: found.append(output[0] if isinstance(output, tuple) else output)
    )
    try:
        # The layers above need not be computed.
        with _skip_layers(model, range(num_frozen, len(layers))):
            _logits(model, micro_batch)
    finally:
        handle.remove()
    return found[0]


@torch.no_grad()
def _logits(model: nn.Module, micro_batch: MicroBatch) -> Tensor:
    """Return the logits after the last token of every row, in float32."""
    inputs = micro_batch.to(next(model.parameters()).device).model_inputs()
    logits: Tensor = model(**inputs, logits_to_keep=1, use_cache=False).logits
    return logits.float()


def _write(
    path: Path, model: nn.Module, rows: datasets.Dataset, lengths: Sequence[int], pad_token_id: int, num_frozen: int
) -> None:
    """Write the rows' hidden states one after another, in the order of the rows."""
    # Rows of similar length are computed together: little padding.
    order = np.argsort(lengths, kind="stable").tolist()
    ends = np.cumsum(lengths)
    written: Tensor | None = None
    for start in range(0, len(order), ROWS):
        part = order[start : start + ROWS]
        output = _frozen_output(model, collate([rows[index] for index in part], pad_token_id), num_frozen).cpu()
        # Width and number format are known from the first output on.
        if written is None:
            width, dtype = output.shape[-1], output.dtype
            size = int(ends[-1]) * width
            _allocate(path, size * output.element_size())
            written = torch.from_file(str(path), shared=True, size=size, dtype=dtype).view(-1, width)
        for number, index in enumerate(part):
            # The row's tokens are at the right end, after the padding.
            written[ends[index] - lengths[index] : ends[index]] = output[number, -lengths[index] :]


def _allocate(path: Path, num_bytes: int) -> None:
    """Make a file of that size with all of its blocks on the disk.

    A write to a memory map of a file without them ends the process by SIGBUS where the disk is full.

    Raises:
        OSError: there is no room; nothing is left behind.
    """
    try:
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, num_bytes)
    except OSError as error:
        path.unlink(missing_ok=True)
        need = f"trainer.reuse_frozen_layers=true needs {num_bytes / 1e6:,.1f} MB in the cache folder {path.parent}"
        raise OSError(error.errno, f"{need}: {error.strerror}") from error


def _open(path: Path, lengths: Sequence[int], first: Tensor) -> HiddenStates | None:
    """Return the hidden states in a file; None where it is missing or is wrong about the first row [tokens, D]."""
    width, dtype = first.shape[-1], first.dtype
    if not path.is_file() or path.stat().st_size != sum(lengths) * width * first.element_size():
        return None
    states = HiddenStates(path, lengths, width, dtype)
    # Token by token: the first token of a text often has a norm a hundred times that of the others.
    expected = first.cpu().float()
    errors = (states[0].float() - expected).norm(dim=1) / expected.norm(dim=1)
    return states if bool((errors <= OTHER_SHAPE_TOLERANCE).all()) else None
