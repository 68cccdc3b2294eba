"""Examples as arrays: a row per query, a column per candidate in pool order."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from causal_lm_router.data.arrays import Floats, known_matrix, matrix
from causal_lm_router.routing import Candidate, RoutingExample

Predictor = Callable[[Sequence[RoutingExample]], Floats]
"""Function from examples to predictions (queries x candidates); higher is better."""


def score_table(examples: Sequence[RoutingExample], pool: Sequence[Candidate]) -> Floats:
    """Return the scores (queries x candidates)."""
    return matrix([example.scores for example in examples], [one.name for one in pool])


def label_table(examples: Sequence[RoutingExample], pool: Sequence[Candidate], labels: Mapping[str, str]) -> Floats:
    """Return 1 at every query's label and 0 elsewhere (queries x candidates).

    Raises:
        ValueError: a query has no label, or one that is not in the pool.
    """
    columns = {one.name: column for column, one in enumerate(pool)}
    for example in examples:
        if labels.get(example.query_id) not in columns:
            label = labels.get(example.query_id)
            raise ValueError(
                f"the label of query {example.query_id!r} must be a candidate ({', '.join(columns)}), got {label!r}"
            )
    return np.eye(len(pool))[[columns[labels[example.query_id]] for example in examples]]


def cost_table(examples: Sequence[RoutingExample], pool: Sequence[Candidate], method: str) -> Floats:
    """Return the costs (USD; queries x candidates); if any query's are unknown, all rows are input plus output prices.

    Raises:
        ValueError: neither all costs nor all prices are known.
    """
    # Costs of some queries and prices for others would not be comparable, so it is one or the other for all.
    costs = known_matrix([example.costs for example in examples], [one.name for one in pool])
    if costs is not None:
        return costs
    pairs = [(one.input_price, one.output_price) for one in pool]
    prices = [into + out for into, out in pairs if into is not None and out is not None]
    if len(prices) < len(pool):
        num_unknown = sum(example.costs is None for example in examples)
        raise ValueError(
            f"baseline.method must be one that needs no costs, got {method!r}: {num_unknown} of {len(examples)} "
            "queries have none, and the pool (data.pool_path) lacks prices"
        )
    return np.tile(np.array(prices), (len(examples), 1))
