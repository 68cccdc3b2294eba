"""What is known of the candidates without reading a query: their means over the training queries."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from causal_lm_router.routing import Candidate, RoutingExample


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainMeans:
    """Means over the training queries by candidate name, in pool order."""

    scores: Mapping[str, float]
    by_task: Mapping[str, Mapping[str, float]]
    """Task -> the candidates' mean scores on its queries."""
    costs: Mapping[str, float] | None
    """Mean costs (USD); None unless all costs are known."""


def train_means(train: Sequence[RoutingExample], pool: Sequence[Candidate]) -> TrainMeans:
    """Return the candidates' means over `train`, which must have at least one query."""
    names = [one.name for one in pool]
    by_task: dict[str, list[Mapping[str, float]]] = defaultdict(list)
    for example in train:
        by_task[example.task].append(example.scores)
    costs = [example.costs for example in train if example.costs is not None]
    return TrainMeans(
        scores=_means([example.scores for example in train], names),
        by_task={task: _means(rows, names) for task, rows in by_task.items()},
        costs=_means(costs, names) if len(costs) == len(train) else None,
    )


def _means(rows: Sequence[Mapping[str, float]], names: Sequence[str]) -> dict[str, float]:
    # An exact sum: the order of the queries must not break ties of means.
    return {name: math.fsum(row[name] for row in rows) / len(rows) for name in names}
