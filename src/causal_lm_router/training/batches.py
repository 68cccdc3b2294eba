"""The queries of each optimizer step, in an order that is a pure function of (seed, epoch).

A step holds `queries_per_step` queries of similar length, divided among the ranks. Each rank cuts its part into
micro-batches of at most `max_tokens` tokens, which bounds the memory. They are counted as they are computed: with
padding, or packed with a beginning that all rows share once (see `models.packed_rows`).

A query can have several rows, which then begin with it. They stay in one step; where rows are packed each query has
micro-batches of its own, in which it is computed once.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import datasets
import numpy as np

from causal_lm_router.training.frozen_layers import HiddenStates
from causal_lm_router.training.rows import MicroBatch, collate

WINDOW_STEPS = 16
"""Steps whose queries are sorted by length together: less padding, and still a random mix."""


class Step(NamedTuple):
    """One optimizer step on one rank: its gradient is the sum of those of its micro-batches.

    A tuple, since Lightning's reduced precision looks for tensors inside and cannot write to a frozen dataclass.
    """

    micro_batches: list[MicroBatch]
    total_weight: float
    """What the loss is divided by: the sum over the queries of all ranks of a query's weight times the number of its
    target's tokens (1 where no target is supervised)."""


class Progress(Protocol):
    """How far training has come and which part of it this process does; a Lightning Trainer is one."""

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
    """Return the row indices of every step of an epoch; each row is in exactly one step.

    Rows are shuffled, sorted by length within windows of WINDOW_STEPS steps, cut into steps, and the steps shuffled.
    Only the last step may be short.
    """
    rng = np.random.default_rng([seed, epoch])
    # A random order gives every window a random sample of the rows.
    order = rng.permutation(len(lengths))
    window = rows_per_step * WINDOW_STEPS
    lengths_array = np.asarray(lengths)
    steps: list[list[int]] = []
    for start in range(0, len(order), window):
        rows = order[start : start + window]
        # Longest first inside the window, so that rows of similar length come into the same step.
        rows = rows[np.argsort(-lengths_array[rows], kind="stable")]
        steps += [rows[i : i + rows_per_step].tolist() for i in range(0, len(rows), rows_per_step)]
    # Otherwise each window would go from long to short queries.
    return [steps[i] for i in rng.permutation(len(steps))]


def cut_micro_batches(
    rows: Sequence[int], lengths: Sequence[int], max_tokens: int, num_shared: int | None = None
) -> list[list[int]]:
    """Return the rows, longest first, in groups of at most `max_tokens` tokens.

    Rows are packed where `num_shared` says how many tokens all begin with; without it they are padded to the longest.
    A row longer than `max_tokens` has a group of its own.
    """

    def count_tokens(group: Sequence[int]) -> int:
        if num_shared is None:
            return len(group) * lengths[group[0]]
        return num_shared + sum(lengths[row] - num_shared for row in group)

    groups: list[list[int]] = []
    for row in sorted(rows, key=lambda index: (-lengths[index], index)):
        if groups and count_tokens([*groups[-1], row]) <= max_tokens:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def _count_shared(rows: datasets.Dataset) -> int:
    """Return how many tokens all rows begin with."""
    first = rows[0]["input_ids"]
    num_shared = len(first)
    for batch in rows.select_columns("input_ids").iter(batch_size=1000):
        for ids in batch["input_ids"]:
            num_shared = min(num_shared, len(ids))
            differs = ids[:num_shared] != first[:num_shared]
            num_shared = int(differs.argmax()) if differs.any() else num_shared
    return num_shared


class StepLoader:
    """The training data as Lightning iterates over it: one item per optimizer step, one pass per epoch.

    It keeps no position: an iteration starts at the number of steps done so far, which `progress` knows. So a resumed
    run goes on with the step that an uninterrupted one would take. `hidden_states` are those of the frozen layers;
    `packs` says that the model computes rows without padding. Of `rows` every `rows_per_query` are about one query.
    """

    def __init__(
        self,
        rows: datasets.Dataset,
        pad_token_id: int,
        queries_per_step: int,
        max_tokens: int,
        seed: int,
        progress: Progress,
        hidden_states: HiddenStates | None = None,
        *,
        packs: bool = False,
        rows_per_query: int = 1,
    ) -> None:
        self._rows = rows.with_format("numpy")
        self._hidden_states = hidden_states
        self._lengths = rows["num_tokens"][:]
        # A query's share of a step's loss: the completion loss sums over target tokens, the others over queries.
        self._weights = np.asarray(rows["weight"][:]) * np.maximum(1, rows["num_target_tokens"][:])
        self._packs = packs
        # Rows of one query share more than this.
        self._num_shared = _count_shared(self._rows) if packs and rows_per_query == 1 else None
        self._rows_per_query = rows_per_query
        self._query_lengths = np.reshape(self._lengths, (-1, rows_per_query)).max(axis=1).tolist()
        self._pad_token_id = pad_token_id
        self._queries_per_step = queries_per_step
        self._max_tokens = max_tokens
        self._seed = seed
        self._progress = progress

    def __len__(self) -> int:
        """Return the number of optimizer steps per epoch."""
        return -(-len(self._query_lengths) // self._queries_per_step)

    def __iter__(self) -> Iterator[Step]:
        # After a resume in the middle of an epoch its first steps are done.
        epoch, start = divmod(self._progress.global_step, len(self))
        plan = plan_epoch(self._query_lengths, self._queries_per_step, self._seed, epoch)
        for queries in plan[start:]:
            yield self._load(queries)

    def _load(self, queries: list[int]) -> Step:
        # Every world_size-th query: they come longest first, so the ranks get similar lengths.
        own = queries[self._progress.global_rank :: self._progress.world_size]
        groups = self._cut(own or queries[:1])
        micro_batches = [collate([self._row(i) for i in group], self._pad_token_id) for group in groups]
        if not own:
            # A last step may have fewer queries than ranks. The others wait for this rank's gradients, so it computes
            # with rows of weight 0.
            for micro_batch in micro_batches:
                micro_batch.weights.zero_()
        return Step(micro_batches, float(self._weights[self._rows_of(queries)].sum()))

    def _rows_of(self, queries: Sequence[int]) -> list[int]:
        size = self._rows_per_query
        return [row for query in queries for row in range(query * size, (query + 1) * size)]

    def _cut(self, queries: Sequence[int]) -> list[list[int]]:
        """Return the rows of these queries in micro-batches."""
        if not self._packs or self._rows_per_query == 1:
            return cut_micro_batches(self._rows_of(queries), self._lengths, self._max_tokens, self._num_shared)
        groups: list[list[int]] = []
        for query in queries:
            rows = self._rows_of([query])
            num_shared = _count_shared(self._rows.select(rows))
            groups += cut_micro_batches(rows, self._lengths, self._max_tokens, num_shared)
        return groups

    def _row(self, index: int) -> dict[str, Any]:
        row: dict[str, Any] = self._rows[index]
        return row if self._hidden_states is None else {**row, "hidden_states": self._hidden_states[index]}

    def state_dict(self) -> dict[str, Any]:
        """Return what the order of the steps depends on; checkpoints store it."""
        rows_per_step = self._queries_per_step * self._rows_per_query
        return {"num_rows": len(self._lengths), "rows_per_step": rows_per_step, "seed": self._seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Check that a checkpoint belongs to this data and order.

        Raises:
            ValueError: it belongs to another one.
        """
        if state != self.state_dict():
            raise ValueError(
                f"checkpoint: was made with {state}, this run has {self.state_dict()}; start a new run folder"
            )
