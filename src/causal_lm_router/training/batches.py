"""Which queries make up which optimizer step: an order that is a pure function of (seed, epoch).

A step holds `rows_per_step` queries of similar length, shared out over the ranks; each rank's part is cut into
micro-batches of at most `max_tokens` tokens, padding included, which bounds the memory.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import datasets
import numpy as np
import torch

from causal_lm_router.training.frozen_layers import HiddenStates
from causal_lm_router.training.rows import collate

WINDOW_STEPS = 16  # steps whose queries are sorted by length together: less padding, still a random mix


class Step(NamedTuple):
    """One optimizer step on one rank. The loss is divided by `total_weight`, that of the queries of all ranks.

    A query weighs its target's tokens, or 1 where no target is supervised, times its own weight.

    A tuple, for Lightning's reduced precision looks for tensors inside and cannot look into a frozen dataclass.
    """

    micro_batches: list[dict[str, torch.Tensor]]
    total_weight: float


class Progress(Protocol):
    """How far training is and which part of it this process does; a Lightning Trainer is one."""

    @property
    def global_step(self) -> int:
        """Optimizer steps done."""

    @property
    def global_rank(self) -> int:
        """Number of this process, from 0."""

    @property
    def world_size(self) -> int:
        """Number of processes."""


def plan_epoch(lengths: Sequence[int], rows_per_step: int, seed: int, epoch: int) -> list[list[int]]:
    """Return the row indices of every step of an epoch; each row stands in exactly one step.

    Rows are shuffled, sorted by length within windows of WINDOW_STEPS steps, cut into steps, and the steps shuffled.
    Only the last step may be short.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    window = rows_per_step * WINDOW_STEPS
    lengths_array = np.asarray(lengths)
    steps: list[list[int]] = []
    for start in range(0, len(order), window):
        rows = order[start : start + window]
        rows = rows[np.argsort(-lengths_array[rows], kind="stable")]
        steps += [rows[i : i + rows_per_step].tolist() for i in range(0, len(rows), rows_per_step)]
    return [steps[i] for i in rng.permutation(len(steps))]


def cut_micro_batches(rows: Sequence[int], lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Return the rows, longest first, in groups whose size times longest row is at most `max_tokens`.

    A row longer than `max_tokens` stands alone.
    """
    groups: list[list[int]] = []
    for row in sorted(rows, key=lambda index: (-lengths[index], index)):
        if groups and (len(groups[-1]) + 1) * lengths[groups[-1][0]] <= max_tokens:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


class StepLoader:
    """The training data as Lightning iterates it: one item an optimizer step, one pass an epoch.

    It has no position of its own: an iteration starts at the number of steps done so far, as told by `progress`, so
    a resumed run goes on with the very step that an uninterrupted one would take.
    """

    def __init__(
        self,
        rows: datasets.Dataset,
        pad_token_id: int,
        rows_per_step: int,
        max_tokens: int,
        seed: int,
        progress: Progress,
        hidden: HiddenStates | None = None,
    ) -> None:
        self._rows = rows.with_format("numpy")
        self._hidden = hidden
        self._lengths = rows["num_tokens"][:]
        self._weights = np.asarray(rows["weight"][:]) * np.maximum(1, rows["num_target_tokens"][:])
        self._pad_token_id = pad_token_id
        self._rows_per_step = rows_per_step
        self._max_tokens = max_tokens
        self._seed = seed
        self._progress = progress

    def __len__(self) -> int:
        """Optimizer steps an epoch."""
        return -(-len(self._lengths) // self._rows_per_step)

    def __iter__(self) -> Iterator[Step]:
        epoch, start = divmod(self._progress.global_step, len(self))
        plan = plan_epoch(self._lengths, self._rows_per_step, self._seed, epoch)
        for rows in plan[start:]:
            yield self._load(rows)

    def _load(self, rows: list[int]) -> Step:
        own = rows[self._progress.global_rank :: self._progress.world_size]
        groups = cut_micro_batches(own or rows[:1], self._lengths, self._max_tokens)
        micro_batches = [collate([self._row(i) for i in group], self._pad_token_id) for group in groups]
        if not own:
            # The other ranks wait for this one's gradients, so it takes part with a row that adds none.
            micro_batches[0]["weights_B"].zero_()
        return Step(micro_batches, float(self._weights[rows].sum()))

    def _row(self, index: int) -> dict[str, Any]:
        row: dict[str, Any] = self._rows[index]
        return row if self._hidden is None else {**row, "hidden": self._hidden[index]}

    def state_dict(self) -> dict[str, Any]:
        """What identifies the order of the steps; stored in checkpoints."""
        return {"num_rows": len(self._lengths), "rows_per_step": self._rows_per_step, "seed": self._seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Check that a checkpoint belongs to this data and order; raise ValueError where it does not."""
        if state != self.state_dict():
            raise ValueError(
                f"checkpoint: was made with {state}, this run has {self.state_dict()}; start a new run folder"
            )
